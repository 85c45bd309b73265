"""Pictures come and go over REST: jobs that are done once, can be cancelled, and go on after kill -9."""

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from rest_collection import colours, sync_here
from test_rest import picture, refused
from waiting import until

from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.routes.api.job_store import JobStore, OtherRequestError
from gradio_app.routes.api.job_worker import CancelledError, JobWorker
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.requests import RateLimit
from gradio_app.routes.api.service import create_api
from search.engine import SearchEngine

IMAGES = "/api/v1/collections/c/images"


def client_of(library, folder, monkeypatch, sync=None):
    if sync is not None:
        monkeypatch.setattr("gradio_app.routes.api.service.sync_by", lambda jobs: sync)
    key = KeyStore(folder).make("test", ("read", "write"))
    app = create_api(library, folder=folder, limit=RateLimit(0))
    return TestClient(app, headers={"authorization": f"Bearer {key}"})


@pytest.fixture
def library(tmp_path, monkeypatch):
    return Library([colours(tmp_path, monkeypatch, count=2, is_own=True)])


@pytest.fixture
def client(library, tmp_path, monkeypatch):
    return client_of(library, tmp_path / "collections", monkeypatch, sync_here(library))


def upload(client, *contents, name="boat.png", status=202, headers=None, **data):
    files = [("image", (name, content)) for content in contents]
    reply = client.post(IMAGES, files=files, data=data, headers=headers)
    return reply.json() if status == reply.status_code == 202 else refused(reply, status)


def ended(client, job):
    return until(lambda: (now := client.get(job["link"]).json())["state"] not in ("queued", "running") and now)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".job")]


def test_pictures_are_uploaded_found_and_removed(client, library, tmp_path):
    new = picture((210, 30, 30))
    job = ended(client, upload(client, new, picture((30, 30, 210)), name="../My boat!.png", folder="a"))
    assert (job["state"], job["error"]) == ("done", "")
    first, second = job["result"]["images"]
    assert first["path"] == f"a/My boat-{hashlib.sha256(new).hexdigest()[:12]}.png"
    (id,) = first["ids"]
    image = client.get(f"{IMAGES}/{id}").json()
    assert (image["path"], image["labels"]) == (first["path"], ["a"])
    assert client.get(image["links"]["original"]).content == new
    found = client.post("/api/v1/search", files={"image": ("x.png", new)}).json()
    assert (found["own_id"], found["counts"]["pictures"]) == (id, 8)
    gone = ended(client, client.delete(f"{IMAGES}/{id}").json())
    assert (gone["state"], gone["result"]) == ("done", {"removed": [first["path"]]})
    refused(client.get(f"{IMAGES}/{id}"), 404)
    assert client.get(f"{IMAGES}/{second['ids'][0]}").status_code == 200
    assert [job["kind"] for job in client.get("/api/v1/jobs").json()["jobs"]] == ["remove", "upload"]
    assert hidden(tmp_path / "collections") == []


def test_a_request_that_is_sent_again_is_the_same_job(client, library):
    again = {"idempotency-key": "mine"}
    first = upload(client, picture(), headers=again)
    assert upload(client, picture(), headers=again)["id"] == first["id"]
    assert "came with another request" in upload(client, picture((1, 2, 3)), headers=again, status=422)
    other = upload(client, picture())
    assert other["id"] != first["id"]
    assert ended(client, other)["result"]["images"] == ended(client, first)["result"]["images"], "the same one picture"
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == 2
    assert library["c"].store.ids.size == 7


def test_what_is_no_picture_is_refused_and_nothing_stays(client, tmp_path):
    assert "cannot be read as a picture" in upload(client, picture(), b"GIF89a<script>", status=422)
    assert "at least one" in refused(client.post(IMAGES, files={"folder": (None, "a")}), 422)
    assert "no other" in refused(client.post(IMAGES, files={"other": b"x"}), 422)
    refused(client.post(IMAGES, json={}), 415)
    assert "8 levels" in upload(client, picture(), folder="/".join("abcdefghi"), status=422)
    refused(client.post(IMAGES.replace("/c/", "/d/"), files={"image": picture()}), 404)
    assert client.get("/api/v1/jobs").json() == {"jobs": []}
    assert hidden(tmp_path / "collections") == []


def test_a_name_leads_nowhere_else(client, library):
    for name, folder in (
        ("../../x.png", "../.."),
        ("/etc/x", "/etc"),
        (".hidden", ".git"),
        ("..", "a/../../b"),
        ("\n", " "),
    ):
        job = ended(client, upload(client, picture((len(folder), 9, 9)), name=name, folder=folder))
        (image,) = job["result"]["images"]
        path = library["c"].folder / "images" / image["path"]
        assert path.is_file()
        assert path.resolve().is_relative_to(library["c"].folder / "images")
        assert not any(part.startswith(".") for part in Path(image["path"]).parts)


