"""The compiled beam search values choices as numpy does, to the bit, and keeps the best of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ivfpq.kernels.beam import beam_search
from ivfpq.rq import _best_codes, _Tables

F = np.float32


def values(own, cross, codes):
    """What each of codes (n, b, M) is worth: float32 (n, b), added up in the order of the search."""
    M = codes.shape[2]
    ksub = own.shape[1] // M
    total = np.zeros(codes.shape[:2], F)
    for m in range(M):
        total = total + np.take_along_axis(own, m * ksub + codes[:, :, m], axis=1)
        for p in range(m):
            total = total + cross[(m * (m - 1) // 2 + p) * ksub + codes[:, :, p], codes[:, :, m]]
    return total


@given(data=st.data(), grid=st.booleans())
@settings(max_examples=80, deadline=None)
def test_numpy_and_compiled_code_find_choices_of_the_same_worth(data, grid):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, M = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    beam = data.draw(st.sampled_from([1, 2, 5, 16, 40]))
    ksub = data.draw(st.sampled_from([2, 4, 16, 64, 128]))
    d = data.draw(st.sampled_from([1, 5, 16]))
    books, x = rng.normal(size=(M, ksub, d)), rng.normal(size=(n, d))
    if grid:  # many are equally good
        books, x = books.round(), x.round()
    tables = _Tables(books.astype(F))
    own = (tables.norms - 2 * (x @ tables.words)).astype(F)
    width = min(beam, ksub**M)
    found, expected = beam_search(own, tables.cross, M, width), _best_codes(own, tables, beam)
    assert found.shape == expected.shape == (n, width, M) and found.dtype == np.int64
    worth = values(own, tables.cross, found)
    assert (worth[:, 1:] >= worth[:, :-1]).all()
    assert all(len({tuple(code) for code in one}) == width for one in found.tolist())
    np.testing.assert_array_equal(found, expected)


def test_of_equally_good_choices_the_first_is_kept_in_both():
    """Two codebooks of the numbers 0, 1, 1, 2 and the vector 1: most of the sums of a choice each are equal."""
    own = np.array([[0, -1, -1, 0, 0, -1, -1, 0]], F)  # |w|^2 - 2 w
    cross = np.array([[0, 0, 0, 0], [0, 2, 2, 4], [0, 2, 2, 4], [0, 4, 4, 8]], F)
    tables = _Tables(np.array([[[0], [1], [1], [2]]] * 2, F))
    np.testing.assert_array_equal(tables.cross, cross)
    best = [[1, 0], [2, 0], [0, 1], [0, 2]]  # worth -1 each, then worth 0:
    even = [[1, 1], [1, 2], [2, 1], [2, 2], [0, 0], [0, 3], [3, 0]]
    for beam, wanted in ((16, best + even), (6, best + even[:2]), (4, best), (2, best[:2]), (1, best[:1])):
        for found in (beam_search(own, cross, 2, beam), _best_codes(own, tables, beam)):
            assert found[0, : len(wanted)].tolist() == wanted, beam


def test_a_beam_as_wide_as_all_choices_finds_the_best_of_all():
    rng = np.random.default_rng(0)
    tables = _Tables(rng.normal(size=(3, 4, 6)).astype(F))
    own = (tables.norms - 2 * (rng.normal(size=(20, 6)) @ tables.words)).astype(F)
    every = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(1, -1, 3).repeat(20, axis=0)
    found = beam_search(own, tables.cross, 3, 64)
    np.testing.assert_array_equal(values(own, tables.cross, found), np.sort(values(own, tables.cross, every), axis=1))


def test_numbers_beyond_float32_leave_codes_whole():
    own = np.full((2, 8), np.nan, F)
    own[1] = [np.inf, 1, -np.inf, np.nan, 0, np.inf, -np.inf, np.nan]
    codes = beam_search(own, np.full((4, 4), np.inf, F), 2, 5)
    tables = _Tables(np.zeros((2, 4, 1), F))
    tables.cross[:] = np.inf
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(codes, _best_codes(own, tables, 5))
    assert codes.shape == (2, 5, 2) and codes.min() >= 0 and codes.max() < 4
    assert all(len({tuple(code) for code in one}) == 5 for one in codes.tolist())
