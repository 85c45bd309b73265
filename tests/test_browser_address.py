"""The address of the page in a real Chromium: reload, Back, Forward, a second tab, and what the browser remembers."""

from __future__ import annotations

import pytest
from test_browser import browser, drag, found, open_page, outside, served, usual_context  # noqa: F401

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
    """Do something that ends in an answer, wait for it, and for the address that it has; the ids found."""
    page.evaluate("document.querySelector('#ris-results data')?.setAttribute('data-old', '')")
    do()
    page.wait_for_function(
        """() => {
          const found = document.querySelector('#ris-results data:not([data-old])');
          if (!found) return false;
          const here = new URLSearchParams(location.search);
          here.delete('view');
          return `${here}` === `${new URLSearchParams(found.value)}`;
        }"""
    )
    return found(page)


def shown(page):
    """The words, the box of the picture, and the ids found."""
    crop = page.locator(".ris-crop")
    return page.input_value(".ris-words input"), crop.get_attribute("data-box") if crop.count() else None, found(page)


def example(page, number):
    before = page.locator(".ris-crop").get_attribute("data-token") if page.locator(".ris-crop").count() else ""
    page.click(f"#ris-examples .ris-use >> nth={number}")
    page.wait_for_selector(f".ris-crop:not([data-token='{before}'])")


def test_reload_back_and_forward_bring_all_of_a_search_back(page):
    example(page, 2)
    answered(page, lambda: page.click("#ris-start"))
    first = shown(page)
    drag(page, (0.2, 0.2), (0.7, 0.8))
    page.fill(".ris-words input", "animal -night")
    answered(page, lambda: page.press(".ris-words input", "Enter"))
    second = shown(page)
    assert second[0] == "animal -night" and second[1] != first[1] and second[2] != first[2]
    answered(page, page.reload)
    assert shown(page) == second
    answered(page, page.go_back)
    assert shown(page) == first
    page.go_back()
    page.wait_for_selector(".ris-hint")
    assert shown(page) == ("", None, [])
    answered(page, page.go_forward)
    assert shown(page) == first
    answered(page, page.go_forward)
    assert shown(page) == second


def test_a_link_opens_the_same_in_a_browser_of_its_own(page, open_page, tmp_path):  # noqa: F811
    from PIL import Image

    Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "mine & yours.png")
    page.set_input_files("#ris-upload input[type=file]", tmp_path / "mine & yours.png")
    page.wait_for_selector(".ris-crop")
    answered(page, lambda: page.click("#ris-start"))
    page.click("#ris-sort input")
    answered(page, lambda: page.click("[role=option]:has-text('By file name')"))
    assert "sort=name" in page.url and "upload=" in page.url
    other = open_page(viewport={"width": 390, "height": 800})
    answered(other, lambda: other.goto(page.url))
    assert shown(other) == shown(page)


def test_the_viewer_is_a_step_that_back_takes_back(page, open_page):  # noqa: F811
    page.fill(".ris-words input", "animal")
    ids = answered(page, lambda: page.press(".ris-words input", "Enter"))
    before = page.url
    page.click("#ris-results .ris-open >> nth=1")
    page.wait_for_selector("dialog.ris-viewer[open]")
    assert page.url == f"{before}&view={ids[1]}"
    page.click("dialog [data-step='1']")
    page.wait_for_url(f"**view={ids[2]}")
    link = page.url
    page.go_back()
    page.wait_for_selector("dialog.ris-viewer", state="hidden")
    assert page.url == before and found(page) == ids
    other = open_page(viewport={"width": 1440, "height": 900})
    other.goto(link)
    other.wait_for_selector("dialog.ris-viewer[open]")
    assert other.get_attribute("dialog img", "src").split("?")[0].endswith(f"/{ids[2]}/view")
    other.keyboard.press("Escape")
    other.wait_for_selector("dialog.ris-viewer", state="hidden")
    assert "view=" not in other.url and found(other) == ids
    other.click("#ris-results .ris-open >> nth=0")
    answered(other, lambda: other.click("dialog .ris-viewer-use"))
    assert f"%2F{ids[0]}%2F" in other.url
    other.go_back()
    other.wait_for_url(before)  # the viewer that was left is no step any more


