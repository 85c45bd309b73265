"""The beam search of residual quantizers, in compiled code: `rq` says what it looks for.

The tables are numpy's work; here choices are valued, by additions in the same order, and the best are kept. Of a
codebook's choices after one in the beam, those that are not above the worst kept so far are found 64 at a time.
"""

from __future__ import annotations

import numpy as np

from ivfpq.checks import Floats, Ids
from ivfpq.kernels.heaps import push_pair, sort_pairs
from ivfpq.kernels.intrinsics import add_vectors, not_above, trailing_zeros
from ivfpq.kernels.jit import jit_entry, jit_inner, sources
from ivfpq.kernels.memory import (
    allocate,
    copy_bytes,
    float32_at,
    float64_at,
    free,
    int64_at,
    put_float32,
    put_int64,
)

F32 = np.float32

BEAM = np.dtype(
    [(name, np.int64) for name in ("own", "cross", "codes", "n", "M", "ksub", "beam")]
    + [(name, np.int64) for name in ("values", "numbers", "kept", "before", "sums", "row")]
    + [(f"sources_{sources()}", np.int8)]
)
"""Addresses of float32 (n, M * ksub), float32 (M * (M - 1) / 2 * ksub, ksub), int64 (n, beam, M), and sizes. What is
worked with: a heap, float64 and int64 (beam,); the codes of the beam and those of the level before, int64 (beam, M);
float32 (beam,), their values; float32 (ksub + 63,), the values of the choices after one code."""


def beam_search(own: Floats, cross: Floats, M: int, beam: int) -> Ids:
    """The best codes found for each vector, best first: int64 (n, beam, M).

    Parameters
    ----------
    own : float32 array, shape (n, M * ksub)
        What choice j of codebook m adds for each vector, at m * ksub + j.
    cross : float32 array, shape (M * (M - 1) / 2 * ksub, ksub)
        What choice j of codebook m adds with choice i of codebook p, for p < m, at (m * (m - 1) / 2 + p) * ksub + i.
    M : int
    beam : int
        At most ksub**M.
    """
    codes, task = np.empty((len(own), beam, M), np.int64), np.zeros(1, BEAM)
    sizes = {"n": len(own), "M": M, "ksub": own.shape[1] // M, "beam": beam}
    addresses = {"own": own.ctypes.data, "cross": cross.ctypes.data, "codes": codes.ctypes.data}
    for name, value in {**sizes, **addresses}.items():
        task[name] = value
    _beam_search(task)
    return codes


# codes = _best_codes(own, tables, beam), in `rq`
@jit_entry
def _beam_search(task):
    """Fill the codes."""
    t = task[0]
    rows = t.beam * t.M * 8
    t.values = allocate(16 * t.beam + 2 * rows + 4 * (t.ksub + 64 + t.beam))
    t.numbers = t.values + 8 * t.beam
    t.kept = t.numbers + 8 * t.beam
    t.before = t.kept + rows
    t.sums = t.before + rows
    t.row = t.sums + 4 * t.beam
    for j in range(t.ksub, t.ksub + 63):
        put_float32(t.row, j, F32(np.inf))
    for i in range(t.n):
        held = np.int64(1)
        put_float32(t.sums, 0, F32(0.0))
        for m in range(t.M):
            held = _next_level(t, t.own + 4 * t.ksub * (t.M * i + m), m, held)
        copy_bytes(t.codes + rows * i, t.kept, rows)
    free(t.values)


# choice = sums[:, None] + own + sum of cross[p, kept[:, p]] over p < m
# number = np.argsort(choice.ravel(), kind="stable")[:beam]
# kept, sums = np.column_stack([kept[number // ksub], number % ksub]), choice.ravel()[number]
@jit_inner
def _next_level(t, own, m, held):
    """Choose from codebook m, whose own values are at `own`, for each of `held` in the beam; returns how many are."""
    M, ksub, row = t.M, t.ksub, t.row
    cross = t.cross + 4 * ksub * ksub * ((m * (m - 1)) >> 1)
    capacity = t.beam if t.beam < held * ksub else held * ksub
    size, limit = np.int64(0), F32(np.inf)
    for b in range(held):
        value = float32_at(t.sums, b)
        for j in range(ksub):
            put_float32(row, j, F32(value + float32_at(own, j)))
        for p in range(m):
            code = int64_at(t.kept, b * M + p)
            add_vectors(row, cross + 4 * ksub * (p * ksub + code), ksub, row)
        for first in range(0, ksub, 64):
            mask = not_above(row + 4 * first, limit)
            while mask != 0:
                lane = np.int64(trailing_zeros(mask))
                mask &= mask - np.uint64(1)
                if first + lane < ksub:
                    choice = float32_at(row, first + lane)
                    worth = np.float64(choice) if choice < F32(np.inf) else np.inf  # what is no number is no good
                    size = push_pair(t.values, t.numbers, capacity, size, worth, b * ksub + first + lane)
            if size == capacity:
                limit = F32(float64_at(t.values, 0))
    sort_pairs(t.values, t.numbers, size)
    copy_bytes(t.before, t.kept, 8 * held * M)
    for r in range(size):
        number = int64_at(t.numbers, r)
        b = number // ksub
        for p in range(m):
            put_int64(t.kept, r * M + p, int64_at(t.before, b * M + p))
        put_int64(t.kept, r * M + m, number - b * ksub)
        put_float32(t.sums, r, F32(float64_at(t.values, r)))
    return size
