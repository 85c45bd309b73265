"""What became of each file that a job has looked at: counts that are those of the catalog, names, a table of all."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from features.collection.store import FeatureStore
from features.collection.sync import SyncReport
from features.datasets.walk import LeftOut
from gradio_app.markup import printable
from search.duplicate_pairs import Level, Pairs
from search.duplicates import groups_of

COLUMNS = ("what", "path", "why")
KINDS = ("added", "updated", "renamed", "removed", "away", "duplicate", "unreadable", "left out")
"""What can become of a file. A duplicate is added as well; the others exclude each other."""
SHOWN = 100  # files of a kind that the page names
REASONS = 12

_SAME = {
    Level.SAME_BYTES: "the same file as",
    Level.SAME_PIXELS: "the same pixels as",
    Level.PROVED: "the same picture as",
    Level.LIKELY: "probably the same picture as",
    Level.ALIKE: "looks like",
}


class Note(NamedTuple):
    """What became of a file, by its path below the folder of the pictures, and why."""

    what: str
    path: str
    why: str = ""


def notes_of_making(store: FeatureStore, left_out: Iterable[LeftOut]) -> list[Note]:
    """Of a collection that was made: one of each picture of its catalog, and of what is none."""
    notes = [
        Note("added", _written(path)) if error is None else Note("unreadable", _written(path), error)
        for _, path, error in store.catalog.images()
    ]
    return [*notes, *_duplicates(store, set(store.ids.tolist())), *_left_out(left_out)]


def notes_of_sync(store: FeatureStore, changes: SyncReport, left_out: Iterable[LeftOut]) -> list[Note]:
    """Of a collection that was brought up to date: one of each picture that changed, and of what is none."""
    damaged = dict(changes.damaged)
    notes = [Note("added", _written(path)) for path in changes.added if path not in damaged]
    notes += [Note("updated", _written(path)) for path in changes.edited if path not in damaged]
    notes += [Note("renamed", _written(now), f"was {_written(before)}") for before, now in changes.renamed]
    notes += [Note("removed", _written(path)) for path in changes.removed]
    notes += [
        Note("away", _written(path), "it cannot be looked at now, and is kept as it was") for path in changes.away
    ]
    notes += [Note("unreadable", _written(path), why) for path, why in changes.damaged]
    new = {*changes.added, *changes.edited} - damaged.keys()
    ids = {id for id, path, _ in store.catalog.images() if path in new} if new else set()
    return [*notes, *_duplicates(store, ids), *_left_out(left_out)]


def _duplicates(store: FeatureStore, new: set[int]) -> list[Note]:
    """Of the new pictures those that were there already, or of several new ones all but the best."""
    found: dict[int, tuple[int, Level]] = {}
    for group in groups_of(store, Pairs.of(store)) if new else ():  # the surest first
        there = [id for id in group.ids if id not in new]
        best = there[0] if there else group.ids[0]
        for id in group.ids:
            if id in new and id != best:
                found.setdefault(id, (best, group.level))
    paths = {
        record.id: record.path for record in store.records(sorted({*found, *(best for best, _ in found.values())}))
    }
    return [
        Note("duplicate", _written(paths[id]), f"{_SAME[level]} {_written(paths[best])}")
        for id, (best, level) in found.items()
    ]


def _left_out(left_out: Iterable[LeftOut]) -> list[Note]:
    return [Note("left out", printable(path), reason) for path, reason in left_out]


def _written(path: Path) -> str:
    return printable(path.as_posix())


def shown(notes: Sequence[Note], *, unnamed: int = 0) -> list[dict[str, Any]]:
    """What the page tells of the kinds that there are.

    Parameters
    ----------
    unnamed : int
        How many more files were left out than notes name.
    """
    kinds = []
    for kind in KINDS:
        rows = [note for note in notes if note.what == kind]
        count = len(rows) + (unnamed if kind == "left out" else 0)
        if not count:
            continue
        reasons = Counter(note.why for note in rows) if kind in ("unreadable", "left out") else Counter()
        kinds.append(
            {
                "kind": kind,
                "count": count,
                "reasons": reasons.most_common(REASONS),
                "files": [(note.path, note.why) for note in rows[:SHOWN]],
            }
        )
    return kinds


def write_table(notes: Sequence[Note], file: Path) -> None:
    """All notes as CSV. The file is there as a whole, or not at all."""
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out)
            table.writerow(COLUMNS)
            table.writerows(notes)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
