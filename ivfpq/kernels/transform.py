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
from ivfpq.kernels.intrinsics import FLOAT, FLOATS, I64, fold, i64, load_vector, sum_of_products
from ivfpq.kernels.jit import cgutils, intrinsic, jit_entry, sources
from ivfpq.kernels.memory import address, float32_at, put_float32
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
                    total = fold(b, b.load(sums[r][c]))
                    at = b.add(shift, i64(4 * c))
                    total = b.fadd(total, b.load(b.inttoptr(at, FLOAT.as_pointer()), align=4))
                    total = b.fadd(total, ir.Constant(FLOAT, 0.0))  # no negative zero
                    place = b.add(out, b.shl(b.add(b.mul(stride, i64(r)), i64(c)), i64(2)))
                    b.store(total, b.inttoptr(place, FLOAT.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return products


COLUMNS = 4
ROWS = 4
_products_of_rows, _products_of_one = _products(ROWS, COLUMNS), _products(1, COLUMNS)


# y[first:last] = ordered_sum(x[first:last, None] * A) + b + np.float32(0)
@jit_entry
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
