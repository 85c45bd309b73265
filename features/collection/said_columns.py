"""What people and models say of the images, as columns that are kept and follow each change.

An edit touches few pictures and fewer values: of a column the entries of these values are read again, and no others.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.annotations import Annotations
from features.collection.columns import image_of_key
from features.collection.conditions import Scalar
from features.collection.facet_columns import ValueColumn, grouped

Ids = NDArray[np.int64]

MOST_PICTURES, MOST_VALUES = 5_000, 100
"""Where more than these have changed, a column is read as a whole."""

_SMALL = str.maketrans({chr(letter): chr(letter + 32) for letter in range(ord("A"), ord("Z") + 1)})


@dataclass(frozen=True)
class _Source:
    """Where a column comes from: a table of keys, called `picture`, and values.

    Attributes
    ----------
    table, value : str
        As SQL names them.
    condition : str
        Of the rows that are meant, in SQL that ends in AND.
    parameters : tuple
        Of the condition.
    without_case : bool
        Whether a value is the same in small and large letters, as sqlite's NOCASE has it; it is shown in the letters
        that come first.
    """

    table: str
    value: str
    condition: str = ""
    parameters: tuple[Any, ...] = ()
    without_case: bool = False

    def same(self, value: Scalar) -> Scalar:
        """What stands for all values that are the same as one."""
        return value.translate(_SMALL) if self.without_case and isinstance(value, str) else value

    def groups(self, connection: sqlite3.Connection, *one: Scalar) -> list[tuple[Any, ...]]:
        """Each value, or this one, how often it is there, and the keys, joined."""
        collation = " COLLATE NOCASE" if self.without_case else ""
        condition = f"{self.condition} {f'{self.value} = ?{collation}' if one else '1'}"
        return connection.execute(
            f"SELECT min({self.value}), count(*), group_concat(picture) FROM {self.table} WHERE {condition} "
            f"GROUP BY {self.value}{collation}",
            (*self.parameters, *one),
        ).fetchall()

    def of(self, connection: sqlite3.Connection, keys: Ids) -> list[tuple[Scalar, int]]:
        """Values and keys of some pictures."""
        among = "picture IN (SELECT value FROM json_each(?))"
        query = f"SELECT {self.value}, picture FROM {self.table} WHERE {self.condition} {among}"
        return connection.execute(query, (*self.parameters, json.dumps(keys.tolist()))).fetchall()


class _Kept(NamedTuple):
    """A column after so many changes; of a field, of which kind that was."""

    changes: int
    kind: str
    column: ValueColumn


class SaidColumns:
    """The columns of one collection. Safe to use from many threads. What has not changed is the same object again."""

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations
        self._kept: dict[_Source, _Kept] = {}
        self._image_of_key: Ids = np.empty(0, np.int64)  # after as many changes as the latest column
        self._lock = threading.Lock()

    def tags(self) -> ValueColumn:
        """The tags of the images, whoever gave them."""
        return self._now(_Source("tags", "tag", without_case=True))

    def albums(self) -> ValueColumn:
        """The albums that the images are in."""
        return self._now(_Source("albums", "album", without_case=True))

    def favourites(self) -> ValueColumn:
        """The favourites, whose only value is "yes"."""
        return self._now(_Source("favourites", "'yes'"))

    def field(self, name: str, kind: str) -> ValueColumn:
        """The values of a field of a kind, as `said.stored` has them."""
        return self._now(_Source("field_values", "value", "name = ? AND", (name,)), kind)

    def _now(self, source: _Source, kind: str = "") -> ValueColumn:
        with self._lock, self._annotations.reading() as connection:
            ((changes,),) = connection.execute("SELECT ifnull(max(said), 0) FROM pictures")
            kept = self._kept.get(source)
            if kept is not None and (kept.changes, kept.kind) == (changes, kind):
                return kept.column
            column = None
            if kept is not None and kept.changes < changes and kept.kind == kind:
                column = self._followed(connection, source, kept)
            if column is None:
                self._image_of_key = image_of_key(connection)
                column = self._of_images(source.groups(connection))
            self._kept[source] = _Kept(changes, kind, column)
            return column

    def _followed(self, connection: sqlite3.Connection, source: _Source, kept: _Kept) -> ValueColumn | None:
        """A kept column after what has changed since; None where it is better read as a whole."""
        query = "SELECT picture, ifnull(image_id, -1) FROM pictures WHERE said > ? LIMIT ?"
        touched = connection.execute(query, (kept.changes, MOST_PICTURES + 1)).fetchall()
        if len(touched) > MOST_PICTURES:
            return None
        keys, images = np.array(touched, np.int64).reshape(-1, 2).T
        self._place(keys, images)
        column = kept.column
        is_touched = np.zeros(max(images.max(initial=0), column.ids.max(initial=0)) + 1, bool)
        is_touched[images[images >= 0]] = True
        entries = np.flatnonzero(is_touched[column.ids])
        pairs = zip(column.codes[entries].tolist(), column.ids[entries].tolist(), strict=True)
        before = {(column.values[code], id) for code, id in pairs}
        said = [(value, int(self._image_of_key[key])) for value, key in source.of(connection, keys)]
        now = {(value, id) for value, id in said if id >= 0}
        differing = {source.same(value) for value, _ in before ^ now}
        if len(differing) > MOST_VALUES:
            return None
        if not differing:
            return column
        rows = [row for value in differing for row in source.groups(connection, value)]
        return _with(column, [source.same(value) in differing for value in column.values], self._of_images(rows))

    def _place(self, keys: Ids, images: Ids) -> None:
        known = self._image_of_key
        if (lacking := int(keys.max(initial=-1)) + 1 - known.size) > 0:
            known = np.append(known, np.full(lacking, -1))
        known[keys] = images
        self._image_of_key = known

    def _of_images(self, rows: list[tuple[Any, ...]]) -> ValueColumn:
        """What `_Source.groups` gives, of images; what several say of one counts once."""
        found = grouped(rows)
        ids = self._image_of_key[found.ids]
        most = int(self._image_of_key.max(initial=0)) + 1
        pairs = np.unique((found.codes * most + ids)[ids >= 0])
        return ValueColumn(pairs % most, pairs // most, found.values if pairs.size else ())


def _with(column: ValueColumn, is_replaced: list[bool], others: ValueColumn) -> ValueColumn:
    """A column with others in place of some of its values."""
    stays = ~np.array(is_replaced, bool)
    code = np.cumsum(stays) - 1
    entries = stays[column.codes]
    values = tuple(value for value, gone in zip(column.values, is_replaced, strict=True) if not gone)
    ids = np.concatenate([column.ids[entries], others.ids])
    codes = np.concatenate([code[column.codes[entries]], others.codes + len(values)])
    return ValueColumn(ids, codes, (*values, *others.values) if ids.size else ())
