"""What people say of pictures: each edit keeps in the same transaction what takes it back.

Machine words that a person removes are refused for good: the maker does not say them of this picture again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from features.collection.annotation_rows import refresh, set_fields
from features.collection.annotations import Annotations
from features.collection.errors import StoreError
from features.collection.said import A_PERSON, Value, as_text, clean_tag, clean_text, field_name, kind_of, stored
from features.collection.typed_fields import fitting, kind_held

MAX_EDITS = 1_000
"""Edits that can be undone; what lies further back is for good."""

SAID = {
    "captions": ("picture", "source", "maker", "text", "certainty"),
    "tags": ("picture", "tag", "source", "maker", "certainty"),
    "field_values": ("picture", "name", "value", "source", "maker"),
    "refused": ("picture", "kind", "text"),
    "favourites": ("picture",),
    "albums": ("picture", "album"),
    "set_aside": ("picture", "sha256", "kept"),
}
"""What is said of pictures."""

_OF_TAGS, _OF_CAPTIONS = ("tags", "refused"), ("captions", "refused")
"""What an edit of tags or of captions changes."""

LEARNED = {
    "learned_tags": ("tag", "vector", "middle", "slope", "metric", "encoder"),
    "learned_examples": ("tag", "picture", "meant"),
}
"""What `learned_tags` changes: no words of pictures, but taken back with them."""

VERDICTS = {"duplicate_verdicts": ("first", "second", "verdict")}
"""What `duplicates` changes, likewise."""

FIELDS = {"fields": ("name", "kind")}
RUNS = {"runs": ("picture", "source", "maker", "version", "sha256")}
"""What `resets` takes away beside the others."""

_Rows = dict[str, set[tuple[object, ...]]]


class Edit(NamedTuple):
    """An edit that can be undone: its number, when it was (nanoseconds since 1970) and what it did, in a sentence."""

    number: int
    at: int
    what: str


def add_tag(annotations: Annotations, ids: Iterable[int], tag: str) -> None:
    """Give images a tag.

    Raises
    ------
    StoreError
        The tag is empty, or there is no such image. So do the other edits.
    """
    tag = _not_empty(clean_tag(tag), "a tag")
    with editing(annotations, ids, f"tagged {tag}", tables=_OF_TAGS) as (connection, keys):
        _add_tag(connection, keys, tag)


def remove_tag(annotations: Annotations, ids: Iterable[int], tag: str) -> None:
    """Take a tag from images, whoever gave it."""
    tag = clean_tag(tag)
    with editing(annotations, ids, f"tag {tag} removed", tables=_OF_TAGS) as (connection, keys):
        _remove_tag(connection, keys, tag)


def add_caption(annotations: Annotations, ids: Iterable[int], text: str) -> None:
    """Say a sentence of images."""
    text = _not_empty(clean_text(text), "a caption")
    with editing(annotations, ids, "caption added", tables=_OF_CAPTIONS) as (connection, keys):
        _add_caption(connection, keys, text)


def remove_caption(annotations: Annotations, ids: Iterable[int], text: str) -> None:
    """Take a caption from images, whoever said it."""
    with editing(annotations, ids, "caption removed", tables=_OF_CAPTIONS) as (connection, keys):
        _remove_caption(connection, keys, clean_text(text))


def change_caption(annotations: Annotations, ids: Iterable[int], old: str, new: str) -> None:
    """Put a person's caption in the place of one, whoever said that."""
    new = _not_empty(clean_text(new), "a caption")
    with editing(annotations, ids, "caption changed", tables=_OF_CAPTIONS) as (connection, keys):
        _remove_caption(connection, keys, clean_text(old))
        _add_caption(connection, keys, new)


def set_field(annotations: Annotations, ids: Iterable[int], name: str, value: Value | None) -> None:
    """Give images a value of a field, or none. One that the field cannot hold is refused: see `typed_fields`."""
    known = _not_empty(field_name(name), "the name of a field")
    with editing(annotations, ids, _field_set(known, value), tables=("field_values",)) as (connection, keys):
        _set_field(connection, keys, known, value)


def set_favourite(annotations: Annotations, ids: Iterable[int], is_favourite: bool) -> None:
    """Count images among the favourites, or no longer."""
    what = "made a favourite" if is_favourite else "no longer a favourite"
    with editing(annotations, ids, what, tables=("favourites",)) as (connection, keys):
        _set_favourite(connection, keys, is_favourite)


@dataclass(frozen=True)
class Changes:
    """Several edits at once. Of a field, None means no value.

    Attributes
    ----------
    add_tags, remove_tags, add_captions, remove_captions : tuple of str
    fields : mapping of str to Value or None
    is_favourite : bool or None
        None: as it is.
    """

    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    add_captions: tuple[str, ...] = ()
    remove_captions: tuple[str, ...] = ()
    fields: Mapping[str, Value | None] = field(default_factory=dict)
    is_favourite: bool | None = None


