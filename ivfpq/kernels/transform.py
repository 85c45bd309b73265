"""Linear transforms in compiled code: products in the order that `distances` defines, a few vectors and a few rows of
the matrix at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ivfpq.checks import Floats
from ivfpq.distances import LANES
from ivfpq.kernels.compiled import writeable
from ivfpq.kernels.intrinsics import (
    FLOAT,
    FLOATS,
    I64,
    centred,
    extent,
    fold,
    i64,
    in_pairs,
    load_vector,
    sum_of_products,
)
from ivfpq.kernels.jit import cgutils, intrinsic, jit_entry, sources
from ivfpq.kernels.memory import (
    address,
    allocate,
    float32_at,
    float64_at,
    free,
    int32_at,
    put_byte,
    put_float32,
)
from ivfpq.kernels.products import ROWS, STEP, byte_products, byte_products_of_one
from ivfpq.threads import spread

F32 = np.float32
WORTH_A_THREAD = 1 << 22  # multiplications: about half a millisecond

TRANSFORM = np.dtype([("A", np.int64), ("b", np.int64), (f"sources_{sources()}", np.int8)])
"""Addresses of float32 A (d_out, d_in) and b (d_out,)."""


def _products(rows: int, columns: int) -> Any:
    """A function that gives out[r, c] = ordered_sum(x[r] * a[c]) + b[c] + 0 for so many rows and columns."""

    @intrinsic
    def products(typingctx: Any, x: Any, a: Any, d: Any, b: Any, out: Any, stride: Any) -> Any:
        """Addresses of float32 (rows, d), (columns, d), (columns,), and (rows, stride); d a multiple of 16."""

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, a, d, shift, out, stride = args
            zeros = ir.Constant(FLOATS, [0.0] * LANES)
            sums = [[cgutils.alloca_once_value(b, zeros) for _ in range(columns)] for _ in range(rows)]
            bytes_ = b.shl(d, i64(2))
            xs, as_ = ([b.add(at, b.mul(bytes_, i64(i))) for i in range(n)] for at, n in ((x, rows), (a, columns)))
            with cgutils.for_range_slice(b, i64(0), bytes_, i64(4 * LANES), I64, inc=True) as (t, _):
                column = [load_vector(b, b.add(at, t), FLOATS) for at in as_]
                for r in range(rows):
                    row = load_vector(b, b.add(xs[r], t), FLOATS)
                    for c in range(columns):
                        b.store(b.fadd(b.load(sums[r][c]), b.fmul(row, column[c])), sums[r][c])
            for r in range(rows):
                for c in range(columns):
                    total = fold(b, b.load(sums[r][c]), b.fadd)
                    at = b.add(shift, i64(4 * c))
                    total = b.fadd(total, b.load(b.inttoptr(at, FLOAT.as_pointer()), align=4))
                    total = b.fadd(total, ir.Constant(FLOAT, 0.0))  # no negative zero
                    place = b.add(out, b.shl(b.add(b.mul(stride, i64(r)), i64(c)), i64(2)))
                    b.store(total, b.inttoptr(place, FLOAT.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return products


COLUMNS = 4
TOGETHER = 4  # vectors
_products_of_rows, _products_of_one = _products(TOGETHER, COLUMNS), _products(1, COLUMNS)


# y[first:last] = ordered_sum(x[first:last, None] * A) + b + np.float32(0)
@jit_entry
def _transform(task, x, y, first, last):
    """Rows first to last - 1 of y (n, d_out) = A x + b, x float32 (n, d_in)."""
    t = task[0]
    d, d_out = x.shape[1], y.shape[1]
    whole = d_out // COLUMNS * COLUMNS if d % LANES == 0 else 0
    i = first
    while i < last:
        rows = TOGETHER if i + TOGETHER <= last else 1
        at, out = address(x) + 4 * i * d, address(y) + 4 * i * d_out
        for j in range(0, whole, COLUMNS):
            if rows == TOGETHER:
                _products_of_rows(at, t.A + 4 * j * d, d, t.b + 4 * j, out + 4 * j, d_out)
            else:
                _products_of_one(at, t.A + 4 * j * d, d, t.b + 4 * j, out + 4 * j, d_out)
        for r in range(rows):
            for j in range(whole, d_out):
                total = F32(sum_of_products(at + 4 * r * d, t.A + 4 * j * d, d) + float32_at(t.b, j))
                put_float32(out, r * d_out + j, F32(total + F32(0.0)))
        i += rows


class Transform:
    """x -> A x + b as `transforms` defines it, for A float32 (d_out, d_in) and b float32 (d_out,)."""

    __slots__ = ("_arrays", "_task")

    def __init__(self, A: Floats, b: Floats) -> None:
        self._arrays = A, b  # which must stay where they are
        self._task = np.zeros(1, TRANSFORM)
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


INTEGERS = np.dtype(
    [(name, np.int64) for name in ("matrix", "scales", "centre", "d", "d_out", "top")]
    + [(f"sources_{sources()}", np.int8)]
)
"""Addresses of the arrays of an `IntegerTransform`, and its numbers."""


# z, odd = IntegerTransform.__call__(x, "reference")
@jit_entry
def _in_integers(task, x, z, odd):
    """Fill z float32 (n, d_out) and odd bool (n,) for x float32 (n, d_in)."""
    t = task[0]
    wide, d_out = (t.d + STEP - 1) // STEP * STEP, t.d_out
    room = allocate(4 * wide + 4 * (d_out + 1 + ROWS) + 8)
    sums = room + 4 * wide
    ends = sums + 4 * (d_out + 1 + ROWS)
    for i in range(len(x)):
        for j in range(t.d, wide):
            put_float32(room, j, F32(0.0))
        centred(address(x) + 4 * t.d * i, t.d, t.centre, room)
        extent(room, wide, ends)
        low, high = float32_at(ends, 0), float32_at(ends, 1)
        largest = high if high > -low else -low
        if not (largest > F32(1e-30) and largest < F32(1e30)):
            put_byte(address(odd), i, 1)
            continue
        put_byte(address(odd), i, 0)
        unit = np.float64(largest) / np.float64(t.top)
        in_pairs(room, wide, F32(1.0 / unit), room, 4)
        whole = (d_out + 1) // ROWS * ROWS
        for j in range(0, whole, ROWS):
            byte_products(t.matrix + t.d * j, t.d, (room,), t.d, sums + 4 * j)
        for j in range(whole, d_out + 1):
            byte_products_of_one(t.matrix + t.d * j, t.d, (room,), t.d, sums + 4 * j)
        shift, out = 128 * int32_at(sums, d_out), address(z) + 4 * d_out * i
        for j in range(d_out):
            put_float32(out, j, F32(np.float64(int32_at(sums, j) - shift) * unit * float64_at(t.scales, j)))
    free(room)


class Integers:
    """An `IntegerTransform` in compiled code."""

    __slots__ = ("_d_out", "_made_of", "_task")

    def __init__(self, transform: Any) -> None:
        self._made_of = transform  # its arrays must stay where they are
        task = self._task = np.zeros(1, INTEGERS)
        rows, task["d"] = transform.matrix.shape
        task["d_out"] = self._d_out = rows - 1
        task["top"] = transform.top
        for name in ("matrix", "scales", "centre"):
            task[name] = getattr(transform, name).ctypes.data

    def __call__(self, x: Floats) -> tuple[Floats, Any]:
        """See `IntegerTransform`."""
        x = writeable(np.ascontiguousarray(x))
        z, odd = np.empty((len(x), self._d_out), np.float32), np.empty(len(x), bool)
        count = x.size * self._d_out // WORTH_A_THREAD

        def work(first: int, last: int) -> None:
            _in_integers(self._task, x[first:last], z[first:last], odd[first:last])

        if len(x) == 1:
            _in_integers(self._task, x, z, odd)
        else:
            spread(work, len(x), count)
        return z, odd
