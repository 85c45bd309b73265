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
    magnitudes (see `distances`). With R = |a| + max |g_l| + Y, Y^2 = sum over m of the largest |y_m|^2, the magnitudes
    in base, T and t add up to at most R^2, and so do those of the defined sum, because |x - c_l| <= |a| + |g_l|.
    The longest chain of additions is d in base, d / M + M in a sum of T, d in t, d / (16 M) + M + 4 in the definition;
    M <= d. So what is computed from tables and the defined distance differ by at most

        E = (2.1 d + 64) u / (1 - (2.1 d + 64) u) R^2 + 8 d tiny,      u = 2^-24

    the 64 being for differences, squares, centring, the byte of the term, and lengths. For cosine, whose
    1 - distance / 2 is rounded once more, and may so tie, E grows by 2^-22 (1 + R^2). Where R^2 > 1e36, numbers may
    leave float32: E is infinite and every comparison lets pass (they are written so that NaN passes too).
2.  *Terms.* low_l + step_l u_i <= t_i < low_l + step_l (u_i + 1): see `model`.
3.  *8-bit tables.* step * sum of t8 + sum of low_m <= sum of T + step: see `avx512`. So a code may be left out if

        sum of t8 + floor(u_i * scale / 256)  >  (theta - base - low_l - sum of low_m + E) / step + 1

4.  *theta.* The k codes with the smallest upper bounds have distances of at most theta. A code whose lower bound is
    above theta is farther than all of them. Those that remain are evaluated query by query, in order of their lower
    bounds, and passed over when the lower bound is above the k-th distance found. Ties go to the smaller id.

Arrays of the model and the lists come as addresses (records of `compiled.MODEL` and `Lists.places`): then no type of
array, read-only or unaligned or of wide codes, asks for a compilation of its own, and a call costs less.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ivfpq.kernels.avx512 import quantise, scan_blocks, sum_limit
from ivfpq.kernels.heaps import push, push_pair, sort_pairs
from ivfpq.kernels.portable import near_bytes, near_words
from ivfpq.kernels.vectors import (
    address,
    byte_at,
    entry,
    float32_at,
    float64_at,
    inner,
    int64_at,
    ones,
    panel_products,
    part,
    sum_of_products,
    sum_of_residual_squares,
    sum_of_squares,
    trailing_zeros,
    word_at,
)

F32 = np.float32
IP, L2, COSINE = 0, 1, 2
TILE = 64  # blocks that are scanned for all their queries before the next ones: they stay in the second-level cache
BINS = 512  # of the histogram in `_choose`
CROWD = 8  # so many codes left to weigh in a block are worth scanning it again when theta has shrunk


class Tables(NamedTuple):
    """What the scan reads, for nq queries."""

    probes: Any
    """int64 (nq * nprobe,): the lists of query 0, of query 1, ..., the nearest of each first"""
    base: Any
    """float32 (nq * nprobe,)"""
    error: Any
    """E, float64 (nq,)"""
    floats: Any
    """T, float32 (nq, M, ksub)"""
    bytes: Any
    """t8, uint8 (nq, M, 256); of no queries where the floats are scanned"""
    steps: Any
    """float64 (nq,)"""
    lows: Any
    """Sums of low_m, float64 (nq,)"""


class Limits(NamedTuple):
    """What is known of the k-th distance of each query."""

    theta: Any
    """float64 (nq,)"""
    uppers: Any
    """Heaps of the smallest upper bounds, float64 (nq, k); k = 0 where theta is fixed"""
    held: Any
    """How many a heap holds, int64 (nq,)"""


class Found(NamedTuple):
    """Candidates, in arrays with room for more."""

    lower: Any
    """Lower bounds, float64"""
    row: Any
    """Rows of the lists, int64"""
    pair: Any
    """Places in `Tables.probes`: which query, and which of its lists, int64"""


