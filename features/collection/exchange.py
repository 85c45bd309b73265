"""All that people and models say of the pictures of a collection as a table: written, and taken in again.

A row is one thing that is said of one picture, with who says it (see `COLUMNS`): JSONL, an object a line, or CSV.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from features.collection.annotation_rows import set_fields
from features.collection.annotations import Annotations
from features.collection.edits import editing
from features.collection.errors import StoreError
from features.collection.file_facts import path_from
from features.collection.records import Record
from features.collection.said import PERSON, SOURCES, Maker, Value, as_text, clean_tag, clean_text, field_name

COLUMNS = ("path", "sha256", "what", "name", "type", "value", "source", "maker", "certainty")
"""The picture, by its path below the root and its content; what is said: caption, tag, field (with its name, and the
type of its value: text, number, date or yes/no), favourite or album; who says it, and how certain that is."""

WHATS = ("caption", "tag", "field", "favourite", "album")

_QUERY = """
SELECT path, sha256, 'caption', '', '', text, source, maker, certainty FROM captions JOIN pictures USING (picture)
UNION ALL SELECT path, sha256, 'tag', '', '', tag, source, maker, certainty FROM tags JOIN pictures USING (picture)
UNION ALL SELECT path, sha256, 'field', name, kind, value, source, maker, NULL
    FROM field_values JOIN fields USING (name) JOIN pictures USING (picture)
