"""Which centroid or codeword is nearest, in compiled code: what adding and training consist of.

One pass computes the scores of a few rows and a panel of columns in registers and takes each, while it is there, into
the smallest and the second smallest so far: no score is ever written to memory. The score of a column y for a row a is
|y|^2 - 2 <a, y> (l2; -<a, y> for ip), its products fused or not, with the error bound of `screening.screen`. Where the
second smallest is further from the smallest than the bound, the smallest is the nearest by the definition as well;
where it is not, a few rows in ten thousand, the defined distances are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.kernels.vectors import (
    LANES,
    address,
    entry,
    float32_at,
    i64,
    inner,
    int32_at,
    intrinsic,
    load_vector,
    put_float32,
    sources,
    splat,
    sum_of_products,
    sum_of_squares,
)
from ivfpq.screening import HUGE, Points, product_error

F32 = np.float32

# A tile of scores fills the processor's registers: 24 of 32 with 16 floats each, or 12 of 16 with 8 floats each.
ROWS = 6
VECTORS = 4 if binding.get_host_cpu_features().get("avx512f") else 1
WIDTH = VECTORS * LANES
CHUNK = 1 << 16  # numbers of the rows that a panel is multiplied with before the next: they stay in the caches

TASK = np.dtype(
    [(name, np.int64) for name in ("x", "n", "stride", "parts", "d", "ny", "l2", "centre", "y", "panels", "starts")]
    + [("costs", np.int64)]
    + [("gamma", np.float64), ("floor", np.float64), (f"sources_{sources('nearest', 'vectors')}", np.int8)]
)
"""Rows x (n, parts * d), `stride` bytes apart; for each part, ny rows of y and as many columns (see `_panels`). Names
are addresses of arrays where they name arrays: numba then needs no code for each kind of array. Where there is an array
for costs, float32 (n, parts), they are written, and what is nearest goes by them alone."""

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _NUMBERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)


@intrinsic
def _tile(typingctx: Any, a: Any, d: Any, panel: Any, start: Any, first: Any, state: Any) -> Any:
    """Take the scores of ROWS rows and WIDTH columns into the state of each row.

    Parameters
    ----------
    a : int
        Address of float32 (ROWS, d).
    panel, start : int
        Addresses of float32 (d, WIDTH) and (WIDTH,): score[r, j] = start[j] + sum over i of a[r, i] * panel[i, j].
    first : int
        Number of the panel's first column, a multiple of 16; with 0 the state starts anew.
    state : int
        Address of (ROWS, 3, 16) numbers of 4 bytes. Lane l knows of columns l, l + 16, ...: the smallest score, the
        second smallest, both float32, and the smallest one's column less l, int32.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        a, d, panel, start, first, state = args
        fused = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fmuladd.v16f32")
        starts = [load_vector(b, b.add(start, i64(64 * v)), _FLOATS) for v in range(VECTORS)]
        sums = [[cgutils.alloca_once_value(b, value) for value in starts] for _ in range(ROWS)]
        row_bytes = b.shl(d, i64(2))
        rows = [b.add(a, b.mul(row_bytes, i64(r))) for r in range(ROWS)]
        with cgutils.for_range(b, d) as loop:
            at = b.add(panel, b.mul(loop.index, i64(4 * WIDTH)))
            columns = [load_vector(b, b.add(at, i64(64 * v)), _FLOATS) for v in range(VECTORS)]
            for r in range(ROWS):
                where = b.inttoptr(b.add(rows[r], b.shl(loop.index, i64(2))), _F32.as_pointer())
                value = splat(b, b.load(where, align=4), _FLOATS)
                for v in range(VECTORS):
                    b.store(b.call(fused, [value, columns[v], b.load(sums[r][v])]), sums[r][v])
        fresh = b.icmp_signed("==", first, i64(0))
        nothing = ir.Constant(_FLOATS, [float("inf")] * LANES)
        numbers = [splat(b, b.trunc(b.add(first, i64(LANES * v)), _I32), _NUMBERS) for v in range(VECTORS)]
        for r in range(ROWS):
            places = [b.add(state, i64(192 * r + 64 * i)) for i in range(3)]
            best, second = (b.select(fresh, nothing, load_vector(b, place, _FLOATS)) for place in places[:2])
            number = load_vector(b, places[2], _NUMBERS)
            for v in range(VECTORS):
                score = b.load(sums[r][v])
                smaller = b.fcmp_ordered("<", score, best)
                larger = b.select(b.fcmp_ordered(">", score, best), score, best)
                second = b.select(b.fcmp_ordered("<", larger, second), larger, second)
                best = b.select(smaller, score, best)
                number = b.select(smaller, numbers[v], number)
            for place, value in zip(places, (best, second, number), strict=True):
                b.store(value, b.inttoptr(place, value.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def _smallest(typingctx: Any, state: Any) -> Any:
    """Bring into lane 0 of the state of one row the smallest score of all, the second smallest, and the column."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        places = [b.add(args[0], i64(64 * i)) for i in range(3)]
        best, second = (load_vector(b, place, _FLOATS) for place in places[:2])
        lanes = ir.Constant(_NUMBERS, list(range(LANES)))
        number = b.add(load_vector(b, places[2], _NUMBERS), lanes)
        half = LANES // 2
        while half:
            parts = [ir.Constant(ir.VectorType(_I32, half), list(range(s, s + half))) for s in (0, half)]
            (best, other), (second, fourth), (number, column) = (
                [b.shuffle_vector(v, v, part) for part in parts] for v in (best, second, number)
            )
            smaller = b.fcmp_ordered("<", other, best)
            larger = b.select(smaller, best, other)
            best, number = b.select(smaller, other, best), b.select(smaller, column, number)
            second = b.select(b.fcmp_ordered("<", fourth, second), fourth, second)
            second = b.select(b.fcmp_ordered("<", larger, second), larger, second)
            half //= 2
        for place, value in zip(places, (best, second, number), strict=True):
            value = b.extract_element(value, ir.Constant(_I32, 0))
            b.store(value, b.inttoptr(place, value.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@entry
def _nearest(task, longest, a, state, numbers):
    """Fill numbers int64 (n, parts); returns how many were found by the defined distances.

    Parameters
    ----------
    task : record array of type TASK, shape (1,)
    longest : float64 array, shape (parts,)
        The largest |y|^2 of each part.
    a : float32 array, shape (rows, d)
        Room for rows of a part; a multiple of ROWS.
    state : float32 array, shape (rows, 3, 16)
    """
    settled = 0
    t = task[0]
    wide = (t.ny + WIDTH - 1) // WIDTH * WIDTH
    size = np.empty(len(a), np.float64)
    for top in range(0, t.n, len(a)):
        count = min(len(a), t.n - top)
        full = (count + ROWS - 1) // ROWS * ROWS
        for m in range(t.parts):
            for r in range(full):
                row = t.x + (top + min(r, count - 1)) * t.stride + 4 * m * t.d
                for i in range(t.d):
                    a[r, i] = float32_at(row + 4 * i) - float32_at(t.centre + 4 * i)
                size[r] = sum_of_squares(row, t.centre, t.d)
            for column in range(0, wide, WIDTH):
                panel, start = t.panels + 4 * t.d * (m * wide + column), t.starts + 4 * (m * wide + column)
                for r in range(0, full, ROWS):
                    _tile(address(a) + 4 * r * t.d, t.d, panel, start, column, address(state) + 192 * r)
            for r in range(count):
                _smallest(address(state) + 192 * r)
                best, second = np.float64(state[r, 0, 0]), np.float64(state[r, 1, 0])
                known = best < np.inf
                numbers[top + r, m] = int32_at(address(state) + 192 * r + 128) if known else 0
                if t.costs:
                    cost = best + size[r] if t.l2 else best
                    put_float32(t.costs + 4 * ((top + r) * t.parts + m), F32(cost))
                    continue
                if t.l2:
                    magnitude = 2.0 * (size[r] + longest[m])
                else:
                    magnitude = np.sqrt((size[r] + t.floor) * (longest[m] + t.floor))
                error = t.gamma * magnitude + t.floor
                if not (known and magnitude < HUGE and second - best > 2.0 * error):
                    numbers[top + r, m] = _settled(
                        t, t.x + (top + r) * t.stride + 4 * m * t.d, t.y + 4 * m * t.ny * t.d
                    )
                    settled += 1
    return settled


@inner
def _settled(t, x, y):
    """The number of the nearest of the ny rows at address y to the row at address x, by the defined distance."""
    number, smallest = 0, F32(np.nan)  # which any number is better than, infinity too
    for j in range(t.ny):
        at = y + 4 * t.d * j
        distance = sum_of_squares(x, at, t.d) if t.l2 else -sum_of_products(x, at, t.d)
        if distance < smallest or (smallest != smallest and distance == distance):
            number, smallest = j, distance
    return number


class Nearest:
    """x -> which row of parts[m] is nearest to the m-th part of each row of x, as `assign.nearest` defines it.

    Parameters
    ----------
    parts : sequence of Points
    metric : {"l2", "ip"}
    """

    __slots__ = ("_arrays", "_longest", "_task")

    def __init__(self, parts: Sequence[Points], metric: Metric) -> None:
        ny, d = parts[0].y.shape
        with np.errstate(over="ignore"):
            panels = _panels([rows.shifted() for rows in parts], 0)
            panels *= F32(-2 if metric == "l2" else -1)
            lengths = [rows.lengths[:, None] if metric == "l2" else np.zeros((ny, 1), F32) for rows in parts]
        centre = np.zeros(d, F32) if parts[0].centre is None else parts[0].centre
        y = np.stack([rows.y for rows in parts])
        self._arrays = {"centre": centre, "y": y, "panels": panels, "starts": _panels(lengths, np.inf)}
        self._longest = np.array([rows.lengths.max() for rows in parts], np.float64)
        task = self._task = np.zeros(1, TASK)
        for name, array in self._arrays.items():
            task[name] = array.ctypes.data
        for name, value in {"parts": len(parts), "d": d, "ny": ny, "l2": metric == "l2"}.items():
            task[name] = value
        task["gamma"], task["floor"] = product_error(d)

    def __call__(self, x: Floats) -> tuple[Ids, int]:
        """float32 (n, parts * d) -> int64 (n, parts), and how many of these took the defined distances to find.

        In the calling thread. Several may call at the same time.
        """
        return self._found(x, None)

    def roughly(self, x: Floats) -> tuple[Ids, Floats]:
        """What training needs: the nearest rows as float32 sums in any order have it, int64 (n, parts), and costs.

        Costs, float32 (n, parts), are squared distances, or inner products with their sign turned.
        """
        costs = np.empty((len(x), len(self._longest)), F32)
        return self._found(x, costs)[0], costs

    def _found(self, x: Floats, costs: Floats | None) -> tuple[Ids, int]:
        if x.strides[1] != x.itemsize:
            x = np.ascontiguousarray(x)
        task = self._task.copy()
        task["x"], task["n"], task["stride"] = x.ctypes.data, len(x), x.strides[0]
        task["costs"] = 0 if costs is None else costs.ctypes.data
        d = int(task["d"][0])
        rows = ROWS * max(1, min(CHUNK // d, len(x) + ROWS - 1) // ROWS)
        numbers = np.empty((len(x), len(self._longest)), np.int64)
        a, state = np.empty((rows, d), F32), np.empty((rows, 3, LANES), F32)
        return numbers, _nearest(task, self._longest, a, state, numbers)


def _panels(parts: Sequence[Floats], padding: float) -> Floats:
    """Of each part (n, d), the rows cut into panels, transposed, padded: (parts, panels, d, WIDTH)."""
    n, d = parts[0].shape
    rows = np.full((-(-n // WIDTH) * WIDTH, d), padding, np.float32)
    panels = np.empty((len(parts), len(rows) // WIDTH, d, WIDTH), np.float32)
    for panel, part in zip(panels, parts, strict=True):
        rows[:n] = part
        panel[:] = rows.reshape(-1, WIDTH, d).transpose(0, 2, 1)
    return panels
