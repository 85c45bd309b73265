"""The search of RaBitQ's codes (`bits`) as Python calls it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ivfpq.checks import Floats, Ids
from ivfpq.kernels import bits
from ivfpq.kernels.compiled import limit_within, of_thread, writeable
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.kernels.scalar import MIN_CHUNK, centroids_of
from ivfpq.list_layout import Lists
from ivfpq.results import RangeResult, SearchResult, within
from ivfpq.threads import spread


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
    compiled, x = quantizers.compiled_by(CompiledBits), writeable(x)
    distances, ids = np.empty((len(x), k), np.float32), np.empty((len(x), k), np.int64)
    records = compiled.quantizers, compiled.codec, lists.addresses

    def fill(first: int, last: int) -> None:
        part = slice(first, last)
        bits.search(*records, x[part], nprobe, of_thread.scratch, distances[part], ids[part])

    spread(fill, len(x), len(x) // MIN_CHUNK)
    return SearchResult(distances, ids)


def range_search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, radius: float, *, kernel: str
) -> RangeResult:
    """See `dispatch.range_search`."""
    compiled, x, limit = quantizers.compiled_by(CompiledBits), writeable(x), limit_within(radius, quantizers.metric)
    records = compiled.quantizers, compiled.codec, lists.addresses

    def answer(first: int, last: int) -> tuple[Ids, Floats, Ids]:
        query, value, id = bits.range_search(*records, x[first:last], nprobe, of_thread.scratch, limit)
        return query + first, value if quantizers.metric == "l2" else -value, id

    found = spread(answer, len(x), len(x) // MIN_CHUNK)
    query, distance, ids = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return within(query, distance, ids, len(x), radius, quantizers.metric)
