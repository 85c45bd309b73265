"""What lies around the whole application: foreign hosts, wrong passwords, bodies, headers of every answer."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import waiting
from fakes import reds

from gradio_app.app import build_app
from gradio_app.guard import FREE_TRIES, LONGEST_WAIT, MAX_BODY, MAX_UPLOAD_BODY, WrongPasswords, policy_of
from gradio_app.routes.pictures import picture_url


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return reds(tmp_path_factory.mktemp("reds"))


@pytest.fixture(scope="module")
def launch(engine, tmp_path_factory):
    """Starts pages as the command does; gives each with a client for it."""
    pages, clients = [], []

    def start(allowed_hosts=(), **options):
        page = build_app([engine], manage=tmp_path_factory.mktemp("collections"), allowed_hosts=allowed_hosts)
        pages.append(page)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **options)
        clients.append(httpx.Client(base_url=url, trust_env=False, timeout=120))
        return page, clients[-1]

    yield start
    for client in clients:
        client.close()
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def served(launch):
    return launch()


@pytest.fixture(scope="module")
def private(launch):
    return launch(auth=("user", "secret"))


def log_in(page, client) -> httpx.Client:
    """A client of its own that has logged in; the fixture's stays a stranger."""
    known = httpx.Client(base_url=client.base_url, trust_env=False, timeout=120)
    assert known.post("/login", data={"username": "user", "password": "secret"}).status_code == 200
    return known


def event_of(page, name: str) -> int:
    element, event = name.split(".")
    return next(
        number
        for number, fn in page.fns.items()
        if any(
            target is not None and (page.blocks[target].elem_id, kind) == (element, event)
            for target, kind in fn.targets
        )
    )


def send(page, client, name: str, data: list, session="s", **extra) -> httpx.Response:
    body = {"fn_index": event_of(page, name), "data": data, "session_hash": session, **extra}
    return client.post("/gradio_api/run/predict", json=body)


# Every answer

WAYS = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/pictures/reds/0/thumb"),
    ("GET", "/pictures/reds/0/original"),
    ("GET", "/pictures/reds/99/thumb"),
    ("GET", "/collections/version"),
    ("GET", "/nothing"),
    ("GET", "/start"),
    ("GET", "/theme.css"),
    ("GET", "/static/img/logo.svg"),
    ("HEAD", "/"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/upload"),
    ("PUT", "/collections/upload"),
    ("OPTIONS", "/"),
    ("DELETE", "/"),
]


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_every_answer_says_what_browsers_may_do_with_it(served, method, path):
    reply = served[1].request(method, path)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "SAMEORIGIN"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'self'" in reply.headers["content-security-policy"]
    assert len(reply.headers.get_list("content-security-policy")) == 1


def test_preflight_and_error_say_it_too(served, engine, monkeypatch):
    client = served[1]
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert client.options("/config", headers=headers).headers["x-content-type-options"] == "nosniff"
    monkeypatch.setattr(engine, "store", None)
    reply = httpx.get(f"{client.base_url}pictures/reds/0/thumb", trust_env=False, timeout=120)
    assert (reply.status_code, reply.headers["x-content-type-options"]) == (500, "nosniff")


