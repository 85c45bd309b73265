"""Search of lists of RaBitQ's codes in compiled code: tables of sums of eight bits each, and `reference`'s answers.

With a = x - centre, g_l = c_l - centre and, component by component, y_i = s_i (u_i - (2^B - 1) / 2), in real numbers

    l2:  |x - c_l|^2 + n_i - 2 <x - c_l, y_i>  =  |x - c_l|^2  +  (n_i + 2 <g_l, y_i>)  -  2 <a, y_i>
    ip:  -<x, c_l> - <x, y_i>                  =  -<x, c_l>                             -    <x, y_i>

where what is in parentheses is the term that stands behind the code (see `quantizers`). With a cut to 16 bits a number,
a' = unit * w, and u_i = sum over planes b of 2^(B - 1 - b) times a vector of bits,

    <a', y_i>  =  s_i unit (sum over b of 2^(B - 1 - b) <w, bits_b>  -  (2^B - 1) / 2 * sum of w)

and each <w, bits> is a sum over bytes of what a table says of that byte: whole numbers, so the same in any order and on
any processor. A code is estimated so; of those that may be among the k best by that, k and a few more, the defined
distance is computed.

**What an estimate can be off by.** Write A, G for |a|, the longest g_l, Y_i for s_i (2^B - 1) / 2 sqrt(d), which no
|y_i| exceeds, and R_i^2 = (A + G + Y_i)^2 + n_i. Cutting a costs |<a - a', y_i>| <= s_i (2^B - 1) / 2 times the sum
over j of |a_j - a'_j|, twice that for l2. |x - c_l|^2 and the two ordered sums of the defined distance are sums in
float32 of up to d / 16 + 8 additions in a row, of products that lie within (A + G)^2 and (A + G) Y_i; the term is
rounded once, and one read from a file may be off by 4 roundings (see `terms`); decoding rounds once, and putting the
distance together 3 times. What they round is at most 2 R_i^2, so that with u = 2^-24 all this is less than (d / 4 +
160) u R_i^2 / (1 - d u), to which come numbers below the normal ones, d tiny, and for cosine the rounding of 1 -
distance / 2. What is added in float64 does not count. A distance below 0 becomes 0, and
so do upper bounds. Where R_i^2 > 1e36, numbers may leave float32: the error is infinite, and every comparison lets
pass.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.heaps import push, push_pair, sort_pairs
from ivfpq.kernels.integers import choose_lists, distance_to_list, make_room
from ivfpq.kernels.intrinsics import TOGETHER, centred, sum_of_products, sum_of_squares
from ivfpq.kernels.jit import jit_entry, jit_inner, sources
from ivfpq.kernels.layout import (
    CANDIDATE,
    COSINE,
    IP,
    L2,
    candidate_at,
    id_of,
    list_size,
    list_start,
)
from ivfpq.kernels.memory import (
    address,
    allocate,
    byte_at,
    float32_at,
    float64_at,
    free,
    int32_at,
    int64_at,
    put_float32,
    put_int32,
    record_reader,
)
from ivfpq.kernels.scan import furnish

F32 = np.float32
TOP = 32767  # the largest number of a query
CANDIDATES = 2048  # for which there is room at first

CODEC = np.dtype(
    [(name, np.int64) for name in ("planes", "plane_bytes", "terms")]
    + [("middle", np.float64), (f"sources_{sources()}", np.int8)]
)
"""B, bytes of a plane, whether a code is followed by its term, and (2^B - 1) / 2."""

WORK = np.dtype(
    [(name, np.int64) for name in ("tables", "a", "y", "heap", "found", "capacity", "n", "held", "kept")]
    + [(name, np.float64) for name in ("unit", "shift", "limit", "off", "length", "gamma", "floor", "factor")]
)
"""What a query works with. Addresses: int32 (plane_bytes, 256) sums of w, float32 (d,) twice, a heap of its `held`
smallest upper bounds, float64 (kept,), and its `n` candidates, CANDIDATE (capacity,). `unit` is what 1 stands for in
w; `shift` is (2^B - 1) / 2 times the sum of w. An estimate is off by s off + gamma R^2 + floor, R = length + Y.
`factor` is 2, or 1 for ip. With kept = 0, limit is fixed."""

_work_at = record_reader(WORK)
_WORK_BYTES, _CANDIDATE_BYTES = WORK.itemsize, CANDIDATE.itemsize


# distances, ids = reference.search(x, probes, centroids, pq, lists, k, metric)
@jit_entry
def search(quantizers, codec, lists, x, nprobe, scratch, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k), best first; missing ones as infinity and -1.

    Parameters
    ----------
    quantizers, codec, lists, scratch : record arrays, shape (1,)
        Of the type QUANTIZERS, without codebooks; CODEC; `Lists.addresses`; SCRATCH, to be filled in.
    x : float32 array, shape (nq, d)
    nprobe : int
    """
    quantizers_, codec_, lists_, scratch_ = quantizers[0], codec[0], lists[0], scratch[0]
    nq, k = ids.shape
    work = _furnished(quantizers_, codec_, scratch_, nq, nprobe, k if k < lists_.ntotal else lists_.ntotal)
    sign = F32(1.0) if quantizers_.metric == L2 else F32(-1.0)
    for q in range(nq):
        at = address(x) + 4 * q * quantizers_.d
        _scan(quantizers_, codec_, lists_, scratch_, work, at, (q, nq), np.inf)
        n = np.int64(0)
        for c in range(work.n if work.kept > 0 else 0):
            candidate = candidate_at(work.found, c)
            if not candidate.lower > work.limit:
                value = np.float64(_defined(quantizers_, codec_, lists_, work, at, candidate.list, candidate.row))
                n = push_pair(scratch_.values, scratch_.numbers, work.kept, n, value, id_of(lists_, candidate.row))
        sort_pairs(scratch_.values, scratch_.numbers, n)
        for rank in range(k):
            if rank < n:
                distances[q, rank] = sign * F32(float64_at(scratch_.values, rank))
                ids[q, rank] = int64_at(scratch_.numbers, rank)
            else:
                distances[q, rank], ids[q, rank] = sign * F32(np.inf), -1
    free(work.found)
    free(scratch_.queries)


