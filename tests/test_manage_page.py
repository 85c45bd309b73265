"""What the Manage tab answers: who may is let, what makes no sense is told, and the form keeps what was typed."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from fakes import reds
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_annotations import paint
from test_routes_words import Open
from test_store import write

from features.collection import edits
from gradio_app.jobs import CollectionJobs, Job
from gradio_app.library import Library
from gradio_app.recipe import Recipe
from gradio_app.routes.access import StartToken
from gradio_app.routes.annotations import annotation_routes
from gradio_app.routes.uploads import library_routes, suggested_folders
from gradio_app.session import Session
from gradio_app.tabs.manage.handlers import ManageHandlers
from gradio_app.tabs.manage.views import job_view, shelf

TOKEN = StartToken()
HELD = f"{TOKEN.cookie}={TOKEN.secret}"
REQUEST = SimpleNamespace(headers={"cookie": HELD}, app=SimpleNamespace())
STRANGER = SimpleNamespace(headers={}, app=SimpleNamespace())
FORM = {
    "encoder": "auto",
    "quality": "fast",
    "index": "IVF8,PQ8",
    "with_faiss": False,
    "spaces": ["concepts"],
    "token": "",
}


class NoJobs(CollectionJobs):
    """Begins nothing, and notes what was asked for."""

    asked = None

    def create(self, name, pictures, recipe=None):
        self.asked = (name, pictures, recipe)
        return Job(f"Making {name}", name)

    def add(self, name, token):
        self.asked = (name, token)
        return Job(f"Adding pictures to {name}", name, sent=token)

    def create_of_sent(self, name, token, recipe=None):
        self.asked = (name, token, recipe)
        return Job(f"Making {name}", name, sent=token)


@pytest.fixture
def jobs(tmp_path):
    return NoJobs(tmp_path / "collections", Library([reds(tmp_path)]))


@pytest.fixture
def handlers(jobs):
    return ManageHandlers(jobs.library, jobs, TOKEN)


def test_the_form_is_emptied_only_when_there_is_a_collection(handlers, jobs):
    session = Session()
    handlers.create(session, "mine", "folder", "", "/pictures", **FORM, request=REQUEST)
    recipe = Recipe("auto", "IVF8,PQ8", 0.9, ("ivfpq",), ("concepts",))
    assert jobs.asked == ("mine", "/pictures", recipe)
    skipped = (gr.skip(),) * 7
    for state in ("running", "failed", "cancelled"):
        session.making.job.state = state
        assert handlers.open_made(session, "mine", "folder", "/pictures", "") == skipped
    session.making.job.state = "done"
    jobs.library.put(SimpleNamespace(name="mine", store=SimpleNamespace(ids=range(7)), folder=Path("elsewhere")))
    chooser, folder, sent, into, name, *_ = handlers.open_made(session, "next", "folder", "/pictures", "")
    assert chooser["value"] == "mine" and ("mine · 7 pictures", "mine") in chooser["choices"]
    assert (folder, sent) == (gr.update(value=""), gr.skip())
    assert "value" not in name, "another was typed meanwhile"
    assert into["visible"] is False
    assert handlers.open_made(session, "mine", "folder", "/pictures", "") == skipped, "once"


def test_what_was_sent_is_kept_for_another_try_and_then_forgotten(handlers, jobs):
    session, token = Session(), "a" * 32
    form = {**FORM, "token": token, "request": REQUEST}
    handlers.create(session, "mine", "sent", "*", "", **form)
    assert jobs.asked[:2] == ("mine", token)
    session.making.job.state = "cancelled"
    assert handlers.open_made(session, "mine", "sent", "", token) == (gr.skip(),) * 7
    handlers.create(session, "mine", "sent", "*", "", **form)
    session.making.job.state = "done"
    _, _, sent, _, name, *_ = handlers.open_made(session, "mine", "sent", "", token)
    assert "ris-send" in sent and name["value"] == ""
    handlers.create(session, "mine", "sent", "*", "", **form)
    session.making.job.state = "done"
    assert handlers.open_made(session, "mine", "sent", "", "b" * 32)[2] == gr.skip(), (
        "something else was sent meanwhile"
    )
    with pytest.raises(gr.Error, match="Choose pictures, a folder or a zip file first"):
        handlers.create(session, "mine", "sent", "*", "", **FORM, request=REQUEST)


def test_pictures_are_added_to_collections_whose_pictures_were_sent(handlers, jobs, monkeypatch):
    monkeypatch.setattr(jobs, "with_own_pictures", lambda: ["holidays"])
    _, _, into, name, how, button = handlers.choose_source("sent")
    assert (into["visible"], into["choices"][1]) == (True, ("holidays", "holidays"))
    assert (name["visible"], how["visible"], button["value"]) == (True, True, "Make the collection")
    name, how, button = handlers.choose_target("holidays")
    assert (name["visible"], how["visible"], button["value"]) == (False, False, "Add the pictures")
    handlers.create(Session(), "", "sent", "holidays", "", **{**FORM, "token": "a" * 32}, request=REQUEST)
    assert jobs.asked == ("holidays", "a" * 32)
    assert handlers.choose_source("folder")[2]["visible"] is False


def test_strangers_make_nothing_and_nonsense_is_told(handlers, jobs):
    with pytest.raises(gr.Error, match="managed by who started the app"):
        handlers.create(Session(), "mine", "folder", "", "/pictures", **FORM, request=STRANGER)
    with pytest.raises(gr.Error, match="Name the folder"):
        handlers.create(Session(), "mine", "folder", "", " ", **FORM, request=REQUEST)
    with pytest.raises(gr.Error, match="The index cannot be made"):
        handlers.create(Session(), "mine", "folder", "", "/p", **{**FORM, "index": "IVF"}, request=REQUEST)
    assert jobs.asked is None


def test_a_report_names_files_and_counts_all():
    kinds = [
        {"kind": "added", "count": 1_200, "reasons": [], "files": [["a/<b>.jpg", ""], ["c.jpg", ""]]},
        {"kind": "left out", "count": 3, "reasons": [["HEIC images: pip install pillow-heif", 3]], "files": []},
    ]
    job = Job("Making mine", "mine", state="done", report={"summary": "1,200 pictures", "kinds": kinds})
    page = job_view(job, {"mine": None})
    assert "<summary>1,200 added</summary>" in page
    assert "<b>a/&lt;b&gt;.jpg</b>" in page and "and 1,198 more" in page
    assert "<li>3: HEIC images: pip install pillow-heif</li>" in page
    assert 'data-name="mine"' in page and "collections/report" not in page
    assert "Browse" not in job_view(job, {})


def test_the_shelf_says_what_a_loss_would_be(handlers, jobs, tmp_path):
    page = shelf(jobs.library, jobs)
    assert "reds" in page and "ris-delete" not in page  # it is in another folder


# Routes


@pytest.fixture
def client(jobs):
    app = FastAPI(routes=library_routes(jobs.library, jobs, TOKEN))
    app.auth = app.auth_dependency = None
    return TestClient(app, base_url="http://127.0.0.1:9", headers={"Cookie": HELD})


def test_a_folder_is_sent_file_by_file(client, jobs):
    token = client.post("/collections/uploads").text
    place = f"/collections/uploads/{token}"
    numbers = client.post(place, json={"files": [["cats/1.jpg", 3], ["notes.txt", 5]]}).json()
    assert numbers == [0, None]
    assert client.put(f"{place}/0", content=b"1234").status_code == 413
    assert client.put(f"{place}/0", content=b"12").status_code == 409
    assert client.put(f"{place}/7", content=b"12").json()["detail"] == "This file was not announced."
    assert client.put(f"{place}/0", content=b"123").status_code == 204
    folder = jobs.uploads.place(token)
    assert (folder / "cats" / "1.jpg").read_bytes() == b"123"
    assert [path.name for path in folder.iterdir()] == ["cats"]
    assert client.post(place, json={"files": [["../1.jpg", 3]]}).status_code == 409
    assert client.delete(place).status_code == 204
    assert not folder.exists()
    assert client.put(f"{place}/0", content=b"123").status_code == 409
    for method, path in (("POST", "uploads"), ("POST", f"uploads/{token}"), ("PUT", f"uploads/{token}/0")):
        body = {"json": {"files": []}} if path.endswith(token) else {}
        refused = client.request(method, f"/collections/{path}", headers={"Cookie": "other=1"}, **body)
        assert refused.status_code == 403


def test_folders_are_suggested_to_who_may_manage(client, tmp_path, monkeypatch):
    for name in ("Pictures", "pics/deep", ".hidden", "a file"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "home" / "picture.jpg").touch()
    home = f"{tmp_path}/home"

    def ask(typed, **headers):
        return client.get("/collections/folders", params={"typed": typed}, headers=headers)

    assert ask(f"{home}/pi").json() == [f"{home}/pics/", f"{home}/Pictures/"]
    assert ask(f"{home}/").json() == [f"{home}/a file/", f"{home}/pics/", f"{home}/Pictures/"]
    assert ask(f"{home}/.").json() == [f"{home}/.hidden/"]
    assert ask(f"{home}/pics/").json() == [f"{home}/pics/deep/"]
    for nothing in ("", "pics", "pics/", f"{home}/none/", f"{home}/picture.jpg/", f"{home}/\0", "x" * 3000):
        assert ask(nothing).json() == []
    monkeypatch.setenv("HOME", home)
    assert suggested_folders("~") == suggested_folders("~/") == ["~/a file/", "~/pics/", "~/Pictures/"]
    assert ask(f"{home}/pi", Cookie="other=1").status_code == 403
    assert ask(f"{home}/pi", Origin="http://evil.example").status_code == 403


def test_the_report_of_the_last_job_is_given_to_who_may_manage(client, jobs, tmp_path):
    assert client.get("/collections/report").status_code == 404
    table = tmp_path / "report.csv"
    table.write_text("what,path,why\n")
    jobs.job = Job("Making mine", "mine", state="done", table=table)
    reply = client.get("/collections/report")
    assert reply.text == "what,path,why\n"
    assert reply.headers["content-disposition"].endswith("Making%20mine.csv")
    assert client.get("/collections/report", headers={"Cookie": "other=1"}).status_code == 403


@pytest.fixture
def store(tmp_path):
    return write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")


def kept_client(store, *, holds_token=True):
    engine = Open(store)
    engine.name = "c"
    app = FastAPI(routes=annotation_routes({"c": engine}, TOKEN, is_managed=True))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


def test_fields_are_made_and_dropped_and_what_is_said_is_reset(store):
    client = kept_client(store)

    def change(**what):
        return client.post("/annotations/c/kept", json=what)

    assert "There is none yet." in client.get("/annotations/c/kept").text and not store.has_annotations
    assert "<b>rating</b> <span>number · no values yet</span>" in change(do="make", name="Rating", kind="number").text
    refused = change(do="make", name="rating", kind="date")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "There is a field rating already, and it holds a number, as 4 or 2.5.",
    )
    edits.set_field(store.annotations, [0], "rating", 4)
    edits.add_tag(store.annotations, [0, 1], "sea")
    page = client.get("/annotations/c/kept").text
    assert "number · 1 picture<" in page and "<p>2 tags, 1 value of fields</p>" in page
    assert "Undo: tagged sea (2 pictures)" in page
    before = store.annotations.of(range(5))
    for name in ("", "C", "other"):
        assert change(do="reset", name=name).status_code == 409
    assert store.annotations.of(range(5)) == before
    page = change(do="reset", name="c").text
    assert "Undo: all that was said reset (2 pictures)" in page and store.annotations.of(range(5)) == {}
    (last,) = edits.edits(store.annotations, 1)
    assert change(do="undo", edit=last.number - 1).status_code == 409
    change(do="undo", edit=last.number)
    assert store.annotations.of(range(5)) == before
    assert "rating" not in change(do="drop", name="rating").text.partition("<form")[0].partition("Undo")[0]
    assert store.annotations.fields() == {}


def test_who_may_not_manage_sees_fields_and_changes_none(store):
    kept_client(store).post("/annotations/c/kept", json={"do": "make", "name": "rating", "kind": "text"})
    client = kept_client(store, holds_token=False)
    page = client.get("/annotations/c/kept").text
    assert "<b>rating</b>" in page and "<form" not in page and "<button" not in page
    for what in ("make", "drop", "reset", "undo"):
        assert client.post("/annotations/c/kept", json={"do": what, "name": "c"}).status_code == 403
    assert store.annotations.fields() == {"rating": "text"}


def test_what_is_said_is_kept_when_a_collection_is_deleted(store, tmp_path):
    library = Library([SimpleNamespace(name="c", store=store, folder=store.folder)])
    jobs = CollectionJobs(tmp_path, library)
    edits.add_tag(store.annotations, [0], "sea")
    jobs.delete("c")
    assert not store.folder.exists()
    (kept,) = tmp_path.glob("c words *.jsonl")
    assert [json.loads(line)["value"] for line in kept.read_text().splitlines()] == ["sea"]
