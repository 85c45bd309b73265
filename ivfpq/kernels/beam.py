"""The beam search of residual quantizers, in compiled code: `rq` says what it looks for.

The tables are numpy's work; here choices are valued, by additions in the same order, and the best are kept. Of a
codebook's choices after one in the beam, those that are not above the worst kept so far are found 64 at a time.
"""

from __future__ import annotations

import numpy as np

from ivfpq.checks import Floats, Ids
from ivfpq.kernels.heaps import push_pair, sort_pairs
from ivfpq.kernels.vectors import (
    add_vectors,
    entry,
    float32_at,
    float64_at,
    free,
    inner,
    int64_at,
    memory,
    not_above,
    put_float32,
    put_int64,
    sources,
    trailing_zeros,
)

F32 = np.float32

TASK = np.dtype(
    [(name, np.int64) for name in ("own", "cross", "codes", "n", "M", "ksub", "beam")]
    + [(f"sources_{sources('beam', 'heaps', 'vectors')}", np.int8)]
)
"""Addresses of float32 (n, M * ksub), float32 (M * (M - 1) / 2 * ksub, ksub), int64 (n, beam, M), and sizes."""


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
    codes, task = np.empty((len(own), beam, M), np.int64), np.zeros(1, TASK)
    sizes = {"n": len(own), "M": M, "ksub": own.shape[1] // M, "beam": beam}
    addresses = {"own": own.ctypes.data, "cross": cross.ctypes.data, "codes": codes.ctypes.data}
    for name, value in {**sizes, **addresses}.items():
        task[name] = value
    _beam_search(task)
    return codes


@entry
def _beam_search(task):
    """Fill the codes."""
    t = task[0]
    rows = t.beam * t.M * 8
    values = memory(16 * t.beam + 2 * rows + 4 * (t.ksub + 64 + t.beam))  # float64 and int64 (beam,): a heap
    numbers = values + 8 * t.beam
    codes = numbers + 8 * t.beam  # int64 (beam, M), of the level before
    sums = codes + 2 * rows  # float32 (beam,), their values
    row = sums + 4 * t.beam  # float32 (ksub,), and up to 63 behind
    for j in range(t.ksub, t.ksub + 63):
        put_float32(row + 4 * j, F32(np.inf))
    for i in range(t.n):
        held = np.int64(1)
        put_float32(sums, F32(0.0))
        for m in range(t.M):
            held = _next_level(t, t.own + 4 * t.ksub * (t.M * i + m), m, held, values, numbers, codes, sums, row)
        for at in range(0, rows, 8):
            put_int64(t.codes + rows * i + at, int64_at(codes + at))
    free(values)


@inner
def _next_level(t, own, m, held, values, numbers, codes, sums, row):
    """Choose from codebook m, whose own values are at `own`, for each of the `held` in the beam; returns how many are.

    The others are as in `_beam_search`.
    """
    cross = t.cross + 4 * t.ksub * t.ksub * ((m * (m - 1)) >> 1)
    room = min(t.beam, held * t.ksub)
    size, limit = np.int64(0), F32(np.inf)
    for b in range(held):
        value = float32_at(sums + 4 * b)
        for j in range(t.ksub):
            put_float32(row + 4 * j, F32(value + float32_at(own + 4 * j)))
        for p in range(m):
            code = int64_at(codes + 8 * (b * t.M + p))
            add_vectors(row, cross + 4 * t.ksub * (p * t.ksub + code), t.ksub, row)
        for first in range(0, t.ksub, 64):
            mask = not_above(row + 4 * first, limit)
            while mask != 0:
                lane = np.int64(trailing_zeros(mask))
                mask &= mask - np.uint64(1)
                if first + lane < t.ksub:
                    choice = float32_at(row + 4 * (first + lane))
                    worth = np.float64(choice) if choice < F32(np.inf) else np.inf  # what is no number is no good
                    size = push_pair(values, numbers, room, size, worth, b * t.ksub + first + lane)
            if size == room:
                limit = F32(float64_at(values))
    sort_pairs(values, numbers, size)
    before = codes + 8 * t.beam * t.M
    for at in range(0, 8 * held * t.M, 8):
        put_int64(before + at, int64_at(codes + at))
    for r in range(size):
        number = int64_at(numbers + 8 * r)
        b, to = number // t.ksub, codes + 8 * r * t.M
        for p in range(m):
            put_int64(to + 8 * p, int64_at(before + 8 * (b * t.M + p)))
        put_int64(to + 8 * m, number - b * t.ksub)
        put_float32(sums + 4 * r, F32(float64_at(values + 8 * r)))
    return size
