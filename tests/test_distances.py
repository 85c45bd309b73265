"""The defined distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import slow_sum, two_sets

from ivfpq.distances import normalised, ordered_sum, pair_distances

F = np.float32


def slow_distance(x, y, metric):
    with np.errstate(over="ignore", invalid="ignore"):
        if metric == "l2":
            return slow_sum([F(F(a - b) * F(a - b)) for a, b in zip(x, y, strict=True)])
        return slow_sum([F(a * b) for a, b in zip(x, y, strict=True)])


metrics = st.sampled_from(["l2", "ip"])


@pytest.mark.parametrize("t", [0, 1, 2, 15, 16, 17, 31, 32, 100, 256, 2048])
@pytest.mark.parametrize("rows", [1, 3])
def test_ordered_sum_is_the_loop_of_its_docstring(t, rows):
    terms = np.random.default_rng(t).normal(size=(rows, t)).astype(F) * F(1e3) ** np.arange(-1, 2, dtype=F)[:rows, None]
    assert ordered_sum(terms).tolist() == [slow_sum(row) for row in terms]


def test_ordered_sum_takes_any_leading_axes_and_layout():
    terms = np.random.default_rng(0).normal(size=(4, 3, 33)).astype(F)
    want = ordered_sum(terms)
    assert want.shape == (4, 3)
    np.testing.assert_array_equal(ordered_sum(np.asfortranarray(terms)), want)
    np.testing.assert_array_equal(ordered_sum(terms.reshape(12, 33)).reshape(4, 3), want)


@given(two_sets(), metrics)
def test_pair_distances_are_the_defined_ones(sets, metric):
    x, y = sets
    got = pair_distances(x, y[:1].repeat(len(x), axis=0), metric)
    assert got.dtype == F
    assert got.tolist() == [slow_distance(row, y[0], metric) for row in x]


def test_normalised_rows_have_length_one_at_any_size():
    x = np.array([[3e38, 3e38], [1e-44, 0], [3, 4], [0, 0]], F)
    got = normalised(x)
    np.testing.assert_allclose(got, [[0.5**0.5] * 2, [1, 0], [0.6, 0.8], [0, 0]], rtol=1e-7)
    assert got.dtype == F
    np.testing.assert_array_equal(np.concatenate([normalised(row[None]) for row in x]), got)


@pytest.mark.parametrize("t", [65, 80, 300, 2048])
def test_few_rows_and_many_are_summed_in_the_same_order(t):
    rng = np.random.default_rng(t)
    terms = (rng.normal(size=(200, t)) * 10.0 ** rng.integers(-6, 6, (200, t))).astype(np.float32)
    terms[:3] = -0.0
    many = ordered_sum(terms)
    for n in (1, 2, 10, 63):
        assert ordered_sum(terms[:n]).tobytes() == many[:n].tobytes()
    for i in (0, 7):
        lanes = [np.float32(0)] * 16
        for j, term in enumerate(terms[i]):
            lanes[j % 16] += term
        for half in (8, 4, 2, 1):
            lanes = [lanes[j] + lanes[j + half] for j in range(half)]
        assert lanes[0].tobytes() == many[i].tobytes()
