"""A field with its values, or all that is said, goes at once, and comes back as it was."""

import numpy as np
import pytest
from test_annotations import paint
from test_store import write

from features.collection import duplicates, edits
from features.collection.errors import StoreError
from features.collection.learned_tags import LearnedTag, keep_learned
from features.collection.resets import drop_field, field_counts, reset_said, said_counts
from features.collection.said import Maker, Words
from features.collection.typed_fields import make_field

MODEL = Maker("model", "classes")


@pytest.fixture
def store(tmp_path):
    return write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")


@pytest.fixture
def said(store):
    return store.annotations


def everything(said):
    """All rows of all tables that hold what was said, and what a search for words finds."""
    tables = (*edits.SAID, *edits.LEARNED, *edits.VERDICTS, *edits.RUNS, *edits.FIELDS, "voices")
    rows = {table: sorted(said.rows(f"SELECT * FROM {table}"), key=repr) for table in tables}
    return rows, said.search("boat")[0].tolist(), said.of(range(5))


def test_a_field_goes_with_its_values_and_comes_back(said):
    make_field(said, "rating", "number")
    make_field(said, "place", "text")
    edits.set_field(said, [0, 1], "rating", 4)
    edits.set_field(said, [1], "place", "boat house")
    before = everything(said)
    assert field_counts(said) == {"place": 1, "rating": 2}
    number = drop_field(said, "Rating")
    assert edits.edits(said, 1)[0][::2] == (number, "field rating dropped (2 pictures)")
    assert (said.fields(), field_counts(said)) == ({"place": "text"}, {"place": 1})
    assert [field.name for each in said.of(range(5)).values() for field in each.fields] == ["place"]
    assert edits.undo(said, number) == "field rating dropped (2 pictures)"
    assert everything(said) == before
    drop_field(said, "place")
    assert said.search("boat")[0].tolist() == []
    edits.undo(said)
    assert everything(said) == before


def test_a_field_without_values_goes_and_one_that_is_not_there_is_named(said):
    make_field(said, "rating", "yes/no")
    drop_field(said, "rating")
    assert (said.fields(), edits.edits(said, 1)[0].what) == ({}, "field rating dropped")
    with pytest.raises(StoreError, match="there is no field rating"):
        drop_field(said, "rating")
    make_field(said, "rating", "date")
    with pytest.raises(StoreError, match="a field rating that holds something else has been made meanwhile"):
        edits.undo(said)
    assert said.fields() == {"rating": "date"}


def test_all_that_is_said_goes_and_comes_back(store, said):
    make_field(said, "rating", "number")
    said.put(MODEL, "1", [(record, Words({"a boat": 0.5}, {"sea": 0.8})) for record in store.records([0, 1, 2])])
    edits.remove_tag(said, [1], "sea")
    edits.set_field(said, [0], "rating", 4)
    edits.set_favourite(said, [2], True)
    edits.put_in_album(said, [0, 2], "Best")
    duplicates.call_different(said, [0, 1])
    duplicates.keep(said, 0, [4])
    keep_learned(said, LearnedTag("grass", np.ones(4, np.float32), 0.5, 3.0, "fake", (0,), (1,)))
    assert said_counts(said) == {
        "caption": 3,
        "tag": 2,
        "value of fields": 1,
        "favourite": 1,
        "picture in albums": 2,
        "learned tag": 1,
        "picture set aside": 1,
        "decision about duplicates": 1,
    }
    before = everything(said)
    number = reset_said(said)
    assert (said_counts(said), said.of(range(5)), said.search("boat")[0].tolist()) == ({}, {}, [])
    assert said.fields() == {"rating": "number"}, "the fields stay"
    assert [record.id for record in said.todo(MODEL, "1", store.records([0, 1, 2]))] == [0, 1, 2]
    assert reset_said(said) is None
    assert edits.undo(said, number) == "all that was said reset (4 pictures)"
    assert everything(said) == before
    assert said.todo(MODEL, "1", store.records([0, 1, 2])) == []
