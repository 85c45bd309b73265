"""Memory by address, for compiled code: numbers of arrays, records, blocks to work in.

Kernels know addresses and records, not arrays: numba counts references to arrays, one atomic addition each, and what it
makes of an array, or of an index into one, takes several times as long to compile. Nor does any kind of array
(read-only, unaligned, of wide codes) then ask for a compilation of its own.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from ivfpq.kernels.intrinsics import FLOAT, I8, I16, I32, I64, i64, load_vector, prefetch_line
from ivfpq.kernels.jit import cgutils, intrinsic


def _reader(stored: ir.Type, returned: types.Type) -> Any:
    """A function that reads array[i] by the array's address, aligned or not."""
    size = _bytes(stored)

    @intrinsic
    def read(typingctx: Any, array: Any, i: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            value = load_vector(b, b.add(args[0], b.mul(args[1], i64(size))), stored)
            if stored in (I8, I16):
                return b.zext(value, I64)
            return b.sext(value, I64) if stored == I32 else value

        return returned(types.int64, types.int64), codegen

    return read


def _writer(stored: ir.Type, given: types.Type) -> Any:
    """A function that does array[i] = value by the array's address."""
    size = _bytes(stored)

    @intrinsic
    def write(typingctx: Any, array: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            value = b.trunc(args[2], stored) if stored in (I8, I16, I32) else args[2]
            place = b.add(args[0], b.mul(args[1], i64(size)))
            b.store(value, b.inttoptr(place, stored.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, given), codegen

    return write


def _bytes(stored: ir.Type) -> int:
    if isinstance(stored, ir.IntType):
        return stored.width // 8
    return 4 if stored == FLOAT else 8


byte_at, word_at = _reader(I8, types.uint64), _reader(I16, types.uint64)
int32_at, int64_at = _reader(I32, types.int64), _reader(I64, types.int64)
float32_at, float64_at = _reader(FLOAT, types.float32), _reader(ir.DoubleType(), types.float64)
put_byte, put_word, put_int32, put_int64 = (_writer(kind, types.int64) for kind in (I8, I16, I32, I64))
put_float32, put_float64 = _writer(FLOAT, types.float32), _writer(ir.DoubleType(), types.float64)


@intrinsic
def eight_bytes_at(typingctx: Any, at: Any) -> Any:
    """Eight bytes as one number, the first the lowest."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return load_vector(b, args[0], I64)

    return types.uint64(types.int64), codegen


def record_reader(dtype: np.dtype[Any]) -> Any:
    """A function that gives number i of the records of that type at an address; its fields are read and written."""
    record, size = numba.from_dtype(dtype), dtype.itemsize

    @intrinsic
    def record_at(typingctx: Any, records: Any, i: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            place = b.add(args[0], b.mul(args[1], i64(size)))
            return b.inttoptr(place, context.get_value_type(record))

        return record(types.int64, types.int64), codegen

    return record_at


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Where the first number of an array is."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, b, args[0]).data
        return b.ptrtoint(data, I64)

    return types.int64(array), codegen


@intrinsic
def allocate(typingctx: Any, n: Any) -> Any:
    """Address of n bytes to write to, until they are given back by `free`. Raises MemoryError if there are none."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.ptrtoint(context.nrt.allocate(b, args[0]), I64)

    return types.int64(types.int64), codegen


@intrinsic
def free(typingctx: Any, at: Any) -> Any:
    """Give back what `allocate` gave."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        context.nrt.free(b, b.inttoptr(args[0], I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def copy_bytes(typingctx: Any, to: Any, source: Any, n: Any) -> Any:
    """to[:n] = source[:n], in bytes, n a multiple of 8; `to` may be `source` or lie before it."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        to, source, n = args
        with cgutils.for_range_slice(b, i64(0), n, i64(8), I64, inc=True) as (i, _):
            b.store(load_vector(b, b.add(source, i), I64), b.inttoptr(b.add(to, i), I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@intrinsic
def prefetch(typingctx: Any, at: Any, n: Any) -> Any:
    """Ask for n bytes of memory, soon to be read."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        at, n = args
        with cgutils.for_range_slice(b, i64(0), n, i64(64), I64, inc=True) as (offset, _):
            prefetch_line(b, b.add(at, offset))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
