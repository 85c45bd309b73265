"""The search of `integers` for several queries: a list is read once for all that look into it, two at a time.

Which queries are together changes no answer: each has its own limit, and keeps all that may be among its k best.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.integers import (
    CANDIDATE_BYTES,
    WORK_BYTES,
    choose_lists,
    cut,
    distance_to_list,
    look_at,
    put_answer,
    scan_list,
    work_at,
)
from ivfpq.kernels.intrinsics import TOGETHER, trailing_zeros
from ivfpq.kernels.jit import jit_entry, jit_inner
from ivfpq.kernels.layout import list_size, list_start
from ivfpq.kernels.memory import address, allocate, copy_bytes, free, int32_at, int64_at, put_int64
from ivfpq.kernels.products import PAIR, ROWS, STEP, byte_products_of_pair, near_rows
from ivfpq.kernels.scan import furnish

GROUP = 32  # queries that are searched together: what they work with stays in the second-level cache
CANDIDATES = 256  # of a query, for which there is room at first
TILE = 512  # codes that all queries of a list look at before the next ones: they stay in the cache


# distances, ids = reference.search(x, probes, centroids, pq, lists, k, metric)
@jit_entry
def search(quantizers, codec, lists, x, nprobe, scratch, distances, ids):
    """As `integers.search`."""
    quantizers_, codec_, lists_, scratch_ = quantizers[0], codec[0], lists[0], scratch[0]
    nq, k = ids.shape
    most = k if k < lists_.ntotal else lists_.ntotal
    kept = most + 1 if distances is None else most
    scratch_.nq, scratch_.nprobe, scratch_.kept = TOGETHER, nprobe, kept
    furnish(quantizers_, scratch_, np.int64(0))
    furnish(quantizers_, scratch_, allocate(scratch_.end))
    works = _furnished(quantizers_, kept)
    pairs = GROUP * nprobe
    plan = allocate(8 * (2 * pairs + quantizers_.nlist + 2))  # lists of each query, `order`, `ends`: see `_sort`
    for start in range(0, nq, GROUP):
        count = GROUP if nq - start > GROUP else nq - start
        at = address(x) + 4 * start * quantizers_.d
        _scan_nearest(quantizers_, codec_, lists_, scratch_, works, at, (count, plan))
        _scan_others(quantizers_, codec_, lists_, scratch_, works, at, (count, plan))
        for q in range(count):
            query = start + q, at + 4 * quantizers_.d * q, most
            put_answer(quantizers_, codec_, lists_, scratch_, work_at(works, q), query, distances, ids)
    for q in range(GROUP):
        free(work_at(works, q).found)
    free(plan)
    free(works)
    free(scratch_.queries)


# works = [WORK() for _ in range(GROUP)]
@jit_inner
def _furnished(quantizers, kept):
    """Memory for what each query works with. Returns the address of the records."""
    d = quantizers.d
    each = (8 * (kept + 1) + 8 * PAIR * ROWS + 6 * (d + STEP) + 63) & ~63
    works = allocate(GROUP * (WORK_BYTES + each) + 64)
    for q in range(GROUP):
        work = work_at(works, q)
        work.heap = ((works + GROUP * WORK_BYTES + 63) & ~63) + each * q
        work.sums = work.heap + 8 * (kept + 1)
        work.y = work.sums + 8 * PAIR * ROWS
        work.w = work.y + 4 * (d + STEP)
        work.kept, work.capacity = kept, CANDIDATES
        work.found = allocate(CANDIDATE_BYTES * CANDIDATES)
    return works


# for q in range(count): probes[q] = nearest(x[q], centroids, nprobe); scan list probes[q, 0]
@jit_inner
def _scan_nearest(quantizers, codec, lists, scratch, works, x, plan):
    """Choose the lists of `plan[0]` queries at address x, and scan the nearest of each, which gives it a good limit."""
    (count, probes), nprobe = plan, scratch.nprobe
    for q in range(count):
        work, own = work_at(works, q), x + 4 * quantizers.d * q
        square, first = choose_lists(quantizers, scratch, own, (q, count))
        copy_bytes(probes + 8 * nprobe * q, scratch.probes + 8 * first, 8 * nprobe)
        cut(quantizers, codec, work, own, square)
        work.held, work.n, work.limit = 0, 0, np.inf
        cell = int64_at(probes, nprobe * q)
        rows = (list_start(lists, cell), list_size(lists, cell))
        scan_list(quantizers, codec, lists, work, rows, (q, cell), distance_to_list(quantizers, own, cell) + work.shift)


# for l in np.unique(probes[:, 1:]): scan list l for the queries np.argwhere(probes[:, 1:] == l)[:, 0]
@jit_inner
def _scan_others(quantizers, codec, lists, scratch, works, x, plan):
    """Scan all other lists, in order of the lists."""
    (count, probes), nprobe, d = plan, scratch.nprobe, quantizers.d
    order = probes + 8 * GROUP * nprobe
    total, run = count * (nprobe - 1), np.int64(0)
    _sort(quantizers, probes, (count, nprobe), order)
    while run < total:
        cell = int64_at(probes, int64_at(order, run))
        end = run + 1
        while end < total and int64_at(probes, int64_at(order, end)) == cell:
            end += 1
        for visit in range(run, end):  # where it is scanned from, for each query
            q = int64_at(order, visit) // nprobe
            work = work_at(works, q)
            work.base = distance_to_list(quantizers, x + 4 * d * q, cell) + work.shift
        size = list_size(lists, cell)
        for tile in range(0, size, TILE):
            rows = (list_start(lists, cell) + tile, size - tile if size - tile < TILE else np.int64(TILE))
            for visit in range(run, end, PAIR):
                q = int64_at(order, visit) // nprobe
                if visit + 1 < end:
                    _scan_pair(quantizers, codec, lists, works, rows, (q, int64_at(order, visit + 1) // nprobe, cell))
                else:
                    scan_list(quantizers, codec, lists, work_at(works, q), rows, (q, cell), work_at(works, q).base)
        run = end


# order = 1 + np.argsort(probes[:, 1:].ravel(), kind="stable") ...
@jit_inner
def _sort(quantizers, probes, shape, order):
    """Put the places in probes (count, nprobe) but those of the nearest lists in order of the lists."""
    (count, nprobe), ends, nlist = shape, order + 8 * GROUP * shape[1], quantizers.nlist
    for i in range(nlist + 2):
        put_int64(ends, i, 0)
    for pair in range(count * nprobe):
        if pair % nprobe:
            cell = int64_at(probes, pair)
            put_int64(ends, cell + 2, int64_at(ends, cell + 2) + 1)
    for i in range(nlist):
        put_int64(ends, i + 2, int64_at(ends, i + 2) + int64_at(ends, i + 1))
    for pair in range(count * nprobe):
        if pair % nprobe:
            cell = int64_at(probes, pair)
            put_int64(order, int64_at(ends, cell + 1), pair)
            put_int64(ends, cell + 1, int64_at(ends, cell + 1) + 1)


# scan rows start ... start + size - 1 for both queries
@jit_inner
def _scan_pair(quantizers, codec, lists, works, rows, numbers):
    """Find candidates of two queries, numbers[:2], in rows of list numbers[2]."""
    (row, size), (p, q, cell) = rows, numbers
    one, two = work_at(works, p), work_at(works, q)
    d, width = quantizers.d, lists.width
    at, end = lists.blocks + width * row, row + size
    while row + ROWS <= end:
        byte_products_of_pair(at, width, (one.w, two.w), d, one.sums)
        terms = (at + d if codec.terms else np.int64(0), width)
        mask = near_rows(one.sums, terms, (one.base, one.unit), one.limit)
        while mask != 0:
            r = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            look_at(codec, one, (at + width * r, d, one.base), int32_at(one.sums, r), row + r, (p, cell))
        mask = near_rows(one.sums + 4 * ROWS, terms, (two.base, two.unit), two.limit)
        while mask != 0:
            r = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            look_at(codec, two, (at + width * r, d, two.base), int32_at(one.sums, ROWS + r), row + r, (q, cell))
        row += ROWS
        at += width * ROWS
    scan_list(quantizers, codec, lists, one, (row, end - row), (p, cell), one.base)
    scan_list(quantizers, codec, lists, two, (row, end - row), (q, cell), two.base)
