"""Backends whose vectors lie in a database, each space in a table of its own: what Milvus and LanceDB share."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexIVFPQ, IndexIVFRaBitQ, IndexIVFSQ, SearchResult, index_factory
from ivfpq.checks import Metric
from ivfpq.flat import IndexFlat
from ivfpq.results import worst
from search.backends.base import Backend, EngineReport, IndexRecipe, SearchableIndex, UnreachableError, UpdateError
from search.backends.local import DEFAULT_NPROBE, check_entry, trainable
from search.backends.trial import measure, split
from search.errors import EngineError
from search.space import Entry, Space

PUT_BLOCK = 2_048  # vectors sent at once: 16 MiB of float32 at 2048-d, and a message to Milvus is at most 64 MiB
MEASURED = 100  # queries that tell how good an index is: they take milliseconds here, not microseconds


@dataclass(frozen=True)
class Layout:
    """The index that a factory string asks for, in the numbers that every engine takes.

    Attributes
    ----------
    codec : str
    nlist : int
        Inverted lists, 1 for a flat index.
    m, nbits : int
        Numbers of a product code and bits of each; bits a component of RaBitQ.
    """

    codec: Literal["Flat", "PQ", "RaBitQ", "SQ"]
    nlist: int = 1
    m: int = 0
    nbits: int = 0

    @classmethod
    def of(cls, d: int, factory: str, engine: str) -> Layout:
        """Raises EngineError if a database has no such index."""
        index = index_factory(d, factory)
        if isinstance(index, IndexFlat):
            return cls("Flat")
        if isinstance(index, IndexIVFRaBitQ):
            return cls("RaBitQ", index.nlist, 0, index.bits)
        if isinstance(index, IndexIVFSQ):
            return cls("SQ", index.nlist, 0, 8)
        if isinstance(index, IndexIVFPQ):
            return cls("PQ", index.nlist, index.M, index.nbits)
        raise EngineError(f"{engine} has no index {factory}; it takes Flat, IVFn,PQm, IVFn,SQ8 or IVFn,RaBitQ")

    @property
    def code_bytes(self) -> int:
        """Bytes of a product code."""
        return -(-self.m * self.nbits // 8)


class StateGoneError(UnreachableError):
    """An earlier state of a table that is kept no more."""


class Among(NamedTuple):
    """A filter: rows with these ids, or all but these."""

    ids: NDArray[np.int64]
    is_not: bool

    @property
    def listed(self) -> str:
        """The ids with commas between them."""
        return ", ".join(map(str, self.ids.tolist()))


class Table(Protocol):
    """An open table: an id and a vector in each row. What cannot be reached raises UnreachableError."""

    @property
    def version(self) -> int | None:
        """Of the state that it shows, where the database keeps earlier ones."""

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add rows; those of the same ids are replaced."""

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Take out rows; ids that are not there are passed over."""

    def build(self, layout: Layout) -> None:
        """Index the rows, once there are all that it learns from."""

    def follow(self) -> None:
        """Take into the index what was put in and taken out since."""

    def count(self) -> int:
        """Number of rows."""

    def size(self) -> int:
        """Bytes on disk, 0 where the database does not tell."""

    def nearest(
        self, vector: NDArray[np.float32], k: int, nprobe: int, among: Among | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and distances (as `ivfpq` has them) of at most k rows, best first, of those that a filter lets through.

        There may be more in lists that were not looked into.
        """


