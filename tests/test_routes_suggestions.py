"""What may be meant is suggested over HTTP, whatever is typed."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_annotations import paint
from test_store import write

from features.collection import edits
from gradio_app.routes.suggestions import suggestion_routes


class Open:
    """Of an engine only its collection is needed."""

    def __init__(self, store):
        self.store = store


@pytest.fixture
def store(tmp_path):
    return write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "a c")


@pytest.fixture
def client(store):
    return TestClient(FastAPI(routes=suggestion_routes({"a c": Open(store)})))


def suggested(client, typed):
    reply = client.get("/suggestions/a%20c", params={"typed": typed})
    assert reply.headers["cache-control"] == "no-store"
    return [(each["text"], each["kind"], each["count"]) for each in reply.json()]


def test_suggestions_follow_edits(store, client):
    assert suggested(client, "red li") == []
    assert not store.has_annotations
    edits.add_tag(store.annotations, [0, 1], "lighthouse")
    assert suggested(client, "red li") == [("red tag:lighthouse ", "tag", 2)]
    edits.add_tag(store.annotations, [3], "limes")
    assert [text for text, *_ in suggested(client, "red li")] == ["red tag:lighthouse ", "red tag:limes "]


@pytest.mark.parametrize(
    "typed", ["", "\0", "<script>", "'; DROP TABLE tags; --", "\u202e", '"' * 99, "\\" * 99, "(" * 99]
)
def test_whatever_is_typed_is_answered(client, typed):
    assert suggested(client, typed) == []


def test_what_is_not_there_is_said(client):
    assert client.get("/suggestions/other", params={"typed": "a"}).status_code == 404
    assert client.get("/suggestions/a%20c", params={"typed": "a" * 10_001}).status_code == 422
