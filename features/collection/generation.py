"""The next generation of a collection: what is new is encoded, and put in force in one moment.

An image keeps its id for as long as it is in the collection, and the id of a removed one is never given to another: its
row of the features becomes zero, and the catalog remembers it as removed. Where images only come, their vectors are
written behind the others; where one is edited or leaves, the file of vectors is written anew.

Whatever stops the writer, the collection is either the old one or the new one, and open ones stay as they are (see
`features.collection.store`). Vectors that were made are kept in ``.sync.sqlite`` for who goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from features.collection.catalog import Catalog, catalog_entry
from features.collection.catalog_schema import HASHED_IN
from features.collection.changes import Changes, Found, can_be_read
from features.collection.errors import StoreError
from features.collection.file_facts import stat_of
from features.collection.manifest import (
    CATALOG,
    FEATURES,
    catalog_file,
    library_versions,
    new_part,
    put_in_force,
    read_manifest,
    remove_leftovers,
)
from features.collection.records import CatalogChanges, Row
from features.collection.stage import BLOCK, Stage
from features.collection.store import FeatureStore
from features.collection.vector_file import can_grow, cut_surplus, grow_vectors, map_vectors, write_vectors
from features.collection.writer import as_rows
from features.datasets import Dataset, Item, origin_of, reading_options
from features.encoding import Progress, encode_items

if TYPE_CHECKING:
    from features.encoders import Encoder

logger = logging.getLogger(__name__)


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
    away : tuple of Path
        Unchanged ones of which nothing can be known now, such as links to a drive that is away. They stay searchable.
    """

    added: tuple[Path, ...]
    edited: tuple[Path, ...]
    removed: tuple[Path, ...]
    renamed: tuple[tuple[Path, Path], ...]
    unchanged: int
    damaged: tuple[tuple[Path, str], ...]
    away: tuple[Path, ...] = ()

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
            [
                f"{counts}, {self.unchanged} unchanged",
                *(f"cannot be read: {path}: {why}" for path, why in self.damaged),
                *(f"away, kept as it was: {path}" for path in self.away),
            ]
        )


def encode_changes(
    stage: Stage,
    changes: Changes,
    dataset: Dataset,
    encoder: Encoder,
    dtype: np.dtype[Any],
    batch_size: int,
    progress: bool | Progress,
) -> dict[Path, tuple[int, int]]:
    """Encode what is new and the stage does not have yet, a batch at a time; each is durable before the next.

    Returns size and time of each file just before it was read.
    """
    root = dataset.root
    items = [file.item for file in (*changes.edited, *changes.larger, *changes.unread)] + changes.added
    stats = {item.path: stat_of(item.path) for item in items}
    todo = [item for item in items if not stage.has(item.path.relative_to(root), stats[item.path])]
    if len(todo) < len(items):
        logger.info("going on after %d of %d images", len(items) - len(todo), len(items))
    place, done = 0, len(items) - len(todo)
    bar = tqdm(total=len(items), initial=done, unit="image", disable=progress is not True or not todo, smoothing=0.1)
    encoded = encode_items(todo, encoder, batch_size, **reading_options(dataset))
    with bar, closing(encoded) as batches:
        for features, facts in batches:
            files = [(item.path.relative_to(root), stats[item.path]) for item in todo[place : place + len(facts)]]
            stage.put(files, as_rows(features, dtype), facts)
            place += len(facts)
            bar.update(len(facts))
            if callable(progress):
                progress(done + place, len(items))
    return stats


