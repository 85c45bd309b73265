"""Bring a collection up to date with images that were added, edited, renamed or removed since it was made.

Only new and edited images are encoded. An image keeps its id for as long as it is in the collection, and the id of a
removed one is never given to another: its row of the features becomes zero, and the catalog remembers it as removed.

Whatever stops a sync, the collection is either the old one or the new one, and open ones stay as they are (see
`features.collection.store`). Vectors made by a sync that was stopped are kept in ``.sync.sqlite`` for the next one.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from features.checksum import sha256_of
from features.collection.changes import Changes, find_changes
from features.collection.store import (
    CATALOG,
    FEATURES,
    MANIFEST,
    Facts,
    FeatureStore,
    StoreError,
    as_rows,
    numbered,
    path_to,
    read_manifest,
    remove_leftovers,
    stat_of,
    upgrade_catalog,
    versions,
    write_json,
)
from features.datasets import Dataset, Item
from features.extract import check_counts, encode_items

if TYPE_CHECKING:
    from features.encoders import Encoder

logger = logging.getLogger(__name__)

STAGE = ".sync.sqlite"
BLOCK = 16_384  # rows of the features that are copied at a time

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SyncReport:
    """What a sync found and did; paths are relative to the dataset's root.

    Attributes
    ----------
    added, edited, removed : tuple of Path
        Among the added and edited are those that turned out to be damaged.
    renamed : tuple of (Path, Path)
        Where an image was, and where it is now.
    unchanged : int
        How many images are as they were.
    damaged : tuple of (Path, str)
        Added or edited images that cannot be read, and why.
    """

    added: tuple[Path, ...]
    edited: tuple[Path, ...]
    removed: tuple[Path, ...]
    renamed: tuple[tuple[Path, Path], ...]
    unchanged: int
    damaged: tuple[tuple[Path, str], ...]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(paths)} {what}"
            for what, paths in (
                ("added", self.added),
                ("edited", self.edited),
                ("renamed", self.renamed),
                ("removed", self.removed),
                ("damaged", self.damaged),
            )
        )
        return "\n".join(
            [f"{counts}, {self.unchanged} unchanged", *(f"cannot be read: {path}: {why}" for path, why in self.damaged)]
        )


def sync(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    batch_size: int = 32,
    progress: bool | Progress = True,
    with_store: Callable[[FeatureStore], dict[str, Any]] | None = None,
) -> SyncReport:
    """Bring the collection in `folder` up to date with a dataset.

    Parameters
    ----------
    folder : path
        A complete collection of this dataset, made by this encoder. The dataset may have moved as a whole.
    limit : int, optional
        Add only images that are among the first so many of the dataset. What is in the collection already stays.
    batch_size : int
        Images encoded and made durable at a time.
    progress : bool or callable
        True: a progress bar on stderr. A function is called after each batch with the number of encoded images and of
        all to encode; what it raises stops the sync, and the next one goes on from there.
    with_store : callable, optional
        Called with the new store before it is in force; returns entries for the manifest. So what follows from the
        vectors (indexes) becomes new in the same moment as they do. It may write files, under new names.

    Raises
    ------
    StoreError
        The collection is of another encoder or dataset, damaged, being synced by another process, or nothing usable
        would be left of it. The collection is as it was.
    """
    check_counts(batch_size, limit)
    folder = Path(folder).expanduser().resolve()
    read_manifest(folder)  # nothing is written where there is no collection
    with _Stage.locked(folder / STAGE) as stage:
        store = FeatureStore.open(folder)
        store.check_encoder(encoder)
        dtype = np.dtype(store.manifest["dtype"])
        stage.begin(encoder.spec, dtype)
        remove_leftovers(folder)
        changes = find_changes(store, dataset, dataset.items[:limit])
        if len(changes.removed) == store.image_count:
            raise StoreError(
                f"none of the images of {folder} is in {dataset.root}: it is a collection of {store.manifest['root']}"
            )
        stats = _encode(stage, changes, dataset.root, encoder, dtype, batch_size, progress)
        try:
            report = _NextGeneration(store, stage, changes, dataset, stats).put_in_force(with_store)
        finally:
            remove_leftovers(folder)
        stage.remove()
    return report


def _encode(
    stage: _Stage,
    changes: Changes,
    root: Path,
    encoder: Encoder,
    dtype: np.dtype[Any],
    batch_size: int,
    progress: bool | Progress,
) -> dict[Path, tuple[int, int]]:
    """Encode what the stage does not have yet; returns size and time of each file just before it was read."""
    items = [file.item for file in (*changes.edited, *changes.unread)] + changes.added
    stats = {item.path: stat_of(item.path) for item in items}
    todo = [item for item in items if not stage.has(item.path.relative_to(root), stats[item.path])]
    if len(todo) < len(items):
        logger.info("going on after %d of %d images", len(items) - len(todo), len(items))
    place, done = 0, len(items) - len(todo)
    bar = tqdm(total=len(items), initial=done, unit="image", disable=progress is not True or not todo, smoothing=0.1)
    with bar, closing(encode_items(todo, encoder, batch_size)) as batches:
        for features, facts in batches:
            files = [(item.path.relative_to(root), stats[item.path]) for item in todo[place : place + len(facts)]]
            stage.put(files, as_rows(features, dtype), facts)
            place += len(facts)
            bar.update(len(facts))
            if callable(progress):
                progress(done + place, len(items))
    return stats


class _Stage:
    """What has been encoded for a collection and is not in it yet: one sqlite file, and the lock of the sync."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    @contextmanager
    def locked(cls, path: Path) -> Iterator[_Stage]:
        """Open the stage for this process alone. Raises StoreError if another one has it."""
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until it is closed
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise StoreError(f"{path.parent} is being brought up to date by another process ({error})") from error
            except sqlite3.DatabaseError as error:
                raise StoreError(f"{path} is damaged ({error}): remove it") from error
            yield cls(path, connection)

    def begin(self, spec: dict[str, Any], dtype: np.dtype[Any]) -> None:
        """Make it ready for vectors of this encoder; those of another one are dropped."""
        execute, maker = self._connection.execute, json.dumps([spec, dtype.str], sort_keys=True)
        execute("BEGIN")
        execute("CREATE TABLE IF NOT EXISTS maker (spec TEXT)")
        execute(
            "CREATE TABLE IF NOT EXISTS encoded (path PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT, "
            "width INTEGER, height INTEGER, error TEXT, vector BLOB)"
        )
        if execute("SELECT spec FROM maker").fetchone() != (maker,):
            execute("DELETE FROM maker")
            execute("DELETE FROM encoded")
            execute("INSERT INTO maker VALUES (?)", (maker,))
        execute("COMMIT")

    def has(self, path: Path, stat: tuple[int, int]) -> bool:
        """Whether the file, as it is now, was encoded. One that could not be read is always tried again."""
        query = "SELECT 1 FROM encoded WHERE path = ? AND size = ? AND mtime = ? AND sha256 IS NOT NULL"
        return self._connection.execute(query, (path_to(path), *stat)).fetchone() is not None

    def put(self, files: Sequence[tuple[Path, tuple[int, int]]], rows: np.ndarray, facts: Sequence[Facts]) -> None:
        """Keep a batch; it is durable when this returns."""
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO encoded VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (path_to(path), *stat, *fact, row.tobytes())
                for (path, stat), fact, row in zip(files, facts, rows, strict=True)
            ),
        )
        self._connection.execute("COMMIT")

    def facts(self, path: Path) -> Facts:
        """What is known of an encoded file."""
        query = "SELECT sha256, width, height, error FROM encoded WHERE path = ?"
        facts: Facts = self._connection.execute(query, (path_to(path),)).fetchone()
        return facts

    def row(self, path: Path, dtype: np.dtype[Any]) -> np.ndarray:
        """The vector of an encoded file, (dim,)."""
        query = "SELECT vector FROM encoded WHERE path = ?"
        return np.frombuffer(self._connection.execute(query, (path_to(path),)).fetchone()[0], dtype)

    def remove(self) -> None:
        """Delete the file, still locked. Where open files cannot be deleted it waits for the next sync."""
        with suppress(PermissionError):
            self.path.unlink()
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)


