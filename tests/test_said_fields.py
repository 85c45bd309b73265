"""Filters by what people and models say: tags, captions, sources, favourites and fields of one's own."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_annotations import paint
from test_conditions import trees
from test_edits import FILE, MODEL, put
from test_store import write

from features.collection import edits
from features.collection.conditions import AllOf, AnyOf, Condition, Not
from features.collection.said import Words
from features.store import FeatureStore
from search.errors import QueryError
from search.filters import Filter
from search.grammar import parse


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    made = write(paint(folder / "images", a="A", b="B", c="C", d="D", e="E"), folder / "c")
    words = {
        0: Words({"a red boat": None}, {"sea": None}, {"year": 2010, "rating": 4, "place": "Kiel", "o'clock": "x"}),
        1: Words({}, {"sea": None, "beach": None}, {"year": 2012, "rating": 2.5}),
        2: Words({}, {}, {"year": 2016}),
    }
    put(made.annotations, made, FILE, words)
    put(made.annotations, made, MODEL, {3: Words({}, {"Sea": 0.9}), 4: Words()})
    edits.set_favourite(made.annotations, [1, 4], True)
    edits.set_field(made.annotations, [3], "taken", date(2011, 5, 6))
    return FeatureStore.open(made.folder)


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("tag:sea", [0, 1, 3]),
        ("tag:sea|beach -tag:beach", [0, 3]),
        ("tag:be*", [1]),
        ('tag:""', [2, 4]),
        ("tags:*", [0, 1, 3]),
        ("caption:*RED*", [0]),
        ("source:model", [3]),
        ("source:file", [0, 1, 2]),
        ("source:person", [3]),
        ("maker:captions.csv", [0, 1, 2]),
        ("favourite:yes", [1, 4]),
        ("favorite:no", [0, 2, 3]),
        ("year:2010..2015", [0, 1]),
        ("Year:>2011", [1, 2]),
        ("-year:2010", [1, 2, 3, 4]),
        ('year:""', [3, 4]),
        ("rating:>=4", [0]),
        ("rating:2.5", [1]),
        ("place:Kiel", [0]),
        ("place:*iE*", [0]),
        ("taken:2011-05", [3]),
        ("taken:<2011", []),
        ("tag:sea (rating:<3 OR favourite:no) year:2010..", [0, 1]),
        ("tag:sea name:b*", [1]),
        ("date:>1960 tag:beach", [1]),
    ],
)
def test_each_field_finds_the_right_pictures(store, typed, ids):
    query = parse(typed)
    query.check()
    assert query.filter.ids(store).tolist() == ids
    assert query.filter.count(store) == len(ids)
    assert Filter.of(query.filter.to_json()) == query.filter


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("ratnig:3", "cannot filter by ratnig; known: label, .*, rating, .*; the nearest is rating"),
        ("rating:good", "rating is a number; got 'good'"),
        ("taken:soon", "taken is a date as 2010"),
        ("favourite:maybe", "favourite is yes or no, got 'maybe'"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(store, typed, said):
    with pytest.raises(QueryError, match=said):
        parse(typed).filter.ids(store)


SAID = {
    0: {"tag": ["sea"], "caption": ["a red boat"], "source": ["file"], "rating": [4]},
    1: {"tag": ["sea", "beach"], "source": ["file"], "rating": [2.5]},
    2: {"source": ["file"]},
    3: {"tag": ["Sea"], "source": ["model", "person"]},
    4: {},
}
LEAVES = st.one_of(
    st.builds(Condition, st.just("tag"), st.just("eq"), st.sampled_from(["sea", "BEACH", "' OR '1"])),
    st.builds(Condition, st.sampled_from(["tag", "caption"]), st.just("contains"), st.sampled_from(["e", "RED", "%"])),
    st.builds(Condition, st.just("source"), st.just("any"), st.sampled_from([("file", "ocr"), ("model", "person")])),
    st.builds(Condition, st.just("rating"), st.sampled_from(["lt", "gte"]), st.sampled_from([2.5, 3, 4])),
    st.builds(Condition, st.just("size"), st.sampled_from(["lt", "gte"]), st.integers(0, 2)),
    st.builds(Condition, st.sampled_from(["tag", "rating", "caption", "source"]), st.just("empty")),
)


def holds(tree, id):
    """What the tree says, asked of one picture, all of which have one byte."""
    if isinstance(tree, AllOf):
        return all(holds(each, id) for each in tree.of)
    if isinstance(tree, AnyOf):
        return any(holds(each, id) for each in tree.of)
    if isinstance(tree, Not):
        return not holds(tree.of, id)
    values = [1] if tree.field == "size" else SAID[id].get(tree.field, [])
    compare = {
        "empty": lambda value: False,
        "eq": lambda value: value.lower() == tree.value.lower(),
        "contains": lambda value: tree.value.lower() in value.lower(),
        "any": lambda value: value in tree.value,
        "lt": lambda value: value < tree.value,
        "gte": lambda value: value >= tree.value,
    }[tree.comparison]
    return not values if tree.comparison == "empty" else any(map(compare, values))


@given(trees(LEAVES, 12))
def test_trees_find_what_a_loop_finds(store, tree):
    assert store.ids_matching(tree).tolist() == [id for id in SAID if holds(tree, id)]


def test_an_edit_is_found_at_once_and_in_every_open_store(store):
    beside = FeatureStore.open(store.folder)
    assert parse("tag:new").filter.ids(beside).tolist() == []
    edits.add_tag(store.annotations, [2], "new")
    assert parse("tag:new").filter.ids(beside).tolist() == [2]
    edits.undo(store.annotations)
    assert parse("tag:new").filter.ids(beside).tolist() == []


def test_without_annotations_nothing_is_said_and_no_file_is_made(tmp_path):
    store = write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")
    everything = [0, 1, 2, 3, 4]
    for typed, ids in [("tag:sea", []), ("-tag:sea", everything), ('tag:""', everything), ("favourite:no", everything)]:
        assert parse(typed).filter.ids(store).tolist() == ids
    assert not store.has_annotations
    with pytest.raises(QueryError, match=re.escape("favourite is yes or no")):
        parse("favourite:>3").filter.ids(store)
    with pytest.raises(QueryError, match="cannot filter by rating"):
        parse("rating:>3").filter.ids(store)
    edits.add_tag(store.annotations, [2], "sea")
    assert parse("tag:sea").filter.ids(store).tolist() == [2], "the same open store"


FAR = {0: date(9999, 12, 31), 1: date(1, 1, 1), 2: date(2300, 5, 6), 3: date(1500, 1, 1), 4: date(2011, 1, 1)}


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("until:>=9999-01", [0]),
        ("until:>2299", [0, 2]),
        ("until:2300-05-06", [2]),
        ("until:<1600", [1, 3]),
        ("until:0001-01-01", [1]),
        ("until:1500", [3]),
        ("until:2011", [4]),
    ],
)
def test_a_date_beyond_what_nanoseconds_hold_is_kept_and_found(tmp_path, typed, ids):
    """CASES, files, 10: a table names 9999-12-31 for what has no end."""
    made = write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")
    put(made.annotations, made, FILE, {id: Words({}, {}, {"until": day, "n": 10**300}) for id, day in FAR.items()})
    said = made.annotations.of(range(5))
    assert {id: str(said[id].fields[1].value)[:10] for id in FAR} == {id: str(day) for id, day in FAR.items()}
    assert said[0].fields[0].value == 1e300
    assert parse(typed).filter.ids(FeatureStore.open(made.folder)).tolist() == ids


def test_a_sentence_for_people():
    assert str(parse("tag:sea -tag:night").filter) == "pictures tagged sea and not tagged night"
