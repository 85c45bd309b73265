"""The vectors that may be in an answer, in compiled code: how they are kept, and how theta shrinks.

A search finds candidates (`weigh`), forgets those that theta has meanwhile left out (`drop`), and ranks what remains by
the defined distances (`best`).
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.bounds import lower_bound, upper_bound
from ivfpq.kernels.heaps import push, push_pair, sort_pairs
from ivfpq.kernels.intrinsics import (
    add_vectors,
    not_above,
    ones,
    sum_of_four_products,
    sum_of_four_residual_squares,
    sum_of_products,
    sum_of_residual_squares,
)
from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.layout import (
    CANDIDATE,
    COSINE,
    IP,
    L2,
    block_of,
    candidate_at,
    codeword,
    id_of,
    query_at,
)
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
TILE = 4096  # vectors that are scanned for all their queries before the next ones: they stay in the second-level cache
FIRST = 64  # up to this many neighbours, they are looked for among the first 128 codes, and kept in a heap
HALVINGS = 12  # of what the upper bounds range over, to find theta without a heap
_BYTES = CANDIDATE.itemsize


# lower = lower_bound(...)
# if lower <= theta: found.append((lower, row, list, query))
# theta = np.sort(upper_bounds)[k - 1]
@jit_inner
def weigh(quantizers, lists, scratch, query, block, row):
    """Keep one code if it may be near, and let theta know."""
    lower = lower_bound(quantizers, lists, query, block, row & 63)
    if lower > query.theta:
        return
    candidate = candidate_at(scratch.found, scratch.n)
    scratch.n += 1
    candidate.lower, candidate.row, candidate.list, candidate.query = lower, row, query.list, query.number
    upper = upper_bound(quantizers, query, lower, query.term_step)
    if upper < query.theta and query.k > 0:
        if query.k <= FIRST:
            query.held = push(query.uppers, query.k, query.held, upper)
            if query.held == query.k:
                query.theta = float64_at(query.uppers, 0)
        else:
            put_float32(query.uppers, query.held, F32(upper + abs(upper) * 2.0**-22))
            query.held += 1
            if query.held >= query.k + query.k // 2 and query.held & 63 == 0:
                shrink(query)


# uppers = np.sort(uppers)[:k]
# theta = uppers[-1]
@jit_inner
def shrink(query):
    """Set theta to the k-th smallest of the upper bounds, or a little above, and keep k that do not exceed it.

    In a heap of many, each bound would cost a walk through it.
    """
    if query.held < query.k:
        return
    low, high = float32_at(query.uppers, 0), float32_at(query.uppers, 0)
    for i in range(query.held):
        value = float32_at(query.uppers, i)
        low, high = value if value < low else low, value if value > high else high
    for i in range(query.held, (query.held + 63) & ~63):
        put_float32(query.uppers, i, F32(np.inf))
    for _ in range(HALVINGS):
        middle = F32(0.5) * low + F32(0.5) * high
        count = np.uint64(0)
        for first in range(0, query.held, 64):
            count += ones(not_above(query.uppers + 4 * first, middle))
        if count < np.uint64(query.k):
            low = middle
        else:
            high = middle
    held = 0
    for i in range(query.held):
        value = float32_at(query.uppers, i)
        if value <= high and held < query.k:
            put_float32(query.uppers, held, value)
            held += 1
    query.held, query.theta = held, np.float64(high) if high < query.theta else query.theta


# found = np.resize(found, 2 * len(found)) if n + TILE > len(found) else found
@jit_inner
def make_room(scratch):
    """See to it that there is room for the candidates of another tile."""
    if scratch.n + TILE > scratch.capacity:
        drop(scratch)
        if scratch.n + TILE > scratch.capacity // 2:
            more = allocate(2 * _BYTES * scratch.capacity)
            copy_bytes(more, scratch.found, _BYTES * scratch.n)
            free(scratch.found)
            scratch.found, scratch.capacity = more, 2 * scratch.capacity


# found = found[~(found["lower"] > theta[found["query"]])]
@jit_inner
def drop(scratch):
    """Forget candidates that theta has meanwhile left out."""
    kept = 0
    for c in range(scratch.n):
        candidate = candidate_at(scratch.found, c)
        if not candidate.lower > query_at(scratch.queries, candidate.query).theta:
            copy_bytes(scratch.found + _BYTES * kept, scratch.found + _BYTES * c, _BYTES)
            kept += 1
    scratch.n = kept


# order = np.argsort(found["query"], kind="stable")
# ends = np.searchsorted(found["query"][order], np.arange(nq + 1))
@jit_inner
def sort_by_query(scratch, ends):
    """Put the candidates' numbers in order of the queries.

    `ends` is the address of int64 (nq + 2,) and, behind it, (n,) for the order: the numbers of query q's candidates are
    at ends[q] to ends[q + 1] - 1 there.
    """
    nq = scratch.nq
    order = ends + 8 * (nq + 2)
    for i in range(nq + 2):
        put_int64(ends, i, 0)
    for c in range(scratch.n):
        q = candidate_at(scratch.found, c).query
        put_int64(ends, q + 2, int64_at(ends, q + 2) + 1)
    for q in range(nq):
        put_int64(ends, q + 2, int64_at(ends, q + 2) + int64_at(ends, q + 1))
    for c in range(scratch.n):
        q = candidate_at(scratch.found, c).query
        put_int64(order, int64_at(ends, q + 1), c)
        put_int64(ends, q + 1, int64_at(ends, q + 1) + 1)


# distance = adc(x, centroids[list], codes[row], pq, metric)
# best = np.lexsort((ids[row], distance))[:k]
@jit_inner
def best(quantizers, lists, scratch, x, order, count, k):
    """The k best of one query's candidates, in order of their lower bounds until those pass the k-th value.

    Parameters
    ----------
    x : int
        Address of the query.
    order : int
        Address of int64 (count,), the numbers of the query's candidates. Behind those of all queries there is room for
        two such arrays.

    Returns
    -------
    int
        How many were found: the heap in `scratch` has them, best first.
    """
    lower, candidates = order + 8 * scratch.n, order + 16 * scratch.n
    size = np.int64(0)
    for i in range(count):
        number = int64_at(order, i)
        bound = candidate_at(scratch.found, number).lower
        if quantizers.metric == COSINE:  # as values are: -(1 - distance / 2)
            bound = 0.5 * bound - 1.0
        size = push_pair(lower, candidates, count, size, bound, number)
    sort_pairs(lower, candidates, size)
    n = np.int64(0)
    for i in range(count):
        if n == k and float64_at(lower, i) > float64_at(scratch.values, 0):
            break
        candidate = candidate_at(scratch.found, int64_at(candidates, i))
        value = np.float64(defined(quantizers, lists, scratch, x, candidate.list, candidate.row))
        n = push_pair(scratch.values, scratch.numbers, k, n, value, id_of(lists, candidate.row))
    sort_pairs(scratch.values, scratch.numbers, n)
    return n


# ids[best]
@jit_inner
def members(quantizers, lists, scratch, query, x, order, count, ids):
    """Put the ids of the `kept` best of one query's candidates, in no order, at address ids; returns how many.

    The other parameters are as for `best`. An upper bound below the (k + 1)-th smallest lower bound says that fewer
    than k others can be as near.
    """
    k, far = scratch.kept, order + 8 * scratch.n
    held, n, doubtful = np.int64(0), np.int64(0), np.int64(0)
    limit = np.inf
    if count > k:  # a heap of the count - k largest lower bounds, the sign turned
        for i in range(count):
            lower = candidate_at(scratch.found, int64_at(order, i)).lower
            held = push(far, count - k, held, -lower if lower > -np.inf else np.inf)  # NaN says nothing
        limit = -float64_at(far, 0)
    for i in range(count):
        number = int64_at(order, i)
        candidate = candidate_at(scratch.found, number)
        term_step = float64_at(quantizers.step, candidate.list)
        if count <= k or upper_bound(quantizers, query, candidate.lower, term_step) < limit:
            put_int64(ids, n, id_of(lists, candidate.row))
            n += 1
        else:
            put_int64(order, doubtful, number)
            doubtful += 1
    ranked = best(quantizers, lists, scratch, x, order, doubtful, k - n) if n < k else np.int64(0)
    for i in range(ranked):
        put_int64(ids, n + i, int64_at(scratch.numbers, i))
    return n + ranked


# adc(x[None], centroids[number][None], codes[row][None], pq, metric)[0]        (ip, cosine: with its sign turned)
@jit_inner
def defined(quantizers, lists, scratch, x, number, row):
    """The defined distance (`reference.adc`) of the query at address x to a row of a list, smaller being better."""
    d, dsub = quantizers.d, quantizers.dsub
    block, lane = block_of(lists, row), row & 63
    centroid = quantizers.centroids + 4 * d * number
    total = F32(0.0)
    if quantizers.metric == IP:
        total = sum_of_products(x, centroid, d)
    for m in range(quantizers.M):
        y = codeword(quantizers, lists, block, m, lane)
        if quantizers.part == 0:  # of whole vectors, whose sum is compared as one part
            for other in range(1, quantizers.M):
                add_vectors(y, codeword(quantizers, lists, block, other, lane), dsub, scratch.y)
                y = scratch.y
        offset = 4 * m * quantizers.part
        if dsub == 4:  # as often with numbers of 4 bits, when there are many parts
            if quantizers.metric == IP:
                total = F32(total + sum_of_four_products(x + offset, y))
            else:
                total = F32(total + sum_of_four_residual_squares(x + offset, centroid + offset, y))
        elif quantizers.metric == IP:
            total = F32(total + sum_of_products(x + offset, y, dsub))
        else:
            total = F32(total + sum_of_residual_squares(x + offset, centroid + offset, y, dsub))
        if quantizers.part == 0:
            break
    if quantizers.metric == COSINE:
        total = F32(F32(1.0) - total / F32(2.0))
    total = F32(total + F32(0.0))  # no negative zero
    if total != total:  # what is not a number is infinitely far
        return F32(np.inf)
    return total if quantizers.metric == L2 else -total
