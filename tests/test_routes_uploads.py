"""Who may change collections, and what may be sent for it."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.routes.access import is_trusted
from gradio_app.routes.uploads import library_routes


@pytest.mark.parametrize(
    ("headers", "logged_in", "trusted"),
    [
        ({"host": "127.0.0.1:7860"}, False, True),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, False, True),
        ({"host": "[::1]:7860"}, False, True),
        ({"host": "192.168.1.5:7860"}, False, False),
        ({"host": "evil.example:7860"}, False, False),  # DNS rebinding
        ({"host": "localhost.evil.example"}, False, False),
        ({}, False, False),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, False, False),
        ({"host": "127.0.0.1:7860", "origin": "null"}, False, False),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, False, False),
        ({"host": "127.0.0.1:7860", "x-forwarded-for": "9.9.9.9"}, False, False),  # a proxy passes on strangers
        ({"host": "search.example"}, True, True),
        ({"host": "search.example", "origin": "https://evil.example"}, True, False),
        ({"host": "search.example", "sec-fetch-site": "same-site"}, True, False),
    ],
)
def test_who_is_trusted(headers, logged_in, trusted):
    assert is_trusted(headers, logged_in) is trusted


@pytest.fixture
def client(tmp_path):
    jobs = CollectionJobs(tmp_path, Library())
    app = FastAPI(routes=library_routes(jobs.library, jobs))
    app.auth = app.auth_dependency = None
    return TestClient(app, base_url="http://127.0.0.1:9"), jobs


def test_a_file_is_kept_under_its_token(client):
    client, jobs = client
    reply = client.put("/collections/upload", content=b"content")
    assert reply.status_code == 200
    assert jobs.uploaded(reply.text).read_bytes() == b"content"


def test_what_is_too_large_is_refused_and_not_kept(client, monkeypatch, tmp_path):
    client, _ = client
    monkeypatch.setattr("gradio_app.routes.uploads.MAX_UPLOAD", 10**6)
    assert client.put("/collections/upload", content=bytes(10**6 + 1)).status_code == 413
    chunks = (bytes(10**5) for _ in range(11))  # sent without saying how much it is
    assert client.put("/collections/upload", content=chunks).status_code == 413
    assert list(tmp_path.iterdir()) == []


def test_strangers_send_nothing(client, tmp_path):
    client, _ = client
    assert client.put("/collections/upload", content=b"x", headers={"Host": "evil.example"}).status_code == 403
    assert client.put("/collections/upload", content=b"x", headers={"Origin": "http://evil.example"}).status_code == 403
    assert list(tmp_path.iterdir()) == []


def test_version_follows_the_library(client):
    client, jobs = client
    before = client.get("/collections/version").text
    jobs.library.drop("nothing")
    assert client.get("/collections/version").text != before
