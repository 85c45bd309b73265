"""The defined numbers themselves, in compiled code: linear transforms, and candidates ranked by the stored vectors.

**Transforms** are products in the order that `distances` defines, a few vectors and a few rows of the matrix at a time.

**Re-ranking** is a matter of memory: a hundred candidates of 2048 float32 numbers are 800 kB a query, from all over the
store. So each vector y gets a sketch, y' = scale * s with s in -127 ... 127 a byte each, beside |y| and |y - y'|. As
|<x, y> - <x, y'>| <= |x| |y - y'|, the sketch gives every distance with a bound on its error, and the vector itself is
read only if its lower bound does not exceed the k-th smallest upper bound, in order of the lower bounds, until those
pass the k-th distance found. To the errors come those of rounding, as in `screening.screen`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.invlists import Lists
from ivfpq.kernels.compiled import writeable
from ivfpq.kernels.heaps import push_pair, sort_pairs
from ivfpq.kernels.vectors import (
    LANES,
    address,
    entry,
    extent,
    float32_at,
    float64_at,
    fold,
    i64,
    in_pairs,
    inner,
    intrinsic,
    load_vector,
    prefetch,
    products_of_pairs,
    put_byte,
    put_float64,
    sources,
    splat,
    sum_of_products,
    sum_of_squares,
)
from ivfpq.results import SearchResult
from ivfpq.screening import HUGE, product_error
from ivfpq.threads import spread

F32 = np.float32
WORTH_A_THREAD = 1 << 22  # multiplications: about half a millisecond

TASK = np.dtype(
    [(name, np.int64) for name in ("A", "b", "n", "d", "rows", "half", "l2", "stride", "sketch", "wide", "steps")]
    + [("gamma", np.float64), ("floor", np.float64), (f"sources_{sources('exact', 'heaps', 'vectors')}", np.int8)]
)
"""A transform: addresses of A and b. Re-ranking: addresses of the stored vectors (float32, or float16 if `half`), and
of their sketches (0 for none). Addresses, so that no kind of array asks for code of its own."""

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS = ir.VectorType(_F32, LANES)
_INTS = ir.VectorType(_I32, LANES)


def _tile(rows: int, columns: int) -> Any:
    """A function that gives out[r, c] = ordered_sum(x[r] * a[c]) + b[c] + 0 for so many rows and columns."""

    @intrinsic
    def tile(typingctx: Any, x: Any, a: Any, d: Any, b: Any, out: Any, stride: Any) -> Any:
        """Addresses of float32 (rows, d), (columns, d), (columns,), and (rows, stride); d a multiple of 16."""

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, a, d, shift, out, stride = args
            zeros = ir.Constant(_FLOATS, [0.0] * LANES)
            sums = [[cgutils.alloca_once_value(b, zeros) for _ in range(columns)] for _ in range(rows)]
            bytes_ = b.shl(d, i64(2))
            xs, as_ = ([b.add(at, b.mul(bytes_, i64(i))) for i in range(n)] for at, n in ((x, rows), (a, columns)))
            with cgutils.for_range_slice(b, i64(0), bytes_, i64(4 * LANES), _I64, inc=True) as (t, _):
                column = [load_vector(b, b.add(at, t), _FLOATS) for at in as_]
                for r in range(rows):
                    row = load_vector(b, b.add(xs[r], t), _FLOATS)
                    for c in range(columns):
                        b.store(b.fadd(b.load(sums[r][c]), b.fmul(row, column[c])), sums[r][c])
            for r in range(rows):
                for c in range(columns):
                    total = fold(b, b.load(sums[r][c]))
                    at = b.add(shift, i64(4 * c))
                    total = b.fadd(total, b.load(b.inttoptr(at, _F32.as_pointer()), align=4))
                    total = b.fadd(total, ir.Constant(_F32, 0.0))  # no negative zero
                    place = b.add(out, b.shl(b.add(b.mul(stride, i64(r)), i64(c)), i64(2)))
                    b.store(total, b.inttoptr(place, _F32.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return tile


COLUMNS = 4
ROWS = 4
_rows, _one_row = _tile(ROWS, COLUMNS), _tile(1, COLUMNS)


@entry
def _transform(task, x, y, first, last):
    """Rows first to last - 1 of y (n, d_out) = A x + b, x float32 (n, d_in)."""
    t = task[0]
    d, d_out = x.shape[1], y.shape[1]
    whole = d_out // COLUMNS * COLUMNS if d % LANES == 0 else 0
    i = first
    while i < last:
        rows = ROWS if i + ROWS <= last else 1
        at, out = address(x) + 4 * i * d, address(y) + 4 * i * d_out
        for j in range(0, whole, COLUMNS):
            if rows == ROWS:
                _rows(at, t.A + 4 * j * d, d, t.b + 4 * j, out + 4 * j, d_out)
            else:
                _one_row(at, t.A + 4 * j * d, d, t.b + 4 * j, out + 4 * j, d_out)
        for r in range(rows):
            for j in range(whole, d_out):
                total = F32(sum_of_products(at + 4 * r * d, t.A + 4 * j * d, d) + float32_at(t.b + 4 * j))
                y[i + r, j] = F32(total + F32(0.0))
        i += rows


class Transform:
    """x -> A x + b as `transforms` defines it, for A float32 (d_out, d_in) and b float32 (d_out,)."""

    __slots__ = ("_arrays", "_task")

    def __init__(self, A: Floats, b: Floats) -> None:
        self._arrays = A, b  # which must stay where they are
        self._task = np.zeros(1, TASK)
        self._task["A"], self._task["b"] = A.ctypes.data, b.ctypes.data

    def __call__(self, x: Floats) -> Floats:
        """float32 (n, d_in) -> float32 (n, d_out)."""
        x = writeable(np.ascontiguousarray(x))
        nq, y = len(x), np.empty((len(x), len(self._arrays[1])), np.float32)
        if nq == 1:
            _transform(self._task, x, y, 0, 1)
        else:
            count = x.size * y.shape[1] // WORTH_A_THREAD
            spread(lambda first, last: _transform(self._task, x, y, first, last), nq, count)
        return y


@intrinsic
def _widened(typingctx: Any, halves: Any, n: Any, out: Any) -> Any:
    """out[i] = float32(halves[i]) for n finite float16 at an address; `out` has room for a multiple of 16."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        halves, n, out = args
        words = ir.VectorType(_I16, LANES)
        masked = cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(words, [words.as_pointer(), _I32, ir.VectorType(ir.IntType(1), LANES), words]),
            "llvm.masked.load.v16i16.p0",
        )

        def constant(value: int) -> ir.Constant:
            return ir.Constant(_INTS, [value] * LANES)

        with cgutils.for_range_slice(b, i64(0), n, i64(LANES), _I64, inc=True) as (i, _):
            left = splat(b, b.trunc(b.sub(n, i), _I32), _INTS)
            mask = b.icmp_signed("<", ir.Constant(_INTS, list(range(LANES))), left)
            at = b.inttoptr(b.add(halves, b.shl(i, i64(1))), words.as_pointer())
            h = b.zext(b.call(masked, [at, ir.Constant(_I32, 2), mask, ir.Constant(words, [0] * LANES)]), _INTS)
            # Exponent and fraction moved to where float32 has them, then 2**112 for the exponents' different zeros:
            # the product is exact, for numbers below the normal ones too, and no processor lacks it.
            size = b.bitcast(b.shl(b.and_(h, constant(0x7FFF)), constant(13)), _FLOATS)
            size = b.bitcast(b.fmul(size, ir.Constant(_FLOATS, [2.0**112] * LANES)), _INTS)
            sign = b.shl(b.and_(h, constant(0x8000)), constant(16))
            place = b.inttoptr(b.add(out, b.shl(i, i64(2))), _FLOATS.as_pointer())
            b.store(b.bitcast(b.or_(size, sign), _FLOATS), place, align=1)
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
        sums = [cgutils.alloca_once_value(b, ir.Constant(_INTS, [0] * LANES)) for _ in parts]
        with cgutils.for_range_slice(b, i64(0), n, i64(SKETCH), _I64, inc=True) as (i, _):
            for part, sum_ in zip(parts, sums, strict=True):
                at = b.add(i, i64(2 * LANES * part))
                u = load_vector(b, b.add(x, b.shl(at, i64(1))), ir.VectorType(_I16, 2 * LANES))
                v = load_vector(b, b.add(sketch, at), ir.VectorType(_I8, 2 * LANES))
                b.store(b.add(b.load(sum_), products_of_pairs(b, u, v)), sum_)
        longs = ir.VectorType(_I64, LANES)
        total = functools.reduce(b.add, [b.sext(b.load(sum_), longs) for sum_ in sums])
        add_up = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(_I64, [longs]), "llvm.vector.reduce.add.v16i64"
        )
        return b.call(add_up, [total])

    return types.int64(types.int64, types.int64, types.int64), codegen


