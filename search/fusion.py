"""Scores of several parts become one order.

The scores of pictures and of texts differ in scale, so those of each part are standardised, by mean and deviation over
a fixed random sample of the collection: over the candidates alone they would move with every filter. Their convex
combination by weight orders the hits (Bruch, Gai and Ingber 2023, "An analysis of fusion functions for hybrid
retrieval"); negative parts subtract. As an option the ranks are combined instead of the scores (Cormack, Clarke and
Büttcher 2009, "Reciprocal rank fusion").
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_ROWS = 2_000
SAMPLE_SEED = 0
WORDS_BESIDE_PICTURE = 0.5
"""What words count beside a picture of the same weight: their scores lie farther apart, and err more often."""
RANK_OFFSET = 60  # of the paper: the larger, the less the first ranks stand out

Floats = NDArray[np.floating[Any]]


def sample_of(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ids, ascending, over which scores are standardised: the same for the same ids."""
    if ids.size <= SAMPLE_ROWS:
        return ids
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(ids, SAMPLE_ROWS, replace=False))


def deviations(sample: Floats) -> Floats:
    """Standard deviation of each part's scores (p, s) over the sample, shape (p,); 1 where all are the same."""
    deviation: Floats = sample.std(axis=1, dtype=np.float64)
    return np.where(deviation > 1e-6 * np.abs(sample).max(axis=1, initial=0.0), deviation, 1.0)


def standardized_over(scores: Floats, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores (n,) of all pictures less their mean, by their standard deviation, over some ids.

    Only scores that are finite count; what is not becomes 0, as the mean does.
    """
    usable = scores[ids]
    known = usable[np.isfinite(usable)]
    if not known.size:
        return np.zeros(len(scores), np.float32)
    by = deviations(known[None])[0]
    standard: NDArray[np.float32] = np.where(np.isfinite(scores), (scores - known.mean()) / by, 0).astype(np.float32)
    return standard


def shares(scores: Floats, sample: Floats, weights: Floats, *, fusion: Literal["scores", "ranks"] = "scores") -> Floats:
    """What each part adds to the score of each candidate.

    Parameters
    ----------
    scores : float (p, n)
        Of each part for each candidate; larger is better.
    sample : float (p, s)
        Of each part for the pictures of the sample.
    weights : float (p,)
        Not all zero.
    fusion : str
        Whether scores or ranks are combined.

    Returns
    -------
    float64 (p, n)
        Their sum over the parts is the score that orders the candidates.
    """
    portions = weights / np.abs(weights).sum()
    if fusion == "ranks":
        order = np.argsort(-scores, axis=1, kind="stable")
        ranks = np.empty(scores.shape, np.int64)
        np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1)[None], axis=1)
        return portions[:, None] / (RANK_OFFSET + ranks)
    mean = sample.mean(axis=1, dtype=np.float64)
    return portions[:, None] * (scores - mean[:, None]) / deviations(sample)[:, None]


def fused_vector(vectors: Floats, sample: Floats, weights: Floats, metric: str) -> Floats | None:
    """The one vector whose nearest are the best by the fused scores of several vectors of one space.

    With inner products it is their sum, each by the factor a_i, its weight through the deviation of its scores: the sum
    of a_i x.q_i is x.(sum of a_i q_i). A squared distance |x - q_i|^2 has the term |x|^2 besides, so it is the mean by
    these factors, which there is only where they add up to more than nothing.

    Parameters
    ----------
    vectors : float (p, dim)
        Of length 1 where the metric is cosine.
    sample : float (p, s)
        Their scores for the pictures of the sample.
    weights : float (p,)
    metric : str

    Returns
    -------
    float32 (dim,) or None
        None where there is no such vector.
    """
    factors = weights / deviations(sample)
    total = factors.sum()
    if metric == "l2":
        if total <= 1e-6 * np.abs(factors).sum():
            return None
        factors = factors / total
    vector: Floats = (factors @ vectors.astype(np.float64)).astype(np.float32)
    return vector
