"""What is done with selected pictures: a zip file, exports, and edits that are one each and need the permission."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_annotations import paint
from test_store import write

from features.collection import edits
from gradio_app.routes.access import StartToken
from gradio_app.routes.pictures import content_of
from gradio_app.routes.selection import MAX_SELECTED, selection_routes
from search.engine import SearchEngine

TOKEN = StartToken()


@pytest.fixture
def engine(tmp_path):
    made = SearchEngine.__new__(SearchEngine)  # of which only its collection is needed
    made.store = write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")
    made.name = "c"
    return made


def client_of(engine, *, is_managed=True, holds_token=True):
    app = FastAPI(routes=selection_routes({"c": engine}, TOKEN, is_managed=is_managed))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


def named(engine, *ids):
    return [(id, content_of(engine, id)) for id in ids]


@pytest.mark.parametrize(
    ("edit", "text", "what"),
    [
        ("tag", "sea", "tagged sea (3 pictures)"),
        ("caption", "A boat", "caption added (3 pictures)"),
        ("favourite", "", "made a favourite (3 pictures)"),
        ("album", "Best", "put in the album Best (3 pictures)"),
        ("field", "4", "rating set to 4 (3 pictures)"),
    ],
)
def test_an_edit_of_a_selection_is_one(engine, edit, text, what):
    client, said = client_of(engine), engine.store.annotations
    reply = client.post(
        "/selection/c", json={"do": edit, "text": text, "name": "rating", "pictures": named(engine, 0, 2, 4)}
    )
    assert f"Undo: {what}" in reply.text
    assert sorted(said.of(range(5))) == [0, 2, 4]
    (last,) = edits.edits(said)
    assert client.post("/selection/c", json={"do": "undo", "edit": last.number}).status_code == 200
    assert said.of(range(5)) == {}


def test_what_was_put_in_is_taken_out(engine):
    client, said = client_of(engine), engine.store.annotations
    pictures = named(engine, 0, 1)
    for edit, text in [
        ("tag", "sea"),
        ("untag", "SEA"),
        ("album", "x"),
        ("no_album", "X"),
        ("favourite", ""),
        ("no_favourite", ""),
    ]:
        assert client.post("/selection/c", json={"do": edit, "text": text, "pictures": pictures}).status_code == 200
    assert said.of(range(5)) == {}
    assert len(edits.edits(said)) == 6


def test_nothing_is_edited_by_whom_it_is_not_permitted_or_where_pictures_have_changed(engine):
    sea = {"do": "tag", "text": "sea", "pictures": named(engine, 0, 1)}
    for client in (client_of(engine, holds_token=False), client_of(engine, is_managed=False)):
        assert client.post("/selection/c", json=sea).status_code == 403
        assert "ris-bulk" not in client.get("/selection/c").text
    client = client_of(engine)
    assert (
        client.post("/selection/c", json={**sea, "pictures": [(0, content_of(engine, 0)), (1, "0" * 16)]}).status_code
        == 409
    )
    assert client.post("/selection/c", json={**sea, "pictures": [(99, "")]}).status_code == 404
    assert client.post("/selection/c", json={**sea, "text": " "}).json()["detail"].startswith("A tag has")
    assert client.post("/selection/c", json={**sea, "pictures": [(0, "")] * (MAX_SELECTED + 1)}).status_code == 422
    assert client.post("/selection/d", json=sea).status_code == 404
    assert engine.store.annotations.of(range(5)) == {}


def test_originals_come_as_a_zip_file(engine):
    engine.store.items[3].path.unlink()
    reply = client_of(engine, holds_token=False).post(
        "/selection/c/zip", data={"pictures": json.dumps(named(engine, 1, 3, 1))}
    )
    assert reply.headers["content-disposition"] == 'attachment; filename="c.zip"'
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["b.jpg", "not readable.txt"]
        assert archive.read("b.jpg") == b"B"
        assert archive.read("not readable.txt").startswith(b"d.jpg: ")


def test_exports_hold_what_is_said(engine):
    said = engine.store.annotations
    edits.add_tag(said, [1], "sea")
    edits.add_caption(said, [1], "A <boat>, at sea")
    edits.set_field(said, [1], "rating", 4)
    edits.put_in_album(said, [1], "Best")
    form = {"pictures": json.dumps(named(engine, 0, 1))}
    client = client_of(engine)
    first, second = map(
        json.loads, client.post("/selection/c/export", data={**form, "kind": "jsonl"}).text.splitlines()
    )
    assert first == {"path": "a.jpg", "labels": [], "captions": [], "tags": [], "favourite": False, "albums": []}
    assert second == {
        **first,
        "path": "b.jpg",
        "captions": ["A <boat>, at sea"],
        "tags": ["sea"],
        "albums": ["Best"],
        "rating": 4,
    }
    rows = list(csv.DictReader(io.StringIO(client.post("/selection/c/export", data={**form, "kind": "csv"}).text)))
    assert [row["path"] for row in rows] == ["a.jpg", "b.jpg"]
    assert (rows[1]["tags"], rows[1]["rating"], rows[0]["rating"]) == ('["sea"]', "4", "")
    # Where files lie is told to who may manage the server, to others where in the collection.
    paths = {**form, "kind": "paths"}
    assert client.post("/selection/c/export", data=paths).text.splitlines()[0] == str(engine.store.items[0].path)
    assert client_of(engine, holds_token=False).post("/selection/c/export", data=paths).text == "a.jpg\nb.jpg\n"
    other = {"sec-fetch-site": "cross-site"}
    assert client.post("/selection/c/export", data=paths, headers=other).status_code == 403


def test_all_that_is_found_is_selected(engine):
    edits.add_tag(engine.store.annotations, [1, 3], "sea")
    client = client_of(engine)
    assert [tuple(each) for each in client.get("/selection/c/all").json()] == named(engine, *range(5))
    assert [id for id, _ in client.get('/selection/c/all?where={"tag":"sea"}').json()] == [1, 3]
    assert client.get('/selection/c/all?where={"colour":"x"}').status_code == 409
