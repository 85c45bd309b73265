"""The catalog of a collection: all SQL of what the image files say.

A catalog is a sqlite file that is never changed once a manifest names it: a sync copies it, migrates the copy and
writes the changes there. ``PRAGMA user_version`` says which migrations it has had.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.errors import StoreError

Facts = tuple[str | None, int | None, int | None, str | None]
"""What reading an image file told: SHA-256, width, height, error."""

_SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,    -- the row of the features
    path NOT NULL UNIQUE,      -- relative to the dataset's root, with "/"; bytes where a name is not valid UTF-8
    size INTEGER NOT NULL,     -- bytes
    mtime INTEGER NOT NULL,    -- nanoseconds since 1970
    sha256 TEXT,               -- of the file's content
    width INTEGER,             -- pixels, as seen (after the EXIF orientation)
    height INTEGER,
    error TEXT                 -- why the image was skipped; its row of the features is zero
);
CREATE INDEX images_sha256 ON images (sha256);
CREATE TABLE labels (
    image_id INTEGER NOT NULL REFERENCES images (id),
    label TEXT NOT NULL,
    PRIMARY KEY (label, image_id)
) WITHOUT ROWID;
CREATE INDEX labels_image ON labels (image_id);
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- JSON
"""

_GENERATION = "generation INTEGER NOT NULL DEFAULT 0"
_REMOVED = """
CREATE TABLE IF NOT EXISTS removed (
    id INTEGER PRIMARY KEY,    -- never given to another image; its row of the features is zero
    path NOT NULL,             -- where the image was
    generation INTEGER NOT NULL
)
"""


class Record(NamedTuple):
    """An image file as it was when it was last looked at: path relative to the root, bytes, nanoseconds, SHA-256."""

    id: int
    path: Path
    size: int
    mtime: int
    sha256: str | None


class Row(NamedTuple):
    """A row of the table of images, without its generation."""

    id: int
    path: Path
    size: int
    mtime: int
    sha256: str | None
    width: int | None
    height: int | None
    error: str | None


@dataclass
class CatalogChanges:
    """What becomes new in the catalog with a generation of the store.

    Attributes
    ----------
    removed : list of (id, path)
    encoded : list of Row
        Images that the catalog knows and whose row of the features is written anew.
    moved : list of (id, path, size, mtime)
        The same content under another path, or with another time.
    added : list of Row
    labels : dict of int to tuple of str
        All labels of the images whose labels have changed.
    """

    removed: list[tuple[int, Path]] = field(default_factory=list)
    encoded: list[Row] = field(default_factory=list)
    moved: list[tuple[int, Path, int, int]] = field(default_factory=list)
    added: list[Row] = field(default_factory=list)
    labels: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.removed, self.encoded, self.moved, self.added, self.labels))


