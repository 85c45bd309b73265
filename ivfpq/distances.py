"""Distances, and the k smallest of them, to the last bit.

**The definition.** A squared distance or an inner product is a sum of float32 terms, each rounded, added in one fixed
order (`ordered_sum`). It does not depend on the machine, the threads, the number of queries asked at a time, or the
linear algebra library.

**The work.** Matrix products are many times faster but add in an order of their own. So they only *screen*: they give
every distance with a bound on how far it can lie from the defined one, whatever fits under the k-th bound is kept (k
and a few more), and only for those is the defined distance computed. The answer is the definition's, to the bit.

The bound is the standard one (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1): a sum of n
products in any order, fused or not, is off by at most gamma(n) times the sum of their magnitudes, where
gamma(n) = n u / (1 - n u) and u = 2**-24.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.threads import spread

Doubles = npt.NDArray[np.float64]

LANES = 16  # one AVX-512 register of float32: the order below is one that a vector processor follows at full speed
BLOCK = 1 << 22  # numbers in a temporary matrix of a product: 16 MiB of float32
FEW = 64  # rows up to which summing costs more in calls than in additions
WORTH_A_THREAD = 1 << 25  # multiplications: about a millisecond
SMALL_BLOCK = 1 << 17  # numbers in temporaries of elementwise work, which is fast only inside the caches

_TINY = float(np.finfo(np.float32).tiny)
HUGE = float(np.finfo(np.float32).max) / 16
_UNIT = 2.0**-24


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


def ordered_sum(terms: Floats) -> Floats:
    """Sum over the last axis in the order that defines every distance.

    Term t is added to lane t mod 16, in order of t; then the upper half of the lanes is added to the lower half until
    one is left. In plain Python, for one row:

        lanes = [0.0] * 16
        for t in range(len(terms)): lanes[t % 16] += terms[t]
        for half in (8, 4, 2, 1):
            lanes = [lanes[i] + lanes[i + half] for i in range(half)]

    Parameters
    ----------
    terms : float32 array, shape (..., t)

    Returns
    -------
    float32 array, shape (...)
    """
    t = terms.shape[-1]
    lanes = np.zeros((*terms.shape[:-1], LANES), np.float32)
    first = 0
    if t > 4 * LANES and terms.size < FEW * t:
        # The same additions in one call. (numpy adds pairwise along the last axis only; others it adds in order.)
        first = t - t % LANES
        lanes += np.add.reduce(terms[..., :first].reshape(*terms.shape[:-1], first // LANES, LANES), axis=-2)
    for start in range(first, t, LANES):
        width = min(LANES, t - start)
        lanes[..., :width] += terms[..., start : start + width]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes[..., 0]


def pair_distances(x: Floats, y: Floats, metric: Metric) -> Floats:
    """The defined distance (or inner product) of `x[i]` and `y[i]`: shapes (n, d), (n, d) -> (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 a distance is infinite
        if metric == "l2":
            return ordered_sum(np.square(x - y))
        return ordered_sum(x * y) + np.float32(0)  # no negative zero


def normalised(x: Floats) -> Floats:
    """Rows divided by their Euclidean length, which is summed in float64; a zero row stays zero. Shape (n, d)."""
    length = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    length[length == 0] = 1
    unit: Floats = np.divide(x, length[:, None], out=np.empty_like(x), casting="same_kind")
    return unit


class Rows(NamedTuple):
    """Vectors to compare with, and what screening needs to know of them."""

    y: Floats
    """float32 (ny, d)"""
    centre: Floats | None
    """float32 (d,), or None for the origin"""
    lengths: Floats
    """Squared lengths of y - centre, (ny,)"""

    @classmethod
    def of(cls, y: Floats, centre: Floats | None = None) -> Rows:
        """`centre` is for l2 alone, whose square is then expanded around it: the error grows with the lengths of the
        vectors, and data far from the origin would have nearly all of its digits cancelled.
        """
        return cls(y, centre, squared_lengths(y if centre is None else y - centre))

    def shifted(self, numbers: Ids | slice = slice(None)) -> Floats:
        """y[numbers] - centre: computed when it is asked for, because kept it would be all of y a second time."""
        y = self.y[numbers]
        return y if self.centre is None else y - self.centre


def squared_lengths(x: Floats) -> Floats:
    """Of each row, in no defined order of addition: (n, d) -> (n,)."""
    with np.errstate(over="ignore"):
        lengths: Floats = np.einsum("ij,ij->i", x, x)
    return lengths


def product_error(d: int) -> tuple[float, float]:
    """What a distance of d dimensions by a matrix product, and the defined one, can differ by: gamma * (sum of the
    magnitudes of what is added) + floor.
    """
    # d products there; d / 16 additions in a lane, 4 of lanes and at most d of parts (kernels) in the defined sum; the
    # rest for the roundings of differences, squares, norms and centring.
    terms = 2.1 * d + 24
    gamma = 1.01 * terms * _UNIT / max(1 - terms * _UNIT, _UNIT)
    return gamma, 4 * d * _TINY  # a product below the smallest normal number may be lost altogether


def screen(x: Floats, rows: Rows, metric: Metric) -> tuple[Floats, Doubles]:
    """All distances by a matrix product, with their error bound.

    Parameters
    ----------
    x : float32 array, shape (nx, d)
    rows : Rows
        ny vectors, with a centre for l2 only.
    metric : str
        "ip" and "cosine" give inner products with the sign turned, so that smaller is better throughout.

    Returns
    -------
    score : float32 array, shape (nx, ny)
    error : float64 array, shape (nx,)
        |score[i, j] - defined distance| <= error[i]. Where numbers are too large for float32 the error is infinite
        and the score may be anything, NaN included.
    """
    gamma, floor = product_error(x.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.centre is not None:
            x = x - rows.centre
        xx, yy = squared_lengths(x), rows.lengths
        score = x @ rows.shifted().T
        longest = float(yy.max(initial=0))
        if metric == "l2":
            score *= -2
            score += yy
            score += xx[:, None]
            size = xx.astype(np.float64) + longest  # of each of the three terms, and (|x| + |y|)**2 <= 2 size
            error = gamma * 2 * size + floor
        else:
            np.negative(score, out=score)
            size = np.sqrt((xx + np.float64(floor)) * (longest + floor))
            error = gamma * size + floor
        error[~(size < HUGE)] = np.inf  # where a partial sum may leave float32, nothing is known
    return score, error


def _at_least(value: Doubles) -> Floats:
    """A float32 number not below `value`, so that comparing in float32 leaves nothing out."""
    with np.errstate(over="ignore"):
        return np.nextafter(value.astype(np.float32), np.float32(np.inf))


class Shortlist:
    """Gathers, from screened blocks, the pairs that may be among the k best of their query, or within a radius.

    Parameters
    ----------
    nq : int
        Queries, numbered from 0.
    k : int or None
        Neighbours wanted; None for a radius search.
    radius : float
        For k None: whatever may score below it is kept (sign turned for ip and cosine, as by `screen`).
    """

    def __init__(self, nq: int, k: int | None, radius: float = np.inf) -> None:
        self._k = k
        self._bound = np.full(nq, radius)  # not below the k-th best defined distance seen so far; float64
        self._query: list[Ids] = []
        self._row: list[Ids] = []
        self._score: list[Floats] = []
        self._error: list[Doubles] = []

    def offer(self, query: Ids, first_row: int, score: Floats, error: Doubles) -> None:
        """Look through one block.

        Parameters
        ----------
        query : int64 array, shape (q,)
        first_row : int
            The block is rows first_row, first_row + 1, ... of what is searched.
        score, error : arrays, shapes (q, n) and (q,)
            As `screen` gives them.
        """
        with np.errstate(invalid="ignore"):
            if self._k is not None and score.shape[1] >= self._k:
                kth = np.partition(score, self._k - 1, axis=1)[:, self._k - 1] + error
                self._bound[query] = np.fmin(self._bound[query], kth)
            limit = _at_least(self._bound[query] + error)
            # Not "score <= limit": NaN, which comes of numbers beyond float32, says nothing and is kept.
            position = np.flatnonzero(~(score > limit[:, None]))
        i, j = np.divmod(position, score.shape[1])
        self._query.append(query[i])
        self._row.append(first_row + j)
        self._score.append(score.ravel()[position])
        self._error.append(error[i])

    def finish(self) -> tuple[Ids, Ids]:
        """The pairs that remain, as (query, row): two int64 arrays, shape (n,), in order of query."""
        if not self._query:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        query, row = np.concatenate(self._query), np.concatenate(self._row)
        score, error = np.concatenate(self._score), np.concatenate(self._error)
        with np.errstate(invalid="ignore"):
            if self._k is None:
                order = np.argsort(query, kind="stable")
                return query[order], row[order]
            upper, lower = score + error, score - error
            order = np.lexsort((upper, query))
            query, row, lower, upper = query[order], row[order], lower[order], upper[order]
            kth = np.searchsorted(query, query) + self._k - 1  # where the k-th bound of this pair's query stands
            kth = np.where((kth < len(query)) & (query[np.minimum(kth, len(query) - 1)] == query), kth, -1)
            left_out = (kth >= 0) & (lower > upper[kth])
        return query[~left_out], row[~left_out]


def choose(x: Floats, rows: Rows, k: int, metric: Metric) -> Ids:
    """Which k of `rows` are nearest to each row of `x` by the defined distance, ties to the smaller row number.

    Parameters
    ----------
    x : float32 array, shape (n, d)
    rows : Rows
        At least k.

    Returns
    -------
    int64 array, shape (n, k)
        A set: the order within a row means nothing.
    """
    if k == 1:
        return nearest(x, [rows], metric)
    y = rows.y
    chosen = np.empty((len(x), k), np.int64)
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        score, error = screen(block, rows, metric)
        if k < len(y):
            best = score.argpartition(k - 1, axis=1)[:, :k]
        else:
            best = np.broadcast_to(np.arange(k), (len(block), k))
        chosen[start : start + step] = best
        if k == len(y):
            continue
        with np.errstate(invalid="ignore"):
            limit = _at_least(np.take_along_axis(score, best, axis=1).max(axis=1) + 2 * error)
            possible = ~(score > limit[:, None])
        doubtful = np.flatnonzero(np.count_nonzero(possible, axis=1) > k)
        if len(doubtful):  # the bound could not tell: compute those that matter as defined
            i, j = np.nonzero(possible[doubtful])
            distance = pair_distances_at(block, doubtful[i], y, j, metric)
            chosen[start + doubtful] = best_k(i, distance, j, len(doubtful), k, metric).ids
    return chosen


def nearest(x: Floats, parts: Sequence[Rows], metric: Metric) -> Ids:
    """Which row of parts[m] is nearest to the m-th part of each row of `x`, ties to the smaller row number.

    Parameters
    ----------
    x : float32 array, shape (n, M * d)
    parts : sequence of M Rows
        All of the same shape (ny, d), and around the same centre.
    metric : {"l2", "ip"}

    Returns
    -------
    int64 array, shape (n, M)
    """
    find, size = finder(parts, metric), x.shape[1] * len(parts[0].y)
    found = spread(lambda first, last: find(x[first:last]), len(x), len(x) * size // WORTH_A_THREAD)
    return np.concatenate(found)


def finder(parts: Sequence[Rows], metric: Metric) -> Callable[[Floats], Ids]:
    """`nearest` for many calls with the same parts, each in the calling thread: x (n, M * d) -> int64 (n, M)."""
    if importlib.import_module("ivfpq.kernels").active() == "reference":  # a module that imports this one
        d = parts[0].y.shape[1]
        return lambda x: np.stack(
            [_nearest(x[:, m * d : (m + 1) * d], rows, metric) for m, rows in enumerate(parts)], axis=1
        )
    compiled = importlib.import_module("ivfpq.kernels.nearest").Nearest(parts, metric)
    return lambda x: compiled(x)[0]


def _nearest(x: Floats, rows: Rows, metric: Metric) -> Ids:
    """`nearest` of one part, by matrix products: shape (n,).

    Products stay in the second-level cache until they are looked through, the matrix adds |y|^2 by itself, and |x|^2,
    the same for all, is left out. The error bound is that of `screen`.
    """
    d = x.shape[1]
    matrix = np.zeros((d + 1, len(rows.y)), np.float32)
    gamma, floor = product_error(d)
    step = max(16, 2 * SMALL_BLOCK // len(rows.y))
    longest = float(rows.lengths.max())
    nearest = np.empty(len(x), np.int64)
    a = np.ones((min(step, len(x)), d + 1), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(rows.shifted().T, np.float32(-2 if metric == "l2" else -1), out=matrix[:-1])
        if metric == "l2":
            matrix[-1] = rows.lengths
        for start in range(0, len(x), step):
            block = x[start : start + step]
            part = a[: len(block)]
            np.subtract(block, 0 if rows.centre is None else rows.centre, out=part[:, :-1])
            size = squared_lengths(part[:, :-1]).astype(np.float64)
            score = part @ matrix
            size = 2 * (size + longest) if metric == "l2" else np.sqrt((size + floor) * (longest + floor))
            error = np.where(size < HUGE, gamma * size + floor, np.inf)
            each, best = np.arange(len(block)), score.argmin(axis=1)
            limit = _at_least(score[each, best] + 2 * error)
            score[each, best] = np.inf
            doubtful = np.flatnonzero(~(score.min(axis=1) > limit))
            if len(doubtful):  # the bound could not tell: compute those that matter as defined
                possible = ~(score[doubtful] > limit[doubtful, None])
                possible[np.arange(len(doubtful)), best[doubtful]] = True
                i, j = np.nonzero(possible)
                distance = pair_distances_at(block, doubtful[i], rows.y, j, metric)
                best[doubtful] = best_k(i, distance, j, len(doubtful), 1, metric).ids[:, 0]
            nearest[start : start + step] = best
    return nearest


def pair_distances_at(x: Floats, i: Ids, y: Floats, j: Ids, metric: Metric) -> Floats:
    """`pair_distances` of `x[i]` and `y[j]`, shapes (n,), a block at a time."""
    step = max(1, SMALL_BLOCK // x.shape[1])
    parts = [pair_distances(x[i[s : s + step]], y[j[s : s + step]], metric) for s in range(0, len(i), step)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


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
