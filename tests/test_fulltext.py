"""Words are ranked as FTS5 ranks them, whatever is said, asked and changed."""

import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_annotations import paint
from test_edits import FILE, put
from test_store import write

from features.collection import edits, fulltext
from features.collection.fulltext import expression
from features.collection.said import Words

RANKED = """
SELECT image_id, -rank FROM words JOIN pictures ON picture = words.rowid
WHERE words MATCH ? AND rank MATCH 'bm25(1.0, 2.0, 2.0, 0.5)' AND image_id NOT NULL
"""
WORDS = ["sea", "Sea", "séa", "boat", "boats", "red_boat", "o'clock", "4", "ß", "船", "a", "_", "²"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fulltext")
    return write(paint(folder / "images", **{name: name for name in ("a", "b", "c", "sea", "red_boat")}), folder / "c")


@pytest.fixture(scope="module")
def annotations(store):
    return store.annotations


def as_ranked_by_fts5(annotations, text, match):
    asked = expression(text, match)
    with sqlite3.connect(annotations.path) as connection:
        return dict(connection.execute(RANKED, (asked,))) if asked else {}


def check(annotations, text, match):
    ids, scores = annotations.search(text, match=match)
    wanted = as_ranked_by_fts5(annotations, text, match)
    assert sorted(ids.tolist()) == sorted(wanted)
    np.testing.assert_allclose(scores, [wanted[id] for id in ids.tolist()], rtol=1e-6)
    assert all(np.diff(scores) <= 0)
    assert annotations.search(text, match=match, limit=2)[0].tolist() == ids[:2].tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 4), st.tuples(TEXTS, st.lists(st.sampled_from(WORDS), max_size=3), TEXTS)),
    st.lists(st.tuples(TEXTS, st.sampled_from(["words", "phrase", "prefix"])), min_size=1, max_size=3),
)
def test_the_ranking_is_that_of_fts5(store, annotations, said, asked):
    words = {
        id: Words({caption: None}, dict.fromkeys(tags), {"said": text}) for id, (caption, tags, text) in said.items()
    }
    put(annotations, store, FILE, words)
    for text, match in asked:
        check(annotations, text, match)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    st.dictionaries(st.integers(0, 4), st.tuples(TEXTS, st.lists(st.sampled_from(WORDS), max_size=3)), min_size=1),
    st.lists(TEXTS, min_size=1, max_size=3),
)
def test_where_a_word_of_most_pictures_stands_is_not_read(store, annotations, said, asked):
    words = {id: Words({caption: None}, dict.fromkeys(tags)) for id, (caption, tags) in said.items()}
    put(annotations, store, FILE, words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fulltext, "MANY", 1)
        for text in asked:
            ids, scores = annotations.search(text)
            wanted = as_ranked_by_fts5(annotations, text, "words")
            assert sorted(ids.tolist()) == sorted(wanted)
            np.testing.assert_allclose(scores, [wanted[id] for id in ids.tolist()], atol=1e-5)
            assert (scores > 0).all()
    edits.add_tag(annotations, [0], "elsewhere")  # what is kept was read in this way


def test_a_word_of_most_pictures_counts_as_if_each_had_it_once_in_its_captions(tmp_path, monkeypatch):
    store = write(paint(tmp_path / "images", **{name: name for name in "vwxyz"}), tmp_path / "c")
    put(store.annotations, store, FILE, {0: Words({"ship tree": None}), 1: Words({"ship ship": None}), 2: Words({})})

    def ranks():
        annotations = type(store).open(store.folder).annotations
        return dict(zip(*(each.tolist() for each in annotations.word_scores("ship")), strict=True))

    assert ranks()[0] < ranks()[1]
    monkeypatch.setattr(fulltext, "MANY", 2)
    assert ranks()[0] == ranks()[1] > 0


def test_what_is_kept_follows_edits_of_other_processes(store):
    beside = type(store).open(store.folder).annotations
    store.annotations.forget(FILE)
    put(store.annotations, store, FILE, {0: Words({"a ship at sea": None}), 1: Words({"a ship": None})})
    assert beside.search("ship")[0].tolist()[:1] == [1], "the shorter text"
    edits.add_tag(store.annotations, [0], "ship")
    assert beside.search("ship")[0].tolist()[:1] == [0]
    edits.add_tag(store.annotations, [4], "ship")
    assert set(beside.search("ship")[0].tolist()) == {0, 1, 4}
    check(beside, "ship at sea", "words")
    edits.undo(store.annotations)
    edits.undo(store.annotations)
    assert beside.search("ship")[0].tolist()[:1] == [1]
    check(beside, "ship at sea", "words")
