"""IndexRefine: the best candidates of another index, ranked again by the vectors themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ivfpq import kernels
from ivfpq.base import StoredIndex
from ivfpq.checks import Floats, Ids, Metric, as_ids, as_vectors, check_stored, positive_int
from ivfpq.distances import SMALL_BLOCK, comparable, normalised, pair_distances
from ivfpq.flat import IndexFlat
from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import Lists
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult, best_k, within
from ivfpq.screening import BLOCK, CandidateFilter, Points, screen
from ivfpq.tuning import Reading

K_FACTOR = 10
STRANGE = "the base was changed behind the back of its IndexRefine"


class IndexRefine(StoredIndex):
    """Search the base index for k * k_factor candidates and give the k best of them by their exact distance.

    Distances are those of `IndexFlat`: with so many candidates that nothing is left out, so are the answers.

    Parameters
    ----------
    base : an empty index of another kind than this
        It belongs to this index from now on: whoever changes it otherwise makes the two disagree.
    dtype : {"float32", "float16"}
        How the vectors are stored: 4 or 2 bytes a number. Distances are to the stored, so rounded, vector.
    k_factor : int
        Candidates for each neighbour wanted, unless a search is told otherwise.

    Attributes
    ----------
    base : the index that finds candidates
    store : InvertedLists
        One list whose codes are the vectors; after `load(..., mmap=True)` they stay in the file.
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`. Base and vectors are published together: see `Published`. Candidates are what
    the base finds, or nearly so with principal components in SQ8: see `integer_transform`.

    The first search of float32 vectors in memory makes an 8-bit sketch of each, a quarter of their memory: see
    `kernels.rerank`. Vectors that stay in a file have none.
    """

    __slots__ = ("_compiled", "_dtype", "_k_factor", "base", "store")
    layer = 2

    def __init__(
        self, base: Any, *, dtype: Literal["float32", "float16"] = "float32", k_factor: int = K_FACTOR
    ) -> None:
        self.check_inside(base, "base")
        if base.ntotal:
            raise ValueError(f"base must be empty, its {base.ntotal} vectors cannot be had from their codes")
        self._set_up(base, dtype, k_factor)

    def _set_up(self, base: Any, dtype: str, k_factor: int) -> None:
        if dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
        self.base = base
        self._dtype: Any = np.dtype(dtype)
        self.k_factor = k_factor
        self.store = InvertedLists(1, base.d, self._dtype, lanes=1, published=base.lists.published, marks_removed=True)
        self.metadata: dict[str, Any] = {}
        self._begin_settings()
        self._compiled: Any = None  # what compiled code knows of the store, made by the first search

    def __repr__(self) -> str:
        return f"IndexRefine({self.base!r}, dtype={self.dtype!r}, k_factor={self.k_factor})"

    @property
    def lists(self) -> InvertedLists:
        """What the base stores."""
        lists: InvertedLists = self.base.lists
        return lists

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.base.d)

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        metric: Metric = self.base.metric
        return metric

    @property
    def dtype(self) -> str:
        """How the vectors are stored."""
        return str(self._dtype)

    @property
    def k_factor(self) -> int:
        """Candidates for each neighbour wanted, unless a search is told otherwise."""
        return self._k_factor

    @k_factor.setter
    def k_factor(self, value: int) -> None:
        self._k_factor = positive_int(value, "k_factor")

    @property
    def nlist(self) -> int:
        """Cells of the base; an AttributeError if it has none."""
        return int(self.base.nlist)

    @property
    def nprobe(self) -> int:
        """Lists that a search looks into unless told otherwise; an AttributeError if there are none."""
        return int(self.base.nprobe)

    @nprobe.setter
    def nprobe(self, value: int) -> None:
        self.base.nprobe = value

    @property
    def ntotal(self) -> int:
        """Vectors stored."""
        return self.store.view.ntotal

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, code and vector together, its id not counted."""
        return int(self.base.code_size) + self.d * self._dtype.itemsize

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, code and vector together, each with its id."""
        return int(self.base.bytes_per_vector) + self.store.view.bytes_per_vector

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.base.is_trained)

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return int(self.base.train_size_min)

    def learned(self, x: Floats) -> list[Change]:
        """As the base. See `StoredIndex.learned`."""
        learned: list[Change] = self.base.learned(x)
        return learned

    def encode(self, x: Floats) -> tuple[Ids, Any]:
        """As the base. See `StoredIndex.encode`."""
        encoded: tuple[Ids, Any] = self.base.encode(x)
        return encoded

    def _store(self, x: Floats, ids: Ids) -> None:
        encoded, vectors = self.encode(x), self._rounded(x)
        with self._lock:
            one_list = np.zeros(len(x), np.int64)
            stored = self.store.added(one_list, vectors, ids)
            self.store.published.replace(self.lists.added(*encoded, ids), stored)

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,) by `x` (n, d). See `StoredIndex.update`."""
        x = as_vectors(x, self.d)
        ids, encoded, vectors = as_ids(ids, n=len(x)), self.encode(x), self._rounded(x)
        with self._lock:
            one_list = np.zeros(len(x), np.int64)
            stored = self.store.updated(one_list, vectors, ids)
            self.store.published.replace(self.lists.updated(*encoded, ids), stored)

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held. See `StoredIndex.remove_ids`."""
        ids = as_ids(ids)
        with self._lock:
            stored, count = self.store.removed(ids)
            self.store.published.replace(self.lists.removed(ids)[0], stored)
        return count

    def reset(self) -> None:
        """Forget the stored vectors, not the training."""
        self.store.published.replace(self.lists.cleared(), self.store.cleared())

    def _merged(self, other: IndexRefine, parts: tuple[Any, ...]) -> list[Change]:
        self._check_same(other, "dtype")
        base: list[Change] = self.base.merged(other.base, parts)
        return [*base, self.store.merged(parts[other.store.part].lists)]

    def search(
        self,
        xq: Any,
        k: int,
        *,
        nprobe: int | None = None,
        ids: Any = None,
        k_factor: int | None = None,
        target_recall: float | None = None,
    ) -> SearchResult:
        """The k nearest of the base's k * k_factor candidates of each query. See `StoredIndex.search`."""
        k = positive_int(k, "k")
        nprobe, k_factor = self._widths(k, nprobe, k_factor, target_recall)
        parts = self.store.published.parts
        return self._found(self._vectors(xq, "xq"), k, k_factor or self._k_factor, nprobe, ids, parts)

    def _nearest(self, x: Floats, k: int) -> Ids:
        """By exact search among the vectors. See `StoredIndex.tune`."""
        lists = self.store.view
        rows, stored, step = lists.rows(), self._stored(lists), max(1, 4 * BLOCK // self.d)
        best = SearchResult(np.empty((len(x), 0), np.float32), np.empty((len(x), 0), np.int64))
        for start in range(0, len(rows), step):
            flat, part = IndexFlat(self.d, metric=self.metric), rows[start : start + step]
            flat.add_with_ids(stored[part].astype(np.float32, copy=False), lists.ids(part))
            more = flat.search(x, k)
            distances = np.concatenate([best.distances, more.distances], axis=1)
            ids = np.concatenate([best.ids, more.ids], axis=1)
            query = np.repeat(np.arange(len(x)), ids.shape[1])
            best = best_k(query, distances.ravel(), ids.ravel(), len(x), k, self.metric)
        return best.ids

    def _reading(self) -> Reading:
        """What a search reads: of the vectors, their sketches."""
        reading: Reading = self.base._reading()
        return reading._replace(candidate_bytes=self.d)

    def search_parts(self, x: Floats, k: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> SearchResult:
        """See `StoredIndex.search_parts`."""
        return self._found(x, k, self._k_factor, nprobe, ids, parts)

    def _found(
        self, x: Floats, k: int, k_factor: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]
    ) -> SearchResult:
        """What `search` finds."""
        kernel, lists = kernels.active(), parts[self.store.part].lists
        found = self.base.candidates(x, min(k * k_factor, max(k, lists.ntotal)), nprobe, ids, kernel, parts)
        if kernel == "reference":
            return self._ranked(x, lists, self._rows(lists, found), found, k)
        store = self._compiled
        if store is None or store.lists is not lists:
            rerank = kernels.compiled_module("rerank")
            store = self._compiled = rerank.Store(lists, self.metric, store)
        rows = found if store.in_order else self._rows(lists, found)
        result: SearchResult | None = store.rerank(x, rows, found, k)
        if result is None:
            raise RuntimeError(STRANGE)
        return result

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str, parts: tuple[Any, ...]) -> Ids:
        """The ids that `search` gives. See `StoredIndex.candidates`."""
        return self.search_parts(self._scaled(x), k, nprobe, ids, parts).ids

    def reachable(self, x: Floats, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Iterator[Ids]:
        """What the base would compare with. See `StoredIndex.reachable`."""
        reachable: Iterator[Ids] = self.base.reachable(x, nprobe, ids, parts)
        return reachable

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors of the lists that the base looks into whose exact distance is below `radius`.

        (For ip and cosine: above it.) So no vector is missed for its code. See `StoredIndex.range_search`.
        """
        x, parts = self._vectors(xq, "xq"), self.store.published.parts
        lists: Lists = parts[self.store.part].lists
        radius = float(np.float32(radius))
        y, step = self._stored(lists), max(1, BLOCK // self.d)
        rows, asking = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for i, ids_there in enumerate(self.reachable(x, nprobe, ids, parts)):
            there = self._rows(lists, ids_there)
            for start in range(0, len(there), step):
                part = there[start : start + step]
                kept = CandidateFilter(1, None, radius if self.metric == "l2" else -radius)
                points = Points.of(y[part].astype(np.float32, copy=False))
                kept.offer(np.zeros(1, np.int64), 0, *screen(x[i : i + 1], points, self.metric))
                rows.append(part[kept.finish()[1]])
                asking.append(np.full(len(rows[-1]), i))
        row, query = np.concatenate(rows), np.concatenate(asking)
        distance = self._distances(x, query, lists, row)
        return within(query, distance, lists.ids(row), len(x), radius, self.metric)

    def reconstruct(self, id: int) -> Floats:
        """The vector stored under `id`, float32 (d,); KeyError if there is none."""
        lists = self.store.view
        row = self.store.find(lists, as_ids([id], "id"))
        if row[0] < 0:
            raise KeyError(f"id {id} is not in the index")
        return self._stored(lists)[row[0]].astype(np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        with self._lock:
            described, arrays = self.base.described()
            lists = self.store.settled()
        parameters = {"base": described, "dtype": self.dtype, "k_factor": self.k_factor}
        return parameters, {**arrays, "ids": lists.packed_ids, "vectors": self._stored(lists)}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexRefine:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        made = cls.__new__(cls)
        base = cls.from_description(parameters["base"], arrays)
        made._set_up(base, parameters["dtype"], parameters["k_factor"])
        vectors, ids = arrays["vectors"], arrays["ids"]
        if vectors.dtype != made._dtype or vectors.ndim != 2 or vectors.shape[1] != made.d:
            raise ValueError(f"vectors must be {made.dtype} (n, {made.d}), got {vectors.dtype} {vectors.shape}")
        lists = made.store.restored(np.array([len(vectors)]), ids, vectors[:, :, None])
        inside = made.lists.view
        if not np.array_equal(np.sort(inside.ids(inside.rows())), np.sort(lists.ids(lists.rows()))):
            raise ValueError("the ids of the vectors are not those of the base")
        check_stored(vectors, made.metric == "cosine")
        made.store.publish(lists)
        return made

    def _rows(self, lists: Lists, ids: Ids) -> Ids:
        """The rows of ids (...) in the store, -1 for -1."""
        rows = self.store.find(lists, ids.ravel()).reshape(ids.shape)
        if (rows < 0).any() and (ids[rows < 0] >= 0).any():
            raise RuntimeError(STRANGE)
        return rows

    def _ranked(self, x: Floats, lists: Lists, rows: Ids, ids: Ids, k: int) -> SearchResult:
        """The k best of the candidates (nq, wanted) of each query; matrix products screen them."""
        y = self._stored(lists)
        kept = CandidateFilter(len(x), k)
        query, place = np.nonzero(rows >= 0)
        row, found = rows[query, place], ids[query, place]
        ends = np.searchsorted(query, np.arange(len(x) + 1))
        for i in np.flatnonzero(np.diff(ends)).tolist():
            candidates = Points.of(y[row[ends[i] : ends[i + 1]]].astype(np.float32, copy=False))
            kept.offer(np.array([i]), int(ends[i]), *screen(x[i : i + 1], candidates, self.metric))
        query, place = kept.finish()
        row, found = row[place], found[place]
        return best_k(query, self._distances(x, query, lists, row), found, len(x), k, self.metric)

    def _distances(self, x: Floats, query: Ids, lists: Lists, row: Ids) -> Floats:
        """The exact distance of x[query[i]] and row[i] of the store."""
        y = self._stored(lists)
        distance = np.empty(len(row), np.float32)
        step = max(1, 4 * SMALL_BLOCK // self.d)
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            vectors = y[row[part]].astype(np.float32, copy=False)
            distance[part] = pair_distances(x[query[part]], vectors, self.metric)
        return comparable(distance, self.metric)

    def _stored(self, lists: Lists) -> Any:
        return lists.blocks[:, :, 0]

    def _rounded(self, x: Floats) -> Any:
        """Vectors (n, d) as they are stored."""
        vectors = self._scaled(x)
        with np.errstate(over="ignore"):
            stored = vectors.astype(self._dtype, copy=False)
        if not np.isfinite(stored).all():
            raise ValueError(f"x must be finite in {self.dtype}, but its largest number is {np.abs(vectors).max():g}")
        return stored

    def _scaled(self, x: Floats) -> Floats:
        return normalised(x) if self.metric == "cosine" else x
