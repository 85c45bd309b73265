"""The routes of the page that shows how a search found its pictures."""

import io
import json

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from gradio_app.library import Library
from gradio_app.routes.found import found_routes, found_url
from gradio_app.session import QueryPicture
from search.engine import SearchEngine
from search.explain.export import is_explainable
from search.explain.page import PAGE
from search.options import SearchOptions


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(engine, uploads):
    app = FastAPI(routes=found_routes(Library([engine]), lambda: uploads))
    app.auth, app.auth_dependency, app.cookie_id, app.tokens = None, None, "id", {}
    return TestClient(app)


def numbers_at(client, address):
    response = client.get(address.replace("index.html", "data.js"))
    assert response.headers["content-type"].startswith("text/javascript")
    return json.loads(response.text.removeprefix("window.EXPLAINER=").removesuffix(";\n"))


def test_a_search_with_a_picture_of_the_collection(client, engine):
    options = SearchOptions("faiss", nprobe=5)
    assert is_explainable(engine, options)
    address = found_url(engine, QueryPicture.of(engine, 57), options)
    assert client.get(address).text == (PAGE / "index.html").read_text(encoding="utf-8")
    written = numbers_at(client, address)
    truth = engine.search_vector(vector_of(engine, 57), exactly(), own_id=57)
    assert written["queries"][0]["truth"] == list(truth.ids)
    assert written["about"]["nprobe"] == 5
    sheet = client.get(address.replace("index.html", "pictures.webp"))
    assert Image.open(io.BytesIO(sheet.content)).width == 12 * 96


def test_a_piece_of_a_picture_that_was_brought_along(client, engine, uploads):
    folder = uploads / ("0" * 64)
    folder.mkdir()
    Image.open(engine.store.items[3].path).save(folder / "mine.png")
    query = QueryPicture.open(folder / "mine.png", "mine.png").with_box((10, 10, 120, 120))
    (shown,) = numbers_at(client, found_url(engine, query, SearchOptions("ivfpq", nprobe=2)))["queries"]
    vector, own_id = engine.encode(query.pixels())
    assert own_id is None
    assert shown["label"] == "mine.png"
    assert shown["truth"] == list(engine.search_vector(vector, exactly()).ids)


@pytest.mark.parametrize("asked", ["", "AAAA", "aW49bm9uZQ", "aW49ZGVtbw", "%F0"])
def test_what_cannot_be_shown_is_said(client, asked):
    response = client.get(f"/found/{asked or 'x'}/data.js")
    assert response.status_code == 200
    assert "cannot be shown any more" in response.text
    assert client.get(f"/found/{asked or 'x'}/pictures.webp").status_code == 404


def test_nothing_else_is_given_out(client):
    for name in ("page.py", "..%2Fhow.html", "RESULTS.md"):
        assert client.get(f"/found/AAAA/{name}").status_code == 404


def test_exact_search_has_no_figures(engine):
    assert not is_explainable(engine, SearchOptions("exact"))


def vector_of(engine, id):
    return engine.space().space.rows([id])[0]


def exactly():
    return SearchOptions("exact", 10, rerank=False, neighbourhood=0)
