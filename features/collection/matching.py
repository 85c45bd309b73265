"""Which images a tree of conditions lets through.

Conditions on the rows of images are one statement of SQL, however they are joined; those on other tables are one each,
without joins: their keys become sets of images, and sets are joined as arrays of bits. A set is kept until what it was
read from changes, so that the next filter, which often differs in one condition only, reads only that one.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.collection.catalog_schema import PATH_PARTS
from features.collection.columns import image_of_key, numbers_of
from features.collection.conditions import AllOf, Condition, Not, Tree, conditions_of
from features.collection.fields import Elsewhere, Field, SaidField, Sql, field_of, joined
from features.collection.file_facts import parts_of
from features.collection.lru_cache import LruCache
from features.collection.texts import Texts

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Own = Mapping[str, Field]

# Catalogs of earlier versions do not hold the parts of paths, and those open for reading cannot be changed.
_TEMP_PARTS = f"CREATE TEMP TABLE path_parts (id INTEGER PRIMARY KEY, {', '.join(PATH_PARTS)})"
_WITH_PARTS = (
    "(SELECT images.id AS id, size, mtime, width, height, sha256, error, NULL AS camera, "
    + ", ".join(f"path_parts.{part} AS {part}" for part in PATH_PARTS)
    + " FROM images JOIN temp.path_parts ON path_parts.id = images.id)"
)


class Matcher:
    """Finds images of one catalog, and of the annotations that are given with a tree. For one thread at a time.

    Parameters
    ----------
    connection : sqlite3.Connection
        To the catalog.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._has_said = False
        self._reset()

    def forget(self) -> None:
        """Read everything again: the catalog is about to be changed."""
        self._connection.execute("DROP TABLE IF EXISTS temp.path_parts")
        self._reset()

    def _reset(self) -> None:
        self._usable: Mask | None = None
        self._later_rows = ""
        self._of_catalog = LruCache[Elsewhere, Mask]()
        self._forget_said()

    def _forget_said(self) -> None:
        self._said_version: int | None = None
        self._image_of_key: Ids | None = None
        self._texts: dict[tuple[str, str], Texts | None] = {}
        self._of_said = LruCache[Elsewhere, Mask]()

    def ids(self, tree: Tree, annotations: Path | None, own: Own) -> Ids:
        """Ids of the usable images that a tree lets through, ascending.

        Parameters
        ----------
        annotations : Path or None
            The file of what is said of the images; without it nothing is said of any.
        own : mapping of str to Field
            Fields of this collection alone, which go before aliases of the others.

        Raises
        ------
        FilterError
            There is no such field, and the sentence names the nearest; or it cannot be compared so.
        """
        if annotations is not None and not self._has_said:
            self._connection.execute("ATTACH ? AS said", (f"{annotations.as_uri()}?mode=ro",))
            self._has_said = True
        if not self._later_rows and any(field_of(condition, own).is_later for condition in conditions_of(tree)):
            self._later_rows = self._with_later_columns()
        self._connection.execute("BEGIN")  # all conditions are asked of the same state
        try:
            if self._has_said:
                self._follow_said()
                self._read_texts(tree, own)
            return np.flatnonzero(self._found(tree, own) & self._all_usable())
        finally:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def _follow_said(self) -> None:
        self._connection.execute("SELECT 1 FROM said.about").fetchone()  # from here on the state is one
        (version,) = self._connection.execute("PRAGMA said.data_version").fetchone()
        if version != self._said_version:
            self._forget_said()
            self._said_version = version

    def _read_texts(self, tree: Tree, own: Own) -> None:
        """Read whole columns of texts into which several conditions look."""
        fields = [field_of(each, own) for each in conditions_of(tree) if each.comparison == "contains"]
        columns = Counter(field.text for field in fields if isinstance(field, SaidField) and field.text is not None)
        for column, count in columns.items():
            if count > 1 and column not in self._texts:
                self._texts[column] = Texts.read(self._connection, *column, "picture")

    def _found(self, tree: Tree, own: Own) -> Mask:
        if _is_of_images(tree, own):
            is_later = any(field_of(condition, own).is_later for condition in conditions_of(tree))
            text, parameters = _where(tree, own)
            # Of several conditions sqlite would look up each row that an index tells for one of them.
            images = "images" if isinstance(tree, Condition) else "images NOT INDEXED"
            images = self._later_rows if is_later and self._later_rows != "images" else images
            rows = Sql(f"{images} WHERE {text}", parameters)
            return self._looked_up(Elsewhere(rows, "id"), self._of_catalog)
        if isinstance(tree, Condition):
            field = field_of(tree, own)
            place = field.elsewhere(tree)
            if field.is_said and not self._has_said:
                return np.full(self._all_usable().size, field.holds_unsaid(tree))
            texts = self._texts.get(field.text) if isinstance(field, SaidField) and field.text is not None else None
            keys = None
            if texts is not None and tree.comparison == "contains":
                keys = partial(texts.keys_containing, str(tree.value))
            return self._looked_up(place, self._of_said if field.is_said else self._of_catalog, keys)
        if isinstance(tree, Not):
            return ~self._found(tree.of, own)
        kind = type(tree)
        together = tuple(each for each in tree.of if _is_of_images(each, own))
        apart = [each for each in tree.of if not _is_of_images(each, own)]
        at_once = [kind(together)] if len(together) > 1 else [*together]
        sets = [self._found(each, own) for each in (*at_once, *apart)]
        return np.logical_and.reduce(sets) if kind is AllOf else np.logical_or.reduce(sets)

    def _looked_up(
        self, place: Elsewhere, cache: LruCache[Elsewhere, Mask], keys: Callable[[], Ids] | None = None
    ) -> Mask:
        """The images of a place, of which sqlite is asked unless something else tells the keys."""
        mask = cache.get(place)
        if mask is None:
            ids = self._numbers(place.key, place.rows) if keys is None else keys()
            if place.key == "picture":
                ids = self._images_of(ids)
            mask = np.full(self._all_usable().size, place.is_not)
            mask[ids[ids < mask.size]] = not place.is_not
            asked = (place.rows.text, *place.rows.parameters)  # a list of values may be longer than the set is large
            cache.keep(place, mask, mask.nbytes + sum(map(sys.getsizeof, asked)))
        return mask

    def _all_usable(self) -> Mask:
        if self._usable is None:
            ids = self._numbers("id", Sql("images WHERE error IS NULL"))
            self._usable = np.zeros(int(ids.max(initial=-1)) + 1, bool)
            self._usable[ids] = True
        return self._usable

    def _images_of(self, keys: Ids) -> Ids:
        """The images of the keys that have any."""
        if self._image_of_key is None:
            self._image_of_key = image_of_key(self._connection, "said.pictures")
        found = self._image_of_key[keys[keys < self._image_of_key.size]]
        return found[found >= 0]

    def _numbers(self, column: str, rows: Sql) -> Ids:
        query = f"SELECT group_concat({column}) FROM {rows.text}"
        ((found,),) = self._connection.execute(query, rows.parameters)
        return numbers_of(found)

    def _with_later_columns(self) -> str:
        """What to ask for parts of paths and for cameras."""
        there = {column[1] for column in self._connection.execute("PRAGMA table_info(images)")}
        if set(PATH_PARTS) <= there:
            return "images" if "camera" in there else "(SELECT *, NULL AS camera FROM images)"
        self._connection.execute("PRAGMA temp_store = MEMORY")
        paths = self._connection.execute("SELECT id, path FROM images WHERE error IS NULL").fetchall()
        self._connection.execute("BEGIN")
        self._connection.execute(_TEMP_PARTS)
        self._connection.executemany(
            f"INSERT INTO path_parts VALUES (?{', ?' * len(PATH_PARTS)})", ((id, *parts_of(path)) for id, path in paths)
        )
        self._connection.execute("COMMIT")
        return _WITH_PARTS


def _is_of_images(tree: Tree, own: Own) -> bool:
    return all(field_of(condition, own).is_of_images for condition in conditions_of(tree))


def _where(tree: Tree, own: Own) -> Sql:
    """A tree as one condition on a row of images."""
    if isinstance(tree, Condition):
        return field_of(tree, own).sql(tree)
    if isinstance(tree, Not):
        inner = _where(tree.of, own)
        return Sql(f"({inner.text}) IS NOT TRUE", inner.parameters)
    parts = [_where(each, own) for each in tree.of]
    return joined(" AND ", parts, nothing="1") if isinstance(tree, AllOf) else joined(" OR ", parts, nothing="0")
