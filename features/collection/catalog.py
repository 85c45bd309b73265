"""The catalog of a collection: all SQL of what the image files say.

A catalog is a sqlite file that is never changed once a manifest names it: a sync copies it, migrates the copy and
writes the changes there. ``PRAGMA user_version`` says which migrations it has had.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.catalog_faults import fault_of_rows, fault_of_tables
from features.collection.catalog_schema import (
    CAMERA,
    FILTER_INDEXES,
    GENERATION,
    PATH_PARTS,
    PHASH,
    REMOVED,
    TABLES,
)
from features.collection.conditions import Tree
from features.collection.errors import StoreError, cannot_write
from features.collection.fields import Field
from features.collection.file_facts import parts_of, path_from, path_to
from features.collection.matching import Matcher
from features.collection.records import CatalogChanges, Record, Row
from features.phash import HASH_BYTES, ORIENTATIONS

_SET_PARTS = ", ".join(f"{part} = ?" for part in PATH_PARTS)


class Catalog:
    """An open catalog. Safe to use from many threads, one at a time. What sqlite cannot read is a StoreError."""

    VERSION = 5

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._matcher = Matcher(connection)
        weakref.finalize(self, connection.close)

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open for reading. It is opened once and kept: the file may be replaced and deleted meanwhile."""
        try:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}") from error
        return cls(path, connection)

    def check_tables(self) -> None:
        """Raise StoreError unless its tables are what they should be."""
        if wrong := fault_of_tables(self.rows):
            raise StoreError(f"{self.path} is damaged: {wrong}")

    def check_rows(self, count: int) -> None:
        """Raise StoreError unless every row makes sense for `count` rows of vectors."""
        if wrong := fault_of_rows(self.rows, count):
            raise StoreError(f"{self.path} is damaged: {wrong}")

    def check_structure(self) -> None:
        """Raise StoreError unless sqlite finds every page and every entry of an index in its place."""
        rows = self.rows("PRAGMA integrity_check(1)")
        if rows != [("ok",)]:
            raise StoreError(f"{self.path} is damaged: {rows[0][0]}")

    @classmethod
    def create(cls, path: Path) -> Catalog:
        """Make an empty one in place of what may be there."""
        catalog = cls._to_be_written(path)
        with catalog._changing() as connection:
            connection.executescript(f"BEGIN; {TABLES} COMMIT")
        catalog.migrate()
        return catalog

    def copy(self, path: Path) -> Catalog:
        """A copy of it, in place of what may be there, to be changed."""
        copy = self._to_be_written(path)
        with copy._changing() as connection, self._lock:
            self._connection.backup(connection)
        copy.migrate()
        return copy

    @classmethod
    def _to_be_written(cls, path: Path) -> Catalog:
        path.unlink(missing_ok=True)
        try:
            return cls(path, sqlite3.connect(path, isolation_level=None))
        except sqlite3.Error as error:
            raise cannot_write(path, error) from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """The connection; what hinders a change is a StoreError that tells the operating system's reason."""
        try:
            with self._lock:
                self._matcher.forget()
                yield self._connection
        except sqlite3.Error as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        self._connection.close()

    def migrate(self) -> None:
        """Bring the tables of an earlier version to this one."""
        version, has_generations = self._version(), self._has_generations()
        with self._changing() as connection:
            connection.execute("BEGIN")
            if version < 1:
                connection.execute(REMOVED)
                if not has_generations:
                    connection.execute(f"ALTER TABLE images ADD COLUMN {GENERATION}")
            there = {column[1] for column in connection.execute("PRAGMA table_info(images)")}
            if version < 3:
                for column in [each for each in PATH_PARTS if each not in there]:
                    connection.execute(f"ALTER TABLE images ADD COLUMN {column} TEXT")
                paths = connection.execute("SELECT id, path FROM images").fetchall()
                connection.executemany(
                    f"UPDATE images SET {_SET_PARTS} WHERE id = ?",
                    ((*parts_of(path), id) for id, path in paths),
                )
            if version < 4 and "phash" not in there:
                connection.execute(f"ALTER TABLE images ADD COLUMN {PHASH}")
            if version < 5 and "camera" not in there:
                connection.execute(f"ALTER TABLE images ADD COLUMN {CAMERA}")
            for index in FILTER_INDEXES:
                connection.execute(index)
            connection.execute(f"PRAGMA user_version = {self.VERSION}")
            connection.execute("COMMIT")

    def _version(self) -> int:
        # The first catalogs had neither generations nor removed images; those after them did not count versions yet.
        if not (self._has_generations() and self._has_removed()):
            return 0
        return max(1, int(self.rows("PRAGMA user_version")[0][0]))

    # Reading

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """What a statement finds. For the modules of this package."""
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _ids(self, query: str, values: Any = ()) -> NDArray[np.int64]:
        return np.array([id for (id,) in self.rows(query, values)], np.int64)

    def _has_generations(self) -> bool:
        return "generation" in self._columns()

    def _columns(self) -> set[str]:
        """Of the table of images: those of earlier versions have fewer."""
        return {column[1] for column in self.rows("PRAGMA table_info(images)")}

    def _has_removed(self) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name = 'removed'"))

    def counts(self) -> tuple[int, int]:
        """How many images it lists, and how many of them are damaged."""
        ((count, damaged),) = self.rows("SELECT count(*), count(error) FROM images")
        return int(count), int(damaged)

    def removed_count(self) -> int:
        """How many images have left the collection."""
        return int(self.rows("SELECT count(*) FROM removed")[0][0]) if self._has_removed() else 0

    def about(self, key: str) -> Any:
        """What it says of the store as a whole; None where it says nothing."""
        rows = self.rows("SELECT value FROM about WHERE key = ?", (key,))
        try:
            return json.loads(rows[0][0]) if rows else None
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(f"{self.path} is damaged: what it says about {key} is not JSON") from error

    def records(self, ids: Sequence[int] | None = None) -> list[Record]:
        """What is on record of each image file, or of these, in the order of the ids."""
        among = "" if ids is None else "WHERE id IN (SELECT value FROM json_each(?))"
        asked = () if ids is None else (json.dumps([int(id) for id in ids]),)
        rows = self.rows(f"SELECT id, path, size, mtime, sha256 FROM images {among} ORDER BY id", asked)
        return [Record(id, path_from(path), *rest) for id, path, *rest in rows]

    def images(self) -> list[tuple[int, Path, str | None]]:
        """Id, path and error of each image, in the order of the ids."""
        rows = self.rows("SELECT id, path, error FROM images ORDER BY id")
        return [(id, path_from(path), error) for id, path, error in rows]

    def removed(self) -> list[tuple[int, Path]]:
        """Id and former path of each image that has left the collection, in the order of the ids."""
        rows = self.rows("SELECT id, path FROM removed ORDER BY id") if self._has_removed() else []
        return [(id, path_from(path)) for id, path in rows]

    def usable_ids(self) -> NDArray[np.int64]:
        """Ids of the images that are not damaged, ascending."""
        return self._ids("SELECT id FROM images WHERE error IS NULL ORDER BY id")

    def damaged(self) -> list[tuple[Path, str]]:
        """Path of each image that cannot be used, and why."""
        rows = self.rows("SELECT path, error FROM images WHERE error IS NOT NULL ORDER BY id")
        return [(path_from(path), error) for path, error in rows]

    def labels_by_image(self) -> dict[int, tuple[str, ...]]:
        """The labels of each image that has any, sorted."""
        labels: dict[int, tuple[str, ...]] = {}
        for id, label in self.rows("SELECT image_id, label FROM labels ORDER BY image_id, label"):
            labels[id] = (*labels.get(id, ()), label)
        return labels

    def label_counts(self) -> dict[str, int]:
        """Number of usable images of each label, in the order of the labels."""
        return dict(
            self.rows(
                "SELECT label, count(*) FROM labels JOIN images ON id = image_id WHERE error IS NULL "
                "GROUP BY label ORDER BY label"
            )
        )

    def path_counts(self, part: str) -> dict[str, int]:
        """How many usable images have each of one of `catalog_schema.PATH_PARTS`; none in an earlier version."""
        if part not in PATH_PARTS or part not in self._columns():
            return {}
        has_part = f"error IS NULL AND {part} <> ''"
        return dict(self.rows(f"SELECT {part}, count(*) FROM images WHERE {has_part} GROUP BY {part}"))

    def borne(self, labels: Collection[str]) -> set[str]:
        """Those of some labels that a usable image bears."""
        bearer = "SELECT 1 FROM labels JOIN images ON id = image_id WHERE label = asked.value AND error IS NULL"
        query = f"SELECT value FROM json_each(?) AS asked WHERE EXISTS ({bearer})"
        return {label for (label,) in self.rows(query, (json.dumps(list(labels)),))} if labels else set()

    def ids_with(
        self, filter: Mapping[str, str | Collection[str]], usable: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Ids of the usable images that a filter lets through, ascending.

        Parameters
        ----------
        filter : mapping
            ``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: images that bear one of these labels.
        usable : int64 (n,), optional
            What `usable_ids` gives, where it is known.

        Raises
        ------
        ValueError
            It asks for something other than labels.
        """
        if unknown := filter.keys() - {"label"}:
            raise ValueError(f"cannot filter by {', '.join(sorted(unknown))}; known: label")
        if "label" not in filter:
            return self.usable_ids()
        labels = [filter["label"]] if isinstance(filter["label"], str) else list(filter["label"])
        # Without a join: the few ids that bear a label are read in order, and usable ones are known.
        query = "SELECT DISTINCT image_id FROM labels WHERE label IN (SELECT value FROM json_each(?)) ORDER BY image_id"
        found = self._ids(query, (json.dumps(labels),))
        usable = self.usable_ids() if usable is None else usable
        if not usable.size:
            return usable
        return found[usable[np.minimum(np.searchsorted(usable, found), usable.size - 1)] == found]

    def ids_matching(
        self, tree: Tree, annotations: Path | None = None, own: Mapping[str, Field] | None = None
    ) -> NDArray[np.int64]:
        """Ids of the usable images that a tree of conditions lets through, ascending: see `matching.Matcher`.

        Parameters
        ----------
        annotations : Path, optional
            The file of what is said of the images.
        own : mapping of str to Field, optional
            Fields that this collection has beside those of all.
        """
        try:
            with self._lock:
                return self._matcher.ids(tree, annotations, own or {})
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def changes_since(self, generation: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of usable images whose vector is of a later generation, and ids that are no longer of use."""
        since = (generation, generation)
        changed = "SELECT id FROM images WHERE generation > ? AND error IS NULL ORDER BY id"
        gone = (
            "SELECT id FROM images WHERE generation > ? AND error IS NOT NULL "
            "UNION SELECT id FROM removed WHERE generation > ?"
        )
        return self._ids(changed, since[:1]), self._ids(gone, since)

    def hash_of(self, id: int) -> str | None:
        """SHA-256 of an image file; None if it could not be read. Raises KeyError for an id that it does not have."""
        rows = self.rows("SELECT sha256 FROM images WHERE id = ?", (int(id),))
        if not rows:
            raise KeyError(id)
        return None if rows[0][0] is None else str(rows[0][0])

    def ids_of_hash(self, sha256: str) -> list[int]:
        """Ids of the usable images of this content, ascending."""
        return self._ids("SELECT id FROM images WHERE sha256 = ? AND error IS NULL ORDER BY id", (sha256,)).tolist()

    def sizes(self, ids: Sequence[int]) -> dict[int, tuple[int | None, int | None, int, int]]:
        """Width, height, bytes and time of images, by id."""
        rows = self.rows(
            "SELECT id, width, height, size, mtime FROM images WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
        return {id: (*rest,) for id, *rest in rows}

    def copies(self) -> list[list[int]]:
        """Ids of the usable images that have one content each, ascending, of every content that several have."""
        rows = self.rows(
            "SELECT group_concat(id) FROM images WHERE error IS NULL AND sha256 NOT NULL "
            "GROUP BY sha256 HAVING count(*) > 1"
        )
        return sorted(sorted(map(int, ids.split(","))) for (ids,) in rows)

    def phashes(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Ids (n,), ascending, of the usable images whose perceptual hashes are known, and these, uint64 (n, 8)."""
        if "phash" not in self._columns():
            return np.empty(0, np.int64), np.empty((0, ORIENTATIONS), np.uint64)
        known = f"error IS NULL AND length(phash) = {HASH_BYTES}"
        rows = self.rows(f"SELECT id, phash FROM images WHERE {known} ORDER BY id")
        hashes = np.frombuffer(b"".join(phash for _, phash in rows), np.uint64)
        return np.array([id for id, _ in rows], np.int64), hashes.reshape(-1, ORIENTATIONS)

    def without_phash(self) -> set[int]:
        """Ids of the usable images whose perceptual hashes are not known."""
        return self._lacking("phash")

    def without_camera(self) -> set[int]:
        """Ids of the usable images of which it is not known whether a camera is named in them."""
        return self._lacking("camera")

    def _lacking(self, column: str) -> set[int]:
        lacking = f"AND {column} IS NULL" if column in self._columns() else ""
        return {id for (id,) in self.rows(f"SELECT id FROM images WHERE error IS NULL {lacking}")}

    def has_content(self, sha256: str) -> bool:
        """Whether an image, usable or not, has this content."""
        return bool(self.rows("SELECT 1 FROM images WHERE sha256 = ? LIMIT 1", (sha256,)))

    # Writing

    def set_about(self, **facts: Any) -> None:
        """Say something of the store as a whole; what is said must have a form in JSON."""
        values = [(key, json.dumps(value)) for key, value in facts.items()]
        with self._changing() as connection:
            connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values)

    def fill(self, rows: Iterable[Row], labels: Iterable[tuple[int, Iterable[str]]]) -> None:
        """Give an empty catalog its images and their labels, all or none."""
        with self._changing() as connection:
            connection.execute("BEGIN")
            _insert(connection, rows, 0)
            _insert_labels(connection, labels)
            connection.execute("COMMIT")

    def apply(self, changes: CatalogChanges, generation: int) -> None:
        """Make the changes, all or none."""
        with self._changing() as connection:
            connection.execute("BEGIN")
            for id, path in changes.removed:
                connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (id, path_to(path), generation))
                connection.execute("DELETE FROM labels WHERE image_id = ?", (id,))
                connection.execute("DELETE FROM images WHERE id = ?", (id,))
            connection.executemany(
                f"UPDATE images SET path = ?, {_SET_PARTS}, size = ?, mtime = ?, sha256 = ?, "
                "width = ?, height = ?, error = ?, phash = ?, camera = ?, generation = ? WHERE id = ?",
                ((*_path_columns(row.path), *row[2:], generation, row.id) for row in changes.encoded),
            )
            connection.executemany(
                f"UPDATE images SET path = ?, {_SET_PARTS}, size = ?, mtime = ? WHERE id = ?",
                ((*_path_columns(path), size, mtime, id) for id, path, size, mtime in changes.moved),
            )
            _insert(connection, changes.added, generation)
            connection.executemany("UPDATE images SET phash = ? WHERE id = ?", ((h, id) for id, h in changes.hashed))
            connection.executemany("UPDATE images SET camera = ? WHERE id = ?", ((c, id) for id, c in changes.cameras))
            connection.executemany("DELETE FROM labels WHERE image_id = ?", ((id,) for id in changes.labels))
            _insert_labels(connection, changes.labels.items())
            connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, rows: Iterable[Row], generation: int) -> None:
    connection.executemany(
        f"INSERT INTO images (id, path, {', '.join(PATH_PARTS)}, size, mtime, sha256, width, height, error, "
        f"phash, camera, generation) VALUES ({', '.join('?' * (11 + len(PATH_PARTS)))})",
        ((row.id, *_path_columns(row.path), *row[2:], generation) for row in rows),
    )


def _path_columns(path: Path) -> tuple[str | bytes | None, ...]:
    stored = path_to(path)
    return stored, *parts_of(stored)


def _insert_labels(connection: sqlite3.Connection, labels: Iterable[tuple[int, Iterable[str]]]) -> None:
    connection.executemany(
        "INSERT INTO labels (image_id, label) VALUES (?, ?)",
        ((id, name) for id, names in labels for name in dict.fromkeys(names)),
    )


def catalog_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a catalog that has just been written and closed."""
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "change_counter": change_counter(path),
    }


def change_counter(path: Path) -> int:
    """How often sqlite has written the file, by its header: bytes 24 to 27, big-endian."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(28)[24:], "big")
