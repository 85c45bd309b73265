"""Compare, Explain and Evaluate in a real Chromium, on a real collection, checked against what the engine says."""

from __future__ import annotations

import importlib
import json
import re
import threading
import time

import numpy as np
import pytest
from PIL import Image
from test_browser import (  # noqa: F401
    HOSTILE_LABELS,
    HOSTILE_NAMES,
    barriers,
    browser,
    choose_collection,
    found,
    open_page,
    open_settings,
    outside,
    search,
    served,
    usual_context,
)
from waiting import MINUTES

import gradio_app.tabs.evaluate
from gradio_app.create_index import main
from search.compare import compare
from search.engine import SearchEngine
from search.evaluate import evaluate
from search.explain import explain
from search.options import SearchOptions

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A small collection without inverted lists, whose labels and names try to run as programs."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for i, label in enumerate(HOSTILE_LABELS):
        sub = folder / "pictures" / label.replace("/", "")
        sub.mkdir(parents=True)
        for j, name in enumerate(HOSTILE_NAMES):
            pixels = rng.integers(0, 60, (48, 64, 3)) + np.array([40 * i, 190 - 40 * i, 30 * j])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(sub / name)
    command = ["--data", str(folder / "pictures"), "--encoder", "efficientnet-lite0", "--name", "hostile"]
    assert main([*command, "--collections", str(folder)]) == 0
    return SearchEngine.open(folder / "hostile")


@pytest.fixture(scope="module")
def server(demo_collection, hostile):
    engine = SearchEngine.open(demo_collection)
    with served(engine, hostile) as page:
        yield page.local_url, engine


@pytest.fixture
def engine(server):
    return server[1]


@pytest.fixture
def page(open_page):  # noqa: F811
    return open_page()


