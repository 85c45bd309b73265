"""Fields that people make for a collection, each of a kind, and what may be said in them.

A maker that reads fields from files gets them in as it finds them: a field that has values of two kinds is then a text
(see `annotation_rows.set_fields`). A person is told instead.
"""

from __future__ import annotations

import math
import re
import sqlite3
from datetime import UTC, date, datetime

from features.collection.annotations import Annotations
from features.collection.errors import StoreError
from features.collection.said import Value, as_text, field_name, kind_of, stored

KINDS = ("text", "number", "date", "yes/no")
"""What a field can be made to hold."""

_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_WANTED = {
    "number": "a number, as 4 or 2.5",
    "date": "a date, as 2010-05-17 or 2010-05-17T12:30",
    "yes/no": "yes or no",
    "text": "a text",
}


def make_field(annotations: Annotations, name: str, kind: str) -> str:
    """Make a field; returns its name as it is kept.

    Raises
    ------
    StoreError
        The name has no letter, there is a field of this name and another kind, or the kind is none of `KINDS`.
    """
    known = field_name(name)
    if not known:
        raise StoreError("the name of a field has at least one character")
    if kind not in KINDS:
        raise StoreError(f"a field holds one of {', '.join(KINDS)}, got {kind!r}")
    with annotations.changing() as connection:
        held = kind_held(connection, known)
        if held not in (None, kind):
            raise StoreError(f"there is a field {known} already, and it holds {_WANTED[str(held)]}")
        connection.execute("INSERT OR IGNORE INTO fields VALUES (?, ?)", (known, kind))
    return known


def kind_held(connection: sqlite3.Connection, name: str) -> str | None:
    """The kind of a field; None where there is no such field."""
    row = connection.execute("SELECT kind FROM fields WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def fitting(name: str, kind: str, value: Value) -> Value:
    """A value as a field of a kind takes it: what was typed is read as that kind.

    Raises
    ------
    StoreError
        It is of another kind; the sentence says which is wanted.
    """
    if kind == kind_of(value) and kind != "text":
        return value
    held = stored(value)
    text = "" if held is None else as_text(held, kind_of(value))
    try:
        return _read(kind, text.strip())
    except (ValueError, KeyError, OverflowError) as error:
        raise StoreError(f"{name} holds {_WANTED[kind]}, and {text[:60]!r} is none") from error


def _read(kind: str, text: str) -> Value:
    if kind == "number":
        found = int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else float(text)
        if not math.isfinite(found):
            raise ValueError(text)
        return found
    if kind == "date":
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return _TRUTHS[text.lower()] if kind == "yes/no" else text
