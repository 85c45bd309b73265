"""Learned tags in a real Chromium, by keyboard alone: judged, named, kept, confirmed, refused and taken back."""

from __future__ import annotations

import shutil

import pytest
from test_browser import barriers, browser, found, open_page, outside, served, usual_context  # noqa: F401
from test_browser_explain import open_tab
from test_browser_words import answered
from waiting import until

from features.collection import edits
from features.collection.learned_tags import learned_tag
from search.engine import SearchEngine
from search.learned import TagSuggester

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned") / "demo"
    shutil.copytree(demo_collection, folder)
    engine = SearchEngine.open(folder)
    with served(engine, manage=folder.parent) as page:
        yield page.start_link, engine


@pytest.fixture
def annotations(server):
    """What is said of the collection; nothing of it is left for the next test."""
    _, engine = server
    yield engine.store.annotations
    while edits.undo(engine.store.annotations):
        pass


def tiles(page):
    return page.eval_on_selector_all("#ris-learned .ris-tile", "all => all.map((tile) => Number(tile.dataset.id))")


def after(page, action):
    """Do something that has the panel drawn anew, and wait for it; what it shows then."""
    page.evaluate("document.querySelector('.ris-learned h2').classList.add('old')")
    action()
    page.wait_for_selector(".ris-learned h2:not(.old)")
    return tiles(page)


def test_a_learned_tag_is_kept_confirmed_refused_and_taken_back_by_keyboard(open_page, server, annotations):  # noqa: F811
    _, engine = server
    page = open_page()
    page.fill(".ris-words input", "like:3")
    first, second, *_ = answered(page, lambda: page.press(".ris-words input", "Enter"))
    for id in (first, second):
        page.focus(f'#ris-results [data-id="{id}"] [data-judge=more]')
        answered(page, lambda: page.keyboard.press("Enter"))
    page.focus(".ris-keep input")
    page.keyboard.type("old <b>lamp")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-kept")
    assert learned_tag(annotations, "old <b>lamp").more == (first, second)
    page.focus(".ris-kept button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ris-learned [data-decide=confirm]")
    suggester = TagSuggester(engine.store)
    asked = suggester.suggest("old <b>lamp").ids.tolist()
    assert tiles(page) == asked[:48] and len(asked) > 2
    assert page.inner_text("#ris-learned [data-tag][aria-pressed=true] span") == "old <b>lamp"
    assert barriers(page) == []

    page.focus("#ris-learned [data-decide=confirm]")
    assert asked[0] not in after(page, lambda: page.keyboard.press("Enter"))
    assert asked[0] in annotations.tagged("old <b>lamp")
    focused = "document.activeElement.closest('.ris-tile').dataset.id + document.activeElement.dataset.decide"
    assert page.evaluate(focused) == f"{asked[1]}confirm", "the keyboard goes on at the next"
    page.keyboard.press("Tab")
    assert asked[1] not in after(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate(focused) == f"{asked[2]}refuse"
    assert asked[1] not in suggester.suggest("old <b>lamp").ids
    page.focus("#ris-learned [data-do=undo]")
    assert tiles(page)[:1] != [asked[1]]
    assert after(page, lambda: page.keyboard.press("Enter"))[0] == asked[1]

    page.focus("#ris-learned .ris-open")
    page.keyboard.press("Enter")  # in the viewer, too
    page.wait_for_selector(".ris-said-of .ris-suggested")
    page.focus('.ris-suggested [data-do="remove_tag"]')
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-said-of:not(:has(.ris-suggested))")
    assert asked[1] not in after(page, lambda: page.keyboard.press("Escape"))

    # A page that was opened before the picture was another one.
    page.locator("#ris-learned .ris-tile").first.evaluate("tile => { tile.dataset.content = '0'.repeat(16); }")
    before = edits.edits(annotations, 1)
    page.focus("#ris-learned [data-decide=confirm]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ris-learned .ris-fault:not([hidden])")
    assert "no longer the one that the page shows" in page.inner_text("#ris-learned .ris-fault")
    assert edits.edits(annotations, 1) == before
    assert outside(page) == []

    page.focus("#ris-learned [data-find]")
    page.keyboard.press("Enter")
    wanted = [hit.id for hit in engine.search('tag:~"old <b>lamp"', 20)]
    until(lambda: found(page) == wanted, "the pictures that the tag may fit, and no others")
    assert page.input_value(".ris-words input") == 'tag:~"old <b>lamp"'


@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_wider_than_the_window(open_page, width):  # noqa: F811
    page = open_page(viewport={"width": width, "height": 900})
    open_tab(page, "Learned tags")
    page.wait_for_selector("#ris-learned .ris-hint")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert outside(page) == []
