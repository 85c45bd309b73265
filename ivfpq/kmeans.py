"""k-means: Lloyd's algorithm on matrix products, seeded nearly as by k-means++, in rounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq import kernels
from ivfpq.assign import WORTH_A_THREAD
from ivfpq.checks import Floats, Ids
from ivfpq.distances import normalised
from ivfpq.screening import Points
from ivfpq.threads import spread

logger = logging.getLogger(__name__)

ITERATIONS = 25
MAX_POINTS_PER_CENTROID = 256  # more training points change centroids no more; faiss draws the line here too
SEED_POWER = 0.75  # of the squared distance, that seeds are drawn by; 1 in k-means++
LARGEST_EXPONENT = 50  # of 2, in a number: beyond it points are made smaller, for their squares would leave float32
NARROW = 128  # dimensions up to which writing and reading the products takes longer than computing them
SCORES = 1 << 18  # numbers of the products at a time: 1 MiB, which is still in a cache when the largest are looked for
TOLERANCE = 1e-3  # the training ends when an iteration gains less than this share of the objective


class Iteration(NamedTuple):
    """What one round of Lloyd's algorithm saw, and what it made of it."""

    centroids: Floats
    """Those that the points were assigned to, float32 (k, d)."""
    nearest: Ids
    """The centroid of each point, int64 (n,)."""
    objective: float
    """What all assignments cost together."""
    means: Floats
    """The centroids of the next round, float32 (k, d)."""


def kmeans(
    x: Floats, k: int, rng: np.random.Generator, *, spherical: bool = False, tolerance: float | None = TOLERANCE
) -> Floats:
    """k centroids that make the sum of squared distances to the nearest one small.

    Parameters
    ----------
    x : float32 array, shape (n, d)
    k : int
        At most n.
    rng : numpy.random.Generator
    spherical : bool
        Centroids have length 1 and points belong to the one of the largest inner product (faiss trains the coarse
        quantizer of inner-product indexes so).
    tolerance : float, optional
        Stop after an iteration that gains no more than this share of the objective; None: never before ITERATIONS, for
        comparisons of equal work.

    Returns
    -------
    float32 array, shape (k, d)

    Raises
    ------
    ValueError
        If there are fewer points than centroids.
    """
    x, shrunk = with_finite_squares(_sampled(x, k, rng))
    centroids = x[:0]
    for iteration in lloyd(x, k, rng, spherical=spherical, tolerance=tolerance):
        centroids = iteration.means
    return np.ldexp(centroids, shrunk) if shrunk else centroids


def lloyd(
    x: Floats, k: int, rng: np.random.Generator, *, spherical: bool = False, tolerance: float | None = TOLERANCE
) -> Iterator[Iteration]:
    """The rounds of `kmeans`, one after the other: the last one's `means` are its answer.

    `x` is float32 (n, d) with n from k up, no more points than `kmeans` draws, and squares that float32 can hold.
    """
    # Far from the origin the expanded square |x|^2 - 2xc + |c|^2 would cancel its digits away. Directions have no mean.
    mean = np.zeros(x.shape[1], np.float32) if spherical else x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = x - mean
    lengths = None if spherical else np.einsum("ij,ij->i", x, x)
    centroids = _seeds(normalised(x) if spherical else x, k, rng)
    previous = np.inf
    for number in range(ITERATIONS):
        nearest, cost = assign(x, lengths, centroids)
        objective = float(cost.sum(dtype=np.float64))
        logger.debug("k-means k=%d iteration %d: objective %.6g", k, number, objective)
        means = _means(x, nearest, cost, k)
        if spherical:
            means = normalised(means)
        yield Iteration(centroids + mean, nearest, objective, means + mean)
        centroids = means
        if tolerance is not None and previous - objective <= tolerance * abs(objective):
            break
        previous = objective


