"""LanceDB: vectors in a folder of files, which any number of processes read while one writes.

When its index takes in changes it joins lists of few vectors, so that few lists of some thousand are left: a search by
nprobe lists then looks at more of them.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.paths import expanded
from ivfpq.checks import Metric
from ivfpq.distances import normalised
from search.backends.base import UnreachableError
from search.backends.tables import Among, Layout, StateGoneError, Table, TableBackend
from search.errors import EngineError

KEPT_FOR = timedelta(hours=1)
"""Earlier states of a table stay so long, for those who have them open."""

_SCHEME = "lance://"


class Lance(TableBackend):
    """LanceDB (``--store lance:///folder``). Its IVF_PQ and IVF_RQ, of vectors on disk."""

    name = "lance"
    schemes = (_SCHEME,)
    keeps_versions = True

    def checked_address(self, address: str) -> str:
        path = address.removeprefix(_SCHEME)
        if not address.startswith(_SCHEME) or not path:
            raise EngineError(f"LanceDB is a folder, {_SCHEME}/path/to/it; got {address}")
        return f"{_SCHEME}{expanded(path).absolute()}"

    def layout(self, d: int, factory: str, address: str) -> Layout:
        layout = Layout.of(d, factory, "LanceDB")
        if layout.codec == "PQ" and (layout.nbits not in (4, 8) or d % layout.m):
            raise EngineError(
                f"LanceDB has product codes of 4 or 8 bits, of parts of equal size; got {factory} of {d}-d"
            )
        return layout

    def create(self, address: str, name: str, d: int, metric: Metric) -> Table:
        import pyarrow as pa

        row = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), d))])
        return LanceTable(_connect(address).create_table(name, schema=row), metric, _folder(address) / f"{name}.lance")

    def open_table(self, address: str, name: str, metric: Metric, version: int | None, *, write: bool) -> Table:
        table = _connect(address).open_table(name)
        if version is not None and version != table.version:
            try:
                table.checkout(version)
            except ValueError as error:
                raise StateGoneError(
                    f"state {version} of the table {name} in {_folder(address)} is there no more: open the collection "
                    "again, or run create_index.py for it"
                ) from error
            if write:
                table.restore()
        return LanceTable(table, metric, _folder(address) / f"{name}.lance")

    def names(self, address: str) -> list[str]:
        # Tables are folders; asked by pages, the library gives ten at a time.
        folder = _folder(address)
        return [path.stem for path in folder.glob("*.lance")] if folder.is_dir() else []

    def drop(self, address: str, name: str) -> None:
        if name in self.names(address):
            _connect(address).drop_table(name)

    def tidy(self, address: str, name: str) -> None:
        if name in self.names(address):
            _connect(address).open_table(name).optimize(cleanup_older_than=KEPT_FOR)


class LanceTable:
    """See `tables.Table`.

    By cosine the table holds vectors of length 1, and compares them by their distance: the library's own cosine has
    another scale with each kind of index.
    """

    def __init__(self, table: Any, metric: Metric, folder: Path) -> None:
        self._table = table
        self._metric = metric
        self._folder = folder
        self._kind = "dot" if metric == "ip" else "l2"

    @property
    def version(self) -> int:
        return int(self._table.version)

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        import pyarrow as pa

        vectors = normalised(vectors) if self._metric == "cosine" else vectors
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), vectors.shape[1])
        rows = pa.table({"id": pa.array(ids), "vector": column})
        if not self._table.list_indices():  # of a table that is being made: nothing in it can be meant by the same id
            self._table.add(rows)
        else:
            self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def remove(self, ids: NDArray[np.int64]) -> None:
        if ids.size:
            self._table.delete(f"id IN ({Among(ids, False).listed})")

    def build(self, layout: Layout) -> None:
        from lancedb.index import BTree, IvfPq, IvfRq, IvfSq

        self._table.create_index("id", config=BTree())
        lists: dict[str, Any] = {"distance_type": self._kind, "num_partitions": layout.nlist}
        kinds = {
            "PQ": lambda: IvfPq(num_sub_vectors=layout.m, num_bits=layout.nbits, **lists),
            "RaBitQ": lambda: IvfRq(num_bits=layout.nbits, **lists),
            "SQ": lambda: IvfSq(**lists),
        }
        if layout.codec != "Flat":
            try:
                self._table.create_index("vector", config=kinds[layout.codec]())
            except (ValueError, RuntimeError) as error:
                raise EngineError(f"LanceDB cannot make this index: {error}") from error

    def follow(self) -> None:
        self._table.optimize()

    def count(self) -> int:
        return int(self._table.count_rows())

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def nearest(
        self, vector: NDArray[np.float32], k: int, nprobe: int, among: Among | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        vector = normalised(vector[None])[0] if self._metric == "cosine" else vector
        query = self._table.search(vector, vector_column_name="vector", query_type="vector").distance_type(self._kind)
        query = query.minimum_nprobes(nprobe).maximum_nprobes(nprobe if among is None else 0)  # 0: as many as it takes
        if among is not None:
            query = query.where(f"id {'NOT ' if among.is_not else ''}IN ({among.listed})", prefilter=True)
        try:
            found = query.limit(k).select(["id", "_distance"]).to_arrow()
        except (ValueError, RuntimeError, OSError) as error:
            raise UnreachableError(f"{self._folder} cannot be searched: {error}") from error
        distances = found["_distance"].to_numpy().astype(np.float32)
        as_ours = {"cosine": 1 - distances / 2, "ip": 1 - distances, "l2": distances}
        return found["id"].to_numpy(), as_ours[self._metric]


def _folder(address: str) -> Path:
    return Path(address.removeprefix(_SCHEME))


def _connect(address: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries that it brings
            import lancedb
    except ImportError as error:
        raise UnreachableError("LanceDB is not installed: pip install lancedb (requirements-optional.txt)") from error
    try:
        return lancedb.connect(_folder(address))
    except (OSError, ValueError, RuntimeError) as error:
        raise UnreachableError(f"{_folder(address)} cannot be opened by LanceDB: {error}") from error
