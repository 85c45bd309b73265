"""Search of inverted lists in compiled code: the answers of `reference`, to the bit, from tables.

Three looks at a code, each at fewer of them:

1. a lower bound of its distance, from tables of 8-bit numbers (`avx512`) or of float32 (`portable`);
2. a lower and an upper bound from the float32 tables (`_weigh`); theta, the k-th smallest upper bound, limits both;
3. the defined distance (`_defined`), for what may still be among the k best: k and a few more.

**Why nothing is lost.** Smaller is better throughout: inner products have their sign turned. With a = x - centre and
g_l = c_l - centre (the centre is the mean of the centroids for l2, the origin for ip), in real numbers,

    l2:  |x - c_l - y|^2        =  |a - g_l|^2 + sum over m of (|y_m|^2 - 2 <a_m, y_m>) + 2 <g_l, y>
    ip:  -<x, c_l> - <x, y>     =  -<x, c_l>   + sum over m of -<x_m, y_m>
                               =:  base        + sum over m of T[m, j_m]                + t

1.  *Roundings.* A sum of n products in any order, fused or not, is off by at most gamma(n) times the sum of their
    magnitudes (see `screening`), gamma(n) = n u / (1 - n u), u = 2^-24. Long chains are few. Write A, G, Y for |a|,
    the longest g_l and the square root of the sum over m of the largest |y_m|^2, and R = A + G + Y.

    - base has d products of a and g_l, whose magnitudes add up to at most 2 A G, and t has d of g_l and y: 2 G Y.
    - T[m, j] has dsub = d / M products, and M of them are added; the defined sum of |x - c_l - y|^2 has
      d / (16 M) + 4 + M additions in a row, and |a|^2 and, for ip, the defined <x, c_l> have d / 16 + 4. The magnitudes
      in each of them add up to at most R^2, because |x - c_l| <= A + G.
    - Differences, squares, centring, the byte of the term, and lengths add some roundings, fewer than 64, each of
      something that is at most R^2.

    *Panels.* Products with a are those of copies a', g' and y' of 16 bits a number (`compiled.Panels`), as integers: a
    stretch of them is added up without rounding, since the scales leave no stretch longer than 2^15.5, which 32 bits
    allow. Lengths are those of the numbers themselves. That takes base off by 2 (<a, g_l> - <a', g'_l>) and the sum of
    T by 2 (<a, y> - <a', y'>), together by at most 2 (A (C + D) + B (G + Y + C + D)), where C is the largest
    |g_l - g'_l|, D^2 the sum over m of the largest |y_m - y'_m|^2, and B >= |a - a'| is half of what 1 stands for in
    a', times the root of d.

    So what is computed from tables and the defined distance differ by at most

        E = gamma (2.1 d G (A + Y) + (1.1 dsub + 2 M + d / 8 + 80) R^2) + 2.1 (A (C + D) + B (G + Y + C + D))
            + 8 d tiny

    with gamma = u / (1 - (2.1 d + 64) u). For cosine, whose 1 - distance / 2 is rounded once more, and may so tie, E
    grows by 2^-22 (1 + R^2). Where R^2 > 1e36, numbers may leave float32: E is infinite and every comparison lets pass
    (they are written so that NaN passes too). Coarse distances are off by the same with Y = D = 0 and no sum over m.
    *Residual quantizers.* T[m, j] = -2 <a, w_m[j]> for l2, and t = |y|^2 + 2 <g_l, y>: see `model`. Lengths of whole
    codewords add up, so that Y is the sum over m of the longest |w_m|, and D that of the largest |w_m - w'_m|. dsub is
    d. The M - 1 roundings of y = w_1 + ... + w_M take the place of those of the sum over m in the defined distance.
2.  *Terms.* low_l + step_l u_i <= t_i < low_l + step_l (u_i + 1), or u_i + v_i / 256 and 1 / 256: see `model`.
3.  *8-bit tables.* step * sum of t8 + sum of low_m <= sum of T + step: see `avx512`. So a code may be left out if

        sum of t8 + floor(u_i * scale / 256)  >  (theta - base - low_l - sum of low_m + E) / step + 1

4.  *theta.* The k codes with the smallest upper bounds have distances of at most theta. A code whose lower bound is
    above theta is farther than all of them. Those that remain are evaluated query by query, in order of their lower
    bounds, and passed over when the lower bound is above the k-th distance found. Ties go to the smaller id.

Arrays of the model and the lists come as addresses (records of `compiled.MODEL` and `Lists.places`): then no type of
array, read-only or unaligned or of wide codes, asks for a compilation of its own, and a call costs less. Inside there
are addresses and records only (`ROOM`): numba counts references to arrays, one atomic addition each, and what it makes
of an array, or of an index into one, takes several times as long to compile. (What a function is called with starts as
np.int64(0), not 0: numba compiles a function once for that very number too.)
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.avx512 import PREFETCH, lane_of, quantise, scan_blocks, sum_limit
from ivfpq.kernels.heaps import push, push_pair, sort_pairs
from ivfpq.kernels.portable import near_bytes, near_words
from ivfpq.kernels.vectors import (
    STRETCH,
    TOGETHER,
    add_vectors,
    address,
    byte_at,
    centred,
    entry,
    extent,
    float32_at,
    float64_at,
    free,
    in_pairs,
    inner,
    int64_at,
    memory,
    not_above,
    ones,
    panel_products,
    panel_products_together,
    prefetch,
    put_float32,
    put_float64,
    put_int64,
    sum_of_products,
    sum_of_residual_squares,
    sum_of_squares,
    trailing_zeros,
    word_at,
)

F32 = np.float32
IP, L2, COSINE = 0, 1, 2
TILE = 4096  # vectors that are scanned for all their queries before the next ones: they stay in the second-level cache
MANY = 256  # so many lists are worth a histogram in `_choose`,
BINS = 512  # of so many bins
CROWD = 8  # so many codes left to weigh in a block are worth scanning it again when theta has shrunk
FIRST = 64  # so many neighbours, or fewer, are worth looking for among the first 128 codes, and keeping in a heap
HALVINGS = 12  # of what the upper bounds range over, to find theta without one


QUERY = np.dtype(
    [(name, np.int64) for name in ("floats", "bytes", "uppers", "k", "held")]
    + [(name, np.float64) for name in ("theta", "error", "step", "low", "square", "unit")]
)
"""A query: addresses of its tables T, float32 (M, wide), and t8, uint8 (M, 256), and of `held` of its smallest upper
bounds, which for k <= FIRST are a heap, float64 (k,), and else float32, see `_shrink`; theta and E; the step of t8 and
the sum of low_m; |a|^2, and what 1 stands for in a'. With k = 0, theta is fixed. (wide is ksub, in whole panels of
64.)"""

CANDIDATE_BYTES = 32
"""A candidate: a float64 lower bound, and what it is a bound of: int64 row, list and query."""

ROOM = np.dtype(
    [(name, np.int64) for name in ("probes", "order", "places", "values", "numbers", "counts", "base", "scores", "a")]
    + [(name, np.int64) for name in ("pairs", "units", "ends", "y", "tables", "end", "found", "size", "n")]
)
"""Addresses of what a search works with (see `_furnish`), `end` being that of what is behind; of the candidates, which
may move (see `_make_room`), with how many there is room for, and how many there are."""


@entry
def search(vbmi, plain, model, lists, x, nprobe, kept, queries, rooms, unordered, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k), best first; missing ones as infinity and -1.

    If `unordered`, ids are those of the k best in no order: most are known without their defined distances.

    Parameters
    ----------
    vbmi, plain : True and None, or None and True
        Which scan to use. None, not False: numba then leaves out the code of the other.
    model, lists : record arrays, shape (1,)
        See `compiled.MODEL` and `Lists.places`.
    x : float32 array, shape (nq, d)
    nprobe : int
    kept : int
        k, or fewer where fewer vectors are stored.
    queries, rooms : arrays of types QUERY, shape (nq,), and ROOM, shape (1,)
        To be filled in; arrays made by Python take no time to compile.
    unordered : True or None
        None, not False, as for the scans.
    """
    model_, lists_, room, vectors = model[0], lists[0], rooms[0], address(x)
    nq, k = ids.shape
    _scan(vbmi, plain, model_, lists_, vectors, nprobe, kept, np.inf, queries, room)
    by_query = memory(8 * (nq + 2) + 24 * room.n)
    _by_query(room, nq, by_query)
    order = by_query + 8 * (nq + 2)
    sign = F32(1.0) if model_.metric == L2 else F32(-1.0)
    for q in range(nq):
        first, last = int64_at(by_query + 8 * q), int64_at(by_query + 8 * q + 8)
        at = vectors + 4 * q * model_.d
        if unordered is not None:
            to = address(ids) + 8 * q * k
            for i in range(_members(model_, lists_, room, queries[q], at, order, first, last, kept, to), k):
                ids[q, i] = -1
        else:
            size = _best(model_, lists_, room, at, order, first, last, kept)
            for rank in range(k):
                if rank < size:
                    distances[q, rank] = sign * F32(float64_at(room.values + 8 * rank))
                    ids[q, rank] = int64_at(room.numbers + 8 * rank)
                else:
                    distances[q, rank], ids[q, rank] = sign * F32(np.inf), -1
    free(by_query)
    free(room.found)
    free(room.probes)


