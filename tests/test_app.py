"""The page's server side and its command: what is offered, what is refused, and how it says so."""

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from fakes import reds
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio.utils import get_upload_folder
from PIL import Image
from waiting import MINUTES

from gradio_app.app import UsageError, build_app, check_port, main, open_collections
from gradio_app.routes.pictures import picture_url
from gradio_app.serving import trim_memory
from gradio_app.session import QueryPicture
from gradio_app.tabs.search.views import MAX_RESULTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return reds(tmp_path_factory.mktemp("reds"), 5, 50)


@pytest.fixture(scope="module")
def root(engine):
    """The folder that holds the pictures."""
    return Path(engine.store.manifest["root"])


@pytest.fixture(scope="module")
def launch(engine):
    """Starts the page as an outside script would: `build_app(engines).launch(...)`; gives its address."""
    pages = []

    def start(**options) -> str:
        page = build_app([engine])
        pages.append(page)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **options)
        return url

    yield start
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def usual(launch):
    """The address of the page that is launched with no options."""
    return launch()


@pytest.fixture
def launched(launch, usual):
    """Gives a client for a launched page, each with a session of its own."""
    clients = []

    def visit(**options) -> httpx.Client:
        url = launch(**options) if options else usual
        session = {"session_hash": secrets.token_hex(8)}
        clients.append(httpx.Client(base_url=url, params=session, trust_env=False, timeout=60 * MINUTES))
        return clients[-1]

    yield visit
    for client in clients:
        client.close()


# What build_app takes


def test_mapping_and_iterable_are_taken(engine):
    for engines in ({"any name": engine}, [engine], (engine for _ in range(1))):
        assert isinstance(build_app(engines), gr.Blocks)


def test_no_collection_and_same_names_are_refused(engine):
    with pytest.raises(ValueError, match="at least one collection"):
        build_app([])
    with pytest.raises(ValueError, match="different names"):
        build_app([engine, engine])


# What the server gives away


def test_no_event_of_the_page_is_public(engine):
    page = build_app([engine])
    events = [fn for fn in page.fns.values() if fn.fn is not None]
    assert len(events) > 10
    assert {fn.api_visibility for fn in events} == {"private"}
    assert page.get_api_info() == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_no_analytics(engine):
    assert build_app([engine]).analytics_enabled is False


def test_launched_by_an_outside_script_it_has_its_pictures_and_its_looks(launched, engine):
    client = launched()
    assert client.get("/").status_code == 200
    for size in ("thumb", "view", "original"):
        assert client.get(picture_url(engine, 0, size)).status_code == 200
    assert ".ris-grid" in client.get("/config").json()["css"]


def test_outside_addresses_are_not_in_the_page(launched):
    text = launched().get("/").text
    # A link to the fonts' server or a script from elsewhere would be fetched by every visitor's browser.
    assert "fonts.googleapis" not in text
    assert "fonts.gstatic" not in text
    assert "cdn" not in text.lower().replace("cdnjs.cloudflare.com/ajax/libs/iframe-resizer", "")


def test_mounted_beside_other_routes(engine):
    page = build_app([engine])
    app = FastAPI()
    gr.mount_gradio_app(app, page, path="/search", **page.server_options)
    client = TestClient(app)
    assert client.get("/search/").status_code == 200
    assert client.get("/search/" + picture_url(engine, 0, "thumb")).status_code == 200


def test_own_routes_of_the_launcher_are_kept(launched, engine):
    extra = FastAPI()

    @extra.get("/ping")
    def ping():
        return "pong"

    client = launched(app_kwargs={"routes": [route for route in extra.routes if getattr(route, "path", "") == "/ping"]})
    assert client.get("/ping").json() == "pong"
    assert client.get(picture_url(engine, 0, "thumb")).status_code == 200


