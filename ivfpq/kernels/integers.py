"""Search of lists of scalar-quantized vectors in compiled code: integer dot products, and the answers of `reference`.

With a = x - centre, g_l = c_l - centre and, component by component, y_i = low + width * (u_i + 1/2) / 255, in real
numbers

    l2:  |x - c_l - y_i|^2     =  |x - c_l|^2  +  (|y_i|^2 + 2 <g_l, y_i>)  -  2 <a, y_i>
    ip:  -<x, c_l> - <x, y_i>  =  -<x, c_l>                                 -    <x, y_i>

where what is in parentheses is the term that stands behind the code (see `quantizers`), and

    <a, y_i>  =  <a, low + width * 128.5 / 255>  +  sum over j of v_j (u_ij - 128),    v = a * width / 255

v is cut to 16 bits a number, v' = unit * w, and sum over j of w_j u_ij is a sum of integers: without rounding, so the
same in any order and on any processor. A code is estimated so; of those that may be among the k best by that, k and a
few more, the defined distance is computed.

**What an estimate can be off by.** Write A, G, Y for |a|, the longest g_l, the length of |low| + 1.01 |width|, and
R = A + G + Y. |u - 128| is at most 128, so v' costs 128 (sum over j of |v_j - v'_j|), twice that for l2. |x - c_l|^2
and the defined distance are ordered sums in float32 of up to d / 16 + 8 additions in a row; the term is rounded once,
and one read from a file may be off by 4 roundings (see `terms`); decoding rounds 3 times. What they round is at most
R^2, so that with u = 2^-24 all this is less than (d / 8 + 80) u R^2 / (1 - d u), to which come numbers below the normal
ones, d tiny, and for cosine the rounding of 1 - distance / 2. What is added in float64 does not count.
Where R^2 > 1e36, numbers may leave float32: the error is infinite, and every comparison lets pass.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.bounds import errors
from ivfpq.kernels.coarse import choose, products, to_int16
from ivfpq.kernels.heaps import push, push_pair, sort_pairs
from ivfpq.kernels.intrinsics import (
    TOGETHER,
    decode_bytes,
    sum_of_products,
    sum_of_residual_squares,
    sum_of_squares,
    trailing_zeros,
)
from ivfpq.kernels.jit import jit_entry, jit_inner, sources
from ivfpq.kernels.layout import (
    CANDIDATE,
    COSINE,
    IP,
    L2,
    candidate_at,
    id_of,
    in_panels,
    list_size,
    list_start,
    query_at,
)
from ivfpq.kernels.memory import (
    address,
    allocate,
    copy_bytes,
    float32_at,
    float64_at,
    free,
    int32_at,
    int64_at,
    put_float32,
    put_int64,
    put_word,
    record_reader,
)
from ivfpq.kernels.products import ROWS, STEP, byte_products, byte_products_of_one, near_rows
from ivfpq.kernels.scan import furnish

F32 = np.float32
TOP = 32767  # the largest number of a query
CANDIDATES = 2048  # for which there is room at first: 64 KiB, which no allocator asks the system for each time

SCALAR = np.dtype(
    [(name, np.int64) for name in ("low", "width", "middle", "step", "terms")]
    + [("longest", np.float64), (f"sources_{sources()}", np.int8)]
)
"""Addresses of float32 (d,) low and width, of float64 (d,) low + 128.5 * step and step = width / 255; whether a code is
followed by its term; Y of the proof above."""

WORK = np.dtype(
    [(name, np.int64) for name in ("w", "y", "sums", "heap", "found", "capacity", "n", "held", "kept")]
    + [(name, np.float64) for name in ("unit", "shift", "error", "limit", "base")]
)
"""What a query works with. Addresses: its int16 (d + STEP,) w, float32 (d,) for a decoded vector, int32 (ROWS,), a heap
of its `held` smallest estimates, float64 (kept,), and its `n` candidates, CANDIDATE (capacity,). `unit` is what a sum
of w u counts; `shift` is all of an estimate that does not depend on the list or the code, and base, where several
queries look into a list in turns, all that does not depend on the code. With kept = 0, limit is fixed."""

work_at = record_reader(WORK)
WORK_BYTES, CANDIDATE_BYTES = WORK.itemsize, CANDIDATE.itemsize


# distances, ids = reference.search(x, probes, centroids, pq, lists, k, metric)
@jit_entry
def search(quantizers, codec, lists, x, nprobe, scratch, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k), best first; missing ones as infinity and -1.

    Parameters
    ----------
    quantizers, codec, lists, scratch : record arrays, shape (1,)
        Of the type QUANTIZERS, without codebooks; SCALAR; `Lists.addresses`; SCRATCH, to be filled in.
    x : float32 array, shape (nq, d)
    nprobe : int
    distances : float32 array or None
        None: ids are those of the k best in no order.
    """
    quantizers_, codec_, lists_, scratch_ = quantizers[0], codec[0], lists[0], scratch[0]
    nq, k = ids.shape
    most = k if k < lists_.ntotal else lists_.ntotal
    work = furnished(quantizers_, scratch_, nq, nprobe, most + 1 if distances is None else most)
    for q in range(nq):
        at = address(x) + 4 * q * quantizers_.d
        _scan(quantizers_, codec_, lists_, scratch_, work, at, (q, nq), np.inf)
        put_answer(quantizers_, codec_, lists_, scratch_, work, (q, at, most), distances, ids)
    free(work.found)
    free(scratch_.queries)


