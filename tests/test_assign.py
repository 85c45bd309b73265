"""`choose` finds the points that are nearest by the defined distance."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_choice, two_sets

from ivfpq import assign, distances
from ivfpq.assign import choose
from ivfpq.screening import Points

F = np.float32

metrics = st.sampled_from(["l2", "ip"])


@given(two_sets(), metrics, st.data(), st.booleans())
@settings(max_examples=200)
def test_choose_finds_the_defined_nearest(sets, metric, data, centred):
    x, y = sets
    k = data.draw(st.integers(1, len(y)))
    got = choose(x, Points.of(y, y.mean(axis=0) if centred and metric == "l2" else None), k, metric)
    assert [sorted(row) for row in got.tolist()] == [sorted(row) for row in slow_choice(x, y, k, metric)]


def test_choose_does_not_depend_on_how_many_rows_are_asked_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, (300, 5)).astype(F), rng.integers(0, 3, (40, 5)).astype(F)
    whole = choose(x, Points.of(y), 1, "l2")
    np.testing.assert_array_equal(
        np.concatenate([choose(x[i : i + 1], Points.of(y), 1, "l2") for i in range(300)]), whole
    )
    monkeypatch.setattr(assign, "BLOCK", 70)
    monkeypatch.setattr(distances, "SMALL_BLOCK", 7)
    np.testing.assert_array_equal(choose(x, Points.of(y), 1, "l2"), whole)


def test_choose_beyond_float32_is_still_the_definition():
    x, y = np.full((1, 4), 3e38, F), np.array([[3e38] * 4, [-3e38] * 4, [0] * 4], F)
    with np.errstate(over="ignore"):
        assert choose(x, Points.of(y), 1, "l2").tolist() == [[0]]
        assert choose(x, Points.of(y[1:]), 1, "l2").tolist() == [[0]]  # both infinitely far: the smaller number
