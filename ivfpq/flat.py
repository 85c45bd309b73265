"""IndexFlat: exact search over the vectors themselves, the oracle that the other indexes are measured against."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ivfpq.checks import Floats, Ids, Metric, as_ids, as_metric, as_vectors, positive_int
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.invlists import InvertedLists, Lists
from ivfpq.results import RangeResult, SearchResult, best_k, within
from ivfpq.screening import BLOCK, CandidateFilter, Points, screen, squared_lengths


class IndexFlat:
    """All vectors as they are, in one list; every query is compared with each of them.

    Parameters
    ----------
    d : int
        Dimension.
    metric : {"l2", "ip", "cosine"}
        Squared Euclidean distance, inner product, or cosine similarity (vectors are then stored scaled to length 1).

    Attributes
    ----------
    lists : InvertedLists
        One list whose codes are the vectors.
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`, and so is what concurrent callers may do. `nprobe` is taken and means nothing
    here, so that one caller can search either.
    """

    __slots__ = ("_d", "_lengths", "_metric", "lists", "metadata")

    def __init__(self, d: int, *, metric: Metric = "l2") -> None:
        self._d = positive_int(d, "d")
        self._metric = as_metric(metric)
        self.lists = InvertedLists(1, self._d, np.float32, lanes=1)
        self._lengths: tuple[weakref.ref[Any], Floats] | None = None
        self.metadata: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"IndexFlat(d={self.d}, metric={self.metric!r}; {self.ntotal} vectors)"

    @property
    def d(self) -> int:
        """Dimension."""
        return self._d

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        return self._metric

    @property
    def ntotal(self) -> int:
        """Vectors stored."""
        return self.lists.view.ntotal

    @property
    def is_trained(self) -> bool:
        """Always True."""
        return True

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        return 4 * self.d

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, with its id."""
        return self.lists.view.bytes_per_vector

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors: none."""
        return 0

    def train(self, x: Any) -> None:
        """Check `x` (n, d); there is nothing to learn."""
        as_vectors(x, self.d)

    def add(self, x: Any) -> None:
        """Store vectors (n, d) under the next free ids: 0, 1, ..., or on from the largest id there is."""
        x = as_vectors(x, self.d)
        with self.lists.lock:  # nobody else may take these ids
            first = self.lists.next_id()
            self.add_with_ids(x, np.arange(first, first + len(x)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Store vectors (n, d) under ids (n,), distinct and not yet in the index; a ValueError stores nothing."""
        x = self._vectors(x, "x")
        ids = as_ids(ids, n=len(x))
        self.lists.add(np.zeros(len(x), np.int64), x, ids)

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,) by `x` (n, d). See `IndexIVFPQ.update`."""
        x = self._vectors(x, "x")
        ids = as_ids(ids, n=len(x))
        self.lists.update(np.zeros(len(x), np.int64), x, ids)

    def search(self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None) -> SearchResult:
        """The k nearest vectors of each query (nq, d), among `ids` if given. See `IndexIVFPQ.search`."""
        k = positive_int(k, "k")
        x, lists = self._prepared(xq, nprobe, ids)
        query, row, distance = self._candidates(x, lists, CandidateFilter(len(x), k))
        return best_k(query, distance, lists.ids(row), len(x), k, self.metric)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str) -> Ids:
        """The ids that `search` gives. See `IndexIVFPQ.candidates`."""
        return self.search(x, k, nprobe=nprobe, ids=ids).ids

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors nearer than `radius` (more similar, for ip and cosine). See `IndexIVFPQ.range_search`."""
        x, lists = self._prepared(xq, nprobe, ids)
        radius = float(np.float32(radius))
        kept = CandidateFilter(len(x), None, radius if self.metric == "l2" else -radius)
        query, row, distance = self._candidates(x, lists, kept)
        return within(query, distance, lists.ids(row), len(x), radius, self.metric)

    def reconstruct(self, id: int) -> Floats:
        """The vector stored under `id`, float32 (d,); KeyError if there is none."""
        lists = self.lists.view
        row = self.lists.find(lists, as_ids([id], "id"))
        if row[0] < 0:
            raise KeyError(f"id {id} is not in the index")
        return _vectors_of(lists)[row[0]].copy()

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held."""
        return self.lists.remove(as_ids(ids))

    def merge_from(self, other: IndexFlat) -> None:
        """Add what `other` stores, under the same ids. `other` stays as it is. Errors as `IndexIVFPQ.merge_from`."""
        if not isinstance(other, IndexFlat):
            raise TypeError(f"an IndexFlat can only take in another one, got {type(other).__name__}")
        if (self.d, self.metric) != (other.d, other.metric):
            raise ValueError(f"the two indexes differ: {self} and {other}")
        self.lists.merge(other.lists.view)

    def reset(self) -> None:
        """Forget the stored vectors."""
        self.lists.clear()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        lists = self.lists.settled()
        return {"d": self.d, "metric": self.metric}, {"ids": lists.packed_ids, "vectors": _vectors_of(lists)}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexFlat:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        index = cls(**parameters)
        vectors, ids = arrays["vectors"], arrays["ids"]
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != index.d:
            raise ValueError(f"vectors must be float32 (n, {index.d}), got {vectors.dtype} {vectors.shape}")
        index.lists.publish(index.lists.restored(np.array([len(vectors)]), ids, vectors[:, :, None]))
        return index

    def _prepared(self, xq: Any, nprobe: int | None, ids: Any) -> tuple[Floats, Lists]:
        x = self._vectors(xq, "xq")
        if nprobe is not None:
            positive_int(nprobe, "nprobe")
        lists = self.lists.view
        return x, lists if ids is None else self.lists.only(lists, as_ids(ids))

    def _candidates(self, x: Floats, lists: Lists, kept: CandidateFilter) -> tuple[Ids, Ids, Floats]:
        """What may be in the answer: query numbers, rows of `lists`, and the defined distances."""
        y = _vectors_of(lists)[: lists.ntotal]
        lengths = self._lengths_of(lists, y)
        rows = max(1, 4 * BLOCK // self.d)  # 64 MiB of vectors at a time, and as much of distances
        for first in range(0, len(y), rows):
            block = y[first : first + rows]
            ready = Points(block, None, lengths[first : first + rows])
            queries = max(1, 4 * BLOCK // len(block))
            for start in range(0, len(x), queries):
                part = np.arange(start, min(start + queries, len(x)))
                kept.offer(part, first, *screen(x[part], ready, self.metric))
        query, row = kept.finish()
        return query, row, pair_distances_at(x, query, y, row, self.metric)

    def _lengths_of(self, lists: Lists, y: Floats) -> Floats:
        """Squared lengths of the vectors, kept: to compute them is to read all vectors once more."""
        known = self._lengths
        # The one list only grows at its end, so the array and the number in use say what it holds.
        if known is None or known[0]() is not lists.blocks or len(known[1]) != len(y):
            known = (weakref.ref(lists.blocks), squared_lengths(y))
            if lists is self.lists.view:  # not a part chosen by ids
                self._lengths = known
        return known[1]

    def _vectors(self, x: Any, name: str) -> Floats:
        x = as_vectors(x, self.d, name)
        return normalised(x) if self.metric == "cosine" else x


def _vectors_of(lists: Lists) -> Floats:
    vectors: Floats = lists.blocks[:, :, 0]
    return vectors
