"""One space of a collection with its indexes, ready to be searched by vectors."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexFlat, SearchResult
from ivfpq.distances import normalised
from search.backends import backend_names, get_backend
from search.backends.base import SearchableIndex
from search.errors import EngineError
from search.fusion import sample_of
from search.options import SearchOptions
from search.space import ADD_BLOCK, Space

RERANK_FACTOR = 10  # candidates ranked again for each result wanted


class SpaceSearcher:
    """Safe to use from many threads.

    Parameters
    ----------
    space : Space
    indexes : mapping of str to index
        By the names of their backends. Those that build none are opened when they are first asked.
    """

    def __init__(self, space: Space, indexes: Mapping[str, SearchableIndex]) -> None:
        self.space = space
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
        self.check(engine)
        if engine in self._built:
            return self._built[engine]
        with self._lock:
            if engine not in self._opened:
                self._opened[engine] = get_backend(engine).open(self.space, {})
            return self._opened[engine]

    def check(self, engine: str) -> None:
        """Raise EngineError unless it can be searched with this engine."""
        if engine not in self.engines:
            raise EngineError(f"unknown engine {engine!r}; {self.space.folder.name} has {', '.join(self.engines)}")

    def reranks(self, options: SearchOptions) -> bool:
        """Whether a search with these options ranks candidates again: not where the first ranking is exact."""
        return options.rerank and options.engine != "exact"

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

    def neighbours(self, vectors: NDArray[np.float32], options: SearchOptions) -> SearchResult:
        """The k nearest of each vector (nq, dim), with these options."""
        if not self.reranks(options):
            return self.candidates(vectors, options.k, options)
        found = self.candidates(vectors, RERANK_FACTOR * options.k, options)
        again = [self.reranked(vector, ids, options.k) for vector, ids in zip(vectors, found.ids, strict=True)]
        return SearchResult(np.concatenate([a.distances for a in again]), np.concatenate([a.ids for a in again]))