@entry
def range_search(vbmi, plain, model, lists, x, nprobe, kept, queries, rooms, theta):
    """All whose lower bound is not above theta: query numbers, values (smaller is better), and ids.

    The others are as for `search`, `kept` being 0.
    """
    model_, lists_, room = model[0], lists[0], rooms[0]
    _scan(vbmi, plain, model_, lists_, address(x), nprobe, kept, theta, queries, room)
    n = room.n
    asking, values, ids = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.int64)
    for c in range(n):
        row, number, q = _whose(room.found + CANDIDATE_BYTES * c)
        asking[c] = q
        values[c] = _defined(model_, lists_, room, address(x) + 4 * q * model_.d, number, row)
        ids[c] = _id(lists_, row)
    free(room.found)
    free(room.probes)
    return asking, values, ids


@inner
def _scan(vbmi, plain, model, lists, x, nprobe, kept, theta, queries, room):
    """Find the candidates of the queries at address x: no vector that is not among them can be in the answer.

    The nearest list of a query is scanned as soon as its tables are there, which gives it a good limit; the others
    after that, list by list, so that a list is read from memory once for all its queries.
    """
    nq = len(queries)
    _furnish(room, model, nq, nprobe, kept, np.int64(0))
    _furnish(room, model, nq, nprobe, kept, memory(room.end))
    room.size, room.n = 2 * TILE, 0
    room.found = memory(CANDIDATE_BYTES * room.size)
    _scan_nearest(vbmi, plain, model, lists, x, nprobe, kept, theta, queries, room)
    _scan_others(vbmi, plain, model, lists, nprobe, queries, room)
    if kept > FIRST:
        for q in range(nq):
            _shrink(queries[q])
    _drop(room, queries)


