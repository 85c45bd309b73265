"""What an IVFPQ search answers: the definition, in numpy (Jégou, Douze, Schmid 2011, sections III-A and IV-B).

A stored vector i in list l with the coarse centroid c_l and the code (j_1, ..., j_M) stands for c_l + y_i, where
y_i = [y_1[j_1], ..., y_M[j_M]]. Its distance to a query x is read from tables of M * ksub numbers (ADC, asymmetric
distance computation), one table a probed list for l2 and one for all lists for inner products:

    l2:      r = x - c_l,  T[m, j] = |r_m - y_m[j]|^2,  distance   =         sum over m of T[m, j_m]   (eq. 13, 31)
    ip:                    T[m, j] = <x_m, y_m[j]>,     similarity = <x, c_l> + sum over m of T[m, j_m]
    cosine:  T as for l2, of vectors of length 1,       similarity = 1 - distance / 2

(<x, y> = 1 - |x - y|^2 / 2 where both have length 1. What a code stands for is shorter than 1, the more so the worse it
fits, and its inner product with x would be too small by as much: the distance is the better estimate.)

A residual quantizer's y_i is a sum of whole vectors and not put together from parts: it is added in order of its M
codewords, and its distance is that of one part, as wide as the vector.

RaBitQ's code knows <r_i, a> of the vector's own r_i = y - c_l as <a, y_i>, and |r_i|^2 as it is, n_i (see `rabitq`):

    l2:      a = x - c_l,  distance = |a|^2 + n_i - 2 <a, y_i>, at least 0

with both products an `ordered_sum`, and |a|^2 + n_i added first.

All in float32: r is rounded, each entry of T and <x, c_l> are an `ordered_sum` of rounded terms, and the sum over m is
added in order of m. What is not a number then is infinitely far. `adc` below is that and nothing else. Whatever faster
kernel is written must give its numbers.

`search` need not read a table for every code. It rebuilds the vectors of a list, screens them by a matrix product with
a proven error bound, and calls `adc` for those alone that can be among the k best: see `screening`.
"""

from __future__ import annotations

import numpy as np

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import SMALL_BLOCK, comparable, ordered_sum
from ivfpq.list_layout import Lists
from ivfpq.pq import Codes, Quantizer
from ivfpq.results import RangeResult, SearchResult, best_k, within
from ivfpq.screening import BLOCK, CandidateFilter, Points, of_similarity, screen


def adc(x: Floats, centroids: Floats, codes: Codes, pq: Quantizer, metric: Metric) -> Floats:
    """The distance of query x[i] to what centroids[i] and codes[i] stand for.

    Parameters
    ----------
    x, centroids : float32 arrays, shape (n, d)
    codes : array, shape (n, M)

    Returns
    -------
    float32 array, shape (n,)
    """
    y = pq.decode(codes)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 a distance is infinite
        if pq.keeps_lengths and metric != "ip":
            a = x - centroids
            product = ordered_sum(a * y)
            total = ordered_sum(np.square(a)) + pq.squared_lengths(codes) - (product + product)
            total[total < 0] = 0
        else:
            terms = x * y if metric == "ip" else np.square(x - centroids - y)
            # T[m, j_m] of each i, shape (n, M)
            parts = ordered_sum(terms.reshape(len(x), pq.d // pq.dsub, pq.dsub))
            total = ordered_sum(x * centroids) if metric == "ip" else np.zeros(len(x), np.float32)
            for m in range(parts.shape[1]):
                total = total + parts[:, m]
        if metric == "cosine":
            total = np.float32(1) - total / np.float32(2)
    return comparable(total + np.float32(0), metric)  # no negative zero


def search(
    x: Floats, probes: Ids, centroids: Floats, pq: Quantizer, lists: Lists, k: int, metric: Metric
) -> SearchResult:
    """The k best of the probed lists by `adc`, ties to the smaller id.

    Parameters
    ----------
    x : float32 array, shape (nq, d)
    probes : int64 array, shape (nq, nprobe)
        Lists to look through for each query.
    centroids : float32 array, shape (nlist, d)
    """
    query, row, distance = _candidates(x, probes, centroids, pq, lists, CandidateFilter(len(x), k), metric)
    return best_k(query, distance, lists.ids(row), len(x), k, metric)


def range_search(
    x: Floats, probes: Ids, centroids: Floats, pq: Quantizer, lists: Lists, radius: float, metric: Metric
) -> RangeResult:
    """All of the probed lists that `adc` puts strictly inside the radius (above it, for ip and cosine)."""
    shortlist = CandidateFilter(len(x), None, radius if metric == "l2" else -radius)
    query, row, distance = _candidates(x, probes, centroids, pq, lists, shortlist, metric)
    return within(query, distance, lists.ids(row), len(x), radius, metric)


def _candidates(
    x: Floats,
    probes: Ids,
    centroids: Floats,
    pq: Quantizer,
    lists: Lists,
    shortlist: CandidateFilter,
    metric: Metric,
) -> tuple[Ids, Ids, Floats]:
    """What may be in the answer: query numbers, rows of `lists`, and the defined distances."""
    # Pairs (query, list), list by list: each list is rebuilt once for all queries that look into it.
    order = np.argsort(probes, axis=None, kind="stable")
    asking = order // probes.shape[1]
    ends = np.cumsum(np.bincount(probes.ravel(), minlength=len(centroids)))
    step = max(1, BLOCK // max(pq.d, len(x)))
    if pq.keeps_lengths and metric != "ip":
        step = max(1, BLOCK // (pq.d * len(x)))
    for number in np.flatnonzero(np.diff(ends, prepend=0) * lists.sizes).tolist():
        queries = asking[ends[number - 1] if number else 0 : ends[number]]
        residual = x[queries] if metric == "ip" else x[queries] - centroids[number]
        first, last = int(lists.starts[number]), int(lists.starts[number] + lists.sizes[number])
        for start in range(first, last, step):
            codes = pq.from_rows(lists.codes(np.arange(start, min(start + step, last))))
            if pq.keeps_lengths and metric != "ip":
                count, n = len(queries), len(codes)
                each = np.repeat(x[queries], n, axis=0)
                cell = np.broadcast_to(centroids[number], each.shape)
                score = adc(each, cell, np.tile(codes, (count, 1)), pq, metric).reshape(count, n)
                shortlist.offer(queries, start, score if metric == "l2" else -score, np.zeros(count))
                continue
            y = pq.decode(codes)
            score, error = screen(residual, Points.of(y), "ip" if metric == "ip" else "l2")
            if metric == "cosine":
                score, error = of_similarity(score, error)
            if metric == "ip":  # <x, c_l> comes apart from <x, y_i>, in the bound too: the two may cancel
                coarse, coarse_error = screen(residual, Points.of(centroids[number : number + 1]), metric)
                score, error = score + coarse, error + coarse_error
            shortlist.offer(queries, start, score, error)
    query, row = shortlist.finish()
    distance = np.empty(len(query), np.float32)
    cells = lists.list_numbers(row)
    step = max(1, SMALL_BLOCK // pq.d)
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        codes = pq.from_rows(lists.codes(row[part]))
        distance[part] = adc(x[query[part]], centroids[cells[part]], codes, pq, metric)
    return query, row, distance
