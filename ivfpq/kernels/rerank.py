"""Re-ranking by the stored vectors, in compiled code.

It is a matter of memory: a hundred candidates of 2048 float32 numbers are 800 kB a query, from all over the store. So
each vector y gets a sketch, y' = scale * s with s in -127 ... 127 a byte each, beside |y| and |y - y'|. As
|<x, y> - <x, y'>| <= |x| |y - y'|, the sketch gives every distance with a bound on its error, and the vector itself is
read only if its lower bound does not exceed the k-th smallest upper bound, in order of the lower bounds, until those
pass the k-th distance found. To the errors come those of rounding, as in `screening.screen`.
"""

from __future__ import annotations

import functools
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import LANES
from ivfpq.kernels.compiled import writeable
from ivfpq.kernels.heaps import push_pair, sort_pairs
from ivfpq.kernels.intrinsics import (
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTS,
    extent,
    i64,
    in_pairs,
    load_vector,
    products_of_pairs,
    splat,
    sum_of_products,
    sum_of_squares,
)
from ivfpq.kernels.jit import cgutils, intrinsic, jit_entry, jit_inner, sources
from ivfpq.kernels.memory import (
    address,
    allocate,
    float32_at,
    float64_at,
    free,
    int64_at,
    prefetch,
    put_byte,
    put_float32,
    put_float64,
    put_int64,
    record_reader,
)
from ivfpq.list_layout import Lists, in_order
from ivfpq.results import SearchResult
from ivfpq.screening import HUGE, product_error
from ivfpq.threads import spread

F32 = np.float32
WORTH_A_THREAD = 1 << 22  # multiplications: about half a millisecond

STORE = np.dtype(
    [(name, np.int64) for name in ("n", "d", "rows", "half", "l2", "stride", "sketch", "wide", "steps")]
    + [("gamma", np.float64), ("floor", np.float64), (f"sources_{sources()}", np.int8)]
)
"""Addresses of the stored vectors (n, d), float32, or float16 if `half`, and of their sketches (0 for none)."""

RANKING = np.dtype(
    [(name, np.int64) for name in ("rows", "ids", "width", "k", "vector", "values", "numbers", "lower", "places")]
)
"""The candidates of a query: addresses of their rows of the store and of their ids, int64 (width,). To work in: float32
(d + SKETCH,) for a vector; a heap, float64 and int64 (k,); float64 and int64 (width,): lower bounds of the candidates
that are left, and their places among all."""

_ranking_at = record_reader(RANKING)
RANKING_BYTES = RANKING.itemsize


@intrinsic
def _widened(typingctx: Any, halves: Any, n: Any, out: Any) -> Any:
    """out[i] = float32(halves[i]) for n finite float16 at an address; `out` has room for a multiple of 16."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        halves, n, out = args
        words = ir.VectorType(I16, LANES)
        masked = cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(words, [words.as_pointer(), I32, ir.VectorType(ir.IntType(1), LANES), words]),
            "llvm.masked.load.v16i16.p0",
        )

        def constant(value: int) -> ir.Constant:
            return ir.Constant(INTS, [value] * LANES)

        with cgutils.for_range_slice(b, i64(0), n, i64(LANES), I64, inc=True) as (i, _):
            left = splat(b, b.trunc(b.sub(n, i), I32), INTS)
            mask = b.icmp_signed("<", ir.Constant(INTS, list(range(LANES))), left)
            at = b.inttoptr(b.add(halves, b.shl(i, i64(1))), words.as_pointer())
            h = b.zext(b.call(masked, [at, ir.Constant(I32, 2), mask, ir.Constant(words, [0] * LANES)]), INTS)
            # Exponent and fraction moved to where float32 has them, then 2**112 for the exponents' different zeros:
            # the product is exact, for numbers below the normal ones too, and no processor lacks it.
            size = b.bitcast(b.shl(b.and_(h, constant(0x7FFF)), constant(13)), FLOATS)
            size = b.bitcast(b.fmul(size, ir.Constant(FLOATS, [2.0**112] * LANES)), INTS)
            sign = b.shl(b.and_(h, constant(0x8000)), constant(16))
            place = b.inttoptr(b.add(out, b.shl(i, i64(2))), FLOATS.as_pointer())
            b.store(b.bitcast(b.or_(size, sign), FLOATS), place, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


SKETCH = 4 * LANES  # bytes of which a sketch is a multiple
STEPS = 32767  # what the largest number of a query is when its numbers are cut to 16 bits


@intrinsic
def _sketch_product(typingctx: Any, x: Any, sketch: Any, n: Any) -> Any:
    """The sum of x[i] * sketch[i] for n int16 and int8, n a multiple of SKETCH. 32 lanes add n / 32 products each."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, sketch, n = args
        parts = range(SKETCH // (2 * LANES))
        sums = [cgutils.alloca_once_value(b, ir.Constant(INTS, [0] * LANES)) for _ in parts]
        with cgutils.for_range_slice(b, i64(0), n, i64(SKETCH), I64, inc=True) as (i, _):
            for part, sum_ in zip(parts, sums, strict=True):
                at = b.add(i, i64(2 * LANES * part))
                u = load_vector(b, b.add(x, b.shl(at, i64(1))), ir.VectorType(I16, 2 * LANES))
                v = load_vector(b, b.add(sketch, at), ir.VectorType(I8, 2 * LANES))
                b.store(b.add(b.load(sum_), products_of_pairs(b, u, v)), sum_)
        longs = ir.VectorType(I64, LANES)
        total = functools.reduce(b.add, [b.sext(b.load(sum_), longs) for sum_ in sums])
        add_up = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(I64, [longs]), "llvm.vector.reduce.add.v16i64"
        )
        return b.call(add_up, [total])

    return types.int64(types.int64, types.int64, types.int64), codegen


