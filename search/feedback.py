"""More like this, less like this: one vector learnt from what a person has judged of the hits.

From the first judgement on the query is moved towards what is meant and away from what is not (Rocchio 1971, "Relevance
feedback in information retrieval"): q + MORE mean(more) - LESS mean(less). From `RIDGE_FROM` judgements on the vector
is that of a ridge regression to 1 for the query and what is meant and to -1 for what is not, each side with the same
weight, and besides to -1 for some pictures at random, most of which are not meant either. All on vectors of length 1.

Where neighbours count in the order of hits (`search.neighbour_order`), a second vector is learnt in the same way from
the neighbourhoods of query and judged pictures, as long as these are few: a picture fits by (1 - w) of the one cosine
and w of the other.
What was measured: docs/WORDS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from ivfpq.distances import normalised
from search.errors import QueryError
from search.fusion import sample_of
from search.neighbour_order import Neighbourhoods
from search.neighbourhood import NEIGHBOURS, POWER
from search.options import SearchOptions
from search.query import FeedbackPart
from search.searcher import SpaceSearcher
from search.space import ADD_BLOCK

Floats = NDArray[np.float32]

MORE = 2.0
LESS = 2.0
RIDGE_FROM = 10
RIDGE = 0.1
"""Added to the diagonal, where the weights of each side add up to 1."""
SAME = 1 - 1e-6
"""Cosine from which on two pictures are one."""
BACKGROUND = 60
"""Pictures at random that count as not meant."""

SHARE = 2.0
"""Weight of what was learnt beside the sum of the weights of the other parts of the query."""
SHARE_WITH_NEIGHBOURS = 4.0
"""The same where neighbours count: the other parts do not know these."""


@dataclass(frozen=True, eq=False)
class LearntNeighbourhood:
    """What was learnt from neighbourhoods.

    Attributes
    ----------
    space : Neighbourhoods
    vector : float32 (p,)
        See `learnt_vector`.
    weight : float
        From 0 to 1, beside what was learnt from the stored vectors.
    """

    space: Neighbourhoods
    vector: Floats
    weight: float

    def mixed(self, scores: Floats, ids: NDArray[np.int64]) -> Floats:
        """How well pictures fit what was judged, (n,); `scores` is how well they do by their stored vectors."""
        near: Floats = np.einsum("ij,j->i", self.space.rows(ids), self.vector)
        return ((1 - self.weight) * scores + self.weight * near).astype(np.float32)


def learnt_vector(asked: Floats, more: Floats, less: Floats, background: Floats) -> Floats:
    """The vector whose cosine with a picture's says how well that fits what was judged.

    Parameters
    ----------
    asked : float32 (q, dim)
        What the query itself is like, by pictures of it or those found first; may be empty.
    more, less : float32 (m, dim), (l, dim)
        What is meant and what is not; one of them may be empty.
    background : float32 (b, dim)
        Pictures at random.

    Returns
    -------
    float32 (dim,)
        Of length 1, or 0 where the judgements cancel each other. All vectors that are taken are of length 1.
    """
    if len(more) + len(less) < RIDGE_FROM or not len(asked) + len(more):
        vector = MORE * _mean(more) - LESS * _mean(less) + _mean(asked)
    else:
        vector = _ridge(np.concatenate([asked, more]), less, background)
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)


def _mean(vectors: Floats) -> NDArray[np.float64]:
    return vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])


def _ridge(positive: Floats, negative: Floats, background: Floats) -> NDArray[np.float64]:
    """Weights of a ridge regression without intercept, by its dual: as many unknowns as examples."""
    groups = [(positive, 1.0), (negative, -1.0), (background, -1.0)]
    rows = np.concatenate([group for group, _ in groups]).astype(np.float64)
    target = np.concatenate([np.full(len(group), sign) for group, sign in groups])
    weight = np.sqrt(np.concatenate([np.full(len(group), 1 / max(1, len(group))) for group, _ in groups]))
    weighted = rows * weight[:, None]
    kernel = weighted @ weighted.T + RIDGE * np.eye(len(rows))
    return weighted.T @ np.linalg.solve(kernel, target * weight)


def check_judged(part: FeedbackPart, store: FeatureStore) -> None:
    """Raise QueryError where a collection has no such picture."""
    for id in (*part.more, *part.less):
        if id >= len(store.items) or store.items[id].error is not None:
            raise QueryError(f"{store.folder.name} has no picture {id}")


def learnt_from(
    part: FeedbackPart, asked: Floats, searcher: SpaceSearcher, options: SearchOptions, *, widen: bool = True
) -> Floats:
    """What is learnt from judged pictures of a collection, float32 (dim,): see `learnt_vector`.

    Parameters
    ----------
    asked : float32 (q, dim)
        Pictures of what the query itself is like, as they are stored; may be empty.
    widen : bool
        Let few judged pictures take in their nearest; not where neighbourhoods are learnt from besides.
    """
    more, less = _rows(searcher, part.more), _rows(searcher, part.less)
    if widen and len(more) + len(less) < RIDGE_FROM:
        asked, more, less = (widened(rows, searcher, options) for rows in (asked, more, less))
    else:
        asked, more, less = (normalised(rows) for rows in (asked, more, less))
    sample = sample_of(searcher.space.ids)
    chosen = np.random.default_rng(0).choice(sample, min(BACKGROUND, sample.size), replace=False)
    others = np.setdiff1d(chosen, [*part.more, *part.less])
    return learnt_vector(asked, more, less, normalised(searcher.space.rows(others)))


def learnt_neighbourhood(
    part: FeedbackPart,
    asked: Floats,
    own_ids: Sequence[int | None],
    searcher: SpaceSearcher,
    options: SearchOptions,
) -> LearntNeighbourhood | None:
    """What is learnt from the neighbourhoods of few judged pictures; None where neighbours do not count.

    Parameters
    ----------
    asked, own_ids
        As `learnt_from`, and which of them are pictures of the collection.
    """
    if searcher.order is None or not searcher.orders(options) or len(part.more) + len(part.less) >= RIDGE_FROM:
        return None
    space = searcher.order.space
    more, less = (space.rows(np.array(ids, np.int64)) for ids in (part.more, part.less))
    found = searcher.first(asked, 1, options, None, own_ids) if len(asked) else []
    expanded = [each.expansion.vector for each in found if each.expansion is not None]
    nothing = np.empty((0, more.shape[1]), np.float32)
    wanted = np.stack(expanded) if expanded else nothing
    return LearntNeighbourhood(space, learnt_vector(wanted, more, less, nothing), options.neighbourhood)


def widened(vectors: Floats, searcher: SpaceSearcher, options: SearchOptions) -> Floats:
    """Vectors (n, dim) that have taken in their nearest: unit(x + sum s^3 x'), all of length 1, s their cosine.

    So one picture says more of what it is a picture of, and less of itself. The nearest are those by the metric of the
    space, so vectors are handed over as they are stored.
    """
    if not len(vectors):
        return vectors
    wanted = replace(options, k=NEIGHBOURS + 1, rerank=True, cutoff=None, neighbourhood=0)
    found = searcher.neighbours(vectors, wanted).ids
    vectors = normalised(vectors)
    wide = np.empty_like(vectors)
    for place, (vector, ids) in enumerate(zip(vectors, found, strict=True)):
        near = normalised(searcher.space.rows(ids[ids >= 0]))
        likeness = near @ vector
        others = likeness < SAME  # the picture itself is no neighbour of its own
        likeness, near = likeness[others][:NEIGHBOURS], near[others][:NEIGHBOURS]
        wide[place] = vector + np.maximum(likeness, 0) ** POWER @ near
    return normalised(wide)


def cosines(vector: Floats, searcher: SpaceSearcher) -> Floats:
    """Cosine of a vector of length 1 with each stored one, float32 (n,), row = id; 0 where there is no picture."""
    space = searcher.space
    scores = np.zeros(len(space.vectors), np.float32)
    for start in range(0, space.ids.size, ADD_BLOCK):
        block = space.ids[start : start + ADD_BLOCK]
        scores[block] = normalised(space.rows(block)) @ vector
    return scores


def _rows(searcher: SpaceSearcher, ids: Sequence[int]) -> Floats:
    return searcher.space.rows(np.array(ids, np.int64))