def change(annotations: Annotations, ids: Iterable[int], changes: Changes) -> int | None:
    """Make several edits of images as one, that is done and taken back as a whole.

    Returns
    -------
    int or None
        The number of the edit; None where nothing changed.
    """
    to_add = [_not_empty(clean_tag(tag), "a tag") for tag in changes.add_tags]
    to_say = [_not_empty(clean_text(text), "a caption") for text in changes.add_captions]
    fields = {_not_empty(field_name(name), "the name of a field"): value for name, value in changes.fields.items()}
    what = [f"tagged {tag}" for tag in to_add] + [f"tag {clean_tag(tag)} removed" for tag in changes.remove_tags]
    what += ["caption added"] * len(to_say) + ["caption removed"] * len(changes.remove_captions)
    what += [_field_set(name, value) for name, value in fields.items()]
    if changes.is_favourite is not None:
        what.append("made a favourite" if changes.is_favourite else "no longer a favourite")
    numbers: list[int] = []
    with editing(annotations, ids, ", ".join(what), numbers) as (connection, keys):
        for tag in changes.remove_tags:
            _remove_tag(connection, keys, clean_tag(tag))
        for text in changes.remove_captions:
            _remove_caption(connection, keys, clean_text(text))
        for tag in to_add:
            _add_tag(connection, keys, tag)
        for text in to_say:
            _add_caption(connection, keys, text)
        for name, value in fields.items():
            _set_field(connection, keys, name, value)
        if changes.is_favourite is not None:
            _set_favourite(connection, keys, changes.is_favourite)
    return numbers[0] if numbers else None


def put_in_album(annotations: Annotations, ids: Iterable[int], album: str) -> None:
    """Put images into an album; it is made where there is none of this name."""
    album = _not_empty(clean_tag(album), "the name of an album")
    with editing(annotations, ids, f"put in the album {album}", tables=("albums",)) as (connection, keys):
        named = connection.execute("SELECT album FROM albums WHERE album = ? LIMIT 1", (album,)).fetchone()
        known = album if named is None else named[0]
        connection.executemany(
            "INSERT OR IGNORE INTO albums (picture, album) VALUES (?, ?)", ((key, known) for key in keys)
        )


def take_out_of_album(annotations: Annotations, ids: Iterable[int], album: str) -> None:
    """Take images out of an album; it is gone with the last of them."""
    album = clean_tag(album)
    with editing(annotations, ids, f"taken out of the album {album}", tables=("albums",)) as (connection, keys):
        connection.executemany("DELETE FROM albums WHERE picture = ? AND album = ?", ((key, album) for key in keys))


def edits(annotations: Annotations, limit: int = 20) -> list[Edit]:
    """The last edits that can be undone, the latest first."""
    rows = annotations.rows("SELECT edit, at, what FROM edits ORDER BY edit DESC LIMIT ?", (limit,))
    return [Edit(*row) for row in rows]


def undo(annotations: Annotations, number: int | None = None) -> str | None:
    """Take back the latest edit; returns what it had done, None if there is none.

    What makers have said since of the same pictures stays.

    Parameters
    ----------
    number : int, optional
        Of the edit that is meant.

    Raises
    ------
    StoreError
        Another edit is the latest, or a field that it took away has been made again, of another kind.
    """
    with annotations.changing() as connection:
        row = connection.execute("SELECT edit, what, changes FROM edits ORDER BY edit DESC LIMIT 1").fetchone()
        if number is not None and (row is None or row[0] != number):
            raise StoreError("something else has been edited meanwhile: look again before you take it back")
        if row is None:
            return None
        number, what, changes = row
        keys: set[int] = set()
        for table, (removed, added) in json.loads(changes).items():
            columns = {**SAID, **LEARNED, **VERDICTS, **FIELDS, **RUNS}[table]
            if table in FIELDS:
                _check_kinds(connection, removed)
            same = " AND ".join(f"{column} IS ?" for column in columns)
            connection.executemany(f"DELETE FROM {table} WHERE {same}", added)
            connection.executemany(
                f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                removed,
            )
            if table in SAID:
                keys.update(row[0] for row in (*removed, *added))
        connection.execute("DELETE FROM edits WHERE edit = ?", (number,))
        refresh(connection, sorted(keys))
    return str(what)


def _check_kinds(connection: sqlite3.Connection, fields: Iterable[tuple[str, str]]) -> None:
    """Raise StoreError where there is a field of the name of one of these, and of another kind."""
    for name, kind in fields:
        if kind_held(connection, name) not in (None, kind):
            raise StoreError(f"a field {name} that holds something else has been made meanwhile: drop that first")


