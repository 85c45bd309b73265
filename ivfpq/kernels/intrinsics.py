"""LLVM code that numba does not write by itself: ordered sums, products of small integers, bits.

LLVM's own vectors and intrinsics are legal on any processor: where it has no registers of 16 floats, LLVM uses several.
Nothing here may be fused or reordered by the compiler, because nothing says `fast`.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types

from ivfpq.distances import LANES
from ivfpq.kernels.jit import cgutils, intrinsic

I8, I16, I32, I64, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(I32, LANES)


def i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def load_vector(b: Any, address: Any, kind: ir.Type) -> Any:
    """Load a vector from an address that need not be aligned (files are memory-mapped where they fall)."""
    return b.load(b.inttoptr(address, kind.as_pointer()), align=1)


def splat(b: Any, value: Any, kind: ir.VectorType) -> Any:
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return b.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    )


def term_words(b: Any, at: Any, terms: Any, count: int) -> list[Any]:
    """256 u + v of so many vectors with one row of terms, u, or two, by address: of the even ones, and of the odd."""
    words = ir.VectorType(I16, count // 2)
    eight, upper = ir.Constant(words, [8] * words.count), ir.Constant(words, [0xFF00] * words.count)
    u = load_vector(b, at, words)
    parts = [cgutils.alloca_once_value(b, v) for v in (b.shl(u, eight), b.and_(u, upper))]
    with b.if_then(b.icmp_signed(">", terms, i64(1))):
        v = load_vector(b, b.add(at, i64(64)), words)
        for part, finer in zip(parts, (b.lshr(b.shl(v, eight), eight), b.lshr(v, eight)), strict=True):
            b.store(b.or_(b.load(part), finer), part)
    return [b.load(part) for part in parts]


def prefetch_line(b: Any, address: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    b.call(function, [b.inttoptr(address, I8.as_pointer()), *(ir.Constant(I32, v) for v in (0, 3, 1))])  # for reading


def _ordered(b: Any, addresses: list[Any], n: Any, term: Any) -> Any:
    """The sum of `n` terms in the order of `ivfpq.distances.ordered_sum`: 16 lanes, then halves onto halves."""
    lanes = cgutils.alloca_once_value(b, ir.Constant(FLOATS, [0.0] * LANES))
    whole = b.and_(n, i64(-LANES))
    with cgutils.for_range_slice(b, i64(0), whole, i64(LANES), I64, inc=True) as (t, _):
        offset = b.shl(t, i64(2))
        b.store(b.fadd(b.load(lanes), term(*(load_vector(b, b.add(a, offset), FLOATS) for a in addresses))), lanes)
    with b.if_then(b.icmp_signed("<", whole, n)):
        mask_type = ir.VectorType(ir.IntType(1), LANES)
        numbers = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))
        left = splat(b, b.trunc(b.sub(n, whole), I32), ir.VectorType(I32, LANES))
        mask = b.icmp_signed("<", numbers, left)
        pointer = FLOATS.as_pointer()
        masked = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(FLOATS, [pointer, I32, mask_type, FLOATS]), "llvm.masked.load.v16f32.p0"
        )
        offset = b.shl(whole, i64(2))
        zeros = ir.Constant(FLOATS, [0.0] * LANES)
        loaded = [
            b.call(masked, [b.inttoptr(b.add(a, offset), pointer), ir.Constant(I32, 4), mask, zeros]) for a in addresses
        ]
        b.store(b.fadd(b.load(lanes), term(*loaded)), lanes)
    return fold(b, b.load(lanes), b.fadd)


def _ordered_four(b: Any, addresses: list[Any], term: Any) -> Any:
    """The same of four terms. Twelve lanes of zeros would change nothing: no lane holds a negative zero."""
    four = ir.VectorType(FLOAT, 4)
    terms = term(*(load_vector(b, a, four) for a in addresses))
    return fold(b, b.fadd(ir.Constant(four, [0.0] * 4), terms), b.fadd)


def fold(b: Any, lanes: Any, join: Any) -> Any:
    """One number of the lanes, by joining halves with halves: their sum as `ivfpq.distances.ordered_sum` ends."""
    half = lanes.type.count // 2
    while half:
        low = ir.Constant(ir.VectorType(I32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(I32, half), list(range(half, 2 * half)))
        lanes = join(b.shuffle_vector(lanes, lanes, low), b.shuffle_vector(lanes, lanes, high))
        half //= 2
    return b.extract_element(lanes, ir.Constant(I32, 0))


def chosen(b: Any, comparison: str, u: Any, v: Any) -> Any:
    """u where it compares so with v, and else v."""
    return b.select(b.fcmp_ordered(comparison, u, v), u, v)


@intrinsic
def sum_of_products(typingctx: Any, x: Any, y: Any, n: Any) -> Any:
    """ordered_sum(x * y) of n float32 at the addresses x and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _ordered(b, list(args[:2]), args[2], b.fmul)

    return types.float32(types.int64, types.int64, types.int64), codegen


