"""The compiled kernels as Python calls them: what they need of the quantizers, and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.kernels import scan
from ivfpq.kernels.avx512 import M_MAX
from ivfpq.kernels.intrinsics import TOGETHER
from ivfpq.kernels.layout import COSINE, IP, L2, QUANTIZERS, SCRATCH
from ivfpq.kernels.panels import REACH, Panels, with_even_parts
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.list_layout import Lists
from ivfpq.pq import ProductQuantizer
from ivfpq.results import RangeResult, SearchResult, within
from ivfpq.screening import BLOCK
from ivfpq.threads import in_threads, threads

MIN_CHUNK = 16  # queries that are searched together at least: fewer are not worth a thread
MAX_CHUNK = 256  # and at most: more leave the caches. Each list they share is read once for all of them
MAX_WANTED = 1 << 13  # neighbours of all queries of a chunk: their candidates should stay in the second-level cache


class CompiledQuantizers:
    """What compiled code needs of the quantizers.

    Attributes
    ----------
    record : array of type QUANTIZERS, shape (1,)
    table : (int, int)
        Shape of the tables T of a query, with codewords in whole panels.
    bytes_fit : bool
        Whether the scans by bytes can take the codes; the portable one takes all.
    paired : bool
        See `Quantizer.paired`.
    """

    __slots__ = ("_arrays", "bytes_fit", "paired", "record", "table")

    def __init__(self, quantizers: Quantizers) -> None:
        y, centre, pq = quantizers.coarse.y, quantizers.coarse.centre, quantizers.pq
        codebooks: Floats = pq.codebooks  # type: ignore[assignment]
        if centre is None:
            centre = np.zeros(pq.d, np.float32)
        self.paired = pq.paired
        self.bytes_fit = pq.ksub <= 256 and pq.M <= M_MAX
        in_parts = isinstance(pq, ProductQuantizer)  # of lengths, those of parts are at right angles, others add up
        around, words = y - centre, codebooks
        if in_parts and quantizers.space == "l2" and len(y) == 1 and not y.any():
            # Of one list at the origin, |x - y| = |(x - v) - (y - v)|: the bounds are tight wherever the vectors lie.
            means = codebooks.mean(axis=1, dtype=np.float64).astype(np.float32)
            centre, around, words = means.reshape(-1), np.zeros_like(y), codebooks - means[:, None]
        centroids_ = Panels.of(with_even_parts(around, pq.dsub)[None], REACH)
        codebooks_ = Panels.of(with_even_parts(words, pq.dsub), REACH)
        self.table = codebooks_.squares.shape
        low, step = quantizers.terms()
        self._arrays: dict[str, Any] = {
            "centre": centre,
            "centroids": y,
            "codebooks": codebooks,
            "low": low,
            "step": step,
            "centroid_panels": centroids_.words,
            "codebook_panels": codebooks_.words,
        }
        squares = {"centroid_squares": centroids_.squares, "codebook_squares": codebooks_.squares}
        longest, losses = np.sqrt(codebooks_.squares.max(axis=1)), codebooks_.losses
        if not in_parts:
            # What takes their place is in the terms: see `Quantizers`.
            squares["codebook_squares"] = np.zeros(self.table)
        with np.errstate(over="ignore"):  # then the error is infinite
            self._arrays |= {name: (a * (quantizers.space == "l2")).astype(np.float32) for name, a in squares.items()}
        self.record = np.zeros(1, QUANTIZERS)
        numbers: dict[str, Any] = {
            "metric": {"ip": IP, "l2": L2, "cosine": COSINE}[quantizers.metric],
            "d": pq.d,
            "M": pq.M,
            "code_rows": pq.code_rows,
            "ksub": pq.ksub,
            "wide": self.table[1],
            "dsub": pq.dsub,
            "part": pq.dsub * in_parts,
            "nlist": len(y),
            "terms": quantizers.term_rows,
            "longest_centroid": np.sqrt(centroids_.squares.max()),
            "longest_code": np.linalg.norm(longest) if in_parts else longest.sum(),
            "centroid_scale": centroids_.scale,
            "centroid_loss": centroids_.losses[0],
            "codebook_scale": codebooks_.scale,
            "codebook_loss": np.linalg.norm(losses) if in_parts else losses.sum(),
            "reach": REACH,
        }
        for name, value in {**numbers, **{n: a.ctypes.data for n, a in self._arrays.items()}}.items():
            self.record[name] = value


def search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, k: int, *, kernel: str, ordered: bool = True
) -> SearchResult:
    """See `dispatch.search`, by the compiled kernel of that name; if not `ordered`, `dispatch.candidates`."""
    compiled = quantizers.compiled_by(CompiledQuantizers)
    distances, ids = np.empty((len(x), k if ordered else 0), np.float32), np.empty((len(x), k), np.int64)

    def fill(x: Floats, distances: Floats, ids: Ids) -> None:
        scan.search(*_arguments(compiled, lists, x, nprobe, kernel), distances if ordered else None, ids)

    if len(x) == 1:
        fill(x, distances, ids)
    else:
        _each(fill, compiled, k, x, distances, ids)
    return SearchResult(distances, ids)


def range_search(
    x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, radius: float, *, kernel: str
) -> RangeResult:
    """See `dispatch.range_search`."""
    compiled, limit = quantizers.compiled_by(CompiledQuantizers), limit_within(radius, quantizers.metric)

    def answer(x: Floats, numbers: Ids) -> tuple[Any, Any, Any]:
        query, value, id = scan.range_search(*_arguments(compiled, lists, x, nprobe, kernel), limit)
        return numbers[query], value if quantizers.metric == "l2" else -value, id

    none = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    found = _each(answer, compiled, 1, x, np.arange(len(x)))
    query, distance, ids = (np.concatenate(arrays) for arrays in zip(none, *found, strict=True))
    return within(query, distance, ids, len(x), radius, quantizers.metric)


def limit_within(radius: float, metric: Metric) -> float:
    """What no value, smaller being better, exceeds whose distance is within the radius."""
    if metric == "cosine":  # 1 - distance / 2 > radius, where the difference is rounded
        return 2.0 * (1.0 - radius) + 2.0**-21 * (1.0 + abs(radius))
    return radius if metric == "l2" else -radius


def _arguments(compiled: CompiledQuantizers, lists: Lists, x: Floats, nprobe: int, kernel: str) -> tuple[Any, ...]:
    """What both searches take first."""
    if compiled.paired and kernel == "avx512":
        kernel = "avx2"  # whose tables of 16 are made for numbers of 4 bits
    chosen = tuple(True if name == kernel and compiled.bytes_fit else None for name in ("avx512", "avx2"))
    return chosen, compiled.record, lists.addresses, writeable(x), nprobe, of_thread.scratch


class _OfThread(threading.local):
    """The record that a thread searches with: making it anew would take a tenth of the time of a query."""

    def __init__(self) -> None:
        self.scratch = np.empty(1, SCRATCH)


of_thread = _OfThread()


def writeable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same: numba would compile once more for read-only arrays."""
    return array if array.flags.writeable else array.copy()


def _each(answer: Callable[..., Any], compiled: CompiledQuantizers, k: int, *arrays: npt.NDArray[Any]) -> list[Any]:
    """What `answer` gives for each chunk of the arrays, which have a row for each query, in order of the chunks.

    Which queries are together does not change their answers.
    """
    nq = len(arrays[0])
    size = -(-nq // threads())
    most = min(MAX_CHUNK, MAX_WANTED // k, 4 * BLOCK // (compiled.table[0] * compiled.table[1]))
    size = max(MIN_CHUNK, min(size + -size % TOGETHER, most - most % TOGETHER))
    chunks = [[array[start : start + size] for start in range(0, nq, size)] for array in arrays]
    if nq <= size or threads() == 1:
        return list(map(answer, *chunks))
    return in_threads(answer, zip(*chunks, strict=True), threads())
