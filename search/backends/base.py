"""What a backend is: it keeps the vectors of a space in an index of its own kind, and finds the nearest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ivfpq import SearchResult
from ivfpq.checks import Metric
from search.errors import EngineError
from search.space import Entry, Space


class SearchableIndex(Protocol):
    """An open index.

    `search` gives the k nearest of each query (nq, d), by `nprobe` lists where there are lists. Among `ids`, if they
    are given, it looks on until it has k, or has seen all of them: a filter never hides what it lets through.
    """

    @property
    def d(self) -> int: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def ntotal(self) -> int: ...

    def search(
        self, xq: NDArray[Any], k: int, *, nprobe: int | None = None, ids: NDArray[np.int64] | None = None
    ) -> SearchResult: ...


@dataclass(frozen=True)
class IndexRecipe:
    """What index is wanted.

    Attributes
    ----------
    factory : str
        As `ivfpq.index_factory` reads it.
    address : str or None
        Of the database, for a backend whose vectors lie in one.
    target_recall : float or None
        Of what a search of all lists finds, the share to find without being told how many lists to look into: as many
        as that takes are looked into. None: `local.DEFAULT_NPROBE`. Databases do not know it.
    """

    factory: str
    metric: Metric
    seed: int = 0
    address: str | None = None
    target_recall: float | None = None


@dataclass(frozen=True)
class EngineReport:
    """What building an index took and gave. Times in seconds, sizes in bytes, search in microseconds a query."""

    engine: str
    factory: str
    train_s: float
    add_s: float
    file_bytes: int
    bytes_per_vector: int
    recall_at_10: float | None
    us_per_query: float | None


class UpdateError(RuntimeError):
    """An index cannot be brought up to date and is to be built anew; the message says why."""


class UnreachableError(EngineError):
    """What lies in a database cannot be had: it does not answer, is gone or out of date, or has no client here.

    The rest of the collection can be searched.
    """


class Backend(ABC):
    """One way to index and search the vectors of a space.

    What it needs to find its index again it puts into an entry of the manifest, whose keys are its own, but for
    ``factory``, ``asked`` (the factory string that was asked for), ``seed``, ``generation`` (of the store) and
    ``images`` (how many vectors it holds). Names of files of the collection's folder stand under ``file``.

    Attributes
    ----------
    name : str
        What people, command lines and manifests call it.
    is_built : bool
        False for a backend that needs no index of its own: it is there for every collection, and only opened.
    schemes : tuple of str
        How addresses of its databases begin, where its vectors lie in one.
    """

    name: ClassVar[str]
    is_built: ClassVar[bool] = True
    schemes: ClassVar[tuple[str, ...]] = ()

    def checked_address(self, address: str) -> str:
        """An address of `schemes` as manifests have it, whatever folder one is in. Raises EngineError."""
        raise EngineError(f"{self.name} keeps no vectors in a database")

    def check(self, d: int, recipe: IndexRecipe) -> None:
        """Raise EngineError if there can be no such index of d-dimensional vectors: before hours of work."""
        return

    def verify(self, space: Space, entry: Entry) -> None:
        """Raise EngineError if the index of an entry cannot be read or does not hold what it should."""
        self.open(space, entry)

    @abstractmethod
    def build(self, space: Space, recipe: IndexRecipe) -> tuple[dict[str, Any], EngineReport]:
        """Index all vectors of a space; returns the entry for the manifest, and what it took.

        The index that is in force stays as it is.
        """

    @abstractmethod
    def update(
        self, space: Space, entry: Entry, changed: NDArray[np.int64], gone: NDArray[np.int64]
    ) -> tuple[dict[str, Any], int]:
        """Take out the vectors that have changed or are gone and put in those that have changed, into a new index.

        Returns
        -------
        entry : dict
        taken_out : int

        Raises
        ------
        UpdateError
        """

    @abstractmethod
    def open(self, space: Space, entry: Entry) -> SearchableIndex:
        """The index of an entry. Raises EngineError if it cannot be read or is not the one that the entry says."""

    def settle(self, space: Space, entry: Entry) -> None:
        """Let go of what was kept for the entry before this one, which the manifest lists from now on."""
        return

    @abstractmethod
    def delete(self, space: Space, entry: Entry) -> None:
        """Delete an index that the manifest does not list any more."""
