"""Products of codes of bytes, a few rows of them and a query or two at a time, as LLVM code: sums of whole numbers."""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types

from ivfpq.distances import LANES
from ivfpq.kernels.intrinsics import FLOAT, I8, I16, I32, I64, i64, load_vector, products_of_pairs, splat
from ivfpq.kernels.jit import cgutils, intrinsic

ROWS = 4  # codes multiplied by a query at a time: what is loaded of the query serves all
STEP = 2 * LANES  # components of a code in one step
PAIR = 2  # queries that share codes: what is loaded and widened of a code serves both


def _byte_products(rows: int, queries: int) -> Any:
    step = STEP // queries  # so that the sums stay in registers
    words, lanes = ir.VectorType(I16, step), ir.VectorType(I32, step // 2)

    @intrinsic
    def byte_products(typingctx: Any, codes: Any, stride: Any, w: Any, d: Any, out: Any) -> Any:
        """out[q, r] = the sum over j of codes[r, j] * w[q][j] for so many queries and rows.

        By address: uint8 codes, `stride` bytes apart, int16 w of each query, int32 out. 32 bits must hold each sum, and
        w[q][d:] up to a multiple of STEP must be there.
        """

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            codes, stride, w, d, out = args
            asked = [b.extract_value(w, q) for q in range(queries)]
            starts = [b.add(codes, b.mul(stride, i64(r))) for r in range(rows)]
            zeros = ir.Constant(lanes, [0] * lanes.count)
            sums = [[cgutils.alloca_once_value(b, zeros) for _ in starts] for _ in asked]
            whole = b.and_(d, i64(-step))
            for sum_ in itertools.chain(*sums):
                b.store(zeros, sum_)
            with cgutils.for_range_slice(b, i64(0), whole, i64(step), I64, inc=True) as (j, _):
                numbers = [load_vector(b, b.add(at, b.shl(j, i64(1))), words) for at in asked]
                for r, start in enumerate(starts):
                    code = b.zext(load_vector(b, b.add(start, j), ir.VectorType(I8, step)), words)
                    for q, number in enumerate(numbers):
                        b.store(b.add(b.load(sums[q][r]), products_of_pairs(b, code, number)), sums[q][r])
            few = ir.VectorType(I32, rows)
            totals = [cgutils.alloca_once_value(b, _row_sums(b, [b.load(v) for v in of_rows])) for of_rows in sums]
            with cgutils.for_range_slice(b, whole, d, i64(1), I64, inc=True) as (j, _):
                column = ir.Constant(few, ir.Undefined)
                for r, start in enumerate(starts):
                    code = b.zext(load_vector(b, b.add(start, j), I8), I32)
                    column = b.insert_element(column, code, ir.Constant(I32, r))
                for at, total in zip(asked, totals, strict=True):
                    number = b.sext(load_vector(b, b.add(at, b.shl(j, i64(1))), I16), I32)
                    b.store(b.add(b.load(total), b.mul(column, splat(b, number, few))), total)
            for q, total in enumerate(totals):
                place = b.inttoptr(b.add(out, i64(4 * rows * q)), few.as_pointer())
                b.store(b.load(total), place, align=4)
            return context.get_dummy_value()

        i = types.int64
        return types.void(i, i, types.UniTuple(i, queries), i, i), codegen

    return byte_products


def _row_sums(b: Any, vectors: list[Any]) -> Any:
    """The sum of the lanes of each vector, as a vector: halves of two vectors are added at once."""

    def halves(u: Any, v: Any, size: int) -> Any:
        """Each run of `size` lanes folded to half of it: those of u, and behind them those of v."""
        count = u.type.count + (v.type.count if v is not u else 0)
        low = [i for i in range(count) if i % size < size // 2]
        kind = ir.VectorType(I32, len(low))
        return b.add(
            b.shuffle_vector(u, v, ir.Constant(kind, low)),
            b.shuffle_vector(u, v, ir.Constant(kind, [i + size // 2 for i in low])),
        )

    size = vectors[0].type.count
    while size > 1:
        if len(vectors) > 1 and size <= 8:
            vectors = [halves(u, v, size) for u, v in zip(vectors[::2], vectors[1::2], strict=True)]
        else:
            vectors = [halves(v, v, size) for v in vectors]
        size //= 2
    return vectors[0]


byte_products, byte_products_of_one = _byte_products(ROWS, 1), _byte_products(1, 1)
byte_products_of_pair = _byte_products(ROWS, PAIR)


# near = ~(base - unit * sums + terms > limit)
@intrinsic
def near_rows(typingctx: Any, sums: Any, terms: Any, estimate: Any, limit: Any) -> Any:
    """Which of ROWS codes have an estimate that is not above a limit: bit r for row r. NaN is not above.

    Parameters
    ----------
    sums : int
        Address of int32 (ROWS,).
    terms : (int, int)
        Address of the first code's float32 term, 0 if there are none, and from one to the next in bytes.
    estimate : (float64, float64)
        base and unit.
    limit : float64
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        sums, (terms, stride), (base, unit), limit = args[0], *(_two(b, args[i]) for i in (1, 2)), args[3]
        doubles = ir.VectorType(ir.DoubleType(), ROWS)
        whole = b.sitofp(load_vector(b, sums, ir.VectorType(I32, ROWS)), doubles)
        total = b.fsub(splat(b, base, doubles), b.fmul(splat(b, unit, doubles), whole))
        estimates = cgutils.alloca_once_value(b, total)
        with b.if_then(b.icmp_unsigned("!=", terms, i64(0))):
            each = ir.Constant(doubles, ir.Undefined)
            for r in range(ROWS):
                term = b.load(b.inttoptr(b.add(terms, b.mul(stride, i64(r))), FLOAT.as_pointer()), align=1)
                each = b.insert_element(each, b.fpext(term, ir.DoubleType()), ir.Constant(I32, r))
            b.store(b.fadd(total, each), estimates)
        above = b.fcmp_ordered(">", b.load(estimates), splat(b, limit, doubles))
        return b.zext(b.bitcast(b.not_(above), ir.IntType(ROWS)), I64)

    two, numbers = types.UniTuple(types.int64, 2), types.UniTuple(types.float64, 2)
    return types.uint64(types.int64, two, numbers, types.float64), codegen


def _two(b: Any, pair: Any) -> list[Any]:
    return [b.extract_value(pair, i) for i in range(2)]
