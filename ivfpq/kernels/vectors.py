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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.untyped_passes import IRProcessing

LANES = 16

intrinsic: Any = extending.intrinsic  # its type has the arguments wrong

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _WORDS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)

_LEAN: dict[str, Any] = {"no_cfunc_wrapper": True}  # nobody calls these from C


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk.

    numba keeps it beside the source or, where that cannot be written, in the user's cache folder.
    """
    try:
        return njit(nogil=True, cache=True, error_model="numpy", **_LEAN)(function)
    except RuntimeError:  # neither folder can be written
        return njit(nogil=True, error_model="numpy", **_LEAN)(function)


class _Linked(JITCodeLibrary):
    """Code that is linked into its callers as it is, to be optimised and made machine code there.

    numba would do both with each function by itself too, and again with each of those that it is a part of.
    """

    @property
    def codegen(self) -> _Linked:
        """What is asked to announce the environment of a function that Python can call: nobody, see `set_env`."""
        return self

    def set_env(self, *_: Any) -> None:
        """Do nothing: without machine code there is no place that could be told of an environment."""

    def get_pointer_to_function(self, name: str) -> int:
        """0: there is no machine code."""
        return 0

    def _optimize_functions(self, _: Any) -> None:
        pass

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=False, analysis_only=True)
class _Link(FunctionPass):
    """The compiler pass that makes the code of a function a `_Linked` one."""

    _name = "link"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state.library = _Linked(state.targetctx.codegen(), state.func_id.func_qualname)
        return False


# Passes for what no function here has (closures, `with`, `literally`): each would analyse all of them once more.
_NEEDLESS = {
    "FindLiterallyCalls",
    "InlineClosureLikes",
    "InlineInlinables",
    "InlineOverloads",
    "LiteralUnroll",
    "MakeFunctionToJitFunction",
    "WithLift",
}


class _InnerCompiler(CompilerBase):
    """numba's compiler, with that pass and without those."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [each for each in passes.passes if each[0].__name__ not in _NEEDLESS]
        passes.add_pass_after(_Link, IRProcessing)
        passes.finalize()
        return [passes]


_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "pipeline_class": _InnerCompiler}


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that compiled functions call, as a part of those: see `_Linked`.

    The kernels write `min`, `max` and squares out: each would be a function of numba's to compile besides.
    """
    return njit(nogil=True, error_model="numpy", **_LEAN, **_INNER)(function)


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


def prefetch_line(b: Any, address: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    b.call(function, [b.inttoptr(address, _I8.as_pointer()), *(ir.Constant(_I32, v) for v in (0, 3, 1))])  # for reading


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
    return fold(b, b.load(lanes))


def fold(b: Any, lanes: Any) -> Any:
    """The sum of 16 lanes as `ivfpq.distances.ordered_sum` ends: halves onto halves."""
    half = LANES // 2
    while half:
        low = ir.Constant(ir.VectorType(_I32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(_I32, half), list(range(half, 2 * half)))
        lanes = b.fadd(b.shuffle_vector(lanes, lanes, low), b.shuffle_vector(lanes, lanes, high))
        half //= 2
    return b.extract_element(lanes, ir.Constant(_I32, 0))


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


def _writer(stored: ir.Type, given: types.Type) -> Any:
    """A function that writes a number to an address."""

    @intrinsic
    def put(typingctx: Any, at: Any, value: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            value = b.trunc(args[1], stored) if stored == _I8 else args[1]
            b.store(value, b.inttoptr(args[0], stored.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, given), codegen

    return put


byte_at, word_at, eight_bytes_at = (_loader(stored, types.uint64) for stored in (_I8, _I16, _I64))
int32_at, int64_at = _loader(_I32, types.int64), _loader(_I64, types.int64)
float32_at, float64_at = _loader(_F32, types.float32), _loader(ir.DoubleType(), types.float64)
put_byte, put_int64 = _writer(_I8, types.int64), _writer(_I64, types.int64)
put_float32, put_float64 = _writer(_F32, types.float32), _writer(ir.DoubleType(), types.float64)


@intrinsic
def memory(typingctx: Any, n: Any) -> Any:
    """Address of n bytes to write to, until they are given back by `free`. Raises MemoryError if there are none."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.ptrtoint(context.nrt.allocate(b, args[0]), _I64)

    return types.int64(types.int64), codegen


