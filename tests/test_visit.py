"""One visitor's session: what is kept, and that handlers at the same time do not undo each other."""

from dataclasses import replace

import pytest
from PIL import Image

from gradio_app.visit import RECENT, Answer, Ask, Query, Visit


@pytest.fixture
def query(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 50)).save(path)
    return Query.open(path, "a.png")


def answer(query) -> Answer:
    return Answer(None, query, Ask("demo", "exact", 5, 5), [], False)


def test_an_answer_that_comes_late_is_not_taken(query):
    visit = Visit()
    slow = visit.next_turn()
    quick = visit.next_turn()
    newer = query.again()
    assert visit.keep(answer(newer), quick)
    assert not visit.keep(answer(query), slow)
    assert visit.last is newer
    assert visit.recent == (newer,)


def test_a_crop_does_not_bring_back_a_picture_that_was_replaced(query):
    visit = Visit(query=query)
    cropped = visit.crop(f"{query.token}:10,5,60,40")
    assert cropped.box == (10, 5, 60, 40)
    assert visit.query is cropped
    other = query.again()
    visit.query = other
    assert visit.crop(f"{query.token}:10,5,60,40").box is None  # a box of another choice
    assert visit.query.token == other.token
    visit.query = None
    assert visit.crop("") is None


def test_recent_queries_are_few_and_each_once(query):
    visit = Visit()
    boxes = [(0, 0, i + 1, 10) for i in range(RECENT + 3)]
    for box in [*boxes, boxes[-2]]:
        visit.keep(answer(replace(query, box=box)), visit.next_turn())
    assert [kept.box for kept in visit.recent] == [boxes[-2], boxes[-1], *boxes[-3 : -RECENT - 1 : -1]]
    assert len(visit.recent) == RECENT


def test_the_box_inside_is_a_box_of_any_picture(query):
    assert query.inside().box == (20, 10, 80, 40)
    assert replace(query, width=1, height=1).inside().box == (0, 0, 1, 1)
