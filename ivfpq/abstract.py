"""What every index does, ours and those of other libraries: the verbs that their callers know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ivfpq.checks import Floats, Ids, Metric, as_ids, as_vectors
from ivfpq.distances import normalised
from ivfpq.results import SearchResult


class Index(ABC):
    """Vectors under ids, found by their distance to a query.

    Attributes
    ----------
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    Any number of threads may search while one adds or removes: a search sees the index as it was at one moment. A
    change that is stopped by an exception, whatever it is, has changed nothing.
    """

    __slots__ = ("metadata",)
    metadata: dict[str, Any]

    @property
    @abstractmethod
    def d(self) -> int:
        """Dimension."""

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """What a search ranks by."""

    @property
    @abstractmethod
    def ntotal(self) -> int:
        """Vectors stored."""

    @property
    @abstractmethod
    def is_trained(self) -> bool:
        """Whether vectors can be added."""

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""

    @property
    @abstractmethod
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, with its id."""

    @property
    @abstractmethod
    def train_size_min(self) -> int:
        """The least number of training vectors."""

    @abstractmethod
    def train(self, x: Any) -> None:
        """Learn from vectors (n, d) like those to be stored."""

    def add(self, x: Any) -> None:
        """Store vectors (n, d) under the next free ids: 0, 1, ..., or on from the largest id there is."""
        x = as_vectors(x, self.d)
        with self._lock:  # nobody else may take these ids
            first = self._next_id()
            ids = np.arange(first, first + len(x))
            self._store(x, ids if ids.dtype == np.int64 else as_ids(ids, n=len(x)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Store vectors (n, d) under ids (n,), distinct and not yet in the index.

        Raises
        ------
        NotTrainedError
            Before training.
        ValueError
            If an id is taken or comes twice; then nothing is stored.
        """
        x = as_vectors(x, self.d)
        self._store(x, as_ids(ids, n=len(x)))

    @abstractmethod
    def _store(self, x: Floats, ids: Ids) -> None:
        """`add_with_ids` of vectors and ids that are checked, but for ids that are taken."""

    @abstractmethod
    def search(
        self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None, k_factor: int | None = None
    ) -> SearchResult:
        """The k nearest of each query (nq, d), among `ids` if given. See `StoredIndex.search`."""

    @abstractmethod
    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held."""

    @property
    @abstractmethod
    def _lock(self) -> Any:
        """Held by the one writer there may be at a time."""

    @abstractmethod
    def _next_id(self) -> int:
        """One more than the largest id; 0 for none."""

    def _vectors(self, x: Any, name: str) -> Floats:
        """Vectors (n, d) as the metric compares them: for cosine, of length 1."""
        x = as_vectors(x, self.d, name)
        return normalised(x) if self.metric == "cosine" else x
