"""One space of a collection with its indexes, ready to be searched by vectors."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexFlat, SearchResult
from ivfpq.distances import normalised
from search.backends import backend_names, get_backend
from search.backends.base import SearchableIndex
from search.errors import EngineError
from search.fusion import sample_of
from search.neighbour_order import CANDIDATES, Expansion, NeighbourOrder, Ranked
from search.options import SearchOptions
from search.space import ADD_BLOCK, VISUAL, Candidates, Space
from search.strength import StrengthOfHits

RERANK_FACTOR = 10  # candidates ranked again for each result wanted


class Found(NamedTuple):
    """What a search found first; `expansion` is how the query took in its neighbours, where these count."""

    ranked: Ranked
    expansion: Expansion | None


class SpaceSearcher:
    """Safe to use from many threads.

    Parameters
    ----------
    space : Space
    indexes : mapping of str to index
        By the names of their backends. Those that build none are opened when they are first asked.
    order : NeighbourOrder, optional
        Lets neighbours count, where the space has such.
    """

    def __init__(
        self, space: Space, indexes: Mapping[str, SearchableIndex], order: NeighbourOrder | None = None
    ) -> None:
        self.space = space
        self.order = order
        self.strength: StrengthOfHits | None = None
        self._built = dict(indexes)
        self._opened: dict[str, SearchableIndex] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, space: Space) -> SpaceSearcher:
        """Open the indexes that the manifest lists and whose backends are known here. See `Backend.open`."""
        known = [name for name in backend_names(built=True) if name in space.indexes]
        return cls(space, {name: get_backend(name).open(space, space.indexes[name]) for name in known})

    @property
    def engines(self) -> tuple[str, ...]:
        """What it can be searched with: the built indexes, and the backends that need none."""
        return (*self._built, *backend_names(built=False))

    @property
    def nlist(self) -> int | None:
        """Number of inverted lists, the upper end of nprobe; None where the indexes are flat."""
        return next((nlist for index in self._built.values() if (nlist := getattr(index, "nlist", None))), None)

    @property
    def nprobe(self) -> int:
        """Lists visited when a search does not say how many."""
        return next((nprobe for index in self._built.values() if (nprobe := getattr(index, "nprobe", None))), 1)

    def index(self, engine: str) -> SearchableIndex:
        """The index behind one of `engines`."""
        engine = self.check(engine)
        if engine in self._built:
            return self._built[engine]
        with self._lock:
            if engine not in self._opened:
                self._opened[engine] = get_backend(engine).open(self.space, {})
            return self._opened[engine]

    def check(self, engine: str) -> str:
        """The engine that answers for this one: other spaces than `VISUAL` have an index of their own choice, or none.

        Raises
        ------
        EngineError
            It cannot be searched with this engine.
        """
        if self.space.name != VISUAL and engine not in self._built and engine in backend_names(built=True):
            return self.engines[0]
        if engine not in self.engines:
            raise EngineError(f"unknown engine {engine!r}; {self.space.folder.name} has {', '.join(self.engines)}")
        return engine

    def reranks(self, options: SearchOptions) -> bool:
        """Whether a search with these options ranks candidates again: not where the first ranking is exact."""
        return options.rerank and options.engine != "exact"

    def orders(self, options: SearchOptions) -> bool:
        """Whether neighbours count in the order of what a search with these options finds."""
        return self.order is not None and options.neighbourhood > 0

    def first(
        self,
        vectors: NDArray[np.float32],
        k: int,
        options: SearchOptions,
        ids: NDArray[np.int64] | None = None,
        own_ids: Sequence[int | None] | None = None,
    ) -> list[Found]:
        """The k first of each vector (nq, dim) by the index and, where these count, by neighbours.

        Parameters
        ----------
        ids : int64 array, optional
            Only these.
        own_ids : sequence of int or None, optional
            Of the pictures of the collection that the vectors are, which are no neighbours of their own.
        """
        if self.order is None or not self.orders(options):
            found = self.candidates(vectors, k, options, ids)
            return [Found(Ranked(*row), None) for row in zip(found.ids, found.distances, found.distances, strict=True)]
        found = self.candidates(vectors, max(k, CANDIDATES), options, ids)
        around = None if ids is None else self.candidates(vectors, CANDIDATES, options)
        firsts = []
        for row, (vector, own_id) in enumerate(zip(vectors, own_ids or [None] * len(vectors), strict=True)):
            plain, others = _plain(found, row), None if around is None else _plain(around, row)
            ranked, expansion = self.order.first(vector, plain, options.neighbourhood, around=others, own_id=own_id)
            firsts.append(Found(ranked.first(k), expansion))
        return firsts

    def again(self, vector: NDArray[np.float32], found: Found, k: int, options: SearchOptions) -> Ranked:
        """The k best of what was found by their stored vectors, and by neighbours where these count."""
        if self.order is None or found.expansion is None:
            exact = self.reranked(vector, found.ranked.ids, k)
            return Ranked(exact.ids[0], exact.distances[0], exact.distances[0])
        rivals = found.expansion.rivals
        both = np.union1d(found.ranked.ids, rivals)
        known = _plain(self.reranked(vector, both, max(1, both.size)), 0)
        ranked = known.among(found.ranked.ids)
        return self.order.again(found.expansion, ranked, options.neighbourhood, known.among(rivals)).first(k)

    def candidates(
        self,
        vectors: NDArray[np.float32],
        k: int,
        options: SearchOptions,
        ids: NDArray[np.int64] | None = None,
    ) -> SearchResult:
        """The k nearest of each vector (nq, dim) by the index, among `ids` if they are given."""
        index = self.index(options.engine)
        nprobe, nlist = options.nprobe, getattr(index, "nlist", None)
        nprobe = min(int(nprobe), nlist) if nprobe is not None and nlist else None
        return index.search(vectors, min(int(k), self.space.ids.size), nprobe=nprobe, ids=ids)

    def reranked(self, vector: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> SearchResult:
        """The k best of `ids` (-1 for none) by their stored vectors, read from the file: one row."""
        index = IndexFlat(len(vector), metric=self.space.metric)
        self.space.add_rows(index, np.sort(ids[ids >= 0]))
        return index.search(vector[None], k)

    def comparable(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (n, dim) as they are compared: of length 1 where the metric is cosine."""
        return normalised(vectors) if self.space.metric == "cosine" else vectors

    def scores(self, vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """How near the stored vectors of some pictures are to each of some vectors (p, dim), larger is nearer.

        Returns
        -------
        float32 (p, len(ids))
            Cosines, inner products, or squared distances with the sign changed.
        """
        vectors = self.comparable(vectors)
        blocks = (ids[start : start + ADD_BLOCK] for start in range(0, ids.size, ADD_BLOCK))
        parts = [self._nearness(vectors, self.space.rows(block)) for block in blocks]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(vectors), 0), np.float32)

    def sample_scores(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """`scores` for the pictures of `sample_of`: their vectors are read once and kept."""
        return self._nearness(self.comparable(vectors), self._sample)

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        return self.space.rows(sample_of(self.space.ids))

    def _nearness(self, vectors: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.space.metric == "l2":
            return np.stack([-np.square(rows - vector).sum(axis=1) for vector in vectors])
        # Not by BLAS: for so few rows its threads wait for each other longer than they work where others work, too.
        nearness = np.stack([np.einsum("ij,j->i", rows, vector) for vector in vectors])
        if self.space.metric == "cosine":
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            nearness /= np.where(lengths == 0, 1, lengths)
        return nearness

    def nearest(self, vector: NDArray[np.float32], k: int, ids: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Ids (at most k,) of the nearest to one vector (dim,), among `ids` if they are given, by the first engine."""
        options = SearchOptions(self.engines[0], k, self.nlist)
        found = self.candidates(vector[None], k, options, ids).ids[0]
        return found[found >= 0]

    def neighbours(
        self, vectors: NDArray[np.float32], options: SearchOptions, own_ids: Sequence[int | None] | None = None
    ) -> SearchResult:
        """The k best of each vector (nq, dim), with these options; see `first`. Distances are what orders them."""
        rerank = self.reranks(options)
        found = self.first(vectors, RERANK_FACTOR * options.k if rerank else options.k, options, None, own_ids)
        ranked = [each.ranked for each in found]
        if rerank:
            ranked = [self.again(*each, options.k, options) for each in zip(vectors, found, strict=True)]
        shape = (len(vectors), min(options.k, self.space.ids.size))
        result = SearchResult(np.full(shape, -np.inf, np.float32), np.full(shape, -1))
        for row, each in enumerate(ranked):
            count = min(len(each.ids), shape[1])
            result.distances[row, :count], result.ids[row, :count] = each.scores[:count], each.ids[:count]
        return result


def candidates_of(space: Space) -> Candidates:
    """What gives the nearest of stored pictures by the first index of a space, opened when it is first asked."""
    opened: list[SpaceSearcher] = []

    def candidates(ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        if not opened:
            opened.append(SpaceSearcher.open(space))
        (searcher,) = opened
        options = SearchOptions(searcher.engines[0], k, None if searcher.nlist is None else 2 * searcher.nprobe)
        return searcher.candidates(space.rows(ids), k, options).ids

    return candidates


def _plain(found: SearchResult, row: int) -> Ranked:
    """What was found for one vector, ordered by nothing but similarity."""
    there = found.ids[row] >= 0
    ids, similarities = found.ids[row][there], found.distances[row][there]
    return Ranked(ids, similarities, similarities)