@inner
def _furnish(room, model, nq, nprobe, kept, start):
    """Give everything that does not grow a place in memory, from address `start` on."""
    pairs = nq * nprobe
    most = nprobe if nprobe > kept else kept
    room.probes = start  # int64 (nq * nprobe,): lists to look into, the nearest one of each query first
    room.order = room.probes + 8 * pairs  # int64 (nq * nprobe,): see `_visits`
    room.places = room.order + 8 * pairs  # int64 (nlist + 2,), for `_visits`
    room.values = room.places + 8 * (model.nlist + 2)  # float64 and int64 (most,): a heap of lists, or of neighbours
    room.numbers = room.values + 8 * most
    room.counts = room.numbers + 8 * most  # int64 (BINS + 1,), for `_rough_limit`
    room.base = room.counts + 8 * (BINS + 1)  # float32 (nq * nprobe,): coarse distances of `probes`
    room.scores = room.base + 4 * pairs  # float32 (TOGETHER, nlist in whole panels): those of all lists
    room.a = room.scores + 4 * TOGETHER * ((model.nlist + 63) & ~63)  # float32 (d,), in even parts: see `_cut`
    room.pairs = room.a + 4 * _even_width(model)  # int16 (d / 2, TOGETHER, 2)
    room.units = room.pairs + 2 * TOGETHER * _even_width(model)  # float32 (TOGETHER,)
    room.ends = room.units + 4 * TOGETHER  # float32 (M, 2), for `quantise`
    room.y = room.ends + 8 * model.M  # float32 (d,), for `_defined`
    room.tables = (room.y + 4 * model.d + 63) & ~63  # for each query what its record has the addresses of
    # 64 more, as `tables` may be rounded up by less elsewhere.
    room.end = room.tables + nq * _table_bytes(model, kept) + 64


@inner
def _table_bytes(model, kept):
    """Bytes of the tables of a query and of its upper bounds, so that tables stay aligned."""
    return 256 * model.M + 4 * model.M * model.wide + ((8 * (kept + 32) + 63) & ~63)


@inner
def _scan_nearest(vbmi, plain, model, lists, x, nprobe, kept, theta, queries, room):
    """Fill queries, probes and base, and find the candidates of the nearest lists."""
    nq, start, stride = len(queries), 0, _table_bytes(model, kept)
    wide = (model.nlist + 63) & ~63
    while start < nq:
        count = TOGETHER if nq - start >= TOGETHER else 1
        for q in range(start, start + count):
            queries[q].bytes = room.tables + stride * q
            queries[q].floats = queries[q].bytes + 256 * model.M
            queries[q].uppers = queries[q].floats + 4 * model.M * model.wide
            vector = x + 4 * q * model.d
            queries[q].square = sum_of_squares(vector, model.centre, model.d)
            queries[q].unit = _cut(model, vector, room, room.pairs + 4 * (q - start), 4 * count)
            factor = F32(-1.0) if model.metric == IP else F32(-2.0)
            put_float32(room.units + 4 * (q - start), factor * F32(queries[q].unit))
        _products(model, count, room.pairs, room.units, room.scores, 4 * wide, queries[start].floats, stride)
        for q in range(start, start + count):
            query, vector, first = queries[q], x + 4 * q * model.d, q * nprobe
            coarse_error, query.error = _errors(model, query.square, query.unit)
            shift = F32(0.0 if model.metric == IP else query.square)
            _choose(model, room, room.scores + 4 * wide * (q - start), shift, coarse_error, vector, first, nprobe)
            query.k, query.held, query.theta = kept, 0, theta
            number = int64_at(room.probes + 8 * first)
            if vbmi is not None:
                prefetch(_block(lists, int64_at(lists.starts + 8 * number)), PREFETCH)
                query.step, query.low = quantise(query.floats, model.M, model.wide, query.bytes, room.ends)
            near = float32_at(room.base + 4 * first)
            for tile in range(0, int64_at(lists.sizes + 8 * number), TILE):
                _make_room(room, queries)
                _tile(vbmi, plain, model, lists, query, q, number, tile, near, number, room)
        start += count


