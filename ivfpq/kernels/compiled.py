"""The compiled kernels as Python calls them: what they need of a model, matrix products for many queries, threads."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ivfpq.checks import Floats
from ivfpq.distances import BLOCK, RangeResult, SearchResult, squared_lengths, within
from ivfpq.invlists import Lists
from ivfpq.kernels import scan
from ivfpq.kernels.avx512 import M_MAX
from ivfpq.kernels.model import Model

FEW = 2  # so many queries are cheaper one by one than by matrix products
CHUNK = 256  # queries searched together: each list they share is read once for all of them


def _sources() -> str:
    """A sum of the compiled modules' sources. numba looks for changes in the file of the function that it has on disk,
    not in those of the functions called; as a part of an argument's type, the sum makes it look for another one.
    """
    sources = (Path(__file__).with_name(f"{name}.py") for name in ("scan", "avx512", "portable", "heaps", "vectors"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


MODEL = np.dtype(
    [(name, np.int64) for name in ("metric", "d", "M", "ksub", "dsub", "nlist", "terms")]
    + [("longest_centroid", np.float64), ("longest_code", np.float64)]
    + [(name, np.int64) for name in ("centre", "centroids", "codebooks", "low", "step")]
    + [(name, np.int64) for name in ("centroid_panels", "centroid_squares", "codebook_panels", "codebook_squares")]
    + [(f"sources_{_sources()}", np.int8)]
)
"""Numbers and, from `centre` on, addresses of arrays (see `Ready`); last, in a name, which sources are compiled."""


class Ready:
    """What compiled code needs of a model.

    Attributes
    ----------
    record : array of type MODEL, shape (1,)
    lists_matrix : float32 array, shape (M * (dsub + 1), nlist)
        [a_1, 1, ..., a_M, 1] @ lists_matrix are the coarse distances, but for |a|^2.
    bytes_fit : bool
        Whether the scan by bytes can take the codes; the portable one takes all.
    nlist, table : int, and (M, ksub)
    tables_matrix : float32 array, shape (M, dsub + 1, ksub)
        [a_m, 1] @ tables_matrix[m] is the table T[m].
    """

    __slots__ = ("_arrays", "bytes_fit", "centre", "l2", "lists_matrix", "nlist", "record", "table", "tables_matrix")

    def __init__(self, model: Model) -> None:
        y, pq = model.coarse.y, model.pq
        codebooks: Floats = pq.codebooks  # type: ignore[assignment]
        self.l2 = model.space == "l2"
        self.nlist, self.table = len(y), (pq.M, pq.ksub)
        self.bytes_fit = pq.ksub <= 256 and pq.M <= M_MAX
        factor = np.float32(-2 if self.l2 else -1)
        zero = np.zeros(pq.d, np.float32)
        self.centre = zero if model.coarse.centre is None else model.coarse.centre
        with np.errstate(over="ignore"):
            squares = model.coarse.lengths * np.float32(self.l2)
            code_squares = squared_lengths(codebooks.reshape(-1, pq.dsub)).reshape(pq.M, pq.ksub)
            matrix = np.zeros((pq.M, pq.dsub + 1, len(y)), np.float32)
            matrix[:, :-1] = factor * model.coarse.shifted.T.reshape(pq.M, pq.dsub, len(y))
            matrix[0, -1] = squares
            self.lists_matrix = matrix.reshape(-1, len(y))
            parts = [factor * codebooks.transpose(0, 2, 1), (code_squares * np.float32(self.l2))[:, None]]
            self.tables_matrix = np.concatenate(parts, axis=1)
        self._arrays: dict[str, Any] = {
            "centre": self.centre,
            "centroids": y,
            "codebooks": codebooks,
            "low": model.terms()[0],
            "step": model.terms()[1],
            "centroid_panels": _panels(model.coarse.shifted[None]),
            "centroid_squares": _panels(squares[None, :, None]),
            "codebook_panels": _panels(codebooks),
            "codebook_squares": _panels(code_squares[:, :, None] * np.float32(self.l2)),
        }
        self.record = np.zeros(1, MODEL)
        numbers: dict[str, Any] = {
            "metric": {"ip": scan.IP, "l2": scan.L2, "cosine": scan.COSINE}[model.metric],
            **{"d": pq.d, "M": pq.M, "ksub": pq.ksub, "dsub": pq.dsub, "nlist": len(y), "terms": model.has_terms},
            "longest_centroid": np.sqrt(_squares(model.coarse.shifted).max()),
            "longest_code": np.sqrt(_squares(codebooks).max(axis=1).sum()),
        }
        for name, value in {**numbers, **{n: a.ctypes.data for n, a in self._arrays.items()}}.items():
            self.record[name] = value

    def products(self, x: Floats) -> tuple[Floats, Floats]:
        """Coarse distances but for |a|^2 (nq, nlist), and tables (nq, M, ksub), of queries (nq, d).

        The matrices add the squared lengths of their rows by themselves, to the ones behind each part of a.
        """
        M, rows, ksub = self.tables_matrix.shape
        parts = np.empty((len(x), M, rows), np.float32)
        tables = np.empty((len(x), M, ksub), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # then their error is infinite
            np.subtract(x.reshape(len(x), M, -1), self.centre.reshape(M, -1), out=parts[:, :, :-1])
            parts[:, :, -1] = 1
            scores = parts.reshape(len(x), -1) @ self.lists_matrix
            np.matmul(parts.transpose(1, 0, 2), self.tables_matrix, out=tables.transpose(1, 0, 2))
        return scores, tables


def search(x: Floats, nprobe: int, model: Model, lists: Lists, k: int, *, vbmi: bool) -> SearchResult:
    """See `kernels.search`; with `vbmi`, by AVX-512 VBMI."""
    ready = _ready(model)
    vbmi = vbmi and ready.bytes_fit
    kept = min(k, lists.ntotal)

    def answer(first: int, *arguments: Any) -> SearchResult:
        nq = len(arguments[X])
        result = SearchResult(np.empty((nq, k), np.float32), np.empty((nq, k), np.int64))
        scan.search(*arguments, np.empty((nq, kept)), *result)
        return result

    parts = _each(answer, x, nprobe, ready, lists, vbmi)
    if len(parts) == 1:
        only: SearchResult = parts[0]
        return only
    parts.append(SearchResult(np.empty((0, k), np.float32), np.empty((0, k), np.int64)))
    return SearchResult(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def range_search(x: Floats, nprobe: int, model: Model, lists: Lists, radius: float, *, vbmi: bool) -> RangeResult:
    """See `kernels.range_search`."""
    ready = _ready(model)
    vbmi = vbmi and ready.bytes_fit
    if model.metric == "cosine":  # 1 - distance / 2 > radius, where the difference is rounded
        limit = 2.0 * (1.0 - radius) + 2.0**-21 * (1.0 + abs(radius))
    else:
        limit = radius if model.metric == "l2" else -radius

    def answer(first: int, *arguments: Any) -> tuple[Any, Any, Any]:
        nq = len(arguments[X])
        query, value, id = scan.range_search(*arguments, np.empty((nq, 0)), np.full(nq, limit))
        return query + first, value if model.metric == "l2" else -value, id

    none = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    parts = zip(none, *_each(answer, x, nprobe, ready, lists, vbmi), strict=True)
    query, distance, ids = (np.concatenate(arrays) for arrays in parts)
    return within(query, distance, ids, len(x), radius, model.metric)


def _arguments(vbmi: bool, ready: Ready, lists: Lists, x: Floats, nprobe: int) -> tuple[Any, ...]:
    """What both searches take first."""
    given = len(x) > FEW
    if given:
        scores, tables = ready.products(x)
    else:
        scores, tables = np.empty((len(x), ready.nlist), np.float32), np.empty((len(x), *ready.table), np.float32)
    bytes_ = np.empty((len(x) if vbmi else 0, ready.table[0], 256), np.uint8)
    kernel = (True, None) if vbmi else (None, True)
    return (*kernel, ready.record, lists.places, x, nprobe, given, scores, tables, bytes_)


X = 4  # where the queries stand among the arguments


def _each(answer: Callable[..., Any], x: Floats, nprobe: int, ready: Ready, lists: Lists, vbmi: bool) -> list[Any]:
    """What `answer` gives for each chunk of the queries, in order; which are together does not change their answers."""

    def one(first: int) -> Any:
        queries = _writeable(x[first : first + size])
        return answer(first, *_arguments(vbmi, ready, lists, queries, nprobe))

    size = max(1, min(CHUNK, 4 * BLOCK // max(ready.table[0] * ready.table[1], ready.nlist)))
    if len(x) > FEW:
        size = min(size, max(FEW + 1, -(-len(x) // threads())))
    starts = range(0, len(x), size)
    if len(starts) <= 1 or threads() == 1:
        return [one(first) for first in starts]
    with _one_blas_thread(), ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(one, starts))


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """While any search is in here, matrix products take one thread each: ours already keep all processors busy, and
    those of the library would wait for them, and they for those.
    """
    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = _blas_libraries().limit(limits=1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()


@functools.cache
def _blas_libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _ready(model: Model) -> Ready:
    if model.ready is None:
        model.ready = Ready(model)  # two threads may both make it, which costs time only
    ready: Ready = model.ready
    return ready


def _writeable(x: Floats) -> Floats:
    """The same: numba would compile once more for read-only arrays."""
    return x if x.flags.writeable else x.copy()


def threads() -> int:
    """How many threads a search of many queries takes: OMP_NUM_THREADS, or one for each processor that it may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit():
        return max(1, int(wanted))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _panels(matrices: Floats) -> Floats:
    """(count, n, d) -> (count, panels, d, 64): matrices cut into panels of 64 rows, transposed, padded with zeros."""
    count, n, d = matrices.shape
    full = np.zeros((count, -(-n // 64) * 64, d), np.float32)
    full[:, :n] = matrices
    return np.ascontiguousarray(full.reshape(count, -1, 64, d).transpose(0, 1, 3, 2))


def _squares(x: Floats) -> Any:
    """Squared lengths of the last axis, in float64."""
    return np.einsum("...i,...i->...", x, x, dtype=np.float64)
