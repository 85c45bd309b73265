"""What has happened to the files of a collection since they were encoded."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from features.checksum import sha256_of
from features.collection.errors import StoreError
from features.collection.file_facts import UNKNOWN_TIME, stat_of
from features.collection.records import Record
from features.collection.store import FeatureStore
from features.datasets import Dataset, Item
from features.datasets.walk import is_excluded
from features.images import MAX_PIXELS, TOO_LARGE, ImageError
from features.picture_files import open_picture


class Found(NamedTuple):
    """A file that a store knows: what is on record, and its item, size and time now (looked at before its content)."""

    record: Record
    item: Item
    size: int
    mtime: int


@dataclass(frozen=True)
class Changes:
    """How the images of a dataset differ from those of a store.

    Attributes
    ----------
    kept : list of Found
        The same path, the same content.
    unread : list of Found
        The same path and time, but it could not be read then, so its content is not known. Perhaps it can be now.
    edited : list of Found
        The same path, other content.
    larger : list of Found
        The same path and content, too large for the limit of then and perhaps not for that of now, which is higher.
    renamed : list of Found
        The same content at another path, and nothing at the old one.
    removed : list of Record
        The file is gone, or the dataset leaves it out by its `exclude`.
    unlisted : list of Record
        The file is there but the dataset does not list it (any more): it may have had a reader that is gone.
    away : list of Record
        What has become of the file cannot be known now: a link leads to a drive that is away, a disk does not answer.
    added : list of Item
        Not in the store.
    """

    kept: list[Found] = field(default_factory=list)
    unread: list[Found] = field(default_factory=list)
    edited: list[Found] = field(default_factory=list)
    larger: list[Found] = field(default_factory=list)
    renamed: list[Found] = field(default_factory=list)
    removed: list[Record] = field(default_factory=list)
    unlisted: list[Record] = field(default_factory=list)
    away: list[Record] = field(default_factory=list)
    added: list[Item] = field(default_factory=list)

    def refuse(self, where: object) -> None:
        """Raise StoreError, naming the first difference, if there is any."""
        hint = "; --sync brings it up to date"
        for file in self.edited:
            raise StoreError(f"{file.item.path} has changed since {where} was made{hint}")
        for file in self.larger:
            raise StoreError(f"{file.item.path} was too large when {where} was made, and now the limit is higher{hint}")
        for file in self.renamed:
            raise StoreError(f"{where} has {str(file.record.path)!r}, which is now at {file.item.path}{hint}")
        for record in self.removed:
            raise StoreError(f"{where} has {str(record.path)!r}, which is gone{hint}")
        for record in self.unlisted:
            raise StoreError(f"{where} has {str(record.path)!r}, which is not among the images asked for")
        for item in self.added:
            others = f" and {len(self.added) - 1} more" if len(self.added) > 1 else ""
            raise StoreError(f"{where} does not have {item.path}{others}{hint}")


def find_changes(store: FeatureStore, dataset: Dataset, wanted: Sequence[Item]) -> Changes:
    """Compare the files of a dataset with what a store's catalog says of them.

    A file whose size and time are as recorded is taken to be unchanged. One of the same size and another time, and one
    that may have been renamed (another of its size is gone), is read and compared by its SHA-256.

    Parameters
    ----------
    wanted : sequence of Item
        What may be added: all of the dataset's items or the first of them. Whatever is in the store already is compared
        with all of them.
    """
    return _Comparison(store, dataset).run(wanted)


def check_same_collection(store: FeatureStore, dataset: Dataset, changes: Changes) -> None:
    """Raise StoreError if the dataset has another root than the store's and no image in common with it."""
    root = store.manifest["root"]
    gone = len(changes.removed) == store.image_count
    if not gone and root == str(dataset.root):
        return
    # A path, a size and a time may be the same by chance, and content may not.
    if not changes.renamed and not any(_is_in(store, dataset, item) for item in dataset.items):
        raise StoreError(
            f"none of the images of {store.folder} is in {dataset.root}: it is a collection of {root}; --name gives "
            f"these images a collection of their own"
        )


def _is_in(store: FeatureStore, dataset: Dataset, item: Item) -> bool:
    sha256 = hash_of_picture(dataset.root, item.path, getattr(dataset, "follow_links", False))
    return sha256 is not None and store.catalog.has_content(sha256)


def too_large_before(store: FeatureStore, dataset: Dataset) -> frozenset[Path]:
    """Paths of the images that were too large for the limit of then, where that of now is higher."""
    recorded = store.manifest.get("source", {}).get("max_megapixels")
    before = MAX_PIXELS if recorded is None else recorded * 1e6
    is_raised = (getattr(dataset, "max_pixels", None) or MAX_PIXELS) > before
    damaged = store.catalog.damaged() if is_raised else ()
    return frozenset(path for path, error in damaged if error.startswith(TOO_LARGE))