@inner
def _scan_others(vbmi, plain, model, lists, nprobe, queries, room):
    """Find the candidates of all other lists, in order of the lists."""
    count = len(queries) * (nprobe - 1)
    _visits(room, model.nlist, len(queries), nprobe)
    run = np.int64(0)
    while run < count:
        number = _visited(room, run)
        end = run + 1
        while end < count and _visited(room, end) == number:
            end += 1
        following = _visited(room, end) if end < count else number
        for tile in range(0, int64_at(lists.sizes + 8 * number), TILE):
            for visit in range(run, end):
                _make_room(room, queries)
                pair = int64_at(room.order + 8 * visit)
                q, near = pair // nprobe, float32_at(room.base + 4 * pair)
                _tile(vbmi, plain, model, lists, queries[q], q, number, tile, near, following, room)
        run = end


@inner
def _tile(vbmi, plain, model, lists, query, q, number, first, near, following, room):
    """Find candidates of query q among up to TILE vectors of a list, from the first-th.

    `near` is the coarse distance as in base, `following` the list that will be read after this one.
    """
    start, left = int64_at(lists.starts + 8 * number) + first, int64_at(lists.sizes + 8 * number) - first
    size = left if left < TILE else TILE
    base = np.float64(near) + float64_at(model.low + 8 * number)
    spread = float64_at(model.step + 8 * number)
    if plain is not None:
        room.n = _scan_floats(model, lists, query, q, number, base, spread, start, size, room.found, room.n)
    if vbmi is not None:
        then = _block(lists, int64_at(lists.starts + 8 * following))
        room.n = _scan_bytes(model, lists, query, q, number, base, spread, start, size, then, room.found, room.n)