def keep_edit(connection: sqlite3.Connection, what: str, changes: Mapping[str, Any]) -> int:
    """Keep in a transaction what takes it back: of each table the rows that were taken away, and those put in.

    Returns the number of the edit.
    """
    kept = connection.execute(
        "INSERT INTO edits (at, what, changes) VALUES (?, ?, ?)", (time.time_ns(), what, json.dumps(changes))
    )
    connection.execute("DELETE FROM edits WHERE edit <= (SELECT max(edit) FROM edits) - ?", (MAX_EDITS,))
    assert kept.lastrowid is not None
    return kept.lastrowid


@contextmanager
def editing(
    annotations: Annotations,
    ids: Iterable[int],
    what: str,
    numbers: list[int] | None = None,
    *,
    tables: Sequence[str] = tuple(SAID),
) -> Iterator[tuple[sqlite3.Connection, Sequence[int]]]:
    """A transaction over the keys of some images that ends with what takes it back. Nothing changed is no edit.

    Parameters
    ----------
    numbers : list, optional
        The number of the edit is put into it.
    tables : sequence of str
        Those that the edit may change: what it changes in others is not taken back.
    """
    with annotations.changing() as connection:
        keys = annotations.keys_of(connection, ids)
        before = _rows_of(connection, keys, tables)
        yield connection, keys
        after = _rows_of(connection, keys, tables)
        changes = {
            table: (sorted(before[table] - after[table], key=repr), sorted(after[table] - before[table], key=repr))
            for table in tables
            if before[table] != after[table]
        }
        if not changes:
            return
        many = "" if len(keys) == 1 else f" ({len(keys):,} pictures)"
        number = keep_edit(connection, what + many, changes)
        if numbers is not None:
            numbers.append(number)
        refresh(connection, keys)


def _rows_of(connection: sqlite3.Connection, keys: Sequence[int], tables: Iterable[str]) -> _Rows:
    asked = (json.dumps(list(keys)),)
    return {
        table: set(
            connection.execute(
                f"SELECT {', '.join(SAID[table])} FROM {table} WHERE picture IN (SELECT value FROM json_each(?))",
                asked,
            )
        )
        for table in tables
    }


def _add_tag(connection: sqlite3.Connection, keys: Sequence[int], tag: str) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO tags (picture, tag, source, maker) VALUES (?, ?, ?, ?)",
        ((key, tag, *A_PERSON) for key in keys),
    )
    _allow(connection, keys, "tag", tag)


def _remove_tag(connection: sqlite3.Connection, keys: Sequence[int], tag: str) -> None:
    _refuse(connection, keys, "tag", tag)
    connection.executemany(
        "DELETE FROM tags WHERE picture = ? AND tag = ? COLLATE NOCASE", ((key, tag) for key in keys)
    )


def _field_set(name: str, value: Value | None) -> str:
    held = None if value is None else stored(value)
    if value is None or held is None:
        return f"{name} emptied"
    return f"{name} set to {as_text(held, kind_of(value))}"


def _set_field(connection: sqlite3.Connection, keys: Sequence[int], name: str, value: Value | None) -> None:
    if value is None or stored(value) is None:
        connection.executemany("DELETE FROM field_values WHERE picture = ? AND name = ?", ((key, name) for key in keys))
    else:
        kind = kind_held(connection, name)
        set_fields(connection, A_PERSON, keys, {name: value if kind is None else fitting(name, kind, value)})


def _set_favourite(connection: sqlite3.Connection, keys: Sequence[int], is_favourite: bool) -> None:
    statement = "INSERT OR IGNORE INTO favourites VALUES (?)"
    if not is_favourite:
        statement = "DELETE FROM favourites WHERE picture = ?"
    connection.executemany(statement, ((key,) for key in keys))


def _add_caption(connection: sqlite3.Connection, keys: Sequence[int], text: str) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO captions (picture, source, maker, text) VALUES (?, ?, ?, ?)",
        ((key, *A_PERSON, text) for key in keys),
    )
    _allow(connection, keys, "caption", text)


def _remove_caption(connection: sqlite3.Connection, keys: Sequence[int], text: str) -> None:
    _refuse(connection, keys, "caption", text)
    connection.executemany("DELETE FROM captions WHERE picture = ? AND text = ?", ((key, text) for key in keys))


def _refuse(connection: sqlite3.Connection, keys: Sequence[int], kind: str, text: str) -> None:
    connection.executemany("INSERT OR IGNORE INTO refused VALUES (?, ?, ?)", ((key, kind, text) for key in keys))


def _allow(connection: sqlite3.Connection, keys: Sequence[int], kind: str, text: str) -> None:
    connection.executemany(
        "DELETE FROM refused WHERE picture = ? AND kind = ? AND text = ? COLLATE NOCASE",
        ((key, kind, text) for key in keys),
    )


def _not_empty(text: str, what: str) -> str:
    if not text:
        raise StoreError(f"{what} has at least one character that can be seen")
    return text
