"""AVX-512 VBMI: 128 codes looked at in a few dozen instructions (Quicker ADC: André, Kermarrec, Le Scouarnec 2019).

Tables of 8-bit numbers stand for the float32 ones. With low_m the smallest entry of table T[m] and one step for all,

    t8[m, j] = min(floor((T[m, j] - low_m) / step), 255)    so    sum of low_m + step * sum of t8[m, j_m]  <=  sum of T

but for the roundings of M <= 256 entries, which together are less than one step. An entry cut to 255 keeps the lower
bound a lower bound, whatever the step: it is half of what the widest table asks for, because a code with an entry so
far out is hardly ever among the nearest, and the others gain a bit.

Terms (see `quantizers`) are added in steps of their own, of 8 bits or 16, scaled by floor(256 step_l / step) / 256,
which is again from below. Sums of 16 bits do not overflow: M * 255 < 65536, and the term is added saturating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ivfpq.kernels.intrinsics import (
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    extent,
    i64,
    load_vector,
    prefetch_line,
    splat,
    term_words,
)
from ivfpq.kernels.jit import cgutils, intrinsic, jit_inner
from ivfpq.kernels.memory import float32_at

F32 = np.float32
M_MAX = 256  # sums of so many bytes still fit 16 bits
CLIP = 0.5  # the share of the widest table's range that 8 bits cover

_BYTES = ir.VectorType(I8, 64)
_WORDS = ir.VectorType(I16, 32)


@intrinsic
def quantise_row(typingctx: Any, row: Any, n: Any, low: Any, inverse: Any, out: Any) -> Any:
    """out[j] = min((row[j] - low) * inverse, 255), cut to uint8; n a multiple of 64."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, n, low, inverse, out = args
        wide = ir.VectorType(FLOAT, 64)
        lows, inverses, top = splat(b, low, wide), splat(b, inverse, wide), ir.Constant(wide, [255.0] * 64)
        with cgutils.for_range_slice(b, i64(0), n, i64(64), I64, inc=True) as (j, _):
            v = b.fmul(b.fsub(load_vector(b, b.add(row, b.shl(j, i64(2))), wide), lows), inverses)
            v = b.select(b.fcmp_ordered("<", v, top), v, top)
            v = b.trunc(b.fptosi(v, ir.VectorType(I32, 64)), _BYTES)
            b.store(v, b.inttoptr(b.add(out, j), _BYTES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.float32, types.int64), codegen


# np.concatenate([low, high])[code & 127]
def look_up(b: Any, low: Any, high: Any, code: Any) -> Any:
    """The entries that 64 codes name, by their low 7 bits, in a table of 128 bytes in two registers: vpermi2b."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 3)
    return b.call(b.module.declare_intrinsic("llvm.x86.avx512.vpermi2var.qi.512", (), kind), [low, code, high])


# (u.astype(np.uint32) * v >> 16).astype(np.uint16)
def high_product(b: Any, u: Any, v: Any) -> Any:
    """The upper halves of the products of 32 numbers of 16 bits: vpmulhuw."""
    kind = ir.FunctionType(_WORDS, [_WORDS] * 2)
    return b.call(b.module.declare_intrinsic("llvm.x86.avx512.pmulhu.w.512", (), kind), [u, v])


PREFETCH = 4352  # bytes ahead: the processor alone follows only the first of two blocks, and no jump to another list

GROUP = 2  # blocks scanned together: each load of a table then serves 128 codes


@intrinsic
def scan_blocks(typingctx: Any, blocks: Any, ahead: Any, tables: Any, rows: Any, scale: Any, limit: Any) -> Any:
    """Which of 2 x 64 codes have a quantised distance not above a limit.

    With the tables t (M, 256) and a block of codes j (M, 64), followed by a row of terms u (64,) that counts only if
    scale > 0, and maybe by another, v, lane i of the block passes if

        sum over m of t[m, j[m, i]] + floor((u[i] + v[i] / 256) * scale / 256) <= limit     (saturating at 65535)

    A table of 256 bytes is four registers. vpermi2b looks up 64 codes in two of them, by the low 7 bits of each code;
    the two halves are joined by the codes' high bits. Sums are kept in 16-bit lanes: `both` adds entries in pairs as
    one number, even + 256 odd modulo 65536, and `odd` the upper ones alone, so that even = both - 256 odd.

    Parameters
    ----------
    blocks : (int, int)
        Address of the first block and the distance of the second from it, in bytes.
    ahead : int
        Address of what will be scanned soon, and should be read into the cache meanwhile.
    tables : int
        Address of the uint8 (M, 256) tables.
    rows : (int, int)
        M, at most 256, and rows of terms: 2 for u and v.
    scale, limit : uint16

    Returns
    -------
    (uint64, uint64)
        One for each block. Bit i < 32 stands for code 2 i of the block, bit 32 + i for code 2 i + 1: see `lane_of`.
    """
    masks = types.UniTuple(types.uint64, GROUP)
    pair = types.UniTuple(types.int64, 2)
    signature = masks(pair, types.int64, types.int64, pair, types.uint16, types.uint16)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, ahead, tables, _, scale, limit = args
        (block, stride), (M, terms) = ([b.extract_value(args[place], i) for i in range(2)] for place in (0, 3))
        saturating = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(_WORDS, [_WORDS] * 2), "llvm.uadd.sat.v32i16"
        )
        starts = [block, b.add(block, stride)]
        zero, eight = ir.Constant(_BYTES, [0] * 64), ir.Constant(_WORDS, [8] * 32)
        nothing = ir.Constant(_WORDS, [0] * 32)
        both = [cgutils.alloca_once_value(b, nothing) for _ in starts]
        odd = [cgutils.alloca_once_value(b, nothing) for _ in starts]
        with cgutils.for_range(b, M) as loop:
            table = b.add(tables, b.shl(loop.index, i64(8)))
            t = [load_vector(b, b.add(table, i64(64 * part)), _BYTES) for part in range(4)]
            row = b.shl(loop.index, i64(6))
            for g, start in enumerate(starts):
                at = b.add(start, row)
                prefetch_line(b, b.add(b.add(ahead, row), b.mul(i64(g), stride)))
                code = load_vector(b, at, _BYTES)
                lower, upper = look_up(b, t[0], t[1], code), look_up(b, t[2], t[3], code)
                entry = b.bitcast(b.select(b.icmp_signed("<", code, zero), upper, lower), _WORDS)
                b.store(b.add(b.load(both[g]), entry), both[g])
                b.store(b.add(b.load(odd[g]), b.lshr(entry, eight)), odd[g])
        limits = splat(b, limit, _WORDS)
        sums = []
        for g in range(GROUP):
            upper_sum = b.load(odd[g])
            sums.append([b.sub(b.load(both[g]), b.shl(upper_sum, eight)), upper_sum])
        kept = [[cgutils.alloca_once_value(b, v) for v in pair] for pair in sums]
        with b.if_then(b.icmp_unsigned(">", scale, ir.Constant(I16, 0))):
            scales = splat(b, scale, _WORDS)
            for g, start in enumerate(starts):
                for side, words in enumerate(term_words(b, b.add(start, b.shl(M, i64(6))), terms, 64)):
                    term = high_product(b, words, scales)  # ((256 u + v) * scale) >> 16
                    b.store(b.call(saturating, [b.load(kept[g][side]), term]), kept[g][side])
        near = []
        for pair in kept:
            even, odd_ = (b.zext(b.bitcast(b.icmp_unsigned("<=", b.load(v), limits), I32), I64) for v in pair)
            near.append(b.or_(even, b.shl(odd_, i64(32))))
        return context.make_tuple(b, masks, near)

    return signature, codegen


# low = T.min(axis=1); step = (T.max(axis=1) - low).max() * CLIP / 255
# t8 = np.minimum((T - low[:, None]) / step, 255).astype(np.uint8)
@jit_inner
def quantise(floats, M, wide, bytes_, ends):
    """Fill the 8-bit tables of a query; returns their step and the sum of low_m.

    Parameters
    ----------
    floats, bytes_ : int
        Addresses of float32 (M, wide) and uint8 (M, 256).
    M, wide : int
        Of wide, a multiple of 64.
    ends : int
        Address of float32 (M, 2), to work in.
    """
    widest = F32(0.0)
    for m in range(M):
        extent(floats + 4 * m * wide, wide, ends + 8 * m)
        width = float32_at(ends, 2 * m + 1) - float32_at(ends, 2 * m)
        widest = width if width > widest else widest
    step = F32(widest * F32(CLIP / 255.0))
    step = step if step > F32(1e-30) else F32(1e-30)
    total = 0.0
    for m in range(M):
        low = float32_at(ends, 2 * m)
        quantise_row(floats + 4 * m * wide, wide, low, F32(1.0) / step, bytes_ + 256 * m)
        total += np.float64(low)
    return np.float64(step), total


# np.concatenate([np.arange(0, 64, 2), np.arange(1, 64, 2)])[bit]
@jit_inner
def lane_of(bit):
    """The place in its block of the code that a bit of `scan_blocks` stands for."""
    return ((bit & 31) << 1) | (bit >> 5)


# np.uint16(np.clip(np.nan_to_num(bound, nan=65535), 0, 65535))
@jit_inner
def sum_limit(bound):
    """The largest 16-bit sum that a bound in steps may not leave out; 65535 leaves nothing out (NaN neither)."""
    return np.uint16(65535) if not bound < 65535.0 else np.uint16(bound) if bound > 0.0 else np.uint16(0)
