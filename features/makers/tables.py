"""Tables of captions: CSV, TSV, JSONL and Parquet as rows of named cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.collection.fields import known_field
from features.collection.said import field_name
from features.makers.base import MakerError

Row = tuple[int, Mapping[str, Any]]
"""The number of a line (of Parquet: of a row), from 1, and its cells by the names of their columns."""

_SAMPLE = 65_536
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}

csv.field_size_limit(1 << 30)  # a cell of ten million letters is long, and no reason to lose the other rows


def read_table(path: Path, notes: list[str]) -> Iterator[Row]:
    """The rows of a table, by the ending of its name.

    Parameters
    ----------
    notes : list of str
        Gets a sentence for each line that cannot be read, and for an encoding that had to be guessed.

    Raises
    ------
    MakerError
        The file cannot be read, or is of no known kind.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _read_parquet(path)
    if ending not in readers:
        raise MakerError(f"{path.name} is none of .csv, .tsv, .jsonl and .parquet")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MakerError(f"{path} cannot be read: {error.strerror or error}") from error
    return readers[ending](path, _decoded(path, content, notes), notes)


def _decoded(path: Path, content: bytes, notes: list[str]) -> str:
    encoding = next((name for bom, name in _BOMS.items() if content.startswith(bom)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        notes.append(f"{path.name} is not {encoding.upper()} (byte {error.start:,}): it was read as Latin-1")
        return content.decode("cp1252" if not {0x81, 0x8D, 0x8F, 0x90, 0x9D} & set(content) else "latin-1")


def _read_csv(path: Path, text: str, notes: list[str]) -> Iterator[Row]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    first, rows = 1, iter(reader)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            notes.append(f"{path.name}, line {reader.line_num:,} is left out: {error}")
            continue
        if cells is None:
            return
        line, first = first, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            continue
        if len(cells) > len(header):
            notes.append(f"{path.name}, line {line:,} has {len(cells)} cells, the header {len(header)}: it is left out")
            continue
        yield line, dict(zip(header, cells, strict=False))


def _delimiter(text: str) -> str:
    """What separates the cells of the header."""
    header = next((line for line in text[:_SAMPLE].splitlines() if line.strip()), "")
    return max(",;\t|", key=header.count)


def _read_jsonl(path: Path, text: str, notes: list[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            notes.append(f"{path.name}, line {number:,} is left out: it is no JSON ({error})")
            continue
        if isinstance(cells, dict):
            yield number, cells
        else:
            notes.append(f"{path.name}, line {number:,} is left out: it is a {type(cells).__name__}, not an object")


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MakerError("Parquet needs a package that is not installed: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=4096):
                for cells in batch.to_pylist():
                    number += 1
                    yield number, {name: cell for name, cell in cells.items() if cell is not None}
    except (OSError, pyarrow.ArrowException) as error:
        raise MakerError(f"{path} cannot be read as Parquet: {error}") from error


def own_field_name(column: str) -> str:
    """The name under which a column is kept as a field: what the files themselves say, as their size, keeps its own."""
    name = field_name(column)
    known = known_field(name)
    return f"{name}_given" if known is not None and known.name == name else name  # an alias gives way


def split_tags(cell: Any) -> list[str]:
    """The tags of a cell: a list, a list in JSON, or text with ";", "|" or "," between them."""
    if isinstance(cell, str):
        if cell.lstrip().startswith("["):
            try:
                return split_tags(json.loads(cell))
            except (ValueError, RecursionError):
                pass
        separator = next((sign for sign in ";|," if sign in cell), ";")
        return [tag.strip() for tag in cell.split(separator) if tag.strip()]
    if isinstance(cell, list | tuple):
        return [str(tag) for tag in cell if tag not in (None, "")]
    return [] if cell is None else [str(cell)]
