"""Fields of a kind: made by people, filled with what they hold, and refused with a sentence otherwise."""

from datetime import UTC, date, datetime

import pytest
from test_store import images, store  # noqa: F401  (fixtures)

from features.collection import edits, exchange
from features.collection.errors import StoreError
from features.collection.said import Maker, Words
from features.collection.typed_fields import make_field
from search.facets import Facets
from search.filters import Filter
from search.grammar import parse

FILE = Maker("file", "captions.csv")


@pytest.fixture
def said(store):  # noqa: F811
    return store.annotations


def values(said, name):
    rows = said.of(range(5))
    return {id: field.value for id, each in rows.items() for field in each.fields if field.name == name}


@pytest.mark.parametrize(
    ("kind", "typed", "held"),
    [
        ("number", "4", 4),
        ("number", " 2.5 ", 2.5),
        ("number", 7, 7),
        ("date", "2010-05-17", datetime(2010, 5, 17, tzinfo=UTC)),
        ("date", "2010-05-17T12:30", datetime(2010, 5, 17, 12, 30, tzinfo=UTC)),
        ("date", date(2010, 5, 17), datetime(2010, 5, 17, tzinfo=UTC)),
        ("yes/no", "Yes", "yes"),
        ("yes/no", False, "no"),
        ("text", "4", "4"),
        ("text", 4, "4"),
    ],
)
def test_what_a_field_can_hold_is_read_as_its_kind(said, kind, typed, held):
    assert make_field(said, "My field", kind) == "my_field"
    edits.set_field(said, [0], "my field", typed)
    assert values(said, "my_field") == {0: held}
    assert said.fields() == {"my_field": kind}


@pytest.mark.parametrize(
    ("kind", "typed", "why"),
    [
        ("number", "good", "rating holds a number, as 4 or 2.5, and 'good' is none"),
        ("number", "nan", "a number"),
        ("number", date(2010, 1, 1), "'2010-01-01' is none"),
        ("number", True, "'yes' is none"),
        ("date", "soon", "rating holds a date, as 2010-05-17 or 2010-05-17T12:30, and 'soon' is none"),
        ("date", 4, "a date"),
        ("yes/no", "maybe", "rating holds yes or no, and 'maybe' is none"),
    ],
)
def test_another_kind_is_refused_with_a_sentence_and_nothing_changes(said, kind, typed, why):
    make_field(said, "rating", kind)
    with pytest.raises(StoreError, match=why.replace(".", r"\.")):
        edits.change(said, [0, 1], edits.Changes(add_tags=("sea",), fields={"rating": typed}))
    assert said.of(range(5)) == {} and said.fields() == {"rating": kind}
    assert edits.edits(said) == []


def test_a_maker_still_says_what_it_finds(said, store):  # noqa: F811
    make_field(said, "rating", "number")
    edits.set_field(said, [0], "rating", 4)
    said.put(FILE, "1", [(store.records([1])[0], Words(fields={"rating": "good"}))])
    assert said.fields() == {"rating": "text"} and values(said, "rating") == {0: "4", 1: "good"}


def test_fields_are_made_once(said):
    make_field(said, "rating", "number")
    make_field(said, "Rating", "number")
    with pytest.raises(StoreError, match="there is a field rating already, and it holds a number"):
        make_field(said, "rating", "date")
    with pytest.raises(StoreError, match="one of text, number, date, yes/no, got 'colour'"):
        make_field(said, "other", "colour")
    with pytest.raises(StoreError, match="at least one character"):
        make_field(said, "...", "text")
    assert said.fields() == {"rating": "number"}


def test_yes_and_no_are_found_counted_and_exported(said, store, tmp_path):  # noqa: F811
    make_field(said, "printed", "yes/no")
    edits.set_field(said, [0, 1], "printed", True)
    edits.set_field(said, [2], "printed", "no")
    assert parse("printed:yes").filter.ids(store).tolist() == [0, 1]
    (facet,) = [each for each in Facets(store).of(Filter(), ["printed"]) if each.field == "printed"]
    assert [(value.text, value.count) for value in facet.values] == [("yes", 2), ("no", 1), ("none", 1)]
    exchange.write_said(said, tmp_path / "said.jsonl")
    rows = exchange.read_said(tmp_path / "said.jsonl")
    assert {(row["path"], row["type"], row["value"]) for row in rows} == {
        ("cats/1.jpg", "yes/no", "yes"),
        ("cats/2.jpg", "yes/no", "yes"),
        ("dogs/1.jpg", "yes/no", "no"),
    }
    edits.set_field(said, [0, 1, 2], "printed", None)
    exchange.take_in(said, store.records(), rows)
    assert values(said, "printed") == {0: "yes", 1: "yes", 2: "no"} and said.fields() == {"printed": "yes/no"}
