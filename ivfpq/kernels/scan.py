"""Search of inverted lists in compiled code: the answers of `reference`, to the bit, from tables.

Three looks at a code, each at fewer of them:

1. a lower bound of its distance, from tables of 8-bit numbers (`avx512`, `avx2`) or of float32 (`portable`): see
   `looks`;
2. a lower and an upper bound from the float32 tables (`candidates.weigh`); theta, the k-th smallest upper bound, limits
   both;
3. the defined distance (`candidates.defined`), for what may still be among the k best: k and a few more.

`bounds` proves that nothing is lost.

Which kernel is compiled into a search is said by arguments that are True or None. (None, not False: numba then leaves
out the code of the others. And what a function is called with starts as np.int64(0), not 0: numba compiles a function
once for that very number too.)
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.bounds import errors
from ivfpq.kernels.candidates import (
    FIRST,
    TILE,
    best,
    defined,
    drop,
    make_room,
    members,
    shrink,
    sort_by_query,
)
from ivfpq.kernels.coarse import choose, products, to_int16
from ivfpq.kernels.intrinsics import TOGETHER, sum_of_squares
from ivfpq.kernels.jit import jit_entry, jit_inner
from ivfpq.kernels.layout import (
    BINS,
    CANDIDATE,
    IP,
    L2,
    QUERY,
    block_of,
    candidate_at,
    even_width,
    id_of,
    in_panels,
    list_size,
    list_start,
    query_at,
)
from ivfpq.kernels.looks import furnish_look, look
from ivfpq.kernels.memory import (
    address,
    allocate,
    float32_at,
    float64_at,
    free,
    int64_at,
    put_float32,
    put_int64,
)

F32 = np.float32
HEAD = 4 * TILE  # vectors of a query's nearest list that are scanned at once, if others ask too: then theta is good
_QUERY_BYTES, _CANDIDATE_BYTES = QUERY.itemsize, CANDIDATE.itemsize


# distances, ids = reference.search(x, probes, centroids, pq, lists, k, metric)
@jit_entry
def search(kernel, quantizers, lists, x, nprobe, scratch, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k), best first; missing ones as infinity and -1.

    Parameters
    ----------
    kernel : (True or None, True or None)
        Whether the scan is that of `avx512`, and of `avx2`; else it is that of `portable`.
    quantizers, lists, scratch : record arrays, shape (1,)
        See `layout` and `Lists.addresses`; scratch is to be filled in.
    x : float32 array, shape (nq, d)
    nprobe : int
    distances : float32 array or None
        None: ids are those of the k best in no order. Most are known without their defined distances.
    """
    quantizers_, lists_, scratch_, vectors = quantizers[0], lists[0], scratch[0], address(x)
    nq, k = ids.shape
    scratch_.nq, scratch_.nprobe, scratch_.theta = nq, nprobe, np.inf
    scratch_.kept = k if k < lists_.ntotal else lists_.ntotal
    _scan(kernel, quantizers_, lists_, scratch_, vectors)
    by_query = allocate(8 * (nq + 2) + 24 * scratch_.n)
    sort_by_query(scratch_, by_query)
    order = by_query + 8 * (nq + 2)
    sign = F32(1.0) if quantizers_.metric == L2 else F32(-1.0)
    for q in range(nq):
        first, last = int64_at(by_query, q), int64_at(by_query, q + 1)
        at, own = vectors + 4 * q * quantizers_.d, order + 8 * first
        if distances is None:
            query, to = query_at(scratch_.queries, q), address(ids) + 8 * q * k
            for i in range(members(quantizers_, lists_, scratch_, query, at, own, last - first, to), k):
                put_int64(to, i, -1)
        else:
            size = best(quantizers_, lists_, scratch_, at, own, last - first, scratch_.kept)
            for rank in range(k):
                if rank < size:
                    distances[q, rank] = sign * F32(float64_at(scratch_.values, rank))
                    ids[q, rank] = int64_at(scratch_.numbers, rank)
                else:
                    distances[q, rank], ids[q, rank] = sign * F32(np.inf), -1
    free(by_query)
    free(scratch_.found)
    free(scratch_.queries)


# near = defined_distances <= theta
@jit_entry
def range_search(kernel, quantizers, lists, x, nprobe, scratch, theta):
    """All whose lower bound is not above theta: query numbers, values (smaller is better), and ids.

    The other parameters are as for `search`.
    """
    quantizers_, lists_, scratch_ = quantizers[0], lists[0], scratch[0]
    scratch_.nq, scratch_.nprobe, scratch_.theta, scratch_.kept = len(x), nprobe, theta, 0
    _scan(kernel, quantizers_, lists_, scratch_, address(x))
    n = scratch_.n
    asking, values, ids = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.int64)
    for c in range(n):
        candidate = candidate_at(scratch_.found, c)
        q = candidate.query
        at = address(x) + 4 * q * quantizers_.d
        asking[c] = q
        values[c] = defined(quantizers_, lists_, scratch_, at, candidate.list, candidate.row)
        ids[c] = id_of(lists_, candidate.row)
    free(scratch_.found)
    free(scratch_.queries)
    return asking, values, ids


