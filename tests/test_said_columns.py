"""Columns of what is said, followed from edit to edit, are those that are read anew."""

import numpy as np
import pytest
from test_annotations import store  # noqa: F401

from features.collection import edits, said_columns
from features.collection.said import Maker, Words
from features.collection.said_columns import SaidColumns

COLUMNS = ("tags", "albums", "favourites")


def content(column):
    """Each value with the pictures that have it."""
    assert len(set(column.values)) == len(column.values)
    pairs = list(zip(column.codes.tolist(), column.ids.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs), "what several say of one counts once"
    found = {value: {id for code, id in pairs if code == place} for place, value in enumerate(column.values)}
    return {value: ids for value, ids in found.items() if ids}


def all_of(columns, kinds):
    found = {name: content(getattr(columns, name)()) for name in COLUMNS}
    return {**found, **{name: content(columns.field(name, kind)) for name, kind in kinds.items()}}


@pytest.fixture(params=["few", "one value at once", "one picture at once"])
def limits(request, monkeypatch):
    """Whole columns are read where more changed than this."""
    if request.param == "one value at once":
        monkeypatch.setattr(said_columns, "MOST_VALUES", 1)
    if request.param == "one picture at once":
        monkeypatch.setattr(said_columns, "MOST_PICTURES", 1)


@pytest.mark.parametrize("seed", range(3))
def test_after_any_edits_they_are_what_is_read_anew(store, limits, seed):  # noqa: F811
    said, rng = store.annotations, np.random.default_rng(seed)
    ids = store.ids.tolist()
    columns = SaidColumns(said)
    words = ["sea", "Sea", "SEA", "Äpfel", "äpfel", "sky", "1"]

    def some():
        return rng.choice(ids, rng.integers(1, 3), replace=False).tolist()

    for step in range(40):
        word = words[rng.integers(len(words))]
        kind = rng.integers(9)
        if kind == 0:
            edits.add_tag(said, some(), word)
        elif kind == 1:
            edits.remove_tag(said, some(), word)
        elif kind == 2:
            edits.put_in_album(said, some(), word)
        elif kind == 3:
            edits.take_out_of_album(said, some(), word)
        elif kind == 4:
            edits.set_favourite(said, some(), bool(rng.integers(2)))
        elif kind == 5:
            edits.set_field(said, some(), "mood", None if rng.integers(3) == 0 else word)
        elif kind == 6:
            edits.set_field(said, some(), "rating", int(rng.integers(4)))
        elif kind == 7:
            record = store.records(some()[:1])[0]
            said.put(Maker("file", "made"), f"{step}", [(record, Words({}, {word: 0.5}, {"mood": word}))])
        else:
            edits.undo(said)
        kinds = {"mood": "text", "rating": "number"}
        assert all_of(columns, kinds) == all_of(SaidColumns(said), kinds), step


def test_what_has_not_changed_is_not_read_again(store):  # noqa: F811
    said, columns = store.annotations, SaidColumns(store.annotations)
    edits.add_tag(said, [0, 1], "sea")
    edits.set_field(said, [0], "mood", "calm")
    before = columns.tags(), columns.field("mood", "text")
    assert (columns.tags(), columns.field("mood", "text")) == before
    edits.add_tag(said, [2], "sky")
    assert columns.field("mood", "text") is before[1]
    assert columns.tags() is not before[0]
    assert content(columns.tags()) == {"sea": {0, 1}, "sky": {2}}


def test_a_field_whose_kind_has_changed_is_read_as_a_whole(store):  # noqa: F811
    said, columns = store.annotations, SaidColumns(store.annotations)
    maker = Maker("file", "made")
    first, second = store.records()[:2]
    said.put(maker, "1", [(first, Words({}, {}, {"size": 3}))])
    assert content(columns.field("size", "number")) == {3: {first.id}}
    said.put(maker, "1", [(second, Words({}, {}, {"size": "large"}))])
    assert content(columns.field("size", "text")) == {"3": {first.id}, "large": {second.id}}
