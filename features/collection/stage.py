"""What has been encoded for a collection and is not in it yet, in one sqlite file.

An extraction and a sync that were stopped, whatever stopped them, go on from here: a file whose size and time are still
those that it was encoded with is not encoded again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from features.collection.errors import StoreError, cannot_write
from features.collection.file_facts import UNKNOWN_TIME, path_to
from features.collection.records import Facts
from features.images import TOO_LARGE

STAGE = ".sync.sqlite"
BLOCK = 16_384  # rows of the features that are in memory at a time
_ENCODED = (
    "CREATE TABLE IF NOT EXISTS encoded (path PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT, "
    "width INTEGER, height INTEGER, error TEXT, phash BLOB, camera TEXT, vector BLOB)"
)


class Stage:
    """Encoded images by path, for one process at a time.

    Parameters
    ----------
    path : Path
        The file, made where there is none.
    in_use : str
        What to say where another process has it.

    Raises
    ------
    StoreError
        Another process has it, or it is damaged.
    """

    def __init__(self, path: Path, in_use: str) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise cannot_write(path, error) from error
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until it is closed
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute("CREATE TABLE IF NOT EXISTS maker (spec TEXT)")
            self._connection.execute(_ENCODED)
            if "camera" not in [row[1] for row in self._connection.execute("PRAGMA table_info(encoded)")]:
                self._connection.execute("DROP TABLE encoded")  # an earlier version's: encoded again, with it
                self._connection.execute(_ENCODED)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            code = error.sqlite_errorcode & 0xFF  # the rest says more about the same
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreError(f"{in_use} ({error})") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreError(f"{path} is damaged ({error}): remove it") from error
            raise cannot_write(path, error) from error

    def close(self) -> None:
        self._connection.close()

    @property
    def maker(self) -> tuple[dict[str, Any], str] | None:
        """The encoder's spec and the dtype (``"<f2"``) of the vectors; None where there is nothing yet."""
        row = self._connection.execute("SELECT spec FROM maker").fetchone()
        return None if row is None else tuple(json.loads(row[0]))

    def begin(self, spec: dict[str, Any], dtype: np.dtype[Any]) -> None:
        """Make it ready for vectors of this encoder and type; those of another one are dropped."""
        execute, maker = self._connection.execute, json.dumps([spec, dtype.str], sort_keys=True)
        if execute("SELECT spec FROM maker").fetchone() != (maker,):
            execute("BEGIN")
            execute("DELETE FROM maker")
            execute("DELETE FROM encoded")
            execute("INSERT INTO maker VALUES (?)", (maker,))
            execute("COMMIT")

    def has(self, path: Path, stat: Sequence[int]) -> bool:
        """Whether the file, as it is now, was encoded. One that could not be read, or was too large
        for the limit of then, is always tried again.
        """
        if abs(stat[1]) >= UNKNOWN_TIME:
            return False
        query = "SELECT error FROM encoded WHERE path = ? AND size = ? AND mtime = ? AND sha256 IS NOT NULL"
        row = self._connection.execute(query, (path_to(path), *map(int, stat))).fetchone()
        return row is not None and not (row[0] or "").startswith(TOO_LARGE)

    def put(self, files: Sequence[tuple[Path, Sequence[int]]], rows: np.ndarray, facts: Sequence[Facts]) -> None:
        """Keep a batch of files, each with its size and time; it is durable when this returns."""
        batch = [
            (path_to(path), *map(int, stat), *Facts(*fact), row.tobytes())
            for (path, stat), fact, row in zip(files, facts, rows, strict=True)
        ]
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO encoded VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise cannot_write(self.path, error) from error

    def facts(self, path: Path) -> Facts:
        """What is known of an encoded file."""
        query = "SELECT sha256, width, height, error, phash, camera FROM encoded WHERE path = ?"
        return Facts(*self._connection.execute(query, (path_to(path),)).fetchone())

    def blocks(self, paths: Sequence[Path], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
        """The vectors of encoded files, a block of rows at a time."""
        for start in range(0, len(paths), BLOCK):
            yield np.stack([self.vector(path, dtype) for path in paths[start : start + BLOCK]])

    def vector(self, path: Path, dtype: np.dtype[Any]) -> np.ndarray:
        """The vector of an encoded file, (dim,)."""
        query = "SELECT vector FROM encoded WHERE path = ?"
        return np.frombuffer(self._connection.execute(query, (path_to(path),)).fetchone()[0], dtype)

    def remove(self) -> None:
        """Delete the file, still locked. Where open files cannot be deleted it waits for the next sync."""
        with suppress(PermissionError):
            self.path.unlink()
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