# probes, T = coarse search of x
# found = [candidates of query q in list l for q in range(nq) for l in probes[q]]
@jit_inner
def _scan(kernel, quantizers, lists, scratch, x):
    """Find the candidates of the queries at address x: no vector that is not among them can be in the answer.

    The nearest list of a query, or its beginning, is scanned as soon as its tables are there, which gives it a good
    limit; the others after that, list by list, so that a list is read from memory once for all its queries.
    """
    furnish(quantizers, scratch, np.int64(0))
    furnish(quantizers, scratch, allocate(scratch.end))
    scratch.capacity, scratch.n = 2 * TILE, 0
    scratch.found = allocate(_CANDIDATE_BYTES * scratch.capacity)
    _scan_nearest(kernel, quantizers, lists, scratch, x)
    _scan_others(kernel, quantizers, lists, scratch)
    if scratch.kept > FIRST:
        for q in range(scratch.nq):
            shrink(query_at(scratch.queries, q))
    drop(scratch)


# queries, probes, ... = np.empty(nq, QUERY), np.empty((nq, nprobe), np.int64), ...
@jit_inner
def furnish(quantizers, scratch, start):
    """Give everything that does not grow a place in memory, from address `start` on."""
    nq, nprobe, nlist, kept = scratch.nq, scratch.nprobe, quantizers.nlist, scratch.kept
    pairs, even = nq * nprobe, even_width(quantizers)
    most = nprobe if nprobe > kept else kept
    scratch.queries = start  # QUERY (nq,)
    scratch.probes = scratch.queries + _QUERY_BYTES * nq  # int64 (nq * nprobe,): lists, the nearest of a query first
    scratch.order = scratch.probes + 8 * pairs  # int64 (nq * nprobe,): see `_sort_by_list`
    scratch.ends = scratch.order + 8 * pairs  # int64 (nlist + 2,), for `_sort_by_list`
    scratch.values = scratch.ends + 8 * (nlist + 2)  # float64 and int64 (most,): a heap of lists, or of neighbours
    scratch.numbers = scratch.values + 8 * most
    scratch.counts = scratch.numbers + 8 * most  # int64 (BINS + 1,): a histogram
    scratch.base = scratch.counts + 8 * (BINS + 1)  # float32 (nq * nprobe,): coarse distances of `probes`
    scratch.scores = scratch.base + 4 * pairs  # float32 (TOGETHER, nlist in whole panels): those of all lists
    scratch.a = scratch.scores + 4 * TOGETHER * in_panels(nlist)  # float32 (d,), in even parts: see `to_int16`
    scratch.pairs = scratch.a + 4 * even  # int16 (d / 2, TOGETHER, 2)
    scratch.units = scratch.pairs + 2 * TOGETHER * even  # float32 (TOGETHER,)
    scratch.extent = scratch.units + 4 * TOGETHER  # float32 (M, 2), for `quantise`
    scratch.y = scratch.extent + 8 * quantizers.M  # float32 (d,), for `defined`
    scratch.tables = (scratch.y + 4 * quantizers.d + 63) & ~63  # for each query what its record has the addresses of
    # 64 more, as `tables` may be rounded up by less elsewhere.
    scratch.end = scratch.tables + nq * _table_bytes(quantizers, kept) + 64


# t8.nbytes + T.nbytes + uppers.nbytes
@jit_inner
def _table_bytes(quantizers, kept):
    """Bytes of the tables of a query and of its upper bounds, so that tables stay aligned."""
    M = quantizers.M
    return 256 * M + 4 * M * quantizers.wide + ((8 * (kept + 32) + 63) & ~63)


