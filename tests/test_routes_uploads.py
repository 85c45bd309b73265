"""Who may change collections, and what may be sent for it."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.routes.access import StartToken, host_name, may_manage
from gradio_app.routes.uploads import library_routes

TOKEN = StartToken()
HELD = f"other=1; {TOKEN.cookie}={TOKEN.secret}"


@pytest.mark.parametrize(
    ("headers", "logged_in", "may"),
    [
        ({"host": "127.0.0.1:7860", "cookie": HELD}, False, True),
        ({"host": "localhost:7860", "origin": "http://localhost:7860", "cookie": HELD}, False, True),
        ({"host": "[::1]:7860", "cookie": HELD}, False, True),
        # An address proves nothing: a reverse proxy passes on strangers from this very computer.
        ({"host": "127.0.0.1:7860"}, False, False),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, False, False),
        ({"host": "127.0.0.1:7860", "cookie": f"{TOKEN.cookie}={TOKEN.secret[:-1]}"}, False, False),
        ({"host": "127.0.0.1:7860", "cookie": f"{TOKEN.cookie}="}, False, False),
        ({"host": "127.0.0.1:7860", "cookie": f"{TOKEN.cookie}=\u00e9\ud800"}, False, False),
        ({"host": "127.0.0.1:7860", "cookie": f"session={TOKEN.secret}"}, False, False),
        ({"host": "192.168.1.5:7860"}, False, False),
        ({"host": "localhost.evil.example"}, False, False),
        ({}, False, False),
        # Through a proxy who holds the token may, whether it hands on the name or not.
        ({"host": "127.0.0.1:7860", "x-forwarded-for": "9.9.9.9", "cookie": HELD}, False, True),
        ({"host": "127.0.0.1:7860", "x-forwarded-for": "9.9.9.9"}, False, False),
        (
            {"host": "127.0.0.1:7860", "x-forwarded-host": "s.example", "origin": "https://s.example", "cookie": HELD},
            False,
            True,
        ),
        (
            {"host": "127.0.0.1:7860", "origin": "https://s.example", "sec-fetch-site": "same-origin", "cookie": HELD},
            False,
            True,
        ),
        # Another site in the same browser may not, whoever sits there.
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example", "cookie": HELD}, False, False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999", "cookie": HELD}, False, False),
        ({"host": "127.0.0.1:7860", "origin": "http://[", "cookie": HELD}, False, False),
        ({"host": "127.0.0.1:7860", "origin": "null", "cookie": HELD}, False, False),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site", "cookie": HELD}, False, False),
        ({"host": "search.example"}, True, True),
        ({"host": "search.example", "origin": "https://evil.example"}, True, False),
        ({"host": "search.example", "sec-fetch-site": "same-site"}, True, False),
    ],
)
def test_who_may_manage(headers, logged_in, may):
    assert may_manage(headers, TOKEN, logged_in=logged_in) is may


def test_tokens_of_two_starts_are_two():
    other = StartToken()
    assert not other.is_held({"cookie": HELD})
    assert other.cookie != TOKEN.cookie


def test_link_leaves_the_token_in_the_browser_and_leads_to_the_page():
    client = TestClient(FastAPI(routes=TOKEN.routes()), follow_redirects=False)
    reply = client.get(f"/{TOKEN.path}")
    assert (reply.status_code, reply.headers["location"]) == (303, "./")
    said = reply.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "secure" not in said
    assert client.cookies[TOKEN.cookie] == TOKEN.secret
    assert (
        "secure" in client.get(f"/{TOKEN.path}", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"].lower()
    )
    for wrong in ("/start", "/start?token=", "/start?token=guess", "/start?token=%ff"):
        reply = client.get(wrong)
        assert reply.status_code == 403
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:7860", "127.0.0.1"),
        ("LocalHost.:80", "localhost"),
        ("[::1]:7860", "::1"),
        ("evil.example", "evil.example"),
        ("", ""),
        ("[", ""),
        ("[::1", ""),
        ("a b", "a b"),
        ("user@127.0.0.1@evil.example", "evil.example"),
    ],
)
def test_host_names(host, name):
    assert host_name(host) == name


@pytest.fixture
def client(tmp_path):
    jobs = CollectionJobs(tmp_path, Library())
    app = FastAPI(routes=library_routes(jobs.library, jobs, TOKEN))
    app.auth = app.auth_dependency = None
    return TestClient(app, base_url="http://127.0.0.1:9", headers={"Cookie": HELD}), jobs


def test_a_file_is_kept_under_its_token(client):
    client, jobs = client
    reply = client.put("/collections/upload", content=b"content")
    assert reply.status_code == 200
    assert jobs.uploads.place(reply.text).read_bytes() == b"content"


def test_what_is_too_large_is_refused_and_not_kept(client, monkeypatch, tmp_path):
    client, _ = client
    monkeypatch.setattr("gradio_app.routes.uploads.MAX_UPLOAD", 10**6)
    assert client.put("/collections/upload", content=bytes(10**6 + 1)).status_code == 413
    chunks = (bytes(10**5) for _ in range(11))  # sent without saying how much it is
    assert client.put("/collections/upload", content=chunks).status_code == 413
    assert list(tmp_path.iterdir()) == []


def test_strangers_send_nothing(client, tmp_path):
    client, _ = client
    assert client.put("/collections/upload", content=b"x", headers={"Cookie": "other=1"}).status_code == 403
    assert client.put("/collections/upload", content=b"x", headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert client.put("/collections/upload", content=b"x", headers={"Origin": "http://evil.example"}).status_code == 403
    assert list(tmp_path.iterdir()) == []


def test_version_follows_the_library(client):
    client, jobs = client
    before = client.get("/collections/version").text
    jobs.library.drop("nothing")
    assert client.get("/collections/version").text != before
