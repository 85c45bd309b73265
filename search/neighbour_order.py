"""An order of hits in which it counts what kind of thing they are of, and not only how alike they look.

The first `CANDIDATES` by plain similarity are ordered by (1 - w) plain + w neighbourhood; the rest stays behind them
in plain order. The neighbourhood similarity is the cosine of a picture's vector e of `neighbourhood` and of the query,
which takes in its own ten nearest among these: f = unit(a + sum_j s_j^3 e_j), a being the query on the same components
(query expansion: Chum et al. 2007, "Total recall"; weights: Radenovic, Tolias and Chum 2018). The ten are those of the
whole collection, whatever a filter lets through, so a filter changes no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ivfpq.distances import normalised
from search.neighbourhood import NEIGHBOURS, POWER

CANDIDATES = 1_000
BEHIND = 3.0
"""What is taken from the plain similarity, at most 1, of those behind the first, whose score is -1 or more."""

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class Ranked(NamedTuple):
    """Pictures, best first.

    Attributes
    ----------
    ids : int64 (n,)
    similarities : float32 (n,)
        Plain ones (or distances).
    scores : float32 (n,)
        What they are ordered by.
    """

    ids: Ids
    similarities: Floats
    scores: Floats

    def first(self, k: int) -> Ranked:
        """The k best."""
        return Ranked(self.ids[:k], self.similarities[:k], self.scores[:k])


class Expansion(NamedTuple):
    """A query that has taken in its neighbours.

    Attributes
    ----------
    vector : float32 (p,)
        Of length 1.
    ids : int64 (at most 10,)
        What it has taken in, nearest first.
    weights : float32 (at most 10,)
        How much of each, beside 1 of the query itself.
    """

    vector: Floats
    ids: Ids
    weights: Floats


class Neighbourhoods(Protocol):
    """Where neighbourhoods are read from: a `Space`."""

    @property
    def beside(self) -> Mapping[str, NDArray[Any]]: ...

    def rows(self, ids: Ids) -> Floats: ...


class NeighbourOrder:
    """Orders what queries find in a collection that has the space `neighbourhood`. Safe to use from many threads."""

    def __init__(self, space: Neighbourhoods) -> None:
        self.space = space
        self._components = np.array(space.beside["components"])

    def first(
        self, query: Floats, found: Ranked, weight: float, *, around: Ids | None = None, own_id: int | None = None
    ) -> tuple[Ranked, Expansion]:
        """What was found in plain order, reordered, and how the query took in its neighbours for that.

        Parameters
        ----------
        query : float32 (dim,)
        found : Ranked
        weight : float
            Of the neighbourhood similarity, from 0 to 1.
        around : int64 array, optional
            Among which pictures the neighbours of the query are; by default the first of those that were found.
        own_id : int, optional
            Of the picture of the collection that the query is: no neighbour of its own.
        """
        vectors = self.space.rows(found.ids[:CANDIDATES])
        if around is None:
            expansion = self._expanded(query, found.ids[:CANDIDATES], vectors, own_id)
        else:
            expansion = self._expanded(query, around, self.space.rows(around), own_id)
        return _ordered(found, _products(vectors, expansion.vector), weight), expansion

    def again(self, expansion: Expansion, found: Ranked, weight: float) -> Ranked:
        """Pictures, with similarities that are better known by now, reordered."""
        return _ordered(found, self.similarities(expansion, found.ids[:CANDIDATES]), weight)

    def similarities(self, expansion: Expansion, ids: Ids) -> Floats:
        """Neighbourhood similarity of pictures to a query, (n,)."""
        return _products(self.space.rows(ids), expansion.vector)

    def _expanded(self, query: Floats, around: Ids, vectors: Floats, own_id: int | None) -> Expansion:
        mean, axes = self._components[0], self._components[1:]
        own = normalised(_products(axes, normalised(query[None])[0] - mean)[None])[0]
        near = _products(vectors, own)
        if own_id is not None:
            near[around == own_id] = -np.inf
        first = np.argpartition(-near, NEIGHBOURS)[:NEIGHBOURS] if near.size > NEIGHBOURS else np.arange(near.size)
        first = first[np.isfinite(near[first])]
        first = first[np.lexsort((around[first], -near[first]))]
        weights = np.maximum(near[first], 0) ** POWER
        taken_in = own + np.einsum("i,ij->j", weights, vectors[first])
        return Expansion(normalised(taken_in[None])[0], around[first], weights)


def _ordered(found: Ranked, near: Floats, weight: float) -> Ranked:
    """The first of what was found by the sum of both similarities, of equal ones the smaller id, and the rest."""
    ids, plain = found.ids[:CANDIDATES], found.similarities[:CANDIDATES]
    scores = ((1 - weight) * plain + weight * near).astype(np.float32)
    order = np.lexsort((ids, -scores))
    behind = found.similarities[CANDIDATES:]
    return Ranked(
        np.concatenate([ids[order], found.ids[CANDIDATES:]]),
        np.concatenate([plain[order], behind]),
        np.concatenate([scores[order], behind - np.float32(BEHIND)]),
    )


def _products(rows: Floats, vector: Floats) -> Floats:
    # Not by BLAS: for so few rows its threads wait for each other longer than they work where others work, too.
    products: Floats = np.einsum("ij,j->i", rows, vector)
    return products
