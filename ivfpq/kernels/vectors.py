"""LLVM code that numba does not write by itself: memory by address, ordered sums, products, bits.

LLVM's own vectors and intrinsics are legal on any processor: where it has no registers of 16 floats, LLVM uses several.
Nothing here may be fused or reordered by the compiler, because nothing says `fast`; only `panel_products`, which
screens, asks for fused products.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils

LANES = 16

intrinsic: Any = extending.intrinsic  # its type has the arguments wrong

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS = ir.VectorType(_F32, LANES)

_LEAN: dict[str, Any] = {"no_cfunc_wrapper": True}  # nobody calls these from C
_INNER: dict[str, Any] = {"no_cpython_wrapper": True}


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk.

    numba keeps it beside the source or, where that cannot be written, in the user's cache folder.
    """
    try:
        return njit(nogil=True, cache=True, error_model="numpy", **_LEAN)(function)
    except RuntimeError:  # neither folder can be written
        return njit(nogil=True, error_model="numpy", **_LEAN)(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that compiled functions call: without a way in from Python, which takes time to compile."""
    return njit(nogil=True, error_model="numpy", **_LEAN, **_INNER)(function)


def part(function: Callable[..., Any]) -> Any:
    """Compile a part of one function only: numba puts its lines where it is called, so it is compiled once."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def i64(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def load_vector(b: Any, address: Any, kind: ir.Type) -> Any:
    """Load a vector from an address that need not be aligned (files are memory-mapped where they fall)."""
    return b.load(b.inttoptr(address, kind.as_pointer()), align=1)


def splat(b: Any, value: Any, kind: ir.VectorType) -> Any:
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return b.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    )


