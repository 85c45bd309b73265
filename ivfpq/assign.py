"""Which of a few given points, centroids or codewords, are nearest to each vector, by the defined distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ivfpq import kernels
from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import SMALL_BLOCK, pair_distances_at
from ivfpq.results import best_k
from ivfpq.screening import BLOCK, HUGE, Points, not_below, product_error, screen, squared_lengths
from ivfpq.threads import spread

WORTH_A_THREAD = 1 << 25  # multiplications: about a millisecond


def choose(x: Floats, points: Points, k: int, metric: Metric) -> Ids:
    """The numbers of the k points nearest to each row of `x` by the defined distance, ties to the smaller number.

    Parameters
    ----------
    x : float32 array, shape (n, d)
    points : Points
        At least k.

    Returns
    -------
    int64 array, shape (n, k)
        A set: the order within a row means nothing.
    """
    if k == 1:
        return nearest(x, [points], metric)
    y = points.y
    chosen = np.empty((len(x), k), np.int64)
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        score, error = screen(block, points, metric)
        if k < len(y):
            best = score.argpartition(k - 1, axis=1)[:, :k]
        else:
            best = np.broadcast_to(np.arange(k), (len(block), k))
        chosen[start : start + step] = best
        if k == len(y):
            continue
        with np.errstate(invalid="ignore"):
            limit = not_below(np.take_along_axis(score, best, axis=1).max(axis=1) + 2 * error)
            possible = ~(score > limit[:, None])
        doubtful = np.flatnonzero(np.count_nonzero(possible, axis=1) > k)
        if len(doubtful):  # the bound could not tell: compute those that matter as defined
            i, j = np.nonzero(possible[doubtful])
            distance = pair_distances_at(block, doubtful[i], y, j, metric)
            chosen[start + doubtful] = best_k(i, distance, j, len(doubtful), k, metric).ids
    return chosen


def nearest(x: Floats, parts: Sequence[Points], metric: Metric) -> Ids:
    """Which row of parts[m] is nearest to the m-th part of each row of `x`, ties to the smaller row number.

    Parameters
    ----------
    x : float32 array, shape (n, M * d)
    parts : sequence of M Points
        All of the same shape (ny, d), and around the same centre.
    metric : {"l2", "ip"}

    Returns
    -------
    int64 array, shape (n, M)
    """
    find, size = finder(parts, metric), x.shape[1] * len(parts[0].y)
    found = spread(lambda first, last: find(x[first:last]), len(x), len(x) * size // WORTH_A_THREAD)
    return np.concatenate(found)


def finder(parts: Sequence[Points], metric: Metric) -> Callable[[Floats], Ids]:
    """`nearest` for many calls with the same parts, each in the calling thread: x (n, M * d) -> int64 (n, M)."""
    if kernels.active() == "reference":
        d = parts[0].y.shape[1]
        return lambda x: np.stack(
            [_nearest(x[:, m * d : (m + 1) * d], points, metric) for m, points in enumerate(parts)], axis=1
        )
    compiled = kernels.compiled_module("nearest").Nearest(parts, metric)
    return lambda x: compiled(x)[0]


def _nearest(x: Floats, points: Points, metric: Metric) -> Ids:
    """`nearest` of one part, by matrix products: shape (n,).

    Products stay in the second-level cache until they are looked through, the matrix adds |y|^2 by itself, and |x|^2,
    the same for all, is left out. The error bound is that of `screen`.
    """
    d = x.shape[1]
    matrix = np.zeros((d + 1, len(points.y)), np.float32)
    gamma, floor = product_error(d)
    step = max(16, 2 * SMALL_BLOCK // len(points.y))
    longest = float(points.lengths.max())
    nearest = np.empty(len(x), np.int64)
    a = np.ones((min(step, len(x)), d + 1), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(points.shifted().T, np.float32(-2 if metric == "l2" else -1), out=matrix[:-1])
        if metric == "l2":
            matrix[-1] = points.lengths
        for start in range(0, len(x), step):
            block = x[start : start + step]
            part = a[: len(block)]
            np.subtract(block, 0 if points.centre is None else points.centre, out=part[:, :-1])
            size = squared_lengths(part[:, :-1]).astype(np.float64)
            score = part @ matrix
            size = 2 * (size + longest) if metric == "l2" else np.sqrt((size + floor) * (longest + floor))
            error = np.where(size < HUGE, gamma * size + floor, np.inf)
            each, best = np.arange(len(block)), score.argmin(axis=1)
            limit = not_below(score[each, best] + 2 * error)
            score[each, best] = np.inf
            doubtful = np.flatnonzero(~(score.min(axis=1) > limit))
            if len(doubtful):  # the bound could not tell: compute those that matter as defined
                possible = ~(score[doubtful] > limit[doubtful, None])
                possible[np.arange(len(doubtful)), best[doubtful]] = True
                i, j = np.nonzero(possible)
                distance = pair_distances_at(block, doubtful[i], points.y, j, metric)
                best[doubtful] = best_k(i, distance, j, len(doubtful), 1, metric).ids[:, 0]
            nearest[start : start + step] = best
    return nearest