# distances[q], ids[q] = best of the candidates
@jit_inner
def put_answer(quantizers, codec, lists, scratch, work, query, distances, ids):
    """Write the answer of a query, of its number, its address and how many neighbours it has: see `search`."""
    q, x, most = query
    k, sign = ids.shape[1], F32(1.0) if quantizers.metric == L2 else F32(-1.0)
    if distances is None:
        to = address(ids) + 8 * q * k
        for i in range(_members(quantizers, codec, lists, scratch, work, x, most, to), k):
            put_int64(to, i, -1)
    else:
        n = _best(quantizers, codec, lists, scratch, work, x, most, -np.inf)
        for rank in range(k):
            if rank < n:
                distances[q, rank] = sign * F32(float64_at(scratch.values, rank))
                ids[q, rank] = int64_at(scratch.numbers, rank)
            else:
                distances[q, rank], ids[q, rank] = sign * F32(np.inf), -1


# near = defined_distances <= theta
@jit_entry
def range_search(quantizers, codec, lists, x, nprobe, scratch, theta):
    """All whose estimate may be within theta: query numbers, values (smaller is better), and ids.

    The other parameters are as for `search`.
    """
    quantizers_, codec_, lists_, scratch_, nq = quantizers[0], codec[0], lists[0], scratch[0], len(x)
    work = furnished(quantizers_, scratch_, nq, nprobe, np.int64(0))
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


# w, y, sums, heap, found = np.empty(d + STEP, np.int16), np.empty(d, np.float32), ...
@jit_inner
def furnished(quantizers, scratch, nq, nprobe, kept):
    """Memory for all that a search works with. Returns the record of type WORK, behind what `furnish` gives a place."""
    d = quantizers.d
    scratch.nq, scratch.nprobe, scratch.kept = TOGETHER if nq > TOGETHER else nq, nprobe, kept
    furnish(quantizers, scratch, np.int64(0))
    own = (scratch.end + 63) & ~63
    end = own + WORK_BYTES + 8 * ((kept + 1) + ROWS) + 6 * (d + STEP) + 64
    start = allocate(end)
    furnish(quantizers, scratch, start)
    work = work_at(start + own, 0)
    work.heap = start + own + WORK_BYTES
    work.sums = work.heap + 8 * (kept + 1)
    work.y = work.sums + 8 * ROWS
    work.w = work.y + 4 * (d + STEP)
    work.kept, work.n, work.capacity = kept, 0, CANDIDATES
    work.found = allocate(CANDIDATE_BYTES * work.capacity)
    return work


# probes = nearest(x[q], centroids, nprobe)
# found = [(estimates[row], row, list, q) for list in probes for row in list if estimates[row] <= limit]
@jit_inner
def _scan(quantizers, codec, lists, scratch, work, x, numbers, theta):
    """Find the candidates of the query at address x, number `numbers[0]` of `numbers[1]`.

    The nearest list comes first, which gives a good limit. With theta finite (a radius) earlier queries' stay.
    """
    square, first = choose_lists(quantizers, scratch, x, numbers)
    cut(quantizers, codec, work, x, square)
    work.held = 0
    if work.kept:
        work.n, work.limit = 0, np.inf
    else:
        work.limit = theta + work.error
    for p in range(scratch.nprobe):
        cell = int64_at(scratch.probes, first + p)
        base = distance_to_list(quantizers, x, cell)
        rows = (list_start(lists, cell), list_size(lists, cell))
        scan_list(quantizers, codec, lists, work, rows, (numbers[0], cell), base + work.shift)


# probes[first : first + nprobe] = nearest(x[q], centroids, nprobe)
@jit_inner
def choose_lists(quantizers, scratch, x, numbers):
    """Choose the lists of the query at address x, number `numbers[0]` of `numbers[1]`; the first of each few counts
    for all of them. Returns |a|^2 and where its numbers of lists begin in `scratch.probes`.
    """
    q, nq = numbers
    number = q % TOGETHER
    if number == 0:
        _score_lists(quantizers, scratch, x, nq - q)
    query, first = query_at(scratch.queries, number), number * scratch.nprobe
    shift = F32(0.0 if quantizers.metric == IP else query.square)
    scores = scratch.scores + 4 * in_panels(quantizers.nlist) * number
    coarse_error, _ = errors(quantizers, query.square, query.unit)
    choose(quantizers, scratch, scores, shift, coarse_error, x, first)
    return query.square, first


