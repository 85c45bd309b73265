"""Lists of addresses as streams: CSV, TSV, JSONL, Parquet, and text with an address a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

from features.download.errors import DownloadError
from features.makers.base import MakerError
from features.makers.tables import opened_text, read_table, table_kind

URL_COLUMNS = ("url", "image_url", "photo_image_url", "img_url", "address", "link", "image", "photo_url")
"""What the column of the addresses is looked for as, where none is named."""

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Kinds of lists that have columns; any other file is text with an address a line."""


@dataclass(frozen=True)
class Entry:
    """A row of a list: the address, and what its other columns say, as JSON."""

    url: str
    fields: str


def read_list(path: Path, column: str | None, notes: list[str]) -> Iterator[Entry]:
    """The entries of a list, one after the other; no more than one part of it is in memory at a time.

    Parameters
    ----------
    column : str, optional
        The name of the column of the addresses, whatever its case; by default the first of `URL_COLUMNS` that is there.
    notes : list of str
        Gets a sentence for each line that cannot be read.

    Raises
    ------
    DownloadError
        The list cannot be read, or has no such column; the message names those that it has.
    """
    try:
        if table_kind(path) not in TABLES:
            yield from _plain(path, notes)
            return
        rows = (cells for _, cells in read_table(path, notes))
        first = next(rows, None)
        if first is None:
            raise DownloadError(f"{path.name} has no rows")
        name = _column(path, first, column)
        for cells in chain([first], rows):
            address = cells.get(name)
            yield Entry(
                "" if address is None else str(address).strip(),
                _as_json({key: cell for key, cell in cells.items() if key != name and cell not in (None, "")}),
            )
    except MakerError as error:
        raise DownloadError(str(error)) from error


def url_column(path: Path, column: str | None) -> str | None:
    """The name of the column of the addresses, as the list has it; None if it is text with an address a line.

    Raises
    ------
    DownloadError
        As `read_list`.
    """
    if table_kind(path) not in TABLES:
        return None
    try:
        first = next((cells for _, cells in read_table(path, [])), None)
    except MakerError as error:
        raise DownloadError(str(error)) from error
    if first is None:
        raise DownloadError(f"{path.name} has no rows")
    return _column(path, first, column)


def _column(path: Path, cells: Mapping[str, Any], asked: str | None) -> str:
    named = {name.casefold(): name for name in reversed(list(cells))}
    wanted = URL_COLUMNS if asked is None else (asked,)
    found = next((named[name.casefold()] for name in wanted if name.casefold() in named), None)
    if found is None:
        there = ", ".join(name[:80] for name in cells) or "none at all"
        missing = f"no column {asked!r}" if asked is not None else f"no column of addresses ({', '.join(URL_COLUMNS)})"
        raise DownloadError(f"{path.name} has {missing}; it has {there}. Name one with --column")
    return found


def _plain(path: Path, notes: list[str]) -> Iterator[Entry]:
    with opened_text(path, notes) as file:
        for line in file:
            address = line.strip()
            if address and not address.startswith("#"):
                yield Entry(address, "{}")


def _as_json(cells: Mapping[str, Any]) -> str:
    return json.dumps({str(name): _plain_value(cell) for name, cell in cells.items()}, ensure_ascii=True)


def _plain_value(cell: Any) -> Any:
    """A cell as JSON has it: Parquet knows dates, bytes and numbers that JSON does not."""
    if isinstance(cell, Mapping):
        return {str(name): _plain_value(inner) for name, inner in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain_value(inner) for inner in cell]
    if isinstance(cell, bool | int | str) or (isinstance(cell, float) and math.isfinite(cell)):
        return cell
    if isinstance(cell, date):
        return cell.isoformat()
    return None if cell is None or isinstance(cell, float | bytes) else str(cell)
