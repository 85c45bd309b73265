"""How good an index is: it is asked for pictures that it has never seen, and compared with exact search."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexFlat, SearchResult
from ivfpq.checks import Metric
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.metrics import tie_recall_at_k
from ivfpq.results import worst
from search.space import Space

K = 10
HELD_OUT = 500
_BLOCK = 16_384  # vectors that are compared at a time
MAX_TRAIN = 65_536  # faiss's own default at IVF256 or PQ8: 256 vectors a centroid; more changes nothing measurable


def held_out_count(images: int) -> int:
    """How many vectors are kept out of training: 500, a tenth of a small collection."""
    return min(HELD_OUT, images // 10)


def split(space: Space, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids that are held out of training and ids to train on, both ascending."""
    shuffled = np.random.default_rng(seed).permutation(space.ids)
    number = held_out_count(space.ids.size)
    return np.sort(shuffled[:number]), np.sort(shuffled[number:][:MAX_TRAIN])


def measure(
    index: Any, space: Space, stored: NDArray[np.int64], queries: NDArray[np.float32], metric: Metric
) -> tuple[float | None, float | None]:
    """Recall@10 and microseconds a query of an index over `stored`, or None twice where there is nothing to ask."""
    if not len(queries):
        return None, None
    truth = nearest_of_all(space, stored, queries, min(K, stored.size), metric)
    found, us_per_query = _search_one_by_one(index, queries, truth.ids.shape[1])
    return recall(space, queries, found, truth, metric), us_per_query


def nearest_of_all(
    space: Space, stored: NDArray[np.int64], queries: NDArray[np.float32], k: int, metric: Metric
) -> SearchResult:
    """The k nearest of each query by comparing with all, a block at a time so that memory stays flat."""
    sign = 1 if metric == "l2" else -1  # smaller is nearer
    best = SearchResult(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
    for start in range(0, stored.size, _BLOCK):
        block = stored[start : start + _BLOCK]
        flat = IndexFlat(space.dim, metric=metric)
        space.add_rows(flat, block)
        found = flat.search(queries, min(k, block.size))
        distances = np.concatenate([best.distances, found.distances], axis=1)
        ids = np.concatenate([best.ids, found.ids], axis=1)
        order = np.lexsort((ids, sign * distances), axis=1)[:, :k]
        best = SearchResult(np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1))
    return best


def recall(
    space: Space,
    queries: NDArray[np.float32],
    found: NDArray[np.int64],
    truth: SearchResult,
    metric: Metric,
) -> float:
    """Recall@10, ties counted (a picture may be there twice): distances are computed from the vectors, as exact search
    does it.
    """
    query, place = np.nonzero(found >= 0)
    ids, row = np.unique(found[query, place], return_inverse=True)
    vectors = space.rows(ids)
    if metric == "cosine":
        queries, vectors = normalised(queries), normalised(vectors)
    distances = np.full(found.shape, worst(metric), np.float32)
    distances[query, place] = pair_distances_at(queries, query, vectors, row, metric)
    sign = 1 if metric == "l2" else -1  # smaller is nearer
    return tie_recall_at_k(found, sign * distances, sign * truth.distances)


def _search_one_by_one(index: Any, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], float]:
    """Ids found (nq, k), and the median time of a query in microseconds."""
    index.search(queries[:1], k)  # the first call may compile or warm caches
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        result = index.search(query[None], k)
        times.append(time.perf_counter() - started)
        found.append(result.ids[0])
    return np.stack(found), float(np.median(times) * 1e6)
