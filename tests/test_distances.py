"""The defined distances, and that screening by matrix products never changes an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_sum

from ivfpq import distances
from ivfpq.distances import Rows, Shortlist, best_k, choose, normalised, ordered_sum, pair_distances, screen, within

F = np.float32


def slow_distance(x, y, metric):
    with np.errstate(over="ignore", invalid="ignore"):
        if metric == "l2":
            return slow_sum([F(F(a - b) * F(a - b)) for a, b in zip(x, y, strict=True)])
        return slow_sum([F(a * b) for a, b in zip(x, y, strict=True)])


@st.composite
def two_sets(draw, ny_min=1):
    """Two sets of vectors: from a coarse grid (ties) or not, of any size, and far from the origin (cancellation)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nx, ny, d = draw(st.integers(1, 6)), draw(st.integers(ny_min, 40)), draw(st.integers(1, 40))
    scale = 10.0 ** draw(st.sampled_from([-30, -20, -5, 0, 0, 0, 5, 15, 18]))
    offset = draw(st.sampled_from([0, 0, 1, 100, 1e4]))
    if draw(st.booleans()):
        x, y = rng.integers(-2, 3, (nx, d)), rng.integers(-2, 3, (ny, d))
    else:
        x, y = rng.normal(size=(nx, d)), rng.normal(size=(ny, d))
    return ((x + offset) * scale).astype(F), ((y + offset) * scale).astype(F)


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


@given(two_sets(), metrics, st.booleans())
@settings(max_examples=200)
def test_the_screen_keeps_its_word(sets, metric, centred):
    x, y = sets
    score, error = screen(x, Rows.of(y, y.mean(axis=0) if centred and metric == "l2" else None), metric)
    sign = 1 if metric == "l2" else -1
    for i in range(len(x)):
        defined = sign * pair_distances(x[i : i + 1].repeat(len(y), axis=0), y, metric).astype(np.float64)
        assert np.isinf(error[i]) or (np.abs(score[i] - defined) <= error[i]).all()


def test_the_screen_knows_that_it_knows_nothing_where_its_terms_overflow():
    x, y = np.array([[1.0000125e19, 9.9998680e18]], F), np.array([[1.0000640e19, 1.0000104e19], [0, 0]], F)
    assert np.isfinite(pair_distances(x, y[:1], "l2")).all()
    score, error = screen(x, Rows.of(y), "l2")
    assert not np.isfinite(score[0, 0]) and np.isinf(error[0])
    assert choose(x, Rows.of(y), 1, "l2").tolist() == [[0]]


def test_the_screen_is_tight_enough_to_be_of_use():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 2048)).astype(F), rng.normal(size=(500, 2048)).astype(F)
    score, error = screen(x, Rows.of(y), "l2")
    assert (error < 0.002 * score.min(axis=1)).all()


def slow_choice(x, y, k, metric):
    rows = []
    for row in x:
        d = pair_distances(row[None].repeat(len(y), axis=0), y, metric)
        rows.append(sorted(range(len(y)), key=lambda j: (d[j] if metric == "l2" else -d[j], j))[:k])
    return rows


@given(two_sets(), metrics, st.data(), st.booleans())
@settings(max_examples=200)
def test_choose_finds_the_defined_nearest(sets, metric, data, centred):
    x, y = sets
    k = data.draw(st.integers(1, len(y)))
    got = choose(x, Rows.of(y, y.mean(axis=0) if centred and metric == "l2" else None), k, metric)
    assert [sorted(row) for row in got.tolist()] == [sorted(row) for row in slow_choice(x, y, k, metric)]


def test_choose_does_not_depend_on_how_many_rows_are_asked_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, (300, 5)).astype(F), rng.integers(0, 3, (40, 5)).astype(F)
    whole = choose(x, Rows.of(y), 1, "l2")
    np.testing.assert_array_equal(
        np.concatenate([choose(x[i : i + 1], Rows.of(y), 1, "l2") for i in range(300)]), whole
    )
    monkeypatch.setattr(distances, "BLOCK", 70)
    monkeypatch.setattr(distances, "SMALL_BLOCK", 7)
    np.testing.assert_array_equal(choose(x, Rows.of(y), 1, "l2"), whole)


def test_choose_beyond_float32_is_still_the_definition():
    x, y = np.full((1, 4), 3e38, F), np.array([[3e38] * 4, [-3e38] * 4, [0] * 4], F)
    with np.errstate(over="ignore"):
        assert choose(x, Rows.of(y), 1, "l2").tolist() == [[0]]
        assert choose(x, Rows.of(y[1:]), 1, "l2").tolist() == [[0]]  # both infinitely far: the smaller number


@given(two_sets(ny_min=5), metrics, st.integers(1, 6), st.integers(1, 10))
@settings(max_examples=200)
def test_a_shortlist_of_any_blocks_holds_the_k_best(sets, metric, k, block):
    x, y = sets
    shortlist = Shortlist(len(x), k)
    for first in range(0, len(y), block):
        shortlist.offer(np.arange(len(x)), first, *screen(x, Rows.of(y[first : first + block]), metric))
    query, row = shortlist.finish()
    found = best_k(query, pair_distances(x[query], y[row], metric), row, len(x), k, metric)
    for i, want in enumerate(slow_choice(x, y, k, metric)):
        want += [-1] * (k - len(want))
        assert found.ids[i].tolist() == want


def test_a_shortlist_is_short():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 64)).astype(F), rng.normal(size=(1000, 64)).astype(F)
    shortlist = Shortlist(20, 10)
    for first in range(0, 1000, 100):
        shortlist.offer(np.arange(20), first, *screen(x, Rows.of(y[first : first + 100]), "l2"))
    assert 200 <= len(shortlist.finish()[0]) < 220


def test_best_k_orders_by_distance_then_id_and_pads():
    query = np.array([2, 0, 0, 0, 2])
    distance = np.array([1, 5, 3, 3, 0], F)
    ids = np.array([7, 1, 9, 4, 8])
    found = best_k(query, distance, ids, 3, 2, "l2")
    assert found.ids.tolist() == [[4, 9], [-1, -1], [8, 7]]
    assert found.distances.tolist() == [[3, 3], [np.inf, np.inf], [0, 1]]
    found = best_k(query, distance, ids, 3, 3, "ip")
    assert found.ids.tolist() == [[1, 4, 9], [-1, -1, -1], [7, 8, -1]]
    assert found.distances[2].tolist() == [1, 0, -np.inf]


def test_within_is_strict():
    query, distance, ids = np.array([1, 1, 1]), np.array([2, 1, 3], F), np.array([5, 6, 7])
    lims, d, i = within(query, distance, ids, 2, 2.0, "l2")
    assert (lims.tolist(), d.tolist(), i.tolist()) == ([0, 0, 1], [1], [6])
    lims, d, i = within(query, distance, ids, 2, 2.0, "ip")
    assert (lims.tolist(), d.tolist(), i.tolist()) == ([0, 0, 1], [3], [7])


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
