"""What a distance is, to the last bit.

A squared distance or an inner product is a sum of float32 terms, each rounded, added in one fixed order
(`ordered_sum`). It does not depend on the machine, the threads, the number of queries asked at a time, or the linear
algebra library.

Beyond float32 a sum is infinite, or, of infinities of both signs, not a number. In an answer the latter counts as
infinitely far (`comparable`); where lists and codewords are chosen, it comes after infinity.
"""

from __future__ import annotations

import numpy as np

from ivfpq.checks import Floats, Ids, Metric

LANES = 16  # one AVX-512 register of float32: the order below is one that a vector processor follows at full speed
FEW = 64  # rows up to which summing costs more in calls than in additions
SMALL_BLOCK = 1 << 17  # numbers in temporaries of elementwise work, which is fast only inside the caches


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


def pair_distances_at(x: Floats, i: Ids, y: Floats, j: Ids, metric: Metric) -> Floats:
    """`pair_distances` of `x[i]` and `y[j]`, shapes (n,), a block at a time."""
    step = max(1, SMALL_BLOCK // x.shape[1])
    parts = [pair_distances(x[i[s : s + step]], y[j[s : s + step]], metric) for s in range(0, len(i), step)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def comparable(distances: Floats, metric: Metric) -> Floats:
    """The distances, what is not a number being infinitely far, so that they have one order. They are changed."""
    distances[np.isnan(distances)] = np.inf if metric == "l2" else -np.inf
    return distances
