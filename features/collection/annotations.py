"""What people and models say of the pictures of a collection: all SQL of ``annotations.sqlite``.

Everything else in a collection can be made again from the image files; this cannot. So it is a file of its own, edited
live, which no build and no sync copies, derives or deletes. What is said of a picture hangs on a key of this file's
own, and the key on the picture's id. A sync keeps ids; where a collection was built anew, keys find their pictures
again by path and content, then by content alone where only one picture has it. A key without a picture keeps what is
said, should the picture come back.

Every word has a maker. A maker that runs again replaces its own words and nobody else's, and what a person said stays:
see `features.collection.edits` for what people do.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection import annotation_rows as change
from features.collection.annotations_schema import MIGRATIONS
from features.collection.errors import StoreError, cannot_write
from features.collection.file_facts import path_to
from features.collection.fulltext import INSTANCES, FullText
from features.collection.lock import writing
from features.collection.records import Record
from features.collection.said import PERSON, Caption, FieldValue, Maker, Said, Tag, Words, clean_tag, shown
from features.collection.schema import ANNOTATIONS
from features.sqlite_transaction import transaction

_WAIT_SECONDS = 5.0


class AnnotatedStore(Protocol):
    """The collection that the annotations are of: a `FeatureStore`."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def generation(self) -> int: ...

    def records(self, ids: Sequence[int] | None = None) -> list[Record]: ...

    def update_manifest(self, **entries: Any) -> None: ...


class MakerCount(NamedTuple):
    """How much a maker has said: pictures with a caption, a tag or a field of it."""

    maker: Maker
    pictures: int


