"""What is wrong with a catalog that someone else may have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from features.collection.catalog_schema import COLUMNS

Rows = Callable[..., list[tuple[Any, ...]]]
"""What a statement finds, with its values if it has any."""


def fault_of_tables(rows: Rows) -> str | None:
    """What is wrong with the tables; None where they are what they should be."""
    # A view, a virtual table or a computed column would be run by every query, for as long as its maker likes.
    found = {name: (kind, sql or "") for kind, name, sql in rows("SELECT type, name, sql FROM sqlite_master")}
    for table, wanted in COLUMNS.items():
        kind, sql = found.get(table, ("table" if table == "removed" else None, ""))
        if kind != "table" or sql.lstrip().upper().startswith("CREATE VIRTUAL"):
            return f"{table} is not a table"
        columns = rows(f"PRAGMA table_xinfo({table})")
        if columns and not wanted <= {name for _, name, *_, hidden in columns if not hidden}:
            return f"the table {table} has other columns"
    triggers = rows("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    return f"it has a trigger ({triggers[0][0]})" if triggers else None


def fault_of_rows(rows: Rows, count: int) -> str | None:
    """Which row makes no sense for `count` rows of vectors; None where all do."""
    bad_row = (
        "SELECT id FROM images WHERE id NOT BETWEEN 0 AND ? OR typeof(path) NOT IN ('text', 'blob') "
        "OR typeof(size) <> 'integer' OR typeof(mtime) <> 'integer' OR typeof(sha256) NOT IN ('text', 'null') "
        "OR typeof(width) NOT IN ('integer', 'null') OR typeof(height) NOT IN ('integer', 'null') "
        "OR typeof(error) NOT IN ('text', 'null') OR path = '' OR substr(path, 1, 1) = '/' "
        "OR '/' || CAST(path AS TEXT) || '/' LIKE '%/../%' LIMIT 1"
    )
    unlabelled = "typeof(label) <> 'text' OR image_id NOT IN (SELECT id FROM images)"
    bad_label = f"SELECT image_id FROM labels WHERE {unlabelled} LIMIT 1"
    bad_removed = "SELECT id FROM removed WHERE id NOT BETWEEN 0 AND ? OR id IN (SELECT id FROM images) LIMIT 1"
    if found := rows(bad_row, (count - 1,)):
        return f"the row of image {found[0][0]} makes no sense"
    if found := rows(bad_label):
        return f"a label of image {found[0][0]} makes no sense"
    has_removed = rows("SELECT 1 FROM sqlite_master WHERE name = 'removed'")
    if has_removed and (found := rows(bad_removed, (count - 1,))):
        return f"image {found[0][0]} cannot be removed"
    return None