def test_login_covers_every_route(launched, engine):
    client = launched(auth=("user", "secret"))
    pictures = [picture_url(engine, 0, size) for size in ("thumb", "view", "original")]
    for url in [*pictures, "/config", "/gradio_api/info", "/gradio_api/file=/etc/hostname"]:
        assert client.get(url).status_code == 401, url
    files = {"files": ("a.png", b"x")}
    assert client.post("/gradio_api/upload", files=files).status_code == 401
    assert (
        client.post("/gradio_api/queue/join", json={"fn_index": 0, "data": [], "session_hash": "x"}).status_code == 401
    )
    assert "reds" not in client.get("/").text

    assert client.post("/login", data={"username": "user", "password": "wrong"}).status_code == 400
    assert client.get(pictures[0]).status_code == 401
    assert client.post("/login", data={"username": "user", "password": "secret"}).status_code == 200
    for url in [*pictures, "/config"]:
        assert client.get(url).status_code == 200, url
    link = 'href=\\"logout?all_session=false\\"'
    assert link in client.get("/").text
    assert link not in launched().get("/").text
    client.get("/logout?all_session=false")
    assert client.get(pictures[0]).status_code == 401


# What Gradio answers to someone who has not logged in: the login page and its parts, and nothing of the collections.
# 400, 404 and 422 come before anyone is asked who they are; 403 is what the routes say that are switched off.
OPEN = {
    "/", "/login", "/login/", "/logout", "/favicon.ico", "/theme.css", "/gradio_api/theme.css", "/robots.txt",
    "/manifest.json", "/gradio_api/user", "/gradio_api/user/", "/gradio_api/token", "/gradio_api/token/",
    "/gradio_api/app_id", "/gradio_api/app_id/", "/gradio_api/heartbeat/{session_hash}", "/gradio_api/startup-events",
}  # fmt: skip


def test_no_other_route_answers_without_login(engine, tmp_path):
    page = build_app([engine], manage=tmp_path)
    app, url, _ = page.launch(prevent_thread_lock=True, quiet=True, auth=("user", "secret"))
    try:
        paths = app.openapi()["paths"]
        assert {"/collections/upload", "/pictures/{collection}/{image_id}/original", "/gradio_api/upload"} <= set(paths)
        with httpx.Client(base_url=url, trust_env=False, timeout=60 * MINUTES) as client:
            assert client.get("/openapi.json").status_code == 404
            for path, methods in paths.items():
                for method in methods:
                    with client.stream(method, re.sub(r"\{[^}]*\}", "0", path)) as reply:
                        allowed = (200, 302, 422) if path in OPEN else (400, 401, 403, 404, 422)
                        assert reply.status_code in allowed, (method, path, reply.status_code)
    finally:
        page.close()


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file={secret}",
        "gradio_api/file=/{secret}",
        "gradio_api/file={root}/README.md",
        "gradio_api/file={root}/gradio_app/app.py",
        "gradio_api/file={folder}/../secret.txt",
        "gradio_api/file=..%2f..%2f..%2fetc%2fpasswd",
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=file:///etc/passwd",
        "gradio_api/file=/proc/self/environ",
        "gradio_api/proxy=http://127.0.0.1:1/x",
        "file={secret}",
        "static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "svelte/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "pictures/reds/..%2f..%2fsecret.txt/original",
        "pictures/..%2f..%2fetc/0/original",
        "pictures/reds/0/..%2f..%2fsecret.txt",
        "pictures/reds/-1/original",
        "pictures/reds/5/original",
    ],
)
def test_no_file_outside_the_collections_is_given_out(launched, root, path):
    (root / "secret.txt").write_text("the secret")
    filled = path.format(secret=root / "secret.txt", root=ROOT, folder=root / "pictures")
    reply = launched().get(filled)
    assert reply.status_code in (400, 401, 403, 404, 422), reply.status_code
    assert "the secret" not in reply.text
    assert "root:" not in reply.text


def test_upload_keeps_its_place_whatever_it_is_called(launched, tmp_path):
    client = launched()
    for name in ("../../../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"):
        (stored,) = client.post("/gradio_api/upload", files={"files": (name, b"x")}).json()
        assert Path(stored).resolve().is_relative_to(Path(get_upload_folder()).resolve())


