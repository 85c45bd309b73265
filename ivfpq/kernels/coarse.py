"""The first step of a search, in compiled code: distances to the centroids, tables of the codebooks, and which lists.

Both come of products with the query, whose copy of 16 bits a number is multiplied with the panels of the centroids and
of the codebooks (see `panels.Panels`). `bounds` says what they can be off by.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.heaps import push_pair
from ivfpq.kernels.intrinsics import (
    STRETCH,
    centred,
    extent,
    in_pairs,
    not_above,
    ones,
    panel_products,
    panel_products_together,
    sum_of_products,
    sum_of_squares,
    trailing_zeros,
)
from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.layout import BINS, IP, even_width, in_panels, parts
from ivfpq.kernels.memory import float32_at, float64_at, int64_at, put_float32, put_int64

F32 = np.float32
MANY_LISTS = 256  # from this many lists on, a histogram comes first


# a = x - centre
# unit = max(longest stretch of a / reach, np.abs(a).max() / 32766)
# pairs[:] = np.rint(a / unit).astype(np.int16).reshape(-1, 2)
@jit_inner
def to_int16(quantizers, scratch, x, pairs, stride):
    """Write a' of the query at address x, pairs of int16 every `stride` bytes; returns what 1 stands for in it.

    Each part has a zero behind it if it is odd.
    """
    dsub, d = quantizers.dsub, quantizers.d
    together, wide, a = 2 * ((dsub + 1) // 2), even_width(quantizers), scratch.a
    count, width = (parts(quantizers), dsub) if dsub & 1 else (1, d)
    for i in range(0 if dsub & 1 else d, wide):
        put_float32(a, i, F32(0.0))
    for m in range(count):
        centred(x + 4 * width * m, width, quantizers.centre + 4 * width * m, a + 4 * together * m)
    longest = F32(0.0)
    for first in range(0, wide, 2 * STRETCH):
        size = 2 * STRETCH if first + 2 * STRETCH < wide else wide - first
        square = sum_of_products(a + 4 * first, a + 4 * first, size)
        longest = square if square > longest else longest
    aligned = together % (2 * STRETCH) == 0 or (2 * STRETCH) % together == 0  # else stretches of parts overlap two
    extent(a, wide, scratch.extent)
    unit = np.sqrt(np.float64(longest) * (1.0 if aligned else 2.0)) / quantizers.reach
    low, high = float32_at(scratch.extent, 0), float32_at(scratch.extent, 1)
    least = np.float64(high if high > -low else -low) / 32766.0
    unit = least if least > unit else unit
    unit = 1e-30 if unit < 1e-30 else 1e35 if unit > 1e35 else unit
    in_pairs(a, wide, F32(1.0 / unit), pairs, stride)
    return unit


# scores = centroid_squares - 2 * (a_ @ centroids_.T)                           (ip: -(a_ @ centroids_.T))
# tables = codebook_squares - 2 * np.einsum("qmi,mji->qmj", a_parts, codebooks_)
@jit_inner
def products(quantizers, scratch, count, tables, tables_stride):
    """Coarse distances, but for |a|^2, and tables T of `count` queries, 1 or TOGETHER, whose a' is in scratch.pairs.

    Parameters
    ----------
    tables : int
        Address of float32 (M, wide) of the first query.
    tables_stride : int
        From one query's to the next one's, in bytes.
    """
    M, wide, pairs, x = quantizers.M, quantizers.wide, (quantizers.dsub + 1) // 2, scratch.pairs
    whole, scores_stride = parts(quantizers) * pairs, 4 * in_panels(quantizers.nlist)
    scales = (scratch.units, F32(quantizers.centroid_scale))
    for first in range(0, quantizers.nlist, 64):
        panel, start = quantizers.centroid_panels + 4 * whole * first, quantizers.centroid_squares + 4 * first
        _panel(count, x, whole, panel, scales, start, (scratch.scores + 4 * first, scores_stride))
    scales = (scratch.units, F32(quantizers.codebook_scale))
    for first in range(0, M * wide, 64):
        part_of_x = x + 4 * count * (pairs if quantizers.part else 0) * (first // wide)
        panel, start = quantizers.codebook_panels + 4 * pairs * first, quantizers.codebook_squares + 4 * first
        _panel(count, part_of_x, pairs, panel, scales, start, (tables + 4 * first, tables_stride))


# out[:] = start + units[:, None] * scale * (x @ panel.T)
@jit_inner
def _panel(count, x, n, panel, scales, start, out):
    """`panel_products` for `count` queries, stretch by stretch: compiled once, not where it is called."""
    from_, step = start, np.int64(0)
    for first in range(0, n, STRETCH):
        at, size = x + 4 * count * first, STRETCH if first + STRETCH < n else n - first
        if count == 1:
            panel_products(at, size, panel + 256 * first, scales, (from_, step), out)
        else:
            panel_products_together(at, size, panel + 256 * first, scales, (from_, step), out)
        from_, step = out


# probes = np.lexsort((np.arange(nlist), defined_distances))[:nprobe]
@jit_inner
def choose(quantizers, scratch, scores, shift, error, x, first):
    """The nprobe lists nearest to the query at address x by the defined coarse distance, ties to the smaller number.

    The scores at the address `scores`, with `shift` added, are off by at most `error`. So a list is among the nearest
    if its score is below the nprobe-th smallest less 2 error, because fewer than nprobe others can be as near, and it
    is not if its score is above that plus 2 error. Between these, the defined distances decide. The nearest by score
    comes first in probes[first : first + nprobe], the others in no order, and their scores in base.
    """
    nlist, nprobe = quantizers.nlist, scratch.nprobe
    values, numbers = scratch.values, scratch.numbers
    limit = _rough_limit(scratch.counts, scratch.extent, scores, nlist, nprobe)
    n = np.int64(0)
    for start in range(0, nlist, 64):
        mask = _lists_below(nlist, scores, start, limit)
        while mask != 0:
            near = start + np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            n = push_pair(values, numbers, nprobe, n, np.float64(float32_at(scores, near)), near)
    sure, doubt = float64_at(values, 0) - 2.0 * error, float64_at(values, 0) + 2.0 * error
    limit = F32(doubt + abs(doubt) * 2.0**-22)
    maybe = np.uint64(0)
    for start in range(0, nlist, 64):
        maybe += ones(_lists_below(nlist, scores, start, limit))
    if maybe > np.uint64(nprobe):
        n = np.int64(0)
        for number in range(nlist):
            score = np.float64(float32_at(scores, number))
            if score < sure:
                n = push_pair(values, numbers, nprobe, n, -np.inf, number)
            elif not score > doubt:
                value = np.float64(_coarse_distance(quantizers, x, number))
                if not value < np.inf:  # what is not a number comes after infinity
                    value = np.float64(1e300) if value == value else np.float64(np.inf)
                n = push_pair(values, numbers, nprobe, n, value, number)
    probes, base = scratch.probes + 8 * first, scratch.base + 4 * first
    for p in range(nprobe):
        number = int64_at(numbers, p)
        score = float32_at(scores, number) + shift
        put_int64(probes, p, number)
        put_float32(base, p, score)
        if score < float32_at(base, 0):
            put_int64(probes, p, int64_at(probes, 0))
            put_float32(base, p, float32_at(base, 0))
            put_int64(probes, 0, number)
            put_float32(base, 0, score)


# np.packbits(~(scores[start : start + 64] > limit), bitorder="little")
@jit_inner
def _lists_below(nlist, scores, start, limit):
    """Which of lists start ... start + 63 have a score not above a limit, as bits."""
    mask = not_above(scores + 4 * start, limit)
    left = nlist - start
    return mask if left >= 64 else mask & ((np.uint64(1) << np.uint64(left)) - np.uint64(1))


# counts, edges = np.histogram(scores, BINS)
# limit = edges[1 + np.searchsorted(np.cumsum(counts), wanted)]
@jit_inner
def _rough_limit(counts, ends, scores, n, wanted):
    """A limit that `wanted` of the n numbers at the address `scores`, or a few more, do not exceed: the end of a bin.

    What is behind the n-th number, up to the next multiple of 64, repeats it. `counts` and `ends` are addresses of
    int64 (BINS + 1,) and float32 (2,), to work in.
    """
    if n < MANY_LISTS or wanted >= n:
        return F32(np.inf)
    extent(scores, in_panels(n), ends)
    low, width = float32_at(ends, 0), (float32_at(ends, 1) - float32_at(ends, 0)) / F32(BINS - 1)
    if not (width > F32(0.0) and width < F32(np.inf)):
        return F32(np.inf)
    for i in range(BINS + 1):  # rounding may put the highest one bin up
        put_int64(counts, i, 0)
    inverse = F32(1.0) / width
    for i in range(n):
        place = np.int64((float32_at(scores, i) - low) * inverse)
        bin_ = place if 0 <= place <= BINS else BINS  # NaN may be any number
        put_int64(counts, bin_, int64_at(counts, bin_) + 1)
    number, below = 0, int64_at(counts, 0)
    while below < wanted:
        number += 1
        below += int64_at(counts, number)
    return F32(low + F32(number + 2) * width)


# pair_distances(x[None], centroids[number][None], metric)[0]                   (ip: with its sign turned)
@jit_inner
def _coarse_distance(quantizers, x, number):
    """The defined distance of the query at address x to a centroid, smaller being better."""
    centroid = quantizers.centroids + 4 * quantizers.d * number
    if quantizers.metric == IP:
        return -F32(sum_of_products(x, centroid, quantizers.d) + F32(0.0))
    return sum_of_squares(x, centroid, quantizers.d)