@intrinsic
def free(typingctx: Any, at: Any) -> Any:
    """Give back what `memory` gave."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        context.nrt.free(b, b.inttoptr(args[0], _I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


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
def add_vectors(typingctx: Any, x: Any, y: Any, n: Any, out: Any) -> Any:
    """out[i] = x[i] + y[i] for n float32 at these addresses; out may be x."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, n, out = args
        whole = b.and_(n, i64(-LANES))
        for first, end, kind in ((i64(0), whole, _FLOATS), (whole, n, ir.VectorType(_F32, 1))):
            with cgutils.for_range_slice(b, first, end, i64(kind.count), _I64, inc=True) as (i, _):
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
def prefetch(typingctx: Any, at: Any, n: Any) -> Any:
    """Ask for n bytes of memory, soon to be read."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        at, n = args
        with cgutils.for_range_slice(b, i64(0), n, i64(64), _I64, inc=True) as (offset, _):
            prefetch_line(b, b.add(at, offset))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def not_above(typingctx: Any, row: Any, limit: Any) -> Any:
    """Which of 64 float32 at the address row are not above a limit: bit j for number j. NaN is not above."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(_F32, 64)
        above = b.fcmp_ordered(">", load_vector(b, args[0], wide), splat(b, args[1], wide))
        return b.not_(b.bitcast(above, _I64))

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
        with cgutils.for_range_slice(b, i64(0), whole, i64(LANES), _I64, inc=True) as (i, _):
            some(_FLOATS, i)
        with cgutils.for_range_slice(b, whole, n, i64(1), _I64, inc=True) as (i, _):
            some(ir.VectorType(_F32, 1), i)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def in_pairs(typingctx: Any, x: Any, n: Any, factor: Any, out: Any, stride: Any) -> Any:
    """The numbers x[i] * factor, rounded to int16, for n float32, n a multiple of 16: two of them every `stride` bytes.

    With a stride of 4, `out` may be x.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, n, factor, out, stride = args
        half = [ir.Constant(_FLOATS, [sign * 0.5] * LANES) for sign in (-1, 1)]
        with cgutils.for_range_slice(b, i64(0), n, i64(LANES), _I64, inc=True) as (i, _):
            v = b.fmul(load_vector(b, b.add(x, b.shl(i, i64(2))), _FLOATS), splat(b, factor, _FLOATS))
            v = b.fadd(v, b.select(b.fcmp_ordered("<", v, ir.Constant(_FLOATS, [0.0] * LANES)), *half))
            v = b.bitcast(b.trunc(b.fptosi(v, _WORDS), ir.VectorType(_I16, LANES)), ir.VectorType(_I32, LANES // 2))
            for pair in range(LANES // 2):
                place = b.add(out, b.mul(b.add(b.lshr(i, i64(1)), i64(pair)), stride))
                word = b.extract_element(v, ir.Constant(_I32, pair))
                b.store(word, b.inttoptr(place, _I32.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64, types.int64), codegen


def products_of_pairs(b: Any, u: Any, v: Any) -> Any:
    """u[2 i] v[2 i] + u[2 i + 1] v[2 i + 1] of vectors of 32 small integers, as 16 of 32 bits.

    Written so that LLVM finds the instruction for it, which most processors have for integers of 16 bits.
    """
    wide = ir.VectorType(_I32, 2 * LANES)
    products = b.mul(b.sext(u, wide), b.sext(v, wide))
    even, odd = (
        b.shuffle_vector(products, products, ir.Constant(_WORDS, list(range(side, 2 * LANES, 2)))) for side in (0, 1)
    )
    return b.add(even, odd)


def _products_with(count: int) -> Any:
    @intrinsic
    def panel_products(
        typingctx: Any, x: Any, n: Any, panel: Any, units: Any, scale: Any, start: Any, step: Any, out: Any, stride: Any
    ) -> Any:
        """out[q, j] = start[q, j] + units[q] * scale * sum over i < 2 n of x[q, i] * panel[i, j], for 64 columns j.

        32 bits must hold each sum of a stretch, of up to STRETCH pairs: the stretches are added up by whoever calls.

        A panel is contiguous, (n, 64, 2) int16 (see `compiled.Panels`), so it is read from front to back, which is all
        that a product with a single vector costs. With several, a vector that is read serves all.

        Parameters
        ----------
        x : int
            Address of int16 (n, count, 2).
        n : int
        panel, units, start, out : int
            Of units (count,), start and out, the addresses of float32 numbers.
        scale : float32
        step, stride : int
            From a row of start, and of out, to the next, in bytes.
        """

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, n, panel, units, scale, start, step, out, stride = args
            halves = ir.VectorType(_I16, 2 * LANES)
            sums = [
                [cgutils.alloca_once_value(b, ir.Constant(_WORDS, [0] * LANES)) for _ in range(4)] for _ in range(count)
            ]
            with cgutils.for_range(b, n) as loop:
                at = b.add(panel, b.shl(loop.index, i64(8)))
                columns = [load_vector(b, b.add(at, i64(64 * part)), halves) for part in range(4)]
                for q in range(count):
                    place = b.add(x, b.shl(b.add(b.mul(loop.index, i64(count)), i64(q)), i64(2)))
                    pair = b.load(b.inttoptr(place, _I32.as_pointer()), align=4)
                    pair = b.bitcast(splat(b, pair, _WORDS), halves)
                    for sum_, column in zip(sums[q], columns, strict=True):
                        b.store(b.add(b.load(sum_), products_of_pairs(b, pair, column)), sum_)
            for q in range(count):
                unit = b.load(b.inttoptr(b.add(units, i64(4 * q)), _F32.as_pointer()), align=4)
                for part, sum_ in enumerate(sums[q]):
                    total = b.fmul(b.sitofp(b.load(sum_), _FLOATS), splat(b, scale, _FLOATS))
                    total = b.fmul(total, splat(b, unit, _FLOATS))  # both at once might be too small for a float32
                    place = b.add(b.add(start, b.mul(i64(q), step)), i64(64 * part))
                    total = b.fadd(total, load_vector(b, place, _FLOATS))
                    place = b.add(b.add(out, b.mul(i64(q), stride)), i64(64 * part))
                    b.store(total, b.inttoptr(place, _FLOATS.as_pointer()), align=1)
            return context.get_dummy_value()

        i = types.int64
        return types.void(i, i, i, i, types.float32, i, i, i, i), codegen

    return panel_products


STRETCH = 128  # pairs whose products are added as integers
TOGETHER = 4  # queries multiplied by a panel at a time: 16 sums stay in registers, enough to keep two adders busy
panel_products, panel_products_together = _products_with(1), _products_with(TOGETHER)


def sources(*names: str) -> str:
    """A sum of the sources of modules of this package. numba looks for changes in the file of the function that it has
    on disk, not in those of the functions called; as a part of an argument's type, the sum makes it look for another.
    """
    files = (Path(__file__).with_name(f"{name}.py") for name in names)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
