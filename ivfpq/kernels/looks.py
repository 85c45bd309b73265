"""The first look at the codes of a list, by each kernel: which of them `candidates.weigh` weighs."""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.avx2 import NONE, UNKNOWN, UNUSED, USED, furnish_minima, limit_in_steps, minima, screen
from ivfpq.kernels.avx512 import PREFETCH, lane_of, quantise, scan_blocks, sum_limit
from ivfpq.kernels.bounds import lower_bound, some_near, upper_bound
from ivfpq.kernels.candidates import FIRST, weigh
from ivfpq.kernels.heaps import push
from ivfpq.kernels.intrinsics import extent, ones, trailing_zeros
from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.layout import GROUPS, block_of, list_size, list_start
from ivfpq.kernels.memory import float32_at, float64_at, prefetch
from ivfpq.kernels.portable import near_bytes, near_pairs, near_words

F32 = np.float32
CROWD = 8  # from this many codes left to weigh in a block on, it is scanned again when theta has shrunk
FEW = 3  # codes left to weigh in a block, up to which they are weighed one after the other
MANY, VERY_FEW = 12, 50  # a query of whose list one in so many codes is left goes on with tables of places, too
SAMPLE = 1024  # blocks of a list, at most, and an eighth of them, that a first theta is looked for in


# step, t8 = see `avx512.quantise`                                             (avx2: A, see `avx2.furnish_minima`)
@jit_inner
def furnish_look(vbmi, avx2, quantizers, scratch, query, block):
    """Make of a query's tables T what the kernel looks by; `block` is the address of what it will look at first."""
    if vbmi is not None:
        prefetch(block, PREFETCH)
        query.step, query.low = quantise(query.floats, quantizers.M, quantizers.wide, query.bytes, scratch.extent)
    elif avx2 is not None:
        furnish_minima(quantizers, query, UNKNOWN)


# for row in range(start, start + size): if it may be near: weigh(row)
@jit_inner
def look(vbmi, avx2, quantizers, lists, scratch, query, rows, then):
    """Look through `rows`, (start, size), of the list that the query looks into; `then` is the address of the next one.

    `vbmi` and `avx2` are the kernel: see `scan.search`.
    """
    if vbmi is not None:
        _by_bytes(quantizers, lists, scratch, query, rows[0], rows[1], then)
    elif avx2 is not None:
        _by_minima(quantizers, lists, scratch, query, rows[0], rows[1], then)
    else:
        _by_floats(quantizers, lists, scratch, query, rows[0], rows[1])


# near = start + np.flatnonzero(~(T[np.arange(M), codes].sum(axis=1) > theta - base + E))
@jit_inner
def _by_floats(quantizers, lists, scratch, query, start, size):
    """Look through rows start ... start + size - 1 by float32 sums."""
    M, wide, terms, step = quantizers.M, quantizers.wide, quantizers.terms, F32(query.term_step)
    for first in range(0, size, 64):
        block = block_of(lists, start + first)
        bound = query.theta + query.error - query.base
        limit = F32(bound + abs(bound) * 2.0**-22)
        if quantizers.code_rows < M:
            mask = near_pairs(query.floats, M, wide, terms, step, block, limit)
        elif lists.code_bytes == 1:
            mask = near_bytes(query.floats, M, wide, terms, step, block, limit)
        else:
            mask = near_words(query.floats, M, wide, terms, step, block, limit)
        while mask != 0:
            lane = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            if lane < size - first:
                weigh(quantizers, lists, scratch, query, block, start + first + lane)


# sums = t8[np.arange(M), codes].sum(axis=1) + (u * scale >> 8)
# near = start + np.flatnonzero(sums <= (theta - base - low + E) / step + 1)
@jit_inner
def _by_bytes(quantizers, lists, scratch, query, start, size, then):
    """The same by 8-bit sums, two blocks at a time; meanwhile the block at `then`, to be scanned next, is asked for."""
    scale = _term_scale(query)
    rows, tables = (quantizers.M, quantizers.terms), query.bytes
    block_bytes = 64 * lists.width
    block = block_of(lists, start)
    end = block + (size + 63) // 64 * block_bytes
    if not query.theta < np.inf and size >= 128 and 0 < query.k <= FIRST:
        _first_theta(quantizers, lists, query, scale, block)
    offset = query.error - query.base - query.low
    limit = sum_limit((query.theta + offset) / query.step + 1.0)
    for first in range(0, size, 128):
        stride = block_bytes if first + 64 < size else 0
        ahead = block + PREFETCH if block + PREFETCH < end else then + (block + PREFETCH - end)
        masks = scan_blocks((block, stride), ahead, tables, rows, scale, limit)
        for half in range(2 if stride else 1):
            mask = masks[half]
            while mask != 0:
                at = first + 64 * half + lane_of(np.int64(trailing_zeros(mask)))
                mask &= mask - np.uint64(1)
                if at >= size:
                    continue
                theta = query.theta
                weigh(quantizers, lists, scratch, query, block + half * block_bytes, start + at)
                if query.theta < theta:
                    limit = sum_limit((query.theta + offset) / query.step + 1.0)
                    if ones(mask) > CROWD:
                        masks = scan_blocks((block, stride), ahead, tables, rows, scale, limit)
                        mask &= masks[half]
        block += 2 * block_bytes