# distance = ((x - centroids[number]) ** 2).sum()   (ip: -x @ centroids[number])
@jit_inner
def distance_to_list(quantizers, x, number):
    """The defined distance of the query at address x to a centroid, smaller being better, as float64."""
    d = quantizers.d
    centroid = quantizers.centroids + 4 * d * number
    if quantizers.metric == IP:
        return -np.float64(sum_of_products(x, centroid, d))
    return np.float64(sum_of_squares(x, centroid, d))


# scores = distances of x[:count] to the centroids, but for |a|^2
@jit_inner
def _score_lists(quantizers, scratch, x, left):
    """Coarse distances of the next queries, the first at address x, `left` being how many there are."""
    d, start = quantizers.d, np.int64(0)
    count = TOGETHER if left >= TOGETHER else left
    step = TOGETHER if left >= TOGETHER else np.int64(1)
    wide, scores, factor = in_panels(quantizers.nlist), scratch.scores, F32(-1.0 if quantizers.metric == IP else -2.0)
    while start < count:
        for q in range(start, start + step):
            query, vector = query_at(scratch.queries, q), x + 4 * d * q
            query.square = sum_of_squares(vector, quantizers.centre, d)
            query.unit = to_int16(quantizers, scratch, vector, scratch.pairs + 4 * (q - start), 4 * step)
            put_float32(scratch.units, q - start, factor * F32(query.unit))
        scratch.scores = scores + 4 * wide * start
        products(quantizers, scratch, step, np.int64(0), np.int64(0))
        start += step
    scratch.scores = scores


# v = (x - centre) * width / 255
# unit = max(np.abs(v).max() / TOP, np.abs(v).sum() * 255 / 2**31)
# w = np.rint(v / unit)
@jit_inner
def cut(quantizers, codec, work, x, square):
    """Cut the query at address x, |a|^2 of which is `square`, to integers, and say what estimates can be off by."""
    d = quantizers.d
    largest, total, shift = 0.0, 0.0, 0.0
    for j in range(d):
        a = np.float64(float32_at(x, j)) - np.float64(float32_at(quantizers.centre, j))
        size = abs(a * float64_at(codec.step, j))
        largest = size if size > largest else largest
        total += size
        shift += a * float64_at(codec.middle, j)
    unit, least = largest / TOP, total * 255.0 / (2.0**31 - 256.0 * d)
    unit = least if least > unit else unit
    unit = unit if unit > 1e-60 else 1e-60
    unit = unit if unit < 1e60 else 1e60
    inverse, sum_, off = 1.0 / unit, np.int64(0), 0.0
    for j in range(d):
        a = np.float64(float32_at(x, j)) - np.float64(float32_at(quantizers.centre, j))
        steps = a * float64_at(codec.step, j) * inverse
        w = np.int64(np.rint(steps))
        put_word(work.w, j, w)
        sum_ += w
        off += abs(steps - np.float64(w))
    factor = 1.0 if quantizers.metric == IP else 2.0
    work.unit = factor * unit
    work.shift = work.unit * 128.0 * np.float64(sum_) - factor * shift
    reach = (np.sqrt(square) * 1.001 + quantizers.longest_centroid + codec.longest) ** 2
    gamma = (np.float64(d) / 8.0 + 80.0) * 2.0**-24 / (1.0 - np.float64(d) * 2.0**-24)
    error = 1.001 * work.unit * 128.0 * off + gamma * reach + 8.0 * np.float64(d) * 1.2e-38
    if quantizers.metric == COSINE:
        error += 2.0**-22 * (1.0 + reach)
    work.error = error if reach < 1e36 else np.inf


# estimates = base + term - unit * (codes @ w)
# near = np.flatnonzero(~(estimates > limit))
@jit_inner
def scan_list(quantizers, codec, lists, work, rows, numbers, base):
    """Find candidates of query numbers[0] in `rows`, (start, size), of list numbers[1]."""
    (row, size), d, width = rows, quantizers.d, lists.width
    end, at = row + size, lists.blocks + width * row
    while row + ROWS <= end:
        byte_products(at, width, (work.w,), d, work.sums)
        mask = near_rows(work.sums, (at + d if codec.terms else 0, width), (base, work.unit), work.limit)
        while mask != 0:
            r = np.int64(trailing_zeros(mask))
            mask &= mask - np.uint64(1)
            look_at(codec, work, (at + width * r, d, base), int32_at(work.sums, r), row + r, numbers)
        row += ROWS
        at += width * ROWS
    while row < end:
        byte_products_of_one(at, width, (work.w,), d, work.sums)
        look_at(codec, work, (at, d, base), int32_at(work.sums, 0), row, numbers)
        row += 1
        at += width


