"""What the page is told of a map, without a browser: numbers, lists with their addresses, and the search drawn in."""

from __future__ import annotations

import base64
import json
import re

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_picture_map import folder, made  # noqa: F401

from features.checksum import sha256_of
from features.collection.store import FeatureStore
from gradio_app.browse_address import BrowseAddress
from gradio_app.library import Library
from gradio_app.markup import STATIC
from gradio_app.routes.map import MAX_TILES, SCRIPTS, DrawnMap, facts_of, map_routes
from gradio_app.session import Asked, QueryPicture, Request, Result, Session
from gradio_app.tabs.map.handlers import MapHandlers
from ivfpq.distances import normalised
from search.build import create_index
from search.engine import SearchEngine
from search.index_lists import IndexLists
from search.picture_map import map_of


@pytest.fixture
def engine(folder):  # noqa: F811
    return SearchEngine.open(folder)


@pytest.fixture
def client(engine):
    return TestClient(FastAPI(routes=map_routes({"c": engine})))


def test_the_numbers_are_those_of_the_library(client, engine):
    facts = client.get("/map/c").json()
    known, count = map_of(engine.store), facts["count"]
    sent = client.get("/" + facts["points"]).content
    assert len(sent) == 13 * count
    assert np.frombuffer(sent, "<u4", count).tolist() == engine.store.ids.tolist()
    np.testing.assert_array_equal(np.frombuffer(sent, "<f4", count, 4 * count), known.points[:, 0] / known.reach)
    np.testing.assert_array_equal(np.frombuffer(sent, "<f4", count, 8 * count), known.points[:, 1] / known.reach)
    named = [facts["labels"][place - 1][0] for place in np.frombuffer(sent, np.uint8, count, 12 * count)]
    assert named == [item.labels[0] for item in engine.store.items]
    assert dict(facts["labels"]) == engine.labels
    numbers = np.frombuffer(client.get("/" + facts["lists"]["numbers"]).content, "<i4")
    assert numbers.tolist() == IndexLists.of(engine.space(), "ivfpq").numbers.tolist()
    assert facts["lists"]["sizes"] == np.bincount(numbers, minlength=4).tolist()
    for number, centre in enumerate(facts["lists"]["centres"]):
        np.testing.assert_allclose(centre, known.points[numbers == number].mean(0) / known.reach, atol=1e-4)
    assert client.get("/map/d").status_code == 404
    assert client.get("/map/c/lists/exact").status_code == 404


def test_only_frequent_labels_have_a_colour(engine, monkeypatch):
    monkeypatch.setattr("gradio_app.routes.map.COLOURED", 2)
    shown = DrawnMap(engine, map_of(engine.store))
    assert shown.labels == [("label 0", 30), ("label 1", 30)]
    places = {"label 0": 1, "label 1": 2, "label 2": 0}
    assert list(shown.points[-90:]) == [places[item.labels[0]] for item in engine.store.items]


def test_the_address_of_a_list_shows_its_pictures(client, engine):
    for key in ("ivfpq", "faiss", "exact"):
        lists = client.get(f"/map/c?engine={key}").json()["lists"]
        assert lists["engine"] == ("ivfpq" if key == "exact" else key)
        own = IndexLists.of(engine.space(), lists["engine"])
        for number, address in enumerate(lists["addresses"]):
            found = BrowseAddress.read(address).filter
            assert found.ids(engine.store).tolist() == own.ids[own.numbers == number].tolist()
    assert (
        str(BrowseAddress.read(client.get("/map/c").json()["lists"]["addresses"][3]).filter)
        == "pictures in index list 3"
    )


