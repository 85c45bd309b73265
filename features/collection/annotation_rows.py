"""Changes of the rows of ``annotations.sqlite``, each within a transaction that `Annotations.changing` has begun."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from features.collection.file_facts import path_from, path_to
from features.collection.records import Record
from features.collection.said import Maker, Words, as_text, clean_tag, clean_text, field_name, kind_of, stored

TABLES = ("captions", "tags", "field_values")

DOCUMENTS = """
SELECT picture, CAST(path AS TEXT) AS name,
    (SELECT group_concat(text, char(10)) FROM captions WHERE captions.picture = pictures.picture) AS captions,
    (SELECT group_concat(DISTINCT tag) FROM tags WHERE tags.picture = pictures.picture) AS tags,
    (SELECT group_concat(value, char(10)) FROM field_values
     WHERE field_values.picture = pictures.picture AND typeof(value) = 'text') AS fields
FROM pictures
"""
"""What the full-text index holds of each picture."""

_AMONG = "WHERE picture IN (SELECT value FROM json_each(?1))"
_INDEX = f"INSERT INTO words (rowid, name, captions, tags, fields) {DOCUMENTS} {_AMONG}"
VOICES = " UNION ".join(f"SELECT source, maker, picture FROM {table}" for table in TABLES)
_HEAR = "INSERT INTO voices " + " UNION ".join(
    f"SELECT source, maker, picture FROM {table} {_AMONG}" for table in TABLES
)


def keys_of(connection: sqlite3.Connection, records: Sequence[Record]) -> list[int]:
    """The keys of some images, made where there are none."""
    connection.executemany(
        "INSERT INTO pictures (image_id, path, sha256) VALUES (?, ?, ?) ON CONFLICT (image_id) DO NOTHING",
        ((record.id, path_to(record.path), record.sha256) for record in records),
    )
    asked = (json.dumps([record.id for record in records]),)
    among = "SELECT image_id, picture FROM pictures WHERE image_id IN (SELECT value FROM json_each(?))"
    found = dict(connection.execute(among, asked))
    return [found[record.id] for record in records]


def place(connection: sqlite3.Connection, records: Collection[Record]) -> None:
    """Give keys without a picture theirs, among the images that have no key: by path and content, then by content."""
    lost = "SELECT picture, path, sha256 FROM pictures WHERE image_id IS NULL ORDER BY picture"
    rows = connection.execute(lost).fetchall()
    taken = {id for (id,) in connection.execute("SELECT image_id FROM pictures WHERE image_id NOT NULL")}
    by_path = {record.path: record for record in records}
    by_content: dict[str, list[int]] = {}
    for record in records:
        if record.sha256 is not None:
            by_content.setdefault(record.sha256, []).append(record.id)
    found: dict[int, int] = {}  # image id to key: an image is one key's
    for key, path, sha256 in rows:
        there = by_path.get(path_from(path))
        if there is not None and there.sha256 == sha256 and there.id not in taken:
            found.setdefault(there.id, key)
    placed = set(found.values())
    for key, _, sha256 in rows:
        ids = by_content.get(sha256, [])
        if key not in placed and len(ids) == 1 and ids[0] not in taken:
            found.setdefault(ids[0], key)
    now = {record.id: path_to(record.path) for record in records if record.id in found}
    connection.executemany(
        "UPDATE pictures SET image_id = ?, path = ? WHERE picture = ?", ((id, now[id], found[id]) for id in found)
    )
    refresh(connection, list(found.values()))


def drop_stale(connection: sqlite3.Connection, key: int, sha256: str | None) -> None:
    """Take back what makers read from other content of a picture than this."""
    stale = "SELECT source, maker FROM runs WHERE picture = ? AND sha256 NOT NULL AND sha256 IS NOT ?"
    for source, maker in connection.execute(stale, (key, sha256)).fetchall():
        take_back(connection, Maker(source, maker), [key])


def take_back(connection: sqlite3.Connection, maker: Maker, keys: Sequence[int]) -> None:
    for table in (*TABLES, "runs"):
        connection.executemany(
            f"DELETE FROM {table} WHERE picture = ? AND source = ? AND maker = ?", ((key, *maker) for key in keys)
        )


def say(connection: sqlite3.Connection, maker: Maker, key: int, words: Words) -> None:
    """Add the words of a maker, but for those that a person crossed out, and the fields that a person has filled."""
    refused = connection.execute("SELECT kind, text FROM refused WHERE picture = ?", (key,))
    crossed = {(kind, text.casefold()) for kind, text in refused}
    captions = {clean_text(text): certainty for text, certainty in words.captions.items()}
    tags = {clean_tag(tag): certainty for tag, certainty in words.tags.items()}
    rows = [(text, sure) for text, sure in captions.items() if text and ("caption", text.casefold()) not in crossed]
    connection.executemany(
        "INSERT INTO captions (picture, source, maker, text, certainty) VALUES (?, ?, ?, ?, ?)",
        ((key, *maker, *row) for row in rows),
    )
    rows = [(tag, sure) for tag, sure in tags.items() if tag and ("tag", tag.casefold()) not in crossed]
    connection.executemany(
        "INSERT INTO tags (picture, source, maker, tag, certainty) VALUES (?, ?, ?, ?, ?)",
        ((key, *maker, *row) for row in rows),
    )
    set_fields(connection, maker, [key], words.fields)


def set_fields(connection: sqlite3.Connection, maker: Maker, keys: Sequence[int], fields: Mapping[str, Any]) -> None:
    """Give pictures values of fields. Only a person overwrites what a person has said."""
    for given, value in fields.items():
        name, held = field_name(given), stored(value)
        if not name or held is None:
            continue
        kind = _kind_with(connection, name, kind_of(value))
        held = as_text(held, kind_of(value)) if kind == "text" else held
        connection.executemany(
            "INSERT INTO field_values (picture, name, value, source, maker) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name, picture) DO UPDATE SET value = excluded.value, source = excluded.source, "
            "maker = excluded.maker WHERE field_values.source <> 'person' OR excluded.source = 'person'",
            ((key, name, held, *maker) for key in keys),
        )


def _kind_with(connection: sqlite3.Connection, name: str, kind: str) -> str:
    """The kind of a field that takes a value of this kind: one that has had values of two kinds is a text."""
    row = connection.execute("SELECT kind FROM fields WHERE name = ?", (name,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO fields VALUES (?, ?)", (name, kind))
        return kind
    if row[0] != kind and row[0] != "text":
        connection.execute("UPDATE fields SET kind = 'text' WHERE name = ?", (name,))
        held = connection.execute("SELECT picture, value FROM field_values WHERE name = ?", (name,)).fetchall()
        connection.executemany(
            "UPDATE field_values SET value = ? WHERE picture = ? AND name = ?",
            ((as_text(value, row[0]), key, name) for key, value in held),
        )
    return str(row[0]) if row[0] == kind else "text"


def refresh(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Bring what is derived of the words of some pictures up to date, and count the change."""
    if not keys:
        return
    asked = (json.dumps(list(keys)),)
    connection.execute("DELETE FROM words WHERE rowid IN (SELECT value FROM json_each(?))", asked)
    connection.execute(_INDEX, asked)
    connection.execute("DELETE FROM voices WHERE picture IN (SELECT value FROM json_each(?))", asked)
    connection.execute(_HEAR, asked)
    connection.execute(
        "UPDATE pictures SET said = (SELECT max(said) + 1 FROM pictures) "
        "WHERE picture IN (SELECT value FROM json_each(?))",
        asked,
    )
