"""All that is said, given out as a table by the page and taken in again as one edit."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_annotations import paint
from test_routes_words import Open
from test_store import write

from features.collection import edits
from gradio_app.routes import annotations as routes
from gradio_app.routes.access import StartToken
from gradio_app.routes.annotations import annotation_routes

TOKEN = StartToken()


@pytest.fixture
def store(tmp_path):
    return write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")


def client_of(store, *, holds_token=True):
    engine = Open(store)
    engine.name = "c"
    app = FastAPI(routes=annotation_routes({"c": engine}, TOKEN, is_managed=True))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_is_given_out_is_taken_in_again_as_one_edit(store, kind):
    client, said = client_of(store), store.annotations
    edits.add_tag(said, [0, 1], "sea, blue")
    edits.set_field(said, [1], "rating", 4.5)
    before = said.of(range(5))
    table = client.get(f"/annotations/c?kind={kind}")
    assert table.headers["content-disposition"].endswith(f"c%20words.{kind}")
    edits.undo(said)
    edits.undo(said)
    assert said.of(range(5)) == {}
    told = client.put(f"/annotations/c?kind={kind}", content=table.content).json()["told"]
    assert told == "3 rows of 2 pictures taken in."
    assert said.of(range(5)) == before
    assert edits.undo(said) == "3 rows of a table taken in (2 pictures)"
    assert said.of(range(5)) == {}


def test_rows_of_other_pictures_are_told(store):
    row = '{"path": "gone.jpg", "what": "tag", "value": "sea"}\n'
    told = client_of(store).put("/annotations/c", content=row.encode()).json()["told"]
    assert told == "0 rows of 0 pictures taken in. 1 rows are of no picture here, or of more than one."


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"[1]\n", 409, "Line 1 is no JSON object."),
        (b'{"path": "a.jpg", "what": "shout", "value": "x"}', 409, "what is one of caption"),
        (b'{"path": "\xff"}', 409, "The table is no text in UTF-8."),
        (b" " * 2_000, 413, "at most"),
    ],
)
def test_a_table_that_makes_no_sense_changes_nothing(store, monkeypatch, content, status, why):
    monkeypatch.setattr(routes, "MAX_TABLE", 1_000)
    refused = client_of(store).put("/annotations/c", content=content)
    assert refused.status_code == status and why in refused.json()["detail"]
    assert store.annotations.of(range(5)) == {}


def test_who_may_not_manage_takes_nothing_in_and_nothing_said_is_an_empty_table(store):
    client = client_of(store, holds_token=False)
    assert client.put("/annotations/c", content=b"").status_code == 403
    assert client.get("/annotations/c").text == "" and not store.has_annotations
    assert client.get("/annotations/c", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/annotations/other").status_code == 404
