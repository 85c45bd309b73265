"""AVX2: 128 codes looked at in some 15 instructions a codebook, by the nearest codeword of sixteen each.

Codewords whose numbers share their low four bits are a group, of at most 16, and A[m, g] is the smallest entry of T[m]
in group g. What 16 minima say of a code is a lower bound of what its entry says (PQ Fast Scan: André, Kermarrec, Le
Scouarnec 2015, without its grouping of the codes), and 16 numbers of 8 bits are a table that one instruction looks up
for 32 codes. With low_m the smallest of A[m], that is of T[m], and one step for all,

    t8[m, g] = min(floor((A[m, g] - low_m) / step), 255)
    so    sum of low_m + step * sum of t8[m, j_m % 16]  <=  sum of T[m, j_m]

but for the roundings of M <= 256 entries, which together are less than one step. Sums of 8 bits saturate at 255, so
they are kept apart from a limit that is at most 254: the step is what lets the limit of the list being scanned, in
steps, be so. Tables are made anew when the limit has moved to where fewer than seven bits would tell sums apart.

Where codes lie evenly, so that many are left, a second table of 16 tells how far above the nearest of its group the
nearest codeword is at the same place of any group,

    B[m, p] = min over g of (T[m, 16 p + g] - A[m, g])     so     A[m, g] + B[m, p]  <=  T[m, 16 p + g]

which costs half as much again. Even and odd m are then added up apart and the two sums, of half steps, averaged: a
byte holds twice as much. Each query goes by what its last tile left (`looks`). Both tables say much only where
codewords near each other share their low four bits: see `codeword_groups`.

Terms (see `quantizers`) are added as in `avx512`, cut to 255.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ivfpq.kernels.intrinsics import (
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTS,
    chosen,
    fold,
    i64,
    load_vector,
    prefetch_line,
    splat,
    term_words,
)
from ivfpq.kernels.jit import cgutils, intrinsic, jit_inner
from ivfpq.kernels.layout import GROUPS
from ivfpq.kernels.memory import put_float32

F32 = np.float32
LARGEST, SMALLEST = 253.0, 126.0  # what theta, in steps, should be: one more is allowed for the roundings
ALL, NONE = 255, -1  # limits that let every sum pass, and none
UNKNOWN, USED, UNUSED = 0, 1, 2  # `QUERY.by_places`: whether there are tables of places, and are looked up

_BYTES = ir.VectorType(I8, 32)


# table[:16][code]
def look_up(b: Any, table: Any, code: Any) -> Any:
    """The entries that 32 codes below 16 name in a table of 16 bytes, which is there twice: vpshufb."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 2)
    return b.call(b.module.declare_intrinsic("llvm.x86.avx2.pshuf.b", (), kind), [table, code])


