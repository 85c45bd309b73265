"""Many sessions of the page at once: nobody gets what another asked for."""

import asyncio

import pytest

from gradio_app.app import build_app
from gradio_app.engine import SearchEngine
from gradio_app.load_test import Question, Report, ask, measure


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


@pytest.fixture(scope="module")
def url(engine):
    page = build_app([engine])
    yield page.launch(prevent_thread_lock=True, quiet=True)[1]
    page.close()


def test_fifty_visitors_get_their_own_answers(url, engine):
    report = asyncio.run(measure(url, [engine], sessions=50, searches=100, crops=0.1, alone=5))
    assert report.mixed_up == []
    assert len(report.together) == 100
    assert "answers mixed up    0" in str(report)


def test_a_wrong_answer_would_be_noticed(url, engine, monkeypatch):
    def swapped(engine, image_id, crop):
        right = ask(engine, image_id, crop)
        return Question(right.collection, right.image_id, right.box, right.answer[::-1])

    monkeypatch.setattr("gradio_app.load_test.ask", swapped)
    report = asyncio.run(measure(url, [engine], sessions=2, searches=4, crops=0, alone=1))
    assert len(report.mixed_up) >= 4
    assert "not (" in str(report)


def test_report_says_how_long_they_wait():
    text = str(Report(10, seconds=2, alone=[10, 10, 10], together=[40] * 99 + [100], memory=[500, 510]))
    assert "10 visitors, 100 searches in 2 s" in text
    assert "p95 is 4.0 times one visitor's median" in text
    assert "500 510" in text