def test_the_page_lets_its_own_scripts_run_and_no_others(served):
    reply = served[1].get("/")
    policy = reply.headers["content-security-policy"]
    scripts = re.search(r"script-src ([^;]*);", policy)[1]
    assert "'unsafe-inline'" not in scripts
    inline = re.findall(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", reply.text, re.DOTALL)
    assert len(inline) > 3
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in scripts
    assert set(re.findall(r"https?://[^ ;]*", policy)) == set()


def test_the_page_says_what_it_is_and_shows_its_own_icon(served):
    reply = served[1].get("/")
    head = reply.text.partition("<script")[0]
    assert "<title>Reverse image search</title>" in head
    assert re.findall(r'<meta property="og:title" content="([^"]*)">', reply.text) == ["Reverse image search"]
    assert not re.search(r"<(meta|link)[^>]*gradio", reply.text, re.IGNORECASE)
    assert int(reply.headers["content-length"]) == len(reply.content) or "content-encoding" in reply.headers
    icon = re.search(r'<link rel="icon"[^>]*href="([^"]*)"', head)[1]
    shown = served[1].get(f"/{icon}")
    assert shown.headers["content-type"].startswith("image/svg+xml")
    assert shown.text.startswith("<svg")


def test_hashes_are_those_of_the_scripts():
    # echo -n 'alert(1)' | openssl dgst -sha256 -binary | base64
    digest = "bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI="
    page = b"<SCRIPT type=a>alert(1)</SCRIPT><script async src='x.js'></script><script data-src=1>alert(1)</script>"
    assert policy_of(page).count("sha256-") == 1
    assert f"'sha256-{digest}'" in policy_of(page)


# Foreign hosts


@pytest.mark.parametrize(("method", "path"), WAYS)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "192.168.1.9"]
)
def test_foreign_hosts_are_refused_on_every_route(served, method, path, host):
    reply = served[1].request(method, path, headers={"Host": host, "Origin": "http://localhost:1"})
    assert reply.status_code == 403
    assert method == "HEAD" or "--allow-host" in reply.json()["detail"]


def test_preflights_of_foreign_hosts_are_refused(served):
    headers = {"Host": "evil.example", "Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    assert served[1].options("/config", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:1", "127.0.0.1", "127.0.0.2:80", "[::1]:7860"])
def test_this_computer_goes_by_its_own_names(served, host):
    assert served[1].get("/config", headers={"Host": host}).status_code == 200


def test_where_visitors_log_in_any_name_will_do(private):
    _page, client = private
    assert client.get("/", headers={"Host": "search.example"}).status_code == 200
    assert client.get("/config", headers={"Host": "search.example"}).status_code == 401


# A reverse proxy


@pytest.fixture
def proxy(served, request):
    """A plain reverse proxy before the page, on another port; `request.param` is whether it hands on the name."""
    page, client = request.param(served)

    class Handler(BaseHTTPRequestHandler):
        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            headers["X-Forwarded-For"] = "203.0.113.9"
            if keeps_name:
                headers["Host"] = self.headers["Host"]
            with httpx.Client(trust_env=False, timeout=120) as inner:
                url = f"{str(client.base_url).rstrip('/')}{self.path}"
                reply = inner.request(self.command, url, content=body, headers=headers)
            self.send_response(reply.status_code)
            for name, value in reply.headers.multi_items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "content-encoding",
                    "date",
                ):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_PUT = forward  # noqa: N815

        def log_message(self, *args):
            pass

    keeps_name = getattr(request.param, "keeps_name", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield page, httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False, timeout=120)
    server.shutdown()
    thread.join()
    server.server_close()


def plain(served):
    return served


@pytest.mark.parametrize("proxy", [plain], indirect=True)
def test_strangers_behind_a_proxy_search_and_do_not_manage(proxy):
    page, outside = proxy
    assert outside.get("/").status_code == 200
    assert (
        send(page, outside, "ris-examples.pick", [None], event_data={"collection": "reds", "id": 1}).status_code == 200
    )
    assert outside.put("/collections/upload", content=b"x").status_code == 403
    outside.get(f"/{page.start_token.path}")
    assert outside.put("/collections/upload", content=b"x").status_code == 200
    outside.headers["Origin"] = "https://evil.example"
    assert outside.put("/collections/upload", content=b"x").status_code == 403


