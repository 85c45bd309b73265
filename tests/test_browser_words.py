"""Words in a real Chromium: typed, weighed, left out and linked to, by keyboard alone."""

from __future__ import annotations

import pytest
from test_browser import browser, found, open_page, open_settings, outside, served, usual_context  # noqa: F401

from search.engine import SearchEngine

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection):
    engine = SearchEngine.open(demo_collection)
    with served(engine) as page:
        yield page.local_url, engine


@pytest.fixture
def page(open_page):  # noqa: F811
    return open_page()


def answered(page, do):
    """Do something that has words searched, and wait for the answer; the ids found."""
    page.evaluate("document.querySelector('.ris-status')?.classList.add('old')")
    do()
    page.wait_for_selector(".ris-status:not(.old)")
    # What came with it is on the page by the next frame.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return found(page)


def typed(page):
    return page.input_value(".ris-words input")


def test_words_are_searched_weighed_and_left_out_by_keyboard(page, server):
    _, engine = server
    page.focus(".ris-words input")
    page.keyboard.type("animal <i>-building</i> -night")
    ids = answered(page, lambda: page.keyboard.press("Enter"))
    assert ids == [hit.id for hit in engine.search("animal <i>-building</i> -night", 20)]
    assert page.locator(".ris-term").count() == 2
    page.focus(".ris-term:nth-child(2) input")
    ids = answered(page, lambda: page.keyboard.press("ArrowRight"))
    assert typed(page).endswith("-night^0.75")
    assert ids == [hit.id for hit in engine.search(typed(page), 20)]
    page.focus(".ris-term:nth-child(1) .ris-drop")
    ids = answered(page, lambda: page.keyboard.press("Enter"))
    assert typed(page) == "-night^0.75"
    assert ids == [hit.id for hit in engine.search("-night", 20)]
    before = ids
    page.fill(".ris-words input", "colour:red")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-is-wrong")
    assert "the nearest is" in page.inner_text(".ris-toast")
    assert found(page) == before  # what is there stays


def test_words_and_a_picture_are_mixed_and_either_is_left_out(page, server):
    _, engine = server
    page.click("#ris-examples .ris-use >> nth=0")
    page.wait_for_selector(".ris-crop")
    page.fill(".ris-words input", "animal")
    mixed = answered(page, lambda: page.press(".ris-words input", "Enter"))
    assert page.locator(".ris-share i[class^=ris-hue]").count() >= len(mixed)
    assert page.locator(".ris-term[data-picture]").count() == 1
    alone = answered(page, lambda: page.click(".ris-term[data-picture] .ris-drop"))
    assert alone == [hit.id for hit in engine.search("animal", 20)]
    assert page.locator(".ris-crop").count() == 0
    answered(page, lambda: page.locator("#ris-results .ris-tile .ris-use").nth(0).evaluate("b => b.click()"))
    assert typed(page) == "" and page.locator(".ris-term").count() == 1


def test_the_address_of_the_page_brings_the_words_back(page):
    words = "animal -night"
    page.fill(".ris-words input", words)
    ids = answered(page, lambda: page.press(".ris-words input", "Enter"))
    page.wait_for_url("**q=animal**")
    answered(page, lambda: (page.fill(".ris-words input", "building"), page.press(".ris-words input", "Enter")))
    page.wait_for_url("**q=building**")
    assert answered(page, lambda: page.go_back()) == ids
    assert typed(page) == words
    page.reload()
    page.wait_for_selector(".ris-status")
    assert (typed(page), found(page)) == (words, ids)


def test_a_slider_leads_from_this_very_picture_to_this_kind_of_thing(page, server):
    _, engine = server
    page.fill(".ris-words input", "like:3")
    usual = answered(page, lambda: page.press(".ris-words input", "Enter"))
    picture = engine.store.items[3].path
    assert usual == list(engine.search(picture, 20).ids)
    assert "ordered with neighbours" in page.inner_text(".ris-status")
    open_settings(page)
    field = "#ris-neighbourhood input[type=number]"
    page.fill(field, "1")
    ids = answered(page, lambda: page.locator(field).blur())
    assert ids == list(engine.search(picture, 20, neighbourhood=1).ids)
    page.wait_for_url("**kind=1**")
    page.reload()
    page.wait_for_selector(".ris-status")
    assert found(page) == ids
    assert answered(page, page.go_back) == usual
    page.locator("#ris-results [data-act=explain]").nth(0).evaluate("b => b.click()")
    page.wait_for_selector(".ris-neighbours")
    assert page.inner_text(".ris-verdict").startswith("Neighbours ")


def test_explain_tells_the_reasons_of_words(page):
    page.fill(".ris-words input", "animal")
    answered(page, lambda: page.press(".ris-words input", "Enter"))
    page.locator("#ris-results [data-act=explain]").nth(0).evaluate("b => b.click()")
    page.wait_for_selector(".ris-by-parts")
    assert page.locator(".ris-gave li").count() == 1
    assert page.locator(".ris-by-parts .ris-classes li").count() > 0
    assert not page.locator("#ris-explain-k").is_visible()


@pytest.mark.parametrize("width", [1440, 820, 390])
def test_nothing_is_wider_than_the_window(open_page, width):  # noqa: F811
    page = open_page(viewport={"width": width, "height": 900})
    page.click(".ris-about-words summary")
    page.fill(
        ".ris-words input", f"{'very' * 40} animal -night label:{'x' * 80} " + 'like:3 "a long long phrase of words"'
    )
    page.press(".ris-words input", "Enter")
    page.wait_for_selector(".ris-term")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert outside(page) == []


def test_hits_are_judged_by_keyboard_and_taken_back(page, server):
    _, engine = server
    page.click("#ris-examples .ris-use >> nth=0")
    page.wait_for_selector(".ris-crop")
    before = answered(page, lambda: page.click("#ris-start"))
    check = f'#ris-results [data-id="{before[2]}"] [data-judge=more]'
    page.focus(check)
    after = answered(page, lambda: page.keyboard.press("Enter"))
    assert typed(page) == f"more:{before[2]}" and before[2] in after
    page.wait_for_function(
        "document.activeElement.dataset.judge === 'more'"
    )  # who uses the keyboard goes on from there
    assert page.get_attribute(check, "aria-pressed") == "true"
    wrong = next(id for id in after if id != before[2])
    crossed = answered(page, lambda: page.click(f'#ris-results [data-id="{wrong}"] [data-judge=less]'))
    assert typed(page) == f"more:{before[2]} less:{wrong}" and wrong not in crossed
    assert page.locator(".ris-judged").count() == 2
    page.wait_for_url("**q=more**less**")
    taken_back = answered(page, lambda: page.click(".ris-judged >> nth=1 >> .ris-drop"))
    assert typed(page) == f"more:{before[2]}" and taken_back == after
    assert answered(page, lambda: page.click(check)) != after
    assert typed(page) == "" and page.locator(".ris-judged").count() == 0
    page.goto(f"{page.url.split('?')[0]}?q=animal+more:{before[2]}&in=demo")
    page.wait_for_selector(".ris-judged")
    assert found(page) == [hit.id for hit in engine.search(f"animal more:{before[2]}", 20)]
