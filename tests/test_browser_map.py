"""The map in a real Chromium: points by WebGL in software, a lasso, and the way into Browse."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from test_browser import ARGUMENTS, barriers, chromium_with, open_page, outside, search, served, usual_context  # noqa: F401
from waiting import until

from search.engine import SearchEngine
from search.index_lists import FIELD
from search.picture_map import map_of

pytestmark = pytest.mark.browser
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def browser():
    with chromium_with((*ARGUMENTS, *WEBGL)) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def server(demo_collection, tmp_path_factory):
    engine = SearchEngine.open(shutil.copytree(demo_collection, tmp_path_factory.mktemp("map") / "demo"))
    with served(engine, manage=engine.folder.parent) as page:
        yield page.start_link, engine


def leaf(page):
    page.wait_for_selector(".ris-leaf[data-drawn]")
    return page.eval_on_selector_all(".ris-leaf .ris-tile", "all => all.map((tile) => Number(tile.dataset.id))")


def line_between(points, stage):
    """Where a vertical line meets no point of the whole map, in pixels from its left; the ids of those before it."""
    x, y = (points.points / points.reach).T
    width, height = np.ptp(x) * 1.08, np.ptp(y) * 1.08
    shape = stage["width"] / stage["height"]
    reach = max(height * shape, width) / 2  # from the middle to the right
    places = (x - (x.min() + x.max()) / 2) / reach * stage["width"] / 2 + stage["width"] / 2
    order = np.sort(places)
    middle = order[order.size // 3 : -order.size // 3]
    gap = np.diff(middle).argmax()
    edge = (middle[gap] + middle[gap + 1]) / 2
    return float(edge), points.ids[places < edge].tolist()


def inked(page):
    """How many pixels of the points' canvas are not the background."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector('.ris-mapped-points');
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) count += data[i] !== data[0] || data[i + 1] !== data[1];
          return count;
        }"""
    )


def test_points_are_drawn_lassoed_and_opened_in_browse(open_page, server):  # noqa: F811
    _, engine = server
    page = open_page()
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-name")
    hits = search(page)
    page.get_by_role("tab", name="Map", exact=True).click()
    page.wait_for_selector('.ris-mapped[data-drawn="340"]')
    told = page.inner_text(".ris-mapped-told")
    assert told.startswith("340 pictures of demo.")
    assert f"the query (a cross), its {len(hits)} hits (rings) and the 8 lists that it probed (filled circles)" in told
    assert inked(page) > 1000
    assert barriers(page) == []
    assert outside(page) == []

    stage = page.locator(".ris-mapped-stage").bounding_box()
    edge, chosen = line_between(map_of(engine.store), stage)
    left, top, right, bottom = stage["x"] + 3, stage["y"] + 3, stage["x"] + edge, stage["y"] + stage["height"] - 3
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 6)):
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    page.wait_for_selector(".ris-mapped-selection", state="visible")
    assert page.inner_text(".ris-mapped-selection [role=status]") == f"{len(chosen)} pictures selected"
    page.get_by_role("button", name="Open in Browse").click()
    page.wait_for_function("document.querySelector('.ris-shown')?.textContent.includes('those that are selected')")
    assert leaf(page) == chosen[:60]
    assert page.inner_text(".ris-selection [data-count]") == str(len(chosen))
    assert page.locator(".ris-leaf .ris-is-selected").count() == min(60, len(chosen))
    page.get_by_role("button", name="Show only these").click()
    page.wait_for_function("!document.querySelector('.ris-shown')?.textContent.includes('selected')")
    assert leaf(page) == list(range(60))
    page.go_back()
    page.get_by_role("tab", name="Map", exact=True).click()
    page.locator(".ris-mapped-stage").focus()
    page.keyboard.press("Escape")
    page.wait_for_selector(".ris-mapped-selection", state="hidden")
    page.keyboard.press("+")
    tiles = page.locator(".ris-mapped-tiles .ris-tile")
    turns = itertools.count(1)

    def zoomed():  # too far in there is no point left: from the whole map again
        page.locator(".ris-mapped-stage").focus()
        page.keyboard.press("+" if (turn := next(turns)) % 8 else "0")
        page.wait_for_timeout(500 + 100 * turn)
        return tiles.count()

    until(zoomed, "pictures on the map")
    for _ in range(150):  # there is an end to zooming, in and out, and a way back
        page.keyboard.press("+")
    page.keyboard.press("-")
    page.keyboard.press("0")
    until(lambda: inked(page) > 1000, "the whole map")
    page.get_by_role("button", name="Move").click()
    # Where the pointer says that there is a list, a click opens it.
    canvas = page.locator(".ris-mapped-points")
    number = None
    for step in range(400):
        place = 20 + 37 * step % (stage["width"] - 40), 20 + 53 * step % (stage["height"] - 40)
        page.mouse.move(stage["x"] + place[0], stage["y"] + place[1])
        if title := canvas.get_attribute("title"):
            number = int(title.split(":")[0].removeprefix("List "))
            page.mouse.down()
            page.mouse.up()
            break
    assert number is not None
    page.wait_for_function("location.search.includes('index_list')")
    page.wait_for_selector(".ris-chosen", state="visible")
    assert leaf(page) == engine.matching_ids({FIELD: number}).tolist()[:60]
    assert f"in index list {number}" in page.inner_text(".ris-shown")


def test_a_map_whose_tab_was_left_while_it_was_read_is_drawn_on_coming_back(open_page, server):  # noqa: F811
    page = open_page()
    held = []
    page.route("**/map/demo/points*", lambda route: held.append(route))
    page.get_by_role("tab", name="Map", exact=True).click()
    until(lambda: page.wait_for_timeout(50) or held, "the question for the points")
    page.get_by_role("tab", name="Browse").click()
    leaf(page)
    held.pop().continue_()
    page.wait_for_selector(".ris-mapped:not([aria-busy])", state="attached")
    page.get_by_role("tab", name="Map", exact=True).click()
    page.wait_for_selector('.ris-mapped[data-drawn="340"]')
    until(lambda: inked(page) > 1000, "the map")


def test_without_webgl_it_says_so_and_lists_are_opened_by_the_keyboard(open_page, server):  # noqa: F811
    _, engine = server
    page = open_page(viewport={"width": 820, "height": 900})
    page.evaluate("HTMLCanvasElement.prototype.getContext = () => null")
    page.get_by_role("tab", name="Map", exact=True).click()
    page.wait_for_function("document.querySelector('.ris-mapped-told')?.textContent.includes('WebGL')")
    assert not page.locator(".ris-mapped-stage").is_visible()
    page.locator(".ris-mapped-lists summary").focus()
    page.keyboard.press("Enter")
    assert outside(page) == []
    first = page.locator(".ris-mapped-lists button:enabled").first
    number = int(first.get_attribute("data-list"))
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-chosen", state="visible")
    assert leaf(page) == engine.matching_ids({FIELD: number}).tolist()[:60]