# estimate = base + term - unit * sum_
# if not estimate > limit: keep it
@jit_inner
def look_at(codec, work, code, sum_, row, numbers):
    """Keep one code, `code` being its address, d and the base of its list, if it may be near."""
    at, d, base = code
    estimate = base - work.unit * np.float64(sum_)
    if codec.terms:
        estimate += np.float64(float32_at(at + d, 0))
    if not estimate > work.limit:
        _keep(work, estimate, row, numbers[1], numbers[0])


# found.append((estimate, row, list, q))
# limit = np.sort(estimates)[kept - 1] + 2 * error
@jit_inner
def _keep(work, estimate, row, number, q):
    """Keep one candidate, and let the limit know."""
    if work.n == work.capacity:
        make_room(work)
    candidate = candidate_at(work.found, work.n)
    candidate.lower, candidate.row, candidate.list, candidate.query = estimate, row, number, q
    work.n += 1
    if work.kept:
        work.held = push(work.heap, work.kept, work.held, estimate)
        if work.held == work.kept:
            work.limit = float64_at(work.heap, 0) + 2.0 * work.error


# found = found[~(found["lower"] > limit)]
@jit_inner
def make_room(work):
    """Forget candidates that the limit has left out meanwhile; if most remain, take twice the room."""
    if work.kept:
        n = 0
        for c in range(work.n):
            if not candidate_at(work.found, c).lower > work.limit:
                copy_bytes(work.found + CANDIDATE_BYTES * n, work.found + CANDIDATE_BYTES * c, CANDIDATE_BYTES)
                n += 1
        work.n = n
    if 2 * work.n > work.capacity:
        more = allocate(2 * CANDIDATE_BYTES * work.capacity)
        copy_bytes(more, work.found, CANDIDATE_BYTES * work.n)
        free(work.found)
        work.found, work.capacity = more, 2 * work.capacity


# best = np.lexsort((ids, distances))[:k]
@jit_inner
def _best(quantizers, codec, lists, scratch, work, x, k, sure):
    """Put the k best of the candidates whose estimates are not below `sure` into the heap of scratch, best first.

    Returns how many there are.
    """
    n = np.int64(0)
    for c in range(work.n if k > 0 else 0):
        candidate = candidate_at(work.found, c)
        if not candidate.lower > work.limit and not candidate.lower < sure:
            value = np.float64(_defined(quantizers, codec, lists, work, x, candidate.list, candidate.row))
            n = push_pair(scratch.values, scratch.numbers, k, n, value, id_of(lists, candidate.row))
    sort_pairs(scratch.values, scratch.numbers, n)
    return n


# ids[best]
@jit_inner
def _members(quantizers, codec, lists, scratch, work, x, k, ids):
    """Put the ids of the k best candidates, in no order, at address ids; returns how many.

    What is estimated to be nearer than the (k + 1)-th smallest estimate, by two errors, is farther than fewer than k.
    """
    sure, n = float64_at(work.heap, 0) - 2.0 * work.error if work.held == work.kept else np.inf, np.int64(0)
    for c in range(work.n):
        candidate = candidate_at(work.found, c)
        if candidate.lower < sure:
            put_int64(ids, n, id_of(lists, candidate.row))
            n += 1
    ranked = _best(quantizers, codec, lists, scratch, work, x, k - n, sure)
    for i in range(ranked):
        put_int64(ids, n + i, int64_at(scratch.numbers, i))
    return n + ranked


# reference.adc(x[None], centroids[number][None], codes[row][None], pq, metric)[0]   (ip, cosine: with its sign turned)
@jit_inner
def _defined(quantizers, codec, lists, work, x, number, row):
    """The defined distance of the query at address x to a row of a list, smaller being better."""
    d, y, centroid = quantizers.d, work.y, quantizers.centroids + 4 * quantizers.d * number
    decode_bytes(lists.blocks + lists.width * row, codec.low, codec.width, d, y)
    if quantizers.metric == IP:
        total = F32(F32(sum_of_products(x, centroid, d) + sum_of_products(x, y, d)) + F32(0.0))
        return -total if total == total else F32(np.inf)  # what is not a number is infinitely far
    total = sum_of_residual_squares(x, centroid, y, d)
    if quantizers.metric == COSINE:
        total = F32(F32(1.0) - total / F32(2.0))
    total = F32(total + F32(0.0))  # no negative zero
    if total != total:
        return F32(np.inf)
    return total if quantizers.metric == L2 else -total