@intrinsic
def sum_of_four_products(typingctx: Any, x: Any, y: Any) -> Any:
    """ordered_sum(x * y) of 4 float32 at the addresses x and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _ordered_four(b, list(args), b.fmul)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def sum_of_squares(typingctx: Any, x: Any, y: Any, n: Any) -> Any:
    """ordered_sum((x - y)**2) of n float32 at the addresses x and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        def term(x: Any, y: Any) -> Any:
            difference = b.fsub(x, y)
            return b.fmul(difference, difference)

        return _ordered(b, list(args[:2]), args[2], term)

    return types.float32(types.int64, types.int64, types.int64), codegen


@intrinsic
def sum_of_residual_squares(typingctx: Any, x: Any, c: Any, y: Any, n: Any) -> Any:
    """ordered_sum((x - c - y)**2) of n float32 at the addresses x, c and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _ordered(b, list(args[:3]), args[3], functools.partial(_residual_square, b))

    return types.float32(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def sum_of_four_residual_squares(typingctx: Any, x: Any, c: Any, y: Any) -> Any:
    """ordered_sum((x - c - y)**2) of 4 float32 at the addresses x, c and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _ordered_four(b, list(args), functools.partial(_residual_square, b))

    return types.float32(types.int64, types.int64, types.int64), codegen


def _residual_square(b: Any, x: Any, c: Any, y: Any) -> Any:
    difference = b.fsub(b.fsub(x, c), y)
    return b.fmul(difference, difference)


@intrinsic
def add_vectors(typingctx: Any, x: Any, y: Any, n: Any, out: Any) -> Any:
    """out[i] = x[i] + y[i] for n float32 at these addresses; out may be x."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, n, out = args
        whole = b.and_(n, i64(-LANES))
        for first, end, kind in ((i64(0), whole, FLOATS), (whole, n, ir.VectorType(FLOAT, 1))):
            with cgutils.for_range_slice(b, first, end, i64(kind.count), I64, inc=True) as (i, _):
                at = b.shl(i, i64(2))
                total = b.fadd(load_vector(b, b.add(x, at), kind), load_vector(b, b.add(y, at), kind))
                b.store(total, b.inttoptr(b.add(out, at), kind.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def trailing_zeros(typingctx: Any, mask: Any) -> Any:
    """The number of the lowest bit that is set in a mask that is not 0."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic
