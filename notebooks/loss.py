"""What a code loses: how far off its distances are, and which of the lost neighbours come back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.data import Data
from ivfpq import IndexFlat, index_factory
from ivfpq.checks import Floats

NEAR = 100  # neighbours whose distances are looked at
NOISE_QUERIES = 100  # queries for that: all vectors are ranked for each


class Loss(NamedTuple):
    """Of one index."""

    factory: str
    noise: float
    """Standard deviation of (estimated - true squared distance) among the NEAR nearest of a query. What is the same for
    all of them is not in it, because it changes no order."""
    all_lists: float
    """Recall@k with every list probed: what the codes alone lose"""
    probed: float
    """Recall@k with nprobe lists"""
    refined: float
    """And with the 10 k best of those re-ranked by the vectors"""


def near_distances(data: Data) -> Floats:
    """True squared distances of the NEAR nearest vectors to the first queries, (NOISE_QUERIES, NEAR), nearest first."""
    return _near(data).distances


def loss(data: Data, factory: str, *, nprobe: int, seed: int) -> Loss:
    """Build ours and look at what it says of vectors whose true distances are known.

    Parameters
    ----------
    factory : str
        With inverted lists and without "Refine", which is added here.
    """
    base, queries = np.load(data.base), np.load(data.queries)
    index: Any = index_factory(data.d, f"{factory},Refine", seed=seed)
    index.train(np.load(data.train))
    index.add(base)
    coded = index.base
    few, truth = queries[:NOISE_QUERIES], _near(data)
    ranked = coded.search(few, data.n, nprobe=coded.nlist)
    estimates = np.empty((len(few), data.n), np.float32)
    np.put_along_axis(estimates, ranked.ids, ranked.distances, axis=1)
    errors = np.take_along_axis(estimates, truth.ids, axis=1) - truth.distances
    answers = (
        coded.search(queries, data.k, nprobe=coded.nlist),
        coded.search(queries, data.k, nprobe=nprobe),
        index.search(queries, data.k, nprobe=nprobe),
    )
    noise = float(np.sqrt(errors.var(axis=1, dtype=np.float64).mean()))
    return Loss(factory, noise, *(data.recall(answer.ids) for answer in answers))


def _near(data: Data) -> Any:
    flat = IndexFlat(data.d)
    flat.add(np.load(data.base))
    return flat.search(np.load(data.queries)[:NOISE_QUERIES], min(NEAR, data.n))
