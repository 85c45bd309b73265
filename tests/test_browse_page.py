"""Leafing through a collection without a browser: addresses, pages of pictures, and facets with what they lead to."""

from __future__ import annotations

import gc
import html
import re
from weakref import ref

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from test_conditions import TREES
from test_facets import store  # noqa: F401

from gradio_app.browse_address import TILES, BrowseAddress
from gradio_app.routes.browse import browse_routes
from gradio_app.routes.per_collection import PerCollection
from search.engine import SearchEngine
from search.filters import Filter
from search.orders import ORDERS, PictureOrders


@pytest.fixture(scope="module")
def client(store):  # noqa: F811
    engine = SearchEngine.__new__(SearchEngine)  # of which only its collection is needed
    engine.store, engine.name = store, "c"
    return TestClient(FastAPI(routes=browse_routes({"c": engine})))


def shown(page):
    return [int(id) for id in re.findall(r'data-id="(\d+)"', page)]


def leading(page, key):
    """The address that a control leads to."""
    return html.unescape(re.search(rf'data-to="([^"]*)" data-key="{re.escape(html.escape(key))}"', page)[1])


def test_a_collection_is_leafed_through(client):
    page = client.get("/browse/c").text
    assert shown(page) == list(range(60))
    assert "<b>c</b> · 60 pictures" in page
    assert "ris-pager" not in page
    assert client.get("/browse/d").status_code == 404


def test_controls_hold_the_addresses_that_they_lead_to(client, store):  # noqa: F811
    facets = client.get("/browse/c/facets?open=label&open=tag").text
    only_cups = leading(facets, "label:cup:only")
    assert BrowseAddress.read(only_cups) == BrowseAddress(Filter(("cup",)))
    page = client.get(f"/browse/c?{only_cups}").text
    assert shown(page) == list(range(0, 60, 3))
    assert "<b>20 of 60</b> pictures of <b>c</b>: labelled cup" in page
    facets = client.get(f"/browse/c/facets?{only_cups}&open=label&open=tag").text
    assert leading(facets, "label:cup:only") == "tab=browse"
    both = leading(facets, "tag:Sea:not")
    page = client.get(f"/browse/c?{both}").text
    assert shown(page) == list(range(30, 60, 3))
    assert "labelled cup and not tagged Sea" in page
    assert leading(page, "chip:2") == only_cups
    assert leading(page, "all") == "tab=browse"


def test_selected_pictures_are_shown_alone(client):
    page = client.post("/browse/c?order=name", json={"ids": [7, 3, 59, 5_000]}).text
    assert sorted(shown(page)) == [3, 7, 59]
    assert "<b>3 of 60</b> pictures of <b>c</b>: those that are selected" in page
    assert client.post("/browse/c", json={"ids": list(range(10_001))}).status_code == 422
    assert client.post("/browse/c", json={"ids": [2**70]}).status_code == 422


def test_orders_sizes_and_pages(client, store, monkeypatch):  # noqa: F811
    monkeypatch.setattr("gradio_app.tabs.browse.views.LEAF", 25)
    page = client.get("/browse/c?order=random&seed=5&leaf=2").text
    wanted = PictureOrders(store).ordered(store.ids, "random", 5).tolist()
    assert shown(page) == wanted[25:50]
    assert BrowseAddress.read(leading(page, "shuffle")) == BrowseAddress(order="random", seed=6)
    assert BrowseAddress.read(leading(page, "behind")) == BrowseAddress(order="random", seed=5, leaf=3)
    large = BrowseAddress(order="random", seed=5, leaf=2, tile="large")
    assert BrowseAddress.read(leading(page, "tile:Large")) == large
    assert shown(client.get("/browse/c?order=random&seed=5&leaf=99").text) == wanted[50:]
    assert '<data value="leaf=3' not in page


def test_what_cannot_be_shown_is_told_in_a_sentence(client):
    where = BrowseAddress(Filter.of({"label": "cap"})).written()
    for place in ("", "/facets"):
        reply = client.get(f"/browse/c{place}?{where}&open=label")
        assert reply.status_code == 409
        assert reply.json()["detail"].endswith("bears the label 'cap'; did you mean 'cup'?.")
    reply = client.get(f"/browse/c?{BrowseAddress(Filter.of({'colour': 'red'})).written()}")
    assert reply.json()["detail"].startswith("Cannot filter by colour")


@given(
    TREES,
    st.sampled_from(list(ORDERS)),
    st.integers(0, 2**31 - 1),
    st.integers(1, 10**9),
    st.sampled_from(list(TILES)),
)
def test_an_address_is_read_as_it_was_written(tree, order, seed, leaf, tile):
    address = BrowseAddress(Filter(where=tree), order, seed if order == "random" else 0, leaf, tile)
    assert BrowseAddress.read(address.written()) == address


@pytest.mark.parametrize(
    "query",
    [
        "where={", "where=[]", "where=" + "[" * 10_000, 'where={"label":{"eq":NaN}}', "leaf=-1", "leaf=x", "seed=1e9",
        "order=best", "tile=huge", "&" * 2000, "where=%ff", 'where={"and":3}', None, 7,
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_an_address_counts_as_not_said(query):
    assert BrowseAddress.read(query) == BrowseAddress()


def test_what_is_kept_of_a_collection_goes_when_it_is_closed():
    class Engine:
        pass

    engines = {"a": Engine(), "b": Engine()}
    kept = PerCollection(engines, lambda engine: [engine])
    assert kept.of("a") is kept.of("a") and kept.of("b")[0] is engines["b"]
    closed = [ref(engine) for engine in engines.values()]
    engines["a"] = Engine()
    del engines["b"]
    assert kept.of("a")[0] is engines["a"]
    gc.collect()
    assert [engine() for engine in closed] == [None, None]
