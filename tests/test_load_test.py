"""Many sessions of the page at once: nobody gets what another asked for."""

import gc
from collections import Counter
from pathlib import Path

import pytest
from gradio.blocks import Block

from gradio_app.app import build_app
from gradio_app.load_test import Question, Report, ask, measure
from gradio_app.session import QueryPicture
from search.engine import SearchEngine


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


@pytest.fixture(scope="module")
def page(engine):
    page = build_app([engine])
    page.launch(prevent_thread_lock=True, quiet=True)
    yield page
    page.close()


@pytest.fixture(scope="module")
def url(page):
    return page.local_url


def test_fifty_visitors_get_their_own_answers(url, engine):
    report = measure(url, [engine], sessions=50, searches=100, crops=0.1, alone=5)
    assert report.mixed_up == []
    assert len(report.together) == 100
    assert "answers mixed up    0" in str(report)


def test_searches_leave_nothing_behind(page, url, engine):
    """Whoever goes the same way a second time leaves no session, component, query or file more than the first time."""

    def left() -> list[int]:
        measure(url, [engine], sessions=4, searches=40, crops=0.1, alone=1)
        gc.collect()
        kept = Counter(type(thing) for thing in gc.get_objects() if issubclass(type(thing), Block | QueryPicture))
        files = [path for path in Path(page.GRADIO_CACHE).rglob("*") if path.is_file()]
        return [len(page.state_holder.session_data), len(files), *(kept[kind] for kind in sorted(kept, key=repr))]

    assert left() == left()


def test_a_wrong_answer_would_be_noticed(url, engine, monkeypatch):
    def swapped(engine, image_id, crop):
        right = ask(engine, image_id, crop)
        return Question(right.collection, right.image_id, right.box, right.answer[::-1])

    monkeypatch.setattr("gradio_app.load_test.ask", swapped)
    report = measure(url, [engine], sessions=2, searches=4, crops=0, alone=1)
    assert len(report.mixed_up) >= 4
    assert "not (" in str(report)


def test_report_says_how_long_they_wait():
    report = Report(10, seconds=2, alone=[10, 10, 10], together=[40] * 99 + [100], memory=[500, 510])
    report.alone_switches, report.switches = [20], [60, 60]
    text = str(report)
    assert "10 visitors" in text
    assert "100 searches in 2 s: 50.0 a second" in text
    assert "all: median 40.0 ms, p95 40.0 ms, 4.0 times the one's median" in text
    assert "another collection  one visitor alone: median 20.0 ms" in text
    assert "500 510" in text
