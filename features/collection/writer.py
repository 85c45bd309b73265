"""The making of a store: images are encoded batch by batch, and in the end the store appears as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.collection.catalog import Catalog, catalog_entry
from features.collection.errors import StoreError
from features.collection.file_facts import stat_of
from features.collection.manifest import (
    CATALOG,
    FEATURES,
    FORMAT,
    MANIFEST,
    check_same_encoder,
    library_versions,
    partial_folder,
    write_json,
)
from features.collection.records import Facts, Row
from features.collection.schema import ANNOTATIONS
from features.collection.stage import STAGE, Stage
from features.collection.store import FeatureStore
from features.collection.vector_file import write_vectors
from features.datasets import Dataset, ImageFolder, Item, origin_of, spec_of


class StoreWriter:
    """A store in the making, in a hidden folder beside the place where it will be.

    Each `append` is durable when it returns. Whatever happens in between is lost with that batch and nothing else, and
    the next writer goes on from there, whatever images there are by then. `finish` renames the folder, so a store
    either is complete or does not exist.

    Parameters
    ----------
    folder : Path
        Where the finished store will be.
    dataset, items : Dataset, list of Item
        What goes in; `items` may be the beginning of the dataset only.
    spec : dict
        The encoder's.
    dtype : str
        ``"float16"`` or ``"float32"``.

    Attributes
    ----------
    todo : list of Item
        What `append` is to be given, in this order. The others were encoded by an earlier writer.
    done : int
        How many of the items are encoded.

    Raises
    ------
    StoreError
        Another process is writing here, or what was begun here is of another encoder or dtype.
    """

    def __init__(self, folder: Path, dataset: Dataset, items: Sequence[Item], spec: dict[str, Any], dtype: str) -> None:
        self._target = folder
        self.folder = partial_folder(folder)
        self._dataset, self._items, self._spec, self._dtype = dataset, items, spec, np.dtype(dtype)
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        self._has_annotations = ANNOTATIONS in there  # of a collection that is built anew: they stay where they are
        parts = {ANNOTATIONS, f"{ANNOTATIONS}-wal", f"{ANNOTATIONS}-shm", FEATURES, CATALOG}
        if there - (parts if self._has_annotations else set()):
            raise StoreError(f"{folder} is not empty and holds no {MANIFEST}: choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stage = Stage(self.folder / STAGE, f"{self.folder} is in use by another extraction")
        try:
            self._check_maker()
            self._stage.begin(spec, self._dtype)
            # Looked at before the content is read: a file that changes meanwhile is seen to have changed.
            self._stats = np.array([stat_of(item.path) for item in items], np.int64).reshape(-1, 2)
            places = [
                place for place, item in enumerate(items) if not self._stage.has(self._path(item), self._stats[place])
            ]
        except BaseException:
            self.close()
            raise
        self.todo = [items[place] for place in places]
        self._todo_stats = self._stats[places]
        self._appended = 0

    @property
    def done(self) -> int:
        return len(self._items) - len(self.todo) + self._appended

    def _path(self, item: Item) -> Path:
        return item.path.relative_to(self._dataset.root)

    def _check_maker(self) -> None:
        if self._stage.maker is None:
            return
        (spec, dtype), where = self._stage.maker, f"the extraction begun in {self.folder}"
        hint = f"; remove {self.folder} to start over"
        check_same_encoder(spec, self._spec, where, hint)
        if np.dtype(dtype) != self._dtype:
            raise StoreError(f"{where} writes {np.dtype(dtype).name}, now {self._dtype.name} is asked for{hint}")

    def append(self, features: np.ndarray, facts: Sequence[Facts]) -> None:
        """Write the next images of `todo`.

        Parameters
        ----------
        features : float32 (b, dim)
            Rows of damaged images are zero.
        facts : b Facts, or tuples of their values
        """
        rows = as_rows(features, self._dtype)
        batch = slice(self._appended, self._appended + len(rows))
        files = [(self._path(item), stat) for item, stat in zip(self.todo[batch], self._todo_stats[batch], strict=True)]
        self._stage.put(files, rows, facts)
        self._appended += len(rows)

    def finish(self) -> FeatureStore:
        """Complete the store, move it to its place and open it.

        Raises
        ------
        StoreError
            No image can be read.
        """
        shape = (len(self._items), self._spec["dim"])
        blocks = self._stage.blocks([self._path(item) for item in self._items], self._dtype)
        features = write_vectors(self.folder / FEATURES, shape, self._dtype, blocks)
        catalog = Catalog.create(self.folder / CATALOG)
        catalog.fill(self._rows(), ((item.id, item.labels) for item in self._items))
        catalog.set_about(features_sha256=features["sha256"], encoder=self._spec, dtype=self._dtype.name)
        count, damaged = catalog.counts()
        reasons = catalog.damaged()
        catalog.close()
        self.close()
        if damaged == count:
            shutil.rmtree(self.folder, ignore_errors=True)  # nothing in it is worth keeping
            reason = min(error for _, error in reasons)
            raise StoreError(f"none of the {count} images in {self._dataset.root} can be read (the first: {reason})")
        write_json(
            self.folder / MANIFEST,
            {
                "format": FORMAT,
                "generation": 0,
                "dataset": dataset_name(self._dataset),
                **origin_of(self._dataset),
                "count": count,
                "removed": 0,
                "damaged": damaged,
                "dim": self._spec["dim"],
                "dtype": self._dtype.name,
                "metric": "cosine",
                "encoder": self._spec,
                "features": features,
                "catalog": catalog_entry(self.folder / CATALOG),
                "versions": library_versions(),
            },
        )
        if self._has_annotations:
            for name in (FEATURES, CATALOG, MANIFEST):  # the manifest last: with it all is in force
                (self.folder / name).replace(self._target / name)
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self.folder.replace(self._target)
            self._stage.path = self._target / STAGE
            self._stage.remove()
        return FeatureStore.open(self._target)

    def _rows(self) -> Iterator[Row]:
        for item, (size, mtime) in zip(self._items, self._stats.tolist(), strict=True):
            path = self._path(item)
            yield Row(item.id, path, size, mtime, *self._stage.facts(path))

    def close(self) -> None:
        """Let go of the files; what was appended stays."""
        self._stage.close()


def dataset_name(dataset: Dataset) -> str:
    """What a manifest calls a dataset. A folder of one's own that bears the name of a known dataset is not that one."""
    if isinstance(dataset, ImageFolder) and spec_of(dataset.name, dataset.root) != str(dataset.root):
        return "folder"
    return dataset.name


def as_rows(features: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Vectors as they are stored. Raises StoreError where they do not fit the type."""
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(features, dtype=dtype)
    if not np.isfinite(rows).all():
        raise StoreError(f"the encoder gave numbers that {dtype.name} cannot hold (NaN or infinity)")
    return rows
