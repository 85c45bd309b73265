"""IndexFlat: exact search over the vectors themselves, the oracle that the other indexes are measured against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ivfpq.base import StoredIndex
from ivfpq.checks import Floats, Ids, Metric, as_ids, as_metric, check_stored, positive_int
from ivfpq.distances import normalised
from ivfpq.exhaustive import Compared, Known
from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import Lists
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult, best_k, within


class IndexFlat(StoredIndex):
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

    __slots__ = ("_d", "_known", "_lists", "_metric")

    def __init__(self, d: int, *, metric: Metric = "l2") -> None:
        self._d = positive_int(d, "d")
        self._metric = as_metric(metric)
        self._lists = InvertedLists(1, self._d, np.float32, lanes=1, marks_removed=True)
        self._known: Known | None = None
        self.metadata: dict[str, Any] = {}
        self._begin_settings()

    def __repr__(self) -> str:
        return f"IndexFlat(d={self.d}, metric={self.metric!r}; {self.ntotal} vectors)"

    @property
    def lists(self) -> InvertedLists:
        """One list whose codes are the vectors."""
        return self._lists

    @property
    def d(self) -> int:
        """Dimension."""
        return self._d

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        return self._metric

    @property
    def is_trained(self) -> bool:
        """Always True."""
        return True

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        return 4 * self.d

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors: none."""
        return 0

    def learned(self, x: Floats) -> list[Change]:
        """Nothing: there is nothing to learn."""
        return []

    def encode(self, x: Floats) -> tuple[Ids, Floats]:
        """The vectors themselves, in the one list. See `StoredIndex.encode`."""
        return np.zeros(len(x), np.int64), normalised(x) if self.metric == "cosine" else x

    def search_parts(self, x: Floats, k: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> SearchResult:
        """See `StoredIndex.search_parts`."""
        lists = self._prepared(nprobe, ids, parts)
        query, row, distance = self._compared(lists).candidates(x, k)
        return best_k(query, distance, lists.ids(row), len(x), k, self.metric)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str, parts: tuple[Any, ...]) -> Ids:
        """The ids that `search` gives. See `StoredIndex.candidates`."""
        x = normalised(x) if self.metric == "cosine" else x
        return self.search_parts(x, k, nprobe, ids, parts).ids

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors nearer than `radius` (more similar, for ip and cosine). See `StoredIndex.range_search`."""
        x = self._vectors(xq, "xq")
        lists = self._prepared(nprobe, ids, self.lists.published.parts)
        radius = float(np.float32(radius))
        query, row, distance = self._compared(lists).candidates(x, None, radius if self.metric == "l2" else -radius)
        return within(query, distance, lists.ids(row), len(x), radius, self.metric)

    def reachable(self, x: Floats, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Iterator[Ids]:
        """All ids. See `StoredIndex.reachable`."""
        lists = self._prepared(nprobe, ids, parts)
        found = lists.ids(lists.rows())
        return (found for _ in x)

    def reconstruct(self, id: int) -> Floats:
        """The vector stored under `id`, float32 (d,); KeyError if there is none."""
        lists = self.lists.view
        row = self.lists.find(lists, as_ids([id], "id"))
        if row[0] < 0:
            raise KeyError(f"id {id} is not in the index")
        return lists.blocks[row[0], :, 0].copy()

    def _merged(self, other: IndexFlat, parts: tuple[Any, ...]) -> list[Change]:
        self._check_same(other, "d", "metric")
        return [self.lists.merged(parts[other.lists.part].lists)]

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        lists = self.lists.settled()
        arrays = {"ids": lists.packed_ids, "vectors": lists.blocks[:, :, 0]}
        if lists.sizes[1:].any():
            arrays["sizes"] = lists.sizes
        return {"d": self.d, "metric": self.metric}, arrays

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexFlat:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        index = cls(**parameters)
        vectors, ids = arrays["vectors"], arrays["ids"]
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != index.d:
            raise ValueError(f"vectors must be float32 (n, {index.d}), got {vectors.dtype} {vectors.shape}")
        sizes = arrays.get("sizes", np.array([len(vectors)]))
        lists = index.lists.restored(sizes, ids, vectors[:, :, None])
        check_stored(vectors, index.metric == "cosine")
        index.lists.publish(lists)
        return index

    def _prepared(self, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Lists:
        """What a search goes through."""
        if nprobe is not None:
            positive_int(nprobe, "nprobe")
        lists: Lists = parts[self.lists.part].lists.leading(1)
        return lists if ids is None else self.lists.only(lists, as_ids(ids))

    def _compared(self, lists: Lists) -> Compared:
        """The vectors of `lists`, to compare queries with."""
        known = self._known
        if known is None or not known.fits(lists):
            known = Known(lists, self.metric, known)
            if lists.blocks is self.lists.view.blocks:  # not a part chosen by ids
                self._known = known
        return Compared(lists, self.metric, known)