class Catalog:
    """An open catalog. Safe to use from many threads, one at a time. What sqlite cannot read is a StoreError."""

    VERSION = 1

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        weakref.finalize(self, connection.close)

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open for reading. It is opened once and kept: the file may be replaced and deleted meanwhile."""
        try:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}") from error
        return cls(path, connection)

    @classmethod
    def create(cls, path: Path) -> Catalog:
        """Make an empty one in place of what may be there."""
        path.unlink(missing_ok=True)
        catalog = cls(path, sqlite3.connect(path, isolation_level=None))
        catalog._connection.executescript(_SCHEMA)
        catalog.migrate()
        return catalog

    def copy(self, path: Path) -> Catalog:
        """A copy of it, in place of what may be there, to be changed."""
        path.unlink(missing_ok=True)
        copy = Catalog(path, sqlite3.connect(path, isolation_level=None))
        with self._lock:
            self._connection.backup(copy._connection)
        copy.migrate()
        return copy

    def close(self) -> None:
        self._connection.close()

    def migrate(self) -> None:
        """Bring the tables of an earlier version to this one."""
        if self._version() < 1:
            self._connection.execute(_REMOVED)
            if not self._has_generations():
                self._connection.execute(f"ALTER TABLE images ADD COLUMN {_GENERATION}")
        self._connection.execute(f"PRAGMA user_version = {self.VERSION}")

    def _version(self) -> int:
        # The first catalogs had neither generations nor removed images; those after them did not count versions yet.
        if not (self._has_generations() and self._has_removed()):
            return 0
        return max(1, int(self._rows("PRAGMA user_version")[0][0]))

    # Reading

    def _rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _ids(self, query: str, values: Any = ()) -> NDArray[np.int64]:
        return np.array([id for (id,) in self._rows(query, values)], np.int64)

    def _has_generations(self) -> bool:
        return "generation" in [column[1] for column in self._rows("PRAGMA table_info(images)")]

    def _has_removed(self) -> bool:
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE name = 'removed'"))

    def counts(self) -> tuple[int, int]:
        """How many images it lists, and how many of them are damaged."""
        ((count, damaged),) = self._rows("SELECT count(*), count(error) FROM images")
        return int(count), int(damaged)

    def removed_count(self) -> int:
        """How many images have left the collection."""
        return int(self._rows("SELECT count(*) FROM removed")[0][0]) if self._has_removed() else 0

    def about(self, key: str) -> Any:
        """What it says of the store as a whole; None where it says nothing."""
        rows = self._rows("SELECT value FROM about WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def records(self) -> list[Record]:
        """What is on record of each image file, in the order of the ids."""
        rows = self._rows("SELECT id, path, size, mtime, sha256 FROM images ORDER BY id")
        return [Record(id, path_from(path), *rest) for id, path, *rest in rows]

    def images(self) -> list[tuple[int, Path, str | None]]:
        """Id, path and error of each image, in the order of the ids."""
        rows = self._rows("SELECT id, path, error FROM images ORDER BY id")
        return [(id, path_from(path), error) for id, path, error in rows]

    def removed(self) -> list[tuple[int, Path]]:
        """Id and former path of each image that has left the collection, in the order of the ids."""
        rows = self._rows("SELECT id, path FROM removed ORDER BY id") if self._has_removed() else []
        return [(id, path_from(path)) for id, path in rows]

    def usable_ids(self) -> NDArray[np.int64]:
        """Ids of the images that are not damaged, ascending."""
        return self._ids("SELECT id FROM images WHERE error IS NULL ORDER BY id")

    def damaged(self) -> list[tuple[Path, str]]:
        """Path of each image that cannot be used, and why."""
        rows = self._rows("SELECT path, error FROM images WHERE error IS NOT NULL ORDER BY id")
        return [(path_from(path), error) for path, error in rows]

    def labels_by_image(self) -> dict[int, tuple[str, ...]]:
        """The labels of each image that has any, sorted."""
        labels: dict[int, tuple[str, ...]] = {}
        for id, label in self._rows("SELECT image_id, label FROM labels ORDER BY image_id, label"):
            labels[id] = (*labels.get(id, ()), label)
        return labels

    def label_counts(self) -> dict[str, int]:
        """Number of usable images of each label, in the order of the labels."""
        return dict(
            self._rows(
                "SELECT label, count(*) FROM labels JOIN images ON id = image_id WHERE error IS NULL "
                "GROUP BY label ORDER BY label"
            )
        )

    def ids_with(self, filter: Mapping[str, str | Collection[str]]) -> NDArray[np.int64]:
        """Ids of the usable images that a filter lets through, ascending.

        Parameters
        ----------
        filter : mapping
            ``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: images that bear one of these labels.

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
        query = (
            "SELECT DISTINCT image_id FROM labels JOIN images ON id = image_id "
            "WHERE label IN (SELECT value FROM json_each(?)) AND error IS NULL ORDER BY image_id"
        )
        return self._ids(query, (json.dumps(labels),))

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
        rows = self._rows("SELECT sha256 FROM images WHERE id = ?", (int(id),))
        if not rows:
            raise KeyError(id)
        return None if rows[0][0] is None else str(rows[0][0])

    def ids_of_hash(self, sha256: str) -> list[int]:
        """Ids of the usable images of this content, ascending."""
        return self._ids("SELECT id FROM images WHERE sha256 = ? AND error IS NULL ORDER BY id", (sha256,)).tolist()

    # Writing

    def set_about(self, **facts: Any) -> None:
        """Say something of the store as a whole; what is said must have a form in JSON."""
        values = [(key, json.dumps(value)) for key, value in facts.items()]
        self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values)

    def apply(self, changes: CatalogChanges, generation: int) -> None:
        """Make the changes, all or none."""
        execute = self._connection.execute
        execute("BEGIN")
        for id, path in changes.removed:
            execute("INSERT INTO removed VALUES (?, ?, ?)", (id, path_to(path), generation))
            execute("DELETE FROM labels WHERE image_id = ?", (id,))
            execute("DELETE FROM images WHERE id = ?", (id,))
        self._connection.executemany(
            "UPDATE images SET path = ?, size = ?, mtime = ?, sha256 = ?, width = ?, height = ?, error = ?, "
            "generation = ? WHERE id = ?",
            ((path_to(row.path), *row[2:], generation, row.id) for row in changes.encoded),
        )
        self._connection.executemany(
            "UPDATE images SET path = ?, size = ?, mtime = ? WHERE id = ?",
            ((path_to(path), size, mtime, id) for id, path, size, mtime in changes.moved),
        )
        self._insert(changes.added, generation)
        self._connection.executemany("DELETE FROM labels WHERE image_id = ?", ((id,) for id in changes.labels))
        self._insert_labels(changes.labels.items())
        execute("COMMIT")

    def fill(self, rows: Iterable[Row], labels: Iterable[tuple[int, Iterable[str]]]) -> None:
        """Give an empty catalog its images and their labels, all or none."""
        self._connection.execute("BEGIN")
        self._insert(rows, 0)
        self._insert_labels(labels)
        self._connection.execute("COMMIT")

    def _insert(self, rows: Iterable[Row], generation: int) -> None:
        self._connection.executemany(
            "INSERT INTO images (id, path, size, mtime, sha256, width, height, error, generation) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((row.id, path_to(row.path), *row[2:], generation) for row in rows),
        )

    def _insert_labels(self, labels: Iterable[tuple[int, Iterable[str]]]) -> None:
        self._connection.executemany(
            "INSERT INTO labels (image_id, label) VALUES (?, ?)",
            ((id, name) for id, names in labels for name in dict.fromkeys(names)),
        )


def path_to(path: Path) -> str | bytes:
    """A relative path as the catalog holds it: text, or bytes if it is not valid UTF-8."""
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def path_from(stored: str | bytes) -> Path:
    """What `path_to` was given."""
    return Path(os.fsdecode(stored))


def stat_of(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; (-1, 0) for a file that cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns
