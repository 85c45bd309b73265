"""The scan for any processor: float32 tables, eight codes at a time.

A lower bound needs no second table here: the float32 sum itself, less its error, is one.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.memory import eight_bytes_at, float32_at, word_at

F32 = np.float32


# sums = T[np.arange(M), codes].sum(axis=1) + step * u                          (two rows of terms: u + v / 256)
# near = ~(sums > limit).reshape(8, 8).all(axis=1)
# mask = np.packbits(near.repeat(8), bitorder="little").view(np.uint64)[0]
@jit_inner
def near_bytes(table, M, wide, terms, step, block, limit):
    """Which of the 64 one-byte codes of a block may have a sum of table entries not above a limit.

    Eight codes are one word of memory, and their eight sums, which do not wait for each other, keep the processor
    busy.

    Parameters
    ----------
    table : int
        Address of float32 (M, wide).
    M, wide : int
    terms : int
        Rows of terms.
    step : float32
        What the first of them counts in.
    block : int
        Address of uint8 (M + terms, 64).
    limit : float32

    Returns
    -------
    uint64
        All eight bits of a word of codes are set where one of them is near.
    """
    byte = np.uint64(255)
    mask = np.uint64(0)
    for i in range(8):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F32(0.0)
        for m in range(M):
            t = table + 4 * m * wide
            w = eight_bytes_at(block + 64 * m + 8 * i)
            s0 += float32_at(t, np.int64(w & byte))
            s1 += float32_at(t, np.int64((w >> np.uint64(8)) & byte))
            s2 += float32_at(t, np.int64((w >> np.uint64(16)) & byte))
            s3 += float32_at(t, np.int64((w >> np.uint64(24)) & byte))
            s4 += float32_at(t, np.int64((w >> np.uint64(32)) & byte))
            s5 += float32_at(t, np.int64((w >> np.uint64(40)) & byte))
            s6 += float32_at(t, np.int64((w >> np.uint64(48)) & byte))
            s7 += float32_at(t, np.int64(w >> np.uint64(56)))
        for row in range(terms):
            at, count = block + 64 * (M + row) + 8 * i, step if row == 0 else step * F32(1.0 / 256.0)
            w = eight_bytes_at(at)
            s0 += count * F32(np.int64(w & byte))
            s1 += count * F32(np.int64((w >> np.uint64(8)) & byte))
            s2 += count * F32(np.int64((w >> np.uint64(16)) & byte))
            s3 += count * F32(np.int64((w >> np.uint64(24)) & byte))
            s4 += count * F32(np.int64((w >> np.uint64(32)) & byte))
            s5 += count * F32(np.int64((w >> np.uint64(40)) & byte))
            s6 += count * F32(np.int64((w >> np.uint64(48)) & byte))
            s7 += count * F32(np.int64(w >> np.uint64(56)))
        far = s0 > limit and s1 > limit and s2 > limit and s3 > limit and s4 > limit and s5 > limit
        if not (far and s6 > limit and s7 > limit):
            mask |= byte << np.uint64(8 * i)
    return mask


# near = ~(sums > limit).reshape(8, 8).all(axis=1)
# mask = np.packbits(near.repeat(8), bitorder="little").view(np.uint64)[0]
@jit_inner
def near_pairs(table, M, wide, terms, step, block, limit):
    """The same for numbers of 4 bits, two a byte: `block` is the address of uint8 ((M + 1) / 2 + terms, 64)."""
    four, byte = np.uint64(15), np.uint64(255)
    mask = np.uint64(0)
    for i in range(8):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F32(0.0)
        for m in range(M):
            t = table + 4 * m * wide
            w = eight_bytes_at(block + 64 * (m >> 1) + 8 * i) >> np.uint64(4 * (m & 1))
            s0 += float32_at(t, np.int64(w & four))
            s1 += float32_at(t, np.int64((w >> np.uint64(8)) & four))
            s2 += float32_at(t, np.int64((w >> np.uint64(16)) & four))
            s3 += float32_at(t, np.int64((w >> np.uint64(24)) & four))
            s4 += float32_at(t, np.int64((w >> np.uint64(32)) & four))
            s5 += float32_at(t, np.int64((w >> np.uint64(40)) & four))
            s6 += float32_at(t, np.int64((w >> np.uint64(48)) & four))
            s7 += float32_at(t, np.int64((w >> np.uint64(56)) & four))
        for row in range(terms):
            w, count = (
                eight_bytes_at(block + 64 * ((M + 1) >> 1) + 64 * row + 8 * i),
                step if row == 0 else step * F32(1.0 / 256.0),
            )
            s0 += count * F32(np.int64(w & byte))
            s1 += count * F32(np.int64((w >> np.uint64(8)) & byte))
            s2 += count * F32(np.int64((w >> np.uint64(16)) & byte))
            s3 += count * F32(np.int64((w >> np.uint64(24)) & byte))
            s4 += count * F32(np.int64((w >> np.uint64(32)) & byte))
            s5 += count * F32(np.int64((w >> np.uint64(40)) & byte))
            s6 += count * F32(np.int64((w >> np.uint64(48)) & byte))
            s7 += count * F32(np.int64(w >> np.uint64(56)))
        far = s0 > limit and s1 > limit and s2 > limit and s3 > limit and s4 > limit and s5 > limit
        if not (far and s6 > limit and s7 > limit):
            mask |= byte << np.uint64(8 * i)
    return mask


# near = ~(sums > limit).reshape(16, 4).all(axis=1)
# mask = np.packbits(near.repeat(4), bitorder="little").view(np.uint64)[0]
@jit_inner
def near_words(table, M, wide, terms, step, block, limit):
    """The same for codes of two bytes, four at a time: `block` is the address of uint16 (M + terms, 64)."""
    mask = np.uint64(0)
    for i in range(0, 64, 4):
        s0 = s1 = s2 = s3 = F32(0.0)
        for m in range(M):
            t = table + 4 * m * wide
            at = block + 2 * (64 * m + i)
            s0 += float32_at(t, np.int64(word_at(at, 0)))
            s1 += float32_at(t, np.int64(word_at(at, 1)))
            s2 += float32_at(t, np.int64(word_at(at, 2)))
            s3 += float32_at(t, np.int64(word_at(at, 3)))
        for row in range(terms):
            at, count = block + 2 * (64 * (M + row) + i), step if row == 0 else step * F32(1.0 / 256.0)
            s0 += count * F32(word_at(at, 0))
            s1 += count * F32(word_at(at, 1))
            s2 += count * F32(word_at(at, 2))
            s3 += count * F32(word_at(at, 3))
        if not (s0 > limit and s1 > limit and s2 > limit and s3 > limit):
            mask |= np.uint64(15) << np.uint64(i)
    return mask