def test_a_picture_that_no_result_shows_is_enlarged(page, server):
    page.goto(f"{server[0]}?in=demo&view=177")
    page.wait_for_selector("dialog.ris-viewer[open]")
    assert page.get_attribute("dialog img", "src").split("?")[0].endswith("/177/view")


@pytest.mark.parametrize("zoom", [1, 4])
def test_the_viewer_can_be_closed_however_large_all_is(open_page, zoom):  # noqa: F811
    page = open_page(viewport={"width": 1440 // zoom, "height": 900 // zoom})
    page.goto(f"{page.url.split('?')[0]}?in=demo&view=177")
    page.wait_for_selector("dialog.ris-viewer[open]")
    page.locator(".ris-viewer-close").click(timeout=60_000)  # Playwright clicks what is in sight and not covered
    place = page.locator(".ris-viewer-close").evaluate("e => e.closest('dialog').open")
    assert place is False


def test_history_and_saved_searches_stay_and_run_again(page):
    page.fill(".ris-words input", "animal")
    animals = answered(page, lambda: page.press(".ris-words input", "Enter"))
    example(page, 3)
    mixed = answered(page, lambda: page.click("#ris-start"))
    page.click(".ris-history summary")
    page.fill(".ris-save input", "<b>My</b> favourite")
    page.press(".ris-save input", "Enter")
    assert page.locator(".ris-saved a").all_inner_texts() == ["<b>My</b> favourite"]
    page.click(".ris-remove")
    page.fill(".ris-words input", "building")
    answered(page, lambda: page.press(".ris-words input", "Enter"))
    page.goto(page.url.split("?")[0])
    page.click(".ris-history summary")
    said = page.locator(".ris-searched a").all_inner_texts()
    assert len(said) == 3 and said[0] == "building in demo" and said[2] == "animal in demo"
    assert answered(page, lambda: page.click(".ris-saved a")) == mixed
    assert page.locator(".ris-crop").count() == 1
    assert answered(page, lambda: page.click(".ris-searched a >> nth=2")) == animals
    assert shown(page)[:2] == ("animal", None)
    page.focus(".ris-searched li:nth-child(1) button")
    page.keyboard.press("Enter")
    assert len(page.locator(".ris-searched a").all()) == 2
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Forget ")
    page.evaluate("localStorage.setItem('ris-saved', '{damaged')")
    page.reload()
    page.wait_for_selector(".ris-history")
    assert page.locator(".ris-saved a").count() == 0 and page.locator(".ris-searched a").count() == 2


def test_an_address_of_what_is_gone_says_so(page, server):
    page.goto(f"{server[0]}?in=demo&upload={'a' * 64}%2Fphoto.png&q=dog")
    page.wait_for_selector(".ris-status ~ .ris-caution, .ris-caution")
    assert "no longer on the server" in page.inner_text("#ris-status")
    assert shown(page)[0] == "dog" and len(found(page)) == 20
    page.goto(f"{server[0]}?in=gone&q=dog")
    page.wait_for_selector(".ris-toast")
    assert "gone is no longer there" in page.inner_text(".ris-toast")


def test_what_others_keep_in_the_address_stays(page):
    page.fill(".ris-words input", "animal")
    answered(page, lambda: page.press(".ris-words input", "Enter"))
    page.evaluate("history.replaceState(null, '', location.href + '&__theme=dark')")
    page.click("#ris-results .ris-open >> nth=0")
    page.wait_for_selector("dialog.ris-viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.ris-viewer", state="hidden")
    assert "__theme=dark" in page.url and "view=" not in page.url
