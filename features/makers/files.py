"""Words from a table: the file or address of a picture, its captions and tags, and every other column as a field."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from features.checksum import sha256_of
from features.collection.records import Record
from features.collection.said import MAX_TEXT, Maker, Value, Words, field_name
from features.collection.store import FeatureStore
from features.makers.base import MakerError, MakerOptions, WordMaker
from features.makers.sidecars import SidecarMaker
from features.makers.tables import Row, own_field_name, read_table, split_tags
from features.paths import expanded

PICTURE_COLUMNS = (
    "file",
    "file_name",
    "filename",
    "path",
    "image",
    "image_path",
    "picture",
    "name",
    "url",
    "address",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "comment", "title", "alt", "alt_text")
TAG_COLUMNS = ("tags", "tag", "keywords", "keyword", "labels", "label")

_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:?\d\d|Z)?)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def file_maker(store: FeatureStore, options: MakerOptions) -> WordMaker:
    """The maker of a table if one is given, else of what lies beside the pictures and in them."""
    return SidecarMaker(store, options) if options.file is None else TableMaker(store, options)


class TableMaker(WordMaker):
    """Says of pictures what a table says of them.

    Raises
    ------
    MakerError
        The table cannot be read, or no column names the picture.
    """

    reads_content = False
    batch_size = 4096

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        assert options.file is not None
        self._path = expanded(options.file)
        self._words = self._read(list(read_table(self._path, self.notes)), store.records())
        self.maker = Maker("file", self._path.name)
        self.version = f"{sha256_of(self._path)[:16]} generation {store.generation}"  # it may name what a sync brought

    def words_of(self, records: Sequence[Record]) -> list[Words]:
        nothing = Words()
        return [self._words.get(record.id, nothing) for record in records]

    def _read(self, rows: list[Row], records: list[Record]) -> dict[int, Words]:
        columns = list(dict.fromkeys(name for _, cells in rows for name in cells))
        named = {field_name(name): name for name in reversed(columns)}
        picture = next((named[name] for name in PICTURE_COLUMNS if name in named), None)
        if picture is None:
            there = ", ".join(columns) or "none at all"
            raise MakerError(
                f"{self._path.name} has no column that names the picture ({', '.join(PICTURE_COLUMNS)}); it has {there}"
            )
        captions = [named[name] for name in CAPTION_COLUMNS if name in named]
        tags = [named[name] for name in TAG_COLUMNS if name in named]
        fields = {name: self._field(name) for name in columns if name not in {picture, *captions, *tags}}
        fields = {name: kept for name, kept in fields.items() if kept}
        read = {name: _reader([cells.get(name) for _, cells in rows]) for name in fields}
        find = _finder(records)
        said: defaultdict[int, Words] = defaultdict(lambda: Words({}, {}, {}))
        lost: list[str] = []
        times: Counter[int] = Counter()
        for line, cells in rows:
            name = cells.get(picture)
            id = find(str(name)) if name not in (None, "") else None
            if id is None:
                lost.append(f"line {line:,}: {str(name)[:80]!r}")
                continue
            times[id] += 1
            words = Words(
                dict.fromkeys(self._texts(line, captions, cells)),
                dict.fromkeys(tag for column in tags for tag in split_tags(cells.get(column))),
                {fields[column]: value for column in fields if (value := read[column](cells.get(column))) is not None},
            )
            known = said[id]
            said[id] = Words(
                {**known.captions, **words.captions}, {**known.tags, **words.tags}, {**words.fields, **known.fields}
            )
        self._tell(lost, times)
        return dict(said)

    def _field(self, column: str) -> str:
        name = own_field_name(column)
        if name != field_name(column):
            self.notes.append(f"column {column} is kept as {name}: every picture has a {field_name(column)} of its own")
        return name

    def _texts(self, line: int, columns: Iterable[str], cells: Mapping[str, Any]) -> list[str]:
        texts = []
        for column in columns:
            cell = cells.get(column)
            for text in cell if isinstance(cell, list) else [cell]:
                if text in (None, ""):
                    continue
                if len(str(text)) > MAX_TEXT:
                    self.notes.append(
                        f"{self._path.name}, line {line:,}: {column} has {len(str(text)):,} characters, "
                        f"of which the first {MAX_TEXT:,} are kept"
                    )
                texts.append(str(text))
        return texts

    def _tell(self, lost: list[str], times: Counter[int]) -> None:
        if lost:
            rows = "1 row names" if len(lost) == 1 else f"{len(lost):,} rows name"
            self.notes.append(f"{rows} no picture of {self.store.folder.name}, or more than one; the first: {lost[0]}")
        if several := sum(count > 1 for count in times.values()):
            pictures = "1 picture has" if several == 1 else f"{several:,} pictures have"
            self.notes.append(
                f"{pictures} more than one row: their words are joined, and of fields the first row counts"
            )


def _reader(cells: Iterable[Any]) -> Callable[[Any], Value | None]:
    """What reads a column: as numbers if all its cells are such, as dates if they are such, or else as text."""
    texts = {cell.strip() if isinstance(cell, str) else cell for cell in cells if not isinstance(cell, list | dict)}
    texts -= {None, ""}
    for read in (_number, _date):
        if texts and all(read(text) is not None for text in texts):
            return read
    return _text


def _number(cell: Any) -> int | float | None:
    if isinstance(cell, str):
        cell = cell.strip()
        if len(cell) > 400 or not _NUMBER.fullmatch(cell):
            return None
        cell = float(cell) if re.search("[.eE]", cell) else int(cell)
    if isinstance(cell, bool):
        return int(cell)
    return cell if isinstance(cell, int | float) and math.isfinite(cell) else None


def _date(cell: Any) -> date | None:
    if isinstance(cell, str):
        try:
            return datetime.fromisoformat(cell.strip()) if _DATE.fullmatch(cell.strip()) else None
        except ValueError:
            return None
    return cell if isinstance(cell, date) else None


def _text(cell: Any) -> str | None:
    if cell in (None, ""):
        return None
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else str(cell)


def _finder(records: Sequence[Record]) -> Callable[[str], int | None]:
    """What finds the picture that a name or an address means: by path, by name, or by name without its ending."""
    keys: list[dict[str, int | None]] = [{}, {}, {}]
    for record in records:
        path = record.path
        for known, key in zip(keys, (path.as_posix(), path.name, path.stem), strict=True):
            key = unicodedata.normalize("NFC", key)
            known[key] = None if key in known else record.id  # what two pictures are called means neither

    def find(name: str) -> int | None:
        if "://" in name:
            name = unquote(urlsplit(name).path)
        path = PurePosixPath(unicodedata.normalize("NFC", name.strip().replace("\\", "/")))
        parts = path.parts
        for start in range(len(parts)):  # an absolute path, or one below another folder, ends like ours
            if (id := keys[0].get("/".join(parts[start:]))) is not None:
                return id
        by_name = keys[1].get(path.name)
        return keys[2].get(path.name) if by_name is None else by_name

    return find