def _sampled(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """As many of the points as change the centroids. Raises ValueError if there are fewer points than centroids."""
    if len(x) < k:
        raise ValueError(f"k-means needs at least as many points as centroids, got n={len(x)}, k={k}")
    if len(x) <= k * MAX_POINTS_PER_CENTROID:
        return x
    return x[np.sort(rng.choice(len(x), k * MAX_POINTS_PER_CENTROID, replace=False))]


def with_finite_squares(x: Floats) -> tuple[Floats, int]:
    """x / 2^e, which loses nothing, and e: 0 unless sums of squares of the numbers would leave float32."""
    shrunk = max(0, int(np.frexp(max(x.max(initial=0), -x.min(initial=0)))[1]) - LARGEST_EXPONENT)
    return (np.ldexp(x, -shrunk) if shrunk else x), shrunk


def _seeds(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """First centroids: nearly k-means++ (Arthur and Vassilvitskii 2007), drawn in growing rounds.

    Each point is drawn with a probability that grows with its distance from the seeds so far; by less than the square
    of k-means++, which draws the lone points that image features have many of too often. Drawing half as many more at a
    time instead of one (as k-means||, Bahmani et al. 2012, does) makes a round one matrix product.
    """
    chosen = rng.integers(len(x), size=1)
    lengths = np.einsum("ij,ij->i", x, x)
    gap = assign(x, lengths, x[chosen])[1]
    while len(chosen) < k:
        wanted = min(k - len(chosen), max(1, len(chosen) // 2))
        weight = np.maximum(gap, 0).astype(np.float64) ** SEED_POWER  # rounding can make gaps negative
        weight[chosen] = 0
        apart = np.count_nonzero(weight)
        if apart < wanted:  # fewer distinct points than centroids: repeats will do
            free = np.setdiff1d(np.arange(len(x)), chosen)
            new = rng.choice(free, wanted, replace=False)
        else:
            new = rng.choice(len(x), wanted, replace=False, p=weight / weight.sum())
        chosen = np.concatenate([chosen, new])
        np.minimum(gap, assign(x, lengths, x[new])[1], out=gap)
    return x[chosen]


def assign(x: Floats, lengths: Floats | None, centroids: Floats) -> tuple[Ids, Floats]:
    """The centroid of each point and what it costs: the squared distance, or minus the inner product.

    `lengths` (n,) are the points' squared lengths, or None for inner products.
    """
    if x.shape[1] <= NARROW and kernels.active() != "reference":  # the same sums, in another order
        compiled = kernels.compiled_module("nearest")
        find = compiled.Nearest([Points.of(centroids)], "ip" if lengths is None else "l2").roughly
        found = spread(lambda first, last: find(x[first:last]), len(x), x.size * len(centroids) // WORTH_A_THREAD)
        numbers, costs = (np.concatenate(parts)[:, 0] for parts in zip(*found, strict=True))
        return numbers, costs
    nearest, cost = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
    half_norms = np.float32(0.5) * np.einsum("ij,ij->i", centroids, centroids)
    step = max(1, SCORES // len(centroids))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        score = block @ centroids.T
        if lengths is not None:
            score -= half_norms
        best = score.argmax(axis=1)
        nearest[start : start + step] = best
        cost[start : start + step] = score[np.arange(len(block)), best]
    return nearest, -cost if lengths is None else lengths - 2 * cost


def _means(x: Floats, nearest: Ids, cost: Floats, k: int) -> Floats:
    """The mean of each centroid's points; a centroid without points moves to one of the points served worst."""
    counts: npt.NDArray[np.int64] = np.bincount(nearest, minlength=k)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        nearest = nearest.copy()
        # Only points whose own centroid keeps another one may leave it.
        for centroid, point in zip(empty.tolist(), _worst_served(nearest, cost, counts, len(empty)), strict=False):
            counts[nearest[point]] -= 1
            counts[centroid] = 1
            nearest[point] = centroid
    means = np.empty((k, x.shape[1]), np.float32)
    order = np.argsort(nearest.astype(np.min_scalar_type(k)), kind="stable")  # small numbers are sorted by their digits
    first = 0
    for number, last in enumerate(np.cumsum(counts).tolist()):
        np.add.reduce(x.take(order[first:last], axis=0), axis=0, out=means[number])
        first = last
    means /= counts[:, None].astype(np.float32)
    return means


def _worst_served(nearest: Ids, cost: Floats, counts: npt.NDArray[np.int64], wanted: int) -> list[int]:
    """Points of the highest cost that can leave their centroid without emptying it."""
    left, points = counts.copy(), []
    for point in np.argsort(-cost, kind="stable"):
        if left[nearest[point]] > 1:
            left[nearest[point]] -= 1
            points.append(int(point))
            if len(points) == wanted:
                break
    return points