def test_a_link_that_leads_out_of_the_folder_is_not_followed(client, library, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (library["c"].folder / "images/way").symlink_to(outside)
    job = ended(client, upload(client, picture(), folder="way"))
    assert (job["state"], "leads out of the folder" in job["error"]) == ("failed", True)
    assert list(outside.iterdir()) == []
    root = library["c"].folder / "images"
    root.rename(tmp_path / "away")
    job = ended(client, upload(client, picture()))
    assert (job["state"], job["error"]) == ("failed", "the folder of the collection's pictures is not there")
    assert not root.exists()


def test_what_a_killed_server_was_sent_goes_with_time(library, tmp_path):
    folder = tmp_path / "collections"
    store = JobStore(folder)
    store.add("1", "sync", "c", {}, caller="k")
    store.cancel("1")
    for name in (".job-1", ".job-old", ".job-new"):
        (folder / name).mkdir()
    os.utime(folder / ".job-old", (0, 0))
    worker = JobWorker(store, library, sync_here(library))
    worker.start()
    until(lambda: hidden(folder) == [".job-new"], "only what may be on its way is left")
    worker.stop()


def test_pictures_of_a_folder_of_its_owner_stay(tmp_path, monkeypatch):
    library = Library([colours(tmp_path, monkeypatch, count=1)])
    client = client_of(library, tmp_path / "collections", monkeypatch, sync_here(library))
    assert "folder of their owner" in refused(client.delete(f"{IMAGES}/0"), 409)
    job = ended(client, upload(client, picture()))
    assert (tmp_path / "images" / job["result"]["images"][0]["path"]).is_file(), "but more may come"
    (tmp_path / "images/a/00.png").unlink()
    job = ended(client, client.post("/api/v1/collections/c/sync").json())
    assert job["result"] == {"pictures": 3}


def test_collections_from_elsewhere_are_not_written(tmp_path, monkeypatch):
    engine = colours(tmp_path, monkeypatch, count=1)
    client = client_of(Library([engine]), tmp_path / "elsewhere", monkeypatch)
    upload(client, picture(), status=409)
    refused(client.post("/api/v1/collections/c/sync"), 409)


def test_jobs_take_a_key_that_opens_writing(client, tmp_path):
    key = KeyStore(tmp_path / "collections").make("r", ("read",))
    reader = {"authorization": f"Bearer {key}"}
    for method, path in (
        ("POST", IMAGES),
        ("DELETE", f"{IMAGES}/0"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/x"),
    ):
        refused(client.request(method, path, headers=reader), 403)
        refused(TestClient(client.app).request(method, path), 401)
    refused(client.get("/api/v1/jobs/x"), 404)
    refused(client.delete("/api/v1/jobs/x"), 404)


def test_a_cancelled_job_leaves_nothing(library, tmp_path, monkeypatch):
    going, may_go_on = threading.Event(), threading.Event()

    def slow(name, progress, only_new):
        going.set()
        assert may_go_on.wait(300)
        if not progress("Encoding", 1, 2):
            raise CancelledError
        raise AssertionError("it went on")

    client = client_of(library, tmp_path / "collections", monkeypatch, slow)
    job, waiting = upload(client, picture()), upload(client, picture((9, 9, 9)))
    until(going.is_set, "the job")
    assert client.get(job["link"]).json()["state"] == "running"
    assert client.delete(waiting["link"]).json()["state"] == "cancelled", "at once, as nobody works on it"
    assert client.delete(job["link"]).status_code == 202
    may_go_on.set()
    assert ended(client, job)["state"] == "cancelled"
    assert "is over" in refused(client.delete(job["link"]), 409)
    assert not list((library["c"].folder / "images").glob("boat*"))
    until(lambda: not hidden(tmp_path / "collections"), "what was sent is gone")


class TestStore:
    def test_a_job_has_one_worker_at_a_time(self, tmp_path):
        mine, other = JobStore(tmp_path), JobStore(tmp_path)
        assert mine.claim(["c"]) is None
        mine.add("1", "sync", "c", {}, caller="k")
        assert mine.claim(["d"]) is None
        assert mine.claim(["c"]).id == "1"
        assert other.claim(["c"]) is None
        assert mine.claim(["c"]) is None
        assert mine.beat("1", "Stage", 3, 4)
        assert not other.beat("1", "Other")
        job = mine.get("1")
        assert (job.stage, job.done, job.total, job.state) == ("Stage", 3, 4, "running")
        other.finish("1", "done")
        assert mine.get("1").state == "running", "who has no lease says nothing"

    def test_a_process_that_is_no_more_has_no_lease(self, tmp_path):
        store = JobStore(tmp_path)
        host, pid, _ = store.owner.rsplit(":", 2)
        with subprocess.Popen([sys.executable, "-c", ""]) as ended_process:
            pass
        store.add("1", "sync", "c", {}, caller="k")
        for owner in (f"{host}:{ended_process.pid}:x", f"{host}:{pid}:x"):
            left = JobStore(tmp_path)
            left.owner = owner
            assert left.claim(["c"]) is not None

    def test_a_lease_that_ran_out_is_free(self, tmp_path, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr("gradio_app.routes.api.job_store.time.time", lambda: now[0])
        mine, other = JobStore(tmp_path), JobStore(tmp_path)
        other.owner = "elsewhere:1:x"
        mine.add("1", "sync", "c", {}, caller="k")
        assert other.claim(["c"]).id == "1"
        now[0] += 59
        assert mine.claim(["c"]) is None
        assert other.beat("1", "")
        now[0] += 59
        assert mine.claim(["c"]) is None
        now[0] += 2
        assert mine.claim(["c"]).id == "1"
        assert not other.beat("1", "")

    def test_a_key_names_one_request_of_each_caller(self, tmp_path):
        store = JobStore(tmp_path)
        first = store.add("1", "sync", "c", {}, caller="k", key="x", fingerprint="f")
        assert store.add("2", "sync", "c", {}, caller="k", key="x", fingerprint="f") == first
        assert store.add("3", "sync", "c", {}, caller="l", key="x", fingerprint="g").id == "3"
        with pytest.raises(OtherRequestError):
            store.add("4", "sync", "c", {}, caller="k", key="x", fingerprint="g")


KILLED = """
import os, sys
from pathlib import Path
import pytest
from killing import kill_before
from meanings import ColourEncoder, WordSentences
from features.encoders import share_encoder
from gradio_app.library import Library
from gradio_app.routes.api.job_store import JobStore
from gradio_app.routes.api.job_worker import JobWorker
from rest_collection import sync_here
from search.engine import SearchEngine
import search.spaces
search.spaces.sentence_encoder = WordSentences
share_encoder(ColourEncoder())
folder = Path(sys.argv[1])
for step in (2, 5, 9, 14, 20, 27, 35, 44):
    child = os.fork()
    if not child:
        library = Library([SearchEngine.open(folder / "c")])
        kill_before(step, folder)
        JobWorker(JobStore(folder), library, sync_here(library)).work_once()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_job_goes_on_after_kill_9_and_is_done_once(library, tmp_path):
    folder = tmp_path / "collections"
    content = picture((200, 10, 10))
    store = JobStore(folder)
    staged = folder / ".job-1"
    staged.mkdir()
    (staged / "0").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    file = {"name": "x.png", "staged": "0", "path": "a/x-1.png", "sha256": sha256, "was_there": False}
    store.add("1", "upload", "c", {"files": [file]}, caller="k")
    store.close()
    places = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    out = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    codes = [int(line) for line in out.stdout.split()]
    assert codes.count(-9) >= 3, "it was killed at several steps"
    library = Library([SearchEngine.open(folder / "c")])
    store = JobStore(folder)
    worker = JobWorker(store, library, sync_here(library))
    while worker.work_once():
        pass
    job = store.get("1")
    assert (job.state, job.error) == ("done", "")
    opened = SearchEngine.open(folder / "c")
    assert len(opened.store.find_copies(sha256)) == 1
    assert opened.store.ids.size == 7
    assert (opened.folder / "images/a/x-1.png").read_bytes() == content
    assert hidden(folder) == []
    opened.store.verify()


def test_with_the_real_encoder_in_a_process_of_its_own(picture_folder, tmp_path, monkeypatch):
    folder, library = tmp_path / "collections", Library()
    jobs = CollectionJobs(folder, library)
    jobs.create("c", picture_folder)
    jobs.wait()
    client = client_of(library, folder, monkeypatch)
    buffer = io.BytesIO()
    with Image.open(picture_folder / "cold/0.png") as original:
        original.crop((4, 4, 60, 44)).save(buffer, "PNG")
    job = ended(client, upload(client, buffer.getvalue()))
    assert (job["state"], job["error"]) == ("done", "")
    (id,) = job["result"]["images"][0]["ids"]
    reply = client.post("/api/v1/search", json={"parts": [{"image": {"id": id}}], "k": 3}).json()
    assert [hit["labels"] for hit in reply["hits"]] == [["cold"]] * 3
    assert reply["counts"]["pictures"] == 13
    (picture_folder / job["result"]["images"][0]["path"]).unlink()
