"""The page of docs/explainer, opened from disk: every control is moved, and what is shown is what the library says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_browser import barriers, browser, outside  # noqa: F401

from benchmarks import explainer
from ivfpq import load
from search.explain.page import PAGE, read_numbers
from search.explain.recording import unpacked

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def data():
    return read_numbers(PAGE)


@pytest.fixture(scope="module")
def page(browser):  # noqa: F811
    page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((PAGE / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def told(page, step):
    return json.loads(page.locator(f"#step-{step} .told").get_attribute("data-values"))


def move(page, id, value):
    """Move a slider as a hand does."""
    page.eval_on_selector(
        f"#{id}",
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }",
        str(value),
    )


def query_of(data, number):
    return unpacked(data["queries"][number]["vector"], np.float32)[None]


def test_every_control_shows_what_the_library_says(page, data):
    cells = load(explainer.INDEX)
    for number in (1, 40, 96):
        move(page, "picture", number)
        assert told(page, 1)["ids"] == data["neighbours"][number - 1]["ids"]
    page.locator("#step-1 .stage button, #step-1 .stage .thumb").nth(10).click()
    assert told(page, 1)["picture"] == 10

    for place, nlist in enumerate(explainer.NLISTS):
        move(page, "nlist", place)
        run = data["kmeans"][str(nlist)]
        for number in (1, len(run["rounds"])):
            move(page, "round", number)
            shown = told(page, 2)
            assert (shown["nlist"], shown["objective"]) == (nlist, run["rounds"][number - 1]["objective"])
        assert sum(shown["sizes"]) == data["about"]["stored"]

    sizes = np.array(data["sizes"])
    for number in (0, 5):
        page.locator("#step-3 input[name=query]").nth(number).check(force=True)
        truth = data["queries"][number]["truth"]
        for nprobe in (1, 4, cells.nlist):
            move(page, "nprobe", nprobe)
            probed = cells.probe(query_of(data, number), nprobe).ids[0]
            found = [id for id in truth if cells.codes_of([id])[0][0] in probed]
            shown = told(page, 3)
            assert (shown["found"], shown["recall"]) == (found, len(found) / len(truth))
            assert shown["looked"] == sizes[probed].sum()
    assert page.locator("#step-3 .stage .is-lost").count() == 0  # all lists are looked into
    assert page.locator("#step-3 .stage .is-near").count() == len(truth)

    for M, nbits in ((2, 8), (32, 4), (8, 8)):
        move(page, "parts", explainer.PARTS.index(M))
        move(page, "bits", explainer.BITS.index(nbits))
        config = next(each for each in data["codes"]["configs"] if (each["M"], each["nbits"]) == (M, nbits))
        shown = told(page, 4)
        assert (shown["M"], shown["nbits"]) == (M, nbits)
        assert shown["error"] == config["errors"][data["codes"]["pictures"][0]]
    assert page.locator("#step-4 .grids canvas").count() == cells.M

    found = cells.search(query_of(data, 5), data["about"]["stored"], nprobe=1)
    for rank in (1, 3):
        move(page, "looked-up", rank)
        shown = told(page, 5)
        assert (shown["query"], shown["id"]) == (5, found.ids[0, rank - 1])
        assert np.float32(shown["sum"]) == found.distances[0, rank - 1]
        assert f"{found.distances[0, rank - 1]:.4f}" in page.locator("#step-5 .told").inner_text()

    found = cells.search(query_of(data, 5), 10, nprobe=cells.nlist)
    for k in (1, 10):
        move(page, "wanted", k)
        shown = told(page, 6)
        assert np.float32(shown["limit"]) == found.distances[0, k - 1]
        assert k <= shown["survivors"] <= data["about"]["stored"]

    for place, budget in enumerate(data["budgets"]):
        move(page, "bytes", place)
        truth = set(data["queries"][5]["truth"])
        assert told(page, 7)["found"] == [len(truth & set(codec["hits"][5])) for codec in budget["codecs"]]


def test_the_query_is_dragged_and_moved_by_keys(page, data):
    page.locator("#step-3").scroll_into_view_if_needed()
    page.locator("#step-3 .handle").focus()
    before = told(page, 3)["query"]
    page.keyboard.press("ArrowRight")
    after = told(page, 3)["query"]
    assert after == (before + 1) % len(data["queries"])
    assert [told(page, step)["query"] for step in (5, 6, 7)] == [after] * 3
    handle = page.locator("#step-3 .handle").bounding_box()
    target = page.locator("#step-3 .stage > .thumb").nth(len(data["pictures"])).bounding_box()  # the first query
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(target["x"] + target["width"] / 2, target["y"] + target["height"] / 2, steps=4)
    page.mouse.up()
    assert told(page, 3)["query"] == 0
    page.locator("#step-5 button", has_text="›").click()
    assert told(page, 3)["query"] == 1


def test_every_figure_has_its_sentence_and_its_table(page):
    for step in range(1, 8):
        section = page.locator(f"#step-{step}")
        assert section.locator(".told").inner_text()
        section.locator("details").first.evaluate("details => details.open = true")
        section.locator("details tbody tr").first.wait_for(state="attached")
        spoken = section.locator("[data-told]").first
        assert spoken.get_attribute("aria-label") == section.locator(".told").evaluate("node => node.textContent")


def test_it_fits_the_screen_and_can_be_read(page):
    for width, scheme in ((820, "dark"), (390, "light")):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("w => document.documentElement.scrollWidth <= w", arg=width)
        assert barriers(page) == [], (width, scheme)
