"""The page in a real Chromium, as a person uses it: real server, real demo collection, no request off this machine."""

from __future__ import annotations

import os
import re
import shutil
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes import FakeEngine
from PIL import Image
from waiting import MINUTES, until

from features.images import decode_image
from gradio_app.app import build_app
from gradio_app.remote_image import RemoteImageError
from gradio_app.session import QueryPicture, gone
from gradio_app.tabs.search.views import EXAMPLES
from search.engine import SearchEngine

pytestmark = pytest.mark.browser

# The one without a window of its own comes first: it takes two thirds of the processor for the same page.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",  # nothing leaves this machine
]
# Every label and file name that ends up on the page as anything but itself would show in window.hacked.
HOSTILE_LABELS = (
    "<img src=x onerror=window.hacked=1>",
    "${window.hacked=2}",
    "{{value}}</script><script>window.hacked=3</script>",
    "\"'><svg onload=window.hacked=4>",
    "back\\slash `tick` \\x",
)
HOSTILE_NAMES = (
    "a<b>&.png",
    "${window.hacked=5}.png",
    "\"onclick='window.hacked=6'.png",
    "`${window.hacked=7}`\\u.png",
    "猫.png",
)


def executable() -> str | None:
    """Path of a Chromium, or None to let playwright use one that it installed itself."""
    for name in (os.environ.get("CHROMIUM"), *BROWSERS):
        if name and (found := shutil.which(name)):
            return found
    return None


# One browser for this file, not for the session: no other test could start an event loop while playwright's runs.
@pytest.fixture(scope="module")
def browser():
    with chromium_with(ARGUMENTS) as chromium:
        yield chromium


@contextmanager
def chromium_with(arguments):
    """A Chromium started with these arguments; where none can be, the test is skipped, or fails if one is required."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=executable(), args=list(arguments))
        except Error as error:
            reason = f"no Chromium could be started (set CHROMIUM to one): {error.message.splitlines()[0]}"
            if os.environ.get("IVFPQ_REQUIRE_BROWSER") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        yield chromium
        chromium.close()


@contextmanager
def served(*engines, manage=None):
    """The page of some collections, answering meanwhile at `local_url`; who may manage comes by its `start_link`."""
    page = build_app(list(engines), manage=manage)
    page.launch(prevent_thread_lock=True, quiet=True, server_port=None, show_error=False)
    yield page
    page.close()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A second collection: a few plain colours with names that try to run as programs, and no inverted lists."""
    folder = tmp_path_factory.mktemp("odd")
    pictures = {}
    for i, (name, label) in enumerate(zip(HOSTILE_NAMES, HOSTILE_LABELS, strict=True)):
        Image.new("RGB", (40, 30), (50 * i, 255 - 50 * i, 128)).save(folder / name)
        pictures[folder / name] = label
    engine = FakeEngine('odd & <b>"s"', pictures)
    engine.nlist = None
    return engine


@pytest.fixture(scope="module")
def server(demo_collection, odd):
    engine = SearchEngine.open(demo_collection)
    with served(engine, odd, manage=demo_collection.parent) as page:
        yield page.start_link, engine


def new_context(browser, **options):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(60_000 * MINUTES)
    # Tests say themselves when to search, as a visitor who has turned off that it is done at once.
    context.add_init_script("localStorage.getItem('ris-at-once') ?? localStorage.setItem('ris-at-once', 'off')")
    return context


@pytest.fixture(scope="module")
def usual_context(browser):
    """What a test's first page opens in, if nothing else is asked for: it has Gradio's scripts in its cache already."""
    return new_context(browser)