def _ordered(b: Any, addresses: list[Any], n: Any, term: Any) -> Any:
    """The sum of `n` terms in the order of `ivfpq.distances.ordered_sum`: 16 lanes, then halves onto halves."""
    lanes = cgutils.alloca_once_value(b, ir.Constant(_FLOATS, [0.0] * LANES))
    whole = b.and_(n, i64(-LANES))
    with cgutils.for_range_slice(b, i64(0), whole, i64(LANES), _I64, inc=True) as (t, _):
        offset = b.shl(t, i64(2))
        b.store(b.fadd(b.load(lanes), term(*(load_vector(b, b.add(a, offset), _FLOATS) for a in addresses))), lanes)
    with b.if_then(b.icmp_signed("<", whole, n)):
        mask_type = ir.VectorType(ir.IntType(1), LANES)
        numbers = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))
        left = splat(b, b.trunc(b.sub(n, whole), _I32), ir.VectorType(_I32, LANES))
        mask = b.icmp_signed("<", numbers, left)
        pointer = _FLOATS.as_pointer()
        masked = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(_FLOATS, [pointer, _I32, mask_type, _FLOATS]), "llvm.masked.load.v16f32.p0"
        )
        offset = b.shl(whole, i64(2))
        zeros = ir.Constant(_FLOATS, [0.0] * LANES)
        loaded = [
            b.call(masked, [b.inttoptr(b.add(a, offset), pointer), ir.Constant(_I32, 4), mask, zeros])
            for a in addresses
        ]
        b.store(b.fadd(b.load(lanes), term(*loaded)), lanes)
    total = b.load(lanes)
    half = LANES // 2
    while half:
        low = ir.Constant(ir.VectorType(_I32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(_I32, half), list(range(half, 2 * half)))
        total = b.fadd(b.shuffle_vector(total, total, low), b.shuffle_vector(total, total, high))
        half //= 2
    return b.extract_element(total, ir.Constant(_I32, 0))


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Where the first number of an array is."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, b, args[0]).data
        return b.ptrtoint(data, _I64)

    return types.int64(array), codegen


def _loader(stored: ir.Type, returned: types.Type) -> Any:
    """A function that reads a number from an address, aligned or not."""

    @intrinsic
    def load(typingctx: Any, at: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            value = load_vector(b, args[0], stored)
            if stored in (_I8, _I16):
                return b.zext(value, _I64)
            return b.sext(value, _I64) if stored == _I32 else value

        return returned(types.int64), codegen

    return load


byte_at, word_at, eight_bytes_at = (_loader(stored, types.uint64) for stored in (_I8, _I16, _I64))
int32_at, int64_at = _loader(_I32, types.int64), _loader(_I64, types.int64)
float32_at, float64_at = _loader(_F32, types.float32), _loader(ir.DoubleType(), types.float64)


@intrinsic
def sum_of_products(typingctx: Any, x: Any, y: Any, n: Any) -> Any:
    """ordered_sum(x * y) of n float32 at the addresses x and y."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _ordered(b, list(args[:2]), args[2], b.fmul)

    return types.float32(types.int64, types.int64, types.int64), codegen


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
        def term(x: Any, c: Any, y: Any) -> Any:
            difference = b.fsub(b.fsub(x, c), y)
            return b.fmul(difference, difference)

        return _ordered(b, list(args[:3]), args[3], term)

    return types.float32(types.int64, types.int64, types.int64, types.int64), codegen


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
        low = cgutils.alloca_once_value(b, load_vector(b, row, _FLOATS))
        high = cgutils.alloca_once_value(b, load_vector(b, row, _FLOATS))
        with cgutils.for_range_slice(b, i64(LANES), n, i64(LANES), _I64, inc=True) as (j, _):
            v = load_vector(b, b.add(row, b.shl(j, i64(2))), _FLOATS)
            for kept, smaller in ((low, "<"), (high, ">")):
                old = b.load(kept)
                b.store(b.select(b.fcmp_ordered(smaller, v, old), v, old), kept)
        for place, (kept, smaller) in enumerate(((low, "<"), (high, ">"))):
            v = b.load(kept)
            half = LANES // 2
            while half:
                parts = [
                    b.shuffle_vector(v, v, ir.Constant(ir.VectorType(_I32, half), list(range(s, s + half))))
                    for s in (0, half)
                ]
                v = b.select(b.fcmp_ordered(smaller, *parts), *parts)
                half //= 2
            pointer = b.inttoptr(b.add(out, i64(4 * place)), _F32.as_pointer())
            b.store(b.extract_element(v, ir.Constant(_I32, 0)), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def panel_products(typingctx: Any, x: Any, n: Any, panel: Any, start: Any, out: Any) -> Any:
    """out[j] = start[j] + sum over i < n of x[i] * panel[i, j], for the 64 columns j of a panel, fused or not.

    A matrix cut into panels of 64 columns, each (n, 64) and contiguous, is read once from front to back, which is all
    that a product with a single vector costs.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, n, panel, start, out = args
        fused = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fmuladd.v16f32")
        parts = [i64(64 * part) for part in range(4)]
        sums = [cgutils.alloca_once_value(b, load_vector(b, b.add(start, part), _FLOATS)) for part in parts]
        with cgutils.for_range(b, n) as loop:
            at = b.add(panel, b.shl(loop.index, i64(8)))
            value = b.load(b.inttoptr(b.add(x, b.shl(loop.index, i64(2))), _F32.as_pointer()), align=4)
            value = splat(b, value, _FLOATS)
            for sum_, part in zip(sums, parts, strict=True):
                b.store(b.call(fused, [value, load_vector(b, b.add(at, part), _FLOATS), b.load(sum_)]), sum_)
        for sum_, part in zip(sums, parts, strict=True):
            b.store(b.load(sum_), b.inttoptr(b.add(out, part), _FLOATS.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


def sources(*names: str) -> str:
    """A sum of the sources of modules of this package. numba looks for changes in the file of the function that it has
    on disk, not in those of the functions called; as a part of an argument's type, the sum makes it look for another.
    """
    files = (Path(__file__).with_name(f"{name}.py") for name in names)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
