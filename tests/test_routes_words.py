"""What is said of pictures is read by who sees them, and edited by who may manage collections."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_annotations import paint
from test_edits import FILE, MODEL, put
from test_store import write

from features.collection import edits
from features.collection.said import Caption, Tag, Words
from gradio_app.routes.access import StartToken
from gradio_app.routes.words import word_routes

TOKEN = StartToken()


class Open:
    """Of an engine only its collection is needed."""

    def __init__(self, store):
        self.store = store


@pytest.fixture
def store(tmp_path):
    return write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")


def client_of(store, *, is_managed=True, holds_token=True):
    app = FastAPI(routes=word_routes({"c": Open(store)}, TOKEN, is_managed=is_managed))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


@pytest.fixture
def client(store):
    return client_of(store)


def change(client, id, **what):
    return client.post(f"/words/c/{id}", json=what)


def test_each_word_is_shown_with_who_says_it(store, client):
    put(store.annotations, store, FILE, {0: Words({"A <b>boat</b>": None}, {"sea": None}, {"rating": 4})})
    put(store.annotations, store, MODEL, {0: Words({}, {"Sea": 0.83})})
    edits.add_tag(store.annotations, [0], "beach")
    page = client.get("/words/c/0").text
    assert "A &lt;b&gt;boat&lt;/b&gt;" in page
    assert "<small>file captions.csv</small>" in page
    assert "<span>Sea</span><small>model classes 83%, file captions.csv</small>" in page
    assert "<span>beach</span><small>a person</small>" in page
    assert "<dt>rating</dt><dd>4 <button" in page
    assert "Undo: tagged beach" in page
    edits.put_in_album(store.annotations, [0, 1], "<Best>")
    assert "In the album &lt;Best&gt;" in client.get("/words/c/0").text
    assert "In the album &lt;Best&gt;" in client_of(store, is_managed=False).get("/words/c/1").text


def test_reading_makes_no_file_and_nothing_said_is_nothing_shown(store):
    assert client_of(store, is_managed=False).get("/words/c/0").text == ""
    assert "Nothing is said of it yet" in client_of(store).get("/words/c/0").text
    assert not store.has_annotations
    for unknown in ("/words/c/5", "/words/c/-1", "/words/other/0"):
        assert client_of(store).get(unknown).status_code == 404


def test_edits_are_kept_and_taken_back(store, client):
    assert "<span>sea</span>" in change(client, 0, do="add_tag", text=" sea ").text
    assert change(client, 0, do="add_caption", text="a boat").status_code == 200
    assert "a red boat" in change(client, 0, do="change_caption", old="a boat", text="a red boat").text
    assert 'data-do="unlike"' in change(client, 0, do="like").text
    (said,) = store.annotations.of([0]).values()
    assert (said.captions, said.tags, said.is_favourite) == ((Caption("a red boat"),), (Tag("sea"),), True)
    while last := edits.edits(store.annotations, 1):
        assert change(client, 0, do="undo", edit=last[0].number).status_code == 200
    assert store.annotations.of([0]) == {}


def test_a_machines_word_that_a_person_removes_stays_away(store, client):
    for _ in range(2):
        put(store.annotations, store, MODEL, {0: Words({}, {"cat": 0.8, "dog": 0.7})})
        page = change(client, 0, do="remove_tag", text="cat").text
        assert "<span>cat</span>" not in page
        assert "<span>dog</span>" in page


def test_only_the_edit_that_was_shown_is_taken_back(store, client):
    change(client, 0, do="add_tag", text="sea")
    shown = edits.edits(store.annotations, 1)[0].number
    edits.add_tag(store.annotations, [1], "beach")
    reply = change(client, 0, do="undo", edit=shown)
    assert reply.status_code == 409
    assert reply.json()["detail"].startswith("Something else has been edited meanwhile")
    assert len(edits.edits(store.annotations)) == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"do": "add_tag", "text": " \0 "}, "A tag has at least one character that can be seen."),
        ({"do": "add_caption"}, "A caption has at least one character that can be seen."),
        ({"do": "change_caption", "old": "x", "text": ""}, "A caption has at least one character that can be seen."),
    ],
)
def test_what_cannot_be_done_is_a_sentence(client, what, said):
    reply = change(client, 0, **what)
    assert (reply.status_code, reply.json()["detail"]) == (409, said)


def test_strangers_only_read(store):
    edits.add_tag(store.annotations, [0], "sea")
    for client in (client_of(store, holds_token=False), client_of(store, is_managed=False)):
        page = client.get("/words/c/0").text
        assert "<span>sea</span>" in page
        assert "data-do" not in page
        assert change(client, 0, do="add_tag", text="mine").status_code == 403
    beside = client_of(store).post(
        "/words/c/0", json={"do": "add_tag", "text": "theirs"}, headers={"origin": "https://evil.example"}
    )
    assert beside.status_code == 403
    assert [tag.tag for tag in store.annotations.of([0])[0].tags] == ["sea"]


def test_what_the_page_never_sends_changes_nothing(store, client):
    for body in ({"do": "drop"}, {"text": "x"}, {"do": "add_tag", "text": 7}, [], {"do": "undo", "edit": "x"}):
        assert client.post("/words/c/0", json=body).status_code == 422
    assert not store.has_annotations


def test_what_a_page_of_before_sends_reaches_no_other_picture(store, client, tmp_path):
    shown = store.hash_of(0)[:16]
    assert change(client, 0, do="add_tag", text="sea", content=shown).status_code == 200
    again = write(
        paint(tmp_path / "others", v="V", w="W", x="X", y="Y", z="Z"), tmp_path / "c2"
    )  # made anew: other pictures, the same ids
    client = client_of(again)
    reply = change(client, 0, do="add_tag", text="sea", content=shown)
    assert reply.status_code == 409
    assert reply.json()["detail"].startswith("This picture is no longer the one that the page shows")
    assert not again.has_annotations
    assert client.get(f"/words/c/0?content={shown}").status_code == 409
    assert client.get(f"/words/c/0?content={again.hash_of(0)[:16]}").status_code == 200
    assert change(client, 0, do="add_tag", text="sea", content="\0 <b>").status_code == 409


def test_a_field_is_made_filled_checked_and_emptied(store, client):
    page = change(client, 0, do="set_field", name="Taken on", kind="date", text="2010-05-17").text
    assert "<dt>taken_on</dt><dd>2010-05-17" in page and '<option value="taken_on">date</option>' in page
    refused = change(client, 1, do="set_field", name="taken on", kind="text", text="soon")
    assert refused.status_code == 409
    assert refused.json()["detail"] == ("Taken_on holds a date, as 2010-05-17 or 2010-05-17T12:30, and 'soon' is none.")
    assert (
        "<dt>printed</dt><dd>yes" in change(client, 0, do="set_field", name="printed", kind="yes/no", text="Yes").text
    )
    assert "<dt>printed" not in change(client, 0, do="empty_field", text="printed").text
    assert "printed" in change(client, 0, do="undo", edit=edits.edits(store.annotations)[0].number).text
    assert change(client, 0, do="set_field", name="...", kind="text", text="x").status_code == 409
