"""The Duplicates tab and its REST twin, without a browser: told to everyone, decided by who may, and taken back."""

import re
import shutil
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from meanings import ColourEncoder
from rest_collection import colours

from features.collection import duplicates as decisions
from gradio_app import build
from gradio_app.jobs import JobError
from gradio_app.library import Library
from gradio_app.routes.access import StartToken
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.requests import RateLimit
from gradio_app.routes.api.service import create_api
from gradio_app.routes.duplicates import duplicate_routes
from search.build import sync_collection
from search.duplicate_pairs import Pairs
from search.engine import SearchEngine

TOKEN = StartToken()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve pictures of three colours; of two reds each is a copy of the other."""
    folder = tmp_path_factory.mktemp("copies")
    with pytest.MonkeyPatch.context() as patch:
        engine = colours(folder, patch)
        first, second = sorted((folder / "images").rglob("*.png"))[:2]
        second.write_bytes(first.read_bytes())
        sync_collection(engine.folder, encoder=ColourEncoder(), progress=False)
    return engine.folder


@pytest.fixture
def engine(made, tmp_path):
    return SearchEngine.open(shutil.copytree(made, tmp_path / "c"))


class Jobs(SimpleNamespace):
    def manages(self, name):
        return True

    def check_free(self, name):
        if self.job is not None:
            raise JobError("Something is under way.")

    def sync(self, name):
        self.asked.append(f"sync {name}")

    def look_for_duplicates(self, name):
        if self.job is not None:
            raise JobError("Something is under way.")
        self.asked.append(name)


@pytest.fixture
def jobs():
    return Jobs(job=None, asked=[])


def client_of(engine, jobs, *, holds_token=True):
    app = FastAPI(routes=duplicate_routes({"c": engine}, TOKEN, jobs))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


@pytest.fixture
def client(engine, jobs):
    return client_of(engine, jobs)


def copies(engine):
    (group,) = engine.store.catalog.copies()
    return [{"id": id, "content": engine.store.hash_of(id)[:16]} for id in group]


def groups(page):
    """Of each group of the page the ids of its pictures."""
    sections = re.findall(r'<section class="ris-twins".*?</section>', page, re.DOTALL)
    return [[int(id) for id in re.findall(r'data-collection="c" data-id="(\d+)"', each)] for each in sections]


def test_copies_are_side_by_side_with_what_tells_them_apart(client, engine):
    page = client.get("/duplicates/c").text
    pair = copies(engine)
    assert groups(page)[0] == [each["id"] for each in pair]
    assert "Same file" in page and "byte for byte" in page
    for each in pair:
        assert engine.store.items[each["id"]].path.name in page
    differing = re.findall(r'<div class="ris-differs"><dt>(\w+)</dt>', page.split("</section>")[0])
    assert set(differing) <= {"Changed"}, "copies differ in nothing but their time"


def test_what_is_not_kept_is_set_aside_as_a_list_and_can_be_taken_back(client, engine):
    first, second = copies(engine)
    page = client.post("/duplicates/c", json={"do": "keep", "pictures": [second, first], "show": "aside"}).text
    assert decisions.set_aside(engine.store.annotations) == {first["id"]: engine.store.hash_of(second["id"])}
    assert f'data-id="{first["id"]}"' in page and "data-take-back" in page
    assert client.get("/duplicates/c/list").text == f"{engine.store.items[first['id']].path}\n"
    others = client_of(engine, None, holds_token=False).get("/duplicates/c/list").text
    assert others == f"{engine.store.items[first['id']].path.relative_to(engine.store.manifest['root'])}\n"
    assert [first["id"], second["id"]] not in groups(client.get("/duplicates/c").text)
    client.post("/duplicates/c", json={"do": "take_back", "pictures": [first]})
    assert decisions.set_aside(engine.store.annotations) == {}
    assert engine.store.items[first["id"]].path.exists()


def test_what_is_set_aside_goes_to_the_trash_when_it_is_confirmed_and_comes_back(client, engine, jobs):
    first, second = copies(engine)
    path = engine.store.items[second["id"]].path
    page = client.post("/duplicates/c", json={"do": "keep", "pictures": [first, second], "show": "aside"}).text
    assert "Yes, move 1 file" in page and "1 file goes to" in page and path.exists()
    jobs.job = SimpleNamespace(state="running", collection="c", title="Looking", stage="at pairs", done=3, total=9)
    assert client.post("/duplicates/c", json={"do": "trash", "count": 1}).status_code == 409
    jobs.job = None
    again = client.post("/duplicates/c", json={"do": "trash", "count": 2})
    assert (again.status_code, path.exists()) == (409, True), "what was confirmed is not what would be moved"
    page = client.post("/duplicates/c", json={"do": "trash", "count": 1, "show": "aside"}).text
    assert not path.exists() and jobs.asked == ["sync c"]
    assert "1 file is in the trash folder" in page and 'data-do="put_back"' in page
    client.post("/duplicates/c", json={"do": "put_back"})
    assert path.exists() and jobs.asked == ["sync c"] * 2


def test_what_stays_is_told(client, engine):
    first, second = copies(engine)
    client.post("/duplicates/c", json={"do": "keep", "pictures": [first, second]})
    engine.store.items[second["id"]].path.write_bytes(b"edited")
    told = client.post("/duplicates/c", json={"do": "trash", "count": 1})
    assert told.status_code == 409
    assert "0 files were moved and 1 stayed where they are" in told.json()["detail"]
    assert "the file has changed: sync the collection first" in told.json()["detail"]


def test_what_is_put_off_is_on_a_shelf_of_its_own(client, engine):
    pair = copies(engine)
    left = groups(client.post("/duplicates/c", json={"do": "later", "pictures": pair}).text)
    ids = [each["id"] for each in pair]
    assert ids not in left
    page = client.get("/duplicates/c?show=later").text
    assert ids in groups(page)
    number = int(re.search(r'data-do="undo" data-edit="(\d+)"', page).group(1))
    assert groups(client.post("/duplicates/c", json={"do": "undo", "edit": number}).text)[0] == ids


def test_who_may_not_manage_sees_and_does_not_decide(engine, jobs):
    client = client_of(engine, jobs, holds_token=False)
    page = client.get("/duplicates/c").text
    assert groups(page) and "data-keep" not in page and "can decide" in page
    for decision in ({"do": "keep", "pictures": copies(engine)}, {"do": "trash", "count": 0}, {"do": "put_back"}):
        assert client.post("/duplicates/c", json=decision).status_code == 403
    assert not engine.store.has_annotations or decisions.set_aside(engine.store.annotations) == {}


def test_a_decision_is_of_the_pictures_that_the_page_shows(client, engine):
    first, second = copies(engine)
    refused = client.post("/duplicates/c", json={"do": "keep", "pictures": [first, {**second, "content": "0" * 16}]})
    assert refused.status_code == 409
    assert client.post("/duplicates/c", json={"do": "keep", "pictures": [first]}).json()["detail"] == (
        "A decision about duplicates is of 2 to 200 pictures, got 1."
    )


def test_a_closer_look_is_a_job(client, jobs):
    assert client.post("/duplicates/c", json={"do": "closer"}).status_code == 200
    assert jobs.asked == ["c"]
    jobs.job = SimpleNamespace(state="running", collection="c", title="Looking", stage="at pairs", done=3, total=9)
    page = client.get("/duplicates/c").text
    assert "Looking: at pairs, 3 of 9" in page and "data-working" in page
    assert client.post("/duplicates/c", json={"do": "closer"}).json()["detail"] == "Something is under way."


def test_the_job_looks_for_pairs_and_closer_at_them(engine, monkeypatch):
    looked = []
    monkeypatch.setattr(build, "can_prove", lambda: True)
    monkeypatch.setattr(build, "look_closer", lambda store, progress: looked.append(progress(1, 2)))
    said = []
    engine.store.update_manifest(duplicates=None)
    report = build.look_for_duplicates(engine.folder, lambda *each: said.append(each))
    assert "same bytes" in report["summary"]
    assert ("Looking closer at pairs", 1, 2) in said and looked
    assert Pairs.of(SearchEngine.open(engine.folder).store) is not None


def test_names_are_escaped(tmp_path, monkeypatch):
    made = colours(tmp_path, monkeypatch, name="c", count=1)
    evil = "<img src=x onerror=alert(1)>.png"
    for name in (evil, "plain.png"):
        (tmp_path / "images" / name).write_bytes(next((tmp_path / "images").rglob("*.png")).read_bytes())
    sync_collection(made.folder, encoder=ColourEncoder(), progress=False)
    page = client_of(SearchEngine.open(made.folder), None).get("/duplicates/c").text
    assert "<img src=x" not in page and "&lt;img src=x onerror" in page


class TestRest:
    PLACE = "/api/v1/collections/c/duplicates"

    @pytest.fixture
    def rest(self, engine, tmp_path):
        key = KeyStore(tmp_path).make("test", ("read", "write"))
        app = create_api(Library([engine]), folder=tmp_path, limit=RateLimit(0))
        return TestClient(app, headers={"authorization": f"Bearer {key}"})

    def test_groups_are_told_and_decided_about(self, rest, engine):
        told = rest.get(self.PLACE).json()
        group = told["groups"][0]
        ids = [image["id"] for image in group["images"]]
        assert (group["level"], ids) == ("same bytes", [each["id"] for each in copies(engine)])
        assert group["images"][0]["width"] and told["set_aside"] == []
        done = rest.post(self.PLACE, json={"do": "keep", "images": ids}).json()
        now = rest.get(self.PLACE).json()
        assert now["set_aside"] == ids[1:] and now["total"] == told["total"] - 1
        rest.post("/api/v1/collections/c/undo", json=done)
        again = rest.get(self.PLACE).json()
        assert [image["id"] for image in again["groups"][0]["images"]] == ids and again["set_aside"] == []

    def test_groups_come_page_by_page(self, rest):
        told = rest.get(self.PLACE).json()
        assert rest.get(self.PLACE, params={"offset": told["total"]}).json()["groups"] == []
        assert len(rest.get(self.PLACE, params={"limit": 1}).json()["groups"]) == 1

    @pytest.mark.parametrize(
        ("decision", "status"),
        [({"do": "different", "images": [0]}, 409), ({"do": "keep", "images": [0, 99]}, 404), ({"do": "keep"}, 422)],
    )
    def test_what_makes_no_sense_is_refused(self, rest, decision, status):
        assert rest.post(self.PLACE, json=decision).status_code == status


def test_near_ones_of_a_collection_of_today_are_looked_for_on_request(client, engine, jobs):
    engine.store.update_manifest(duplicates=None)
    page = client.get("/duplicates/c").text
    assert "have not been looked for" in page and "Look for near ones" in page
