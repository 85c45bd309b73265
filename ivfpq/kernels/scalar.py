"""The search of scalar-quantized vectors (`integers`) as Python calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ivfpq import kernels
from ivfpq.checks import Floats, Ids, Metric
from ivfpq.kernels import integers
from ivfpq.kernels.compiled import limit_within, of_thread, writeable
from ivfpq.kernels.layout import COSINE, IP, L2, QUANTIZERS
from ivfpq.kernels.panels import REACH, Panels, with_even_parts
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.list_layout import Lists
from ivfpq.results import RangeResult, SearchResult, within
from ivfpq.threads import spread

MIN_CHUNK = 16  # queries that are worth a thread


class CompiledScalar:
    """What compiled code needs of centroids and a scalar quantizer.

    Attributes
    ----------
    quantizers, codec : arrays of type QUANTIZERS and `integers.SCALAR`, shape (1,)
    """

    __slots__ = ("_arrays", "codec", "quantizers")

    def __init__(self, quantizers: Quantizers) -> None:
        low, width = quantizers.pq.codebooks  # type: ignore[misc]
        self.quantizers, self._arrays = centroids_of(quantizers)
        step = width.astype(np.float64) / 255
        ranges = {"low": low, "width": width, "middle": low + 128.5 * step, "step": step}
        self._arrays |= ranges
        self.codec = np.zeros(1, integers.SCALAR)
        for name, array in ranges.items():
            self.codec[name] = array.ctypes.data
        self.codec["terms"] = quantizers.term_rows > 0
        self.codec["longest"] = np.linalg.norm(np.abs(low.astype(np.float64)) + 1.01 * width)


def centroids_of(quantizers: Quantizers) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """The record of type QUANTIZERS, shape (1,), of the centroids alone, and the arrays that it holds addresses of."""
    y, centre, d = quantizers.coarse.y, quantizers.coarse.centre, quantizers.pq.d
    if centre is None:
        centre = np.zeros(d, np.float32)
    panels = Panels.of(with_even_parts(y - centre, d)[None], REACH)
    with np.errstate(over="ignore"):  # then the error is infinite
        squares = (panels.squares * (quantizers.space == "l2")).astype(np.float32)
    arrays: dict[str, Any] = {
        "centre": centre,
        "centroids": y,
        "centroid_panels": panels.words,
        "centroid_squares": squares,
    }
    numbers: dict[str, Any] = {
        "metric": {"ip": IP, "l2": L2, "cosine": COSINE}[quantizers.metric],
        "d": d,
        "dsub": d,
        "nlist": len(y),
        "longest_centroid": np.sqrt(panels.squares.max()),
        "centroid_scale": panels.scale,
        "centroid_loss": panels.losses[0],
        "codebook_scale": 1.0,
        "reach": REACH,
    }
    record = np.zeros(1, QUANTIZERS)
    for name, value in {**numbers, **{n: a.ctypes.data for n, a in arrays.items()}}.items():
        record[name] = value
    return record, arrays


def search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, k: int, *, kernel: str, ordered: bool = True
) -> SearchResult:
    """See `dispatch.search`; if not `ordered`, `dispatch.candidates`: no distances. The same for all kernels."""
    # One at a time, what several share would cost more than it saves, and take longer to compile.
    entry = integers.search if len(x) == 1 else kernels.compiled_module("integers_together").search
    return search_by(entry, quantizers.compiled_by(CompiledScalar), x, nprobe, lists, k, ordered=ordered)


def range_search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, radius: float, *, kernel: str
) -> RangeResult:
    """See `dispatch.range_search`."""
    compiled = quantizers.compiled_by(CompiledScalar)
    return range_search_by(integers.range_search, compiled, x, nprobe, lists, radius, quantizers.metric)


class Compiled(Protocol):
    """What a search by one codec hands to compiled code: records of shape (1,)."""

    quantizers: npt.NDArray[Any]
    codec: npt.NDArray[Any]


def search_by(
    entry: Callable[..., None], compiled: Compiled, x: Floats, nprobe: int, lists: Lists, k: int, *, ordered: bool
) -> SearchResult:
    """What `integers.search`, or another with its parameters, finds, the queries shared out over threads."""
    x = writeable(x)
    distances, ids = np.empty((len(x), k if ordered else 0), np.float32), np.empty((len(x), k), np.int64)
    records = compiled.quantizers, compiled.codec, lists.addresses

    def fill(first: int, last: int) -> None:
        part = slice(first, last)
        entry(*records, x[part], nprobe, of_thread.scratch, distances[part] if ordered else None, ids[part])

    if len(x) == 1:
        fill(0, 1)
    else:
        spread(fill, len(x), len(x) // MIN_CHUNK)
    return SearchResult(distances, ids)


def range_search_by(
    entry: Callable[..., tuple[Ids, Floats, Ids]],
    compiled: Compiled,
    x: Floats,
    nprobe: int,
    lists: Lists,
    radius: float,
    metric: Metric,
) -> RangeResult:
    """What `integers.range_search`, or another with its parameters, finds, the queries shared out over threads."""
    x, limit = writeable(x), limit_within(radius, metric)
    records = compiled.quantizers, compiled.codec, lists.addresses

    def answer(first: int, last: int) -> tuple[Ids, Floats, Ids]:
        query, value, id = entry(*records, x[first:last], nprobe, of_thread.scratch, limit)
        return query + first, value if metric == "l2" else -value, id

    found = spread(answer, len(x), len(x) // MIN_CHUNK)
    query, distance, ids = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return within(query, distance, ids, len(x), radius, metric)