def ones(typingctx: Any, mask: Any) -> Any:
    """How many bits of a mask are set."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def extent(typingctx: Any, row: Any, n: Any, out: Any) -> Any:
    """Write the smallest and the largest of n float32 (n a multiple of 16) at the address row to out[0], out[1]."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, n, out = args
        low = cgutils.alloca_once_value(b, load_vector(b, row, FLOATS))
        high = cgutils.alloca_once_value(b, load_vector(b, row, FLOATS))
        with cgutils.for_range_slice(b, i64(LANES), n, i64(LANES), I64, inc=True) as (j, _):
            v = load_vector(b, b.add(row, b.shl(j, i64(2))), FLOATS)
            for kept, smaller in ((low, "<"), (high, ">")):
                b.store(chosen(b, smaller, v, b.load(kept)), kept)
        for place, (kept, smaller) in enumerate(((low, "<"), (high, ">"))):
            end = fold(b, b.load(kept), functools.partial(chosen, b, smaller))
            pointer = b.inttoptr(b.add(out, i64(4 * place)), FLOAT.as_pointer())
            b.store(end, pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def not_above(typingctx: Any, row: Any, limit: Any) -> Any:
    """Which of 64 float32 at the address row are not above a limit: bit j for number j. NaN is not above."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(FLOAT, 64)
        above = b.fcmp_ordered(">", load_vector(b, args[0], wide), splat(b, args[1], wide))
        return b.not_(b.bitcast(above, I64))

    return types.uint64(types.int64, types.float32), codegen


@intrinsic
def centred(typingctx: Any, x: Any, n: Any, centre: Any, out: Any) -> Any:
    """out[i] = x[i] - centre[i], for n float32, by address."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, n, centre, out = args

        def some(kind: ir.VectorType, i: Any) -> None:
            offset = b.shl(i, i64(2))
            v = b.fsub(load_vector(b, b.add(x, offset), kind), load_vector(b, b.add(centre, offset), kind))
            b.store(v, b.inttoptr(b.add(out, offset), kind.as_pointer()), align=4)

        whole = b.and_(n, i64(-LANES))
        with cgutils.for_range_slice(b, i64(0), whole, i64(LANES), I64, inc=True) as (i, _):
            some(FLOATS, i)
        with cgutils.for_range_slice(b, whole, n, i64(1), I64, inc=True) as (i, _):
            some(ir.VectorType(FLOAT, 1), i)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def in_pairs(typingctx: Any, x: Any, n: Any, factor: Any, out: Any, stride: Any) -> Any:
    """The numbers x[i] * factor, rounded to int16, for n float32, n a multiple of 16: two of them every `stride` bytes.

    With a stride of 4, `out` may be x.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, n, factor, out, stride = args
        half = [ir.Constant(FLOATS, [sign * 0.5] * LANES) for sign in (-1, 1)]
        with cgutils.for_range_slice(b, i64(0), n, i64(LANES), I64, inc=True) as (i, _):
            v = b.fmul(load_vector(b, b.add(x, b.shl(i, i64(2))), FLOATS), splat(b, factor, FLOATS))
            v = b.fadd(v, b.select(b.fcmp_ordered("<", v, ir.Constant(FLOATS, [0.0] * LANES)), *half))
            v = b.bitcast(b.trunc(b.fptosi(v, INTS), ir.VectorType(I16, LANES)), ir.VectorType(I32, LANES // 2))
            for pair in range(LANES // 2):
                place = b.add(out, b.mul(b.add(b.lshr(i, i64(1)), i64(pair)), stride))
                word = b.extract_element(v, ir.Constant(I32, pair))
                b.store(word, b.inttoptr(place, I32.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64, types.int64), codegen


def products_of_pairs(b: Any, u: Any, v: Any) -> Any:
    """u[2 i] v[2 i] + u[2 i + 1] v[2 i + 1] of vectors of small integers, as half as many of 32 bits.

    Written so that LLVM finds the instruction for it, which most processors have for integers of 16 bits.
    """
    count = u.type.count
    wide, half = ir.VectorType(I32, count), ir.VectorType(I32, count // 2)
    products = b.mul(b.sext(u, wide), b.sext(v, wide))
    even, odd = (
        b.shuffle_vector(products, products, ir.Constant(half, list(range(side, count, 2)))) for side in (0, 1)
    )
    return b.add(even, odd)


def _products_with(count: int) -> Any:
    @intrinsic
    def panel_products(typingctx: Any, x: Any, n: Any, panel: Any, scales: Any, start: Any, out: Any) -> Any:
        """out[q, j] = start[q, j] + units[q] * scale * sum over i < 2 n of x[q, i] * panel[i, j], for 64 columns j.

        32 bits must hold each sum of a stretch, of up to STRETCH pairs: the stretches are added up by whoever calls.

        A panel is contiguous, (n, 64, 2) int16 (see `panels.Panels`), so it is read from front to back, which is all
        that a product with a single vector costs. With several, a vector that is read serves all.

        Parameters
        ----------
        x : int
            Address of int16 (n, count, 2).
        n, panel : int
        scales : (int, float32)
            Address of float32 units (count,), and the scale.
        start, out : (int, int)
            Addresses of float32 numbers, and from a row of them to the next in bytes.
        """

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, n, panel = args[:3]
            (units, scale), (start, step), (out, stride) = (
                [b.extract_value(pair, i) for i in range(2)] for pair in args[3:]
            )
            halves = ir.VectorType(I16, 2 * LANES)
            zeros = ir.Constant(INTS, [0] * LANES)
            sums = [[cgutils.alloca_once_value(b, zeros) for _ in range(4)] for _ in range(count)]
            with cgutils.for_range(b, n) as loop:
                at = b.add(panel, b.shl(loop.index, i64(8)))
                columns = [load_vector(b, b.add(at, i64(64 * part)), halves) for part in range(4)]
                for q in range(count):
                    place = b.add(x, b.shl(b.add(b.mul(loop.index, i64(count)), i64(q)), i64(2)))
                    pair = b.load(b.inttoptr(place, I32.as_pointer()), align=4)
                    pair = b.bitcast(splat(b, pair, INTS), halves)
                    for sum_, column in zip(sums[q], columns, strict=True):
                        b.store(b.add(b.load(sum_), products_of_pairs(b, pair, column)), sum_)
            for q in range(count):
                unit = b.load(b.inttoptr(b.add(units, i64(4 * q)), FLOAT.as_pointer()), align=4)
                for part, sum_ in enumerate(sums[q]):
                    total = b.fmul(b.sitofp(b.load(sum_), FLOATS), splat(b, scale, FLOATS))
                    total = b.fmul(total, splat(b, unit, FLOATS))  # both at once might be too small for a float32
                    place = b.add(b.add(start, b.mul(i64(q), step)), i64(64 * part))
                    total = b.fadd(total, load_vector(b, place, FLOATS))
                    place = b.add(b.add(out, b.mul(i64(q), stride)), i64(64 * part))
                    b.store(total, b.inttoptr(place, FLOATS.as_pointer()), align=1)
            return context.get_dummy_value()

        i, rows = types.int64, types.UniTuple(types.int64, 2)
        return types.void(i, i, i, types.Tuple((i, types.float32)), rows, rows), codegen

    return panel_products


STRETCH = 128  # pairs whose products are added as integers
TOGETHER = 4  # queries multiplied by a panel at a time: 16 sums stay in registers, enough to keep two adders busy
panel_products, panel_products_together = _products_with(1), _products_with(TOGETHER)


@intrinsic
def decode_bytes(typingctx: Any, code: Any, low: Any, width: Any, d: Any, y: Any) -> Any:
    """y[j] = low[j] + width[j] * ((code[j] + 1/2) / 255) for d uint8 and float32, by address."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        code, low, width, d, y = args
        whole = b.and_(d, i64(-LANES))
        for first, end, count in ((i64(0), whole, LANES), (whole, d, 1)):
            kind = ir.VectorType(FLOAT, count)
            with cgutils.for_range_slice(b, first, end, i64(count), I64, inc=True) as (j, _):
                at = b.shl(j, i64(2))
                v = b.uitofp(load_vector(b, b.add(code, j), ir.VectorType(I8, count)), kind)
                v = b.fadd(v, ir.Constant(kind, [0.5] * count))
                v = b.fdiv(v, ir.Constant(kind, [255.0] * count))
                v = b.fmul(load_vector(b, b.add(width, at), kind), v)
                v = b.fadd(load_vector(b, b.add(low, at), kind), v)
                b.store(v, b.inttoptr(b.add(y, at), kind.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen
