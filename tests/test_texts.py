"""Texts that are looked through in one piece hold what sqlite's LIKE finds in them."""

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.collection import texts
from features.collection.fields import like
from features.collection.texts import Texts

LETTERS = st.text(st.sampled_from("aAbBäÄ%_\\ '\"船"), max_size=6)


def table(rows):
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE said (picture INTEGER, text TEXT)")
    connection.executemany("INSERT INTO said VALUES (?, ?)", rows)
    return connection


@given(st.lists(st.tuples(st.integers(0, 5), LETTERS), min_size=1), LETTERS)
@example([(3, ""), (1, "Boat")], "boat")
@example([(3, "ab"), (1, "ab")], "bab")
@example([(3, "ab")], "\x1e")
@example([(3, "\ud83d".encode("utf-8", "replace").decode())], "\ud83d")
def test_it_is_what_like_finds(rows, wanted):
    connection = table(rows)
    held = Texts.read(connection, "said", "text", "picture")
    if held is None:
        assert not rows[-1][1]  # only what ends with an empty text is left to sqlite
        return
    found = held.keys_containing(wanted)
    try:
        pattern = like("contains", wanted)
        asked = connection.execute(r"SELECT picture FROM said WHERE text LIKE ? ESCAPE '\'", (pattern,)).fetchall()
    except UnicodeEncodeError:
        asked = []
    assert sorted(found.tolist()) == sorted(key for (key,) in asked)


@pytest.mark.parametrize("rows", [[], [(1, "a\x1eb")], [(1, None)], [(1, "a"), (2, None)], [(1, "a" * 30)]])
def test_what_cannot_be_told_apart_is_left_to_sqlite(rows, monkeypatch):
    monkeypatch.setattr(texts, "MOST_BYTES", 20)
    assert Texts.read(table(rows), "said", "text", "picture") is None