SIZES = 32  # bytes behind it: float64 scale, |y| and |y - y'|, and room for one more
AHEAD = 4  # candidates whose sketches are on their way while one is looked at


# scale = np.abs(y).max(axis=1) / 127; s = np.rint(y / scale[:, None]).astype(np.int8)
# sketch = s, scale, np.linalg.norm(y, axis=1), np.linalg.norm(y - scale[:, None] * s, axis=1)
@jit_entry
def _sketch(task, first, last):
    """Make the sketches of rows first to last - 1."""
    t = task[0]
    widened = allocate(4 * (t.d + SKETCH))
    for row in range(first, last):
        vector, sketch = t.rows + t.stride * row, t.sketch + (t.wide + SIZES) * row
        if t.half:
            _widened(vector, t.d, widened)
            vector = widened
        largest, length, apart = F32(0.0), 0.0, 0.0
        for i in range(t.d):
            size = abs(float32_at(vector, i))
            largest = size if size > largest else largest
        scale = np.float64(largest) / 127.0
        inverse = 1.0 / scale if scale > 0.0 else 0.0
        for i in range(t.d):
            y = np.float64(float32_at(vector, i))
            step = np.rint(y * inverse)
            put_byte(sketch, i, np.int64(step))
            length += y * y
            off = y - scale * step
            apart += off * off
        put_float64(sketch + t.wide, 0, scale)
        put_float64(sketch + t.wide, 1, np.sqrt(length))
        put_float64(sketch + t.wide, 2, np.sqrt(apart) * 1.000001)
    free(widened)


# distance = pair_distances(x[q][None], y[rows[q]], metric)
# best = np.lexsort((ids[q], distance))[:k]
# distances[q], found[q] = distance[best], ids[q][best]
@jit_entry
def _rerank(store, x, rows, ids, order, distances, found):
    """Fill distances and found of the queries that `order` names, as `Store.rerank` gives them.

    Parameters
    ----------
    store : record array of type STORE, shape (1,)
    x : float32 array, shape (nq, d)
    rows, ids : int64 arrays, shape (nq, width)
    order : int64 array, shape (n,)
    distances, found : float32 and int64 arrays, shape (nq, k)

    Returns
    -------
    bool
        False, and nothing more, if there is no such row.
    """
    t = store[0]
    width, k = rows.shape[1], found.shape[1]
    scratch = allocate(RANKING_BYTES + 4 * (t.d + SKETCH) + 16 * k + 16 * width)
    r = _ranking_at(scratch, 0)
    r.width, r.k = width, k
    r.values = scratch + RANKING_BYTES
    r.numbers = r.values + 8 * k
    r.lower = r.numbers + 8 * k
    r.places = r.lower + 8 * width
    r.vector = r.places + 8 * width
    sign = F32(1.0) if t.l2 else F32(-1.0)
    there = True
    for place in range(len(order)):
        q = order[place]
        r.rows, r.ids = address(rows) + 8 * q * width, address(ids) + 8 * q * width
        n = _ranked(t, r, address(x) + 4 * q * t.d)
        if n < 0:
            there = False
            break
        for rank in range(k):
            if rank < n:
                distances[q, rank], found[q, rank] = sign * F32(float64_at(r.values, rank)), int64_at(r.numbers, rank)
            else:
                distances[q, rank], found[q, rank] = sign * F32(np.inf), -1
    free(scratch)
    return there


