"""What kind of thing a picture is of: stored vectors that have taken in those of their nearest pictures.

    e = unit(b + sum_j s_j^3 b_j)      b_j: the ten nearest pictures, s_j: their cosine to b

(database-side feature augmentation: Arandjelovic and Zisserman 2012, "Three things everyone should know to improve
object retrieval"; powers of the similarity as weights: Radenovic, Tolias and Chum 2018, "Fine-tuning CNN image
retrieval with no human annotation"). b is the stored vector, of length 1, less the mean, on the first 256 principal
components, of length 1 again: better than all dimensions, and an eighth to read. No label is read. How a search uses
it is said in `neighbour_order`; what was measured, in docs/PICTURES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from ivfpq.distances import normalised
from search.space import Candidates, Made, More, Space, SpaceKind

NEIGHBOURHOOD = "neighbourhood"
NEIGHBOURS = 10
POWER = 3
COMPONENTS = 256

COMPARED_AT_MOST = 20_000
"""Pictures of a collection that are all compared for the nearest; of more, the candidates of its index are."""
SHORTLIST = 32
"""Nearest of a picture by fast arithmetic, of which the ten are chosen by arithmetic that never varies."""
CANDIDATES = 100
"""Of each picture by the index of a larger collection."""

LOOKED_BACK = 1_000
"""Nearest of a new picture by that index, any of which may have it among its ten nearest now."""

_FEW = 64  # new pictures that are compared with so many at a time
_SAMPLE = 20_000  # rows that principal components are of
_BLOCK = 512
_ROUNDING = 1e-4  # more than fast and slow arithmetic can differ by

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Ids = NDArray[np.int64]


class Points(Protocol):
    """Where pictures lie, by id."""

    def __getitem__(self, ids: NDArray[np.integer[Any]], /) -> Halves: ...


class StoredVectors(Protocol):
    """What neighbourhoods are made of: a `FeatureStore`."""

    @property
    def features(self) -> NDArray[Any]: ...

    @property
    def ids(self) -> Ids: ...


class NeighbourhoodSpace(SpaceKind):
    """Beside its vectors it keeps each picture's ten nearest, their cosines, and the principal components.

    A sync keeps the components and looks again only at pictures that changed, that had a changed or removed one among
    their ten nearest, or have one now. Of a collection of up to `COMPARED_AT_MOST` pictures the result is, to the bit,
    what a full build with the same components gives (where more than `SHORTLIST` pictures are equal, any of them may
    be the ten). Of a larger one a picture that is looked at again is as in a full build over the same index, and the
    others keep the neighbours that they had. If more than half has changed, all is made anew.
    """

    name = NEIGHBOURHOOD
    accepts = ()
    by_picture: ClassVar[Mapping[str, float]] = {"neighbours": -1, "similarities": -np.inf}
    is_default = True

    def make(self, store: FeatureStore) -> NDArray[Any]:
        return self.make_from(store, None, None).vectors

    def make_from(self, store: FeatureStore, before: Space | None, candidates: Candidates | None) -> Made:
        if store.ids.size <= COMPARED_AT_MOST:
            candidates = None
        earlier = None if before is None else self._usable(before)
        changed, gone = store.changes_since(0 if before is None else before.generation)
        if earlier is None or changed.size + gone.size > store.ids.size / 2:
            return build_neighbourhood(store, fit_components(store), candidates)
        return _renewed(store, earlier, changed, gone, candidates)

    def make_more(self, before: Space, ids: Ids, candidates: Candidates | None) -> More | None:
        earlier, store = self._usable(before), before.store
        if earlier is None or candidates is None or store.ids.size <= COMPARED_AT_MOST or ids.size > store.ids.size / 2:
            return None
        return _come(store, earlier, ids, candidates)

    def _usable(self, before: Space) -> Made | None:
        """What there was, where a sync can go on from it."""
        listed = (len(before.vectors), NEIGHBOURS)
        shapes = {
            "neighbours": listed,
            "similarities": listed,
            "components": (1 + before.dim, before.store.features.shape[1]),
        }
        fits = before.maker == self.maker() and {n: a.shape for n, a in before.beside.items()} == shapes
        return Made(before.vectors, before.beside) if fits else None

    def why_not(self, store: FeatureStore) -> str | None:
        if store.metric != "cosine":
            return f"its vectors are compared by {store.metric}, and neighbours are weighted by their cosine"
        return None

    def maker(self) -> dict[str, Any]:
        return {"neighbours": NEIGHBOURS, "power": POWER, "components": COMPONENTS}


def fit_components(store: StoredVectors) -> Floats:
    """Mean and principal components of the stored vectors, each of length 1.

    Returns
    -------
    float32 (1 + p, dim)
        The mean first; p is `COMPONENTS`, or fewer where the pictures do not differ in so many.
    """
    from scipy.linalg import eigh  # a search does not wait for it

    ids, dim = store.ids, store.features.shape[1]
    if ids.size > _SAMPLE:
        ids = np.sort(np.random.default_rng(0).choice(ids, _SAMPLE, replace=False))
    rows = np.empty((ids.size, dim), np.float32)
    for start in range(0, ids.size, _BLOCK):
        rows[start : start + _BLOCK] = normalised(np.asarray(store.features[ids[start : start + _BLOCK]], np.float32))
    mean = rows.mean(axis=0, dtype=np.float64)
    rows -= mean.astype(np.float32)
    is_wide = ids.size < dim
    products = (rows @ rows.T if is_wide else rows.T @ rows).astype(np.float64)
    count = min(COMPONENTS, len(products))
    values, vectors = eigh(products, subset_by_index=[len(products) - count, len(products) - 1])
    kept = values > 1e-6 * max(values[-1], 1e-6)
    kept[-1] = True  # of equal pictures there is none, and yet a vector has at least one number
    vectors = vectors[:, kept][:, ::-1]
    found = normalised((rows.T @ vectors if is_wide else vectors).T.astype(np.float32))
    return np.vstack([mean.astype(np.float32), found])


def project(vectors: NDArray[np.floating[Any]], components: Floats) -> Floats:
    """Vectors (n, dim) on the components, unit float32 (n, p)."""
    centred = normalised(np.asarray(vectors, np.float32)) - components[0]
    return normalised(centred @ components[1:].T)


def build_neighbourhood(store: StoredVectors, components: Floats, candidates: Candidates | None = None) -> Made:
    """The vectors of all pictures, made anew.

    Parameters
    ----------
    components : float32 (1 + p, dim)
        See `fit_components`.
    candidates : callable, optional
        Gives the ids among which the nearest are looked for; by default all are compared.
    """
    shape = (len(store.features), NEIGHBOURS)
    points = _points(store, components)
    made = Made(
        np.zeros_like(points),
        {
            "neighbours": np.full(shape, -1, np.int32),
            "similarities": np.full(shape, -np.inf, np.float32),
            "components": components,
        },
    )
    _look_again(made, points, store, store.ids, candidates)
    return made


def _renewed(store: StoredVectors, earlier: Made, changed: Ids, gone: Ids, candidates: Candidates | None) -> Made:
    """The vectors as they are after some pictures have changed."""
    components = np.array(earlier.beside["components"])
    points = _points(store, components)
    n, old = len(points), len(earlier.vectors)
    made = Made(
        np.zeros_like(points),
        {
            "neighbours": np.full((n, NEIGHBOURS), -1, np.int32),
            "similarities": np.full((n, NEIGHBOURS), -np.inf, np.float32),
            "components": components,
        },
    )
    made.vectors[:old] = np.asarray(earlier.vectors)
    for name in ("neighbours", "similarities"):
        made.beside[name][:old] = np.asarray(earlier.beside[name])
        made.beside[name][gone] = -1 if name == "neighbours" else -np.inf
    made.vectors[gone] = 0
    is_stale = np.zeros(n, bool)
    is_stale[changed] = True
    moved = np.concatenate([changed, gone])
    for start in range(0, n, _BLOCK):
        is_stale[start : start + _BLOCK] |= np.isin(made.beside["neighbours"][start : start + _BLOCK], moved).any(
            axis=1
        )
    farthest = made.beside["similarities"][:, -1]
    for start in range(0, changed.size, _BLOCK):
        new = points[changed[start : start + _BLOCK]].astype(np.float32)
        others = store.ids[~is_stale[store.ids]]
        for begin in range(0, others.size, _BLOCK):
            block = others[begin : begin + _BLOCK]
            nearest = (points[block].astype(np.float32) @ new.T).max(axis=1)
            is_stale[block] = nearest >= farthest[block] - _ROUNDING
    _look_again(made, points, store, store.ids[is_stale[store.ids]], candidates)
    return made


def _points(store: StoredVectors, components: Floats) -> Halves:
    """Where all pictures lie before they take in others, float16 (n, p), row = id; zero where there is none.

    Blocks begin at the same ids and are of the same size however many pictures there are: matrices of other shapes are
    multiplied in another order, and so rounded otherwise.
    """
    count = len(store.features)
    points = np.zeros((count, len(components) - 1), np.float16)
    is_usable = np.zeros(count, bool)
    is_usable[store.ids] = True
    for start in range(0, count, _BLOCK):
        block = np.zeros((_BLOCK, store.features.shape[1]), np.float32)
        some = store.features[start : start + _BLOCK]
        block[: len(some)] = some
        points[start : start + _BLOCK] = project(block, components)[: len(some)]
    points[~is_usable] = 0
    return points


def _look_again(made: Made, points: Halves, store: StoredVectors, rows: Ids, candidates: Candidates | None) -> None:
    """Find the neighbours of some pictures and let them take these in."""
    everything = points[store.ids].astype(np.float32) if candidates is None and rows.size else None
    for start in range(0, rows.size, _BLOCK):
        block = rows[start : start + _BLOCK]
        own = points[block].astype(np.float32)
        if everything is None:
            assert candidates is not None
            shortlist = candidates(block, CANDIDATES + 1)
        else:
            shortlist = _best_columns(own @ everything.T, SHORTLIST + 1)
            shortlist = np.take(store.ids, shortlist)
        neighbours, similarities = _ten_nearest(points, block, own, shortlist)
        made.beside["neighbours"][block], made.beside["similarities"][block] = neighbours, similarities
        made.vectors[block] = _taken_in(own, neighbours, similarities, points)


def _taken_in(own: Floats, neighbours: NDArray[np.int32], similarities: Floats, points: Points) -> Floats:
    """The vectors (n, p) of pictures that lie at `own` and have these neighbours."""
    taken_in = own
    for column in range(NEIGHBOURS):  # one after the other, so that no order of summing can change a bit
        weight = np.maximum(similarities[:, column, None], 0) ** POWER
        taken_in = taken_in + weight * points[neighbours[:, column]].astype(np.float32)
    return normalised(taken_in)


class _PointsOfSome:
    """Where some pictures lie, as `_points` tells of all; where -1 lies means nothing."""

    def __init__(self, store: StoredVectors, components: Floats) -> None:
        self._store, self._components = store, components
        self.dim = len(components) - 1
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, self.dim), np.float16)

    def add(self, ids: Ids) -> None:
        new = np.setdiff1d(ids[ids >= 0], self._ids)
        rows = np.empty((new.size, self.dim), np.float16)
        for start in range(0, new.size, _BLOCK):
            some = self._store.features[new[start : start + _BLOCK]]
            block = np.zeros((_BLOCK, some.shape[1]), np.float32)  # of one size, as those of `_points`
            block[: len(some)] = some
            rows[start : start + _BLOCK] = project(block, self._components)[: len(some)]
        order = np.argsort(known := np.concatenate([self._ids, new]))
        self._ids, self._rows = known[order], np.concatenate([self._rows, rows])[order]

    def __getitem__(self, ids: NDArray[np.integer[Any]]) -> Halves:
        return self._rows[np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)]


def _come(store: StoredVectors, earlier: Made, ids: Ids, candidates: Candidates) -> More:
    """Pictures that have come, and those that have one of them among their ten nearest now.

    Which these may be the index says: each new picture is compared with the `LOOKED_BACK` nearest to it.
    """
    points = _PointsOfSome(store, np.array(earlier.beside["components"]))
    if not ids.size:  # nothing of what came can be read
        none = {name: earlier.beside[name][:0] for name in ("neighbours", "similarities")}
        return More(ids, np.empty((0, points.dim), np.float16), none)
    lists, found = [], []
    for start in range(0, ids.size, _FEW):
        block = ids[start : start + _FEW]
        listed = candidates(block, LOOKED_BACK + 1)
        points.add(np.union1d(block, listed))
        own = points[block].astype(np.float32)
        lists.append(_ten_nearest(points, block, own, listed))
        near = np.einsum("nd,nmd->nm", own, points[listed].astype(np.float32))
        is_other = (listed >= 0) & (listed < len(earlier.vectors))
        farthest = np.full(listed.shape, np.inf, np.float32)
        farthest[is_other] = earlier.beside["similarities"][listed[is_other], -1]
        row, column = np.nonzero(near > farthest)
        found.append((listed[row, column], block[row], near[row, column]))
    others, shortlists = _newly_near(earlier, *map(np.concatenate, zip(*found, strict=True)))
    points.add(np.union1d(others, shortlists))
    for start in range(0, others.size, _BLOCK):
        block = others[start : start + _BLOCK]
        own = points[block].astype(np.float32)
        lists.append(_ten_nearest(points, block, own, shortlists[start : start + _BLOCK]))
    neighbours, similarities = (np.concatenate(parts) for parts in zip(*lists, strict=True))
    both = np.concatenate([ids, others])
    vectors = np.empty((both.size, points.dim), np.float16)
    for start in range(0, both.size, _BLOCK):
        rows = slice(start, start + _BLOCK)
        vectors[rows] = _taken_in(points[both[rows]].astype(np.float32), neighbours[rows], similarities[rows], points)
    return More(both, vectors, {"neighbours": neighbours, "similarities": similarities})


def _newly_near(earlier: Made, others: Ids, news: Ids, alike: Floats) -> tuple[Ids, Ids]:
    """Pictures (s,) that are nearer to new ones than to one of their ten, and (s, 20) among which their ten are now.

    Parameters
    ----------
    others, news, alike : arrays (p,)
        A picture, a new one that is near it, and their cosine.
    """
    order = np.lexsort((news, -alike, others))
    others, news = others[order], news[order]
    rank = np.arange(others.size) - np.searchsorted(others, others)
    others, news, rank = (each[rank < NEIGHBOURS] for each in (others, news, rank))
    changed = np.unique(others)
    shortlists = np.full((changed.size, 2 * NEIGHBOURS), -1, np.int64)
    shortlists[:, :NEIGHBOURS] = earlier.beside["neighbours"][changed]
    shortlists[np.searchsorted(changed, others), NEIGHBOURS + rank] = news
    return changed, shortlists


def _best_columns(scores: Floats, k: int) -> Ids:
    """Of each row the columns of the k largest, in any order."""
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    best: Ids = np.argpartition(scores, -k, axis=1)[:, -k:]
    return best


def _ten_nearest(points: Points, rows: Ids, own: Floats, shortlist: Ids) -> tuple[NDArray[np.int32], Floats]:
    """The nearest among a shortlist (n, m) of each picture, best first, of equal ones the smaller id; -1 for none."""
    near = np.einsum("nd,nmd->nm", own, points[shortlist].astype(np.float32))
    near[(shortlist < 0) | (shortlist == rows[:, None])] = -np.inf
    order = np.lexsort((shortlist, -near), axis=1)[:, :NEIGHBOURS]
    neighbours = np.full((len(rows), NEIGHBOURS), -1, np.int32)
    similarities = np.full((len(rows), NEIGHBOURS), -np.inf, np.float32)
    similarities[:, : order.shape[1]] = np.take_along_axis(near, order, axis=1)
    neighbours[:, : order.shape[1]] = np.take_along_axis(shortlist, order, axis=1)
    neighbours[np.isneginf(similarities)] = -1
    return neighbours, similarities