class _NextGeneration:
    """The next generation of a store: its files first, then the manifest that names them."""

    def __init__(
        self, store: FeatureStore, stage: _Stage, changes: Changes, dataset: Dataset, stats: dict[Path, tuple[int, int]]
    ) -> None:
        self._store, self._stage, self._changes, self._dataset, self._stats = store, stage, changes, dataset, stats
        self._number = store.generation + 1
        # An image that could not be read before and cannot be now has not changed.
        self._read_now = [file for file in changes.unread if stage.facts(self._path(file.item))[0] is not None]
        self._edited = changes.edited + self._read_now
        first = store.manifest["count"]
        self._added = [(first + place, item) for place, item in enumerate(changes.added)]

    def _path(self, item: Item) -> Path:
        return item.path.relative_to(self._dataset.root)

    def put_in_force(self, with_store: Callable[[FeatureStore], dict[str, Any]] | None) -> SyncReport:
        """Write what is new, if anything is, and replace the manifest."""
        folder = self._store.folder
        before = read_manifest(folder)
        manifest = {**before, "generation": self._number, "root": str(self._dataset.root)}
        if self._edited or self._added or self._changes.removed:
            manifest["features"] = self._write_features()
            manifest["versions"] = versions()
        statements = self._statements()
        if statements:
            manifest.update(self._write_catalog(statements, manifest["features"]["sha256"]))
        if with_store is not None:
            rows = np.load(folder / manifest["features"]["file"], mmap_mode="r", allow_pickle=False)
            manifest.update(with_store(FeatureStore(folder, manifest, rows)))
        if {**manifest, "generation": None} != {**before, "generation": None}:
            write_json(folder / MANIFEST, manifest)
        return self._report()

    def _write_features(self) -> dict[str, Any]:
        """Copy the vectors but for what has changed; returns the manifest's entry."""
        old, folder = self._store.features, self._store.folder
        shape = (len(old) + len(self._added), old.shape[1])
        source = {file.record.id: self._path(file.item) for file in self._edited}
        source.update((id, self._path(item)) for id, item in self._added)
        renewed = np.array(sorted(source), np.int64)
        removed = np.array(sorted(record.id for record in self._changes.removed), np.int64)
        path = folder / numbered(FEATURES, self._number)
        with path.open("wb") as file:
            header = {"descr": old.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, shape[0], BLOCK):
                rows = np.zeros((min(BLOCK, shape[0] - start), shape[1]), old.dtype)
                kept = old[start : start + BLOCK]
                rows[: len(kept)] = kept
                within = removed[slice(*np.searchsorted(removed, (start, start + BLOCK)))]
                rows[within - start] = 0
                for id in renewed[slice(*np.searchsorted(renewed, (start, start + BLOCK)))].tolist():
                    rows[id - start] = self._stage.row(source[id], old.dtype)
                file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        return {"file": path.name, "sha256": sha256_of(path)}

    def _statements(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What has to be said to the catalog."""
        said: list[tuple[str, tuple[Any, ...]]] = []

        def facts_of(item: Item) -> tuple[Any, ...]:
            return (*self._stats[item.path], *self._stage.facts(self._path(item)), self._number)

        for record in self._changes.removed:
            said += [
                ("INSERT INTO removed VALUES (?, ?, ?)", (record.id, path_to(record.path), self._number)),
                ("DELETE FROM labels WHERE image_id = ?", (record.id,)),
                ("DELETE FROM images WHERE id = ?", (record.id,)),
            ]
        update = (
            "UPDATE images SET size = ?, mtime = ?, sha256 = ?, width = ?, height = ?, error = ?, generation = ? "
            "WHERE id = ?"
        )
        said += [(update, (*facts_of(file.item), file.record.id)) for file in self._edited]
        for file in (*self._changes.kept, *self._changes.renamed):
            path = self._path(file.item)
            if file.record[1:4] != (path, file.size, file.mtime):
                moved = "UPDATE images SET path = ?, size = ?, mtime = ? WHERE id = ?"
                said.append((moved, (path_to(path), file.size, file.mtime, file.record.id)))
        insert = (
            "INSERT INTO images (id, path, size, mtime, sha256, width, height, error, generation) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        said += [(insert, (id, path_to(self._path(item)), *facts_of(item))) for id, item in self._added]

        label = "INSERT INTO labels (image_id, label) VALUES (?, ?)"
        known: dict[int, set[str]] = {}
        with self._store.catalog() as catalog:
            for id, name in catalog.execute("SELECT image_id, label FROM labels"):
                known.setdefault(id, set()).add(name)
        changes = self._changes
        for file in (*changes.kept, *changes.unread, *changes.edited, *changes.renamed):
            if set(file.item.labels) != known.get(file.record.id, set()):
                said.append(("DELETE FROM labels WHERE image_id = ?", (file.record.id,)))
                said += [(label, (file.record.id, name)) for name in set(file.item.labels)]
        said += [(label, (id, name)) for id, item in self._added for name in set(item.labels)]
        return said

    def _write_catalog(self, said: list[tuple[str, tuple[Any, ...]]], checksum: str) -> dict[str, Any]:
        """Copy the catalog and say it there; returns what becomes new in the manifest."""
        path = self._store.folder / numbered(CATALOG, self._number)
        with closing(sqlite3.connect(path, isolation_level=None)) as new:
            with self._store.catalog() as old:
                old.backup(new)
            upgrade_catalog(new)
            new.execute("BEGIN")
            for statement, values in said:
                new.execute(statement, values)
            new.execute("UPDATE about SET value = ? WHERE key = 'features_sha256'", (json.dumps(checksum),))
            new.execute("COMMIT")
            count, damaged, reason = new.execute("SELECT count(*), count(error), min(error) FROM images").fetchone()
            (removed,) = new.execute("SELECT count(*) FROM removed").fetchone()
        if count == damaged:
            raise StoreError(f"none of the {count} images in {self._dataset.root} can be read (the first: {reason})")
        return {"catalog": {"file": path.name}, "count": count + removed, "removed": removed, "damaged": damaged}

    def _report(self) -> SyncReport:
        changes = self._changes
        new = [file.item for file in self._edited] + [item for _, item in self._added]
        reasons = [(self._path(item), self._stage.facts(self._path(item))[3]) for item in new]
        return SyncReport(
            added=tuple(self._path(item) for _, item in self._added),
            edited=tuple(self._path(file.item) for file in self._edited),
            removed=tuple(record.path for record in changes.removed),
            renamed=tuple((file.record.path, self._path(file.item)) for file in changes.renamed),
            unchanged=len(changes.kept) + len(changes.unlisted) + len(changes.unread) - len(self._read_now),
            damaged=tuple((path, reason) for path, reason in reasons if reason is not None),
        )
