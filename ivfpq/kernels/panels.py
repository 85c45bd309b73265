"""Matrices cut to 16 bits a number, for products with a query that is cut likewise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Doubles, Floats
from ivfpq.kernels.intrinsics import STRETCH
from ivfpq.kernels.layout import PANEL

REACH = 46340.0 - np.sqrt(2 * STRETCH)  # no stretch is longer: the largest whole root of 2^31, less the roundings


def with_even_parts(x: Floats, width: int) -> Floats:
    """Vectors (..., parts of that width), a zero behind each part if the width is odd."""
    if width % 2 == 0:
        return x
    parts = x.reshape(*x.shape[:-1], -1, width)
    return np.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, 1)]).reshape(*x.shape[:-1], -1)


class Panels(NamedTuple):
    """Matrices for `intrinsics.panel_products`: half the bits of float32, in panels of 64 rows.

    A panel is transposed, and pairs of numbers stay together: numbers 2 i and 2 i + 1 of row j are words (., i, j, :).
    """

    words: npt.NDArray[np.int16]
    """(count, p, d / 2, 64, 2), where p = n / 64, rounded up; the last row is repeated to fill the panels"""
    scale: np.float32
    """What 1 stands for"""
    squares: Doubles
    """Squared lengths of the rows, (count, 64 p)"""
    losses: Doubles
    """The largest distance of a row from what stands for it, of each matrix: (count,)"""

    @classmethod
    def of(cls, matrices: Floats, reach: float) -> Panels:
        """Of float32 matrices (count, n, d), d even, a panel at a time: there may be many. No stretch of a row, as
        `panel_products` adds them up, is longer than `reach`.
        """
        count, n, d = matrices.shape
        starts = range(0, n, PANEL)

        def rows_from(start: int) -> Doubles:
            return matrices[:, np.minimum(np.arange(start, start + PANEL), n - 1)].astype(np.float64)

        words = np.empty((count, len(starts), d // 2, PANEL, 2), np.int16)
        squares, loss, largest, longest = np.empty((count, PANEL * len(starts))), np.zeros(count), 0.0, 0.0
        for start in starts:
            rows = rows_from(start)
            stretches = np.add.reduceat(np.square(rows), np.arange(0, d, 2 * STRETCH), axis=-1)
            squares[:, start : start + PANEL] = stretches.sum(axis=-1)
            largest, longest = max(largest, float(np.abs(rows).max())), max(longest, float(stretches.max()))
        scale = np.float32(max(largest / 32766, np.sqrt(longest) / reach, 1e-36))  # not a subnormal number
        for place, start in enumerate(starts):
            rows = rows_from(start)
            whole = np.rint(rows / np.float64(scale))
            words[:, place] = whole.reshape(count, PANEL, d // 2, 2).transpose(0, 2, 1, 3)
            apart = np.square(rows - whole * np.float64(scale)).sum(axis=-1)
            loss = np.maximum(loss, apart.max(axis=1))
        return cls(words, scale, squares, np.sqrt(loss))
