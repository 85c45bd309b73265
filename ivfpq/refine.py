"""IndexRefine: the best candidates of another index, ranked again by the vectors themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ivfpq import kernels
from ivfpq.base import StoredIndex
from ivfpq.checks import Floats, Ids, Metric, as_ids, as_vectors, positive_int
from ivfpq.distances import SMALL_BLOCK, comparable, normalised
from ivfpq.flat import IndexFlat
from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import Lists
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult, best_k, within
from ivfpq.screening import BLOCK, CandidateFilter
from ivfpq.stored_vectors import StoredVectors, stored_vectors
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
    dtype : {"float32", "float16", "uint8"}
        How the vectors are stored: 4, 2 or 1 byte a number, the last by a `ScalarQuantizer`, which is trained with the
        base. Distances are to the stored, so rounded, vector.
    k_factor : int
        Candidates for each neighbour wanted, unless a search is told otherwise.
    sketch : bool, optional
        Whether the first search makes an 8-bit sketch of each float vector, d + 32 bytes more in memory, after which
        few vectors are read: see `kernels.rerank`. If not given, it makes them of float32 vectors in memory.

    Attributes
    ----------
    base : the index that finds candidates
    store : StoredVectors
        One list whose codes are the vectors; after `load(..., mmap=True)` they stay in the file.
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`. Base and vectors are published together: see `Published`. Candidates are what
    the base finds, or nearly so with principal components in SQ8: see `integer_transform`.

    What a vector of d numbers takes in memory beside its code:

    - float32 vectors and their sketches: 5 d bytes;
    - `dtype="uint8"`: d bytes, for nearly exact answers;
    - `load(path, mmap=True)` and then `sketch = True`: d bytes; the few vectors that the sketches leave are read from
      the file. The first search reads all of it;
    - `load(path, mmap=True)` alone: nothing; all candidates are read from the file.
    """

    __slots__ = ("_compiled", "_k_factor", "_sketch", "base", "store")
    layer = 2

    def __init__(
        self,
        base: Any,
        *,
        dtype: Literal["float32", "float16", "uint8"] = "float32",
        k_factor: int = K_FACTOR,
        sketch: bool | None = None,
    ) -> None:
        self.check_inside(base, "base")
        if base.ntotal:
            raise ValueError(f"base must be empty, its {base.ntotal} vectors cannot be had from their codes")
        self._set_up(base, dtype, k_factor, sketch)

    def _set_up(self, base: Any, dtype: str, k_factor: int, sketch: bool | None) -> None:
        self.base = base
        self.store: StoredVectors = stored_vectors(base.d, base.metric, dtype, base.lists.published)
        self.k_factor = k_factor
        self.sketch = sketch
        self.metadata: dict[str, Any] = {}
        self._begin_settings()

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
        return str(self.store.dtype)

    @property
    def k_factor(self) -> int:
        """Candidates for each neighbour wanted, unless a search is told otherwise."""
        return self._k_factor

    @k_factor.setter
    def k_factor(self, value: int) -> None:
        self._k_factor = positive_int(value, "k_factor")

    @property
    def sketch(self) -> bool | None:
        """Whether searches make and use sketches of float vectors; None: of float32 vectors in memory."""
        return self._sketch

    @sketch.setter
    def sketch(self, value: bool | None) -> None:
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"sketch must be True, False or None, got {value!r}")
        if value and self.dtype == "uint8":
            raise ValueError("sketch=True is for float vectors: those of dtype 'uint8' are as short as a sketch")
        self._sketch = value
        self._compiled: Any = None  # what compiled code knows of the store, made by the first search

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
        return int(self.base.code_size) + self.d * self.store.dtype.itemsize

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, code and vector together, each with its id."""
        return int(self.base.bytes_per_vector) + self.store.view.bytes_per_vector

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.base.is_trained) and self.store.is_trained

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return max(int(self.base.train_size_min), self.store.train_size_min)

    def learned(self, x: Floats) -> list[Change]:
        """As the base, and the ranges of bytes. See `StoredIndex.learned`."""
        return [*self.base.relearned(x), *self.store.learned(x)]

    def encode(self, x: Floats) -> tuple[Ids, Any]:
        """As the base. See `StoredIndex.encode`."""
        encoded: tuple[Ids, Any] = self.base.encode(x)
        return encoded

    def _store(self, x: Floats, ids: Ids) -> None:
        encoded, rounded = self.encode(x), self.store.rounded(self._scaled(x))
        with self._lock:
            stored = self.store.added(*rounded, ids)
            self.store.published.replace(self.lists.added(*encoded, ids), stored)

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,) by `x` (n, d). See `StoredIndex.update`."""
        x = as_vectors(x, self.d)
        ids, encoded = as_ids(ids, n=len(x)), self.encode(x)
        rounded = self.store.rounded(self._scaled(x))
        with self._lock:
            stored = self.store.updated(*rounded, ids)
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
        self.store.check_same(other.store)
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
        rows, step = lists.rows(), max(1, 4 * BLOCK // self.d)
        best = SearchResult(np.empty((len(x), 0), np.float32), np.empty((len(x), 0), np.int64))
        for start in range(0, len(rows), step):
            flat, part = IndexFlat(self.d, metric=self.metric), rows[start : start + step]
            flat.add_with_ids(self.store.at(lists, part), lists.ids(part))
            more = flat.search(x, k)
            distances = np.concatenate([best.distances, more.distances], axis=1)
            ids = np.concatenate([best.ids, more.ids], axis=1)
            query = np.repeat(np.arange(len(x)), ids.shape[1])
            best = best_k(query, distances.ravel(), ids.ravel(), len(x), k, self.metric)
        return best.ids

    def _reading(self) -> Reading:
        """What a search reads: of the vectors, their sketches or bytes."""
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
        if kernel == "reference" or not self.store.for_kernels(x, lists):
            return self._ranked(x, lists, self._rows(lists, found), found, k)
        store = self._compiled
        if store is None or store.lists is not lists:
            store = self._compiled = self.store.compiled(lists, parts, store, self.sketch)
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
        step = max(1, BLOCK // self.d)
        rows, asking = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for i, ids_there in enumerate(self.reachable(x, nprobe, ids, parts)):
            there = self._rows(lists, ids_there)
            for start in range(0, len(there), step):
                part = there[start : start + step]
                kept = CandidateFilter(1, None, radius if self.metric == "l2" else -radius)
                kept.offer(np.zeros(1, np.int64), 0, *self.store.screened(x[i : i + 1], lists, part))
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
        vector: Floats = self.store.at(lists, row)[0]
        return vector

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        with self._lock:
            described, arrays = self.base.described()
            lists = self.store.settled()
        parameters = {"base": described, "dtype": self.dtype, "k_factor": self.k_factor}
        if self.sketch is not None:
            parameters["sketch"] = self.sketch
        return parameters, {**arrays, "ids": lists.packed_ids, **self.store.arrays(lists)}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexRefine:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        made = cls.__new__(cls)
        base = cls.from_description(parameters["base"], arrays)
        made._set_up(base, parameters["dtype"], parameters["k_factor"], parameters.get("sketch"))
        lists = made.store.read(arrays)
        inside = made.lists.view
        if not np.array_equal(np.sort(inside.ids(inside.rows())), np.sort(lists.ids(lists.rows()))):
            raise ValueError("the ids of the vectors are not those of the base")
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
        kept = CandidateFilter(len(x), k)
        query, place = np.nonzero(rows >= 0)
        row, found = rows[query, place], ids[query, place]
        ends = np.searchsorted(query, np.arange(len(x) + 1))
        for i in np.flatnonzero(np.diff(ends)).tolist():
            its = row[ends[i] : ends[i + 1]]
            kept.offer(np.array([i]), int(ends[i]), *self.store.screened(x[i : i + 1], lists, its))
        query, place = kept.finish()
        row, found = row[place], found[place]
        return best_k(query, self._distances(x, query, lists, row), found, len(x), k, self.metric)

    def _distances(self, x: Floats, query: Ids, lists: Lists, row: Ids) -> Floats:
        """The exact distance of x[query[i]] and row[i] of the store."""
        distance = np.empty(len(row), np.float32)
        step = max(1, 4 * SMALL_BLOCK // self.d)
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            distance[part] = self.store.distances(x[query[part]], lists, row[part])
        return comparable(distance, self.metric)

    def _scaled(self, x: Floats) -> Floats:
        return normalised(x) if self.metric == "cosine" else x
