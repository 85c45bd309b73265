"""A collection's vectors and what is known about its images.

One folder holds ``features.npy`` (row = id), ``catalog.sqlite`` (one row per image) and ``manifest.json``, which ties
them together: it names the encoder, the sizes and the checksum of the vectors. Parts that do not belong together are
refused.

What a store holds is never changed in place. `sync` writes the parts that change under new names
(``features.3.npy``: that of the third generation), or new vectors behind those that are there (see `vector_file`), and
then replaces the manifest, which says what is in force. So there is one moment at which everything becomes new, and who
has the old parts open keeps them.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.checksum import sha256_of
from features.collection.annotations import Annotations
from features.collection.catalog import Catalog, change_counter
from features.collection.conditions import Tree
from features.collection.errors import StoreError
from features.collection.fields import Field, own_field
from features.collection.lock import writing
from features.collection.manifest import (
    MANIFEST,
    absolute,
    catalog_file,
    check_same_encoder,
    derived_files,
    put_in_force,
    read_manifest,
    spaces_of,
    unchanged_while,
    vector_files,
)
from features.collection.records import Record
from features.collection.schema import ANNOTATIONS
from features.collection.vector_file import check_vectors, map_vectors
from features.datasets import Item

if TYPE_CHECKING:
    from features.encoders import Encoder

__all__ = ["REMOVED", "FeatureStore", "StoreError"]

REMOVED = "removed"  # what an item has for an error where its image left the collection


class FeatureStore:
    """A finished store, open for reading. Safe to use from many threads.

    Attributes
    ----------
    folder : Path
        Absolute.
    manifest : dict
        ``format, generation, dataset, root, count, removed, damaged, dim, dtype, metric, encoder, features, catalog,
        versions``, and whatever `update_manifest` added.
    features : ndarray, shape (n, dim), float16 or float32
        Memory-mapped, read-only. The row of a damaged or removed image is zero.
    told : dict of str to Field
        What the images can be filtered by that something beside the catalog tells, such as an index.

    Notes
    -----
    What is open stays as it was, even when a sync replaces the files meanwhile: open the folder again to see the new
    state.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], features: np.ndarray, catalog: Catalog) -> None:
        self.folder = folder
        self.manifest = manifest
        self.features = features
        self.catalog = catalog
        self.told: dict[str, Field] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> FeatureStore:
        """Open a folder and check, without reading the vectors, that its parts belong together.

        Raises
        ------
        StoreError
            A part is missing or does not fit the manifest; the message names both sides.
        """
        folder = absolute(folder)
        return unchanged_while(folder, lambda: cls._open(folder))

    @classmethod
    def _open(cls, folder: Path) -> FeatureStore:
        manifest = read_manifest(folder)
        features = _open_features(folder, manifest)
        catalog_path = folder / catalog_file(manifest)
        if _size_of(catalog_path) < manifest.get("catalog", {}).get("bytes", 0):
            raise StoreError(
                f"{catalog_path} cannot be read: it has {_size_of(catalog_path)} bytes, but {folder / MANIFEST} says "
                f"{manifest['catalog']['bytes']}"
            )
        catalog = Catalog.open(catalog_path)
        store = cls(folder, manifest, features, catalog)
        catalog.check_tables()
        count, damaged = catalog.counts()
        if (count, damaged) != (store.image_count, manifest["damaged"]):
            raise StoreError(
                f"{catalog.path} lists {count} images, {damaged} of them damaged, but {folder / MANIFEST} says "
                f"{store.image_count} and {manifest['damaged']}"
            )
        checksum = catalog.about("features_sha256")
        if checksum != manifest["features"]["sha256"]:
            raise StoreError(
                f"{catalog.path} belongs to features with SHA-256 {checksum}, but {folder / MANIFEST} to features "
                f"with {manifest['features']['sha256']}"
            )
        catalog.check_rows(len(features))
        return store

    @property
    def metric(self) -> str:
        """How the vectors are compared: ``"cosine"`` unless the manifest was given another."""
        return str(self.manifest["metric"])

    @cached_property
    def items(self) -> list[Item]:
        """One item for each row of the features; ``error`` is set for the damaged and, to "removed", the removed."""
        root, labels = Path(self.manifest["root"]), self.catalog.labels_by_image()
        rows = self.catalog.images() + [(id, path, REMOVED) for id, path in self.catalog.removed()]
        return [Item(id, root / path, labels.get(id, ()), error) for id, path, error in sorted(rows)]

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the usable images, ascending int64: those whose row of the features means something."""
        return self.catalog.usable_ids()

    @property
    def spaces(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of each space, "visual" first: see `manifest.spaces_of`."""
        return spaces_of(self.manifest)

    @property
    def image_count(self) -> int:
        """Images, damaged ones included and removed ones not."""
        return int(self.manifest["count"]) - int(self.manifest.get("removed", 0))

    @property
    def generation(self) -> int:
        """How often the store was brought up to date since it was made."""
        return int(self.manifest.get("generation", 0))

    def records(self, ids: Sequence[int] | None = None) -> list[Record]:
        """What the catalog says of each image file, in the order of the ids; removed images have none.

        Parameters
        ----------
        ids : sequence of int, optional
            Only of these.
        """
        return self.catalog.records(ids)

    def ids_matching(self, tree: Tree) -> np.ndarray:
        """Ids of the usable images that a tree of conditions lets through, ascending int64.

        Raises
        ------
        features.collection.conditions.FilterError
            There is no such field, or it cannot be compared so; the message is for who asked.
        """
        if not self.has_annotations:
            return self.catalog.ids_matching(tree, own=self.told)
        own = {name: own_field(name, kind) for name, kind in self.annotations.fields().items()}
        return self.catalog.ids_matching(tree, self.annotations.path, {**self.told, **own})

    @property
    def has_annotations(self) -> bool:
        """Whether anything has been said of the images; opening `annotations` makes the file."""
        return (self.folder / ANNOTATIONS).exists()

    @cached_property
    def annotations(self) -> Annotations:
        """What people and models say of the images, opened at first use. See `Annotations.open`."""
        return Annotations.open(self)

    def changes_since(self, generation: int) -> tuple[np.ndarray, np.ndarray]:
        """What an index that was made of an earlier generation lacks.

        Returns
        -------
        changed : int64 (n,)
            Ids of usable images whose vector is of a later generation: new ones and edited ones.
        gone : int64 (m,)
            Ids that are no longer of use: of removed images, and of edited ones that cannot be read now.
        """
        if generation >= self.generation:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return self.catalog.changes_since(generation)

    def ids_with(self, filter: Mapping[str, str | Collection[str]]) -> np.ndarray:
        """Ids of the usable images that a filter lets through, ascending int64: see `Catalog.ids_with`."""
        return self.catalog.ids_with(filter, self.ids)

    def labels(self) -> dict[str, int]:
        """Number of usable images of each label, in the order of the labels."""
        return self.catalog.label_counts()

    def damaged(self) -> list[tuple[Path, str]]:
        """Path of each image that cannot be used, and why. Unlike `items` it costs nothing for the others."""
        root = Path(self.manifest["root"])
        return [(root / path, error) for path, error in self.catalog.damaged()]

    def hash_of(self, id: int) -> str | None:
        """SHA-256 of an image file when it was encoded; None if it could not even be read."""
        try:
            return self.catalog.hash_of(id)
        except KeyError as error:
            raise KeyError(f"no image with id {id} in {self.folder}") from error

    def find_hash(self, sha256: str) -> int | None:
        """Smallest id of a usable image with this content, or None."""
        return next(iter(self.find_copies(sha256)), None)

    def find_copies(self, sha256: str) -> list[int]:
        """Ids of all usable images with this content, ascending."""
        return self.catalog.ids_of_hash(sha256)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise StoreError unless the encoder makes vectors like those in this store."""
        check_same_encoder(self.manifest["encoder"], encoder.spec, self.folder)

    def verify(self, *, derived: bool = True) -> None:
        """Read all files of the collection and raise StoreError if they are not, bit for bit, what was written.

        Parameters
        ----------
        derived : bool
            Also what can be made again from the vectors: indexes and other spaces.
        """
        features, *others = vector_files(self.manifest)
        check_vectors(self.folder, features)
        self.verify_catalog()
        if derived:
            for entry in others:
                check_vectors(self.folder, entry)
            for entry in derived_files(self.manifest):
                if not any(entry is other for other in others):
                    self._check_sum(entry)

    def verify_catalog(self, *, structure: bool = True) -> None:
        """Read the catalog and raise StoreError if it is not what was written.

        Parameters
        ----------
        structure : bool
            Also look at every page of it, where its sum is right.
        """
        entry = self.manifest.get("catalog") or {}
        # A program may have added tables of its own to the catalog; damage does not count up as sqlite does.
        is_as_written = entry.get("change_counter") == change_counter(self.folder / catalog_file(self.manifest))
        if is_as_written:
            self._check_sum(entry)
        if structure or not is_as_written:
            self.catalog.check_structure()

    def _check_sum(self, entry: dict[str, Any]) -> None:
        path = self.folder / entry["file"]
        try:
            found = sha256_of(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        if found != (entry.get("sha256") or found):
            raise StoreError(
                f"{path} is damaged: its SHA-256 is {found}, but {self.folder / MANIFEST} says {entry['sha256']}"
            )

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace entries of the manifest, atomically (``metric``, the indexes' files and checksums, ...).

        A file that the manifest spoke of before and does not any more is deleted.
        """
        with self._lock, writing(self.folder, wait_seconds=5.0):
            manifest = {**read_manifest(self.folder), **entries}
            put_in_force(self.folder, manifest)
            self.manifest = manifest
            self.__dict__.pop("items", None)  # their paths follow from the manifest's root


def _size_of(path: Path) -> int:
    """Size of a regular file in bytes; StoreError for anything else."""
    try:
        found = path.stat()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path} cannot be read: it is not a file")
    return found.st_size


def _open_features(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """The vectors, memory-mapped, of the shape and type that the manifest says."""
    path = folder / manifest["features"]["file"]
    _size_of(path)  # not that of a pipe, which would be waited for
    try:
        features = map_vectors(folder, manifest["features"])
    except Exception as error:  # numpy reads the header as Python: whatever a broken one leads to means damage
        raise StoreError(f"{path} cannot be read: {error}") from error
    wanted = (manifest["count"], manifest["dim"]), manifest["dtype"]
    if (features.shape, features.dtype.name) != wanted or not features.flags.c_contiguous:
        raise StoreError(
            f"{path} holds {features.dtype.name} {features.shape}, but {folder / MANIFEST} says {wanted[1]} {wanted[0]}"
        )
    return features
