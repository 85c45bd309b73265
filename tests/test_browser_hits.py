"""Hits in a real Chromium: folded, scrolled on, added to the search; and a query that looks at its object."""

from __future__ import annotations

import numpy as np
import pytest
from test_browser import browser, found, open_page, outside, search, served, usual_context  # noqa: F401
from test_browser_address import example

from features import background
from features.collection.lru_cache import LruCache
from search.engine import SearchEngine
from search.folding import behind
from search.query import ImagePart, Query

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection):
    engine = SearchEngine.open(demo_collection)
    with served(engine) as page:
        yield page.local_url, engine


@pytest.fixture
def page(open_page):  # noqa: F811
    return open_page()


def own_id(page):
    return int(page.evaluate("new URLSearchParams(location.search).get('picture')").split("/")[1])


def in_sight(page):
    tiles = page.locator("#ris-results .ris-tile:not([hidden])")
    return tiles.evaluate_all("all => all.map((tile) => Number(tile.dataset.id))")


def test_hits_are_folded_and_more_come_as_one_scrolls_on(page, server):
    _, engine = server
    example(page, 2)
    ids = search(page)
    own = own_id(page)
    assert ids == [hit.id for hit in engine.search(ImagePart(own), 20)]
    page.check("#ris-fold input")
    page.wait_for_selector("#ris-results .ris-unfold")
    places = behind(engine.space().space.rows(np.array(ids)))
    leaders = [id for place, id in enumerate(ids) if places[place] == place]
    assert len(leaders) < 20 and in_sight(page) == leaders, "of pictures nearly the same the best stays"
    page.locator("#ris-results .ris-unfold").first.click()
    first = next(place for place in range(20) if (places == place).sum() > 1)
    assert set(in_sight(page)) == {*leaders, *(ids[place] for place in np.flatnonzero(places == first))}
    page.uncheck("#ris-fold input")
    page.wait_for_function("!document.querySelector('#ris-results .ris-unfold')")
    assert in_sight(page) == ids
    page.locator("#ris-results .ris-tile").first.hover()
    page.mouse.wheel(0, 20_000)
    page.wait_for_function("document.querySelectorAll('#ris-results .ris-tile').length === 40")
    assert found(page) == [hit.id for hit in engine.search(ImagePart(own), 40)]
    page.wait_for_url("**shown=40*")


def test_a_hit_is_added_to_the_search(page, server):
    _, engine = server
    example(page, 2)
    ids = search(page)
    own = own_id(page)
    tile = page.locator("#ris-results .ris-tile").nth(1)
    tile.hover()
    page.evaluate("document.querySelector('.ris-status').classList.add('old')")
    tile.locator(".ris-add").click()
    page.wait_for_selector(".ris-status:not(.old)")
    assert page.input_value(".ris-words input") == f"like:{ids[1]}"
    both = engine.search(Query((ImagePart(ids[1]), ImagePart(own))), 20)
    assert found(page) == [hit.id for hit in both]
    assert not {own, ids[1]} & set(found(page)), "what one searches with is no hit"


def test_the_object_of_a_picture_is_looked_at_and_shown(page, server, monkeypatch):
    monkeypatch.setattr(background, "shared_network", lambda: lambda prepared: prepared[0].mean(axis=0))
    monkeypatch.setattr(background, "_masks", LruCache())
    _, engine = server
    example(page, 2)
    search(page)
    own = own_id(page)
    page.check(".ris-foreground input")
    page.wait_for_selector(".ris-veil")
    assert page.is_checked(".ris-foreground input")
    assert search(page) == [hit.id for hit in engine.search(ImagePart(own, foreground=True), 20)]
    assert "foreground=1" in page.url
    page.reload()
    page.wait_for_selector("#ris-results .ris-tile")
    assert page.is_checked(".ris-foreground input") and page.locator(".ris-veil").count() == 1
