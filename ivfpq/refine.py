"""IndexRefine: the best candidates of another index, ranked again by the vectors themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np

from ivfpq import kernels
from ivfpq.checks import Floats, Ids, Metric, as_ids, as_vectors, positive_int
from ivfpq.distances import SMALL_BLOCK, normalised, pair_distances
from ivfpq.invlists import InvertedLists, Lists, compact
from ivfpq.pretransform import INNER, IndexPreTransform, nested, unnested
from ivfpq.results import RangeResult, SearchResult, best_k, within
from ivfpq.screening import CandidateFilter, Points, screen

K_FACTOR = 10
PATIENCE = 3  # times that a search is begun anew because of a writer before it makes writers wait
STRANGE = "the base was changed behind the back of its IndexRefine"

T = TypeVar("T")

_BASES: dict[str, Any] = {**INNER, "IndexPreTransform": IndexPreTransform}


class IndexRefine:
    """Search the base index for k * k_factor candidates and give the k best of them by their exact distance.

    Distances are those of `IndexFlat`: with so many candidates that nothing is left out, so are the answers.

    Parameters
    ----------
    base : an empty index of another kind than this
    dtype : {"float32", "float16"}
        How the vectors are stored: 4 or 2 bytes a number. Distances are to the stored, so rounded, vector.
    k_factor : int
        Candidates for each neighbour wanted.

    Attributes
    ----------
    base : the index that finds candidates
    store : InvertedLists
        One list whose codes are the vectors; after `load(..., mmap=True)` they stay in the file.
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`, and so is what concurrent callers may do, as long as they change the base
    through this index only. A range search refines and cuts what the base finds within the radius.

    The first search of float32 vectors in memory makes an 8-bit sketch of each, a quarter of their memory: see
    `kernels.rerank`. Vectors that stay in a file have none.
    """

    __slots__ = ("_changes", "_compiled", "_dtype", "_k_factor", "_lock", "base", "metadata", "store")

    def __init__(
        self, base: Any, *, dtype: Literal["float32", "float16"] = "float32", k_factor: int = K_FACTOR
    ) -> None:
        if _BASES.get(type(base).__name__) is not type(base):
            raise TypeError(f"base must be one of {', '.join(_BASES)}, got {type(base).__name__}")
        if base.ntotal:
            raise ValueError(f"base must be empty, its {base.ntotal} vectors cannot be had from their codes")
        self._set_up(base, dtype, k_factor)

    def _set_up(self, base: Any, dtype: str, k_factor: int) -> None:
        if dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
        self.base = base
        self._dtype: Any = np.dtype(dtype)
        self.k_factor = k_factor
        self.store = InvertedLists(1, base.d, self._dtype, lanes=1)
        self.metadata: dict[str, Any] = {}
        self._lock = threading.RLock()  # one writer at a time
        self._compiled: Any = None  # what compiled code knows of the store, made by the first search
        self._changes = 0  # odd while base and store do not belong together

    def __repr__(self) -> str:
        return f"IndexRefine({self.base!r}, dtype={self.dtype!r}, k_factor={self.k_factor})"

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
        """Candidates for each neighbour wanted."""
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

    def train(self, x: Any) -> None:
        """Train the base on vectors (n, d). See `IndexIVFPQ.train`."""
        self.base.train(x)

    def add(self, x: Any) -> None:
        """Store vectors (n, d) under the next free ids: 0, 1, ..., or on from the largest id there is."""
        x = as_vectors(x, self.d)
        with self._lock:  # nobody else may take these ids
            first = self.store.next_id()
            self.add_with_ids(x, np.arange(first, first + len(x)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Store vectors (n, d) under ids (n,). See `IndexIVFPQ.add_with_ids`."""
        x = as_vectors(x, self.d)
        ids, vectors = as_ids(ids, n=len(x)), self._rounded(x)
        with self._lock:
            self._store(vectors, ids, lambda: self.base.add_with_ids(x, ids))

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,) by `x` (n, d). See `IndexIVFPQ.update`."""
        x = as_vectors(x, self.d)
        ids, vectors = as_ids(ids, n=len(x)), self._rounded(x)
        with self._changing():
            self.base.update(ids, x)
            self.store.update(np.zeros(len(x), np.int64), vectors, ids)

    def search(self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None) -> SearchResult:
        """The k nearest of the base's k * k_factor candidates of each query (nq, d). See `IndexIVFPQ.search`."""
        xq, k, kernel = as_vectors(xq, self.d, "xq"), positive_int(k, "k"), kernels.active()

        def candidates() -> Ids:
            wanted = min(k * self._k_factor, max(k, self.ntotal))
            found: Ids = self.base.candidates(xq, wanted, nprobe, ids, kernel)
            return found

        found, lists = self._consistent(candidates)
        x = self._scaled(xq)
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

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """What the base finds within `radius`, if the exact distance is within it too. See `IndexIVFPQ.range_search`.

        A vector whose code alone lies outside is missed.
        """
        xq = as_vectors(xq, self.d, "xq")
        result, lists = self._consistent(lambda: self.base.range_search(xq, radius, nprobe=nprobe, ids=ids))
        x, found = self._scaled(xq), result.ids
        query = np.repeat(np.arange(len(x)), np.diff(result.lims))
        distance = self._distances(x, query, lists, self._rows(lists, found))
        return within(query, distance, found, len(x), float(np.float32(radius)), self.metric)

    def reconstruct(self, id: int) -> Floats:
        """The vector stored under `id`, float32 (d,); KeyError if there is none."""
        lists = self.store.view
        row = self.store.find(lists, as_ids([id], "id"))
        if row[0] < 0:
            raise KeyError(f"id {id} is not in the index")
        return self._stored(lists)[row[0]].astype(np.float32)

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held."""
        ids = as_ids(ids)
        with self._changing():
            self.base.remove_ids(ids)
            return self.store.remove(ids)

    def merge_from(self, other: IndexRefine) -> None:
        """Add what `other` stores, under the same ids. `other` stays as it is. Errors as `IndexIVFPQ.merge_from`."""
        if not isinstance(other, IndexRefine):
            raise TypeError(f"an IndexRefine can only take in another one, got {type(other).__name__}")
        if self._dtype != other._dtype:
            raise ValueError(f"the two indexes differ in dtype: {self.dtype} and {other.dtype}")
        if other is self and self.ntotal:
            raise ValueError(f"an index cannot take in itself: its {self.ntotal} ids are already there")
        first, second = sorted((self, other), key=id)  # two that take in each other must not wait for each other
        with first._lock, second._lock:
            lists = compact(other.store.view)
            self._store(self._stored(lists), lists.ids(lists.rows()), lambda: self.base.merge_from(other.base))

    def reset(self) -> None:
        """Forget the stored vectors, not the training."""
        with self._changing():
            self.base.reset()
            self.store.clear()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        with self._lock:
            described, arrays = nested(self.base)
            lists = compact(self.store.view)
        parameters = {"base": described, "dtype": self.dtype, "k_factor": self.k_factor}
        return parameters, {**arrays, "ids": lists.packed_ids, "vectors": self._stored(lists)}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexRefine:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        made = cls.__new__(cls)
        made._set_up(unnested(parameters["base"], arrays, _BASES), parameters["dtype"], parameters["k_factor"])
        vectors, ids = arrays["vectors"], arrays["ids"]
        if vectors.dtype != made._dtype or vectors.ndim != 2 or vectors.shape[1] != made.d:
            raise ValueError(f"vectors must be {made.dtype} (n, {made.d}), got {vectors.dtype} {vectors.shape}")
        lists = made.store.restored(np.array([len(vectors)]), ids, vectors[:, :, None])
        inside = (made.base.index if isinstance(made.base, IndexPreTransform) else made.base).lists.view
        if not np.array_equal(np.sort(inside.ids(inside.rows())), np.sort(lists.ids(lists.rows()))):
            raise ValueError("the ids of the vectors are not those of the base")
        made.store.publish(lists)
        return made

    def _consistent(self, search: Callable[[], T]) -> tuple[T, Lists]:
        """What `search`, of the base, gives, and a state of the store that holds all it found."""
        for _ in range(PATIENCE):
            changes = self._changes
            if changes % 2 == 0:
                # The base first: whatever it holds, the store has held before.
                found, lists = search(), self.store.view
                if self._changes == changes:
                    return found, lists
        with self._lock:
            return search(), self.store.view

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
        return distance

    def _store(self, vectors: Any, ids: Ids, into_base: Callable[[], None]) -> None:
        """Store vectors, then let the base have them: they are found, and found whole, when it does."""
        self.store.add(np.zeros(len(ids), np.int64), vectors, ids)
        try:
            into_base()
        except BaseException:
            self.store.remove(ids)
            raise

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

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """For a writer that changes base and store, neither of which may be read with the other's old state."""
        with self._lock:
            self._changes += 1
            try:
                yield
            finally:
                self._changes += 1
