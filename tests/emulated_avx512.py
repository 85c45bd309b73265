"""A plugin of pytest: the kernel for AVX-512 on any processor, its two instructions put together from others.

    PYTHONPATH=tests NUMBA_CACHE_DIR=$(mktemp -d) python -m pytest -p emulated_avx512 tests/test_compiled.py

The cache must be another one than usual: the code that is kept in it is not the kernel's own.
"""

from llvmlite import ir

from ivfpq import kernels
from ivfpq.kernels import avx512
from ivfpq.kernels.intrinsics import I8, I32
from ivfpq.kernels.jit import cgutils


def look_up(b, low, high, code):
    table = cgutils.alloca_once(b, ir.ArrayType(I8, 128))
    for half, register in enumerate((low, high)):
        start = b.gep(table, [I32(0), I32(64 * half)])
        b.store(register, b.bitcast(start, register.type.as_pointer()), align=1)
    entries = ir.Constant(code.type, ir.Undefined)
    for lane in range(64):
        place = b.and_(b.zext(b.extract_element(code, I32(lane)), I32), I32(127))
        entries = b.insert_element(entries, b.load(b.gep(table, [I32(0), place])), I32(lane))
    return entries


def high_product(b, u, v):
    wide = ir.VectorType(I32, 32)
    product = b.mul(b.zext(u, wide), b.zext(v, wide))
    return b.trunc(b.lshr(product, ir.Constant(wide, [16] * 32)), u.type)


avx512.look_up, avx512.high_product = look_up, high_product
kernels._obstacles = dict
kernels.available.cache_clear()
