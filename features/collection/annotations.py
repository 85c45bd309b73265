"""What people and models say of the pictures of a collection: all SQL of ``annotations.sqlite``.

Everything else in a collection can be made again from the image files; this cannot. So it is a file of its own, edited
live, which no build and no sync copies, derives or deletes. What is said of a picture hangs on a key of this file's
own, and the key on the picture's id. A sync keeps ids; where a collection was built anew, keys find their pictures
again by path and content, then by content alone where only one picture has it. A key without a picture keeps what is
said, should the picture come back.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.collection.catalog import Record
from features.collection.errors import StoreError, cannot_write
from features.collection.file_facts import path_from, path_to
from features.collection.lock import writing
from features.collection.schema import ANNOTATIONS
from features.collection.store import FeatureStore

_WAIT_SECONDS = 5.0

# Each brings a file to the version that is its place in the list, counted from 1.
_MIGRATIONS = (
    """
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- JSON
    CREATE TABLE pictures (
        picture INTEGER PRIMARY KEY,
        image_id INTEGER UNIQUE,  -- in the collection as it is; NULL while the picture is not there
        path NOT NULL,            -- as in the catalog
        sha256 TEXT               -- of the content that something was said of
    );
    CREATE INDEX pictures_sha256 ON pictures (sha256);
    CREATE TABLE captions (
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        source TEXT NOT NULL,     -- label, file, model, ocr, person
        maker TEXT NOT NULL,      -- which of them, '' for a person
        text TEXT NOT NULL,
        PRIMARY KEY (picture, source, maker, text)
    ) WITHOUT ROWID;
    CREATE TABLE tags (
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        tag TEXT NOT NULL,
        source TEXT NOT NULL,
        maker TEXT NOT NULL,
        certainty REAL,           -- 0 to 1; NULL for a person
        PRIMARY KEY (picture, tag, source, maker)
    ) WITHOUT ROWID;
    CREATE INDEX tags_tag ON tags (tag);
    CREATE TABLE favourites (picture INTEGER PRIMARY KEY REFERENCES pictures (picture));
    """,
)


class Annotations:
    """The open annotations of a collection. Safe to use from many threads; writers take turns.

    Attributes
    ----------
    path : Path
    """

    VERSION = len(_MIGRATIONS)

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        weakref.finalize(self, connection.close)

    @classmethod
    def open(cls, store: FeatureStore) -> Annotations:
        """Open the annotations of a collection; made where there are none.

        Raises
        ------
        StoreError
            The file is damaged, of a later version, or cannot be written.
        """
        path = store.folder / ANNOTATIONS
        with writing(store.folder, wait_seconds=_WAIT_SECONDS, purpose="annotated"):
            try:
                connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
                annotations = cls(path, connection)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # what was reported done is there after a power cut
                connection.execute("PRAGMA foreign_keys = ON")
                annotations._migrate()
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise StoreError(f"{path} cannot be read: {error}") from error
                raise cannot_write(path, error) from error
            if store.manifest.get("annotations") != annotations.id:
                annotations.find_pictures(store.records())
                store.update_manifest(annotations=annotations.id)
        return annotations

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > self.VERSION:
            raise StoreError(f"{self.path} has version {version}; this program reads up to {self.VERSION}")
        for number, migration in enumerate(_MIGRATIONS[version:], start=version + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT")
        with self.changing() as connection:
            new = json.dumps(secrets.token_hex(16))
            connection.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (new,))

    @property
    def id(self) -> str:
        """Of this file: a manifest that names it has the ids that the pictures here are known by."""
        with self._lock:
            (value,) = self._connection.execute("SELECT value FROM about WHERE key = 'id'").fetchone()
        return str(json.loads(value))

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: all of the block is done, durably, or nothing of it."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise cannot_write(self.path, error) from error

    def key_of(self, record: Record) -> int:
        """The key on which everything hangs that is said of an image; made where there is none."""
        with self.changing() as connection:
            connection.execute(
                "INSERT INTO pictures (image_id, path, sha256) VALUES (?, ?, ?) ON CONFLICT (image_id) "
                "DO UPDATE SET path = excluded.path, sha256 = excluded.sha256",
                (record.id, path_to(record.path), record.sha256),
            )
            row = connection.execute("SELECT picture FROM pictures WHERE image_id = ?", (record.id,)).fetchone()
        return int(row[0])

    def image_ids(self) -> dict[int, int | None]:
        """The image of each key; None where it is not in the collection."""
        with self._lock:
            return dict(self._connection.execute("SELECT picture, image_id FROM pictures"))

    def find_pictures(self, records: list[Record]) -> None:
        """Find the pictures of all keys among the images of a collection that was built anew."""
        by_path = {record.path: record for record in records}
        by_content: dict[str, list[int]] = {}
        for record in records:
            if record.sha256 is not None:
                by_content.setdefault(record.sha256, []).append(record.id)
        with self.changing() as connection:
            rows = connection.execute("SELECT picture, path, sha256 FROM pictures ORDER BY picture").fetchall()
            found: dict[int, int] = {}  # image id to key: an image is one key's
            for key, path, sha256 in rows:
                there = by_path.get(path_from(path))
                if there is not None and there.sha256 == sha256:
                    found.setdefault(there.id, key)
            placed = set(found.values())
            for key, _, sha256 in rows:
                ids = by_content.get(sha256, [])
                if key not in placed and len(ids) == 1:
                    found.setdefault(ids[0], key)
            connection.execute("UPDATE pictures SET image_id = NULL")
            connection.executemany("UPDATE pictures SET image_id = ? WHERE picture = ?", found.items())

    def close(self) -> None:
        self._connection.close()