def test_a_proxy_that_hands_on_the_name_is_told_by_it(launch, served):
    page, client = launch(allowed_hosts=["Search.example"])
    host = {"Host": "search.example", "X-Forwarded-For": "203.0.113.9"}
    assert served[1].get("/", headers=host).status_code == 403
    assert client.get("/", headers=host).status_code == 200
    assert client.put("/collections/upload", content=b"x", headers=host).status_code == 403
    held = {**host, "Cookie": f"{page.start_token.cookie}={page.start_token.secret}"}
    assert client.put("/collections/upload", content=b"x", headers=held).status_code == 200
    assert client.get("/", headers={"Host": "other.example"}).status_code == 403


# Bodies


def endless(count: list[int]):
    for _ in range(10_000):
        count[0] += 2**16
        yield b" " * 2**16


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/predict",
        "/gradio_api/queue/join",
        "/gradio_api/reset",
        "/nothing",
        "/words/reds/0",
        "/words/collections/upload",
        "/words/gradio_api/upload",
    ],
)
def test_a_long_body_is_refused_before_it_is_read(served, path):
    client = served[1]
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=120) as raw:
        raw.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {300 * 2**20}\r\n\r\n".encode() + b"{")
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]  # although the rest has not come
    sent = [0]
    with contextlib.suppress(
        httpx.NetworkError, httpx.RemoteProtocolError
    ):  # the server may hang up before it is asked
        assert client.post(path, content=endless(sent)).status_code == 413
    assert sent[0] < 100 * MAX_BODY


def many_pictures(sent, boundary):
    """A form of files of half the limit of one, each different, without an end."""
    half = MAX_UPLOAD_BODY // 4
    while True:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{sent[0]}.jpg"\r\n\r\n'
        yield head.encode()
        for _ in range(0, half, 2**20):
            sent[0] += 2**20
            yield bytes(2**20)
        yield b"\r\n"


def test_an_upload_of_unsaid_length_is_bounded_and_leaves_nothing(served):
    page, client = served
    folder = Path(page.app.uploaded_file_dir)

    def held():
        return {path for path in folder.rglob("*") if path.is_file()}

    before = held()
    sent = [0]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(httpx.NetworkError, httpx.RemoteProtocolError):  # it may hang up before it has read all
        reply = client.post("/gradio_api/upload", content=many_pictures(sent, "b"), headers=headers)
        assert (reply.status_code, "33,554,432 bytes" in reply.text) == (413, True)
    assert MAX_UPLOAD_BODY < sent[0] < 4 * MAX_UPLOAD_BODY
    waiting.until(lambda: held() == before, "that the files of the upload go")


@pytest.mark.parametrize(
    "path", ["/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/upload", "/nothing"]
)
def test_a_stranger_is_asked_to_log_in_before_anything_is_read(private, path):
    client = private[1]
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=120) as raw:
        raw.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {300 * 2**20}\r\n\r\n".encode())
        assert b" 401 " in raw.recv(4096).split(b"\r\n")[0]


