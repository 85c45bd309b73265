"""Tables of captions: CSV, TSV, JSONL and Parquet as rows of named cells."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from features.collection.fields import known_field
from features.collection.said import field_name
from features.makers.base import MakerError

Row = tuple[int, Mapping[str, Any]]
"""The number of a line (of Parquet: of a row), from 1, and its cells by the names of their columns."""

_SAMPLE = 65_536
_PART = 1 << 20
_NOT_IN_CP1252 = frozenset({0x81, 0x8D, 0x8F, 0x90, 0x9D})
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
    check_file(path)
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    kind = table_kind(path)
    if kind == ".parquet":
        return _read_parquet(path)
    if kind not in readers:
        raise MakerError(f"{path.name} is none of .csv, .tsv, .jsonl and .parquet")
    return readers[kind](path, opened_text(path, notes), notes)


def check_file(path: Path) -> None:
    """That a path is not one of what may have no end, a pipe or a device. Raises MakerError."""
    if path.exists() and not path.is_file():
        raise MakerError(f"{path} is no file")


def table_kind(path: Path) -> str:
    """The ending that says what a table is, in lower case; parts of one are numbered behind it (``photos.tsv000``)."""
    return re.sub(r"(?<=[a-z])\d+$", "", path.suffix.lower())


def opened_text(path: Path, notes: list[str]) -> TextIO:
    """A text file, open for reading, in UTF-8, UTF-16 or, if it is neither, Latin-1; line ends are as they are.

    Raises
    ------
    MakerError
        It cannot be read.
    """
    try:
        encoding = _encoding(path, notes)
        return path.open(encoding=encoding, newline="")
    except OSError as error:
        raise MakerError(f"{path} cannot be read: {error.strerror or error}") from error


def _encoding(path: Path, notes: list[str]) -> str:
    """What decodes all of a file. It is read to its end once, so that no later line comes as a surprise."""
    with path.open("rb") as file:
        beginning = file.read(3)
        encoding = next((name for bom, name in _BOMS.items() if beginning.startswith(bom)), "utf-8")
        file.seek(0)
        undecodable = _first_undecodable(file, encoding)
        if undecodable is None:
            return encoding
        notes.append(f"{path.name} is not {encoding.upper()} (byte {undecodable:,}): it was read as Latin-1")
        file.seek(0)
        seen: set[int] = set()
        while part := file.read(_PART):
            seen.update(part)
    return "latin-1" if _NOT_IN_CP1252 & seen else "cp1252"


def _first_undecodable(file: BinaryIO, encoding: str) -> int | None:
    """The place of the first byte that is not of an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    place, part = 0, b"?"
    while part:
        part = file.read(_PART)
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            return place - kept + error.start
        place += len(part)
    return None


def _read_csv(path: Path, file: TextIO, notes: list[str]) -> Iterator[Row]:
    with file:
        delimiter = "\t" if table_kind(path) == ".tsv" else _delimiter(file.read(_SAMPLE))
        file.seek(0)
        yield from _csv_rows(path, csv.reader(file, delimiter=delimiter), notes)


def _csv_rows(path: Path, reader: Any, notes: list[str]) -> Iterator[Row]:
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
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t|", key=header.count)


def _read_jsonl(path: Path, file: TextIO, notes: list[str]) -> Iterator[Row]:
    with file:
        for number, line in enumerate(file, start=1):
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
