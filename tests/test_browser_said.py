"""What is said of a picture, in a real Chromium: read by every visitor, edited by keyboard by who may."""

from __future__ import annotations

import shutil

import pytest
from test_browser import browser, open_page, served, usual_context  # noqa: F401

from features.collection import edits
from features.collection.said import Maker, Words
from search.engine import SearchEngine

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("said") / "demo"
    shutil.copytree(demo_collection, folder)
    engine = SearchEngine.open(folder)
    with served(engine, manage=folder.parent) as page:
        yield page.start_link, engine, page.local_url


@pytest.fixture
def said(server):
    """What is said of the first picture on the page, and its id; taken back at the end."""
    engine = server[1]
    annotations, first = engine.store.annotations, int(engine.store.ids[0])
    words = Words({'A boat <img src=x onerror="window.hacked=1">': 0.9}, {"sea": None}, {"rating": 4})
    annotations.put(Maker("file", "t.csv"), "1", [(engine.store.records([first])[0], words)])
    yield lambda: annotations.of([first])[first]
    while edits.undo(annotations):
        pass


def enlarge(page):
    page.get_by_role("tab", name="Browse the collection").click()
    page.locator("#ris-gallery .ris-open").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-said-of h3")
    return page.locator(".ris-said-of")


def after(page, action):
    """Do something that has the panel drawn anew, and wait for it."""
    page.evaluate("document.querySelector('.ris-said-of h3').classList.add('old')")
    action()
    page.wait_for_selector(".ris-said-of h3:not(.old)")


def test_words_are_edited_by_keyboard_and_taken_back(open_page, said):  # noqa: F811
    page = open_page()
    panel = enlarge(page)
    assert "A boat <img" in panel.locator(".ris-captions p").inner_text()
    assert "file t.csv 90%" in panel.inner_text()

    panel.get_by_label("New tag").focus()
    page.keyboard.type("lighthouse")
    after(page, lambda: page.keyboard.press("Enter"))
    assert [tag.tag for tag in said().tags] == ["lighthouse", "sea"]
    assert panel.get_by_label("New tag").evaluate("field => field === document.activeElement"), "ready for the next"
    page.keyboard.type("old")
    page.keyboard.press("ArrowLeft")
    assert panel.get_by_label("New tag").input_value() == "old", "the arrow moved in the text, not to another picture"
    page.keyboard.press("Control+a")
    page.keyboard.type(" ")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-said-fault:not([hidden])")
    assert panel.locator(".ris-said-fault").inner_text() == "A tag has at least one character that can be seen."

    panel.locator(".ris-reword").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("A red boat")
    after(page, lambda: page.keyboard.press("Enter"))
    assert [(caption.text, caption.maker.source) for caption in said().captions] == [("A red boat", "person")]
    panel.locator(".ris-like").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert said().is_favourite
    panel.get_by_label("Remove the tag sea").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert [tag.tag for tag in said().tags] == ["lighthouse"]
    for _ in range(4):
        panel.locator(".ris-undo").focus()
        after(page, lambda: page.keyboard.press("Enter"))
    assert panel.locator(".ris-undo").count() == 0
    assert [tag.tag for tag in said().tags] == ["sea"]
    assert not said().is_favourite
    page.keyboard.press("Escape")
    assert not page.locator("dialog.ris-viewer").is_visible()


def test_another_visitor_sees_an_edit_at_the_next_look_and_cannot_edit(browser, open_page, said, server):  # noqa: F811
    page = open_page()
    context = browser.new_context()
    visitor = context.new_page()
    visitor.goto(server[2])
    visitor.wait_for_selector("#ris-examples img")
    seen = enlarge(visitor)
    assert seen.locator("button, input").count() == 0
    assert "can edit them" in seen.inner_text()
    visitor.keyboard.press("Escape")
    enlarge(page).get_by_label("New tag").fill("lighthouse")
    after(page, lambda: page.keyboard.press("Enter"))
    visitor.evaluate("document.querySelector('.ris-said-of').replaceChildren()")
    assert "lighthouse" in enlarge(visitor).inner_text()
    context.close()


@pytest.mark.parametrize("width", [1440, 820, 390])
def test_nothing_is_wider_than_the_window(open_page, said, server, width):  # noqa: F811
    engine = server[1]
    edits.add_caption(engine.store.annotations, [int(engine.store.ids[0])], "very" * 200)
    edits.add_tag(engine.store.annotations, [int(engine.store.ids[0])], "x" * 200)
    page = open_page(viewport={"width": width, "height": 900})
    panel = enlarge(page)
    assert panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth")
    edges = page.locator("dialog.ris-viewer").bounding_box()
    assert edges["x"] >= 0
    assert edges["x"] + edges["width"] <= width


def test_what_is_typed_is_completed_by_keyboard(open_page, server):  # noqa: F811
    annotations, ids = server[1].store.annotations, server[1].store.ids.tolist()
    for count, tag in ((3, "lighthouse"), (2, "lime tree"), (1, "été")):
        edits.add_tag(annotations, ids[:count], tag)
    page = open_page()
    field, options = page.locator(".ris-words input"), page.locator("#ris-suggestions [role=option]")
    field.focus()
    page.keyboard.type("-night li")
    page.wait_for_selector("#ris-suggestions li")
    assert field.get_attribute("aria-expanded") == "true"
    assert options.locator("span").all_inner_texts()[:2] == ["lighthouse", "lime tree"]
    assert options.first.locator("small").inner_text() == "tag · 3"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert options.nth(1).get_attribute("aria-selected") == "true"
    assert field.get_attribute("aria-activedescendant") == options.nth(1).get_attribute("id")
    page.keyboard.press("Enter")
    assert field.input_value() == '-night tag:"lime tree" '
    assert options.count() == 0
    assert page.locator(".ris-status").count() == 0 or page.locator(".ris-term").count() == 0, "nothing is searched yet"
    page.keyboard.type("sour")
    page.wait_for_selector("#ris-suggestions li")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ris-suggestions li >> text=person")
    page.keyboard.press("Escape")
    assert options.count() == 0
    assert field.input_value().endswith("source:"), "what is typed stays"
    field.fill("ete")
    page.wait_for_selector("#ris-suggestions li >> text=été")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ris-suggestions li", state="detached")
    page.wait_for_selector(".ris-term")
    while edits.undo(annotations):
        pass


def test_answers_to_what_is_no_longer_typed_are_dropped(open_page, server):  # noqa: F811
    edits.add_tag(server[1].store.annotations, server[1].store.ids.tolist()[:1], "lighthouse")
    page = open_page()
    page.route("**/suggestions/**typed=li", lambda route: None)  # never answered
    page.locator(".ris-words input").focus()
    with page.expect_request("**/suggestions/**typed=li"):
        page.keyboard.type("li")
    with page.expect_response("**/suggestions/**typed=lixyz"):
        page.keyboard.type("xyz")
    assert page.locator("#ris-suggestions li").count() == 0
    with page.expect_response("**/suggestions/**typed=lig"):
        page.fill(".ris-words input", "lig")
    page.wait_for_selector("#ris-suggestions li >> text=lighthouse")
    page.unroute_all(behavior="ignoreErrors")
    edits.undo(server[1].store.annotations)
