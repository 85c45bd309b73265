"""An order of hits in which it counts what kind of thing they are of, and not only how alike they look.

The first `CANDIDATES` by plain similarity are ordered by (1 - w) plain + w neighbourhood; the rest stays behind them
in plain order. The neighbourhood similarity is the cosine of a picture's vector e of `neighbourhood` and of the query,
which takes in its own ten nearest among these: f = unit(a + sum_j s_j^3 e_j), a being the query on the same components
(query expansion: Chum et al. 2007, "Total recall"; weights: Radenovic, Tolias and Chum 2018). The ten are those of the
whole collection, whatever a filter lets through, so a filter changes no score.

Where one picture stands out, the query is most likely of that very picture, and what others are like says little: the
first by plain similarity is given (1 - w) `LEAD_WEIGHT` times its lead, by which it is farther ahead of the second than
the next four are from each other on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ivfpq.distances import normalised
from search.neighbourhood import NEIGHBOURS, POWER, project

CANDIDATES = 1_000
BEHIND = 3.0
"""What is taken from the plain similarity, at most 1, of those behind the first, whose score is -1 or more."""
RIVALS = 6
"""Pictures, the first by plain similarity, whose similarities say how far the first of them is ahead."""
RIVALS_AT_MOST = 100
"""Among which these six are, where similarities become better known after an index has guessed them."""
LEAD_WEIGHT = 4.0

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

    def without(self, id: int) -> Ranked:
        """All but one."""
        others = self.ids != id
        return Ranked(self.ids[others], self.similarities[others], self.scores[others])

    def among(self, ids: Ids) -> Ranked:
        """Those that are among some."""
        there = np.isin(self.ids, ids)
        return Ranked(self.ids[there], self.similarities[there], self.scores[there])


class Lead(NamedTuple):
    """How far the first by plain similarity stands out.

    Attributes
    ----------
    id : int
        The first; -1 for none.
    by : float
        How much farther it is ahead of the second than the next four are from each other on average, at least 0.
    """

    id: int
    by: float


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
    rivals : int64 (at most 100,)
        The first by plain similarity, the query itself left out, whatever a filter lets through.
    lead : Lead
        Of the first of them.
    """

    vector: Floats
    ids: Ids
    weights: Floats
    rivals: Ids
    lead: Lead


class Neighbourhoods(Protocol):
    """Where neighbourhoods are read from: a `Space`."""

    @property
    def beside(self) -> Mapping[str, NDArray[Any]]: ...

    @property
    def ids(self) -> Ids: ...

    def rows(self, ids: Ids) -> Floats: ...


class NeighbourOrder:
    """Orders what queries find in a collection that has the space `neighbourhood`. Safe to use from many threads."""

    def __init__(self, space: Neighbourhoods) -> None:
        self.space = space
        self._components = np.array(space.beside["components"])

    def first(
        self, query: Floats, found: Ranked, weight: float, *, around: Ranked | None = None, own_id: int | None = None
    ) -> tuple[Ranked, Expansion]:
        """What was found in plain order, reordered, and how the query took in its neighbours for that.

        Parameters
        ----------
        query : float32 (dim,)
        found : Ranked
        weight : float
            Of the neighbourhood similarity, from 0 to 1.
        around : Ranked, optional
            Among which pictures the neighbours of the query are; by default the first of those that were found.
        own_id : int, optional
            Of the picture of the collection that the query is: no neighbour of its own.
        """
        vectors = self.space.rows(found.ids[:CANDIDATES])
        if around is None:
            expansion = self._expanded(query, found.first(CANDIDATES), vectors, own_id)
        else:
            expansion = self._expanded(query, around, self.space.rows(around.ids), own_id)
        return _ordered(found, _products(vectors, expansion.vector), weight, expansion.lead), expansion

    def again(self, expansion: Expansion, found: Ranked, weight: float, rivals: Ranked) -> Ranked:
        """Pictures, with similarities that are better known by now, reordered; `rivals` are those of the expansion."""
        near = self.similarities(expansion, found.ids[:CANDIDATES])
        return _ordered(found, near, weight, lead_of(rivals))

    def similarities(self, expansion: Expansion, ids: Ids) -> Floats:
        """Neighbourhood similarity of pictures to a query, (n,)."""
        return self.nearness(ids, expansion.vector)

    def nearness(self, ids: Ids, vector: Floats) -> Floats:
        """Cosine of pictures' vectors of `neighbourhood` and another, unit float32 (p,): (n,)."""
        return _products(self.space.rows(ids), vector)

    def on_components(self, queries: Floats) -> Floats:
        """Queries (n, dim), not yet with their neighbours, on the components: unit float32 (n, p)."""
        return project(queries, self._components)

    def _expanded(self, query: Floats, around: Ranked, vectors: Floats, own_id: int | None) -> Expansion:
        mean, axes = self._components[0], self._components[1:]
        own = normalised(_products(axes, normalised(query[None])[0] - mean)[None])[0]
        near = _products(vectors, own)
        if own_id is not None:
            near[around.ids == own_id] = -np.inf
        first = np.argpartition(-near, NEIGHBOURS)[:NEIGHBOURS] if near.size > NEIGHBOURS else np.arange(near.size)
        first = first[np.isfinite(near[first])]
        first = first[np.lexsort((around.ids[first], -near[first]))]
        weights = np.maximum(near[first], 0) ** POWER
        taken_in = own + np.einsum("i,ij->j", weights, vectors[first])
        others = around if own_id is None else around.without(own_id)
        rivals = others.first(RIVALS_AT_MOST)
        return Expansion(normalised(taken_in[None])[0], around.ids[first], weights, rivals.ids, lead_of(rivals))


def lead_of(rivals: Ranked) -> Lead:
    """How far the first of some pictures, by plain similarity, stands out among them."""
    if len(rivals.ids) < 2:
        return Lead(-1, 0.0)
    first, second, *others = rivals.similarities[:RIVALS].tolist()
    apart = (second - others[-1]) / len(others) if others else 0.0
    return Lead(int(rivals.ids[0]), max(0.0, first - second - apart))


def _ordered(found: Ranked, near: Floats, weight: float, lead: Lead) -> Ranked:
    """The first of what was found by the sum of both similarities, of equal ones the smaller id, and the rest."""
    ids, plain = found.ids[:CANDIDATES], found.similarities[:CANDIDATES]
    scores = ((1 - weight) * plain + weight * near).astype(np.float32)
    scores[ids == lead.id] += np.float32((1 - weight) * LEAD_WEIGHT * lead.by)
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