# best = np.lexsort((ids, distance))[:k]
@jit_inner
def _ranked(t, r, x):
    """Put the k best of the candidates of the query at address x, best first, into the heap; returns how many, or -1.

    -1 stands for a row that is not there.
    """
    k, count = r.k, np.int64(0)
    for c in range(r.width):
        row = int64_at(r.rows, c)
        if row >= t.n:
            return np.int64(-1)
        if row >= 0:
            put_float64(r.lower, count, -np.inf)
            put_int64(r.places, count, c)
            count += 1
    if t.sketch and count > k:
        count = _screened(t, r, x, count)
    n = np.int64(0)
    for i in range(count):
        if n == k and float64_at(r.lower, i) > float64_at(r.values, 0):
            break
        if i + 1 < count:
            prefetch(_vector(t, r, i + 1), t.stride)
        value = _defined(t, x, _vector(t, r, i), r.vector)
        n = push_pair(r.values, r.numbers, k, n, np.float64(value), int64_at(r.ids, int64_at(r.places, i)))
    sort_pairs(r.values, r.numbers, n)
    return n


# y[rows[left[i]]]
@jit_inner
def _vector(t, r, i):
    """Address of the stored vector that the i-th of the candidates left is."""
    return t.rows + t.stride * int64_at(r.rows, int64_at(r.places, i))


# product = (w @ sketches.T) * unit * scales
# lower, upper = distances by those products, -+ error
# kept = np.argsort(lower)[: np.count_nonzero(lower <= np.sort(upper)[k - 1])]
@jit_inner
def _screened(t, r, x, count):
    """Put those candidates first that may be among the k best, in order of their lower bounds; returns how many.

    The query is x' = unit * w with 16-bit numbers w, which the sketch is multiplied by without any rounding, and

        |<x, y> - <x', y'>|  <=  |x| |y - y'| + |x - x'| |y'|,    |x - x'| <= 0.51 unit sqrt(d)

    Parameters
    ----------
    x : int
        Address of the query.
    count : int
        How many candidates there are, whose places and lower bounds are changed.
    """
    query, uppers = r.vector, r.values
    for i in range(t.d):
        put_float32(query, i, float32_at(x, i))
    for i in range(t.d, t.wide):
        put_float32(query, i, F32(0.0))
    extent(query, t.wide, uppers)
    low, high = float32_at(uppers, 0), float32_at(uppers, 1)
    unit = np.float64(high if high > -low else -low) / t.steps
    unit = unit if unit > 1e-30 else 1e-30
    in_pairs(query, t.wide, F32(1.0 / unit), query, 4)
    square = np.float64(sum_of_products(x, x, t.d))
    length = 1.001 * np.sqrt(square + t.floor)
    rest = 0.51 * unit * np.sqrt(np.float64(t.d))
    held, step = np.int64(0), t.wide + SIZES
    for i in range(AHEAD if count > AHEAD else count):
        prefetch(_sketch_of(t, r, i), step)
    for i in range(count):
        if i + AHEAD < count:
            prefetch(_sketch_of(t, r, i + AHEAD), step)
        sketch = _sketch_of(t, r, i)
        sizes = sketch + t.wide
        scale, reach, apart = float64_at(sizes, 0), float64_at(sizes, 1), float64_at(sizes, 2)
        product = np.float64(_sketch_product(query, sketch, t.wide)) * unit * scale
        size, off = length * reach, length * apart + rest * (reach + apart)
        if t.l2:
            size = 2.0 * (square + reach * reach)
            value, off = square + reach * reach - 2.0 * product, 2.0 * off
        else:
            value = -product
        off = 1.001 * off + t.gamma * size + 2.0 * t.floor
        if not size < HUGE:
            value, off = 0.0, np.inf
        put_float64(r.lower, i, value - off)
        held = push_pair(uppers, r.numbers, r.k, held, value + off, 0)
    theta = float64_at(uppers, 0) if held == r.k else np.inf
    n = np.int64(0)
    for i in range(count):
        lower = float64_at(r.lower, i)
        if lower <= theta:
            n = push_pair(r.lower, r.places, r.width, n, lower, int64_at(r.places, i))
    sort_pairs(r.lower, r.places, n)
    return n


