"""Leafing through a collection in a real Chromium: facets, orders, and the address that brings all of it back."""

from __future__ import annotations

import shutil

import pytest
from test_browser import barriers, browser, open_page, outside, served, usual_context  # noqa: F401

from features.collection import edits
from search.engine import SearchEngine
from search.filters import Filter

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browse") / "demo"
    shutil.copytree(demo_collection, folder)
    engine = SearchEngine.open(folder)
    edits.add_tag(engine.store.annotations, range(0, 40), "sea")
    with served(engine, manage=folder.parent) as page:
        yield page.start_link, engine


def after(page, action):
    """Do something that has the leaf drawn anew, and wait for it; the pictures that are there then."""
    page.evaluate("document.ris_leaves = 0")
    page.evaluate("document.addEventListener('ris-leaf', () => { document.ris_leaves = 1; }, { once: true })")
    action()
    page.wait_for_function("document.ris_leaves === 1")
    return page.eval_on_selector_all(".ris-leaf .ris-tile", "all => all.map((tile) => Number(tile.dataset.id))")


def open_browse(page):
    return after(page, page.get_by_role("tab", name="Browse the collection").click)


def ids(engine, filter):
    return Filter.of(filter).ids(engine.store).tolist()


def test_facets_narrow_down_and_the_address_brings_all_of_it_back(open_page, server):  # noqa: F811
    _, engine = server
    page = open_page()
    assert open_browse(page) == list(range(60))
    first, second, *_ = engine.store.labels()
    labels = page.locator(".ris-facet[data-facet=label]")
    page.focus(f'[data-key="label:{second}:only"]')
    assert after(page, lambda: page.keyboard.press("Enter")) == ids(engine, {"label": second})[:60]
    assert page.evaluate("document.activeElement.dataset.key") == f"label:{second}:only", "the keyboard goes on there"
    both = {"label": [second, first]}
    assert after(page, labels.locator(f'[data-key="label:{first}:only"]').click) == ids(engine, both)[:60]
    without = {**both, "not": {"tag": "sea"}}
    assert after(page, page.locator('[data-key="tag:sea:not"]').click) == ids(engine, without)[:60]
    said = page.inner_text(".ris-shown")
    assert said.startswith(f"{len(ids(engine, without))} of 340 pictures of demo: labelled {second} or {first}")
    assert said.endswith("not tagged sea")
    assert barriers(page) == []
    assert outside(page) == []
    shuffled = after(page, lambda: page.select_option('[data-key="order"]', label="Random"))
    assert sorted(shuffled) == ids(engine, without)[:60] if len(shuffled) < 60 else len(set(shuffled)) == 60
    address = page.url

    def leaf():
        return page.eval_on_selector_all(".ris-leaf .ris-tile", "all => all.map((tile) => Number(tile.dataset.id))")

    page.reload()
    page.wait_for_selector(".ris-leaf[data-drawn]")
    assert page.locator(".ris-browse").is_visible()
    assert (page.url, leaf()) == (address, shuffled)
    assert after(page, page.go_back) == ids(engine, without)[:60]
    assert after(page, page.go_back) == ids(engine, both)[:60]
    assert after(page, page.go_forward) == ids(engine, without)[:60]


def test_a_picture_is_searched_with_and_back_is_where_it_was(open_page, server):  # noqa: F811
    _, engine = server
    page = open_page()
    open_browse(page)
    chosen = after(page, page.locator('[data-key="tag:sea:only"]').click)
    assert chosen == ids(engine, {"tag": "sea"})
    page.locator(".ris-leaf .ris-tile").nth(1).hover()
    page.locator(".ris-leaf .ris-tile").nth(1).locator(".ris-use").click()
    page.wait_for_selector("#ris-results .ris-tile")
    page.wait_for_function("location.search.includes('picture=') && !location.search.includes('tab=')")
    page.go_back()
    page.wait_for_selector(".ris-chosen", state="visible")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("!location.search.includes('tab=')")


def test_a_facet_is_counted_when_it_is_opened(open_page, server):  # noqa: F811
    _, engine = server
    page = open_page(viewport={"width": 390, "height": 800})
    open_browse(page)
    assert not page.locator(".ris-facet").first.is_visible()  # pictures come first on a phone
    page.click(".ris-facets > summary")
    page.click(".ris-facet[data-facet=size] summary")
    page.wait_for_selector(".ris-facet[data-facet=size] li")
    counts = page.locator(".ris-facet[data-facet=size] small").all_inner_texts()
    assert sum(map(int, counts)) == len(engine.store.ids)
    assert outside(page) == []


def test_pictures_are_selected_by_keyboard_and_edited_as_one(open_page, server):  # noqa: F811
    _, engine = server
    said = engine.store.annotations
    page = open_page()
    open_browse(page)

    def selected():
        return page.eval_on_selector_all(".ris-is-selected", "all => all.map((tile) => Number(tile.dataset.id))")

    def at():
        return int(page.evaluate("document.activeElement.closest('.ris-tile').dataset.id"))

    page.focus(".ris-leaf")
    page.keyboard.press("ArrowRight")
    assert at() == 0
    page.keyboard.press("Space")
    page.wait_for_selector(".ris-bulk")
    assert page.evaluate("document.querySelector('dialog[open]') === null"), "Space selects and does not enlarge"
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert (at(), selected()) == (2, [0, 1, 2])
    page.keyboard.press("ArrowDown")
    columns = at() - 2
    assert columns > 1
    page.keyboard.press("Space")
    after(page, page.get_by_label("Next page").first.click)
    assert selected() == []
    page.locator(".ris-leaf .ris-tile").first.hover()
    page.locator(".ris-leaf .ris-select").first.click()
    assert page.inner_text("[data-count]") == "5", "what is selected stays while pages are turned"
    assert barriers(page) == []
    page.fill(".ris-bulk [name=text]", "moon")
    after(page, lambda: page.press(".ris-bulk [name=text]", "Enter"))
    assert sorted(said.tagged("moon")) == [0, 1, 2, 2 + columns, 60]
    page.wait_for_selector('[data-key="tag:moon:only"]')
    after(page, page.locator("[data-undo]").click)
    assert said.tagged("moon") == {}
    with page.expect_download() as download:
        page.click("[data-get=paths]")
    assert len(download.value.path().read_text().splitlines()) == 5
    page.locator(".ris-leaf .ris-open").first.focus()
    page.keyboard.press("?")
    assert "extend the selection" in page.inner_text("dialog.ris-keys")
    assert barriers(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.ris-keys", state="detached")
    page.keyboard.press("Escape")
    page.wait_for_selector(".ris-selection", state="hidden")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.ris-viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.ris-viewer[open]", state="detached")
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.matches('.ris-words input')")
