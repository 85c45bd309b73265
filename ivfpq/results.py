"""What a search answers: the k best of each query, or all within a radius, ties to the smaller id."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ivfpq.checks import Floats, Ids, Metric


class SearchResult(NamedTuple):
    """Neighbours of each query, best first; a missing one is id -1 at distance +inf (l2) or -inf (ip, cosine)."""

    distances: Floats
    """float32 (nq, k): squared distances, inner products or cosines, as the metric says."""
    ids: Ids
    """int64 (nq, k)"""


class RangeResult(NamedTuple):
    """All neighbours within a radius; those of query i are `distances[lims[i]:lims[i + 1]]`, best first."""

    lims: Ids
    """int64 (nq + 1,)"""
    distances: Floats
    """float32 (lims[-1],)"""
    ids: Ids
    """int64 (lims[-1],)"""


def best_k(query: Ids, distance: Floats, ids: Ids, nq: int, k: int, metric: Metric) -> SearchResult:
    """The k best of each query, ties to the smaller id, missing ones padded.

    Parameters
    ----------
    query, distance, ids : arrays, shape (n,)
        One entry a candidate; `query` from 0 to nq - 1.
    """
    result = SearchResult(np.full((nq, k), worst(metric), np.float32), np.full((nq, k), -1, np.int64))
    order = best_first(query, distance, ids, metric)
    query = query[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    taken = rank < k
    place, order = (query[taken], rank[taken]), order[taken]
    result.distances[place], result.ids[place] = distance[order], ids[order]
    return result


def within(query: Ids, distance: Floats, ids: Ids, nq: int, radius: float, metric: Metric) -> RangeResult:
    """Candidates strictly nearer than `radius` (more similar, for ip and cosine), best first."""
    inside = distance < radius if metric == "l2" else distance > radius
    query, distance, ids = query[inside], distance[inside], ids[inside]
    order = best_first(query, distance, ids, metric)
    lims = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=nq))])
    return RangeResult(lims.astype(np.int64), distance[order], ids[order])


def best_first(query: Ids, distance: Floats, ids: Ids, metric: Metric) -> Ids:
    """The order by query, then from best to worst, then by id."""
    return np.lexsort((ids, distance if metric == "l2" else -distance, query))


def worst(metric: Metric) -> float:
    """The distance of a neighbour that is missing."""
    return np.inf if metric == "l2" else -np.inf
