"""The compiled search for the nearest centroid or codeword gives what `assign` defines, to the last tie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivfpq import assign, kernels
from ivfpq.assign import nearest
from ivfpq.kernels import nearest as compiled
from ivfpq.screening import Points

F = np.float32


def by_reference(x, parts, metric):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "active", lambda: "reference")
        return nearest(x, parts, metric)


@given(data=st.data(), metric=st.sampled_from(["l2", "ip"]), grid=st.booleans())
@settings(max_examples=150, deadline=None)
def test_compiled_and_reference_agree(data, metric, grid):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, M, ny = draw(st.integers(0, 40)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 15, 64, 65, 200]))
    d = draw(st.sampled_from([1, 2, 8, 15, 33, 130]))
    scale = 10.0 ** draw(st.sampled_from([-30, -20, -5, 0, 0, 0, 5, 15, 18, 19]))
    offset = draw(st.sampled_from([0, 0, 1, 100, 1e4]))
    if grid:
        x, y = rng.integers(-2, 3, (n, M * d)), rng.integers(-2, 3, (M, ny, d))
    else:
        x, y = rng.normal(size=(n, M * d)), rng.normal(size=(M, ny, d))
    x, y = ((x + offset) * scale).astype(F), ((y + offset) * scale).astype(F)
    centre = y.mean(axis=(0, 1)) if metric == "l2" and draw(st.booleans()) else None
    with np.errstate(all="ignore"):
        parts = [Points.of(one, centre) for one in y]
        got = nearest(x, parts, metric)
        assert got.dtype == np.int64 and got.shape == (n, M)
        np.testing.assert_array_equal(got, by_reference(x, parts, metric))


def test_neither_threads_nor_chunks_nor_layout_change_an_answer(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, (3000, 40)).astype(F), rng.integers(0, 3, (4, 70, 10)).astype(F)
    parts = [Points.of(one) for one in y]
    whole = nearest(x, parts, "l2")
    np.testing.assert_array_equal(whole, by_reference(x, parts, "l2"))
    wide = np.zeros((3000, 47), F)
    wide[:, :40] = x
    np.testing.assert_array_equal(nearest(wide[:, :40], parts, "l2"), whole)
    np.testing.assert_array_equal(nearest(np.asfortranarray(x), parts, "l2"), whole)
    monkeypatch.setattr(assign, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(compiled, "CHUNK", 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    np.testing.assert_array_equal(nearest(x, parts, "l2"), whole)


def test_few_rows_of_clustered_vectors_are_doubtful():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(100, 256)).astype(F)
    x = y[rng.integers(0, 100, 5000)] + rng.normal(size=(5000, 256)).astype(F) / 2
    numbers, settled = compiled.Nearest([Points.of(y, y.mean(axis=0))], "l2")(x)
    assert numbers.shape == (5000, 1) and settled < 50


def test_infinity_is_nearer_than_no_number():
    x, y = np.array([[2e19, 2e19]], F), np.array([[2e19, -2e19], [-2e19, -2e19]], F)  # inf - inf, and -2 inf
    with np.errstate(all="ignore"):
        assert nearest(x, [Points.of(y)], "ip").tolist() == by_reference(x, [Points.of(y)], "ip").tolist() == [[1]]


def test_rough_answers_are_the_nearest_but_for_roundings():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(500, 21)).astype(F), rng.normal(size=(3, 90, 7)).astype(F)
    numbers, costs = compiled.Nearest([Points.of(one) for one in y], "l2").roughly(x)
    apart = np.square(x.reshape(500, 3, 1, 7) - y.astype(np.float64)).sum(axis=-1)
    np.testing.assert_allclose(np.take_along_axis(apart, numbers[:, :, None], 2)[:, :, 0], apart.min(axis=2), rtol=1e-5)
    np.testing.assert_allclose(costs, apart.min(axis=2), rtol=1e-4, atol=1e-5)
    numbers, costs = compiled.Nearest([Points.of(one) for one in y], "ip").roughly(x)
    products = np.einsum("nmd,mkd->nmk", x.reshape(500, 3, 7), y.astype(np.float64))
    np.testing.assert_allclose(-costs, products.max(axis=2), rtol=1e-4, atol=1e-5)


def test_where_numbers_leave_float32_every_row_is_doubtful(monkeypatch):
    x, y = np.full((3, 4), 3e38, F), np.array([[3e38] * 4, [-3e38] * 4, [0] * 4], F)
    with np.errstate(all="ignore"):
        assert compiled.Nearest([Points.of(y)], "l2")(x)[1] == 3
        assert nearest(x, [Points.of(y)], "l2").tolist() == [[0]] * 3
    monkeypatch.setattr(kernels, "active", lambda: "reference")
    monkeypatch.setattr(kernels, "compiled_module", {}.__getitem__)
    with np.errstate(all="ignore"):
        assert nearest(x, [Points.of(y)], "l2").tolist() == [[0]] * 3  # and no compiled module was asked for