class NextGeneration:
    """The next generation of a store: its files first, then the manifest that names them.

    Parameters
    ----------
    stage : Stage
        Has all that `changes` says is new.
    stats : dict of Path to (int, int)
        What `encode_changes` gave.
    hashed, cameras : list of (id, phash), list of (id, camera)
        Of images that a catalog of an earlier version has without.
    """

    def __init__(
        self,
        store: FeatureStore,
        stage: Stage,
        changes: Changes,
        dataset: Dataset,
        stats: dict[Path, tuple[int, int]],
        hashed: Sequence[tuple[int, bytes]] = (),
        cameras: Sequence[tuple[int, str]] = (),
    ) -> None:
        self._hashed, self._cameras = list(hashed), list(cameras)
        self._store, self._stage, self._changes, self._dataset, self._stats = store, stage, changes, dataset, stats
        self._number = store.generation + 1
        # An image that could not be read before and cannot be now has not changed.
        self._read_now = [file for file in changes.unread if stage.facts(self._path(file.item))[0] is not None]
        # One that could be read before and cannot be now, though it could when changes were looked for, is away.
        edited = [*changes.edited, *changes.larger]
        self._lost = [file for file in edited if self._is_lost(file)]
        self._edited = [file for file in edited if file not in self._lost] + self._read_now
        first = store.manifest["count"]
        self._added = [(first + place, item) for place, item in enumerate(changes.added)]

    def _path(self, item: Item) -> Path:
        return item.path.relative_to(self._dataset.root)

    def _is_lost(self, file: Found) -> bool:
        unread = self._stage.facts(self._path(file.item))[0] is None
        return unread and file.record.sha256 is not None and not can_be_read(self._dataset, file.item)

    def put_in_force(self, with_store: Callable[[FeatureStore], dict[str, Any]] | None) -> SyncReport:
        """Write what is new, if anything is, and replace the manifest.

        Parameters
        ----------
        with_store : callable, optional
            See `features.collection.sync.sync`.
        """
        folder = self._store.folder
        try:
            self._write(with_store)
        finally:
            remove_leftovers(folder)
            cut_surplus(folder, read_manifest(folder))
        return self._report()

    def _write(self, with_store: Callable[[FeatureStore], dict[str, Any]] | None) -> None:
        folder = self._store.folder
        before = read_manifest(folder)
        origin = origin_of(self._dataset)
        manifest = {**before, **origin, "generation": self._number}
        if self._edited or self._added or self._changes.removed:
            manifest["features"] = self._write_features()
            manifest["versions"] = library_versions()
        if changes := self._catalog_changes():
            manifest.update(self._write_catalog(changes, manifest["features"]["sha256"]))
        if with_store is not None:
            rows = map_vectors(folder, manifest["features"])
            catalog = Catalog.open(folder / catalog_file(manifest))
            manifest.update(with_store(FeatureStore(folder, manifest, rows, catalog)))
        if {**manifest, "generation": None} != {**before, "generation": None}:
            put_in_force(folder, manifest)

    def _write_features(self) -> dict[str, Any]:
        """Write the new vectors behind the others, or copy them all but for what has changed; returns the manifest's
        entry.
        """
        old, entry = self._store.features, self._store.manifest["features"]
        if not self._edited and not self._changes.removed and can_grow(entry):
            new = self._stage.blocks([self._path(item) for _, item in self._added], old.dtype)
            return grow_vectors(self._store.folder, entry, new)
        shape = (len(old) + len(self._added), old.shape[1])
        path = new_part(self._store.folder, FEATURES, self._number)
        return write_vectors(path, shape, old.dtype, self._blocks(shape))

    def _blocks(self, shape: tuple[int, int]) -> Iterator[np.ndarray]:
        old = self._store.features
        source = {file.record.id: self._path(file.item) for file in self._edited}
        source.update((id, self._path(item)) for id, item in self._added)
        renewed = np.array(sorted(source), np.int64)
        removed = np.array(sorted(record.id for record in self._changes.removed), np.int64)
        for start in range(0, shape[0], BLOCK):
            rows = np.zeros((min(BLOCK, shape[0] - start), shape[1]), old.dtype)
            kept = old[start : start + BLOCK]
            rows[: len(kept)] = kept
            within = removed[slice(*np.searchsorted(removed, (start, start + BLOCK)))]
            rows[within - start] = 0
            for id in renewed[slice(*np.searchsorted(renewed, (start, start + BLOCK)))].tolist():
                rows[id - start] = self._stage.vector(source[id], old.dtype)
            yield rows

    def _catalog_changes(self) -> CatalogChanges:
        """What brings the catalog to this generation."""
        changes = self._changes
        still_there = [*changes.kept, *changes.unread, *changes.edited, *changes.larger, *changes.renamed]
        known = self._store.catalog.labels_by_image() if still_there else {}
        labels = {file.record.id: file.item.labels for file in still_there}
        labels = {id: names for id, names in labels.items() if set(names) != set(known.get(id, ()))}
        labels.update((id, item.labels) for id, item in self._added if item.labels)
        return CatalogChanges(
            removed=[(record.id, record.path) for record in changes.removed],
            encoded=[self._row(file.record.id, file.item) for file in self._edited],
            moved=[
                (file.record.id, self._path(file.item), file.size, file.mtime)
                for file in (*changes.kept, *changes.renamed)
                if file.record[1:4] != (self._path(file.item), file.size, file.mtime)
            ],
            added=[self._row(id, item) for id, item in self._added],
            hashed=self._hashed,
            cameras=self._cameras,
            labels=labels,
        )

    def _row(self, id: int, item: Item) -> Row:
        path = self._path(item)
        size, mtime = self._stats[item.path]
        return Row(id, path, size, mtime, *self._stage.facts(path))

    def _write_catalog(self, changes: CatalogChanges, checksum: str) -> dict[str, Any]:
        """Copy the catalog and change the copy; returns what becomes new in the manifest."""
        path = new_part(self._store.folder, CATALOG, self._number)
        new = self._store.catalog.copy(path)
        with closing(new):
            new.apply(changes, self._number)
            new.set_about(features_sha256=checksum, **({HASHED_IN: self._number} if changes.hashed else {}))
            (count, damaged), removed = new.counts(), new.removed_count()
            reasons = new.damaged()
        if count == damaged:
            reason = min(error for _, error in reasons)
            raise StoreError(f"none of the {count} images in {self._dataset.root} can be read (the first: {reason})")
        return {"catalog": catalog_entry(path), "count": count + removed, "removed": removed, "damaged": damaged}

    def _report(self) -> SyncReport:
        changes = self._changes
        new = [file.item for file in self._edited] + [item for _, item in self._added]
        reasons = [(self._path(item), self._stage.facts(self._path(item))[3]) for item in new]
        return SyncReport(
            added=tuple(self._path(item) for _, item in self._added),
            edited=tuple(self._path(file.item) for file in self._edited),
            removed=tuple(record.path for record in changes.removed),
            renamed=tuple((file.record.path, self._path(file.item)) for file in changes.renamed),
            unchanged=len(changes.kept)
            + len(changes.unlisted)
            + len(changes.away)
            + len(self._lost)
            + len(changes.unread)
            - len(self._read_now),
            damaged=tuple((path, reason) for path, reason in reasons if reason is not None),
            away=tuple(record.path for record in (*changes.away, *(file.record for file in self._lost))),
        )
