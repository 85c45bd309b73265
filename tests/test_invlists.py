"""Inverted lists against a dictionary, and what a reader sees while others write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import compact

NLIST, SIZE = 4, 3


def content(lists):
    """{id: (list, code)} of a view, with each list checked to be where it says."""
    found = {}
    for number in range(len(lists.sizes)):
        rows = lists.starts[number] + np.arange(lists.sizes[number])
        for id, code in zip(lists.list_ids(number).tolist(), lists.codes(rows).tolist(), strict=True):
            assert id not in found
            found[id] = (number, code)
    assert len(found) == lists.ntotal
    return found


def batch(rng, ids):
    n = len(ids)
    return rng.integers(NLIST, size=n), rng.integers(256, size=(n, SIZE)).astype(np.uint8), np.array(ids, np.int64)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove", "clear"]), st.lists(st.integers(0, 60), unique=True)),
    max_size=12,
)


@given(steps, st.sampled_from([0, 2**24 - 30, 2**32 - 30, 2**40]))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_changes_gives_what_a_dictionary_gives(steps, base):
    rng = np.random.default_rng(0)
    lists, model, seen = InvertedLists(NLIST, SIZE), {}, []
    for verb, ids in steps:
        ids = [base + id for id in ids]
        seen.append((lists.view, dict(model)))
        if verb == "add":
            numbers, codes, new = batch(rng, ids)
            if model.keys() & set(ids):
                with pytest.raises(ValueError, match="already in the index"):
                    lists.add(numbers, codes, new)
            else:
                lists.add(numbers, codes, new)
                model.update({i: (n, c) for i, n, c in zip(ids, numbers.tolist(), codes.tolist(), strict=True)})
        elif verb == "remove":
            assert lists.remove(np.array(ids, np.int64)) == len(model.keys() & set(ids))
            model = {i: entry for i, entry in model.items() if i not in ids}
        else:
            lists.clear()
            model = {}
        view = lists.view
        assert content(view) == content(compact(view)) == model
        asked = np.arange(base, base + 61)
        rows = lists.find(view, asked)
        assert [r >= 0 for r in rows] == [i in model for i in asked.tolist()]
        assert view.ids(rows[rows >= 0]).tolist() == asked[rows >= 0].tolist()
        some = asked[::3]
        assert content(lists.only(view, some)) == {i: e for i, e in model.items() if i in set(some.tolist())}
        assert view.list_numbers(view.rows()).tolist() == view.list_numbers().tolist()
        assert lists.next_id() == max(model, default=-1) + 1
    for view, then in seen:  # a reader who kept an old view still sees the old state
        assert content(view) == then


def test_entries_of_a_list_stay_in_the_order_they_came():
    lists = InvertedLists(2, 1)
    for id in (5, 3, 9, 1, 7):
        lists.add(np.array([id % 2]), np.array([[id]], np.uint8), np.array([id]))
    view = lists.view
    assert view.ids(view.rows()).tolist() == [5, 3, 9, 1, 7]


def test_adding_one_by_one_copies_little_and_leaves_little_room():
    lists, moves = InvertedLists(8, 4), 0
    for id in range(2000):
        before = lists.view.blocks
        lists.add(np.array([id % 8]), np.zeros((1, 4), np.uint8), np.array([id]))
        moves += lists.view.blocks is not before
    assert moves < 60
    assert len(lists.view.packed_ids) < 1.13 * 2000 + 8 * (4 + 64)


def test_one_large_add_leaves_no_block_to_spare():
    lists = InvertedLists(8, 4)
    lists.add(np.arange(1000) % 8, np.zeros((1000, 4), np.uint8), np.arange(1000))
    assert len(lists.view.packed_ids) == 8 * 128


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 8])
def test_ids_take_as_many_bytes_as_the_largest_needs(size):
    largest = min(2 ** (8 * size) - 2, 2**63 - 1)
    lists = InvertedLists(8, 4)
    lists.add(np.arange(1000) % 8, np.zeros((1000, 4), np.uint8), np.arange(1000))
    assert lists.view.packed_ids.shape[1] == 3
    lists.add(np.array([3]), np.ones((1, 4), np.uint8), np.array([largest]))
    view = lists.view
    assert view.packed_ids.shape[1] == size
    assert sorted(view.ids(view.rows()).tolist()) == [*range(1000), largest]
    if size < 8:
        lists.add(np.array([3]), np.ones((1, 4), np.uint8), np.array([largest + 1]))
        assert lists.view.packed_ids.shape[1] == size + 1
        assert lists.view.ids(lists.find(lists.view, np.array([largest + 1, 7]))).tolist() == [largest + 1, 7]