SIZES = 32  # bytes behind it: float64 scale, |y| and |y - y'|, and room for one more
AHEAD = 4  # candidates whose sketches are on their way while one is looked at


@entry
def _sketch(task, first, last):
    """Make the sketches of rows first to last - 1 of float32 vectors."""
    t = task[0]
    for row in range(first, last):
        vector, sketch = t.rows + 4 * t.d * row, t.sketch + (t.wide + SIZES) * row
        largest, length, apart = F32(0.0), 0.0, 0.0
        for i in range(t.d):
            largest = max(largest, abs(float32_at(vector + 4 * i)))
        scale = np.float64(largest) / 127.0
        inverse = 1.0 / scale if scale > 0.0 else 0.0
        for i in range(t.d):
            y = np.float64(float32_at(vector + 4 * i))
            step = np.rint(y * inverse)
            put_byte(sketch + i, np.int64(step))
            length += y * y
            apart += (y - scale * step) ** 2
        put_float64(sketch + t.wide, scale)
        put_float64(sketch + t.wide + 8, np.sqrt(length))
        put_float64(sketch + t.wide + 16, np.sqrt(apart) * 1.000001)


@entry
def _rerank(task, x, rows, ids, order, first, last, distances, found, room, floats, integers):
    """Fill queries order[first:last] of distances float32 and found int64, both (nq, k), as `Store.rerank` gives them.

    Parameters
    ----------
    task : record array of type TASK, shape (1,)
    x : float32 array, shape (nq, d)
    rows, ids : int64 arrays, shape (nq, candidates)
    order : int64 array, shape (nq,)
    room : float32 array, shape (d + SKETCH,)
        For a vector, with as many zeros behind it as a sketch has, or with 16 numbers of any value.
    floats, integers : float64 and int64 arrays, shape (k + candidates,)
        Room, from Python: arrays made here take time to compile.

    Returns
    -------
    bool
        False, and nothing else, if there is no such row.
    """
    t = task[0]
    width, k = rows.shape[1], found.shape[1]
    values, numbers, lower, candidates = floats[:k], integers[:k], floats[k:], integers[k:]
    for place in range(first, last):
        q = order[place]
        at = address(x) + 4 * q * t.d
        count = 0
        for c in range(width):
            if rows[q, c] >= t.n:
                return False
            if rows[q, c] >= 0:
                lower[count], candidates[count] = -np.inf, c
                count += 1
        if t.sketch and count > k:
            count = _screened(t, x, rows, q, room, values, numbers, lower, candidates, count)
        n = 0
        for i in range(count):
            if n == k and lower[i] > values[0]:
                break
            if i + 1 < count:
                prefetch(t.rows + t.stride * rows[q, candidates[i + 1]], t.stride)
            value = _defined(t, at, t.rows + t.stride * rows[q, candidates[i]], room)
            n = push_pair(address(values), address(numbers), k, n, np.float64(value), ids[q, candidates[i]])
        sort_pairs(address(values), address(numbers), n)
        sign = F32(1.0) if t.l2 else F32(-1.0)
        for rank in range(k):
            if rank < n:
                distances[q, rank], found[q, rank] = sign * F32(values[rank]), numbers[rank]
            else:
                distances[q, rank], found[q, rank] = sign * F32(np.inf), -1
    return True


