"""What people decide of duplicates: which pictures are none of each other, and which are set aside for another.

Decisions hang on the content of the files, so they hold both ways round, for copies elsewhere in the collection and
after every sync, and go where a file is edited. Each is an edit that `edits.undo` takes back. Nothing here touches a
file.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from features.collection.annotations import Annotations
from features.collection.edits import VERDICTS, editing, keep_edit
from features.collection.errors import StoreError

DIFFERENT, LATER = "different", "later"
MAX_DECIDED = 200
"""Pictures of one decision: it is kept for every two of them."""

_ROW = ", ".join(VERDICTS["duplicate_verdicts"])


def call_different(annotations: Annotations, ids: Iterable[int]) -> int | None:
    """Say that no two of some images are duplicates of each other.

    Returns the number of the edit, None where it changed nothing. So do the other decisions.

    Raises
    ------
    StoreError
        There are fewer than two, or more than `MAX_DECIDED`, or there is no such image. So do the other decisions.
    """
    return _decide(annotations, ids, DIFFERENT, "pictures called no duplicates")


def postpone(annotations: Annotations, ids: Iterable[int]) -> int | None:
    """Put off the decision about some images."""
    return _decide(annotations, ids, LATER, "pictures put off for later")


def keep(annotations: Annotations, kept: int, others: Sequence[int]) -> int | None:
    """Keep one of several duplicates, and set the others aside.

    What people have said of the others, their tags, captions, fields, albums and whether one is a favourite, is then
    said of the kept one as well; a field that it has stays as it is.
    """
    ids = [kept, *others]
    _check_count(ids)
    numbers: list[int] = []
    with editing(annotations, ids, f"{len(ids) - 1:,} set aside as duplicates", numbers) as (connection, keys):
        first, asked = keys[0], json.dumps(list(keys[1:]))
        contents = _contents(connection, keys)
        connection.execute("DELETE FROM set_aside WHERE picture = ?", (first,))
        connection.executemany(
            "INSERT OR REPLACE INTO set_aside (picture, sha256, kept) VALUES (?, ?, ?)",
            ((key, contents[key], contents[first]) for key in keys[1:]),
        )
        among = "WHERE picture IN (SELECT value FROM json_each(?))"
        for table, columns in _HANDED_ON.items():
            by_person = "" if table in ("albums", "favourites") else "AND source = 'person'"
            names = ", ".join(("picture", *columns))
            values = ", ".join(("?", *columns))
            connection.execute(
                f"INSERT OR IGNORE INTO {table} ({names}) SELECT {values} FROM {table} {among} {by_person}",
                (first, asked),
            )
    return numbers[0] if numbers else None


_HANDED_ON = {
    "tags": ("tag", "source", "maker", "certainty"),
    "captions": ("source", "maker", "text", "certainty"),
    "field_values": ("name", "value", "source", "maker"),
    "albums": ("album",),
    "favourites": (),
}


def take_back(annotations: Annotations, ids: Iterable[int]) -> int | None:
    """Set images aside no longer."""
    numbers: list[int] = []
    with editing(annotations, ids, "no longer set aside", numbers) as (connection, keys):
        connection.executemany("DELETE FROM set_aside WHERE picture = ?", ((key,) for key in keys))
    return numbers[0] if numbers else None


def set_aside(annotations: Annotations) -> dict[int, str]:
    """The images that are set aside, ascending, each with the SHA-256 of the one that is kept."""
    return dict(
        annotations.rows(
            "SELECT image_id, kept FROM set_aside JOIN pictures USING (picture) "
            "WHERE image_id NOT NULL AND set_aside.sha256 = pictures.sha256 ORDER BY image_id"
        )
    )


def verdicts(annotations: Annotations) -> dict[tuple[str, str], str]:
    """Of two contents, by their SHA-256, the smaller first, what was decided: `DIFFERENT` or `LATER`."""
    return {
        (first, second): verdict
        for first, second, verdict in annotations.rows(f"SELECT {_ROW} FROM duplicate_verdicts")
    }


def _decide(annotations: Annotations, ids: Iterable[int], verdict: str, what: str) -> int | None:
    asked = list(dict.fromkeys(ids))
    _check_count(asked)
    with annotations.changing() as connection:
        contents = _contents(connection, annotations.keys_of(connection, asked))
        pairs = {tuple(sorted(pair)) for pair in itertools.combinations(contents.values(), 2)}
        rows = sorted((*pair, verdict) for pair in pairs)
        same = f"SELECT {_ROW} FROM duplicate_verdicts WHERE first = ? AND second = ?"
        before = [row for pair in sorted(pairs) for row in connection.execute(same, pair)]
        if sorted(before) == rows:
            return None
        connection.executemany(f"INSERT OR REPLACE INTO duplicate_verdicts ({_ROW}) VALUES (?, ?, ?)", rows)
        changes: dict[str, Any] = {"duplicate_verdicts": (before, rows)}
        return keep_edit(connection, f"{len(asked):,} {what}", changes)


def _contents(connection: sqlite3.Connection, keys: Sequence[int]) -> dict[int, str]:
    asked = (json.dumps(list(keys)),)
    rows = connection.execute(
        "SELECT picture, sha256 FROM pictures WHERE picture IN (SELECT value FROM json_each(?))", asked
    )
    found = {key: sha256 for key, sha256 in rows if sha256 is not None}
    return {key: found[key] for key in keys}


def _check_count(ids: Sequence[int]) -> None:
    if not 2 <= len(set(ids)) <= MAX_DECIDED:
        raise StoreError(f"a decision about duplicates is of 2 to {MAX_DECIDED} pictures, got {len(set(ids)):,}")