# np.minimum.reduce(row[: 16 * count].reshape(count, 16))
@intrinsic
def group_minima(typingctx: Any, row: Any, count: Any, out: Any) -> Any:
    """Write the minima of 16 groups, less the smallest of them, to out; returns that smallest.

    By address, float32 (16 * count,) and (16,). Number j is in group j % 16.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, count, out = args
        minima = cgutils.alloca_once_value(b, load_vector(b, row, FLOATS))
        with cgutils.for_range_slice(b, i64(1), count, i64(1), I64, inc=True) as (i, _):
            v = load_vector(b, b.add(row, b.shl(i, i64(6))), FLOATS)
            b.store(chosen(b, "<", v, b.load(minima)), minima)
        least = fold(b, b.load(minima), functools.partial(chosen, b, "<"))
        above = b.fsub(b.load(minima), splat(b, least, FLOATS))
        b.store(above, b.inttoptr(out, FLOATS.as_pointer()), align=1)
        return least

    return types.float32(types.int64, types.int64, types.int64), codegen


# A = row[: 16 * count].reshape(count, 16)
# out[:count] = (A - A.min(axis=0)).min(axis=1)
@intrinsic
def place_minima(typingctx: Any, row: Any, count: Any, out: Any) -> Any:
    """Write how far above the minimum of its group the nearest codeword at each place is, and zeros up to 16 places.

    By address, float32 (16 * count,) and (16,). Number j is at place j // 16.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, count, out = args
        minima = cgutils.alloca_once_value(b, load_vector(b, row, FLOATS))
        with cgutils.for_range_slice(b, i64(1), count, i64(1), I64, inc=True) as (i, _):
            v = load_vector(b, b.add(row, b.shl(i, i64(6))), FLOATS)
            b.store(chosen(b, "<", v, b.load(minima)), minima)
        b.store(ir.Constant(FLOATS, [0.0] * GROUPS), b.inttoptr(out, FLOATS.as_pointer()), align=1)
        with cgutils.for_range(b, count) as loop:
            v = b.fsub(load_vector(b, b.add(row, b.shl(loop.index, i64(6))), FLOATS), b.load(minima))
            least = fold(b, v, functools.partial(chosen, b, "<"))
            b.store(least, b.inttoptr(b.add(out, b.shl(loop.index, i64(2))), least.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


# out[:] = np.minimum(values * inverse, 255).astype(np.uint8)
@intrinsic
def in_steps(typingctx: Any, values: Any, n: Any, inverse: Any, out: Any) -> Any:
    """Numbers from 0 up in whole steps, cut to 255: n float32, n a multiple of 16, and uint8 by address."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        values, n, inverse, out = args
        narrow, top = ir.VectorType(I8, FLOATS.count), ir.Constant(FLOATS, [255.0] * FLOATS.count)
        inverses = splat(b, inverse, FLOATS)
        with cgutils.for_range_slice(b, i64(0), n, i64(FLOATS.count), I64, inc=True) as (i, _):
            v = b.fmul(load_vector(b, b.add(values, b.shl(i, i64(2))), FLOATS), inverses)
            v = b.trunc(b.fptosi(chosen(b, "<", v, top), INTS), narrow)
            b.store(v, b.inttoptr(b.add(out, i), narrow.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), codegen


BLOCKS = 2  # scanned together: each load of a table then serves 128 codes
_MASKS, _PAIR = types.UniTuple(types.uint64, BLOCKS), types.UniTuple(types.int64, 2)
_SCREENED = _MASKS(_PAIR, types.int64, types.int64, types.UniTuple(types.int64, 3), types.uint16, types.uint8)


@intrinsic
def screen_blocks(typingctx: Any, blocks: Any, ahead: Any, tables: Any, rows: Any, scale: Any, limit: Any) -> Any:
    """Which of 2 x 64 codes have a sum of minima, in steps, not above a limit.

    With the tables t (M, 16) and a block of codes j (M, 64), followed by a row of terms u (64,) that counts only if
    scale > 0, and maybe by another, v, lane i of the block passes if

        sum over m of t[m, j[m, i] % 16] + floor((u[i] + v[i] / 256) * scale / 256) <= limit     (saturating at 255)

    Parameters
    ----------
    blocks : (int, int)
        Address of the first block and the distance of the second from it, in bytes.
    ahead : int
        Address of what will be scanned soon, and should be read into the cache meanwhile.
    tables : int
        Address of the uint8 (M, 16) tables.
    rows : (int, int, int)
        M, at most 256; rows of terms: 2 for u and v; how far the tables of one m are from those of the next, in bytes.
    scale : uint16
    limit : uint8

    Returns
    -------
    (uint64, uint64)
        One for each block, bit i for code i.
    """
    return _SCREENED, _screen(1)


@intrinsic
def screen_pairs(typingctx: Any, blocks: Any, ahead: Any, tables: Any, rows: Any, scale: Any, limit: Any) -> Any:
    """The same for two tables a byte of a block, (M, 2, 16): the upper four bits of a byte are looked up in the second.

    In place of the sum stands the mean, rounded down, of the sums of even and odd m, each saturating at 255: so tables
    may count in half steps. Numbers of 4 bits are two a byte: each table then has an entry for each number, so that a
    sum leaves out nothing but what is rounded away.
    """
    return _SCREENED, _screen(2)


def _screen(numbers: int) -> Any:
    """The code of `screen_blocks`, for so many numbers in a byte of a block."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, ahead, tables, _, scale, limit = args
        (block, stride), (height, terms, apart) = (
            [b.extract_value(args[place], i) for i in range(count)] for place, count in ((0, 2), (3, 3))
        )
        add = cgutils.get_or_insert_function(b.module, ir.FunctionType(_BYTES, [_BYTES] * 2), "llvm.uadd.sat.v32i8")
        low_bits, words = ir.Constant(_BYTES, [GROUPS - 1] * 32), ir.VectorType(I16, 16)
        starts = [b.add(at, i64(32 * half)) for at in (block, b.add(block, stride)) for half in range(2)]
        zero = ir.Constant(_BYTES, [0] * 32)
        sums, before = ([cgutils.alloca_once_value(b, zero) for _ in starts] for _ in range(2))

        def add_rows(first: Any, step: int) -> None:
            with cgutils.for_range_slice(b, first, height, i64(step), I64, inc=True) as (number, _):
                at = b.add(tables, b.mul(number, apart))
                twice = ir.Constant(ir.VectorType(I32, 32), [*range(GROUPS)] * 2)
                looked = [load_vector(b, b.add(at, i64(GROUPS * i)), ir.VectorType(I8, GROUPS)) for i in range(numbers)]
                looked = [b.shuffle_vector(table, table, twice) for table in looked]
                row = b.shl(number, i64(6))
                prefetch_line(b, b.add(ahead, row))
                prefetch_line(b, b.add(b.add(ahead, row), stride))
                for start, sum_ in zip(starts, sums, strict=True):
                    code = load_vector(b, b.add(start, row), _BYTES)
                    for table in looked:
                        b.store(b.call(add, [b.load(sum_), look_up(b, table, b.and_(code, low_bits))]), sum_)
                        code = b.bitcast(b.lshr(b.bitcast(code, words), ir.Constant(words, [4] * 16)), _BYTES)

        if numbers == 1:
            add_rows(i64(0), 1)
        else:
            with cgutils.for_range(b, i64(2)) as parity:
                for sum_, kept in zip(sums, before, strict=True):
                    b.store(b.load(sum_), kept)
                    b.store(zero, sum_)
                add_rows(parity.index, 2)
            for sum_, kept in zip(sums, before, strict=True):
                b.store(_mean(b, b.load(sum_), b.load(kept)), sum_)
        with b.if_then(b.icmp_unsigned(">", scale, ir.Constant(I16, 0))):
            for start, sum_ in zip(starts, sums, strict=True):
                term = _scaled_terms(b, b.add(start, b.shl(height, i64(6))), terms, scale)
                b.store(b.call(add, [b.load(sum_), term]), sum_)
        limits = splat(b, limit, _BYTES)
        near = [b.zext(b.bitcast(b.icmp_unsigned("<=", b.load(sum_), limits), I32), I64) for sum_ in sums]
        return context.make_tuple(b, _MASKS, [b.or_(near[i], b.shl(near[i + 1], i64(32))) for i in (0, 2)])

    return codegen


# in_pairs or by_places == USED
@jit_inner
def in_halves(quantizers, query):
    """Whether both halves of a byte are looked up."""
    return quantizers.code_rows < quantizers.M or query.by_places == USED


# screen_pairs(...) if in_pairs or by_places == USED else screen_blocks(...)
@jit_inner
def screen(quantizers, query, blocks, ahead, scale, limit):
    """Which of 2 x 64 codes may be near, whatever a byte of a block holds: see `screen_blocks`."""
    if in_halves(quantizers, query):
        return screen_pairs(
            blocks, ahead, query.bytes, (quantizers.code_rows, quantizers.terms, 2 * GROUPS), scale, limit
        )
    apart = 2 * GROUPS if query.by_places else np.int64(GROUPS)
    return screen_blocks(blocks, ahead, query.bytes, (quantizers.code_rows, quantizers.terms, apart), scale, limit)


# (u.astype(np.uint16) + v) >> 1
def _mean(b: Any, u: Any, v: Any) -> Any:
    """Of 32 bytes each, rounded down."""
    words = ir.VectorType(I16, 16)
    halved = b.bitcast(b.lshr(b.bitcast(b.xor(u, v), words), ir.Constant(words, [1] * 16)), _BYTES)
    return b.add(b.and_(u, v), b.and_(halved, ir.Constant(_BYTES, [127] * 32)))


# np.minimum((256 * u + v) * scale >> 16, 255).astype(np.uint8)
def _scaled_terms(b: Any, at: Any, terms: Any, scale: Any) -> Any:
    """32 terms of one or two rows, the first at the address `at`, in steps of the tables."""
    half = ir.VectorType(I16, 16)
    wide, scales, top = ir.VectorType(I32, 16), splat(b, scale, half), ir.Constant(half, [255] * 16)
    even, odd = term_words(b, at, terms, 32)
    cut = []
    for words in (even, odd):
        product = b.mul(b.zext(words, wide), b.zext(scales, wide))
        term = b.trunc(b.lshr(product, ir.Constant(wide, [16] * 16)), half)
        cut.append(b.select(b.icmp_unsigned("<", term, top), term, top))
    return b.bitcast(b.or_(cut[0], b.shl(cut[1], ir.Constant(half, [8] * 16))), _BYTES)


# A = T.reshape(M, -1, 16).min(axis=1)
# minima, low = A - A.min(axis=1, keepdims=True), A.min(axis=1).sum()
# places = (T.reshape(M, -1, 16) - A[:, None]).min(axis=2)                                           (if `by_places`)
@jit_inner
def furnish_minima(quantizers, query, by_places):
    """Fill the minima of a query, and `low`. Its tables are made when there is a limit: see `limit_in_steps`."""
    low, count = 0.0, quantizers.ksub // GROUPS if quantizers.ksub > GROUPS else np.int64(1)
    query.by_places, query.step = by_places, 0.0
    out = minima(query, quantizers.M)
    for m in range(quantizers.M):
        row = query.floats + 4 * m * quantizers.wide
        low += np.float64(group_minima(row, count, out))
        if by_places:
            place_minima(row, count, out + 4 * GROUPS)
        out += (8 if by_places else 4) * GROUPS
    if quantizers.M & 1 and not by_places:  # a table more, of what stands for nothing beside the last number of a pair
        for i in range(GROUPS):
            put_float32(out, i, F32(0.0))
    query.low = low


# NONE if bound < 0 else np.floor(bound / step) + 1
@jit_inner
def limit_in_steps(quantizers, query, bound):
    """The largest sum that a bound may not leave out, ALL or NONE; the tables are made to suit it.

    What is not a number leaves nothing out.
    """
    if bound < 0.0:
        return NONE
    if not bound < np.inf:
        return ALL
    if not (query.step * SMALLEST < bound and bound <= query.step * LARGEST):
        M, step = quantizers.M, F32(bound / LARGEST)
        step = step if step > F32(1e-30) else F32(1e-30)
        steps = F32(2.0) if in_halves(quantizers, query) and quantizers.code_rows > 1 else F32(1.0)
        in_steps(minima(query, M), _tables(query, M), steps / step, query.bytes)
        query.step = np.float64(step)
    return np.int64(bound / query.step) + 1


# tables.nbytes
@jit_inner
def minima(query, M):
    """Address of the float32 (M, 16), behind the tables, uint8 (M, 16), in the room of whole 8-bit tables.

    M is even or there is one of each more. With places, both are (M, 2, 16).
    """
    return query.bytes + _tables(query, M)


# tables.size
@jit_inner
def _tables(query, M):
    """How many entries there are."""
    return 2 * GROUPS * M if query.by_places else GROUPS * ((M + 1) & ~1)