class TableBackend(Backend):
    """Keeps the vectors of a space in a table of a database. What differs from one to another are five functions.

    Its entry in the manifest says ``store`` (the address), ``table``, ``nlist`` and, where there are such, ``version``.
    """

    keeps_versions: ClassVar[bool] = False

    @abstractmethod
    def checked_address(self, address: str) -> str:
        """An address as manifests have it, without what differs from one folder to another. Raises EngineError."""

    @abstractmethod
    def layout(self, d: int, factory: str, address: str) -> Layout:
        """The index that a factory string asks for. Raises EngineError if there is no such index at this address."""

    @abstractmethod
    def create(self, address: str, name: str, d: int, metric: Metric) -> Table:
        """A new table."""

    @abstractmethod
    def open_table(self, address: str, name: str, metric: Metric, version: int | None, *, write: bool) -> Table:
        """A table as it is or, where the database keeps earlier states, as it was; if it is no more, StateGoneError.

        One that is opened to be written is brought back to that state.
        """

    @abstractmethod
    def names(self, address: str) -> list[str]:
        """Names of the tables that there are."""

    @abstractmethod
    def drop(self, address: str, name: str) -> None:
        """Delete a table, if it is there."""

    def tidy(self, address: str, name: str) -> None:
        """Let earlier states of a table go."""

    def check(self, d: int, recipe: IndexRecipe) -> None:
        address = self._address(recipe)
        self.layout(d, recipe.factory, address)
        self.names(address)

    def verify(self, space: Space, entry: Entry) -> None:
        index = self.open(space, entry)
        assert isinstance(index, TableIndex)
        self._check_count(index.table, space)

    def build(self, space: Space, recipe: IndexRecipe) -> tuple[dict[str, Any], EngineReport]:
        """Index all vectors of a space in a new table. See `Backend.build`, and `LocalBackend.build` on recall."""
        address = self._address(recipe)
        asked, recipe = recipe.factory, trainable(space, recipe)
        layout = self.layout(space.dim, recipe.factory, address)
        held_out = split(space, recipe.seed)[0][:MEASURED]
        kept = np.setdiff1d(space.ids, held_out)
        self._drop_leftovers(space, address)
        name = _prefix(space) + secrets.token_hex(4)

        started = time.perf_counter()
        table = self.create(address, name, space.dim, recipe.metric)
        _put(table, space, kept)
        added = time.perf_counter()
        table.build(layout)
        trained = time.perf_counter()
        index = TableIndex(space.dim, recipe.metric, int(kept.size), layout.nlist, lambda: table, space.ids)
        recall, us_per_query = measure(index, space, kept, space.rows(held_out), recipe.metric)
        _put(table, space, held_out)
        self._check_count(table, space)

        entry = {
            "store": address,
            "table": name,
            "nlist": layout.nlist,
            "factory": recipe.factory,
            "asked": asked,
            "seed": recipe.seed,
            "images": int(space.ids.size),
            "generation": space.store.generation,
            **({} if table.version is None else {"version": table.version}),
        }
        return entry, EngineReport(
            engine=self.name,
            factory=recipe.factory,
            train_s=trained - added,
            add_s=added - started,
            file_bytes=table.size(),
            bytes_per_vector=8 + (layout.code_bytes or 4 * space.dim),
            recall_at_10=recall,
            us_per_query=us_per_query,
        )

    def update(
        self, space: Space, entry: Entry, changed: NDArray[np.int64], gone: NDArray[np.int64]
    ) -> tuple[dict[str, Any], int]:
        try:
            check_entry(space, self.name, entry, ("store", "table", "factory", "seed"))
        except EngineError as error:
            raise UpdateError(str(error)) from error
        address, name = entry["store"], entry["table"]
        mark = _Mark(space, name)
        if not self.keeps_versions and not mark.is_clear(entry):
            raise UpdateError("a writer was stopped in the middle of a change of its table")
        if name not in self.names(address):
            raise UpdateError(f"{address} has no table {name} any more")
        try:
            table = self.open_table(address, name, space.metric, entry.get("version"), write=True)
        except StateGoneError as error:
            raise UpdateError(str(error)) from error
        if not self.keeps_versions:
            mark.set()
        before = table.count()
        for start in range(0, gone.size, PUT_BLOCK):
            table.remove(gone[start : start + PUT_BLOCK])
        _put(table, space, changed)
        table.follow()
        try:
            after = self._check_count(table, space)
        except EngineError as error:
            raise UpdateError(str(error)) from error
        state = {} if table.version is None else {"version": table.version}
        new = {**entry, "images": int(space.ids.size), "generation": space.store.generation, **state}
        return new, before + int(changed.size) - after

    def open(self, space: Space, entry: Entry) -> SearchableIndex:
        """The index of an entry. It is looked for when it is first asked: a collection opens while a server is down."""
        check_entry(space, self.name, entry, ("store", "table", "images"))

        def opened() -> Table:
            where = f"the {self.name} index of {space.folder.name} at {entry['store']}"
            if any(ids.size for ids in space.store.changes_since(entry.get("generation") or 0)):
                raise UnreachableError(f"{where} is older than the collection: run create_index.py --sync for it")
            if entry["table"] not in self.names(entry["store"]):
                raise UnreachableError(f"{where} is gone: run create_index.py for this collection again")
            return self.open_table(entry["store"], entry["table"], space.metric, entry.get("version"), write=False)

        return TableIndex(space.dim, space.metric, entry["images"], entry.get("nlist") or 1, opened, space.ids)

    def settle(self, space: Space, entry: Entry) -> None:
        if self.keeps_versions:
            self.tidy(entry["store"], entry["table"])
        else:
            _Mark(space, entry["table"]).clear()

    def delete(self, space: Space, entry: Entry) -> None:
        if entry.get("store") and entry.get("table"):
            self.drop(entry["store"], entry["table"])
            _Mark(space, entry["table"]).clear()

    def _address(self, recipe: IndexRecipe) -> str:
        if recipe.address is None:
            raise EngineError(f"{self.name} keeps vectors in a database: say in which, --store {self.schemes[0]}...")
        return self.checked_address(recipe.address)

    def _drop_leftovers(self, space: Space, address: str) -> None:
        """Delete tables of this space that a writer who was stopped has left."""
        listed = {entry.get("table") for entry in space.indexes.values()}
        for name in self.names(address):
            if name.startswith(_prefix(space)) and name not in listed:
                self.drop(address, name)

    def _check_count(self, table: Table, space: Space) -> int:
        found = table.count()
        if found != space.ids.size:
            raise EngineError(
                f"the {self.name} index of {space.folder.name} holds {found} vectors, not {space.ids.size}: run "
                "create_index.py for this collection again"
            )
        return found


