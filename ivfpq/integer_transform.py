"""A linear transform in integers: a quarter of the memory to read, for queries whose candidates are ranked again.

A x + b = A (x - m) with m = -A^T b. Each row of A is cut to 8 bits a number, A' = scales * (B - 128) with B from 1 to
255, and x - m to `top` steps, `unit` times w, so that the sums over B w are sums of integers in 32 bits: the same in
any order, on any processor.

    a = x - m                                                                        float32
    unit = max |a| / top,   w = a * float32(1 / unit), rounded half away from zero   float64, float32
    z = (B w - 128 sum of w) * unit * scales                                         float64, then float32

For a single query a transform to 256 dimensions costs as much as the search behind it, nearly all of it for reading A.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ivfpq import kernels
from ivfpq.checks import Floats

MOST = np.int64(2**31 - 1)
SMALL, LARGE = np.float32(1e-30), np.float32(1e30)


class IntegerTransform:
    """What stands for float32 A (d_out, d_in) and b (d_out,).

    Attributes
    ----------
    matrix : uint8 array, shape (d_out + 1, d_in)
        B, and a row of ones, which adds up w.
    scales : float64 array, shape (d_out,)
    centre : float32 array, shape (d_in,)
        m.
    top : int
        The largest number of w.
    """

    __slots__ = ("_compiled", "centre", "matrix", "scales", "top")

    def __init__(self, A: Floats, b: Floats) -> None:
        self.centre: Floats = (-(b.astype(np.float64) @ A.astype(np.float64))).astype(np.float32)
        self.scales = np.maximum(np.abs(A).max(axis=1).astype(np.float64), 1e-30) / 127
        whole = np.rint(A / self.scales[:, None]) + 128
        self.matrix = np.concatenate([whole, np.ones((1, A.shape[1]))]).astype(np.uint8)
        self.top = int(min(32766, MOST // (255 * A.shape[1])))
        self._compiled: Any = None

    def __call__(self, x: Floats, kernel: str) -> tuple[Floats, Any]:
        """float32 (n, d_in) -> z float32 (n, d_out), and which rows it does not stand for: bool (n,).

        Those are too short or too long, as x - m, for the arithmetic above.
        """
        if kernel != "reference":
            if self._compiled is None:
                self._compiled = kernels.compiled_module("transform").Integers(self)
            found: tuple[Floats, Any] = self._compiled(x)
            return found
        with np.errstate(over="ignore"):
            a = x - self.centre
        largest = np.abs(a).max(axis=1)
        odd = ~((largest > SMALL) & (largest < LARGE))
        largest[odd], a[odd] = 1, 0
        unit = largest.astype(np.float64) / self.top
        v = a * (1 / unit).astype(np.float32)[:, None]
        w = np.trunc(v + np.where(v < 0, np.float32(-0.5), np.float32(0.5))).astype(np.float64)
        sums = w @ self.matrix.T.astype(np.float64)  # exact: whole numbers below 2^53
        return ((sums[:, :-1] - 128 * sums[:, -1:]) * unit[:, None] * self.scales).astype(np.float32), odd
