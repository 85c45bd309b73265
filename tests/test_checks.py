"""What the public entry points accept, and what they say when they refuse."""

import numpy as np
import pytest

from ivfpq.checks import as_ids, as_metric, as_vectors, positive_int


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.uint8, np.int64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_real_dtype_and_layout_becomes_float32_in_c_order(dtype, order):
    x = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    got = as_vectors(x, 4)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_array_equal(got, np.arange(12).reshape(3, 4))


def test_strided_and_reversed_views_are_read_right():
    x = np.arange(40, dtype=np.float32).reshape(5, 8)
    np.testing.assert_array_equal(as_vectors(x[::-2, ::2], 4), np.array(x[::-2, ::2]))


def test_what_fits_is_not_copied():
    x = np.zeros((3, 4), np.float32)
    assert as_vectors(x, 4) is x


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_in_float32_are_refused_with_their_row(bad):
    x = np.zeros((5, 3))
    x[2, 1] = x[4, 0] = bad
    with pytest.raises(ValueError, match=r"queries must be finite.* 2 of its 5 rows .*first is row 2"):
        as_vectors(x, 3, "queries")


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 2, 3), ()])
def test_wrong_shapes_are_refused_with_both_sides(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\), got"):
        as_vectors(np.zeros(shape), 3)


@pytest.mark.parametrize("x", [np.zeros((2, 3), complex), np.zeros((2, 3), bool), [["a"] * 3], [[None] * 3]])
def test_what_is_no_real_number_is_refused(x):
    with pytest.raises(TypeError, match="x must hold real numbers, got dtype"):
        as_vectors(x, 3)


def test_no_vectors_are_fine():
    assert as_vectors(np.zeros((0, 3)), 3).shape == (0, 3)


@pytest.mark.parametrize("ids", [[3, 1, 2], np.array([3, 1, 2], np.uint8), np.array([3, 1, 2], np.int32), (3, 1, 2)])
def test_ids_become_int64(ids):
    got = as_ids(ids, n=3)
    assert got.dtype == np.int64 and got.tolist() == [3, 1, 2]


def test_ids_may_be_none_at_all():
    assert as_ids([]).shape == (0,)
    assert as_ids([], n=0).shape == (0,)


@pytest.mark.parametrize(
    ("ids", "n", "error", "message"),
    [
        ([1.0, 2.0], 2, TypeError, "whole numbers"),
        ([True, False], 2, TypeError, "whole numbers"),
        ([[1, 2]], 2, ValueError, r"shape \(2,\), got \(1, 2\)"),
        ([1, 2], 3, ValueError, r"shape \(3,\), got \(2,\)"),
        ([0, -1], 2, ValueError, "from 0 to"),
        (np.array([2**63], np.uint64), 1, ValueError, "from 0 to"),
        ([5, 4, 5, 5], 4, ValueError, "distinct, but 5 comes 3 times"),
    ],
)
def test_bad_ids_are_refused(ids, n, error, message):
    with pytest.raises(error, match=message):
        as_ids(ids, n=n)


def test_repeats_are_fine_where_ids_only_choose():
    assert as_ids([5, 5, 4]).tolist() == [5, 5, 4]


def test_positive_int():
    assert positive_int(np.uint8(7), "k") == 7
    for bad in (True, 1.0, "1", None, np.array([1, 2])):
        with pytest.raises(TypeError, match="k must be a whole number"):
            positive_int(bad, "k")
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"k must be at least 1, got {bad}"):
            positive_int(bad, "k")
    with pytest.raises(ValueError, match="nbits must be from 1 to 16, got 17"):
        positive_int(17, "nbits", largest=16)


def test_metric_names():
    assert as_metric("cosine") == "cosine"
    with pytest.raises(ValueError, match="'l2', 'ip', 'cosine', got 'euclid'"):
        as_metric("euclid")
