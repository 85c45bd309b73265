"""The values that pictures have of a field, as arrays: what facets count and what orders are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.annotations import Annotations
from features.collection.catalog import Catalog
from features.collection.columns import numbers_of
from features.collection.conditions import Scalar
from features.collection.file_facts import parts_of
from features.collection.said import EPOCH

Ids = NDArray[np.int64]


class ValueColumn(NamedTuple):
    """Which pictures have which value of a field; a picture may have several.

    Attributes
    ----------
    ids : int64 (n,)
        The picture of each entry.
    codes : int64 (n,)
        The place of the entry's value in `values`.
    values : tuple of str, int or float
        All different.
    """

    ids: Ids
    codes: Ids
    values: tuple[Scalar, ...]


class NumberColumn(NamedTuple):
    """A number of each picture that has one: `ids` int64 (n,) and `numbers` int64 or float64 (n,)."""

    ids: Ids
    numbers: NDArray[Any]


def label_column(catalog: Catalog) -> ValueColumn:
    """The labels of the usable images."""
    return grouped(catalog.rows("SELECT label, count(*), group_concat(image_id) FROM labels GROUP BY label"))


def path_column(catalog: Catalog, part: str) -> ValueColumn:
    """One of `catalog_schema.PATH_PARTS` of each usable image, where it is not empty."""
    if part in {column[1] for column in catalog.rows("PRAGMA table_info(images)")}:
        has_part = f"error IS NULL AND {part} <> ''"
        return grouped(
            catalog.rows(f"SELECT {part}, count(*), group_concat(id) FROM images WHERE {has_part} GROUP BY {part}")
        )
    place = {"folder": 0, "name": 1, "ending": 2}[part]  # a catalog of an earlier version
    paths = catalog.rows("SELECT id, path FROM images WHERE error IS NULL")
    pairs = ((parts_of(path)[place], id) for id, path in paths)
    return _coded((str(value), id) for value, id in pairs if value)


def camera_column(catalog: Catalog) -> ValueColumn:
    """The camera of each usable image whose file names one."""
    if "camera" not in {column[1] for column in catalog.rows("PRAGMA table_info(images)")}:
        return _coded(())  # a catalog of an earlier version
    named = "error IS NULL AND camera <> ''"
    query = f"SELECT min(camera), count(*), group_concat(id) FROM images WHERE {named} GROUP BY camera COLLATE NOCASE"
    return grouped(catalog.rows(query))


def size_column(catalog: Catalog) -> NumberColumn:
    """Bytes of each usable image file."""
    return _catalog_numbers(catalog, "size")


def date_column(catalog: Catalog) -> NumberColumn:
    """When each usable image file was changed: nanoseconds since 1970."""
    return _catalog_numbers(catalog, "mtime")


def said_kinds(annotations: Annotations) -> tuple[dict[str, bool], dict[str, str]]:
    """Whether there are favourites, albums and tags, and the kind of each field that has a value."""
    tables = {"favourite": "favourites", "album": "albums", "tag": "tags"}
    there = {name: bool(annotations.rows(f"SELECT 1 FROM {table} LIMIT 1")) for name, table in tables.items()}
    has_value = "EXISTS (SELECT 1 FROM field_values WHERE field_values.name = fields.name)"
    return there, dict(annotations.rows(f"SELECT name, kind FROM fields WHERE {has_value}"))


def years_of(moments: NDArray[Any]) -> Ids:
    """The year of each moment as `said.stored` has it, int64 (n,)."""
    if moments.dtype.kind == "i":
        found = moments.astype("datetime64[ns]").astype("datetime64[Y]")
    else:
        seconds = np.round(moments.astype(np.float64) / 1e9).astype(np.int64)
        found = seconds.astype("datetime64[s]").astype("datetime64[Y]")
    return found.astype(np.int64) + EPOCH.year


def _catalog_numbers(catalog: Catalog, column: str) -> NumberColumn:
    ((ids, numbers),) = catalog.rows(f"SELECT group_concat(id), group_concat({column}) FROM images WHERE error IS NULL")
    return NumberColumn(numbers_of(ids), numbers_of(numbers))


def grouped(rows: list[tuple[Any, ...]]) -> ValueColumn:
    """Of rows of a value, how often it is there, and where, joined."""
    ids = numbers_of(",".join(joined for _, _, joined in rows))
    codes = np.repeat(np.arange(len(rows)), [count for _, count, _ in rows])
    return ValueColumn(ids, codes, tuple(value for value, *_ in rows))


def _coded(pairs: Iterable[tuple[Scalar, int]]) -> ValueColumn:
    places: dict[Scalar, int] = {}
    found = [(places.setdefault(value, len(places)), id) for value, id in pairs]
    codes, ids = np.array(found, np.int64).reshape(-1, 2).T
    return ValueColumn(ids, codes, tuple(places))
