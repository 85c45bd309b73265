"""One visitor's session: what is kept, and that handlers at the same time do not undo each other."""

from dataclasses import replace

import pytest
from PIL import Image

from gradio_app.session import RECENT, Asked, QueryPicture, Request, Result, Session


@pytest.fixture
def query(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 50)).save(path)
    return QueryPicture.open(path, "a.png")


def result(query) -> Result:
    return Result(None, Asked(query), Request("demo", "exact", 5, 5), [], False)


def test_an_answer_that_comes_late_is_not_taken(query):
    session = Session()
    slow = session.next_turn()
    quick = session.next_turn()
    newer = query.again()
    assert session.keep(result(newer), quick)
    assert not session.keep(result(query), slow)
    assert session.last.picture is newer
    assert tuple(asked.picture for asked in session.recent) == (newer,)


def test_a_crop_does_not_bring_back_a_picture_that_was_replaced(query):
    session = Session(query=query)
    cropped = session.crop(f"{query.token}:10,5,60,40")
    assert cropped.box == (10, 5, 60, 40)
    assert session.query is cropped
    other = query.again()
    session.query = other
    assert session.crop(f"{query.token}:10,5,60,40").box is None  # a box of another choice
    assert session.query.token == other.token
    session.query = None
    assert session.crop("") is None


def test_recent_queries_are_few_and_each_once(query):
    session = Session()
    boxes = [(0, 0, i + 1, 10) for i in range(RECENT + 3)]
    for box in [*boxes, boxes[-2]]:
        session.keep(result(replace(query, box=box)), session.next_turn())
    assert [kept.picture.box for kept in session.recent] == [boxes[-2], boxes[-1], *boxes[-3 : -RECENT - 1 : -1]]
    assert len(session.recent) == RECENT


def test_the_box_inside_is_a_box_of_any_picture(query):
    assert query.inside().box == (20, 10, 80, 40)
    assert replace(query, width=1, height=1).inside().box == (0, 0, 1, 1)