UNION ALL SELECT path, sha256, 'favourite', '', '', '', 'person', '', NULL FROM favourites JOIN pictures USING (picture)
UNION ALL SELECT path, sha256, 'album', '', '', album, 'person', '', NULL FROM albums JOIN pictures USING (picture)
ORDER BY 1, 3, 4, 6
"""


class TakenIn(NamedTuple):
    """What came of a table: rows that were taken in, pictures they are of, and rows whose picture was not found."""

    rows: int
    pictures: int
    lost: int


class _Row(NamedTuple):
    """A row that makes sense."""

    path: str
    sha256: str
    what: str
    name: str
    value: Value
    maker: Maker
    certainty: float | None


def said_rows(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """Everything that is said, a row each; also of pictures that are not in the collection now."""
    for path, *rest in annotations.rows(_QUERY):
        row = dict(zip(COLUMNS, (_printable(path), *rest), strict=True))
        if row["type"]:
            row["value"] = row["value"] if row["type"] == "number" else as_text(row["value"], row["type"])
        yield {name: "" if value is None else value for name, value in row.items()}


def write_said(annotations: Annotations, file: Path) -> int:
    """Write everything that is said into a file, .jsonl or .csv; returns the number of rows.

    The file is there as a whole, or as it was before.

    Raises
    ------
    StoreError
        Its name ends otherwise.
    OSError
        It cannot be written.
    """
    _check_ending(file)
    part, count = file.with_name(f"{file.name}.part"), 0
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            table = csv.DictWriter(out, COLUMNS)
            if file.suffix.lower() == ".csv":
                table.writeheader()
            for count, row in enumerate(said_rows(annotations), 1):  # noqa: B007
                if file.suffix.lower() == ".csv":
                    table.writerow(row)
                else:
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return count


def read_said(file: Path) -> list[Mapping[str, Any]]:
    """The rows of a file that `write_said` wrote. Raises StoreError where one is none."""
    _check_ending(file)
    rows: list[Mapping[str, Any]] = []
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            return list(csv.DictReader(lines))
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                row = ()
            if row is None:
                continue
            if not isinstance(row, dict):
                raise StoreError(f"{file}, line {number:,} is no JSON object")
            rows.append(row)
    return rows


def take_in(annotations: Annotations, records: Iterable[Record], rows: Iterable[Mapping[str, Any]]) -> TakenIn:
    """Say again what a table says, beside what is said already, as one edit that can be taken back.

    A picture is found by its path and content, or else by its content where only one has it; by its path alone where
    the row gives no content. Where a person has set a field, only a person's value takes its place, and machine words
    that a person has crossed out stay so.

    Parameters
    ----------
    records : iterable of Record
        Of all pictures of the collection.

    Raises
    ------
    StoreError
        A row makes no sense: then nothing was taken in.
    """
    read = [_read(number, row) for number, row in enumerate(rows, 1)]
    find = _finder(records)
    found = [(id, row) for row in read if (id := find(row)) is not None]
    ids = list(dict.fromkeys(id for id, _ in found))
    if ids:
        with editing(annotations, ids, f"{len(found):,} rows of a table taken in") as (connection, keys):
            key_of = dict(zip(ids, keys, strict=True))
            for id, row in found:
                _say(connection, key_of[id], row)
    return TakenIn(len(found), len(ids), len(read) - len(found))


def _say(connection: Any, key: int, row: _Row) -> None:
    if row.what == "field":
        set_fields(connection, row.maker, [key], {row.name: row.value})
    elif row.what == "favourite":
        connection.execute("INSERT OR IGNORE INTO favourites VALUES (?)", (key,))
    elif row.what == "album":
        connection.execute("INSERT OR IGNORE INTO albums (picture, album) VALUES (?, ?)", (key, row.value))
    elif not _is_refused(connection, key, row):
        table, column = ("captions", "text") if row.what == "caption" else ("tags", "tag")
        connection.execute(
            f"INSERT OR IGNORE INTO {table} (picture, source, maker, {column}, certainty) VALUES (?, ?, ?, ?, ?)",
            (key, *row.maker, row.value, row.certainty),
        )


def _is_refused(connection: Any, key: int, row: _Row) -> bool:
    refused = "SELECT 1 FROM refused WHERE picture = ? AND kind = ? AND text = ? COLLATE NOCASE"
    crossed = connection.execute(refused, (key, row.what, row.value)).fetchone() is not None
    return crossed and row.maker.source != PERSON


def _read(number: int, row: Mapping[str, Any]) -> _Row:
    def text(name: str) -> str:
        value = row.get(name)
        return "" if value is None else str(value)

    what, source, certainty = text("what"), text("source") or "person", text("certainty")
    value: Value = clean_text(text("value")) if what == "caption" else clean_tag(text("value"))
    name = field_name(text("name"))
    try:
        sure = float(certainty) if certainty else None
        if what == "field":
            value = _typed(text("type"), text("value"))
    except ValueError as error:
        raise StoreError(f"row {number:,}: {error}") from error
    if what not in WHATS or source not in SOURCES:
        wanted = f"what is one of {', '.join(WHATS)}, and source one of {', '.join(SOURCES)}"
        raise StoreError(f"row {number:,}: {wanted}; got {what!r} and {source!r}")
    if sure is not None and not 0 <= sure <= 1:
        raise StoreError(f"row {number:,}: a certainty is from 0 to 1, got {certainty}")
    if (value == "" and what != "favourite") or (what == "field" and not name) or not text("path"):
        raise StoreError(f"row {number:,}: a path, a value, and of a field its name are needed")
    return _Row(text("path"), text("sha256"), what, name, value, Maker(source, text("maker")), sure)


def _typed(kind: str, text: str) -> Value:
    if kind == "number":
        found = int(text) if text.lstrip("+-").isdecimal() else float(text)
        if not math.isfinite(found):
            raise ValueError(f"a number is finite, got {text}")
        return found
    if kind == "date":
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if kind == "yes/no":
        if text not in ("yes", "no"):
            raise ValueError(f"the value of a field of yes/no is yes or no, got {text!r}")
        return text == "yes"
    if kind != "text":
        raise ValueError(f"the type of a field is yes/no, text, number or date, got {kind!r}")
    return clean_text(text)


def _finder(records: Iterable[Record]) -> Any:
    by_path: dict[str, Record] = {}
    by_content: dict[str, list[int]] = {}
    for record in records:
        by_path[_printable(record.path.as_posix())] = record
        by_content.setdefault(record.sha256 or "", []).append(record.id)

    def find(row: _Row) -> int | None:
        there = by_path.get(row.path)
        if there is not None and row.sha256 in ("", there.sha256):
            return there.id
        same = by_content.get(row.sha256, []) if row.sha256 else []
        return same[0] if len(same) == 1 else None

    return find


def _printable(path: str | bytes) -> str:
    """A path as a file of text can hold it."""
    return os.fsencode(path_from(path)).decode("utf-8", "replace")


def _check_ending(file: Path) -> None:
    if file.suffix.lower() not in (".jsonl", ".csv"):
        raise StoreError(f"a table of what is said ends in .jsonl or .csv, got {file.name}")
