"""Whether the best hits are near at all, or only the least unlike of what there is.

    strength = mean over the five nearest hits of (cosine to the query - OWN * the hit's cosine to its own five nearest)

on the principal components of the space `neighbourhood`, which keeps the ten nearest of every picture. What a hit is to
its own neighbours is taken off, as things lie denser in some places than in others (Breunig et al. 2000, "LOF:
identifying density-based local outliers"). Hits are called weak where a tenth of the collection's own pictures, each
asked of all others, has no stronger ones. No label is read. What was measured: docs/PICTURES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ivfpq.distances import normalised
from search.neighbour_order import Ranked

NEAREST = 5
OWN = 0.5
LEAST_SHARE = 0.1
"""Of the collection's own pictures that are called weak when they are asked."""
ASKED = 10
"""Hits, the first by similarity as an index knows it, among which the nearest are."""
PICTURES_MIN = 50
"""Of a smaller collection nothing is said: a tenth of it is a handful."""

Floats = NDArray[np.float32]


class Strength(NamedTuple):
    """How strong the hits of a query are.

    Attributes
    ----------
    value : float
    weak_below : float
        What a tenth of the collection's own pictures does not reach.
    """

    value: float
    weak_below: float

    @property
    def is_weak(self) -> bool:
        return self.value < self.weak_below


class Neighbours(Protocol):
    """Where the nearest of each picture are known: the space `neighbourhood`."""

    @property
    def beside(self) -> Mapping[str, NDArray[Any]]: ...

    @property
    def ids(self) -> NDArray[np.int64]: ...


class StoredRows(Protocol):
    """Where stored vectors are read from: the space `visual`."""

    def rows(self, ids: NDArray[np.int64]) -> Floats: ...


class StrengthOfHits:
    """Tells how strong the hits of queries in one collection are. Safe to use from many threads."""

    def __init__(self, neighbours: Neighbours, stored: StoredRows) -> None:
        self._neighbours = neighbours
        self._stored = stored

    def of(self, query: Floats, found: Ranked, own_id: int | None = None) -> Strength | None:
        """Of what was found for a query (dim,); None where nothing was, or the collection is too small to tell.

        Parameters
        ----------
        found : Ranked
            In any order; `ASKED` of the largest similarity are looked at.
        own_id : int, optional
            Of the picture of the collection that the query is: no hit.
        """
        others = found.ids[np.argsort(-found.similarities, kind="stable")[: ASKED + 1]]
        others = others[(others >= 0) & (others != (-1 if own_id is None else own_id))][:ASKED]
        if not others.size or np.isnan(self._weak_below):
            return None
        points = self._points(np.concatenate([query[None], self._stored.rows(others)]))
        near = points[1:] @ points[0]
        first = np.argsort(-near, kind="stable")[:NEAREST]
        value = near[first].mean() - OWN * _mean_of_nearest(self._similarities(others[first])).mean()
        return Strength(float(value), self._weak_below)

    @cached_property
    def _weak_below(self) -> float:
        """The strength that a tenth of the pictures does not reach; NaN where there are too few."""
        ids = self._neighbours.ids
        if ids.size < PICTURES_MIN:
            return float("nan")
        own = np.zeros(len(self._neighbours.beside["similarities"]), np.float32)
        own[ids] = _mean_of_nearest(self._similarities(ids))
        nearest = np.asarray(self._neighbours.beside["neighbours"][ids, :NEAREST])
        return float(np.quantile(own[ids] - OWN * own[nearest].mean(axis=1), LEAST_SHARE))

    @cached_property
    def _components(self) -> Floats:
        return np.array(self._neighbours.beside["components"])

    def _points(self, vectors: Floats) -> Floats:
        """As `neighbourhood.project`, and not by BLAS: for so few rows its threads wait longer than they work."""
        mean, axes = self._components[0], self._components[1:]
        return normalised(np.einsum("ij,kj->ik", normalised(vectors) - mean, axes))

    def _similarities(self, ids: NDArray[np.int64]) -> Floats:
        return np.asarray(self._neighbours.beside["similarities"][ids, :NEAREST], np.float32)


def _mean_of_nearest(similarities: Floats) -> Floats:
    mean: Floats = similarities.mean(axis=1)
    return mean
