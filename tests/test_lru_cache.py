"""What is kept is never more than it may be, however many different things are asked for."""

import pytest
from test_annotations import paint
from test_edits import FILE, put
from test_store import write

from features.collection import lru_cache
from features.collection.conditions import Condition
from features.collection.lru_cache import ENTRY, LruCache
from features.collection.said import Words


@pytest.fixture
def store(tmp_path):
    made = write(paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E"), tmp_path / "c")
    put(made.annotations, made, FILE, {0: Words({"a boat": None}, {"sea": None})})
    return made


def test_what_was_asked_for_longest_ago_goes_first(monkeypatch):
    monkeypatch.setattr(lru_cache, "MAX_KEPT", 3 * (ENTRY + 10))
    some = LruCache[str, int]()
    for value, key in enumerate("abc"):
        some.keep(key, value, 10)
    assert some.get("a") == 0
    some.keep("d", 3, 10)
    assert [some.get(key) for key in "abcd"] == [0, None, 2, 3]
    some.keep("a", 9, 20)
    assert [some.get(key) for key in "acd"] == [9, None, 3], "what grows makes others go"
    some.keep("huge", 1, 10_000)
    assert some.get("huge") is None and len(some) == 2


def test_words_that_nobody_has_said_do_not_pile_up(store, monkeypatch):
    monkeypatch.setattr(lru_cache, "MAX_KEPT", 10 * ENTRY)
    for number in range(100):
        assert store.annotations.search(f"nobody{number}")[0].size == 0
    assert len(store.annotations._full_text._terms) < 10
    assert store.annotations.search("boat")[0].tolist() == [0]


def test_long_lists_of_values_count_as_what_they_take(store, monkeypatch):
    monkeypatch.setattr(lru_cache, "MAX_KEPT", 100_000)
    for number in range(10):
        values = tuple(f"{number} {other} {'x' * 100}" for other in range(150))
        assert store.ids_matching(Condition("tag", "any", ("sea", *values))).tolist() == [0]
    assert 0 < len(store.catalog._matcher._of_said) < 6
