"""How many lists a search looks into when only some ids may be in its answer.

**A filter never hides what it lets through.** A query looks into its `nprobe` nearest lists and, where these hold fewer
than k of the allowed vectors, goes on in the order of the lists, nearest first, as far as it takes to have seen k, or
through all lists. So it depends on nothing but the query, and an answer shorter than k means that there are no more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ivfpq.checks import Doubles, Floats, Ids, Metric
from ivfpq.distances import pair_distances_at
from ivfpq.results import SearchResult
from ivfpq.screening import Points, screen

Search = Callable[[Floats, int], SearchResult]
"""Queries and a number of lists to what is found there; missing neighbours, of id -1, stand last."""


def unfilled(found: SearchResult) -> Ids:
    """The queries that have fewer than k neighbours."""
    return np.flatnonzero(found.ids[:, -1] < 0)


def search_on(found: SearchResult, search: Search, x: Floats, short: Ids, numbers: Ids) -> None:
    """Replace what was found for the queries `short` by what `search` finds in `numbers` lists, both int64 (s,)."""
    for number in np.unique(numbers).tolist():
        part = short[numbers == number]
        found.distances[part], found.ids[part] = search(x[part], number)


def lists_to_fill(x: Floats, coarse: Points, metric: Metric, sizes: Ids, k: int) -> Ids:
    """How many lists, nearest first, hold k of the allowed vectors: int64 (nq,); all, if all hold fewer.

    Parameters
    ----------
    x : float32 array, shape (nq, d)
    coarse : Points
        The nlist centroids.
    metric : {"l2", "ip"}
    sizes : int64 array, shape (nlist,)
        Allowed vectors in each list.
    """
    used = np.flatnonzero(sizes)
    if sizes.sum() < k:
        return np.full(len(x), len(sizes))
    query, number = np.divmod(np.arange(len(x) * len(used)), len(used))
    distance = _ordered(pair_distances_at(x, query, coarse.y, used[number], metric), metric).reshape(len(x), -1)
    order = np.argsort(distance, axis=1, kind="stable")  # ties to the smaller number
    last = (np.cumsum(sizes[used][order], axis=1) >= k).argmax(axis=1)[:, None]
    reached = np.take_along_axis(order, last, axis=1)
    limit, last_list = np.take_along_axis(distance, reached, axis=1), used[reached]
    # Of all lists, those that come before the last one: by the bounds, and as defined where these cannot tell.
    score, error = screen(x, coarse, metric)
    with np.errstate(invalid="ignore"):
        nearer = score < limit - error[:, None]
        i, j = np.nonzero(~nearer & ~(score > limit + error[:, None]))
    exact, limits = _ordered(pair_distances_at(x, i, coarse.y, j, metric), metric), limit[i, 0]
    before = (exact < limits) | ((exact == limits) & (j <= last_list[i, 0]))
    counts: Ids = np.count_nonzero(nearer, axis=1) + np.bincount(i[before], minlength=len(x))
    return counts


def _ordered(distances: Floats, metric: Metric) -> Doubles:
    """Smaller is better; what is not a number comes after infinity."""
    values = np.minimum(distances.astype(np.float64) * (1 if metric == "l2" else -1), 1e300)
    return np.where(np.isnan(values), np.inf, values)


def search_until_filled(search: Search, x: Floats, nprobe: int, nlist: int, k: int, allowed: int) -> SearchResult:
    """The definition above where nothing is known but what `search` finds: by trying.

    Parameters
    ----------
    search : see `Search`
    x : float32 array, shape (nq, d)
    nprobe, nlist, k : int
    allowed : int
        How many ids are allowed.
    """
    if allowed <= k:
        return search(x, nlist)
    found = search(x, nprobe)
    for query in unfilled(found).tolist():
        few, enough = nprobe, nlist  # too few lists; enough, or all there are
        best = search(x[query : query + 1], nlist)
        while len(unfilled(best)) == 0 and enough - few > 1:
            middle = (few + enough) // 2
            tried = search(x[query : query + 1], middle)
            if len(unfilled(tried)):
                few = middle
            else:
                enough, best = middle, tried
        found.distances[query], found.ids[query] = best.distances[0], best.ids[0]
    return found