def open_tab(page, name: str) -> None:
    """Open a tab; where the page is narrow, those that do not fit are in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def take_example(page, number: int) -> int:
    """Make an example the query; its id."""
    tile = page.locator("#ris-examples .ris-tile").nth(number)
    tile.locator(".ris-use").click()
    page.wait_for_selector(".ris-crop")
    return int(tile.get_attribute("data-id"))


def change(page, selector: str, action) -> None:
    """Do something, and wait until what `selector` finds has been drawn anew."""
    page.eval_on_selector(selector, "element => element.classList.add('old')")
    action()
    page.wait_for_selector(f"{selector}:not(.old)")


def slide(page, slider: str, value: int) -> None:
    field = page.locator(f"{slider} input[type=number]")
    field.fill(str(value))
    field.press("Enter")
    field.blur()


def shown(page, where: str) -> list[int]:
    return page.eval_on_selector_all(f"{where} [data-explain]", "tiles => tiles.map(t => Number(t.dataset.explain))")


def decoded(page, images: str) -> list[int]:
    return page.eval_on_selector_all(
        images, "all => Promise.all(all.map(i => (i.loading = 'eager', i.decode().then(() => i.naturalWidth))))"
    )


def compared(page) -> dict[str, list[str]]:
    rows = page.locator("#ris-compare tbody tr").all()
    return {row.get_attribute("data-engine"): row.locator("td").all_inner_texts() for row in rows}


@pytest.mark.parametrize(
    ("tab", "module", "answer", "where"),
    [
        ("Compare", "compare", "compare", "#ris-compare"),
        ("Explain", "explain.handlers", "explain", "#ris-strip"),
    ],
)
def test_a_tab_says_what_it_is_about_while_it_works(page, monkeypatch, tab, module, answer, where):
    module = importlib.import_module(f"gradio_app.tabs.{module}")
    work, done = getattr(module, answer), threading.Event()

    def slow(*args, **kwargs):
        assert done.wait(60 * MINUTES)
        return work(*args, **kwargs)

    monkeypatch.setattr(module, answer, slow)
    take_example(page, 2)
    name = page.locator(".ris-name").inner_text()
    try:
        open_tab(page, tab)
        about = page.locator(f"#ris-{tab.lower()}-about")
        about.get_by_text(name).wait_for()
        page.locator(where).get_by_text("processing").wait_for()
        assert not page.locator(f"{where} img").count()
    finally:
        done.set()
    page.wait_for_selector(f"{where} img")
    assert about.get_by_text(name).is_visible()


def test_engines_are_compared_live(page, engine):
    id = take_example(page, 4)
    open_tab(page, "Compare")
    page.wait_for_selector("#ris-compare table")
    vector, own_id = engine.encode(engine.store.items[id].path)
    assert own_id == id

    def check(k, nprobe, rerank=True):
        answers = compare(engine, vector, own_id, SearchOptions(k=k, nprobe=nprobe, rerank=rerank, neighbourhood=0))
        rows = compared(page)
        assert list(rows) == list(answers)
        assert page.locator("#ris-compare thead").inner_text().split("\t")[1] == f"Recall@{k}"
        for name, answer in answers.items():
            recall, hits, search_time, again = rows[name]
            assert recall.strip() == f"{answer.recall:.2f}"
            assert hits == f"{round(k * answer.recall)} of {k}"
            assert re.fullmatch(r"[\d.]+ ms", search_time)
            assert re.fullmatch(r"[\d.]+ ms, \d+ pictures" if answer.answer.reranked else "–", again)
            assert shown(page, f"#ris-compare section[data-engine={name}]") == list(answer.answer.ids)
        ours, theirs = answers["ivfpq"].ids, answers["faiss"].ids
        counts = [len(ours & theirs), len(ours - theirs), len(theirs - ours)]
        assert [int(n) for n in re.findall(r"\d+", page.locator(".ris-overlap").inner_text())] == counts
        for name in ("ivfpq", "faiss"):
            right = page.locator(f"#ris-compare section[data-engine={name}] .ris-is-true").count()
            assert right == len(answers[name].ids & answers["exact"].ids)

    def rerank(is_on):
        box = page.locator("#ris-compare-rerank input")
        change(page, "#ris-compare table", lambda: box.set_checked(is_on))
        # A slider that is left compares once more, by what stood there before.
        again = "is_on => document.querySelector('#ris-compare tbody tr').innerText.includes('pictures') === is_on"
        page.wait_for_function(again, arg=is_on)

    check(10, 8)
    rerank(False)
    check(10, 8, rerank=False)
    change(page, "#ris-compare table", lambda: slide(page, "#ris-compare-nprobe", 1))
    check(10, 1, rerank=False)
    change(page, "#ris-compare table", lambda: slide(page, "#ris-compare-k", 17))
    check(17, 1, rerank=False)
    change(page, "#ris-compare table", lambda: slide(page, "#ris-compare-nprobe", 100))
    rerank(True)
    check(17, 100)
    assert [row[0].strip() for row in compared(page).values()] == ["1.00", "1.00", "1.00"]


def test_without_a_query_the_tabs_say_what_to_do(page):
    for name in ("Compare", "Explain"):
        open_tab(page, name)
        about = page.locator(f"#ris-{name.lower()}-about")
        assert "Choose a picture on the Search tab first" in about.inner_text()
    assert page.locator(".toast-body").count() == 0


def test_a_search_is_explained(page, engine):
    id = take_example(page, 2)
    results = search(page)
    open_tab(page, "Explain")
    page.wait_for_selector(".ris-verdict")
    assert shown(page, "#ris-strip section:first-child") == results
    vector, _ = engine.encode(engine.store.items[id].path)
    options = SearchOptions("ivfpq", 20, 8)

    def check(expected):
        verdict = page.locator(".ris-verdict p").all_inner_texts()
        plain = f"By similarity alone: {expected.verdict}"
        assert verdict == [expected.neighbours.verdict, plain, f"The way through the index: {expected.path}"]
        facts = page.locator(".ris-facts").inner_text()
        assert f"no. {expected.place.list_number} {len(expected.place.list_ids)} picture" in facts
        code = page.locator(".ris-code > span").all_inner_texts()
        assert bytes.fromhex("".join(code)) == expected.place.code
        assert f"{expected.place.score:.4f} rank {expected.place.rank}" in facts
        assert f"{expected.exact_score:.4f} rank {expected.exact_rank}" in facts
        assert page.locator(".ris-list img").count() == min(24, len(expected.place.list_ids) - 1)
        assert page.locator("[aria-current]").get_attribute("data-explain") == str(expected.id)

    check(explain(engine, vector, id, results[0], options))
    assert min(decoded(page, "#ris-explain img")) > 0
    assert page.locator(".ris-card").count() == 2
    assert page.locator(".ris-classes").first.locator("li").count() == 5
    assert page.locator(".ris-seen").first.is_visible()
    page.locator(".ris-heat-on").uncheck()
    assert not page.locator(".ris-seen").first.is_visible()

    change(page, ".ris-verdict", lambda: page.locator(f"#ris-strip [data-explain='{results[6]}']").click())
    check(explain(engine, vector, id, results[6], options))
    change(page, ".ris-verdict", lambda: slide(page, "#ris-explain-nprobe", 1))
    check(explain(engine, vector, id, results[6], SearchOptions("ivfpq", 20, 1)))
    slide(page, "#ris-explain-k", 50)
    page.wait_for_selector("#ris-strip section:nth-child(2) [data-explain]")  # one list cannot hold them all
    lost = shown(page, "#ris-strip section:nth-child(2)")
    change(page, ".ris-verdict", lambda: page.locator(f"#ris-strip [data-explain='{lost[0]}']").click())
    expected = explain(engine, vector, id, lost[0], SearchOptions("ivfpq", 50, 1))
    assert expected.lost
    check(expected)
    assert page.locator(".ris-verdict.ris-is-lost").count() == 1
    links = page.eval_on_selector_all("#ris-explain .ris-step", "all => all.map((link) => link.hash)")
    assert sorted(links) == [f"#step-{number}" for number in range(1, 8)]
    with page.context.expect_page() as opened:
        page.click(".ris-step[href$='#step-5']")  # the same search, in figures to be touched
    steps = opened.value
    steps.wait_for_selector("html[data-ready]")
    told = json.loads(steps.get_attribute("#step-3 .told", "data-values"))
    truth = engine.search_vector(vector, SearchOptions("exact", 10, rerank=False, neighbourhood=0), own_id=id).ids
    assert told["nprobe"] == 1
    assert set(told["found"]) <= set(truth)
    assert steps.evaluate("() => [location.hash, document.querySelectorAll('#step-7 .codec').length]") == ["#step-5", 3]
    steps.close()

    page.wait_for_selector("#ris-map-plot .main-svg")
    names = page.locator("#ris-map-plot .legendtext").all_text_contents()
    assert names == ["Lists", "Probed lists", "The picture's list", "The query"]
    points = page.locator("#ris-map-plot .scatterlayer .trace").nth(0).locator("path.point").count()
    assert points == 99  # the hundredth is probed

    change(page, ".ris-verdict", lambda: page.locator("#ris-explain-engine").get_by_label("faiss", exact=True).check())
    check(explain(engine, vector, id, lost[0], SearchOptions("faiss", 50, 1)))
    change(page, ".ris-verdict", lambda: page.locator("#ris-explain-engine").get_by_label("exact", exact=True).check())
    assert "340 pictures compared, one by one." in page.locator(".ris-verdict").inner_text()
    page.wait_for_selector("#ris-map", state="hidden")


def test_a_result_is_explained_as_it_was_searched(page, engine):
    id = take_example(page, 5)
    results = search(page)
    take_example(page, 1)  # another query meanwhile: the results are still those of the search
    tile = page.locator("#ris-results .ris-tile").nth(3)
    tile.hover()
    tile.locator("[data-act=explain]").click()
    page.wait_for_selector(".ris-verdict")
    assert page.get_by_role("tab", name="Explain").get_attribute("aria-selected") == "true"
    assert engine.store.items[id].path.name in page.locator("#ris-explain-about").inner_text()
    assert page.locator("[aria-current]").get_attribute("data-explain") == str(results[3])
    assert page.locator(".ris-verdict p").first.inner_text().endswith(" rank 4.")
    open_tab(page, "Search")
    open_tab(page, "Explain")  # what was being looked at is still there
    page.wait_for_selector(".ris-verdict")
    assert page.locator("[aria-current]").get_attribute("data-explain") == str(results[3])


def test_what_was_missed_in_a_comparison_is_explained(page):
    take_example(page, 3)
    open_tab(page, "Compare")
    page.wait_for_selector("#ris-compare table")
    change(page, "#ris-compare table", lambda: slide(page, "#ris-compare-nprobe", 1))
    missed = page.locator("#ris-compare .ris-is-missed button").first
    name, id = missed.get_attribute("data-engine"), missed.get_attribute("data-explain")
    missed.click()
    page.wait_for_selector(".ris-verdict")
    assert page.locator(".ris-verdict").inner_text().startswith("Lost")
    assert page.locator("[aria-current]").get_attribute("data-explain") == id
    assert page.locator("#ris-explain-nprobe input[type=number]").input_value() == "1"
    label = {"ivfpq": "IVFPQ (ours)", "faiss": "faiss"}[name]
    assert page.locator("#ris-explain-engine").get_by_label(label, exact=True).is_checked()


def evaluated(page) -> dict[str, list[str]]:
    rows = page.locator("#ris-evaluate table").first.locator("tbody tr").all()
    return {row.get_attribute("data-engine"): row.locator("td").all_inner_texts() for row in rows}


def test_a_collection_is_evaluated(page, engine):
    open_tab(page, "Evaluate")
    page.locator("#ris-evaluate-engines").get_by_label("faiss", exact=True).uncheck()
    slide(page, "#ris-evaluate-k", 5)
    page.click("#ris-evaluate-start")
    page.wait_for_selector(".ris-progress[data-done=true]")
    rows = evaluated(page)
    assert list(rows) == ["ivfpq", "exact"]
    for name, (precision, average, accuracy, asked, seconds) in rows.items():
        *_, final = evaluate(engine, SearchOptions(name, 5, 8))
        assert (precision, average, accuracy) == tuple(
            f"{value:.3f}" for value in (final.precision, final.mean_average_precision, final.accuracy)
        )
        assert asked == "340"
        assert seconds.endswith(" s")
        if final.worst:
            table = page.locator(f".ris-worst[data-engine={name}]")
            assert table.locator("tbody th").all_text_contents() == [confusion.label for confusion in final.worst]
    if page.locator(".ris-pair img").count():
        assert min(decoded(page, ".ris-worst[open] .ris-pair img")) > 0
    page.locator("#ris-evaluate-engines").get_by_label("IVFPQ (ours)", exact=True).uncheck()
    page.locator("#ris-evaluate-engines").get_by_label("exact", exact=True).uncheck()
    page.click("#ris-evaluate-start")
    page.wait_for_selector(".toast-body")
    assert "Choose at least one engine" in page.locator(".toast-body").inner_text()


def test_an_evaluation_is_stopped_and_blocks_nobody(open_page, monkeypatch):  # noqa: F811
    def slow(*arguments, **keywords):
        for evaluation in evaluate(*arguments, **keywords):
            time.sleep(1)
            yield evaluation

    monkeypatch.setattr(gradio_app.tabs.evaluate, "evaluate", slow)
    page, other = open_page(), open_page()
    open_tab(page, "Evaluate")
    page.click("#ris-evaluate-start")
    page.wait_for_selector(".ris-progress span:not(:text-is('0 %'))")
    take_example(other, 0)
    assert len(search(other)) == 20
    assert page.locator(".ris-progress[data-done=true]").count() == 0  # the search did not wait for its end
    assert not page.locator("#ris-evaluate-start").is_enabled()
    page.click("#ris-evaluate-stop")
    page.wait_for_selector("#ris-evaluate-start:not([disabled])")
    assert re.fullmatch(r"Stopped at \d+ %", page.locator(".ris-progress span").inner_text())
    assert page.locator("#ris-evaluate tr[data-engine=exact]").inner_text().split("\t") == ["exact", "not begun"]
    assert page.locator(".toast-body").count() == 0
    so_far = evaluated(page)["ivfpq"]
    assert re.fullmatch(r"\d+ of 340", so_far[3])
    page.wait_for_timeout(2500)
    assert evaluated(page)["ivfpq"] == so_far
    assert page.locator(".ris-progress[data-done=true]").count() == 0


def test_labels_and_names_are_inert_and_a_flat_index_is_explained(page, hostile):
    choose_collection(page, hostile.name)
    take_example(page, 0)
    search(page)
    open_tab(page, "Compare")
    page.wait_for_selector("#ris-compare table")
    assert min(decoded(page, "#ris-compare img")) > 0
    assert not page.locator("#ris-compare-nprobe").is_visible()
    open_tab(page, "Explain")
    page.wait_for_selector(".ris-verdict")
    assert "25 pictures compared, one by one." in page.locator(".ris-verdict").inner_text()
    labels = {label.replace("/", "") for label in HOSTILE_LABELS}
    assert page.locator(".ris-card figcaption").nth(1).inner_text().removeprefix("The hit: ") in labels
    assert page.locator("#ris-explain-about b").inner_text() in HOSTILE_NAMES
    assert not page.locator("#ris-map").is_visible()
    open_tab(page, "Evaluate")
    page.click("#ris-evaluate-start")
    page.wait_for_selector(".ris-progress[data-done=true]")
    for details in page.locator(".ris-worst").all():
        details.evaluate("details => details.open = true")
    assert set(page.locator(".ris-worst tbody th").all_inner_texts()) <= labels
    # With the collection everything about it goes.
    choose_collection(page, "demo")
    page.wait_for_function("!document.querySelector('.ris-verdict, #ris-compare table, #ris-evaluate table')")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(390, "light"), (390, "dark"), (820, "light"), (820, "dark"), (1440, "light"), (1440, "dark"), (1920, "light")],
)
def test_every_tab_fits_the_screen_and_can_be_read_and_reached(open_page, width, scheme):  # noqa: F811
    page = open_page(
        viewport={"width": width, "height": 900}, has_touch=width < 1000, is_mobile=width < 500, color_scheme=scheme
    )
    assert outside(page) == []
    assert barriers(page) == []
    take_example(page, 1)
    open_settings(page)
    search(page)
    assert outside(page) == []
    assert barriers(page) == []
    left, first = (
        page.locator(f"#ris-results .ris-tile >> nth=0 >> {part}").bounding_box()["x"]
        for part in (".ris-picture", ".ris-actions")
    )
    assert first >= left  # the buttons on a picture have room on it
    for name, ready in (
        ("Browse the collection", "#ris-gallery .ris-tile"),
        ("Compare", "#ris-compare table"),
        ("Explain", "#ris-map-plot .main-svg"),
        ("Evaluate", "#ris-evaluate"),
    ):
        open_tab(page, name)
        page.wait_for_selector(ready)  # the first map compiles and loads a lot
        assert outside(page) == [], name
        assert barriers(page) == [], name
    intro = page.locator(".ris-intro:visible").evaluate("e => getComputedStyle(e).color")
    brightness = sum(int(part) for part in re.findall(r"\d+", intro)[:3]) / 3
    assert (brightness > 128) == (scheme == "dark")
