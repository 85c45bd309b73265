"""A plugin of pytest: the kernels for AVX2 and AVX-512 on any processor, their instructions put together from others.

    PYTHONPATH=tests NUMBA_CACHE_DIR=$(mktemp -d) python -m pytest -p emulated_kernels tests/test_compiled.py

The cache must be another one than usual: the code that is kept in it is not the kernels' own.
"""

from llvmlite import ir

from ivfpq import kernels
from ivfpq.kernels import avx2, avx512
from ivfpq.kernels.intrinsics import I8, I32
from ivfpq.kernels.jit import cgutils


def looked_up(b, registers, code, size):
    """The bytes that codes, modulo that size, name in a table that is held in registers."""
    table = cgutils.alloca_once(b, ir.ArrayType(I8, sum(register.type.count for register in registers)))
    start = 0
    for register in registers:
        place = b.gep(table, [I32(0), I32(start)])
        b.store(register, b.bitcast(place, register.type.as_pointer()), align=1)
        start += register.type.count
    entries = ir.Constant(code.type, ir.Undefined)
    for lane in range(code.type.count):
        place = b.and_(b.zext(b.extract_element(code, I32(lane)), I32), I32(size - 1))
        entries = b.insert_element(entries, b.load(b.gep(table, [I32(0), place])), I32(lane))
    return entries


def high_product(b, u, v):
    wide = ir.VectorType(I32, 32)
    product = b.mul(b.zext(u, wide), b.zext(v, wide))
    return b.trunc(b.lshr(product, ir.Constant(wide, [16] * 32)), u.type)


avx2.look_up = lambda b, table, code: looked_up(b, [table], code, 16)
avx512.look_up = lambda b, low, high, code: looked_up(b, [low, high], code, 128)
avx512.high_product = high_product
kernels._obstacles = dict
kernels.available = lambda: ("reference", "avx2", "avx512")  # nothing is emulated of the others