@inner
def _screened(t, x, rows, q, room, uppers, spare, lower, candidates, count):
    """Put those candidates first that may be among the k best, in order of their lower bounds; returns how many.

    The query is x' = unit * w with 16-bit numbers w, which the sketch is multiplied by without any rounding, and

        |<x, y> - <x', y'>|  <=  |x| |y - y'| + |x - x'| |y'|,    |x - x'| <= 0.51 unit sqrt(d)

    Parameters
    ----------
    x : float32 array, shape (nq, d)
    q : int
        The query's number.
    room : float32 array, shape (wide,) or more
    uppers, spare : float64 and int64 arrays, shape (k,)
        Room for the smallest upper bounds.
    lower, candidates : float64 and int64 arrays
        Their first `count` numbers are changed.
    """
    for i in range(t.d):
        room[i] = x[q, i]
    for i in range(t.d, t.wide):
        room[i] = F32(0.0)
    query, at = address(room), address(x) + 4 * t.d * q
    extent(query, t.wide, address(uppers))
    largest = np.float64(max(-float32_at(address(uppers)), float32_at(address(uppers) + 4)))
    unit = max(largest / t.steps, 1e-30)
    in_pairs(query, t.wide, F32(1.0 / unit), query, 4)
    square = np.float64(sum_of_products(at, at, t.d))
    length = 1.001 * np.sqrt(square + t.floor)
    rest = 0.51 * unit * np.sqrt(np.float64(t.d))
    held, step = 0, t.wide + SIZES
    for i in range(min(AHEAD, count)):
        prefetch(t.sketch + step * rows[q, candidates[i]], step)
    for i in range(count):
        if i + AHEAD < count:
            prefetch(t.sketch + step * rows[q, candidates[i + AHEAD]], step)
        sketch = t.sketch + step * rows[q, candidates[i]]
        sizes = sketch + t.wide
        scale, reach, apart = float64_at(sizes), float64_at(sizes + 8), float64_at(sizes + 16)
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
        lower[i] = value - off
        held = push_pair(address(uppers), address(spare), len(uppers), held, value + off, 0)
    theta = uppers[0] if held == len(uppers) else np.inf
    n = 0
    for i in range(count):
        if lower[i] <= theta:
            n = push_pair(address(lower), address(candidates), len(lower), n, lower[i], candidates[i])
    sort_pairs(address(lower), address(candidates), n)
    return n