# first = np.argsort(sums[:128])[: k + CROWD]
# theta = np.sort(upper_bounds[first])[k - 1]
@jit_inner
def _first_theta(quantizers, lists, query, scale, block):
    """A first theta, from k or a few more codes of two full blocks that have the smallest 8-bit sums.

    Without it, all of them would be weighed. The codes are met again in the scan: the heap is left empty.
    """
    block_bytes = 64 * lists.width
    blocks, rows, tables = (block, block_bytes), (quantizers.M, quantizers.terms), query.bytes
    low, high = 0, 255 * quantizers.M + np.int64(scale)
    high = high if high < 65535 else 65535
    masks = scan_blocks(blocks, block, tables, rows, scale, np.uint16(high))
    for _ in range(8):
        limit = (low + high) >> 1
        tried = scan_blocks(blocks, block, tables, rows, scale, np.uint16(limit))
        count = np.int64(ones(tried[0]) + ones(tried[1]))
        if count < query.k:
            low = limit
        else:
            high, masks = limit, tried
            if count < query.k + CROWD:
                break
    for half in range(2):
        mask = masks[half]
        while mask != 0:
            lane = lane_of(np.int64(trailing_zeros(mask)))
            mask &= mask - np.uint64(1)
            lower = lower_bound(quantizers, lists, query, block + half * block_bytes, lane)
            query.held = push(query.uppers, query.k, query.held, upper_bound(quantizers, query, lower, query.term_step))
    query.theta, query.held = float64_at(query.uppers, 0), 0


# sums = t8[np.arange(M), codes % 16].sum(axis=1) + (u * scale >> 8)         (of groups and of places: see `avx2`)
# near = start + np.flatnonzero(sums <= (theta - base - low_l - low + E) / step + 1)
@jit_inner
def _by_minima(quantizers, lists, scratch, query, start, size, then):
    """The same by sums of minima, two blocks at a time."""
    M = quantizers.M
    block_bytes, block = 64 * lists.width, block_of(lists, start)
    end = block + (size + 63) // 64 * block_bytes
    if not query.theta < np.inf and size >= 128 and 0 < query.k <= FIRST:
        _theta_of_sample(quantizers, lists, scratch, query)
    offset = query.error - query.base - query.low
    limit = limit_in_steps(quantizers, query, query.theta + offset)
    scale, left = _term_scale(query), np.int64(0)
    for first in range(0, size, 128):
        if limit == NONE:
            return
        stride = block_bytes if first + 64 < size else 0
        theta = query.theta
        ahead = block + PREFETCH if block + PREFETCH < end else then + (block + PREFETCH - end)
        masks = screen(quantizers, query, (block, stride), ahead, scale, np.uint8(limit))
        if masks[0] | masks[1] != 0:  # asked first, so that LLVM has both as numbers before it goes on
            for half in range(2 if stride else 1):
                mask, row = masks[half], first + 64 * half
                if size - row < 64:
                    mask &= (np.uint64(1) << np.uint64(size - row)) - np.uint64(1)
                left += np.int64(ones(mask))
                _weigh_some(quantizers, lists, scratch, query, block + half * block_bytes, start + row, mask)
            if query.theta < theta:
                limit = limit_in_steps(quantizers, query, query.theta + offset)
                scale = _term_scale(query)
        block += 2 * block_bytes
    if M > 1 and quantizers.ksub > GROUPS and quantizers.code_rows == M and query.theta < np.inf:
        _choose_tables(quantizers, query, left, size)


# by_places = left / size > 1 / MANY
@jit_inner
def _choose_tables(quantizers, query, left, size):
    """Go on with tables of places, or without, as so many of so many codes that were looked at are left."""
    if query.by_places == USED:
        if left * VERY_FEW < size:
            query.by_places, query.step = UNUSED, 0.0
    elif left * MANY > size:
        if query.by_places == UNKNOWN:
            furnish_minima(quantizers, query, USED)
        query.by_places, query.step = USED, 0.0


