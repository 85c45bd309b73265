"""What is said of pictures, edited over REST: as a whole, by who holds a key, taken back, and of no other picture."""

import pytest
from fastapi.testclient import TestClient
from rest_collection import colours
from test_rest import refused

from features.collection import edits
from features.collection.errors import StoreError
from features.collection.said import Caption, Tag
from gradio_app.library import Library
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.requests import RateLimit
from gradio_app.routes.api.service import create_api

IMAGE = "/api/v1/collections/c/images/0"
UNDO = "/api/v1/collections/c/undo"


@pytest.fixture
def engine(tmp_path, monkeypatch):
    return colours(tmp_path, monkeypatch, count=1)


@pytest.fixture
def client(engine, tmp_path):
    key = KeyStore(tmp_path).make("test", ("read", "write"))
    app = create_api(Library([engine]), folder=tmp_path, limit=RateLimit(0))
    return TestClient(app, headers={"authorization": f"Bearer {key}"})


def test_a_change_is_made_and_taken_back_as_a_whole(client, engine):
    edits.add_tag(engine.store.annotations, [0], "old")
    before = engine.store.annotations.of([0])
    content = client.get(IMAGE).json()["content"]
    change = {
        "content": content,
        "add_tags": ["sea", "boat"],
        "remove_tags": ["old"],
        "add_captions": ["A boat at sea"],
        "fields": {"rating": 4, "taken": "2024-02-03", "note": "2024"},
        "favourite": True,
    }
    said = client.patch(IMAGE, json=change).json()
    image = said["image"]
    assert image == client.get(IMAGE).json()
    assert sorted(tag["tag"] for tag in image["tags"]) == ["boat", "sea"]
    fields = {field["name"]: field["value"] for field in image["fields"]}
    assert fields == {"rating": 4, "taken": "2024-02-03T00:00:00+00:00", "note": "2024"}
    assert image["favourite"]
    found = client.post("/api/v1/search", json={"filter": {"taken": {"lt": "2025"}, "rating": {"gte": 4}}}).json()
    assert [hit["id"] for hit in found["hits"]] == [0]
    (last, *_) = edits.edits(engine.store.annotations)
    assert (last.number, "tagged sea, tagged boat, tag old removed" in last.what) == (said["undo"], True)
    undone = client.post(UNDO, json={"undo": said["undo"]}).json()["undone"]
    assert undone == last.what
    assert engine.store.annotations.of([0]) == before


def test_nothing_changed_is_nothing_to_take_back(client, engine):
    assert client.patch(IMAGE, json={}).json()["undo"] is None
    assert not engine.store.has_annotations
    assert client.patch(IMAGE, json={"favourite": False}).json()["undo"] is None
    assert client.patch(IMAGE, json={"add_tags": ["sea"]}).json()["undo"] is not None
    assert client.patch(IMAGE, json={"add_tags": ["sea"]}).json()["undo"] is None


def test_what_cannot_be_done_changes_nothing(client, engine):
    client.patch(IMAGE, json={"add_tags": ["sea"]})
    assert "at least one character" in refused(client.patch(IMAGE, json={"add_tags": ["x", " \0"]}), 409)
    for change, status in (
        ({"add_tags": ["y"], "fields": {"a": [1]}}, 422),
        ({"add_tags": "y"}, 422),
        ({"other": 1}, 422),
        ({"fields": {"n": 2**63}}, 400),
    ):
        refused(client.patch(IMAGE, json=change), status)
    assert refused(client.patch(IMAGE, content=b'{"a": 1, "a": 2}', headers={"content-type": "application/json"}), 400)
    assert engine.store.annotations.of([0])[0].tags == (Tag("sea"),)


def test_an_edit_reaches_no_other_picture(client, engine):
    assert "no longer the one" in refused(client.patch(IMAGE, json={"content": "0" * 16, "add_tags": ["sea"]}), 409)
    refused(client.patch(f"{IMAGE}9", json={"add_tags": ["sea"]}), 404)
    refused(client.patch(IMAGE.replace("/c/", "/d/"), json={"add_tags": ["sea"]}), 404)
    assert not engine.store.has_annotations


def test_only_the_last_change_is_taken_back(client, engine):
    mine = client.patch(IMAGE, json={"add_captions": ["mine"]}).json()["undo"]
    edits.add_tag(engine.store.annotations, [1], "theirs")
    assert "something else has been edited" in refused(client.post(UNDO, json={"undo": mine}), 409).lower()
    assert engine.store.annotations.of([0])[0].captions == (Caption("mine"),)


def test_writing_takes_a_key_that_opens_it(client, engine, tmp_path):
    stranger = TestClient(client.app)
    assert "takes a key" in refused(stranger.patch(IMAGE, json={"add_tags": ["sea"]}), 401)
    reader = {"authorization": f"Bearer {KeyStore(tmp_path).make('r', ('read',))}"}
    assert "does not open writing" in refused(stranger.patch(IMAGE, json={"add_tags": ["sea"]}, headers=reader), 403)
    refused(stranger.post(UNDO, json={"undo": 1}, headers=reader), 403)
    assert not engine.store.has_annotations


def test_edits_at_once_are_one_transaction(engine):
    annotations = engine.store.annotations
    with pytest.raises(StoreError):
        edits.change(annotations, [0, 99], edits.Changes(add_tags=("sea",), fields={"rating": 1}))
    assert annotations.of([0, 1, 2]) == {}
    number = edits.change(annotations, [0, 1], edits.Changes(add_tags=("sea",), fields={"rating": None}))
    assert [edit.number for edit in edits.edits(annotations)] == [number]
    assert edits.change(annotations, [0], edits.Changes()) is None