def test_who_has_logged_in_may_send_so_much_and_no_more(private):
    page, client = private
    known = log_in(page, client)
    with contextlib.suppress(httpx.NetworkError, httpx.RemoteProtocolError):
        assert known.post("/gradio_api/run/predict", content=b" " * (MAX_BODY + 1)).status_code == 413
    pick = send(page, known, "ris-examples.pick", [None], event_data={"collection": "reds", "id": 1})
    assert pick.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"data": []}',
        b'{"data": [], "fn_index": 99999}',
        b'{"data": [], "fn_index": true}',
        b'{"data": [], "fn_index": "0"}',
        b'{"data": [], "fn_index": 1.0}',
        b'{"data": {}, "fn_index": 0}',
        b'{"data": [], "fn_index": 0, "session_hash": 5}',
        b'{"data": [], "fn_index": 0, "session_hash": "../x"}',
        b'{"data": [], "fn_index": 0, "session_hash": ""}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff",
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/api/x"])
def test_an_event_that_the_page_cannot_have_sent_is_answered_in_a_sentence(served, capfd, path, body):
    reply = served[1].post(path, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"].endswith((".", "JSON.")), reply.text
    assert "Traceback" not in capfd.readouterr().err


def test_a_collection_may_be_called_as_a_part_of_an_address(served):
    page, client = served
    held = {"Cookie": f"{page.start_token.cookie}={page.start_token.secret}"}
    for name in ("api", "run", "call"):
        reply = client.post(f"/words/{name}/0", json={"do": "like"}, headers=held)
        assert (reply.status_code, reply.json()) == (404, {"detail": "There is no such picture."})


# Passwords


def test_wrong_passwords_have_to_wait_longer_and_longer():
    now = [0.0]
    passwords = WrongPasswords(lambda: now[0])
    tries = 0
    while now[0] < 3600:
        if passwords.begin("a") == 0:
            tries += 1
        now[0] += 0.1
    assert FREE_TRIES < tries < FREE_TRIES + 10 + 3600 / LONGEST_WAIT
    assert passwords.begin("b") == 0  # others do not wait
    for _ in range(FREE_TRIES):
        passwords.begin("b")
    assert passwords.begin("b") > 0
    passwords.forget("b")
    assert passwords.begin("b") == 0


def test_wrong_passwords_are_slowed_and_logged(launch, caplog):
    _page, client = launch(auth=("user", "secret"))
    with ThreadPoolExecutor(8) as many:
        wrong = {"username": "user", "password": "guess"}
        codes = list(many.map(lambda _: client.post("/login", data=wrong).status_code, range(40)))
    assert set(codes) == {400, 429}
    assert codes.count(400) < 40 / 2
    assert "wrong password from 127.0.0.1" in caplog.text
    assert "guess" not in caplog.text
    reply = client.post("/login", data={"username": "user", "password": "secret"})
    assert reply.status_code in (200, 429)  # the right one waits like the others, or gets through between two
    if reply.status_code == 429:
        assert int(reply.headers["retry-after"]) >= 1


def test_a_few_mistypes_cost_nothing(launch):
    _page, client = launch(auth=("user", "secret"))
    for _ in range(FREE_TRIES - 1):
        assert client.post("/login", data={"username": "user", "password": "secrte"}).status_code == 400
    assert client.post("/login", data={"username": "user", "password": "secret"}).status_code == 200


def test_pictures_leave_the_browser_when_someone_logs_out(private, served, engine):
    page, client = private
    known = log_in(page, client)
    for path in ("/config", *(f"/{picture_url(engine, 0, size)}" for size in ("thumb", "view", "original"))):
        reply = known.get(path)
        assert (reply.status_code, reply.headers["cache-control"]) == (200, "private, no-store")
    assert '"cache"' in known.get("/logout", follow_redirects=False).headers["clear-site-data"]
    assert known.get(f"/{picture_url(engine, 0, 'thumb')}").status_code == 401
    # Where nobody logs in, pictures stay for a week.
    assert "max-age" in served[1].get(f"/{picture_url(engine, 0, 'thumb')}").headers["cache-control"]


# Sessions


def last_of(page, client, session: str) -> str:
    reply = send(page, client, "ris-picture.swap", [None, "", "reds"], session)
    assert reply.status_code == 200, reply.text
    return json.dumps(reply.json()["data"])


def test_many_sessions_of_a_stranger_push_out_nobody_elses(launch, monkeypatch):
    monkeypatch.setattr("gradio_app.page.SESSIONS", 20)
    page, stranger = launch()
    pick = {"collection": "reds", "id": 1}
    with httpx.Client(base_url=stranger.base_url, trust_env=False, timeout=120) as visitor:
        visitor.get("/")
        assert send(page, visitor, "ris-examples.pick", [None], "mine", event_data=pick).status_code == 200
        for number in range(60):
            assert send(page, stranger, "ris-examples.pick", [None], f"s{number}", event_data=pick).status_code == 200
        assert "1.png" in last_of(page, visitor, "mine")
    assert len(page.state_holder.session_data) <= 20
