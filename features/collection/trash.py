"""Files of pictures that people have set aside as duplicates, moved to a trash folder and back.

This is all that ever moves an original, and it deletes none: the trash is a hidden folder beside the pictures, which no
dataset looks into, files keep in it the paths that they had, and a log in it says how to put them back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from features.checksum import sha256_of
from features.collection.duplicates import set_aside
from features.collection.errors import StoreError
from features.collection.lock import writing
from features.collection.records import Record
from features.collection.store import FeatureStore
from features.images import ImageError
from features.picture_files import open_picture

FOLDER, LOG = ".duplicates-trash", "log.jsonl"


@dataclass(frozen=True)
class Moved:
    """What became of files, by their paths relative to the root.

    Attributes
    ----------
    paths : tuple of Path
        Of those that were moved.
    left : tuple of (Path, str)
        Those that stayed where they were, and why.
    """

    paths: tuple[Path, ...]
    left: tuple[tuple[Path, str], ...]


def trash_folder(store: FeatureStore) -> Path:
    """Where the files of a collection are moved to."""
    return Path(store.manifest["root"]) / FOLDER


def why_no_trash(store: FeatureStore) -> str | None:
    """Why no file of a collection is moved; None where they may be."""
    kind = store.manifest.get("source", {}).get("kind")
    if kind != "folder":
        return f"{store.folder.name} is not a folder of your own: its files stay where they are"
    return None


def trashed(store: FeatureStore) -> list[Path]:
    """The paths, relative to the root, of the files in the trash that can be put back."""
    return [Path(entry["path"]) for entry in _in_trash(store)]


def move_to_trash(store: FeatureStore, expected: int) -> Moved:
    """Move the files of all pictures that are set aside, as a person has confirmed.

    A file stays where it is that has changed since, that is a link or reached by one, or whose picture is not there
    any more in the file that is kept. The collection still lists what was moved: it is to be synced.

    Parameters
    ----------
    expected : int
        How many files the person has confirmed to move.

    Raises
    ------
    StoreError
        Another number is set aside by now, files of this collection are not moved, or another writer is at work.
    """
    if reason := why_no_trash(store):
        raise StoreError(reason)
    with writing(store.folder, purpose="cleared of duplicates"):
        away = set_aside(store.annotations) if store.has_annotations else {}
        if len(away) != expected:
            raise StoreError(f"{len(away):,} pictures are set aside by now, and not {expected:,}: look again")
        trash, left = trash_folder(store), list[tuple[Path, str]]()
        planned: list[tuple[Record, Path]] = []
        taken: set[Path] = set()
        for record in store.records(list(away)):
            if reason := _why_not(store, record, away):
                left.append((record.path, reason))
            else:
                planned.append((record, _free(trash, record.path, taken)))
        # The log comes first: what it tells of and did not come to pass is passed over as files are put back.
        _write_log(store, [*_in_trash(store), *(_entry(record, there, away) for record, there in planned)])
        moved = []
        for record, there in planned:
            if reason := _rename(trash.parent / record.path, trash / there):
                left.append((record.path, reason))
            else:
                moved.append(record.path)
        return Moved(tuple(moved), tuple(left))


def put_back(store: FeatureStore) -> Moved:
    """Move all files in the trash back to where they were, unless something else is there. The collection is to be
    synced.

    Raises
    ------
    StoreError
        Another writer is at work.
    """
    with writing(store.folder, purpose="given its duplicates back"):
        trash, moved, left, stays = trash_folder(store), [], [], []
        for entry in _log(store):
            path, there = Path(entry["path"]), trash / entry["trashed"]
            if not there.is_file():
                continue
            reason = (
                _rename(there, trash.parent / path) if _is_free(trash.parent, path) else "its place is taken by now"
            )
            if reason:
                left.append((path, reason))
                stays.append(entry)
            else:
                moved.append(path)
        _write_log(store, stays)
        _remove_empty(trash)
        return Moved(tuple(moved), tuple(left))


def _why_not(store: FeatureStore, record: Record, away: dict[int, str]) -> str | None:
    """Why the file of a picture that is set aside stays where it is; None if it may go."""
    root = Path(os.path.realpath(store.manifest["root"]))
    if os.path.realpath(root / record.path) != os.fspath(root / record.path):
        return "it is a link, or reached by one"
    try:
        if _content(store, record) != record.sha256:
            return "the file has changed: sync the collection first"
        kept, seen = away[record.id], set[str]()
        while kept not in seen:
            seen.add(kept)
            same = store.catalog.ids_of_hash(kept)
            stays = [id for id in same if id not in away]
            if any(_content(store, each) == kept for each in store.records(stays)):
                return None
            kept = next((away[id] for id in same if id in away), kept)  # what was kept was set aside later
    except ImageError as error:
        return error.reason
    return "the picture that is kept in its place is not there any more"


def _content(store: FeatureStore, record: Record) -> str | None:
    links = store.manifest.get("source", {}).get("follow_links") is True
    with open_picture(store.manifest["root"], record.path, follow_links=links) as file:
        return sha256_of(file)


def _free(trash: Path, path: Path, taken: set[Path]) -> Path:
    """A path in the trash for a file of this path: the same, or with a number where that is taken."""
    for number in count(1):
        there = path if number == 1 else path.with_name(f"{path.stem} ({number}){path.suffix}")
        if there not in taken and not os.path.lexists(trash / there):
            break
    taken.add(there)
    return there


def _is_free(root: Path, path: Path) -> bool:
    """Whether a file can be put at a path below the root, which no link leads out of there."""
    place = root / path
    return not os.path.lexists(place) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root))


def _rename(source: Path, target: Path) -> str | None:
    """Move a file; why that failed, or None."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _entry(record: Record, there: Path, away: dict[int, str]) -> dict[str, Any]:
    moved = {"path": record.path.as_posix(), "trashed": there.as_posix(), "sha256": record.sha256}
    return {**moved, "kept_sha256": away[record.id], "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _in_trash(store: FeatureStore) -> list[dict[str, Any]]:
    """What the log tells of and is in the trash."""
    return [entry for entry in _log(store) if (trash_folder(store) / entry["trashed"]).is_file()]


def _log(store: FeatureStore) -> list[dict[str, Any]]:
    """What was moved, the oldest first. Raises StoreError for a log that says what it cannot."""
    path = trash_folder(store) / LOG
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return list(_entries(path, lines))


def _entries(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            places = [Path(entry["path"]), Path(entry["trashed"])]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} cannot be read: line {number} is not one of its own") from error
        if any(place.is_absolute() or ".." in place.parts for place in places):
            raise StoreError(f"{path} leads out of its folder in line {number}")
        yield entry


def _write_log(store: FeatureStore, entries: list[dict[str, Any]]) -> None:
    """Replace the log, durably and as a whole; without entries there is none."""
    trash = trash_folder(store)
    if not entries:
        (trash / LOG).unlink(missing_ok=True)
        return
    trash.mkdir(exist_ok=True)
    new = trash / f".{LOG}.new"
    with new.open("w", encoding="ascii") as file:  # names that are not UTF-8 are escaped
        file.writelines(f"{json.dumps(entry)}\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())
    new.replace(trash / LOG)


def _remove_empty(trash: Path) -> None:
    for folder, _, _ in os.walk(trash, topdown=False):
        try:
            os.rmdir(folder)  # noqa: PTH106  # only where nothing is in it
        except OSError:
            continue
