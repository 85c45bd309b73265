"""Bounds by matrix products, so that the defined distance has to be computed for few pairs only.

Matrix products are many times faster than the definition (`distances`) but add in an order of their own. So they only
*screen*: they give every distance with a bound on how far it can lie from the defined one, whatever fits under the k-th
bound is kept (k and a few more), and only for those is the defined distance computed. The answer is the definition's,
to the bit.

The bound is the standard one (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1): a sum of n
products in any order, fused or not, is off by at most gamma(n) times the sum of their magnitudes, where
gamma(n) = n u / (1 - n u) and u = 2**-24.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ivfpq.checks import Doubles, Floats, Ids, Metric

BLOCK = 1 << 22  # numbers in a temporary matrix of a product: 16 MiB of float32
MANY = 1 << 20  # pairs that a filter holds before it looks at their defined distances: some 30 MB
HUGE = float(np.finfo(np.float32).max) / 16

_TINY = float(np.finfo(np.float32).tiny)
_UNIT = 2.0**-24


class Points(NamedTuple):
    """Vectors to compare with, and what screening needs to know of them."""

    y: Floats
    """float32 (ny, d)"""
    centre: Floats | None
    """float32 (d,), or None for the origin"""
    lengths: Floats
    """Squared lengths of y - centre, (ny,)"""

    @classmethod
    def of(cls, y: Floats, centre: Floats | None = None) -> Points:
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


def screen(x: Floats, rows: Points, metric: Metric) -> tuple[Floats, Doubles]:
    """All distances by a matrix product, with their error bound.

    Parameters
    ----------
    x : float32 array, shape (nx, d)
    rows : Points
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


def of_similarity(score: Floats, error: Doubles) -> tuple[Floats, Doubles]:
    """What `screen` gives for l2 as that of the similarity 1 - distance / 2, its sign turned.

    Halving is exact; 1 is added here and in the definition, and each sum rounded.
    """
    return score / np.float32(2) - np.float32(1), error / 2 * 1.1 + 2.0**-22


def not_below(value: Doubles) -> Floats:
    """A float32 number not below `value`, so that comparing in float32 leaves nothing out."""
    with np.errstate(over="ignore"):
        return np.nextafter(value.astype(np.float32), np.float32(np.inf))


class CandidateFilter:
    """Gathers, from screened blocks, the pairs that may be among the k best of their query, or within a radius.

    Parameters
    ----------
    nq : int
        Queries, numbered from 0.
    k : int or None
        Neighbours wanted; None for a radius search.
    radius : float
        For k None: whatever may score below it is kept (sign turned for ip and cosine, as by `screen`).
    ranked : function, optional
        Called with pairs as arrays (query, row) where the bounds let more than `MANY` pass. Gives back those of the
        pairs that are worth it, as (query, row, defined distance, id), the sign turned as above.
    """

    def __init__(
        self,
        nq: int,
        k: int | None,
        radius: float = np.inf,
        ranked: Callable[[Ids, Ids], tuple[Ids, Ids, Floats, Ids]] | None = None,
    ) -> None:
        self._k = k
        self._ranked = None if k is None else ranked
        self._held, self._limit = 0, MANY
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
            limit = not_below(self._bound[query] + error)
            # Not "score <= limit": NaN, which comes of numbers beyond float32, says nothing and is kept.
            possible = np.flatnonzero(~(score > limit[:, None]))
        step = MANY if self._ranked else max(1, len(possible))
        for start in range(0, len(possible), step):
            position = possible[start : start + step]
            i, j = np.divmod(position, score.shape[1])
            self._query.append(query[i])
            self._row.append(first_row + j)
            self._score.append(score.ravel()[position])
            self._error.append(error[i])
            self._held += len(position)
            if self._ranked and self._held > self._limit:
                self._settle(self._ranked)

    def _settle(self, ranked: Callable[[Ids, Ids], tuple[Ids, Ids, Floats, Ids]]) -> None:
        """Keep of what is held the k best of each query by the defined distance."""
        k: int = self._k  # type: ignore[assignment]
        query, row, distance, ids = ranked(np.concatenate(self._query), np.concatenate(self._row))
        order = np.lexsort((ids, distance, query))
        query, row, distance = query[order], row[order], distance[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        last = rank == k - 1
        self._bound[query[last]] = np.fmin(self._bound[query[last]], distance[last])
        best = rank < k
        self._query, self._row, self._score = [query[best]], [row[best]], [distance[best]]
        self._error = [np.zeros(int(best.sum()))]
        self._held = int(best.sum())
        self._limit = MANY + 2 * self._held

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