# for q in range(nq): scan list probes[q, 0]
@jit_inner
def _scan_nearest(kernel, quantizers, lists, scratch, x):
    """Fill queries, probes and base, and find the candidates of the nearest lists."""
    d, nprobe, start, stride = quantizers.d, scratch.nprobe, 0, _table_bytes(quantizers, scratch.kept)
    wide = in_panels(quantizers.nlist)
    while start < scratch.nq:
        count = TOGETHER if scratch.nq - start >= TOGETHER else 1
        for q in range(start, start + count):
            query, vector = query_at(scratch.queries, q), x + 4 * d * q
            query.bytes = scratch.tables + stride * q
            query.floats = query.bytes + 256 * quantizers.M
            query.uppers = query.floats + 4 * quantizers.M * quantizers.wide
            query.square = sum_of_squares(vector, quantizers.centre, d)
            query.unit = to_int16(quantizers, scratch, vector, scratch.pairs + 4 * (q - start), 4 * count)
            factor = F32(-1.0) if quantizers.metric == IP else F32(-2.0)
            put_float32(scratch.units, q - start, factor * F32(query.unit))
        products(quantizers, scratch, count, query_at(scratch.queries, start).floats, stride)
        for q in range(start, start + count):
            query, first = query_at(scratch.queries, q), q * nprobe
            coarse_error, query.error = errors(quantizers, query.square, query.unit)
            shift = F32(0.0 if quantizers.metric == IP else query.square)
            scores = scratch.scores + 4 * wide * (q - start)
            choose(quantizers, scratch, scores, shift, coarse_error, x + 4 * d * q, first)
            query.number, query.k, query.held, query.theta = q, scratch.kept, 0, scratch.theta
            number = int64_at(scratch.probes, first)
            furnish_look(kernel[0], kernel[1], quantizers, scratch, query, block_of(lists, list_start(lists, number)))
            _enter(quantizers, query, number, float32_at(scratch.base, first))
            size = list_size(lists, number)
            for tile in range(0, size if size < _head(scratch) else _head(scratch), TILE):
                make_room(scratch)
                _scan_tile(kernel, quantizers, lists, scratch, query, tile, number)
        start += count


# np.inf if nq == 1 else HEAD
@jit_inner
def _head(scratch):
    """How much of the nearest lists is scanned at once."""
    return np.int64(1) << 62 if scratch.nq == 1 else np.int64(HEAD)


# for l in np.unique(probes[:, 1:]): scan list l for the queries np.argwhere(probes[:, 1:] == l)[:, 0]
@jit_inner
def _scan_others(kernel, quantizers, lists, scratch):
    """Find the candidates of all other lists, and of what is left of the nearest, in order of the lists."""
    nprobe, head = scratch.nprobe, _head(scratch)
    count = _sort_by_list(lists, scratch, quantizers.nlist)
    run = np.int64(0)
    while run < count:
        number = _visited(scratch, run)
        end = run + 1
        while end < count and _visited(scratch, end) == number:
            end += 1
        following = _visited(scratch, end) if end < count else number
        for tile in range(0, list_size(lists, number), TILE):
            for visit in range(run, end):
                make_room(scratch)
                pair = int64_at(scratch.order, visit)
                if pair % nprobe == 0 and tile < head:
                    continue
                query = query_at(scratch.queries, pair // nprobe)
                _enter(quantizers, query, number, float32_at(scratch.base, pair))
                _scan_tile(kernel, quantizers, lists, scratch, query, tile, following)
        run = end


# order = np.argsort(probes.ravel()[unfinished], kind="stable")
@jit_inner
def _sort_by_list(lists, scratch, nlist):
    """Put into `order` the places in `probes` but those of the nearest lists, in order of the lists.

    Of the nearest, those are there that are longer than `_head`. Returns how many they are.
    """
    ends, nprobe = scratch.ends, scratch.nprobe
    for i in range(nlist + 2):
        put_int64(ends, i, 0)
    for pair in range(scratch.nq * nprobe):
        number = int64_at(scratch.probes, pair)
        if pair % nprobe or list_size(lists, number) > _head(scratch):
            put_int64(ends, number + 2, int64_at(ends, number + 2) + 1)
    for i in range(nlist):
        put_int64(ends, i + 2, int64_at(ends, i + 2) + int64_at(ends, i + 1))
    for pair in range(scratch.nq * nprobe):
        number = int64_at(scratch.probes, pair)
        if pair % nprobe or list_size(lists, number) > _head(scratch):
            put_int64(scratch.order, int64_at(ends, number + 1), pair)
            put_int64(ends, number + 1, int64_at(ends, number + 1) + 1)
    return int64_at(ends, nlist)


# probes.ravel()[order[visit]]
@jit_inner
def _visited(scratch, visit):
    """The list of a visit."""
    return int64_at(scratch.probes, int64_at(scratch.order, visit))


# base = near + low[number]
@jit_inner
def _enter(quantizers, query, number, near):
    """Make a list, `near` the coarse distance of which is as in `scratch.base`, the one that the query looks into."""
    query.list = number
    query.base = np.float64(near) + float64_at(quantizers.low, number)
    query.term_step = float64_at(quantizers.step, number)


# scan rows first to first + TILE of the list
@jit_inner
def _scan_tile(kernel, quantizers, lists, scratch, query, first, following):
    """Find candidates of a query among up to TILE vectors of its list, from the first-th.

    `following` is the list that will be read after this one.
    """
    start, left = list_start(lists, query.list) + first, list_size(lists, query.list) - first
    rows, then = (start, left if left < TILE else TILE), block_of(lists, list_start(lists, following))
    look(kernel[0], kernel[1], quantizers, lists, scratch, query, rows, then)