# sketches[rows[left[i]]]
@jit_inner
def _sketch_of(t, r, i):
    """Address of the sketch of the i-th candidate."""
    return t.sketch + (t.wide + SIZES) * int64_at(r.rows, int64_at(r.places, i))


# pair_distances(x[None], y[None], metric)[0]                                   (ip: with its sign turned)
@jit_inner
def _defined(t, x, y, vector):
    """The defined distance of the query and the stored vector at these addresses, smaller being better."""
    if t.half:
        _widened(y, t.d, vector)
        y = vector
    if t.l2:
        return sum_of_squares(x, y, t.d)
    value = F32(-F32(sum_of_products(x, y, t.d) + F32(0.0)))
    return value if value == value else F32(np.inf)  # what is not a number is infinitely far


class Store:
    """The vectors of an `IndexRefine` at one moment.

    Unless told otherwise, sketches are made of float32 vectors in memory: a quarter of their size. Those in a file
    would have to be read for it, all of them, and whoever stores float16 wants no more memory than that.

    Parameters
    ----------
    lists : Lists
        One list whose codes are the vectors.
    metric : str
    before : Store or None
        Of an earlier moment: what it knows of the same arrays is used. The one list only grows at its end, so new rows
        alone are missing.
    sketch : bool or None
        Whether to make sketches; None for what is said above.

    Attributes
    ----------
    lists : Lists
    in_order : bool
        Whether the vector with the id i is row i.
    """

    __slots__ = ("_sketches", "_task", "in_order", "lists")
    _sketches: npt.NDArray[np.int8]

    def __init__(self, lists: Lists, metric: Metric, before: Store | None, sketch: bool | None) -> None:
        self.lists = lists
        n, d = int(lists.sizes.sum()), lists.blocks.shape[1]  # rows, those of removed vectors too
        self.in_order = in_order(lists)
        task = self._task = np.zeros(1, STORE)
        task["n"], task["d"], task["rows"], task["l2"] = n, d, lists.addresses["blocks"], metric == "l2"
        task["half"], task["stride"] = lists.blocks.itemsize == 2, d * lists.blocks.itemsize
        task["gamma"], task["floor"] = product_error(d)
        mapped = _mapping(lists.blocks)
        if sketch is None:
            sketch = lists.blocks.dtype == np.float32 and mapped is None
        if not sketch:
            return
        task["wide"] = wide = -(-d // SKETCH) * SKETCH
        task["steps"] = min(STEPS, (2**31 - 1) // (127 * wide // 32))  # sums of 32 bits must not overflow
        first = 0
        if before is not None and before.lists.blocks is lists.blocks:
            self._sketches, first = before._sketches, int(before.lists.sizes.sum())
        else:
            self._sketches = np.zeros((len(lists.blocks), wide + SIZES), np.int8)
        task["sketch"] = self._sketches.ctypes.data
        count = (n - first) * d // WORTH_A_THREAD
        spread(lambda start, end: _sketch(task, first + start, first + end), n - first, count)
        if mapped is not None and hasattr(mapped, "madvise"):
            # From now on few vectors are read, from all over the file: what lies behind them is not wanted.
            mapped.madvise(mmap.MADV_RANDOM)

    def rerank(self, x: Floats, rows: Ids, ids: Ids, k: int) -> SearchResult | None:
        """The k best candidates of each query, ties to the smaller id, missing ones padded; None if a row is not there.

        Parameters
        ----------
        x : float32 array, shape (nq, d)
        rows, ids : int64 arrays, shape (nq, candidates)
            Rows of the store, -1 for no candidate.
        """
        x, rows, ids = writeable(np.ascontiguousarray(x)), np.ascontiguousarray(rows), np.ascontiguousarray(ids)
        nq, width = rows.shape
        distances, found = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
        # Queries with the same largest row have many in common, by chance or not (min-wise hashing, Broder 1997), and
        # those are still in a cache for the second one.
        order = rows.max(axis=1, initial=-1).argsort(kind="stable") if nq > 1 else _FIRST

        def work(first: int, last: int) -> bool:
            there: bool = _rerank(self._task, x, rows, ids, order[first:last], distances, found)
            return there

        there = [work(0, 1)] if nq == 1 else spread(work, nq, nq * x.shape[1] * width // WORTH_A_THREAD)
        return SearchResult(distances, found) if all(there) else None


_FIRST = np.zeros(1, np.int64)


def _mapping(array: Any) -> mmap.mmap | None:
    """What maps the file that an array is a part of, if it is: its sketches ask for all of it to be read."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array