class _Comparison:
    def __init__(self, store: FeatureStore, dataset: Dataset) -> None:
        self._store, self._dataset, self._root = store, dataset, dataset.root
        self._follow_links = bool(getattr(dataset, "follow_links", False))
        self._exclude = tuple(getattr(dataset, "exclude", ()))
        self._listed = {item.path.relative_to(dataset.root): item for item in dataset.items}
        self._known: set[Path] = set()  # by their present path
        self._too_large = too_large_before(store, dataset)
        self._changes = Changes()

    def run(self, wanted: Sequence[Item]) -> Changes:
        unlisted: list[Record] = []
        missing: dict[int, list[Record]] = {}  # by size
        for record in self._store.records():
            if record.path in self._listed:
                self._known.add(record.path)
                self._compare(Found(record, self._listed[record.path], *stat_of(self._listed[record.path].path)))
            elif is_excluded(record.path, self._exclude):
                self._changes.removed.append(record)
            elif is_gone(self._root, record.path):
                missing.setdefault(record.size, []).append(record)
            elif stat_of(self._root / record.path)[0] < 0:
                self._changes.away.append(record)
            else:
                unlisted.append(record)
        if unlisted:
            self._find_other_spellings(unlisted)
        if missing:
            self._find_renamed(missing)
        self._changes.removed.extend(record for records in missing.values() for record in records)
        paths = ((item.path.relative_to(self._root), item) for item in wanted)
        self._changes.added.extend(item for path, item in paths if path not in self._known)
        return self._changes

    def _compare(self, file: Found) -> None:
        """Put a file that is still at its path where it belongs."""
        record, changes = file.record, self._changes
        same_time = file.mtime == record.mtime and abs(file.mtime) < UNKNOWN_TIME
        if record.sha256 is None and (file.size, file.mtime) == (record.size, record.mtime):
            changes.unread.append(file)
        elif file.size == record.size and (same_time or self._hash_of(file.item) == record.sha256 is not None):
            (changes.larger if record.path in self._too_large else changes.kept).append(file)
        elif record.sha256 is not None and not can_be_read(self._dataset, file.item):
            changes.away.append(record)
        else:
            changes.edited.append(file)

    def _find_other_spellings(self, unlisted: list[Record]) -> None:
        """Where a disk takes two spellings of a name for one, a file is still found under the one it had before."""
        new_names: dict[str, list[Path]] = {}
        for name in self._listed:
            new_names.setdefault(_spelling(name), []).append(name)
        for record in unlisted:
            old = self._root / record.path
            names = new_names.get(_spelling(record.path), ())
            path = next((name for name in names if _is_same_file(old, self._root / name)), None)
            if path is None:
                self._changes.unlisted.append(record)
            elif path in self._known:
                self._changes.removed.append(record)  # it was taken for two images once
            else:
                self._known.add(path)
                file = Found(record, self._listed[path], *stat_of(self._root / path))
                same_content = file.size == record.size and self._hash_of(file.item) == record.sha256
                (self._changes.renamed if same_content else self._changes.edited).append(file)

    def _find_renamed(self, missing: dict[int, list[Record]]) -> None:
        for path, item in self._listed.items():
            if path in self._known:
                continue
            size, mtime = stat_of(item.path)
            candidates = missing.get(size, [])
            if candidates and (same := self._of_content(candidates, item)):
                candidates.remove(same)
                self._changes.renamed.append(Found(same, item, size, mtime))
                self._known.add(path)

    def _of_content(self, records: list[Record], item: Item) -> Record | None:
        """The record of this very content, one with the same file name if several have it."""
        sha256 = self._hash_of(item)
        same = [record for record in records if record.sha256 is not None and record.sha256 == sha256]
        return min(same, key=lambda record: record.path.name != item.path.name, default=None)

    def _hash_of(self, item: Item) -> str | None:
        return hash_of_picture(self._root, item.path, self._follow_links)


def can_be_read(dataset: Dataset, item: Item) -> bool:
    """Whether the operating system lets the file be read, or at least knows that it is none."""
    try:
        with open_picture(dataset.root, item.path, follow_links=getattr(dataset, "follow_links", False)) as file:
            file.read(1)
    except ImageError as error:
        return error.errno is None
    except OSError:
        return False
    return True


def hash_of_picture(root: Path, path: Path, follow_links: bool) -> str | None:
    """SHA-256 of a picture file; None if it cannot be read."""
    try:
        with open_picture(root, path, follow_links=follow_links) as file:
            return sha256_of(file)
    except (ImageError, OSError):
        return None


def is_gone(root: Path, path: Path) -> bool:
    """Whether there certainly is no such file below the root. One that cannot be looked at may be there, and so may one
    that is reached through a link to a place that is away.
    """
    place = root
    for part in path.parts:
        place = place / part
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        if stat.S_ISLNK(mode) and not os.path.exists(place):  # noqa: PTH110  # Path.exists raises for some errors
            return False
    return False


def _spelling(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