def test_pictures_of_points_are_tiles_and_a_selection(client, engine):
    tiles = client.post("/map/c/tiles", json={"ids": [5, 3, 5_000, -1, *range(60, 200)]}).text
    shown = [int(id) for id in re.findall(r'data-id="(\d+)"', tiles)]
    assert shown == [5, 3, *range(60, 90)][:MAX_TILES]
    chosen = client.post("/map/c/contents", json={"ids": [5, 3]}).json()
    assert dict(chosen) == {id: engine.store.hash_of(id)[:16] for id in (3, 5)}
    assert client.post("/map/c/contents", json={"ids": [0] * 10_001}).status_code == 422


def test_a_collection_without_lists_says_so(folder):  # noqa: F811
    create_index(FeatureStore.open(folder), factory="Flat", engines=["ivfpq", "faiss"])
    engine = SearchEngine.open(folder)
    facts = facts_of(DrawnMap(engine, map_of(engine.store)))
    assert facts["lists"] is None
    assert facts["without_lists"] == "The index of this collection, Flat (ours), has no lists that could be shown here."


def test_the_scripts_of_others_are_as_they_were_published(client):
    told = (STATIC / "vendored/README.md").read_text(encoding="utf-8")
    licences = (STATIC / "vendored/LICENSES.txt").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert client.get(f"/vendored/{name}").headers["content-type"].startswith("text/javascript")
        assert re.search(rf"`{re.escape(name)}`.*`{sha256_of(STATIC / 'vendored' / name)}`", told), name
        assert f"({name})" in licences
    assert client.get("/vendored/README.md").status_code == 404


def searched(engine, picture, by="ivfpq", nprobe=None):
    hits = engine.search(engine.store.items[picture].path, 5, engine=by, nprobe=nprobe)
    return Result(engine, Asked(QueryPicture.of(engine, picture)), Request("c", by, 5, 5, nprobe), hits, True)


def test_the_last_search_is_drawn_in(engine):
    handlers = MapHandlers(Library([engine]))
    assert handlers.search("c", Session()) == ""
    result = searched(engine, 7, nprobe=2)
    session = Session(result=result)
    assert handlers.search("another", session) == ""
    told = json.loads(handlers.search("c", session))
    known = map_of(engine.store)
    np.testing.assert_allclose(told["place"], known.points[7] / known.reach, atol=1e-4)
    assert told["hits"] == [[hit.id, hit.rank] for hit in result.hits]
    vector = normalised(np.asarray(engine.store.features[[7]], np.float32))
    assert told["probed"] == engine.index("ivfpq").probe(vector, 2).ids[0].tolist()
    assert (told["id"], told["engine"], told["can_score"]) == (7, "ivfpq", True)
    exactly = json.loads(handlers.search("c", Session(result=searched(engine, 7, "exact"))))
    assert (exactly["probed"], exactly["compares_all"]) == ([], True)
    words = Result(engine, Asked(None, "label:x"), Request("c", "ivfpq", 5, 5), result.hits, False)
    told = json.loads(handlers.search("c", Session(result=words)))
    assert (told["place"], told["probed"], told["can_score"]) == (None, [], False)
    assert len(told["hits"]) == 5


def test_likeness_to_the_query_is_a_byte_for_each_picture(engine):
    handlers = MapHandlers(Library([engine]))
    told = json.loads(handlers.scores("c", Session(result=searched(engine, 7))))
    x = normalised(np.asarray(engine.store.features[engine.store.ids], np.float32))
    cosines = x @ x[7]
    shades = np.frombuffer(base64.b64decode(told["shades"]), np.uint8)
    assert shades.size == engine.store.ids.size
    others = np.delete(cosines, 7)  # itself would take most of the scale
    assert (told["low"], told["high"]) == (pytest.approx(others.min()), pytest.approx(np.quantile(others, 0.99)))
    step = (told["high"] - told["low"]) / 255
    known = np.minimum(others, told["high"])
    np.testing.assert_allclose(told["low"] + step * np.delete(shades, 7), known, atol=0.51 * step + 1e-5)
    assert shades[7] == 255
    with pytest.raises(gr.Error, match="Search for a picture first"):
        handlers.scores("c", Session())
