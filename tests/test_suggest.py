"""What may be meant is suggested by its beginning, and what is suggested is read as what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_annotations import paint
from test_edits import FILE, put
from test_store import write

from features.collection import edits
from features.collection.conditions import Condition
from features.collection.learned_tags import LearnedTag, keep_learned
from features.collection.said import Words
from search.grammar import parse
from search.query import TagPart
from search.suggest import LIMIT, Suggester


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggest")
    pictures = {"sea/a": "A", "sea/b": "B", "c": "C", "d": "D", "e": "E"}
    made = write(paint(folder / "images", **pictures), folder / "c")
    tags = [["sea lion", "sea", "été"], ["sea lion", 'a "b"'], ["sea lion"], ["sea"], ["Seagull"]]
    put(
        made.annotations,
        made,
        FILE,
        {id: Words({}, dict.fromkeys(each), {"place": "Kiel", "rating": id}) for id, each in enumerate(tags)},
    )
    learn(made, "sunset", (0, 1, 2))
    learn(made, "sea at night", (3,))
    return made


def learn(store, tag, more):
    keep_learned(store.annotations, LearnedTag(tag, np.ones(4, np.float32), 0.5, 10.0, "encoder", more, (4,)))


@pytest.fixture(scope="module")
def suggester(store):
    return Suggester(store)


def texts(suggester, typed):
    return [each.text for each in suggester.suggest(typed)]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("se", ['tag:"sea lion" ', "tag:sea ", 'tag:~"sea at night" ', "tag:Seagull ", "label:sea "]),
        ("SEA L", ['tag:"sea lion" ', "SEA label:"]),
        ("red boat sea l", ['red boat tag:"sea lion" ', "red boat sea label:"]),
        ("-sea l", ['-tag:"sea lion" ', "-sea label:"]),
        ("(sea g", []),
        ("ete", ["tag:été "]),
        ("boat rat", ["boat rating:"]),
        ("tag:se", ['tag:"sea lion" ', "tag:sea ", "tag:Seagull "]),
        ("x -tag:cat|se", ['x -tag:cat|"sea lion" ', "x -tag:cat|sea ", "x -tag:cat|Seagull "]),
        ('tag:"sea l', ['tag:"sea lion" ']),
        ("tag:a", [r'tag:"a \"b\"" ']),
        ("tag:~s", ["tag:~sunset ", 'tag:~"sea at night" ']),
        ("folder:", ["folder:sea "]),
        ("source:", ["source:file "]),
        ("favourite:n", ["favourite:no "]),
        ("Place:k", ["Place:Kiel "]),
        ('tag:"sea lion" rat', ['tag:"sea lion" rating:']),
        ('"x y" rat', ['"x y" rating:']),
        ("tag:x sea l", ['tag:x tag:"sea lion" ', "tag:x sea label:"]),
        ("tag:sea l", ["tag:sea label:"]),
        ('"sea l', []),
        ("rating:", []),
        ("colour:r", []),
        ("", []),
        ("sea ", []),
        ("tag:sea^", []),
    ],
)
def test_beginnings_are_completed(suggester, typed, wanted):
    found = texts(suggester, typed)
    assert sorted(found) == sorted(wanted) if typed == "se" else found == wanted


def test_the_most_frequent_come_first_with_their_counts(suggester):
    first = suggester.suggest("se")[0]
    assert (first.shown, first.kind, first.count) == ("sea lion", "tag", 3)
    counts = [each.count or 0 for each in suggester.suggest("s")]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) <= LIMIT


def test_an_edit_is_suggested_at_once(store, suggester):
    edits.add_tag(store.annotations, [0], "zebra")
    assert texts(suggester, "zeb") == ["tag:zebra "]
    edits.undo(store.annotations)
    assert texts(suggester, "zeb") == []
    learn(store, "zebra", (0, 1))
    assert [(each.text, each.count) for each in suggester.suggest("zeb")] == [("tag:~zebra ", 2)]
    edits.undo(store.annotations)
    assert texts(suggester, "zeb") == []


def test_of_fields_that_there_are_not_nothing_is_kept(store):
    suggester = Suggester(store)
    for number in range(20):
        assert texts(suggester, f"nothing{number}:a") == []
    assert suggester._lists == {}
    assert texts(suggester, "place:k") == ["place:Kiel "]
    assert set(suggester._lists) == {"place"}


@pytest.mark.parametrize("tag", ["sea lion", "a|b", 'a "b"', "*", "~x", "x^2", "-a", "a:b", "(", "\\", ">3", "1..2"])
def test_what_is_suggested_is_read_as_what_it_says(store, tag):
    edits.add_tag(store.annotations, [0], tag)
    (text,) = texts(Suggester(store), f"tag:{tag[0]}" if tag[0] not in '~\\">-(*' else "tag:")[:1] or [None]
    found = [each for each in Suggester(store).suggest("tag:", 20) if each.shown == tag]
    edits.undo(store.annotations)
    assert parse(found[0].text).filter.where == Condition("tag", "eq", tag)
    assert text is None or text.endswith(" ")


def test_a_learned_tag_is_read_as_one(suggester):
    assert parse(texts(suggester, "tag:~sea")[0]).parts == (TagPart("sea at night", learned=True),)


@given(st.text(alphabet='se a:"\\|-()~^*\0\ud800ß', max_size=12))
def test_whatever_is_typed_is_kept(suggester, typed):
    for each in suggester.suggest(typed):
        assert parse(each.text) is not None
    assert suggester.suggest("x" * 100_000) == []
