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
import numpy.typing as npt
from llvmlite import ir
from numba import types

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import LANES
from ivfpq.kernels.intrinsics import (
    FLOAT,
    FLOATS,
    I32,
    INTS,
    centred,
    i64,
    load_vector,
    splat,
    sum_of_products,
    sum_of_squares,
)
from ivfpq.kernels.jit import cgutils, intrinsic, jit_entry, jit_inner, sources, target_features
from ivfpq.kernels.memory import float32_at, float64_at, int32_at, put_float32, put_float64, put_int64
from ivfpq.screening import HUGE, Points, product_error

F32 = np.float32

# A tile of scores fills the processor's registers: 24 of 32 with 16 floats each, or 12 of 16 with 8 floats each.
ROWS = 6
VECTORS = 4 if "avx512f" in target_features() else 1
WIDTH = VECTORS * LANES
STATE = 3 * 4 * LANES  # bytes of what is known of a row: see `_take_scores`
CHUNK = 1 << 16  # numbers of the rows that a panel is multiplied with before the next: they stay in the caches

NEAREST = np.dtype(
    [(name, np.int64) for name in ("x", "n", "stride", "parts", "d", "ny", "l2", "centre", "y", "panels", "starts")]
    + [(name, np.int64) for name in ("costs", "longest", "numbers", "rows", "a", "sizes", "states")]
    + [("gamma", np.float64), ("floor", np.float64), (f"sources_{sources()}", np.int8)]
)
"""Rows x (n, parts * d), `stride` bytes apart; for each part, ny rows of y and as many columns (see `_panels`), and the
largest |y|^2, float64 (parts,). Names are addresses of arrays where they name arrays. What is nearest goes to
`numbers`, int64 (n, parts). Where there is an array for costs, float32 (n, parts), they are written, and what is
nearest goes by them alone. To work in, for a multiple of ROWS `rows` at a time: float32 (rows, d), float64 (rows,), and
the states of `_take_scores`."""