@inner
def _defined(t, x, y, room):
    """The defined distance of the query and the stored vector at these addresses, the sign turned for ip."""
    if t.half:
        _widened(y, t.d, address(room))
        y = address(room)
    if t.l2:
        return sum_of_squares(x, y, t.d)
    return F32(-F32(sum_of_products(x, y, t.d) + F32(0.0)))


class Store:
    """The vectors of an `IndexRefine` at one moment.

    Sketches are made of float32 vectors in memory: a quarter of their size. Those in a file would have to be read for
    it, all of them, and whoever stores float16 wants no more memory than that.

    Parameters
    ----------
    lists : Lists
        One list whose codes are the vectors.
    metric : str
    before : Store or None
        Of an earlier moment: what it knows of the same arrays is used. The one list only grows at its end, so new rows
        alone are missing.

    Attributes
    ----------
    lists : Lists
    in_order : bool
        Whether the vector with the id i is row i.
    """

    __slots__ = ("_sketches", "_task", "in_order", "lists")
    _sketches: npt.NDArray[np.int8]

    def __init__(self, lists: Lists, metric: Metric, before: Store | None) -> None:
        self.lists = lists
        n, d = lists.ntotal, lists.blocks.shape[1]
        self.in_order = np.array_equal(lists.ids(np.arange(n)), np.arange(n))
        task = self._task = np.zeros(1, TASK)
        task["n"], task["d"], task["rows"], task["l2"] = n, d, lists.places["blocks"], metric == "l2"
        task["half"], task["stride"] = lists.blocks.itemsize == 2, d * lists.blocks.itemsize
        task["gamma"], task["floor"] = product_error(d)
        if lists.blocks.dtype != np.float32 or _mapped(lists.blocks):
            return
        task["wide"] = wide = -(-d // SKETCH) * SKETCH
        task["steps"] = min(STEPS, (2**31 - 1) // (127 * wide // 32))  # sums of 32 bits must not overflow
        first = 0
        if before is not None and before.lists.blocks is lists.blocks:
            self._sketches, first = before._sketches, before.lists.ntotal
        else:
            self._sketches = np.zeros((len(lists.blocks), wide + SIZES), np.int8)
        task["sketch"] = self._sketches.ctypes.data
        count = (n - first) * d // WORTH_A_THREAD
        spread(lambda start, end: _sketch(task, first + start, first + end), n - first, count)

    def rerank(self, x: Floats, rows: Ids, ids: Ids, k: int) -> SearchResult | None:
        """The k best candidates of each query, ties to the smaller id, missing ones padded; None if a row is not there.

        Parameters
        ----------
        x : float32 array, shape (nq, d)
        rows, ids : int64 arrays, shape (nq, candidates)
            Rows of the store, -1 for no candidate.
        """
        x = writeable(x)
        nq, d, width = *x.shape, rows.shape[1]
        distances, found = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
        # Queries with the same largest row have many in common, by chance or not (min-wise hashing, Broder 1997), and
        # those are still in a cache for the second one.
        order = rows.max(axis=1, initial=-1).argsort(kind="stable") if nq > 1 else _FIRST

        def work(first: int, last: int) -> bool:
            room = np.empty(d + SKETCH, np.float32), np.empty(k + width), np.empty(k + width, np.int64)
            there: bool = _rerank(self._task, x, rows, ids, order, first, last, distances, found, *room)
            return there

        there = [work(0, 1)] if nq == 1 else spread(work, nq, nq * width * d // WORTH_A_THREAD)
        return SearchResult(distances, found) if all(there) else None


_FIRST = np.zeros(1, np.int64)


def _mapped(array: Any) -> bool:
    """Whether an array is a part of a file: its sketches would ask for all of it to be read."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None
