"""Screening by matrix products loses nothing, and little is left to compute as defined."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_choice, two_sets

from ivfpq.assign import choose
from ivfpq.distances import pair_distances
from ivfpq.results import best_k
from ivfpq.screening import CandidateFilter, Points, screen

F = np.float32

metrics = st.sampled_from(["l2", "ip"])


@given(two_sets(), metrics, st.booleans())
@settings(max_examples=200)
def test_the_screen_keeps_its_word(sets, metric, centred):
    x, y = sets
    score, error = screen(x, Points.of(y, y.mean(axis=0) if centred and metric == "l2" else None), metric)
    sign = 1 if metric == "l2" else -1
    for i in range(len(x)):
        defined = sign * pair_distances(x[i : i + 1].repeat(len(y), axis=0), y, metric).astype(np.float64)
        assert np.isinf(error[i]) or (np.abs(score[i] - defined) <= error[i]).all()


def test_the_screen_knows_that_it_knows_nothing_where_its_terms_overflow():
    x, y = np.array([[1.0000125e19, 9.9998680e18]], F), np.array([[1.0000640e19, 1.0000104e19], [0, 0]], F)
    assert np.isfinite(pair_distances(x, y[:1], "l2")).all()
    score, error = screen(x, Points.of(y), "l2")
    assert not np.isfinite(score[0, 0]) and np.isinf(error[0])
    assert choose(x, Points.of(y), 1, "l2").tolist() == [[0]]


def test_the_screen_is_tight_enough_to_be_of_use():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 2048)).astype(F), rng.normal(size=(500, 2048)).astype(F)
    score, error = screen(x, Points.of(y), "l2")
    assert (error < 0.002 * score.min(axis=1)).all()


@given(two_sets(ny_min=5), metrics, st.integers(1, 6), st.integers(1, 10))
@settings(max_examples=200)
def test_a_filter_of_any_blocks_holds_the_k_best(sets, metric, k, block):
    x, y = sets
    kept = CandidateFilter(len(x), k)
    for first in range(0, len(y), block):
        kept.offer(np.arange(len(x)), first, *screen(x, Points.of(y[first : first + block]), metric))
    query, row = kept.finish()
    found = best_k(query, pair_distances(x[query], y[row], metric), row, len(x), k, metric)
    for i, want in enumerate(slow_choice(x, y, k, metric)):
        want += [-1] * (k - len(want))
        assert found.ids[i].tolist() == want


def test_a_filter_lets_few_through():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 64)).astype(F), rng.normal(size=(1000, 64)).astype(F)
    kept = CandidateFilter(20, 10)
    for first in range(0, 1000, 100):
        kept.offer(np.arange(20), first, *screen(x, Points.of(y[first : first + 100]), "l2"))
    assert 200 <= len(kept.finish()[0]) < 220