class Annotations:
    """The open annotations of a collection. Safe to use from many threads; writers take turns, readers never wait.

    Attributes
    ----------
    path : Path
    """

    VERSION = len(MIGRATIONS)

    def __init__(self, path: Path, connection: sqlite3.Connection, store: AnnotatedStore) -> None:
        self.path = path
        self._connection = connection
        self._store = store
        self._lock = threading.RLock()
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._full_text = FullText()
        weakref.finalize(self, connection.close)

    @classmethod
    def open(cls, store: AnnotatedStore) -> Annotations:
        """Open the annotations of a collection; made where there are none.

        Words that makers read from the content of pictures that have changed since are dropped.

        Raises
        ------
        StoreError
            The file is damaged, of a later version, or cannot be written.
        """
        path = store.folder / ANNOTATIONS
        try:
            if not path.exists():
                with writing(store.folder, wait_seconds=_WAIT_SECONDS, purpose="annotated"):
                    annotations = cls._connected(path, store)
            else:  # edited live: while a sync is at work, too
                annotations = cls._connected(path, store)
            if store.manifest.get("annotations") != annotations.id:
                with writing(store.folder, wait_seconds=_WAIT_SECONDS, purpose="annotated"):
                    annotations.find_pictures(store.records())
                    annotations._set_about(generation=store.generation)
                    store.update_manifest(annotations=annotations.id)
            elif (annotations._about("generation") or 0) < store.generation:
                annotations.follow(store.records())
                annotations._set_about(generation=store.generation)
        except sqlite3.Error as error:
            raise _failure(path, error) from error
        return annotations

    @classmethod
    def _connected(cls, path: Path, store: AnnotatedStore) -> Annotations:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        annotations = cls(path, connection, store)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was reported done is there after a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        annotations._migrate()
        return annotations

    def _migrate(self) -> None:
        if self._version() == self.VERSION:
            return
        with self.changing() as connection:
            version = self._version()  # another process may have been first
            if version > self.VERSION:
                raise StoreError(f"{self.path} has version {version}; this program reads up to {self.VERSION}")
            for migration in MIGRATIONS[version:]:
                for statement in _statements(migration):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self.VERSION}")
            new = json.dumps(secrets.token_hex(16))
            connection.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (new,))
            if version:
                change.refresh(connection, [key for (key,) in connection.execute("SELECT picture FROM pictures")])

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        self._connection.close()
        if self._reader is not None:
            self._reader.close()

    # Reading

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a statement finds in what has been committed. For the modules of this package."""
        with self.reading() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees what has been committed when the block begins; for one thread at a time."""
        try:
            with self._reading:
                if self._reader is None:
                    reader = sqlite3.connect(
                        self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
                    )
                    weakref.finalize(self, reader.close)
                    reader.execute(INSTANCES)
                    reader.execute("PRAGMA query_only = ON")
                    self._reader = reader
                self._reader.execute("BEGIN")
                try:
                    yield self._reader
                finally:
                    if self._reader.in_transaction:
                        self._reader.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _about(self, key: str) -> Any:
        rows = self.rows("SELECT value FROM about WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    @property
    def id(self) -> str:
        """Of this file: a manifest that names it has the ids that the pictures here are known by."""
        return str(self._about("id"))

    @property
    def changes(self) -> int:
        """How often words have changed so far: see `changed_since`."""
        return int(self.rows("SELECT ifnull(max(said), 0) FROM pictures")[0][0])

    def changed_since(self, changes: int) -> NDArray[np.int64]:
        """Ids, ascending, of the images whose words have changed after the first so many changes."""
        rows = self.rows("SELECT image_id FROM pictures WHERE said > ? AND image_id NOT NULL", (changes,))
        return np.sort(np.array([id for (id,) in rows], np.int64))

    def image_ids(self) -> dict[int, int | None]:
        """The image of each key; None where it is not in the collection."""
        return dict(self.rows("SELECT picture, image_id FROM pictures"))

    def of(self, ids: Iterable[int]) -> dict[int, Said]:
        """What is said of some images; those of which nothing is said are left out."""
        asked = (json.dumps([int(id) for id in ids]),)
        among = "JOIN pictures USING (picture) WHERE image_id IN (SELECT value FROM json_each(?))"
        captions: dict[int, list[Caption]] = {}
        for id, text, certainty, *maker in self.rows(
            f"SELECT image_id, text, certainty, source, maker FROM captions {among} ORDER BY source <> 'person', text",
            asked,
        ):
            captions.setdefault(id, []).append(Caption(text, certainty, Maker(*maker)))
        tags: dict[int, list[Tag]] = {}
        for id, tag, certainty, *maker in self.rows(
            f"SELECT image_id, tag, certainty, source, maker FROM tags {among} "
            "ORDER BY source <> 'person', certainty DESC, tag",
            asked,
        ):
            tags.setdefault(id, []).append(Tag(tag, certainty, Maker(*maker)))
        fields: dict[int, list[FieldValue]] = {}
        for id, name, value, kind, *maker in self.rows(
            "SELECT image_id, name, value, kind, source, maker FROM field_values JOIN fields USING (name) "
            f"{among} ORDER BY name",
            asked,
        ):
            fields.setdefault(id, []).append(FieldValue(name, shown(value, kind), Maker(*maker)))
        favourites = {id for (id,) in self.rows(f"SELECT image_id FROM favourites {among}", asked)}
        albums: dict[int, list[str]] = {}
        for id, album in self.rows(f"SELECT image_id, album FROM albums {among} ORDER BY album", asked):
            albums.setdefault(id, []).append(album)
        return {
            id: Said(
                tuple(captions.get(id, ())),
                tuple(tags.get(id, ())),
                tuple(fields.get(id, ())),
                id in favourites,
                tuple(albums.get(id, ())),
            )
            for id in sorted({*captions, *tags, *fields, *albums, *favourites})
        }

    def fields(self) -> dict[str, str]:
        """Of each field, by name, its kind: number, date or text."""
        return dict(self.rows("SELECT name, kind FROM fields ORDER BY name"))

    def tag_counts(self, beginning: str = "", limit: int = 1_000) -> dict[str, int]:
        """How many images bear each tag, the most frequent first."""
        pattern = beginning.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        return dict(
            self.rows(
                r"SELECT min(tag), count(DISTINCT image_id) AS images FROM tags JOIN pictures USING (picture) "
                r"WHERE image_id NOT NULL AND tag LIKE ? ESCAPE '\' "
                "GROUP BY tag COLLATE NOCASE ORDER BY images DESC, tag LIMIT ?",
                (pattern, limit),
            )
        )

    def value_counts(self, field: str, limit: int = 1_000) -> dict[str, int]:
        """How many images have each value of a field that is a text, the most frequent first."""
        return dict(
            self.rows(
                "SELECT value, count(image_id) AS images FROM field_values JOIN pictures USING (picture) "
                "WHERE name = ? AND image_id NOT NULL GROUP BY value ORDER BY images DESC, value LIMIT ?",
                (field, limit),
            )
        )

    def tagged(self, tag: str) -> dict[int, float]:
        """The images that bear a tag, in whatever case, and how certain the surest of its makers is."""
        return dict(
            self.rows(
                "SELECT image_id, max(ifnull(certainty, 1)) FROM tags JOIN pictures USING (picture) "
                "WHERE tag = ? COLLATE NOCASE AND image_id NOT NULL GROUP BY image_id",
                (clean_tag(tag),),
            )
        )

    def makers(self) -> list[MakerCount]:
        """All whose words are here, and of how many images of the collection."""
        union = " UNION ".join(f"SELECT picture, source, maker FROM {table}" for table in change.TABLES)
        rows = self.rows(
            f"SELECT source, maker, count(image_id) FROM ({union}) JOIN pictures USING (picture) "
            "GROUP BY source, maker ORDER BY source, maker"
        )
        return [MakerCount(Maker(source, maker), count) for source, maker, count in rows]

    def search(self, text: str, *, match: str = "words", limit: int = -1) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The images whose words hold those of a text, best first: see `FullText.search`."""
        with self.reading() as connection:
            return self._full_text.search(connection, text, match=match, limit=limit)

    def word_scores(self, text: str, *, match: str = "words") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The images whose words hold those of a text, in any order, and how well they fit: see `FullText.scores`."""
        with self.reading() as connection:
            return self._full_text.scores(connection, text, match=match)

    # Keys and their pictures

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: all of the block is done, durably, or nothing of it."""
        with self._lock:
            try:
                with transaction(self._connection) as connection:
                    yield connection
            except sqlite3.Error as error:
                raise _failure(self.path, error) from error

    def _set_about(self, **facts: Any) -> None:
        with self.changing() as connection:
            values = [(key, json.dumps(value)) for key, value in facts.items()]
            connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values)

    def key_of(self, record: Record) -> int:
        """The key on which everything hangs that is said of an image; made where there is none."""
        with self.changing() as connection:
            return change.keys_of(connection, [record])[0]

    def keys_of(self, connection: sqlite3.Connection, ids: Iterable[int]) -> list[int]:
        """`key_of` for images by their ids, in a transaction. Raises StoreError for an id that is no image's."""
        asked = list(dict.fromkeys(int(id) for id in ids))
        records = {record.id: record for record in self._store.records(asked)}
        if missing := [id for id in asked if id not in records]:
            raise StoreError(f"no image with id {missing[0]} in {self._store.folder}")
        return change.keys_of(connection, [records[id] for id in asked])

    def find_pictures(self, records: list[Record]) -> None:
        """Find the pictures of all keys among the images of a collection that was built anew."""
        with self.changing() as connection:
            connection.execute("UPDATE pictures SET image_id = NULL")
            change.place(connection, records)

    def follow(self, records: list[Record]) -> None:
        """Follow a sync, which keeps ids: what makers read from content that has changed is dropped."""
        now = {record.id: record for record in records}
        with self.changing() as connection:
            known = connection.execute("SELECT picture, image_id, path, sha256 FROM pictures WHERE image_id NOT NULL")
            rows = known.fetchall()
            gone = [(key,) for key, id, *_ in rows if id not in now]
            connection.executemany("UPDATE pictures SET image_id = NULL WHERE picture = ?", gone)
            changed = []
            for key, id, path, sha256 in rows:
                record = now.get(id)
                if record is None or (path_to(record.path), record.sha256) == (path, sha256):
                    continue
                if record.sha256 not in (None, sha256):
                    change.drop_stale(connection, key, record.sha256)
                connection.execute(
                    "UPDATE pictures SET path = ?, sha256 = ifnull(?, sha256) WHERE picture = ?",
                    (path_to(record.path), record.sha256, key),
                )
                changed.append(key)
            change.refresh(connection, changed)
            change.place(connection, records)

    # Makers

    def todo(self, maker: Maker, version: str, records: Iterable[Record]) -> list[Record]:
        """The images that a maker has not looked at: not in this version, or not with this content."""
        rows = self.rows(
            "SELECT image_id, runs.sha256 FROM runs JOIN pictures USING (picture) "
            "WHERE source = ? AND maker = ? AND version = ? AND image_id NOT NULL",
            (*maker, version),
        )
        done = dict(rows)
        return [record for record in records if record.id not in done or done[record.id] not in (None, record.sha256)]

    def put(
        self, maker: Maker, version: str, said: Iterable[tuple[Record, Words]], *, reads_content: bool = True
    ) -> None:
        """Let a maker say its words of some images, in place of what it said of them before, all or none.

        Parameters
        ----------
        version : str
            Of all that the words depend on beside the picture: see `todo`.
        reads_content : bool
            Whether they depend on the content of the file; then they go when that changes.

        Raises
        ------
        ValueError
            The maker is a person: what people say is never replaced. See `features.collection.edits`.
        """
        if maker.source == PERSON:
            raise ValueError("a maker is no person: what people say is edited, not made")
        said = list(said)
        with self.changing() as connection:
            keys = change.keys_of(connection, [record for record, _ in said])
            for key, (record, words) in zip(keys, said, strict=True):
                change.take_back(connection, maker, [key])
                change.say(connection, maker, key, words)
                seen = record.sha256 if reads_content else None
                connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", (key, *maker, version, seen))
            change.refresh(connection, keys)

    def forget(self, maker: Maker) -> int:
        """Take back all that a maker has said; returns of how many pictures.

        Raises
        ------
        ValueError
            The maker is a person.
        """
        if maker.source == PERSON:
            raise ValueError("what people say is edited, not forgotten")
        with self.changing() as connection:
            where = "WHERE source = ? AND maker = ?"
            union = " UNION ".join(f"SELECT picture FROM {table} {where}" for table in (*change.TABLES, "runs"))
            keys = [key for (key,) in connection.execute(union, maker * 4)]
            change.take_back(connection, maker, keys)
            change.refresh(connection, keys)
        return len(keys)


def _statements(migration: str) -> list[str]:
    """The statements of a migration: `executescript` would end the transaction first."""
    statements, begun = [], ""
    for line in migration.splitlines():
        begun += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements


def _failure(path: Path, error: sqlite3.Error) -> StoreError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{path} cannot be read: {error}")
    return cannot_write(path, error)