# for lane in np.flatnonzero(mask): weigh(row + lane)
@jit_inner
def _weigh_some(quantizers, lists, scratch, query, block, row, mask):
    """Weigh the codes of a block that a mask tells; `row` is that of its first.

    Where they are many, they are added up four at a time, for sums that do not wait for each other take less time.
    """
    if quantizers.code_rows == quantizers.M:
        while ones(mask) > FEW:
            lanes = mask
            for _ in range(4):
                lanes &= lanes - np.uint64(1)
            four, mask = mask ^ lanes, lanes
            if some_near(quantizers, lists, query, block, four):
                _weigh_each(quantizers, lists, scratch, query, block, row, four)
    _weigh_each(quantizers, lists, scratch, query, block, row, mask)


# for lane in np.flatnonzero(mask): weigh(row + lane)
@jit_inner
def _weigh_each(quantizers, lists, scratch, query, block, row, mask):
    """The same, one after the other."""
    while mask != 0:
        lane = np.int64(trailing_zeros(mask))
        mask &= mask - np.uint64(1)
        weigh(quantizers, lists, scratch, query, block, row + lane)


# first = np.argsort(sums[sample])[: k + CROWD]
# theta = np.sort(upper_bounds[sample][first])[k - 1]
@jit_inner
def _theta_of_sample(quantizers, lists, scratch, query):
    """A first theta from a sample of the list's full blocks, of two of them, then of eight times as many, and so on.

    The codes are met again in the scan: the heap is left empty.
    """
    M, full = quantizers.M, list_size(lists, query.list) >> 6
    eighth = full >> 4 << 1
    most = np.int64(2) if eighth < 2 else np.int64(SAMPLE) if eighth > SAMPLE else eighth
    widest, count = 256.0 * query.term_step, np.int64(2)
    for m in range(M):
        extent(minima(query, M) + 4 * GROUPS * m, GROUPS, scratch.extent)
        widest += np.float64(float32_at(scratch.extent, 1))
    while True:
        _narrow(quantizers, lists, query, widest, count, full // count)
        if count == most:
            break
        count = 8 * count if 8 * count < most else most


# first = np.argsort(sums)[: k + CROWD]
# theta = np.sort(upper_bounds[first])[k - 1]
@jit_inner
def _narrow(quantizers, lists, query, widest, count, spacing):
    """A smaller theta, from those of the codes in `count` blocks of the list that have the smallest sums.

    A sum less its base is at most `widest`.
    """
    M, low, high = quantizers.M, 0.0, query.theta + query.error - query.base - query.low
    if not high < np.inf:
        high = widest
    high = high if high > 0.0 else 0.0
    # Sums of numbers of 4 bits are so near what they bound that a large sample need not be counted so often.
    close = quantizers.code_rows < M and query.theta < np.inf and count > 16
    for _ in range(0 if close else 8):
        bound = 0.5 * (low + high)
        number = _near(quantizers, lists, None, query, limit_in_steps(quantizers, query, bound), (count, spacing))
        if number < query.k:
            low = bound
        else:
            high = bound
            if number < _enough(query):
                break
    _near(quantizers, lists, True, query, limit_in_steps(quantizers, query, high), (count, spacing))
    if query.held == query.k and float64_at(query.uppers, 0) < query.theta:
        query.theta = float64_at(query.uppers, 0)
    query.held = 0


# 2 * k + CROWD
@jit_inner
def _enough(query):
    """How many codes of a sample are as good as k to find the k nearest of them."""
    return 2 * query.k + CROWD


# near = np.flatnonzero(sums <= limit)
# uppers = np.sort(upper_bounds[near])[:k]                                      (only if `keeping`)
@jit_inner
def _near(quantizers, lists, keeping, query, limit, sample):
    """How many codes of a sample pass, or of its beginning, if these are enough.

    If `keeping` is not None, all that pass are counted, and their upper bounds are put into the heap. The sample is so
    many blocks of the list, each so many behind the one before.
    """
    stride, number = sample[1] * 64 * lists.width, np.int64(0)
    block, scale = block_of(lists, list_start(lists, query.list)), _term_scale(query)
    for _ in range(0, sample[0], 2):
        masks = screen(quantizers, query, (block, stride), block + 2 * stride, scale, np.uint8(limit))
        number += np.int64(ones(masks[0]) + ones(masks[1]))
        if keeping is None:
            if number >= _enough(query):
                break
        else:
            for half in range(2):
                mask = masks[half]
                while mask != 0:
                    lane = np.int64(trailing_zeros(mask))
                    mask &= mask - np.uint64(1)
                    lower = lower_bound(quantizers, lists, query, block + half * stride, lane)
                    upper = upper_bound(quantizers, query, lower, query.term_step)
                    query.held = push(query.uppers, query.k, query.held, upper)
        block += 2 * stride
    return number


# np.floor(256 * term_step / step)
@jit_inner
def _term_scale(query):
    """What a term's steps are in steps of the tables, in 256ths: a little less, and at most 65535."""
    ratio = query.term_step / query.step
    return np.uint16(ratio * 255.99) if ratio < 256.0 else np.uint16(65535)
