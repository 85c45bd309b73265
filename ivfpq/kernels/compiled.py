"""The compiled kernels as Python calls them: what they need of a model, and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Doubles, Floats, Ids
from ivfpq.invlists import Lists
from ivfpq.kernels import scan
from ivfpq.kernels.avx512 import M_MAX
from ivfpq.kernels.model import Model
from ivfpq.kernels.vectors import STRETCH, TOGETHER, sources
from ivfpq.pq import ProductQuantizer
from ivfpq.results import RangeResult, SearchResult, within
from ivfpq.screening import BLOCK
from ivfpq.threads import threads

MIN_CHUNK = 16  # queries searched together: so many are worth a thread,
MAX_CHUNK = 256  # and so many still have room in the caches. Each list they share is read once for all of them
MAX_WANTED = 1 << 13  # neighbours of all queries of a chunk: their candidates should stay in the second-level cache


MODEL = np.dtype(
    [(name, np.int64) for name in ("metric", "d", "M", "ksub", "wide", "dsub", "part", "nlist", "terms")]
    + [(name, np.float64) for name in ("longest_centroid", "longest_code")]
    + [(name, np.float64) for name in ("centroid_scale", "codebook_scale", "centroid_loss", "codebook_loss", "reach")]
    + [(name, np.int64) for name in ("centre", "centroids", "codebooks", "low", "step")]
    + [(name, np.int64) for name in ("centroid_panels", "centroid_squares", "codebook_panels", "codebook_squares")]
    + [(f"sources_{sources('scan', 'avx512', 'portable', 'heaps', 'vectors')}", np.int8)]
)
"""Numbers and, from `centre` on, addresses of arrays (see `Ready`); last, in a name, which sources are compiled. From
one codebook's part of the vector to the next one's are `part` numbers: dsub, or 0 where codewords are whole vectors."""


class Ready:
    """What compiled code needs of a model.

    Attributes
    ----------
    record : array of type MODEL, shape (1,)
    table : (int, int)
        Shape of the tables T of a query, with codewords in whole panels.
    bytes_fit : bool
        Whether the scan by bytes can take the codes; the portable one takes all.
    """

    __slots__ = ("_arrays", "bytes_fit", "record", "table")

    def __init__(self, model: Model) -> None:
        y, centre, pq = model.coarse.y, model.coarse.centre, model.pq
        codebooks: Floats = pq.codebooks  # type: ignore[assignment]
        if centre is None:
            centre = np.zeros(pq.d, np.float32)
        self.bytes_fit = pq.ksub <= 256 and pq.M <= M_MAX
        reach = 46340.0 - np.sqrt(2 * STRETCH)
        centroids_ = Panels.of(_even(y - centre, pq.dsub)[None], reach)
        codebooks_ = Panels.of(_even(codebooks, pq.dsub), reach)
        self.table = codebooks_.squares.shape
        self._arrays: dict[str, Any] = {
            "centre": centre,
            "centroids": y,
            "codebooks": codebooks,
            "low": model.terms()[0],
            "step": model.terms()[1],
            "centroid_panels": centroids_.words,
            "codebook_panels": codebooks_.words,
        }
        squares = {"centroid_squares": centroids_.squares, "codebook_squares": codebooks_.squares}
        longest, losses = np.sqrt(codebooks_.squares.max(axis=1)), codebooks_.losses
        parts = isinstance(pq, ProductQuantizer)  # of lengths, those of parts are at right angles, others add up
        if not parts:
            squares["codebook_squares"] = np.zeros(self.table)  # what takes their place is in the terms: see `Model`
        with np.errstate(over="ignore"):  # then the error is infinite
            self._arrays |= {name: (a * (model.space == "l2")).astype(np.float32) for name, a in squares.items()}
        self.record = np.zeros(1, MODEL)
        numbers: dict[str, Any] = {
            "metric": {"ip": scan.IP, "l2": scan.L2, "cosine": scan.COSINE}[model.metric],
            **{"d": pq.d, "M": pq.M, "ksub": pq.ksub, "wide": self.table[1], "dsub": pq.dsub},
            **{"part": pq.dsub * parts, "nlist": len(y), "terms": model.term_rows},
            "longest_centroid": np.sqrt(centroids_.squares.max()),
            "longest_code": np.linalg.norm(longest) if parts else longest.sum(),
            **{"centroid_scale": centroids_.scale, "centroid_loss": centroids_.losses[0]},
            **{"codebook_scale": codebooks_.scale, "codebook_loss": np.linalg.norm(losses) if parts else losses.sum()},
            "reach": reach,
        }
        for name, value in {**numbers, **{n: a.ctypes.data for n, a in self._arrays.items()}}.items():
            self.record[name] = value


def _even(x: Floats, width: int) -> Floats:
    """Vectors (..., parts of that width), a zero behind each part if the width is odd."""
    if width % 2 == 0:
        return x
    parts = x.reshape(*x.shape[:-1], -1, width)
    return np.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, 1)]).reshape(*x.shape[:-1], -1)


class Panels(NamedTuple):
    """Matrices for `vectors.panel_products`: half the bits of float32, in panels of 64 rows.

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
        starts = range(0, n, 64)

        def rows_from(start: int) -> Doubles:
            return matrices[:, np.minimum(np.arange(start, start + 64), n - 1)].astype(np.float64)

        words = np.empty((count, len(starts), d // 2, 64, 2), np.int16)
        squares, loss, largest, longest = np.empty((count, 64 * len(starts))), np.zeros(count), 0.0, 0.0
        for start in starts:
            rows = rows_from(start)
            stretches = np.add.reduceat(np.square(rows), np.arange(0, d, 2 * STRETCH), axis=-1)
            squares[:, start : start + 64] = stretches.sum(axis=-1)
            largest, longest = max(largest, float(np.abs(rows).max())), max(longest, float(stretches.max()))
        scale = np.float32(max(largest / 32766, np.sqrt(longest) / reach, 1e-36))  # not a subnormal number
        for place, start in enumerate(starts):
            rows = rows_from(start)
            whole = np.rint(rows / np.float64(scale))
            words[:, place] = whole.reshape(count, 64, d // 2, 2).transpose(0, 2, 1, 3)
            apart = np.square(rows - whole * np.float64(scale)).sum(axis=-1)
            loss = np.maximum(loss, apart.max(axis=1))
        return cls(words, scale, squares, np.sqrt(loss))


def search(
    x: Floats, nprobe: int, model: Model, lists: Lists, k: int, *, vbmi: bool, ordered: bool = True
) -> SearchResult:
    """See `kernels.search`; with `vbmi`, by AVX-512 VBMI. If not `ordered`, `kernels.candidates`: no distances."""
    ready, kept, unordered = _ready(model), min(k, lists.ntotal), None if ordered else True
    distances, ids = np.empty((len(x), k if ordered else 0), np.float32), np.empty((len(x), k), np.int64)

    def fill(x: Floats, distances: Floats, ids: Ids) -> None:
        scan.search(*_arguments(ready, lists, x, nprobe, kept, vbmi), unordered, distances, ids)

    if len(x) == 1:
        fill(x, distances, ids)
    else:
        _each(fill, ready, k, x, distances, ids)
    return SearchResult(distances, ids)


def range_search(x: Floats, nprobe: int, model: Model, lists: Lists, radius: float, *, vbmi: bool) -> RangeResult:
    """See `kernels.range_search`."""
    ready = _ready(model)
    if model.metric == "cosine":  # 1 - distance / 2 > radius, where the difference is rounded
        limit = 2.0 * (1.0 - radius) + 2.0**-21 * (1.0 + abs(radius))
    else:
        limit = radius if model.metric == "l2" else -radius

    def answer(x: Floats, numbers: Ids) -> tuple[Any, Any, Any]:
        query, value, id = scan.range_search(*_arguments(ready, lists, x, nprobe, 0, vbmi), limit)
        return numbers[query], value if model.metric == "l2" else -value, id

    none = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    found = _each(answer, ready, 1, x, np.arange(len(x)))
    query, distance, ids = (np.concatenate(arrays) for arrays in zip(none, *found, strict=True))
    return within(query, distance, ids, len(x), radius, model.metric)


def _arguments(ready: Ready, lists: Lists, x: Floats, nprobe: int, k: int, vbmi: bool) -> tuple[Any, ...]:
    """What both searches take first."""
    kernel = (True, None) if vbmi and ready.bytes_fit else (None, True)
    work = _work.of_one if len(x) == 1 else (np.empty(len(x), scan.QUERY), np.empty(1, scan.ROOM))
    return *kernel, ready.record, lists.places, writeable(x), nprobe, k, *work


class _Work(threading.local):
    """What a thread searches with when there is one query: making these arrays would take a tenth of the time."""

    def __init__(self) -> None:
        self.of_one = np.empty(1, scan.QUERY), np.empty(1, scan.ROOM)


_work = _Work()


def writeable(x: Floats) -> Floats:
    """The same: numba would compile once more for read-only arrays."""
    return x if x.flags.writeable else x.copy()


def _each(answer: Callable[..., Any], ready: Ready, k: int, *arrays: npt.NDArray[Any]) -> list[Any]:
    """What `answer` gives for each chunk of the arrays, which have a row for each query, in order of the chunks.

    Which queries are together does not change their answers.
    """
    nq = len(arrays[0])
    size = -(-nq // threads())
    most = min(MAX_CHUNK, MAX_WANTED // k, 4 * BLOCK // (ready.table[0] * ready.table[1]))
    size = max(MIN_CHUNK, min(size + -size % TOGETHER, most - most % TOGETHER))
    chunks = [[array[start : start + size] for start in range(0, nq, size)] for array in arrays]
    if nq <= size or threads() == 1:
        return list(map(answer, *chunks))
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(answer, *chunks))


def _ready(model: Model) -> Ready:
    if model.ready is None:
        model.ready = Ready(model)  # two threads may both make it, which costs time only
    ready: Ready = model.ready
    return ready