@entry
def search(vbmi, plain, model, lists, x, nprobe, given, scores, tables, bytes_, uppers, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k), best first; missing ones as infinity and -1.

    Parameters
    ----------
    vbmi, plain : True and None, or None and True
        Which scan to use. None, not False: numba then leaves out the code of the other.
    model, lists : record arrays, shape (1,)
        See `compiled.MODEL` and `Lists.places`.
    x : float32 array, shape (nq, d)
    nprobe : int
    given : bool
        Whether scores and tables are `Ready.products` of x; otherwise they are filled here.
    scores, tables : float32 arrays, shapes (nq, nlist) and (nq, M, ksub)
    bytes_ : uint8 array, shape (nq, M, 256); of no queries for the plain scan
    uppers : float64 array, shape (nq, k or fewer where fewer vectors are stored)
        Arrays made by Python take no time to compile.
    """
    model_, lists_ = model[0], lists[0]
    nq, k = distances.shape
    ready = _tables(vbmi, model_, x, nprobe, given, scores, tables, bytes_)
    limits = Limits(np.empty(nq, np.float64), uppers, np.empty(nq, np.int64))
    for q in range(nq):
        limits.theta[q], limits.held[q] = np.inf, 0
    found, n = _scan(vbmi, plain, model_, lists_, ready, limits, nprobe)
    order, ends = _by_query(found, n, nq, nprobe)
    values, numbers = np.empty(k, np.float64), np.empty(k, np.int64)
    sign = F32(1.0) if model_.metric == L2 else F32(-1.0)
    for q in range(nq):
        at = address(x) + 4 * q * model_.d
        size = _best(model_, lists_, at, ready.probes, found, order, ends[q], ends[q + 1], values, numbers)
        for rank in range(k):
            if rank < size:
                distances[q, rank], ids[q, rank] = sign * F32(values[rank]), numbers[rank]
            else:
                distances[q, rank], ids[q, rank] = sign * F32(np.inf), -1


@entry
def range_search(vbmi, plain, model, lists, x, nprobe, given, scores, tables, bytes_, uppers, theta):
    """All whose lower bound is not above theta float64 (nq,): query numbers, values (smaller is better), and ids.

    `uppers` has the shape (nq, 0): the limits are fixed.
    """
    model_, lists_ = model[0], lists[0]
    ready = _tables(vbmi, model_, x, nprobe, given, scores, tables, bytes_)
    limits = Limits(theta, uppers, np.empty(0, np.int64))
    found, n = _scan(vbmi, plain, model_, lists_, ready, limits, nprobe)
    queries, values, ids = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.int64)
    for c in range(n):
        pair = found.pair[c]
        queries[c] = pair // nprobe
        values[c] = _defined(model_, lists_, address(x) + 4 * queries[c] * model_.d, ready.probes[pair], found.row[c])
        ids[c] = _id(lists_, found.row[c])
    return queries, values, ids


@part
def _tables(vbmi, model, x, nprobe, given, scores, tables, bytes_):
    """Everything that depends on the query and not on the codes."""
    nq = len(x)
    error, coarse_error = np.empty(nq, np.float64), np.empty(nq, np.float64)
    probes, base = np.empty(nq * nprobe, np.int64), np.empty(nq * nprobe, np.float32)
    if not given:
        _products(model, x, scores, tables)
    for q in range(nq):
        square = sum_of_squares(address(x) + 4 * q * model.d, model.centre, model.d)
        coarse_error[q], error[q] = _errors(model, square)
        shift = F32(0.0) if model.metric == IP else square
        _choose(model, scores, shift, coarse_error[q], x, q, nprobe, probes, base)
    steps, lows = np.empty(nq, np.float64), np.empty(nq, np.float64)
    if vbmi is not None:
        quantise(tables, bytes_, steps, lows)
    return Tables(probes, base, error, tables, bytes_, steps, lows)


@inner
def _products(model, x, scores, tables):
    """`compiled.Ready.products` of a few queries, read straight from memory.

    Matrices are cut into panels of 64 columns, (d, 64) each, because one vector times a matrix costs what reading the
    matrix costs.
    """
    d, dsub = model.d, model.dsub
    a, out = np.empty(d, np.float32), np.empty(64, np.float32)
    factor = F32(-1.0) if model.metric == IP else F32(-2.0)
    wide = (model.ksub + 63) & ~63
    for q in range(len(x)):
        for i in range(d):
            a[i] = factor * (x[q, i] - float32_at(model.centre + 4 * i))
        for first in range(0, model.nlist, 64):
            start = model.centroid_squares + 4 * first
            panel_products(address(a), d, model.centroid_panels + 4 * d * first, start, address(out))
            for j in range(64):
                if first + j < model.nlist:
                    scores[q, first + j] = out[j]
        for m in range(model.M):
            for first in range(0, model.ksub, 64):
                start = model.codebook_squares + 4 * (m * wide + first)
                panel = model.codebook_panels + 4 * dsub * (m * wide + first)
                panel_products(address(a) + 4 * m * dsub, dsub, panel, start, address(out))
                for j in range(64):
                    if first + j < model.ksub:
                        tables[q, m, first + j] = out[j]


@inner
def _errors(model, square):
    """What screened coarse distances, and distances of codes, can be off by, with |a|^2: see the proof above."""
    terms = (2.1 * model.d + 64.0) * 2.0**-24
    gamma = 1.02 * terms / (1.0 - terms) if terms < 0.5 else np.inf
    length = np.sqrt(np.float64(square)) * 1.001
    coarse = (length + model.longest_centroid) ** 2
    reach = (length + model.longest_centroid + model.longest_code) ** 2
    floor = 8.0 * model.d * 1.2e-38
    error = gamma * reach + floor
    if model.metric == COSINE:
        error += 2.0**-22 * (1.0 + reach)
    return gamma * coarse + floor if coarse < 1e36 else np.inf, error if reach < 1e36 else np.inf


@inner
def _choose(model, scores, shift, error, x, q, nprobe, probes, base):
    """The nprobe lists nearest to query q by the defined coarse distance, ties to the smaller number.

    Row q of `scores` (nq, nlist), with `shift` added, is off by at most `error`. Where that cannot tell, the defined
    distances decide. The nearest by score comes first, the others in no order.
    """
    nlist = model.nlist
    counts = np.empty(BINS + 1, np.int64)  # rounding may put the highest one bin up
    distances, numbers = np.empty(nprobe, np.float64), np.empty(nprobe, np.int64)
    limit = _rough_limit(scores, q, nprobe, counts)
    n = 0
    for number in range(nlist):
        if not scores[q, number] > limit:
            n = push_pair(distances, numbers, n, np.float64(scores[q, number]), number)
    doubt = distances[0] + 2.0 * error
    maybe = 0
    for number in range(nlist):
        maybe += not np.float64(scores[q, number]) > doubt
    if maybe > nprobe:
        n = 0
        for number in range(nlist):
            if not np.float64(scores[q, number]) > doubt:
                distance = np.float64(_coarse_distance(model, address(x) + 4 * q * model.d, number))
                n = push_pair(distances, numbers, n, distance, number)
    first = q * nprobe
    best = first
    for p in range(nprobe):
        probes[first + p] = numbers[p]
        base[first + p] = scores[q, numbers[p]] + shift
        if base[first + p] < base[best]:
            best = first + p
    probes[first], probes[best] = probes[best], probes[first]
    base[first], base[best] = base[best], base[first]


@inner
def _rough_limit(scores, q, wanted, counts):
    """A limit that `wanted` numbers of row q or a few more do not exceed: the end of a bin of a histogram."""
    n = scores.shape[1]
    low = high = scores[q, 0]
    for i in range(n):
        low = scores[q, i] if scores[q, i] < low else low
        high = scores[q, i] if scores[q, i] > high else high
    width = (high - low) / F32(BINS - 1)
    if wanted >= n or not (width > F32(0.0) and width < F32(np.inf)):
        return F32(np.inf)
    inverse = F32(1.0) / width
    for i in range(BINS + 1):
        counts[i] = 0
    for i in range(n):
        counts[np.int64((scores[q, i] - low) * inverse)] += 1
    number = 0
    below = counts[0]
    while below < wanted:
        number += 1
        below += counts[number]
    return F32(low + F32(number + 2) * width)


@inner
def _coarse_distance(model, x, number):
    """As `distances.pair_distances` of the query at address x, the sign turned for ip."""
    centroid = model.centroids + 4 * model.d * number
    if model.metric == IP:
        return -F32(sum_of_products(x, centroid, model.d) + F32(0.0))
    return sum_of_squares(x, centroid, model.d)


@inner
def _visits(probes, nprobe, nlist):
    """In what order to visit pairs (query, list), as places in `probes`: the nearest list of each query first, which
    gives it a good limit, then the others; both by list, so that a list is read from memory once for all its queries.
    """
    order = np.empty(len(probes), np.int64)
    place = np.empty(2 * nlist + 1, np.int64)
    for i in range(2 * nlist + 1):
        place[i] = 0
    for pair in range(len(probes)):
        place[probes[pair] + (nlist if pair % nprobe else 0) + 1] += 1
    for i in range(2 * nlist):
        place[i + 1] += place[i]
    for pair in range(len(probes)):
        key = probes[pair] + (nlist if pair % nprobe else 0)
        order[place[key]] = pair
        place[key] += 1
    return order


@part
def _scan(vbmi, plain, model, lists, tables, limits, nprobe):
    """Candidates of all queries, and how many: no pair that is not among them can be in the answer."""
    room = 2 * TILE * 64
    found = Found(np.empty(room, np.float64), np.empty(room, np.int64), np.empty(room, np.int64))
    n = 0
    order = _visits(tables.probes, nprobe, model.nlist)
    run = 0
    while run < len(order):
        number = tables.probes[order[run]]
        end = run + 1
        while end < len(order) and tables.probes[order[end]] == number:
            end += 1
        size = int64_at(lists.sizes + 8 * number)
        for first in range(0, size, TILE * 64):
            for visit in range(run, end):
                if n + TILE * 64 > len(found.row):
                    n = _drop(found, n, limits.theta, nprobe)
                    if n + TILE * 64 > len(found.row) // 2:
                        found = _grown(found, n)
                start, count = (
                    int64_at(lists.starts + 8 * number) + first,
                    size - first if size - first < TILE * 64 else TILE * 64,
                )
                pair = order[visit]
                if vbmi is not None:
                    n = _scan_bytes(model, lists, tables, limits, found, n, pair, pair // nprobe, number, start, count)
                if plain is not None:
                    n = _scan_floats(model, lists, tables, limits, found, n, pair, pair // nprobe, number, start, count)
        run = end
    return found, _drop(found, n, limits.theta, nprobe)


@inner
def _drop(found, n, theta, nprobe):
    """Forget candidates that theta has meanwhile left out; returns how many remain."""
    kept = 0
    for c in range(n):
        if not found.lower[c] > theta[found.pair[c] // nprobe]:
            found.lower[kept], found.row[kept], found.pair[kept] = found.lower[c], found.row[c], found.pair[c]
            kept += 1
    return kept


@inner
def _grown(found, n):
    """The n candidates in arrays of twice the room."""
    room = 2 * len(found.row)
    more = Found(np.empty(room, np.float64), np.empty(room, np.int64), np.empty(room, np.int64))
    for c in range(n):
        more.lower[c], more.row[c], more.pair[c] = found.lower[c], found.row[c], found.pair[c]
    return more


@inner
def _scan_floats(model, lists, tables, limits, found, n, pair, q, number, start, size):
    """Look through rows start ... start + size - 1 for query q by float32 sums; returns the number of candidates."""
    base, spread = _base(model, tables, pair, number)
    table = address(tables.floats) + 4 * q * model.M * model.ksub
    block_bytes = 64 * lists.width * lists.code_bytes
    for first in range(0, size, 64):
        block = lists.blocks + ((start + first) >> 6) * block_bytes
        bound = limits.theta[q] + tables.error[q] - base
        limit = F32(bound + abs(bound) * 2.0**-22)
        if lists.code_bytes == 1:
            mask = near_bytes(table, model.M, model.ksub, block, limit)
        else:
            mask = near_words(table, model.M, model.ksub, block, limit)
        while mask != 0:
            lane = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            if lane < size - first:
                row = start + first + lane
                n = _weigh(model, lists, table, tables.error[q], base, spread, limits, found, n, pair, q, block, row)
    return n


@inner
def _scan_bytes(model, lists, tables, limits, found, n, pair, q, number, start, size):
    """The same by 8-bit sums, two blocks at a time."""
    base, spread = _base(model, tables, pair, number)
    step = tables.steps[q]
    offset = tables.error[q] - base - tables.lows[q]
    scale = np.uint16(spread / step * 255.99) if spread / step < 256.0 else np.uint16(65535)
    table = address(tables.floats) + 4 * q * model.M * model.ksub
    table8 = address(tables.bytes) + 256 * q * model.M
    masks = np.empty(2, np.int64)
    block_bytes = 64 * lists.width
    limit = sum_limit((limits.theta[q] + offset) / step + 1.0)
    for first in range(0, size, 128):
        block = lists.blocks + ((start + first) >> 6) * block_bytes
        stride = block_bytes if first + 64 < size else 0
        scan_blocks(block, stride, table8, model.M, scale, limit, address(masks))
        if (masks[0] | masks[1]) == 0:
            continue
        for half in range(2 if stride else 1):
            mask = np.uint64(masks[half])
            while mask != 0:
                bit = np.int64(trailing_zeros(mask))
                mask &= mask - np.uint64(1)
                at = first + 64 * half + (((bit & 31) << 1) | (bit >> 5))
                if at >= size:
                    continue
                theta = limits.theta[q]
                where = block + half * block_bytes
                error, row = tables.error[q], start + at
                n = _weigh(model, lists, table, error, base, spread, limits, found, n, pair, q, where, row)
                if limits.theta[q] < theta:
                    limit = sum_limit((limits.theta[q] + offset) / step + 1.0)
                    if ones(mask) > CROWD:
                        scan_blocks(block, stride, table8, model.M, scale, limit, address(masks))
                        mask &= np.uint64(masks[half])
    return n


@inner
def _base(model, tables, pair, number):
    """base + low_l of a pair, and step_l."""
    low = float64_at(model.low + 8 * number)
    return np.float64(tables.base[pair]) + low, float64_at(model.step + 8 * number)


@inner
def _weigh(model, lists, table, error, base, spread, limits, found, n, pair, q, block, row):
    """The second look, at one code: keep it if it may be near, and let theta know; returns how many are kept."""
    lane = row & 63
    total = F32(0.0)
    for m in range(model.M):
        total += float32_at(table + 4 * (m * model.ksub + np.int64(_number(lists, block, m, lane))))
    lower = base - error + np.float64(total)
    if model.terms:
        lower += spread * np.float64(_number(lists, block, model.M, lane))
    if lower > limits.theta[q]:
        return n
    found.lower[n], found.row[n], found.pair[n] = lower, row, pair
    upper = lower + spread + 2.0 * error
    if upper < limits.theta[q]:
        k = limits.uppers.shape[1]
        if k > 0:
            limits.held[q] = push(limits.uppers, q, limits.held[q], upper)
            if limits.held[q] == k:
                limits.theta[q] = limits.uppers[q, 0]
    return n + 1


@inner
def _number(lists, block, m, lane):
    """The m-th number of a code, as uint64."""
    if lists.code_bytes == 1:
        return byte_at(block + 64 * m + lane)
    return word_at(block + 2 * (64 * m + lane))


@inner
def _by_query(found, n, nq, nprobe):
    """The candidates' numbers, query by query, and where those of each query end: query q's are ends[q]:ends[q + 1]."""
    ends = np.empty(nq + 2, np.int64)
    for q in range(nq + 2):
        ends[q] = 0
    for c in range(n):
        ends[found.pair[c] // nprobe + 2] += 1
    for q in range(nq):
        ends[q + 2] += ends[q + 1]
    order = np.empty(n, np.int64)
    for c in range(n):
        q = found.pair[c] // nprobe
        order[ends[q + 1]] = c
        ends[q + 1] += 1
    return order, ends


@inner
def _best(model, lists, x, probes, found, order, first, last, values, ids):
    """The k best of one query's candidates, in order of their lower bounds until those pass the k-th value.

    Parameters
    ----------
    x : int
        Address of the query.
    order : int64 array
        The query's candidates are at order[first:last] in `found`.
    values, ids : float64 and int64 arrays, shape (k,)
        Filled with what is found, best first.

    Returns
    -------
    int
        How many were found.
    """
    count = last - first
    lower, candidates = np.empty(count, np.float64), np.empty(count, np.int64)
    size = 0
    for i in range(count):
        bound = found.lower[order[first + i]]
        if model.metric == COSINE:  # as values are: -(1 - distance / 2)
            bound = 0.5 * bound - 1.0
        size = push_pair(lower, candidates, size, bound, order[first + i])
    sort_pairs(lower, candidates, size)
    n = 0
    for i in range(count):
        if n == len(values) and lower[i] > values[0]:
            break
        c = candidates[i]
        value = np.float64(_defined(model, lists, x, probes[found.pair[c]], found.row[c]))
        n = push_pair(values, ids, n, value, _id(lists, found.row[c]))
    sort_pairs(values, ids, n)
    return n


@inner
def _defined(model, lists, x, number, row):
    """The defined distance (`reference.adc`) of the query at address x, the sign turned for ip and cosine."""
    M, dsub = model.M, model.dsub
    block = lists.blocks + (row >> 6) * 64 * lists.width * lists.code_bytes
    centroid = model.centroids + 4 * model.d * number
    total = F32(0.0)
    if model.metric == IP:
        total = sum_of_products(x, centroid, model.d)
    for m in range(M):
        offset = 4 * m * dsub
        j = np.int64(_number(lists, block, m, row & 63))
        codeword = model.codebooks + 4 * dsub * (m * model.ksub + j)
        if model.metric == IP:
            total = F32(total + sum_of_products(x + offset, codeword, dsub))
        else:
            total = F32(total + sum_of_residual_squares(x + offset, centroid + offset, codeword, dsub))
    if model.metric == COSINE:
        total = F32(F32(1.0) - total / F32(2.0))
    total = F32(total + F32(0.0))  # no negative zero
    return total if model.metric == L2 else -total


@inner
def _id(lists, row):
    """The id of a row: `id_bytes` bytes, the lowest first."""
    number, place = np.uint64(0), lists.ids + lists.id_bytes * row
    for i in range(lists.id_bytes):
        number |= np.uint64(byte_at(place + i)) << np.uint64(8 * i)
    return np.int64(number)
