"""Much that is said goes at once: a field with its values, or all. Each is an edit that `edits.undo` takes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from features.collection.annotation_rows import refresh
from features.collection.annotations import Annotations
from features.collection.edits import FIELDS, LEARNED, RUNS, SAID, VERDICTS, keep_edit
from features.collection.errors import StoreError
from features.collection.said import field_name
from features.collection.typed_fields import kind_held


def drop_field(annotations: Annotations, name: str) -> int:
    """Take away a field, with the values that pictures have of it; returns the number of the edit.

    Raises
    ------
    StoreError
        There is no such field.
    """
    known = field_name(name)
    with annotations.changing() as connection:
        if kind_held(connection, known) is None:
            raise StoreError(f"there is no field {known}")
        removed = _taken_out(connection, {"field_values": SAID["field_values"], **FIELDS}, "WHERE name = ?", (known,))
        keys = sorted({row[0] for row in removed.get("field_values", ())})
        of = f" ({len(keys):,} picture{'' if len(keys) == 1 else 's'})" if keys else ""
        number = keep_edit(connection, f"field {known} dropped{of}", _to_bring_back(removed))
        refresh(connection, keys)
    return number


def reset_said(annotations: Annotations) -> int | None:
    """Take away all that people and makers have said, and decided of duplicates; the fields stay.

    Makers look at every picture again when they run.

    Returns
    -------
    int or None
        The number of the edit; None where nothing was said.
    """
    with annotations.changing() as connection:
        removed = _taken_out(connection, {**SAID, **LEARNED, **VERDICTS, **RUNS})
        if not removed:
            return None
        keys = sorted({row[0] for table in SAID for row in removed.get(table, ())})
        number = keep_edit(connection, f"all that was said reset ({len(keys):,} pictures)", _to_bring_back(removed))
        refresh(connection, keys)
    return number


def said_counts(annotations: Annotations) -> dict[str, int]:
    """How much is said of each sort that there is anything of, by its name for people, in the singular."""
    counts = {
        name: annotations.rows(f"SELECT count(*) FROM {table}")[0][0]
        for name, table in (
            ("caption", "captions"),
            ("tag", "tags"),
            ("value of fields", "field_values"),
            ("favourite", "favourites"),
            ("picture in albums", "albums"),
            ("learned tag", "learned_tags"),
            ("picture set aside", "set_aside"),
            ("decision about duplicates", "duplicate_verdicts"),
        )
    }
    return {name: count for name, count in counts.items() if count}


def field_counts(annotations: Annotations) -> dict[str, int]:
    """Of each field, how many pictures have a value of it."""
    return dict(
        annotations.rows(
            "SELECT name, (SELECT count(*) FROM field_values WHERE field_values.name = fields.name) "
            "FROM fields ORDER BY name"
        )
    )


def _taken_out(
    connection: sqlite3.Connection,
    tables: Mapping[str, tuple[str, ...]],
    where: str = "",
    values: tuple[str, ...] = (),
) -> dict[str, list[Any]]:
    """Rows that were taken out of tables, in this order; of those that had any."""
    removed = {}
    for table, columns in tables.items():
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table} {where}", values).fetchall()
        if rows:
            connection.execute(f"DELETE FROM {table} {where}", values)
            removed[table] = rows
    return removed


def _to_bring_back(removed: Mapping[str, list[Any]]) -> dict[str, Any]:
    """For `keep_edit`. Fields come back before their values, which point at them."""
    return {table: (removed[table], []) for table in sorted(removed, key=lambda table: table not in FIELDS)}