# near = defined_distances <= theta
@jit_entry
def range_search(quantizers, codec, lists, x, nprobe, scratch, theta):
    """All whose estimate may be within theta: query numbers, values (smaller is better), and ids.

    The other parameters are as for `search`.
    """
    quantizers_, codec_, lists_, scratch_, nq = quantizers[0], codec[0], lists[0], scratch[0], len(x)
    work = _furnished(quantizers_, codec_, scratch_, nq, nprobe, np.int64(0))
    for q in range(nq):
        _scan(quantizers_, codec_, lists_, scratch_, work, address(x) + 4 * q * quantizers_.d, (q, nq), theta)
    n = work.n
    asking, values, ids = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.int64)
    for c in range(n):
        candidate = candidate_at(work.found, c)
        asking[c] = candidate.query
        at = address(x) + 4 * candidate.query * quantizers_.d
        values[c] = _defined(quantizers_, codec_, lists_, work, at, candidate.list, candidate.row)
        ids[c] = id_of(lists_, candidate.row)
    free(work.found)
    free(scratch_.queries)
    return asking, values, ids


# tables, a, y, heap, found = np.empty((plane_bytes, 256), np.int32), np.empty(d, np.float32), ...
@jit_inner
def _furnished(quantizers, codec, scratch, nq, nprobe, kept):
    """Memory for all that a search works with. Returns the record of type WORK, behind what `furnish` gives a place."""
    d = quantizers.d
    scratch.nq, scratch.nprobe, scratch.kept = TOGETHER if nq > TOGETHER else nq, nprobe, kept
    furnish(quantizers, scratch, np.int64(0))
    own = (scratch.end + 63) & ~63
    end = own + _WORK_BYTES + 8 * (kept + 1) + 8 * (d + 16) + 1024 * codec.plane_bytes + 64
    start = allocate(end)
    furnish(quantizers, scratch, start)
    work = _work_at(start + own, 0)
    work.heap = start + own + _WORK_BYTES
    work.a = work.heap + 8 * (kept + 1)
    work.y = work.a + 4 * (d + 16)
    work.tables = work.y + 4 * (d + 16)
    work.kept, work.n, work.capacity = kept, 0, CANDIDATES
    work.found = allocate(_CANDIDATE_BYTES * work.capacity)
    return work


# probes = nearest(x[q], centroids, nprobe)
# found = [(lower[row], row, list, q) for list in probes for row in list if lower[row] <= limit]
@jit_inner
def _scan(quantizers, codec, lists, scratch, work, x, numbers, theta):
    """Find the candidates of the query at address x, number `numbers[0]` of `numbers[1]`.

    The nearest list comes first, which gives a good limit. With theta finite (a radius) earlier queries' stay.
    """
    square, first = choose_lists(quantizers, scratch, x, numbers)
    _cut(quantizers, codec, work, x, square)
    work.held, work.limit = 0, theta
    if work.kept:
        work.n = 0
    for p in range(scratch.nprobe):
        cell = int64_at(scratch.probes, first + p)
        base = distance_to_list(quantizers, x, cell)
        _scan_list(quantizers, codec, lists, work, numbers[0], cell, base)


