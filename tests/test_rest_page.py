"""The API beside the page on one port: what the guard lets through, what a login asks of it, and that nothing waits."""

import subprocess
import sys
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fakes import reds
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gradio_app.app import build_app
from gradio_app.routes.api.beside import is_for_api
from gradio_app.routes.api.problems import MEDIA_TYPE


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Starts pages as the command does; gives a client for each."""
    pages, clients = [], []

    def start(**options):
        page = build_app([reds(tmp_path_factory.mktemp("reds"))])
        pages.append(page)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **options)
        clients.append(httpx.Client(base_url=url, trust_env=False, timeout=120))
        return clients[-1]

    yield start
    for each in (*clients, *pages):
        each.close()


def test_page_and_api_answer_on_one_port(launch):
    client = launch()
    assert client.get("/healthz").json() == {"status": "ok"}
    page = client.get("/", headers={"origin": str(client.base_url).rstrip("/")})
    assert "<html" in page.text
    reply = client.get("/api/v1/nothing")
    assert (reply.status_code, reply.headers["content-type"]) == (404, MEDIA_TYPE)
    assert client.get("/api/v1/openapi.json").json()["info"]["title"] == "Reverse image search"
    foreign = client.get("/healthz", headers={"host": "evil.example"})
    assert (foreign.status_code, foreign.headers["content-type"]) == (403, MEDIA_TYPE)
    other = {"origin": "http://localhost:1", "access-control-request-method": "POST"}
    for reply in (client.options("/api/v1/search", headers=other), client.get("/metrics", headers=other)):
        assert reply.status_code in (403, 405)
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert (
        client.post("/api/v1/search", content=b"[1]", headers={"content-type": "application/json"}).status_code == 422
    )


def test_where_visitors_log_in_the_api_asks_too(launch):
    client = launch(auth=("user", "secret"))
    for path in ("/api/v1/collections", "/metrics", "/api/v1/openapi.json", "/api/v1/nothing"):
        reply = client.get(path)
        assert (reply.status_code, reply.headers["content-type"]) == (401, MEDIA_TYPE)
    assert client.post("/api/v1/search", json={"q": "a"}).status_code == 401
    assert client.get("/healthz").status_code == 200, "whoever watches over the server has no password"
    assert client.post("/login", data={"username": "user", "password": "secret"}).status_code == 200
    assert client.get("/metrics").status_code == 200


def test_which_addresses_are_the_apis():
    for path in ("/api", "/api/v1/search", "/healthz", "/readyz", "/metrics"):
        assert is_for_api(path)
    for path in ("/", "/apis", "/gradio_api/upload", "/healthz/x", "/pictures/api/1/thumb", "/config"):
        assert not is_for_api(path)


def test_the_page_loads_nothing_of_it():
    code = (
        "import sys, gradio_app.app; "
        "print([name for name in sys.modules if name.startswith(('gradio_app.routes.api.', 'prometheus_client'))])"
    )
    root = Path(__file__).resolve().parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['gradio_app.routes.api.beside', 'gradio_app.routes.api.problems']"


def test_it_lies_below_the_page_where_that_is_mounted_elsewhere(tmp_path):
    app, page = FastAPI(), build_app([reds(tmp_path)])
    gr.mount_gradio_app(app, page, path="/pictures", **page.server_options)
    client = TestClient(app)
    assert client.get("/pictures/healthz").json() == {"status": "ok"}
    assert client.get("/pictures/api/v1/openapi.json").status_code == 200
    assert client.get("/pictures/api/v1/nothing").headers["content-type"] == MEDIA_TYPE
    assert client.get("/healthz").status_code == 404