@pytest.fixture
def open_page(browser, usual_context, server):
    """Opens the page; after the test, nothing may have gone wrong in it and nothing may have left this machine."""
    contexts, wrong, outside = [], [], []

    def note(request):
        if re.match(r"(http|ws)s?://(?!(127\.0\.0\.1|localhost)[:/])", request.url):
            outside.append(request.url)

    def open_it(**options):
        context = new_context(browser, **options) if options or contexts else usual_context
        contexts.append(context)
        context.on("request", note)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server[0])
        page.wait_for_selector("#ris-examples img")
        return page

    yield open_it
    for context in contexts:
        assert context.pages[0].evaluate("window.hacked") is None
        if context is not usual_context:
            context.close()
            continue
        context.pages[0].evaluate("localStorage.clear()")
        for page in context.pages:
            page.close()
        context.clear_cookies()
        context.remove_listener("request", note)
    assert wrong == []
    assert outside == []


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory):
    """A picture whose every pixel tells where it is: (path, pixels); 900 wide and 600 high."""
    y, x = np.mgrid[0:600, 0:900]
    pixels = np.stack([x % 256, y % 256, (x // 256) * 16 + y // 256], axis=2).astype(np.uint8)
    path = tmp_path_factory.mktemp("query") / "coordinates <i>.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def upload(page, path: Path) -> None:
    page.set_input_files("#ris-upload input[type=file]", path)
    page.wait_for_function("name => document.querySelector('.ris-name')?.textContent === name", arg=path.name)


def choose_collection(page, name: str) -> None:
    page.click("#ris-collection input")
    page.get_by_role("option", name=name).click()
    page.wait_for_function(
        "name => document.querySelector('#ris-examples .ris-tile').dataset.collection === name",
        arg=name,
    )


def offered(page, name: str) -> bool:
    """Whether the chooser offers a collection, which it asks the server about from time to time."""
    page.click("#ris-collection input")
    there = page.get_by_role("option", name=name).count() > 0
    page.keyboard.press("Escape")
    page.locator("#ris-collection input").blur()  # while it has the focus, a click does not open it again (6.31)
    page.wait_for_timeout(200)
    return there


def search(page) -> list[int]:
    """Press Search and wait for the answer; the ids found."""
    page.evaluate("document.querySelector('.ris-status')?.classList.add('old')")
    page.click("#ris-start")
    page.wait_for_selector(".ris-status:not(.old)")
    return found(page)


def open_settings(page) -> None:
    page.locator("#ris-settings > button").click()
    page.locator("#ris-count").wait_for(state="visible")
    # Gradio (6.31) goes on mounting these fields for some 20 ms, and sets what is typed meanwhile back; no hand is that
    # quick, but Playwright is.
    page.evaluate("new Promise(done => setTimeout(() => requestIdleCallback(done), 300))")


def found(page) -> list[int]:
    return page.eval_on_selector_all("#ris-results .ris-tile", "tiles => tiles.map(t => Number(t.dataset.id))")


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the picture to search; positions are shares of its width and height."""
    r = page.locator(".ris-stage img").bounding_box()
    page.mouse.move(r["x"] + start[0] * r["width"], r["y"] + start[1] * r["height"])
    page.mouse.down()
    page.mouse.move(r["x"] + end[0] * r["width"], r["y"] + end[1] * r["height"], steps=5)
    page.mouse.up()


def box(page) -> list[int]:
    return [int(edge) for edge in page.get_attribute(".ris-crop", "data-box").split(",")]


def barriers(page) -> list[str]:
    """What axe-core finds serious: text that is hard to read, controls without a name, places no keyboard reaches."""
    # What is still fading in has another colour.
    page.wait_for_function("!document.getAnimations().some(one => one instanceof CSSTransition)")
    # Told that only these are wanted, axe does not describe each element that passes: half the time, the same rules.
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def toast(page) -> str:
    return page.locator(".toast-body, .ris-toast").first.inner_text()


def outside(page) -> list[str]:
    """What sticks out of the window sideways, unless it is in something that can be scrolled.

    Gradio's own bar of progress slides in from the left, inside of a box that cuts it off.
    """
    return page.evaluate(
        """() => {
          const room = document.documentElement.clientWidth;
          const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
          const out = [...document.querySelectorAll('.gradio-container *')].filter((e) => {
            const r = e.getBoundingClientRect();
            if (r.width <= 1 || r.height <= 1 || (r.right <= room + 1 && r.left >= -1)) return false;
            return e.checkVisibility() && !scrolls(e.parentElement) && !e.matches('.eta-bar');
          });
          const width = document.documentElement.scrollWidth;
          const wide = width > room ? [`the page is ${width} wide`] : [];
          return [...wide, ...out.slice(0, 5).map((e) => `${e.tagName}#${e.id}.${e.className}`)];
        }"""
    )


def test_first_look(page, server):
    _, engine = server
    assert page.title() == "Reverse image search"
    assert page.locator("#ris-examples .ris-tile").count() == EXAMPLES
    assert not page.locator("#ris-start").is_visible()  # there is nothing to search with yet
    assert page.locator("#ris-collection input").input_value() == f"demo · {len(engine.store.ids)} pictures"
    sizes = page.eval_on_selector_all(
        "#ris-examples img", "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert min(sizes) > 0


def test_upload_search_and_reuse_a_result(page, server, tmp_path):
    _, engine = server
    item = engine.store.items[0]
    query = tmp_path / "query.jpg"
    Image.open(item.path).resize((200, 150)).save(query)
    upload(page, query)
    first = search(page)
    assert len(first) == 20
    labels = page.locator("#ris-results .ris-label").all_inner_texts()
    assert labels[0] == item.labels[0]
    assert page.locator("#ris-results .ris-rank").all_inner_texts() == [str(rank) for rank in range(1, 21)]
    hits = engine.search(query, 20)  # in the order of scores, in which neighbours count; what is shown are similarities
    assert first == [hit.id for hit in hits]
    assert page.locator("#ris-results .ris-score").all_inner_texts() == [f"{hit.similarity:.3f}" for hit in hits]
    status = page.locator(".ris-status").inner_text()
    assert re.fullmatch(
        r"20 nearest of 340 pictures in demo\n"
        r"IVFPQ \(ours\), 8 of 100 lists visited, ordered with neighbours · encode [\d.]+ ms · search [\d.e-]+ ms · "
        r"re-rank [\d.e-]+ ms",
        status,
    )
    assert "query.jpg" in page.locator("#ris-last").inner_text()

    # "Search with this" makes the result the query and searches; a picture of the collection is not its own result.
    second = page.locator("#ris-results .ris-tile").nth(1)
    name, own = second.locator(".ris-file").inner_text(), int(second.get_attribute("data-id"))
    second.hover()
    second.locator(".ris-use").click()
    page.wait_for_function("name => document.querySelector('#ris-last')?.textContent.includes(name)", arg=name)
    assert page.locator(".ris-name").inner_text() == name
    assert own not in found(page)
    assert len(found(page)) == 20


def test_every_engine_answers_and_number_of_results_counts(page, server):
    page.locator("#ris-examples .ris-use").nth(3).click()
    page.wait_for_selector(".ris-crop")
    open_settings(page)
    page.locator("#ris-count input[type=number]").fill("7")
    answers = {}
    for engine in ("IVFPQ (ours)", "faiss", "exact"):
        page.locator("#ris-engine").get_by_label(engine, exact=True).check()
        # Exact search visits no lists, so there is nothing to choose.
        page.locator("#ris-nprobe").wait_for(state="hidden" if engine == "exact" else "visible")
        answers[engine] = search(page)
        assert f"\n{engine}" in page.locator(".ris-status").inner_text()
        assert len(answers[engine]) == 7
    query = page.eval_on_selector_all("#ris-examples .ris-tile", "t => Number(t[3].dataset.id)")
    path = server[1].store.items[query].path
    assert answers["exact"] == [hit.id for hit in server[1].search(path, 7, engine="exact")]


def test_number_of_lists_is_handed_on(page):
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    open_settings(page)
    page.locator("#ris-nprobe input[type=number]").fill("3")
    search(page)
    assert "3 of 100 lists visited" in page.locator(".ris-status").inner_text()


def test_crop_is_searched_pixel_for_pixel(page, odd, coordinates):
    path, pixels = coordinates
    choose_collection(page, odd.name)
    upload(page, path)
    assert page.get_attribute(".ris-crop", "data-box") == "0,0,900,600"
    search(page)
    whole = odd.asked[-1][0]
    assert isinstance(whole, Path)  # uncropped, the file itself is searched
    assert whole.read_bytes() == path.read_bytes()

    drag(page, (0.25, 0.2), (0.75, 0.9))
    drawn = box(page)
    # The pointer moves in whole pixels of the screen, each some three of the picture.
    assert np.allclose(drawn, [225, 120, 675, 540], atol=4)
    search(page)
    searched = odd.asked[-1][0]
    x0, y0, x1, y1 = drawn
    np.testing.assert_array_equal(searched, pixels[y0:y1, x0:x1])
    assert page.locator(".ris-part").inner_text() == f"{x1 - x0} × {y1 - y0} of 900 × 600 px"
    assert f"{x1 - x0} × {y1 - y0} px of it" in page.locator("#ris-last").inner_text()

    drag(page, (0.5, 0.5), (0.6, 0.4))  # inside the box: moves it
    moved = box(page)
    assert (moved[2] - moved[0], moved[3] - moved[1]) == (x1 - x0, y1 - y0)
    assert np.allclose(np.subtract(moved, drawn), [90, -60, 90, -60], atol=4)
    corner = page.locator('.ris-box i[data-corner="2,3"]').bounding_box()
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    page.mouse.down()
    page.mouse.move(0, 0, steps=3)  # past the opposite corner and off the picture
    page.mouse.up()
    assert box(page) == [0, 0, moved[0], moved[1]]
    corner = page.locator('.ris-box i[data-corner="2,3"]').bounding_box()
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    page.mouse.down()
    stage = page.locator(".ris-stage img").bounding_box()
    page.mouse.move(stage["x"] + 2, stage["y"] + 3, steps=3)  # nearly onto the opposite one
    page.mouse.up()
    least = 16 * 600 / stage["height"]  # 16 pixels of the screen
    assert np.allclose(box(page), [0, 0, least, least], atol=2)

    page.click(".ris-reset")
    assert box(page) == [0, 0, 900, 600]
    drag(page, (0.1, 0.1), (0.4, 0.4))
    assert box(page) != [0, 0, 900, 600]
    page.locator(".ris-stage").dblclick()
    assert box(page) == [0, 0, 900, 600]
    page.locator(".ris-stage").click()  # a click is no box
    assert box(page) == [0, 0, 900, 600]
    drag(page, (0.3, 0.2), (0.31, 0.9))  # nor is a sliver
    assert box(page) == [0, 0, 900, 600]
    search(page)
    assert isinstance(odd.asked[-1][0], Path)


def test_crop_by_keyboard(page, odd, coordinates):
    path, pixels = coordinates
    choose_collection(page, odd.name)
    upload(page, path)
    page.locator(".ris-bar summary").focus()
    page.keyboard.press("Enter")
    for value in ("100", "50", "300", "250"):
        page.keyboard.press("Tab")
        page.keyboard.press("Control+A")
        page.keyboard.type(value)
    page.keyboard.press("Tab")
    assert box(page) == [100, 50, 300, 250]
    page.locator("#ris-start").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".ris-status")
    np.testing.assert_array_equal(odd.asked[-1][0], pixels[50:250, 100:300])
    # What makes no sense is put right: an edge stays on its side of the other, and in the picture.
    for edge, typed, expected in ((0, "400", [299, 50, 300, 250]), (3, "9999", [299, 50, 300, 600])):
        page.locator(f'.ris-edges input[data-edge="{edge}"]').fill(typed)
        page.locator(f'.ris-edges input[data-edge="{edge}"]').press("Tab")
        assert box(page) == expected


def test_arrows_move_the_box_and_change_its_size(page, odd, coordinates):
    choose_collection(page, odd.name)
    upload(page, coordinates[0])
    page.locator(".ris-box").focus()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    assert box(page) == [0, 0, 720, 480]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert box(page) == [18, 12, 738, 492]
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert box(page) == [180, 12, 900, 492]  # as far as the picture goes
    for _ in range(60):
        page.keyboard.press("Shift+ArrowLeft")
    assert box(page) == [180, 12, 196, 492]  # and no narrower than 16 pixels
    search(page)
    np.testing.assert_array_equal(odd.asked[-1][0], coordinates[1][12:492, 180:196])


def test_a_swipe_over_the_picture_scrolls(open_page, coordinates):
    page = open_page(viewport={"width": 390, "height": 600}, has_touch=True, is_mobile=True)
    upload(page, coordinates[0])
    page.locator(".ris-stage").scroll_into_view_if_needed()
    r = page.locator(".ris-stage img").bounding_box()
    before = page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)
    x, y = r["x"] + r["width"] / 2, r["y"] + r["height"] * 0.8
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + 1, "y": y - 15 * step}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function("before => scrollY > before + 50", arg=before)
    assert box(page) == [0, 0, 900, 600]


def test_crop_by_touch_on_a_phone(open_page, odd, coordinates):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    choose_collection(page, odd.name)
    upload(page, coordinates[0])
    page.locator(".ris-stage").scroll_into_view_if_needed()
    r = page.locator(".ris-stage img").bounding_box()
    touch = page.context.new_cdp_session(page)
    for kind, x, y in (("touchStart", 0.2, 0.3), ("touchMove", 0.5, 0.5), ("touchMove", 0.6, 0.8), ("touchEnd", 0, 0)):
        points = [] if kind == "touchEnd" else [{"x": r["x"] + x * r["width"], "y": r["y"] + y * r["height"]}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert np.allclose(box(page), [180, 180, 540, 480], atol=6)
    search(page)
    x0, y0, x1, y1 = box(page)
    np.testing.assert_array_equal(odd.asked[-1][0], coordinates[1][y0:y1, x0:x1])
    # On a phone the results lie below the controls: the page goes there by itself.
    page.wait_for_function("document.querySelector('#ris-found').getBoundingClientRect().top < innerHeight / 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [390, 820])
def test_where_nothing_hovers_no_button_hides_a_picture(open_page, width):
    page = open_page(viewport={"width": width, "height": 900}, has_touch=True, is_mobile=True)
    page.locator("#ris-examples .ris-use").first.tap()
    page.wait_for_selector(".ris-name")
    search(page)
    shapes = """() => [...document.querySelectorAll('#ris-results .ris-tile')].map((tile) => {
      const picture = tile.querySelector('.ris-open').getBoundingClientRect();
      const buttons = [...tile.querySelectorAll('.ris-judge button, .ris-actions > *')];
      const boxes = buttons.map((each) => each.getBoundingClientRect());
      return {
        over: boxes.filter((each) => each.top < picture.bottom).length,
        small: boxes.filter((each) => each.height < 32 || each.width < 32).length,
        shape: picture.width / picture.height,
      };
    })"""
    told = page.evaluate(shapes)
    assert len(told) > 10
    assert [(each["over"], each["small"]) for each in told] == [(0, 0)] * len(told)
    assert all(each["shape"] == pytest.approx(4 / 3, rel=0.05) for each in told)
    assert outside(page) == []
    page.locator("#ris-results [data-judge=more]").first.tap()
    page.wait_for_selector("#ris-results [data-judge=more][aria-pressed=true]")
    assert barriers(page) == []


def test_picture_is_shown_and_cropped_upright(page, odd, coordinates, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(coordinates[1]).save(path, exif=exif)
    upright = np.rot90(coordinates[1], -1)
    choose_collection(page, odd.name)
    upload(page, path)
    assert box(page) == [0, 0, 600, 900]
    assert page.evaluate("(i => i.naturalWidth < i.naturalHeight)(document.querySelector('.ris-stage img'))")
    drag(page, (0.1, 0.1), (0.5, 0.3))
    x0, y0, x1, y1 = box(page)
    search(page)
    np.testing.assert_array_equal(odd.asked[-1][0], upright[y0:y1, x0:x1])


def test_box_of_one_picture_never_lands_on_the_next(page, odd, coordinates):
    choose_collection(page, odd.name)
    upload(page, coordinates[0])
    drag(page, (0.2, 0.2), (0.6, 0.6))
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_function("document.querySelector('.ris-crop').dataset.width === '40'")
    assert box(page) == [0, 0, 40, 30]
    search(page)
    assert odd.asked[-1][0] == odd.store.items[0].path


def test_last_searched_is_copied_both_ways(page, coordinates):
    path, _ = coordinates
    assert not page.locator("#ris-again").is_visible()  # nothing has been searched yet
    upload(page, path)
    drag(page, (0.2, 0.2), (0.6, 0.6))
    drawn = box(page)
    search(page)
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_function("name => document.querySelector('.ris-name').textContent !== name", arg=path.name)
    example = page.locator(".ris-name").inner_text()

    page.click("#ris-again")  # with its crop
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=path.name)
    assert box(page) == drawn
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=example)
    page.click("#ris-swap")
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=path.name)
    assert example in page.locator("#ris-last").inner_text()
    assert "Set aside, not searched" in page.locator("#ris-last").inner_text()
    assert box(page) == drawn
    page.click("#ris-keep")
    page.wait_for_function("name => document.querySelector('#ris-last').textContent.includes(name)", arg=path.name)
    page.click(".ris-remove")
    page.wait_for_selector(".ris-crop", state="detached")


def test_nothing_is_stale_after_changing_the_collection(page, odd):
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    search(page)
    assert found(page)
    choose_collection(page, odd.name)
    assert found(page) == []
    assert page.locator(".ris-hint").is_visible()
    assert page.locator("#ris-examples .ris-tile").count() == len(HOSTILE_NAMES)
    assert not page.locator("#ris-nprobe").is_visible()  # it has no lists to choose from
    assert page.locator(".ris-crop").is_visible()  # the picture to search is the visitor's own
    search(page)
    tiles = page.locator("#ris-results .ris-tile")
    assert {tile.get_attribute("data-collection") for tile in tiles.all()} == {odd.name}
    choose_collection(page, "demo")
    open_settings(page)
    page.locator("#ris-nprobe").wait_for(state="visible")
    assert found(page) == []


def test_labels_and_names_are_inert(page, odd):
    choose_collection(page, odd.name)
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    search(page)
    items = [odd.store.items[i] for i in found(page)]
    assert len(items) == len(HOSTILE_NAMES) - 1
    assert page.locator("#ris-results .ris-label").all_inner_texts() == [item.labels[0] for item in items]
    assert page.locator("#ris-results .ris-file").all_inner_texts() == [item.path.name for item in items]
    for tile, item in zip(page.locator("#ris-results .ris-tile").all(), items, strict=True):
        tile.locator(".ris-open").click()
        assert item.labels[0] in page.locator(".ris-viewer-bar p").inner_text()
        assert item.path.name in page.locator(".ris-viewer-bar p").inner_text()
        page.keyboard.press("Escape")
    for use, name in zip(page.locator("#ris-examples .ris-use").all(), HOSTILE_NAMES, strict=True):
        use.click()
        page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=name)
    for use in reversed(page.locator("#ris-examples .ris-use").all()):  # and as quickly as one can
        use.click()
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=HOSTILE_NAMES[0])
    assert page.locator(".html-container .error-container").count() == 0


def test_the_last_of_quick_clicks_counts(page, server):
    """All at once, so that every click but the first comes before its answer."""
    names = [page.locator("#ris-examples .ris-use").nth(i).get_attribute("aria-label") for i in range(5)]
    page.evaluate("[...document.querySelectorAll('#ris-examples .ris-use')].slice(0, 5).forEach(b => b.click())")
    page.wait_for_function("label => label.endsWith(document.querySelector('.ris-name')?.textContent)", arg=names[4])
    page.wait_for_timeout(300)
    assert names[4].endswith(page.locator(".ris-name").inner_text())
    search(page)
    wanted = found(page)[4]
    page.evaluate("[...document.querySelectorAll('#ris-results .ris-use')].slice(0, 5).forEach(b => b.click())")
    name = server[1].store.items[wanted].path.name
    page.wait_for_function("name => document.querySelector('#ris-last')?.textContent.includes(name)", arg=name)
    page.wait_for_timeout(300)
    assert page.locator(".ris-name").inner_text() == name
    assert wanted not in found(page)


def wait_for(page, event):
    """Wait for something in the server, while Playwright goes on: it answers for every request of the page."""
    until(lambda: page.wait_for_timeout(20) or event.is_set(), "the server's being asked")


def test_click_during_one_that_fails_counts(page, monkeypatch, server):
    """The first picture is gone; the second is clicked before that is known."""
    asked, clicked = threading.Event(), threading.Event()

    def opened(engine, image_id):
        if not asked.is_set():
            asked.set()
            clicked.wait(60 * MINUTES)
            raise gone(engine.store.items[image_id].path.name)
        return really_opened(engine, image_id)

    really_opened = QueryPicture.of
    monkeypatch.setattr(QueryPicture, "of", opened)
    uses = page.locator("#ris-examples .ris-use")
    uses.nth(0).click()
    wait_for(page, asked)
    uses.nth(1).click()
    clicked.set()
    assert "no longer on the server" in toast(page)
    name = uses.nth(1).get_attribute("aria-label").split()[-1]
    page.wait_for_function("name => document.querySelector('.ris-name')?.textContent === name", arg=name)


def test_address_typed_while_another_is_opened_counts(page, monkeypatch, server):
    """The first is put right while the server still waits for it."""
    asked, typed = threading.Event(), threading.Event()

    def fetch(url):
        if "wrong" in url:
            asked.set()
            typed.wait(60 * MINUTES)
            raise RemoteImageError("There is no such picture.")
        return server[1].store.items[7].path.read_bytes()

    monkeypatch.setattr("gradio_app.tabs.search.handlers.fetch_image", fetch)
    field = page.locator("#ris-url input, #ris-url textarea")
    field.fill("https://pictures.example/wrong.jpg")
    field.press("Enter")
    wait_for(page, asked)
    field.fill("https://pictures.example/right.jpg")
    field.press("Enter")
    typed.set()
    assert "no such picture" in toast(page)
    page.wait_for_function("document.querySelector('.ris-name')?.textContent === 'right.jpg'")
    page.wait_for_function("document.querySelector('#ris-url input, #ris-url textarea').value === ''")


def test_enlarge_and_download(page, server):
    _, engine = server
    page.locator("#ris-examples .ris-use").nth(1).click()
    page.wait_for_selector(".ris-crop")
    ids = search(page)
    page.locator("#ris-results .ris-open").first.click()
    viewer = page.locator("dialog.ris-viewer")
    assert viewer.is_visible()
    assert engine.store.items[ids[0]].path.name in viewer.locator(".ris-viewer-bar p").inner_text()
    assert viewer.get_by_label("Previous picture").is_disabled()
    page.keyboard.press("ArrowRight")
    assert engine.store.items[ids[1]].path.name in viewer.locator(".ris-viewer-bar p").inner_text()
    page.wait_for_function("(i => i.complete && i.naturalWidth > 0)(document.querySelector('dialog.ris-viewer img'))")
    with page.expect_download() as started:
        viewer.get_by_text("Download original").click()
    path = engine.store.items[ids[1]].path
    assert started.value.suggested_filename == path.name
    assert Path(started.value.path()).read_bytes() == path.read_bytes()
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    page.locator("#ris-results .ris-open").nth(2).click()
    viewer.get_by_text("Search with this").click()
    name = engine.store.items[ids[2]].path.name
    page.wait_for_function("name => document.querySelector('#ris-last').textContent.includes(name)", arg=name)
    assert not viewer.is_visible()


def test_controls_act_when_they_are_changed(page, server):
    page.locator("#ris-examples .ris-use").nth(3).click()
    page.wait_for_selector(".ris-crop")
    open_settings(page)
    page.get_by_label("exact", exact=True).check()
    page.locator("#ris-nprobe").wait_for(state="hidden")
    assert found(page) == []  # nothing has been searched yet
    assert len(search(page)) == 20
    tiles = "document.querySelectorAll('#ris-results .ris-tile').length"
    page.locator("#ris-count input[type=number]").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{tiles} === 7")
    page.get_by_label("IVFPQ (ours)", exact=True).check()
    page.wait_for_function("document.querySelector('.ris-status').textContent.includes('8 of 100 lists visited')")
    page.locator("#ris-nprobe input[type=number]").fill("3")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.ris-status').textContent.includes('3 of 100 lists visited')")
    page.locator("#ris-nprobe input[type=range]").press("ArrowRight")
    page.wait_for_function("document.querySelector('.ris-status').textContent.includes('4 of 100 lists visited')")
    page.get_by_label("Re-rank").check()
    page.wait_for_function("document.querySelector('.ris-status').textContent.includes('re-rank')")
    page.locator("#ris-cutoff input, #ris-cutoff textarea").fill("0.999999")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{tiles} < 7")


def test_what_is_chosen_is_searched_at_once(page, odd, coordinates):
    """Every change of the picture, its box or a setting is searched at once; a box that is still to be moved is not.

    Where that is turned off, results look so as soon as they are of something else than what is chosen.
    """
    choose_collection(page, odd.name)

    def next_answer() -> None:
        page.wait_for_selector(".ris-status:not(.old)")
        page.evaluate("document.querySelector('.ris-status').classList.add('old')")

    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    assert found(page) == []
    page.get_by_label("Search at once").check()
    next_answer()
    upload(page, coordinates[0])
    next_answer()
    assert isinstance(odd.asked[-1][0], Path)
    drag(page, (0.2, 0.2), (0.6, 0.6))
    next_answer()
    x0, y0, x1, y1 = box(page)
    np.testing.assert_array_equal(odd.asked[-1][0], coordinates[1][y0:y1, x0:x1])
    page.click(".ris-reset")
    next_answer()
    assert isinstance(odd.asked[-1][0], Path)
    open_settings(page)
    page.locator("#ris-engine").get_by_label("exact", exact=True).check()
    next_answer()
    assert odd.asked[-1][3] == "exact"
    asked = len(odd.asked)
    page.locator("#ris-results [data-act=inside]").nth(1).evaluate("button => button.click()")
    page.wait_for_function("document.querySelector('.ris-crop').dataset.width === '40'")
    assert box(page) == [8, 6, 32, 24]
    page.wait_for_timeout(500)
    assert len(odd.asked) == asked
    page.wait_for_selector("#ris-found.ris-is-stale")
    page.get_by_text("These are of the search before.").wait_for()
    page.locator(".ris-stale button").click()
    next_answer()
    page.wait_for_selector("#ris-found:not(.ris-is-stale)")

    page.get_by_label("Search at once").uncheck()
    assert "auto=0" in page.url
    asked = len(odd.asked)
    page.locator("#ris-examples .ris-use").nth(2).click()
    page.wait_for_selector("#ris-found.ris-is-stale")
    page.reload()
    page.wait_for_selector("#ris-examples img")
    assert not page.get_by_label("Search at once").is_checked(), "the browser keeps it"
    page.evaluate("localStorage.removeItem('ris-at-once')")
    assert len(odd.asked) - asked <= 1, "the address is opened, and nothing else is searched"


def test_recent_queries_are_gone_back_to(page, coordinates):
    assert page.locator("#ris-recent button").count() == 0
    upload(page, coordinates[0])
    drag(page, (0.2, 0.2), (0.6, 0.6))
    drawn = box(page)
    search(page)
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_function("document.querySelector('.ris-name').textContent.startsWith('coordinates') === false")
    search(page)
    search(page)  # the same again is not another one
    assert page.locator("#ris-recent button").count() == 2
    page.locator("#ris-recent button").nth(1).click()
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=coordinates[0].name)
    assert box(page) == drawn


def test_results_are_refined_and_continued(page, server):
    _, engine = server
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    open_settings(page)
    page.locator("#ris-count input[type=number]").fill("5")
    page.locator("#ris-engine").get_by_label("exact", exact=True).check()
    first = search(page)
    query = engine.store.items[page.eval_on_selector("#ris-examples .ris-tile", "t => Number(t.dataset.id)")]
    expected = engine.search(query.path, 400, engine="exact")
    assert first == [hit.id for hit in expected[:5]]

    page.get_by_text("Show 5 more").click()
    page.wait_for_function("document.querySelectorAll('#ris-results .ris-tile').length === 10")
    assert found(page) == [hit.id for hit in expected[:10]]

    page.click("#ris-sort input")
    page.get_by_role("option", name="By file name").click()
    by_name = sorted(expected[:10], key=lambda hit: (hit.path.name, hit.rank))
    page.wait_for_function(
        "id => document.querySelector('#ris-results .ris-tile').dataset.id === id", arg=str(by_name[0].id)
    )
    assert found(page) == [hit.id for hit in by_name]

    label = next(hit.labels[0] for hit in expected if hit.labels != query.labels)
    page.click("#ris-labels input")
    page.get_by_role("option", name=label).first.click()
    page.wait_for_function(
        "label => [...document.querySelectorAll('#ris-results .ris-label')].every(l => l.textContent === label)",
        arg=label,
    )
    only = [hit for hit in expected if label in hit.labels][:5]
    assert sorted(found(page)) == sorted(hit.id for hit in only)

    page.keyboard.press("Escape")
    cutoff = sorted(hit.similarity for hit in only)[2] - 1e-4
    page.locator("#ris-cutoff input, #ris-cutoff textarea").fill(f"{cutoff:.6f}")
    alike = [hit.id for hit in expected if label in hit.labels and hit.similarity >= cutoff]
    assert sorted(search(page)) == sorted(alike[:5])
    page.locator("#ris-cutoff input, #ris-cutoff textarea").fill("much")
    page.click("#ris-start")
    assert "must be a number" in toast(page)


def test_search_inside_a_result(page, server):
    _, engine = server
    page.locator("#ris-examples .ris-use").first.click()
    page.wait_for_selector(".ris-crop")
    ids = search(page)
    page.locator("#ris-results .ris-open").first.click()
    page.get_by_text("Search inside this").click()
    name = engine.store.items[ids[0]].path.name
    page.wait_for_function("name => document.querySelector('.ris-name').textContent === name", arg=name)
    width, height = (int(page.get_attribute(".ris-crop", f"data-{side}")) for side in ("width", "height"))
    assert box(page) == [width // 5, height // 5, width - width // 5, height - height // 5]
    x0, y0, x1, y1 = box(page)
    part = decode_image(engine.store.items[ids[0]].path)[y0:y1, x0:x1]
    assert search(page) == [hit.id for hit in engine.search(part, 20, nprobe=8)]
    assert "px of it" in page.locator("#ris-last").inner_text()


def test_gallery_pages_and_gives_a_query(page, server):
    _, engine = server
    page.get_by_role("tab", name="Browse the collection").click()
    tiles = page.locator("#ris-gallery .ris-tile")
    page.wait_for_selector("#ris-gallery .ris-tile")
    assert tiles.count() == 60
    assert page.get_by_label("Previous page").first.is_disabled()
    page.get_by_label("Next page").first.click()
    page.wait_for_function("document.querySelector('#ris-gallery .ris-tile').dataset.id === '60'")
    field = page.locator(".ris-leaf-number").first
    field.fill("6")
    field.press("Enter")
    page.wait_for_function("document.querySelector('#ris-gallery .ris-tile').dataset.id === '300'")
    assert tiles.count() == 40
    assert page.get_by_label("Next page").first.is_disabled()
    page.wait_for_function(
        "[...document.querySelectorAll('#ris-gallery img')].slice(0, 8).every(i => i.naturalWidth > 0)"
    )
    tiles.nth(5).hover()
    tiles.nth(5).locator(".ris-use").click()
    page.wait_for_selector("#ris-results .ris-tile")
    assert page.locator("#ris-start").is_visible()  # back on the search tab
    assert page.locator(".ris-name").inner_text() == engine.store.items[305].path.name
    assert 305 not in found(page)


def test_collections_are_made_brought_up_to_date_and_deleted(open_page, picture_folder, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(picture_folder, folder)
    page, other = open_page(), open_page()
    page.get_by_role("tab", name="Manage").click()
    assert page.locator(".ris-shelf-item").count() == 2
    assert page.locator(".ris-shelf-item .ris-delete").count() == 1  # the other is not in the folder of collections

    page.click("#ris-create")
    assert "Name the folder" in toast(page)
    page.get_by_role("textbox", name="Name", exact=True).fill("pictures of mine")
    page.locator("#ris-new-folder input").fill(str(folder))
    page.click("#ris-create")
    page.wait_for_selector(".ris-job[data-state=running]")
    # Who searches meanwhile is not kept waiting.
    other.locator("#ris-examples .ris-use").first.click()
    other.wait_for_selector(".ris-crop")
    assert len(search(other)) == 20
    page.wait_for_selector(".ris-job[data-state=done]")
    assert "12 pictures" in page.locator("#ris-job").inner_text()
    page.locator("#ris-job [data-kind=unreadable] summary").click()
    assert "warm/broken.jpg not an image" in page.locator("#ris-job").inner_text()

    # It is in the chooser of everyone.
    name = "pictures-of-mine"
    until(lambda: offered(other, name), f"the offer of {name}")
    choose_collection(other, name)
    assert other.locator("#ris-examples .ris-tile").count() == 12

    # Its folder changes, and a button takes that in; who has chosen it need not reload the page.
    item = page.locator(f".ris-shelf-item[data-name={name}]")
    assert "12 pictures" in item.inner_text()
    (folder / "warm" / "0.png").unlink()
    for i in range(3):
        Image.new("RGB", (48, 64), (20 * i, 200, 60)).save(folder / "cold" / f"green{i}.png")
    item.locator(".ris-sync").click()
    page.wait_for_function("document.querySelector('#ris-job')?.textContent.includes('3 added')")
    assert "1 removed" in page.locator("#ris-job").inner_text()
    page.wait_for_function("document.querySelector('#ris-shelf').textContent.includes('14 pictures')")
    for width in (390, 820, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert outside(page) == []
    other.wait_for_function("document.querySelector('#ris-collection input').value.includes('14 pictures')")
    other.get_by_role("tab", name="Browse the collection").click()
    other.wait_for_selector("#ris-gallery .ris-tile")
    names = other.locator("#ris-gallery .ris-file").all_inner_texts()
    assert {"green0.png", "green1.png", "green2.png"} <= set(names)
    assert len(names) == 14
    other.get_by_role("tab", name="Search").click()

    item.locator(".ris-delete").click()
    dialog = page.locator("dialog.ris-confirm")
    assert f"“{name}”" in dialog.locator("h2").inner_text()
    assert str(folder) in dialog.locator("p").inner_text()
    dialog.get_by_text("Keep it").click()
    assert item.is_visible()
    item.locator(".ris-delete").click()
    assert dialog.locator(".ris-danger").is_disabled()
    dialog.locator("input").fill(f"{name}s")
    assert dialog.locator(".ris-danger").is_disabled()
    dialog.locator("input").fill(name)
    dialog.locator(".ris-danger").click()
    item.wait_for(state="detached")
    # Whoever had chosen it has another one now.
    other.wait_for_function("document.querySelector('#ris-examples .ris-tile')?.dataset.collection === 'demo'")


def test_who_may_not_manage_is_told_how_to_before_anything_is_filled_in(page, server):
    def come_back():
        for tab in ("Search", "Manage"):
            page.get_by_role("tab", name=tab).click()

    locked = page.locator("#ris-locked")
    page.context.clear_cookies()  # as whoever opened the page without the start link
    come_back()
    locked.wait_for(state="visible")
    assert "open the link that the app printed when it was started" in locked.inner_text()
    other = page.context.new_page()
    other.goto(server[0])
    other.close()
    come_back()
    locked.wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tab_to_manage_can_be_read_and_reached(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.get_by_role("tab", name="Manage").click()
    page.locator("#ris-create").wait_for()
    assert barriers(page) == []
    page.get_by_label("Pictures, a folder or a zip file of mine").check()
    page.locator(".ris-send").wait_for()
    page.locator("#ris-new-how > button").click()
    page.locator("#ris-new-spaces").wait_for()
    page.locator(".ris-stored summary").click()
    page.locator(".ris-make-field").wait_for()
    assert barriers(page) == []


def test_a_zip_file_is_sent_and_its_making_cancelled(page, picture_folder, tmp_path, demo_collection):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for picture in picture_folder.rglob("*.png"):
            archive.write(picture, picture.relative_to(picture_folder))
    page.get_by_role("tab", name="Manage").click()
    page.get_by_role("textbox", name="Name", exact=True).fill("zipped")
    page.get_by_label("Pictures, a folder or a zip file of mine").check()
    page.set_input_files(".ris-send-files", path)
    said = page.locator(".ris-send [role=status]")
    ready = "document.querySelector('.ris-send [role=status]').textContent === 'pictures.zip is ready.'"
    page.wait_for_function(ready)
    page.click("#ris-create")
    page.wait_for_selector(".ris-job[data-state=running]")
    page.click(".ris-cancel")
    page.wait_for_selector(".ris-job[data-state=cancelled]")
    page.wait_for_timeout(500)
    there = [path.name for path in demo_collection.parent.iterdir() if not path.name.startswith(".upload-")]
    assert there == ["demo"]
    # The form is as it was, with what was sent, and begins again.
    name = page.get_by_role("textbox", name="Name", exact=True)
    assert (said.inner_text(), name.input_value()) == ("pictures.zip is ready.", "zipped")
    page.click("#ris-create")
    page.wait_for_selector(".ris-job[data-state=running]")
    page.click(".ris-cancel")
    page.wait_for_selector(".ris-job[data-state=cancelled]")
    name.fill("")
    page.click("#ris-create")
    assert "Give the collection a name first." in toast(page)
    assert said.inner_text() == "pictures.zip is ready."  # what was refused is not lost


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("{server}pictures/demo/0/view", "not on the public internet"),
        ("file:///etc/passwd", "http:// or https://"),
        ("http://<img src=x onerror=window.hacked=9>/", "not a web address"),
        ("", "Type the address"),
    ],
)
def test_address_is_refused_in_words(page, server, address, says):
    field = page.locator("#ris-url input, #ris-url textarea")
    field.fill(address.format(server=server[0].partition("start?")[0]))
    field.press("Enter") if address else page.click("#ris-fetch")
    assert says in toast(page)
    assert page.locator(".ris-crop").count() == 0
    assert page.locator(".toast-body img[src=x]").count() == 0


def test_address_of_a_picture_becomes_the_query(page, monkeypatch, server):
    item = server[1].store.items[7]
    monkeypatch.setattr("gradio_app.tabs.search.handlers.fetch_image", lambda url: item.path.read_bytes())
    page.locator("#ris-url input, #ris-url textarea").fill("https://pictures.example/some/cat.jpg?size=1#x")
    page.click("#ris-fetch")
    page.wait_for_selector(".ris-crop")
    assert page.locator(".ris-name").inner_text() == "cat.jpg"
    assert 7 not in search(page)  # the very same bytes: it is known again


def test_file_that_is_no_picture(page, tmp_path, coordinates):
    path = tmp_path / "<b>text.png"
    path.write_text("not a picture")
    page.set_input_files("#ris-upload input[type=file]", path)
    said = "<b>text.png cannot be read as a picture: not an image in any format that can be read."
    assert said in toast(page)
    assert page.locator(".ris-crop").count() == 0
    # The zone is as it was, and takes the next.
    page.locator("#ris-upload img").wait_for(state="detached")
    upload(page, coordinates[0])


def test_paste_and_drop(page, coordinates):
    as_file = """async ([kind, target, url]) => {
        const list = new DataTransfer();
        list.items.add(new File([await (await fetch(url)).blob()], kind + '.jpg', { type: 'image/jpeg' }));
        const event = kind === 'paste'
            ? new ClipboardEvent('paste', { clipboardData: list, bubbles: true, cancelable: true })
            : new DragEvent('drop', { dataTransfer: list, bubbles: true, cancelable: true });
        document.querySelector(target).dispatchEvent(event);
    }"""
    url = page.get_attribute("#ris-examples img", "src")
    page.evaluate(as_file, ["paste", "body", url])
    page.wait_for_function("document.querySelector('.ris-name')?.textContent === 'paste.jpg'")
    page.evaluate(as_file, ["drop", ".ris-stage", url])
    page.wait_for_function("document.querySelector('.ris-name')?.textContent === 'drop.jpg'")


@pytest.mark.parametrize("mode", ["Upload file", "Paste from clipboard"])
def test_whatever_is_dropped_or_pasted_anywhere_is_searched_with(open_page, mode, monkeypatch, server):
    page = open_page(permissions=["clipboard-read"])  # which Gradio asks for as its mode is chosen
    fetched = []

    def fetch(url):
        fetched.append(url)
        return server[1].store.items[3].path.read_bytes()

    monkeypatch.setattr("gradio_app.tabs.search.handlers.fetch_image", fetch)
    page.get_by_label(mode).click()
    page.get_by_role("tab", name="Browse the collection").click()
    give = """async ([kind, target, url, said]) => {
        const data = new DataTransfer();
        for (const [type, text] of Object.entries(said)) data.setData(type, text);
        if (url) data.items.add(new File([await (await fetch(url)).blob()], kind + '.jpg', { type: 'image/jpeg' }));
        const event = kind === 'paste'
            ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
            : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
        return document.querySelector(target).dispatchEvent(event);
    }"""
    named = "name => document.querySelector('.ris-name')?.textContent === name"
    url = page.get_attribute("#ris-examples img", "src")
    for kind, target in (("drop", "#ris-gallery"), ("paste", "body"), ("drop", "#ris-upload")):
        assert page.evaluate(give, [kind, target, url, {}]) is False  # the browser itself would open it
        page.wait_for_function(named, arg=f"{kind}.jpg")
        page.wait_for_selector("#ris-query", state="visible")
    said = {
        "text/html": '<a href="https://a.org/"><img src="https://a.org/b.jpg"></a>',
        "text/uri-list": "https://a.org/",
    }
    assert page.evaluate(give, ["drop", "body", None, said]) is False
    page.wait_for_function(named, arg="b.jpg")
    assert page.evaluate(give, ["paste", "body", None, {"text/plain": " https://a.org/c.png\n"}]) is False
    page.wait_for_function(named, arg="c.png")
    assert fetched == ["https://a.org/b.jpg", "https://a.org/c.png"]
    assert page.evaluate(give, ["paste", "body", None, {"text/plain": "just words"}]) is True
    assert page.evaluate(give, ["paste", ".ris-words input", None, {"text/plain": "https://a.org/d.png"}]) is True
    assert len(fetched) == 2


def test_a_tile_dropped_on_the_page_is_searched_with(page):
    page.get_by_role("tab", name="Browse the collection").click()
    tile = page.locator("#ris-gallery .ris-tile").nth(4)
    tile.wait_for()
    id = int(tile.get_attribute("data-id"))
    tile.drag_to(page.locator("#ris-head"))
    page.wait_for_selector("#ris-results .ris-tile")
    assert f"%2F{id}%2F" in page.url


def test_webcam(page):
    page.get_by_label("Capture from camera").click()
    page.locator("#ris-upload").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#ris-upload video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    page.wait_for_selector(".ris-crop")
    assert min(int(page.get_attribute(".ris-crop", f"data-{side}")) for side in ("width", "height")) >= 240
    assert search(page)


def test_dark_and_light_follow_the_reader(open_page):
    background = "getComputedStyle(document.body).backgroundColor"
    assert open_page(color_scheme="light").evaluate(background) == "rgb(255, 255, 255)"
    assert open_page(color_scheme="dark").evaluate(background) != "rgb(255, 255, 255)"


def test_two_visitors_do_not_share_a_query(open_page):
    one, two = open_page(), open_page()
    one.locator("#ris-examples .ris-use").first.click()
    one.wait_for_selector(".ris-crop")
    search(one)
    assert two.locator(".ris-crop").count() == 0
    assert "Nothing yet" in two.locator("#ris-last").inner_text()
