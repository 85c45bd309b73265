"""What has happened to the files of a collection since they were encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from features.checksum import sha256_of
from features.collection.catalog import Record, stat_of
from features.collection.errors import StoreError
from features.collection.store import FeatureStore
from features.datasets import Dataset, Item


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
    renamed : list of Found
        The same content at another path, and nothing at the old one.
    removed : list of Record
        The file is gone.
    unlisted : list of Record
        The file is there but the dataset does not list it (any more): it may have had a reader that is gone.
    added : list of Item
        Not in the store.
    """

    kept: list[Found]
    unread: list[Found]
    edited: list[Found]
    renamed: list[Found]
    removed: list[Record]
    unlisted: list[Record]
    added: list[Item]

    def refuse(self, where: object) -> None:
        """Raise StoreError, naming the first difference, if there is any."""
        hint = "; --sync brings it up to date"
        for file in self.edited:
            raise StoreError(f"{file.item.path} has changed since {where} was made{hint}")
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
    listed = {item.path.relative_to(dataset.root): item for item in dataset.items}
    changes = Changes([], [], [], [], [], [], [])
    missing: dict[int, list[Record]] = {}  # by size
    known = set()
    for record in store.records():
        known.add(record.path)
        if record.path in listed:
            file = Found(record, listed[record.path], *stat_of(listed[record.path].path))
            _list_for(file, changes).append(file)
        elif not _is_gone(dataset.root / record.path):
            changes.unlisted.append(record)
        else:
            missing.setdefault(record.size, []).append(record)

    found = set()
    for path, item in listed.items() if missing else ():
        if path in known:
            continue
        size, mtime = stat_of(item.path)
        candidates = missing.get(size, [])
        if candidates and (same := _of_content(candidates, item)):
            candidates.remove(same)
            changes.renamed.append(Found(same, item, size, mtime))
            found.add(path)
    changes.removed.extend(record for records in missing.values() for record in records)
    for item in wanted:
        path = item.path.relative_to(dataset.root)
        if path not in known and path not in found:
            changes.added.append(item)
    return changes


def _list_for(file: Found, changes: Changes) -> list[Found]:
    """Which list of `changes` a file belongs in that is still at its path."""
    record = file.record
    if record.sha256 is None and (file.size, file.mtime) == (record.size, record.mtime):
        return changes.unread
    if file.size == record.size and (file.mtime == record.mtime or _hash_of(file.item.path) == record.sha256):
        return changes.kept
    return changes.edited


def _of_content(records: list[Record], item: Item) -> Record | None:
    """The record of this very content, one with the same file name if several have it."""
    sha256 = _hash_of(item.path)
    same = [record for record in records if record.sha256 is not None and record.sha256 == sha256]
    return min(same, key=lambda record: record.path.name != item.path.name, default=None)


def _hash_of(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _is_gone(path: Path) -> bool:
    """Whether there certainly is no such file; one that cannot be looked at may be there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