@inner
def _even_width(model):
    """How many numbers a vector has with a zero behind each odd part, and more behind the last: a multiple of 16."""
    return (_parts(model) * 2 * ((model.dsub + 1) // 2) + 15) & ~15


@inner
def _parts(model):
    """How many codebooks' parts a vector has: M, or 1 where codewords are whole vectors."""
    return model.M if model.part else 1


@inner
def _cut(model, x, room, pairs, stride):
    """Write a' of the query at address x, pairs of int16 every `stride` bytes; returns what 1 stands for in it.

    Each part has a zero behind it if it is odd.
    """
    together, wide, a = 2 * ((model.dsub + 1) // 2), _even_width(model), room.a
    parts, width = (_parts(model), model.dsub) if model.dsub & 1 else (1, model.d)
    for i in range(0 if model.dsub & 1 else model.d, wide):
        put_float32(a + 4 * i, F32(0.0))
    for m in range(parts):
        centred(x + 4 * width * m, width, model.centre + 4 * width * m, a + 4 * together * m)
    longest = F32(0.0)
    for first in range(0, wide, 2 * STRETCH):
        size = 2 * STRETCH if first + 2 * STRETCH < wide else wide - first
        square = sum_of_products(a + 4 * first, a + 4 * first, size)
        longest = square if square > longest else longest
    aligned = together % (2 * STRETCH) == 0 or (2 * STRETCH) % together == 0  # else stretches of parts overlap two
    extent(a, wide, room.ends)
    unit = np.sqrt(np.float64(longest) * (1.0 if aligned else 2.0)) / model.reach
    low, high = float32_at(room.ends), float32_at(room.ends + 4)
    least = np.float64(high if high > -low else -low) / 32766.0
    unit = least if least > unit else unit
    unit = 1e-30 if unit < 1e-30 else 1e35 if unit > 1e35 else unit
    in_pairs(a, wide, F32(1.0 / unit), pairs, stride)
    return unit


@inner
def _products(model, count, x, units, scores, scores_stride, tables, tables_stride):
    """Coarse distances, but for |a|^2, and tables T of `count` queries, 1 or TOGETHER, from the panels.

    Parameters
    ----------
    x, units, scores, tables : int
        Addresses of int16 (d / 2, count, 2), with even parts, and float32 (count,), (count, nlist in whole panels), and
        (count, M, wide).
    scores_stride, tables_stride : int
        From one query's to the next one's, in bytes.
    """
    M, wide, pairs = model.M, model.wide, (model.dsub + 1) // 2
    whole = _parts(model) * pairs
    for first in range(0, model.nlist, 64):
        panel, start = model.centroid_panels + 4 * whole * first, model.centroid_squares + 4 * first
        scale = F32(model.centroid_scale)
        _panel(count, x, whole, panel, units, scale, start, scores + 4 * first, scores_stride)
    for first in range(0, M * wide, 64):
        part_of_x = x + 4 * count * (pairs if model.part else 0) * (first // wide)
        panel, start = model.codebook_panels + 4 * pairs * first, model.codebook_squares + 4 * first
        scale = F32(model.codebook_scale)
        _panel(count, part_of_x, pairs, panel, units, scale, start, tables + 4 * first, tables_stride)


@inner
def _panel(count, x, n, panel, units, scale, start, out, stride):
    """`panel_products` for `count` queries, stretch by stretch: compiled once, not where it is called."""
    step = 0
    for first in range(0, n, STRETCH):
        at, pairs = x + 4 * count * first, STRETCH if first + STRETCH < n else n - first
        if count == 1:
            panel_products(at, pairs, panel + 256 * first, units, scale, start, step, out, stride)
        else:
            panel_products_together(at, pairs, panel + 256 * first, units, scale, start, step, out, stride)
        start, step = out, stride


@inner
def _errors(model, square, unit):
    """What screened coarse distances, and distances of codes, can be off by, with |a|^2: see the proof above."""
    d = np.float64(model.d)
    terms = (2.1 * d + 64.0) * 2.0**-24
    gamma = 2.0**-24 / (1.0 - terms) if terms < 0.5 else np.inf
    length = np.sqrt(square) * (1.001 + terms)
    cut = 0.51 * unit * np.sqrt(d)
    centroid, code = model.longest_centroid, model.longest_code
    near, far = length + centroid, length + centroid + code
    coarse, reach = near * near, far * far
    few = d / 8.0 + 80.0
    floor = 8.0 * d * 1.2e-38
    loss = 2.1 * (length * model.centroid_loss + cut * (centroid + model.centroid_loss))
    coarse_error = gamma * (2.1 * d * centroid * length + few * coarse) + loss + floor
    few += 1.1 * np.float64(model.dsub) + 2.0 * model.M
    loss += 2.1 * (length * model.codebook_loss + cut * (code + model.codebook_loss))
    error = gamma * (2.1 * d * centroid * (length + code) + few * reach) + loss + floor
    if model.metric == COSINE:
        error += 2.0**-22 * (1.0 + reach)
    return coarse_error if coarse < 1e36 else np.inf, error if reach < 1e36 else np.inf


@inner
def _choose(model, room, scores, shift, error, x, first, nprobe):
    """The nprobe lists nearest to the query at address x by the defined coarse distance, ties to the smaller number.

    The scores at the address `scores`, with `shift` added, are off by at most `error`. So a list is among the nearest
    if its score is below the nprobe-th smallest less 2 error, because fewer than nprobe others can be as near, and it
    is not if its score is above that plus 2 error. Between these, the defined distances decide. The nearest by score
    comes first in probes[first:first + nprobe], the others in no order, and their scores in base.
    """
    values, numbers = room.values, room.numbers
    limit = _rough_limit(room.counts, room.ends, scores, model.nlist, nprobe)
    n = np.int64(0)
    for start in range(0, model.nlist, 64):
        mask = _lists_below(model, scores, start, limit)
        while mask != 0:
            near = start + np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            n = push_pair(values, numbers, nprobe, n, np.float64(float32_at(scores + 4 * near)), near)
    sure, doubt = float64_at(values) - 2.0 * error, float64_at(values) + 2.0 * error
    limit = F32(doubt + abs(doubt) * 2.0**-22)
    maybe = np.uint64(0)
    for start in range(0, model.nlist, 64):
        maybe += ones(_lists_below(model, scores, start, limit))
    if maybe > np.uint64(nprobe):
        n = np.int64(0)
        for number in range(model.nlist):
            score = np.float64(float32_at(scores + 4 * number))
            if score < sure:
                n = push_pair(values, numbers, nprobe, n, -np.inf, number)
            elif not score > doubt:
                value = np.float64(_coarse_distance(model, x, number))
                n = push_pair(values, numbers, nprobe, n, value, number)
    probes, base = room.probes + 8 * first, room.base + 4 * first
    for p in range(nprobe):
        number = int64_at(numbers + 8 * p)
        score = float32_at(scores + 4 * number) + shift
        put_int64(probes + 8 * p, number)
        put_float32(base + 4 * p, score)
        if score < float32_at(base):
            put_int64(probes + 8 * p, int64_at(probes))
            put_float32(base + 4 * p, float32_at(base))
            put_int64(probes, number)
            put_float32(base, score)


@inner
def _lists_below(model, scores, start, limit):
    """Which of lists start ... start + 63 have a score not above a limit, as bits."""
    mask = not_above(scores + 4 * start, limit)
    left = model.nlist - start
    return mask if left >= 64 else mask & ((np.uint64(1) << np.uint64(left)) - np.uint64(1))


@inner
def _rough_limit(counts, ends, scores, n, wanted):
    """A limit that `wanted` of the n numbers at the address `scores`, or a few more, do not exceed: the end of a bin.

    What is behind the n-th number, up to the next multiple of 64, repeats it. `counts` and `ends` are addresses of
    int64 (BINS + 1,) and float32 (2,), to work in.
    """
    if n < MANY or wanted >= n:
        return F32(np.inf)
    extent(scores, (n + 63) & ~63, ends)
    low, width = float32_at(ends), (float32_at(ends + 4) - float32_at(ends)) / F32(BINS - 1)
    if not (width > F32(0.0) and width < F32(np.inf)):
        return F32(np.inf)
    for i in range(BINS + 1):  # rounding may put the highest one bin up
        put_int64(counts + 8 * i, 0)
    inverse = F32(1.0) / width
    for i in range(n):
        place = np.int64((float32_at(scores + 4 * i) - low) * inverse)
        at = counts + 8 * (place if 0 <= place <= BINS else BINS)  # NaN may be any number
        put_int64(at, int64_at(at) + 1)
    number, below = 0, int64_at(counts)
    while below < wanted:
        number += 1
        below += int64_at(counts + 8 * number)
    return F32(low + F32(number + 2) * width)


@inner
def _coarse_distance(model, x, number):
    """As `distances.pair_distances` of the query at address x, the sign turned for ip."""
    centroid = model.centroids + 4 * model.d * number
    if model.metric == IP:
        return -F32(sum_of_products(x, centroid, model.d) + F32(0.0))
    return sum_of_squares(x, centroid, model.d)


@inner
def _visits(room, nlist, nq, nprobe):
    """Put into `order` the places in `probes` but those of the nearest lists, in order of the lists."""
    places = room.places
    for i in range(nlist + 2):
        put_int64(places + 8 * i, 0)
    for pair in range(nq * nprobe):
        if pair % nprobe:
            place = places + 8 * int64_at(room.probes + 8 * pair) + 16
            put_int64(place, int64_at(place) + 1)
    for i in range(nlist):
        put_int64(places + 8 * i + 16, int64_at(places + 8 * i + 16) + int64_at(places + 8 * i + 8))
    for pair in range(nq * nprobe):
        if pair % nprobe:
            place = places + 8 * int64_at(room.probes + 8 * pair) + 8
            put_int64(room.order + 8 * int64_at(place), pair)
            put_int64(place, int64_at(place) + 1)


@inner
def _visited(room, visit):
    """The list of a visit."""
    return int64_at(room.probes + 8 * int64_at(room.order + 8 * visit))


@inner
def _make_room(room, queries):
    """See to it that there is room for the candidates of another tile."""
    if room.n + TILE > room.size:
        _drop(room, queries)
        if room.n + TILE > room.size // 2:
            more = memory(2 * CANDIDATE_BYTES * room.size)
            for i in range(0, CANDIDATE_BYTES * room.n, 8):
                put_int64(more + i, int64_at(room.found + i))
            free(room.found)
            room.found, room.size = more, 2 * room.size


@inner
def _drop(room, queries):
    """Forget candidates that theta has meanwhile left out."""
    kept = room.found
    for c in range(room.n):
        candidate = room.found + CANDIDATE_BYTES * c
        if not float64_at(candidate) > queries[int64_at(candidate + 24)].theta:
            for i in range(0, CANDIDATE_BYTES, 8):
                put_int64(kept + i, int64_at(candidate + i))
            kept += CANDIDATE_BYTES
    room.n = (kept - room.found) // CANDIDATE_BYTES


@inner
def _whose(candidate):
    """Row, list and query of the candidate at an address."""
    return int64_at(candidate + 8), int64_at(candidate + 16), int64_at(candidate + 24)


@inner
def _block(lists, row):
    """Address of the block of a row."""
    return lists.blocks + (row >> 6) * 64 * lists.width * lists.code_bytes


@inner
def _scan_floats(model, lists, query, q, number, base, spread, start, size, found, n):
    """Look through rows start ... start + size - 1 for query q by float32 sums; returns the number of candidates."""
    finer = F32(spread / 256.0)
    for first in range(0, size, 64):
        block = _block(lists, start + first)
        bound = query.theta + query.error - base
        limit = F32(bound + abs(bound) * 2.0**-22)
        if lists.code_bytes == 1:
            mask = near_bytes(query.floats, model.M, model.wide, model.terms, finer, block, limit)
        else:
            mask = near_words(query.floats, model.M, model.wide, model.terms, finer, block, limit)
        while mask != 0:
            lane = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            if lane < size - first:
                n = _weigh(model, lists, query, q, number, base, spread, block, start + first + lane, found, n)
    return n


@inner
def _scan_bytes(model, lists, query, q, number, base, spread, start, size, then, found, n):
    """The same by 8-bit sums, two blocks at a time; meanwhile the block at `then`, to be scanned next, is asked for."""
    scale = np.uint16(spread / query.step * 255.99) if spread / query.step < 256.0 else np.uint16(65535)
    block_bytes = 64 * lists.width
    block = _block(lists, start)
    end = block + (size + 63) // 64 * block_bytes
    if not query.theta < np.inf and size >= 128 and 0 < query.k <= FIRST:
        _first_theta(model, lists, query, base, spread, scale, block)
    offset = query.error - base - query.low
    limit = sum_limit((query.theta + offset) / query.step + 1.0)
    for first in range(0, size, 128):
        stride = block_bytes if first + 64 < size else 0
        ahead = block + PREFETCH if block + PREFETCH < end else then + (block + PREFETCH - end)
        masks = scan_blocks(block, stride, ahead, query.bytes, model.M, model.terms, scale, limit)
        for half in range(2 if stride else 1):
            mask = masks[half]
            while mask != 0:
                at = first + 64 * half + lane_of(np.int64(trailing_zeros(mask)))
                mask &= mask - np.uint64(1)
                if at >= size:
                    continue
                theta = query.theta
                where = block + half * block_bytes
                n = _weigh(model, lists, query, q, number, base, spread, where, start + at, found, n)
                if query.theta < theta:
                    limit = sum_limit((query.theta + offset) / query.step + 1.0)
                    if ones(mask) > CROWD:
                        masks = scan_blocks(block, stride, ahead, query.bytes, model.M, model.terms, scale, limit)
                        mask &= masks[half]
        block += 2 * block_bytes
    return n


@inner
def _first_theta(model, lists, query, base, spread, scale, block):
    """A first theta, from k or a few more codes of two full blocks that have the smallest 8-bit sums.

    Without it, all of them would be weighed. The codes are met again in the scan: the heap is left empty.
    """
    block_bytes = 64 * lists.width
    low, high = 0, 255 * model.M + np.int64(scale)
    high = high if high < 65535 else 65535
    masks = scan_blocks(block, block_bytes, block, query.bytes, model.M, model.terms, scale, np.uint16(high))
    for _ in range(8):
        limit = (low + high) >> 1
        tried = scan_blocks(block, block_bytes, block, query.bytes, model.M, model.terms, scale, np.uint16(limit))
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
            lower = _lower(model, lists, query, base, spread, block + half * block_bytes, lane)
            query.held = push(query.uppers, query.k, query.held, _upper(model, query, lower, spread))
    query.theta, query.held = float64_at(query.uppers), 0


@inner
def _lower(model, lists, query, base, spread, block, lane):
    """A lower bound of the distance of one code, from float32 tables."""
    total = F32(0.0)
    for m in range(model.M):
        total += float32_at(query.floats + 4 * (m * model.wide + np.int64(_number(lists, block, m, lane))))
    lower = base - query.error + np.float64(total)
    if model.terms:
        lower += spread * np.float64(_number(lists, block, model.M, lane))
    if model.terms == 2:
        lower += spread / 256.0 * np.float64(_number(lists, block, model.M + 1, lane))
    return lower


@inner
def _upper(model, query, lower, spread):
    """The upper bound that belongs to a lower bound."""
    return lower + (spread / 256.0 if model.terms == 2 else spread) + 2.0 * query.error


@inner
def _weigh(model, lists, query, q, number, base, spread, block, row, found, n):
    """The second look, at one code: keep it if it may be near, and let theta know; returns how many are kept."""
    lower = _lower(model, lists, query, base, spread, block, row & 63)
    if lower > query.theta:
        return n
    at = found + CANDIDATE_BYTES * n
    put_float64(at, lower)
    put_int64(at + 8, row)
    put_int64(at + 16, number)
    put_int64(at + 24, q)
    upper = _upper(model, query, lower, spread)
    if upper < query.theta and query.k > 0:
        if query.k <= FIRST:
            query.held = push(query.uppers, query.k, query.held, upper)
            if query.held == query.k:
                query.theta = float64_at(query.uppers)
        else:
            put_float32(query.uppers + 4 * query.held, F32(upper + abs(upper) * 2.0**-22))
            query.held += 1
            if query.held >= query.k + query.k // 2 and query.held & 63 == 0:
                _shrink(query)
    return n + 1


@inner
def _shrink(query):
    """Set theta to the k-th smallest of the upper bounds, or a little above, and keep k that do not exceed it.

    In a heap of many, each bound would cost a walk through it.
    """
    if query.held < query.k:
        return
    low, high = float32_at(query.uppers), float32_at(query.uppers)
    for i in range(query.held):
        value = float32_at(query.uppers + 4 * i)
        low, high = value if value < low else low, value if value > high else high
    for i in range(query.held, (query.held + 63) & ~63):
        put_float32(query.uppers + 4 * i, F32(np.inf))
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
        value = float32_at(query.uppers + 4 * i)
        if value <= high and held < query.k:
            put_float32(query.uppers + 4 * held, value)
            held += 1
    query.held, query.theta = held, np.float64(high) if high < query.theta else query.theta


@inner
def _number(lists, block, m, lane):
    """The m-th number of a code, as uint64."""
    if lists.code_bytes == 1:
        return byte_at(block + 64 * m + lane)
    return word_at(block + 2 * (64 * m + lane))


@inner
def _by_query(room, nq, ends):
    """Put the candidates' numbers in order of the queries.

    `ends` is the address of int64 (nq + 2,) and, behind it, (n,) for the order: the numbers of query q's candidates are
    at ends[q] to ends[q + 1] - 1 there.
    """
    order = ends + 8 * (nq + 2)
    for i in range(nq + 2):
        put_int64(ends + 8 * i, 0)
    for c in range(room.n):
        place = ends + 8 * int64_at(room.found + CANDIDATE_BYTES * c + 24) + 16
        put_int64(place, int64_at(place) + 1)
    for q in range(nq):
        put_int64(ends + 8 * q + 16, int64_at(ends + 8 * q + 16) + int64_at(ends + 8 * q + 8))
    for c in range(room.n):
        place = ends + 8 * int64_at(room.found + CANDIDATE_BYTES * c + 24) + 8
        put_int64(order + 8 * int64_at(place), c)
        put_int64(place, int64_at(place) + 1)


@inner
def _best(model, lists, room, x, order, first, last, k):
    """The k best of one query's candidates, in order of their lower bounds until those pass the k-th value.

    Parameters
    ----------
    x : int
        Address of the query.
    order : int
        Address of int64 (n,), the query's candidates at `first` to `last` - 1, with room for two such arrays behind.

    Returns
    -------
    int
        How many were found: the heap in `room` has them, best first.
    """
    lower, candidates = order + 8 * room.n, order + 16 * room.n
    count = last - first
    size = np.int64(0)
    for i in range(first, last):
        candidate = room.found + CANDIDATE_BYTES * int64_at(order + 8 * i)
        bound = float64_at(candidate)
        if model.metric == COSINE:  # as values are: -(1 - distance / 2)
            bound = 0.5 * bound - 1.0
        size = push_pair(lower, candidates, count, size, bound, candidate)
    sort_pairs(lower, candidates, size)
    n = np.int64(0)
    for i in range(count):
        if n == k and float64_at(lower + 8 * i) > float64_at(room.values):
            break
        row, number, _ = _whose(int64_at(candidates + 8 * i))
        value = np.float64(_defined(model, lists, room, x, number, row))
        n = push_pair(room.values, room.numbers, k, n, value, _id(lists, row))
    sort_pairs(room.values, room.numbers, n)
    return n


@inner
def _members(model, lists, room, query, x, order, first, last, k, ids):
    """Put the ids of the k best of one query's candidates, in no order, at address ids; returns how many there are.

    The other parameters are as for `_best`. An upper bound below the (k + 1)-th smallest lower bound says that fewer
    than k others can be as near.
    """
    count, far = last - first, order + 8 * room.n
    held, n, doubtful = np.int64(0), np.int64(0), first
    limit = np.inf
    if count > k:  # a heap of the count - k largest lower bounds, the sign turned
        for i in range(first, last):
            lower = float64_at(room.found + CANDIDATE_BYTES * int64_at(order + 8 * i))
            held = push(far, count - k, held, -lower if lower > -np.inf else np.inf)  # NaN says nothing
        limit = -float64_at(far)
    for i in range(first, last):
        candidate = room.found + CANDIDATE_BYTES * int64_at(order + 8 * i)
        row, number, _ = _whose(candidate)
        if count <= k or _upper(model, query, float64_at(candidate), float64_at(model.step + 8 * number)) < limit:
            put_int64(ids + 8 * n, _id(lists, row))
            n += 1
        else:
            put_int64(order + 8 * doubtful, int64_at(order + 8 * i))
            doubtful += 1
    best = _best(model, lists, room, x, order, first, doubtful, k - n) if n < k else np.int64(0)
    for i in range(best):
        put_int64(ids + 8 * (n + i), int64_at(room.numbers + 8 * i))
    return n + best


@inner
def _defined(model, lists, room, x, number, row):
    """The defined distance (`reference.adc`) of the query at address x, the sign turned for ip and cosine."""
    dsub = model.dsub
    block = _block(lists, row)
    centroid = model.centroids + 4 * model.d * number
    total = F32(0.0)
    if model.metric == IP:
        total = sum_of_products(x, centroid, model.d)
    for m in range(model.M):
        codeword = _codeword(model, lists, block, m, row & 63)
        if model.part == 0:  # of whole vectors, whose sum is compared as one part
            for other in range(1, model.M):
                add_vectors(codeword, _codeword(model, lists, block, other, row & 63), dsub, room.y)
                codeword = room.y
        offset = 4 * m * model.part
        if model.metric == IP:
            total = F32(total + sum_of_products(x + offset, codeword, dsub))
        else:
            total = F32(total + sum_of_residual_squares(x + offset, centroid + offset, codeword, dsub))
        if model.part == 0:
            break
    if model.metric == COSINE:
        total = F32(F32(1.0) - total / F32(2.0))
    total = F32(total + F32(0.0))  # no negative zero
    return total if model.metric == L2 else -total


@inner
def _codeword(model, lists, block, m, lane):
    """Address of the m-th codeword of a code."""
    return model.codebooks + 4 * model.dsub * (m * model.ksub + np.int64(_number(lists, block, m, lane)))


@inner
def _id(lists, row):
    """The id of a row: `id_bytes` bytes, the lowest first."""
    number, place = np.uint64(0), lists.ids + lists.id_bytes * row
    for i in range(lists.id_bytes):
        number |= np.uint64(byte_at(place + i)) << np.uint64(8 * i)
    return np.int64(number)