def test_upload_is_capped(launched):
    client = launched()
    reply = client.post("/gradio_api/upload", files={"files": ("big.png", b"x" * (26 * 2**20))})
    assert reply.status_code == 413
    assert client.post("/gradio_api/upload", files={"files": ("small.png", b"x")}).status_code == 200


def call(client: httpx.Client, name: str, data: list, **extra) -> dict:
    """Send an event as the page does; whether it was a success, and what came back."""
    config = client.get("/config").json()
    components = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
    index, queued = next(
        (d["id"], d["queue"] is not False)
        for d in config["dependencies"]
        if any((components.get(t), e) == tuple(name.split(".")) for t, e in d["targets"])
    )
    body = {"fn_index": index, "data": data, "session_hash": client.params["session_hash"], **extra}
    if not queued:
        reply = client.post("/gradio_api/run/predict", json=body)
        return {"success": reply.status_code == 200, "output": reply.json()}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and (message := json.loads(line[5:]))["msg"] == "process_completed":
                return message
    raise AssertionError("no answer")


@pytest.mark.parametrize("event", ["ris-upload.input", "ris-picture.open"])
def test_forged_event_cannot_make_the_server_fetch(launched, event):
    """Gradio would download any input shaped like a file with a web address; what it asks for is never asked for."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.3)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    forged = {"path": url, "url": url, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    message = call(launched(), event, [None, forged])
    assert message["success"] is False
    assert "address field only" in message["output"]["error"]
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {"meta": {}}, {}, {"is_stream": True}])
def test_forged_event_cannot_read_files_of_the_server(launched, root, meta):
    secret = root / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    message = call(launched(), "ris-upload.input", [None, {"path": str(secret), "orig_name": "a.png", **meta}])
    assert message["success"] is False
    assert "base64" not in json.dumps(message)


def test_uploaded_file_is_kept_as_it_is(launched, engine, tmp_path):
    """Grey and of 16 bits: gr.Image would have re-encoded it, and its content hash would be another."""
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(path)
    client = launched()
    (stored,) = client.post("/gradio_api/upload", files={"files": ("grey.png", path.read_bytes())}).json()
    file = {"path": stored, "orig_name": "grey.png", "meta": {"_type": "gradio.FileData"}}
    for _ in range(2):  # the second time too
        assert call(client, "ris-upload.input", [None, file])["success"] is True
    assert (
        call(client, "ris-picture.go", [None, "", "reds", 5, "ivfpq", 1, False, [], "", "score", 0.5])["success"]
        is True
    )
    assert Path(engine.asked[-1][0]).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "picked",
    [
        {"collection": "none", "id": 0},
        {"collection": "reds", "id": -1},
        {"collection": "reds", "id": 5},
        {"collection": "reds", "id": "0"},
        {"collection": "reds", "id": True},
        {"collection": "reds", "id": None},
        {"collection": ["reds"], "id": 0},
        {"collection": "../reds", "id": 0},
        {},
        3,
        "reds",
        [3],
        None,
    ],
)
def test_forged_pick_is_refused_in_words(launched, picked):
    message = call(launched(), "ris-examples.pick", [None], event_data=picked)
    assert message["success"] is False
    assert "no longer in the collection" in message["output"]["error"]


def test_pick_gives_the_picture(launched):
    message = call(launched(), "ris-examples.pick", [None], event_data={"collection": "reds", "id": 3})
    assert message["success"] is True
    assert 'data-width="40"' in json.loads(json.dumps(message["output"]["data"]))[0]


def test_a_slider_that_is_let_go_compares_anew(launched):
    """With such an event Gradio's page sends the slider's number, where others send names and values."""
    sent = ["reds", None, None, 5, 1, False, ""]
    message = call(launched(), "ris-compare-nprobe.release", sent, event_data=1)
    assert message["success"] is True
    assert "Choose a picture" in message["output"]["data"][0]


@pytest.mark.parametrize(
    ("place", "value"),
    [(2, "nope"), (2, None), (3, 10**9), (3, -1), (5, 10**9), (5, -1), (8, "nope"), (9, "nope"), (10, -1), (10, 7)],
)
def test_forged_settings_are_put_right_or_refused_in_words(launched, engine, place, value):
    """Nothing looks at them before the handler does: the page's events skip Gradio's preprocessing."""
    client = launched()
    call(client, "ris-examples.pick", [None], event_data={"collection": "reds", "id": 3})
    sent = [None, "", "reds", 5, "ivfpq", 1, False, [], "", "score", 0.5]
    sent[place] = value
    message = call(client, "ris-picture.go", sent)
    assert message["success"] or "nope" in message["output"]["error"] or "None" in message["output"]["error"]
    assert all(1 <= k <= MAX_RESULTS + 1 and nprobe >= 1 for _, k, nprobe, _ in engine.asked)


def test_search_for_nothing_says_so(launched):
    message = call(launched(), "ris-picture.go", [None, "", "reds", 5, "ivfpq", 1, False, [], "", "score", 0.5])
    assert message["output"]["error"] == "Type some words or choose a picture first."


# Queries


def test_query_crops_at_full_resolution_and_upright(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    query = QueryPicture.open(tmp_path / "a.png", "a.png")
    assert (query.width, query.height) == (500, 300)
    cropped = QueryPicture(**{**vars(query), "box": (10, 20, 400, 250)})
    np.testing.assert_array_equal(cropped.pixels(), pixels[::-1, ::-1][20:250, 10:400])


def test_deleted_upload_is_missed_in_words(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    query = QueryPicture.open(path, "mine.png")
    path.unlink()
    with pytest.raises(gr.Error, match=r"mine\.png is no longer on the server"):
        query.pixels()


def test_name_in_an_error_is_escaped(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(gr.Error, match=r"&lt;img src=x&gt; cannot be read"):
        QueryPicture.open(path, "<img src=x>")


# The command


@pytest.fixture
def no_launch(monkeypatch):
    monkeypatch.setattr("gradio_app.app.SearchPage.launch", lambda *a, **k: pytest.fail("it was launched"))


def run(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    output = capsys.readouterr()
    assert output.out == ""
    return int(exit.value.code), output.err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_no_collection_at_all(capsys, tmp_path, monkeypatch, no_launch):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, "--port", str(free_port()))
    assert code == 1
    assert said.count("\n") == 1
    assert "no collection" in said
    assert "python gradio_app/create_index.py --data demo" in said


def test_unknown_collection(capsys, workspace, demo_collection, monkeypatch, no_launch):
    monkeypatch.chdir(workspace)
    code, said = run(capsys, "--data", "demo", "holidays", "--port", str(free_port()))
    assert code == 1
    assert said.count("\n") == 1
    assert "no collection 'holidays'; there are: demo" in said
    assert "create_index.py --data" in said


@pytest.mark.parametrize("name", ["../demo", "/etc", ".", "demo/", "demo/../demo"])
def test_a_path_is_no_collection(capsys, workspace, demo_collection, monkeypatch, no_launch, name):
    monkeypatch.chdir(workspace)
    assert run(capsys, "--data", name, "--port", str(free_port()))[0] == 1


def test_damaged_collection(capsys, tmp_path, demo_collection, monkeypatch, no_launch):
    shutil.copytree(demo_collection, tmp_path / "collections" / "broken")
    (tmp_path / "collections" / "broken" / "manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, "--port", str(free_port()))
    assert code == 1
    assert "collection 'broken' cannot be opened: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("listed", [False, True])
def test_a_damaged_collection_keeps_no_other_from_opening(caplog, tmp_path, demo_collection, listed):
    for name in ("broken", "whole"):
        shutil.copytree(demo_collection, tmp_path / name)
    manifest = tmp_path / "broken" / "manifest.json"
    made = json.loads(manifest.read_text())
    index = tmp_path / "broken" / made["indexes"]["ivfpq"]["file"]
    index.write_bytes(b"nothing")
    if listed:  # as an index of an earlier format would be
        made["indexes"]["ivfpq"]["sha256"] = hashlib.sha256(b"nothing").hexdigest()
        manifest.write_text(json.dumps(made))
    assert list(open_collections(None, tmp_path)) == ["whole"]
    assert "collection 'broken' cannot be opened: " in caplog.text
    with pytest.raises(UsageError, match=r"^collection 'broken' cannot be opened: .* run create_index\.py"):
        open_collections(["whole", "broken"], tmp_path)


def test_port_in_use(capsys, no_launch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = run(capsys, "--port", str(port))
    assert code == 1
    assert said == f"app.py: port {port} on 127.0.0.1 is in use; choose another with --port, e.g. --port {port + 1}\n"


def test_port_that_is_free_is_accepted():
    check_port("127.0.0.1", free_port())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--auth", "user"], "USER:PASS"),
        (["--auth", ":pass"], "USER:PASS"),
        (["--auth", "user:"], "USER:PASS"),
        (["--port", "0"], "port from 1 to 65535"),
        (["--port", "65536"], "port from 1 to 65535"),
        (["--port", "http"], "port from 1 to 65535"),
        (["--data"], "expected at least one argument"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_bad_arguments(capsys, no_launch, arguments, says):
    code, said = run(capsys, *arguments)
    assert code == 2
    assert says in said


def test_unknown_host(capsys, no_launch, monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    code, said = run(capsys, "--host", "nowhere.example")
    assert (code, said) == (1, "app.py: --host nowhere.example: no such address\n")


def test_password_may_hold_colons(monkeypatch, workspace, demo_collection):
    seen = {}
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("gradio_app.app.SearchPage.launch", lambda self, **options: seen.update(options))
    monkeypatch.setattr("gradio_app.app.SearchPage.block_thread", lambda self: None)
    main(["--auth", "me:a:b:", "--port", str(free_port()), "--share"])
    assert seen["auth"] == ("me", "a:b:")
    assert seen["share"] is True
    assert seen["server_name"] == "127.0.0.1"


def test_stopped_before_it_is_warm(monkeypatch, workspace, demo_collection):
    """Python aborts if its end finds a thread in torch."""
    warmed = []
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("gradio_app.serving.warm_up", warmed.append)
    timers, real = [], threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda *given, **more: timers.append(real(*given, **more)) or timers[-1])
    monkeypatch.setattr("gradio_app.app.SearchPage.launch", lambda self, **options: None)
    monkeypatch.setattr("gradio_app.app.SearchPage.block_thread", lambda self: None)
    monkeypatch.setattr("gradio_app.serving.WARM_UP_AFTER", 60.0 * MINUTES)
    main(["--port", str(free_port())])
    for timer in timers:
        timer.join(60 * MINUTES)
        assert not timer.is_alive()
    assert timers
    assert warmed == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory in such a way")
def test_free_memory_between_what_is_in_use_is_given_back(monkeypatch):
    answers = [b"." * 100_000 for _ in range(2000)]
    sizes, rounds = [], iter(["the first"])

    def sleep(seconds):
        sizes.append(resident())
        next(rounds)

    del answers[::2]
    with pytest.raises(StopIteration):
        trim_memory(sleep)
    assert sizes[0] - sizes[1] > 0.8 * 100_000 * len(answers)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_script_serves_from_the_root_of_the_project(workspace, demo_collection):
    """The command as it is typed, in a process of its own; `workspace` stands for the root."""
    port = free_port()
    command = [sys.executable, str(ROOT / "gradio_app" / "app.py"), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == f"Searching demo at http://127.0.0.1:{port}/  (Ctrl-C stops it)\n"
            reply = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=60 * MINUTES)
            assert reply.status_code == 200
            assert "Reverse image search" in reply.text
        finally:
            process.terminate()
            errors = process.communicate(timeout=60 * MINUTES)[1]
    assert "Traceback" not in errors