# unit = np.abs(a).max() / TOP
# w = np.rint(a / unit)
# tables[i, v] = sum of w[8 * i + j] over the bits j of v
@jit_inner
def _cut(quantizers, codec, work, x, square):
    """Make the tables of the query at address x, |a|^2 of which is `square`, and say what estimates can be off by."""
    d = quantizers.d
    centred(x, d, quantizers.centre, work.a)
    largest, total = 0.0, 0.0
    for j in range(d):
        size = abs(np.float64(float32_at(work.a, j)))
        largest = size if size > largest else largest
        total += size
    unit = largest / TOP
    unit = unit if unit > 1e-60 else 1e-60
    inverse, sum_, off = 1.0 / unit, np.int64(0), 0.0
    for i in range(codec.plane_bytes):
        table = work.tables + 1024 * i
        put_int32(table, 0, 0)
        for j in range(8):
            w = np.int64(0)
            if 8 * i + j < d:
                steps = np.float64(float32_at(work.a, 8 * i + j)) * inverse
                w = np.int64(np.rint(steps))
                sum_ += w
                off += abs(steps - np.float64(w))
            half = np.int64(1) << j
            for v in range(half):
                put_int32(table, half + v, int32_at(table, v) + w)
    work.unit, work.shift = unit, codec.middle * np.float64(sum_)
    work.factor = 1.0 if quantizers.metric == IP else 2.0
    # a is rounded to float32, by at most half of what 1e-7 of it is.
    work.off = 1.001 * work.factor * codec.middle * (unit * off + 1e-7 * total)
    work.length = np.sqrt(square) * 1.001 + quantizers.longest_centroid
    work.gamma = (np.float64(d) / 4.0 + 160.0) * 2.0**-24 / (1.0 - np.float64(d) * 2.0**-24)
    work.floor = 16.0 * np.float64(d) * 1.2e-38


# estimates = base + term - factor * s * unit * (u @ w - shift)
# near = np.flatnonzero(~(estimates - error > limit))
@jit_inner
def _scan_list(quantizers, codec, lists, work, q, number, base):
    """Find candidates of query number q in a list."""
    width, plane_bytes = lists.width, codec.plane_bytes
    reach = codec.middle * np.sqrt(np.float64(quantizers.d))
    row = list_start(lists, number)
    end, at = row + list_size(lists, number), lists.blocks + lists.width * row
    factors = codec.planes * plane_bytes
    while row < end:
        total = np.int64(0)
        for plane in range(codec.planes):
            total = total + total + _sum_of_plane(work.tables, at + plane * plane_bytes, plane_bytes)
        s, n = np.float64(float32_at(at + factors, 0)), np.float64(float32_at(at + factors, 1))
        estimate = base - work.factor * s * work.unit * (np.float64(total) - work.shift)
        if codec.terms:
            estimate += np.float64(float32_at(at + factors, 2))
        size = (work.length + s * reach) ** 2 + n
        error = s * work.off + work.gamma * size + work.floor
        if quantizers.metric == COSINE:
            error += 2.0**-21 * (1.0 + size)
        error = error if size < 1e36 else np.inf
        if not estimate - error > work.limit:
            upper = estimate + error
            if quantizers.metric != IP and upper < 0.0:
                upper = 0.0
            _keep(work, estimate - error, upper, row, number, q)
        row += 1
        at += width


# tables[np.arange(n), plane].sum()
@jit_inner
def _sum_of_plane(tables, plane, n):
    """The sum of w over the bits of n bytes at an address."""
    total = np.int64(0)
    for i in range(n):
        total += int32_at(tables + 1024 * i, np.int64(byte_at(plane, i)))
    return total


# found.append((lower, row, list, q))
# limit = np.sort(uppers)[kept - 1]
@jit_inner
def _keep(work, lower, upper, row, number, q):
    """Keep one candidate, and let the limit know."""
    if work.n == work.capacity:
        make_room(work)
    candidate = candidate_at(work.found, work.n)
    candidate.lower = lower if lower == lower else -np.inf
    candidate.row, candidate.list, candidate.query = row, number, q
    work.n += 1
    if work.kept:
        work.held = push(work.heap, work.kept, work.held, upper if upper == upper else np.inf)
        if work.held == work.kept:
            work.limit = float64_at(work.heap, 0)


# reference.adc(x[None], centroids[number][None], codes[row][None], pq, metric)[0]   (ip, cosine: with its sign turned)
@jit_inner
def _defined(quantizers, codec, lists, work, x, number, row):
    """The defined distance of the query at address x to a row of a list, smaller being better."""
    d, y, centroid = quantizers.d, work.y, quantizers.centroids + 4 * quantizers.d * number
    at = lists.blocks + lists.width * row
    factors = codec.planes * codec.plane_bytes
    s, middle = float32_at(at + factors, 0), F32(codec.middle)
    for j in range(d):
        place, u = j >> 3, np.int64(0)
        for plane in range(codec.planes):
            byte = np.int64(byte_at(at + plane * codec.plane_bytes, place))
            u = u + u + ((byte >> (j & 7)) & 1)
        put_float32(y, j, F32(F32(F32(u) - middle) * s))
    if quantizers.metric == IP:
        total = F32(F32(sum_of_products(x, centroid, d) + sum_of_products(x, y, d)) + F32(0.0))
        return -total if total == total else F32(np.inf)  # what is not a number is infinitely far
    centred(x, d, centroid, work.a)
    product = sum_of_products(work.a, y, d)
    total = F32(sum_of_squares(x, centroid, d) + float32_at(at + factors, 1))
    total = F32(total - F32(product + product))
    if total < F32(0.0):
        total = F32(0.0)
    if quantizers.metric == COSINE:
        total = F32(F32(1.0) - total / F32(2.0))
    total = F32(total + F32(0.0))  # no negative zero
    if total != total:
        return F32(np.inf)
    return total if quantizers.metric == L2 else -total
