"""The search of RaBitQ's codes (`bits`) as Python calls it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ivfpq.checks import Floats
from ivfpq.kernels import bits
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.kernels.scalar import centroids_of, range_search_by, search_by
from ivfpq.list_layout import Lists
from ivfpq.results import RangeResult, SearchResult


class CompiledBits:
    """What compiled code needs of centroids and a `RaBitQuantizer`.

    Attributes
    ----------
    quantizers, codec : arrays of type QUANTIZERS and `bits.CODEC`, shape (1,)
    """

    __slots__ = ("_arrays", "codec", "quantizers")

    def __init__(self, quantizers: Quantizers) -> None:
        pq: Any = quantizers.pq
        self.quantizers, self._arrays = centroids_of(quantizers)
        self.codec = np.zeros(1, bits.CODEC)
        self.codec["planes"], self.codec["plane_bytes"] = pq.bits, pq.plane_bytes
        self.codec["terms"] = quantizers.term_rows > 0
        self.codec["middle"] = ((1 << pq.bits) - 1) / 2


def search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, k: int, *, kernel: str, ordered: bool = True
) -> SearchResult:
    """See `dispatch.search`. The same for all kernels, and in order if that is not asked for, too."""
    return search_by(bits.search, quantizers.compiled_by(CompiledBits), x, nprobe, lists, k, ordered=True)


def range_search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, radius: float, *, kernel: str
) -> RangeResult:
    """See `dispatch.range_search`."""
    compiled = quantizers.compiled_by(CompiledBits)
    return range_search_by(bits.range_search, compiled, x, nprobe, lists, radius, quantizers.metric)