@intrinsic
def _take_scores(typingctx: Any, a: Any, d: Any, panel: Any, start: Any, first: Any, state: Any) -> Any:
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
        fused = cgutils.get_or_insert_function(b.module, ir.FunctionType(FLOATS, [FLOATS] * 3), "llvm.fmuladd.v16f32")
        starts = [load_vector(b, b.add(start, i64(64 * v)), FLOATS) for v in range(VECTORS)]
        sums = [[cgutils.alloca_once_value(b, value) for value in starts] for _ in range(ROWS)]
        row_bytes = b.shl(d, i64(2))
        rows = [b.add(a, b.mul(row_bytes, i64(r))) for r in range(ROWS)]
        with cgutils.for_range(b, d) as loop:
            at = b.add(panel, b.mul(loop.index, i64(4 * WIDTH)))
            columns = [load_vector(b, b.add(at, i64(64 * v)), FLOATS) for v in range(VECTORS)]
            for r in range(ROWS):
                where = b.inttoptr(b.add(rows[r], b.shl(loop.index, i64(2))), FLOAT.as_pointer())
                value = splat(b, b.load(where, align=4), FLOATS)
                for v in range(VECTORS):
                    b.store(b.call(fused, [value, columns[v], b.load(sums[r][v])]), sums[r][v])
        fresh = b.icmp_signed("==", first, i64(0))
        nothing = ir.Constant(FLOATS, [float("inf")] * LANES)
        numbers = [splat(b, b.trunc(b.add(first, i64(LANES * v)), I32), INTS) for v in range(VECTORS)]
        for r in range(ROWS):
            addresses = [b.add(state, i64(STATE * r + 64 * i)) for i in range(3)]
            best, second = (b.select(fresh, nothing, load_vector(b, place, FLOATS)) for place in addresses[:2])
            number = load_vector(b, addresses[2], INTS)
            for v in range(VECTORS):
                score = b.load(sums[r][v])
                smaller = b.fcmp_ordered("<", score, best)
                larger = b.select(b.fcmp_ordered(">", score, best), score, best)
                second = b.select(b.fcmp_ordered("<", larger, second), larger, second)
                best = b.select(smaller, score, best)
                number = b.select(smaller, numbers[v], number)
            for place, value in zip(addresses, (best, second, number), strict=True):
                b.store(value, b.inttoptr(place, value.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def _smallest(typingctx: Any, state: Any) -> Any:
    """Bring into lane 0 of the state of one row the smallest score of all, the second smallest, and the column."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        addresses = [b.add(args[0], i64(64 * i)) for i in range(3)]
        best, second = (load_vector(b, place, FLOATS) for place in addresses[:2])
        lanes = ir.Constant(INTS, list(range(LANES)))
        number = b.add(load_vector(b, addresses[2], INTS), lanes)
        half = LANES // 2
        while half:
            parts = [ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))) for s in (0, half)]
            (best, other), (second, fourth), (number, column) = (
                [b.shuffle_vector(v, v, part) for part in parts] for v in (best, second, number)
            )
            smaller = b.fcmp_ordered("<", other, best)
            larger = b.select(smaller, best, other)
            best, number = b.select(smaller, other, best), b.select(smaller, column, number)
            second = b.select(b.fcmp_ordered("<", fourth, second), fourth, second)
            second = b.select(b.fcmp_ordered("<", larger, second), larger, second)
            half //= 2
        for place, value in zip(addresses, (best, second, number), strict=True):
            value = b.extract_element(value, ir.Constant(I32, 0))
            b.store(value, b.inttoptr(place, value.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


# scores = (|y|^2 - 2 (x - centre) @ y.T of each part, (n, parts, ny)); numbers = scores.argmin(axis=2)
# unsure = np.partition(scores, 1, axis=2)[:, :, 1] - scores.min(axis=2) <= 2 * error
# numbers[unsure] = defined distances of those, argmin
@jit_entry
def _nearest(task):
    """Fill the numbers; returns how many were found by the defined distances."""
    settled = 0
    t = task[0]
    wide = (t.ny + WIDTH - 1) // WIDTH * WIDTH
    for top in range(0, t.n, t.rows):
        count = t.rows if t.rows < t.n - top else t.n - top
        full = (count + ROWS - 1) // ROWS * ROWS
        for m in range(t.parts):
            for r in range(full):
                row = t.x + (top + (r if r < count else count - 1)) * t.stride + 4 * m * t.d
                centred(row, t.d, t.centre, t.a + 4 * r * t.d)
                put_float64(t.sizes, r, np.float64(sum_of_squares(row, t.centre, t.d)))
            for column in range(0, wide, WIDTH):
                panel, start = t.panels + 4 * t.d * (m * wide + column), t.starts + 4 * (m * wide + column)
                for r in range(0, full, ROWS):
                    _take_scores(t.a + 4 * r * t.d, t.d, panel, start, column, t.states + STATE * r)
            for r in range(count):
                settled += _take_smallest(t, top + r, m, t.states + STATE * r, float64_at(t.sizes, r))
    return settled


# numbers[row, m], costs[row, m] = scores.argmin(), scores.min() + size
# if np.sort(scores)[1] - scores.min() <= 2 * error: numbers[row, m] = defined distances, argmin
@jit_inner
def _take_smallest(t, row, m, state, size):
    """Write what is nearest of part m to a row, whose |x - centre|^2 is `size`; returns 1 if it took defined distances.

    `state` is the address of what `_take_scores` knows of the row.
    """
    _smallest(state)
    best, second = np.float64(float32_at(state, 0)), np.float64(float32_at(state, LANES))
    known, place = best < np.inf, row * t.parts + m
    put_int64(t.numbers, place, int32_at(state, 2 * LANES) if known else 0)
    if t.costs:
        put_float32(t.costs, place, F32(best + size if t.l2 else best))
        return 0
    longest = float64_at(t.longest, m)
    magnitude = 2.0 * (size + longest) if t.l2 else np.sqrt((size + t.floor) * (longest + t.floor))
    error = t.gamma * magnitude + t.floor
    if known and magnitude < HUGE and second - best > 2.0 * error:
        return 0
    put_int64(t.numbers, place, _settled(t, t.x + row * t.stride + 4 * m * t.d, t.y + 4 * m * t.ny * t.d))
    return 1


# np.nanargmin(pair_distances(x, y, metric))
@jit_inner
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

    __slots__ = ("_arrays", "_parts", "_task")

    def __init__(self, parts: Sequence[Points], metric: Metric) -> None:
        ny, d = parts[0].y.shape
        with np.errstate(over="ignore"):
            panels = _panels([points.shifted() for points in parts], 0)
            panels *= F32(-2 if metric == "l2" else -1)
            lengths = [points.lengths[:, None] if metric == "l2" else np.zeros((ny, 1), F32) for points in parts]
        centre = np.zeros(d, F32) if parts[0].centre is None else parts[0].centre
        y = np.stack([points.y for points in parts])
        longest = np.array([points.lengths.max() for points in parts], np.float64)
        starts = _panels(lengths, np.inf)
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "centre": centre,
            "y": y,
            "panels": panels,
            "starts": starts,
            "longest": longest,
        }
        self._parts = len(parts)
        task = self._task = np.zeros(1, NEAREST)
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
        costs = np.empty((len(x), self._parts), F32)
        return self._found(x, costs)[0], costs

    def _found(self, x: Floats, costs: Floats | None) -> tuple[Ids, int]:
        if x.strides[1] != x.itemsize:
            x = np.ascontiguousarray(x)
        task, d = self._task.copy(), int(self._task["d"][0])
        rows = ROWS * max(1, min(CHUNK // d, len(x) + ROWS - 1) // ROWS)
        numbers = np.empty((len(x), self._parts), np.int64)
        scratch: dict[str, npt.NDArray[Any]] = {
            "a": np.empty((rows, d), F32),
            "sizes": np.empty(rows),
            "states": np.empty((rows, 3, LANES), F32),
        }
        scratch |= {"x": x, "numbers": numbers}
        for name, array in scratch.items():
            task[name] = array.ctypes.data
        task["costs"] = 0 if costs is None else costs.ctypes.data
        task["n"], task["stride"], task["rows"] = len(x), x.strides[0], rows
        return numbers, _nearest(task)


def _panels(parts: Sequence[Floats], padding: float) -> Floats:
    """Of each part (n, d), the rows cut into panels, transposed, padded: (parts, panels, d, WIDTH)."""
    n, d = parts[0].shape
    rows = np.full((-(-n // WIDTH) * WIDTH, d), padding, np.float32)
    panels = np.empty((len(parts), len(rows) // WIDTH, d, WIDTH), np.float32)
    for panel, part in zip(panels, parts, strict=True):
        rows[:n] = part
        panel[:] = rows.reshape(-1, WIDTH, d).transpose(0, 2, 1)
    return panels