class TableIndex:
    """A table as `SearchableIndex`, opened when it is first asked. Safe to use from many threads.

    Parameters
    ----------
    opened : callable
        Opens the table.
    known : int64 array
        Ids of the collection as it was opened: a server may be ahead of it, and no other is an answer.
    """

    def __init__(
        self, d: int, metric: Metric, ntotal: int, nlist: int, opened: Callable[[], Table], known: NDArray[np.int64]
    ) -> None:
        self.d = d
        self.metric = metric
        self.ntotal = ntotal
        self.nlist = nlist
        self.nprobe = min(DEFAULT_NPROBE, nlist)
        self._opened = opened
        self._known = known
        self._table: Table | None = None
        self._lock = threading.Lock()

    @property
    def table(self) -> Table:
        """Raises EngineError if it cannot be opened or is not the one of the collection as it is."""
        with self._lock:
            if self._table is None:
                self._table = self._opened()
            return self._table

    def search(
        self, xq: NDArray[Any], k: int, *, nprobe: int | None = None, ids: NDArray[np.int64] | None = None
    ) -> SearchResult:
        """See `SearchableIndex`."""
        table = self.table
        result = SearchResult(np.full((len(xq), k), worst(self.metric), np.float32), np.full((len(xq), k), -1))
        if ids is not None and ids.size == 0:
            return result
        among = self._among(ids)
        for row, vector in enumerate(np.asarray(xq, np.float32)):
            found, distances = table.nearest(vector, k, nprobe or self.nprobe, among)
            if ids is not None and found.size < min(k, ids.size):  # the lists that were looked into hold too few
                found, distances = table.nearest(vector, k, self.nlist, among)
            known = np.isin(found, self._known)
            count = int(np.count_nonzero(known))
            result.ids[row, :count], result.distances[row, :count] = found[known], distances[known]
        return result

    def _among(self, ids: NDArray[np.int64] | None) -> Among | None:
        """What a filter lets through, said by the shorter of two lists."""
        if ids is None:
            return None
        others = np.setdiff1d(self._known, ids, assume_unique=True)
        if not others.size:
            return None
        return Among(ids, False) if ids.size <= others.size else Among(others, True)


def _put(table: Table, space: Space, ids: NDArray[np.int64]) -> None:
    for start in range(0, ids.size, PUT_BLOCK):
        block = ids[start : start + PUT_BLOCK]
        table.put(block, space.rows(block))


def _prefix(space: Space) -> str:
    """How the names of all tables of a space begin, and those of no other space that uses the same database."""
    place = hashlib.sha256(f"{socket.gethostname()}\0{space.folder}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9]', '_', f'c_{space.folder.name}_{space.name}')[:200]}_{place}_"


class _Mark:
    """A file beside a collection that says, while a table is changed which keeps no earlier state, that it is."""

    def __init__(self, space: Space, name: str) -> None:
        self._path = space.folder / f".{name}.changing"
        self._generation = space.store.generation

    def set(self) -> None:
        with self._path.open("w", encoding="ascii") as file:
            file.write(f"{self._generation}\n")
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def is_clear(self, entry: Entry) -> bool:
        """Whether no change was begun since the one that an entry is of."""
        try:
            return self._path.read_text(encoding="ascii").strip() == str(entry.get("generation"))
        except FileNotFoundError:
            return True
