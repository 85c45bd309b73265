"""Jobs in SQLite: what was asked for stays known and is done in the end, whatever ends the server.

Who works on a job has a lease of it that it renews; a job whose lease ran out, or whose worker is no more, is taken up
again from its beginning. So each step is one that can be done twice.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.collection.errors import cannot_write
from features.sqlite_transaction import transaction
from gradio_app.incoming import runs
from gradio_app.routes.api.beside import JOBS_FILE

LEASE = 60.0  # seconds; renewed at every sign of life
KEPT = 1_000  # jobs that are over, of which anything is still known
State = Literal["queued", "running", "done", "failed", "cancelled"]
_PROCESS = secrets.token_hex(4)  # tells this process from an earlier one of the same number
OVER = ("done", "failed", "cancelled")

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    collection TEXT NOT NULL,
    task TEXT NOT NULL,               -- JSON
    caller TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    stage TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    result TEXT,                      -- JSON
    created REAL NOT NULL,            -- seconds since 1970, as those below
    changed REAL NOT NULL,
    owner TEXT,
    lease REAL,                       -- until when
    cancelling INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    fingerprint TEXT,                 -- of what was asked for with that key
    UNIQUE (caller, idempotency_key)
)
"""
_COLUMNS = (
    "id, kind, collection, task, state, stage, done, total, error, result, created, changed, cancelling, fingerprint"
)


class OtherRequestError(ValueError):
    """An Idempotency-Key came again with something else."""


@dataclass(frozen=True)
class StoredJob:
    """A job as it was when it was looked at. `task` is what its kind needs to do it, `result` what it gave."""

    id: str
    kind: str
    collection: str
    task: dict[str, Any]
    state: State
    stage: str
    done: int
    total: int
    error: str
    result: dict[str, Any] | None
    created: float
    changed: float
    is_cancelling: bool
    fingerprint: str | None


class JobStore:
    """The jobs of the collections in a folder. Safe to use from many threads and processes.

    Parameters
    ----------
    folder : Path
        Of the collections.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOBS_FILE
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{_PROCESS}.{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def add(
        self,
        id: str,
        kind: str,
        collection: str,
        task: dict[str, Any],
        *,
        caller: str,
        key: str | None = None,
        fingerprint: str | None = None,
    ) -> StoredJob:
        """Ask for a job; where one of this caller and Idempotency-Key is there, it is that one.

        Raises
        ------
        OtherRequestError
            That one was asked for something else.
        StoreError
            It cannot be written.
        """
        with self._changing() as connection:
            if key is not None and (known := self._known(connection, caller, key)) is not None:
                if known.fingerprint != fingerprint:
                    raise OtherRequestError("This Idempotency-Key came with another request before.")
                return known
            now = time.time()
            connection.execute(
                "INSERT INTO jobs (id, kind, collection, task, caller, created, changed, idempotency_key, fingerprint) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (id, kind, collection, json.dumps(task), caller, now, now, key, fingerprint),
            )
            connection.execute(
                f"DELETE FROM jobs WHERE state IN {OVER} AND number <= (SELECT max(number) FROM jobs) - ?", (KEPT,)
            )
        return self.get(id)

    def known(self, caller: str, key: str) -> StoredJob | None:
        """The job that a caller asked for with an Idempotency-Key."""
        with self._changing() as connection:
            return self._known(connection, caller, key)

    def _known(self, connection: sqlite3.Connection, caller: str, key: str) -> StoredJob | None:
        asked = f"SELECT {_COLUMNS} FROM jobs WHERE caller = ? AND idempotency_key = ?"
        row = connection.execute(asked, (caller, key)).fetchone()
        return None if row is None else _job(row)

    def get(self, id: str) -> StoredJob:
        """A job. Raises KeyError if there is none."""
        with self._changing() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise KeyError(id)
        return _job(row)

    def listed(self, limit: int) -> list[StoredJob]:
        """The last jobs, the latest first."""
        if not self.path.exists():
            return []
        with self._changing() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_job(row) for row in rows]

    def claim(self, collections: Collection[str]) -> StoredJob | None:
        """Take the oldest job of these collections that nobody works on; None where there is none."""
        if not self.path.exists():
            return None
        with self._changing() as connection:
            rows = connection.execute(
                "SELECT id, collection, state, owner, lease FROM jobs WHERE state IN ('queued', 'running') "
                "ORDER BY number"
            ).fetchall()
            for id, collection, state, owner, lease in rows:
                if collection in collections and (state == "queued" or self._is_free(owner, lease)):
                    now = time.time()
                    connection.execute(
                        "UPDATE jobs SET state = 'running', owner = ?, lease = ?, changed = ? WHERE id = ?",
                        (self.owner, now + LEASE, now, id),
                    )
                    break
            else:
                return None
        return self.get(id)

    def beat(self, id: str, stage: str, done: int = 0, total: int = 0) -> bool:
        """Renew the lease, and say how far it is; whether to go on: it was not cancelled, and is still ours."""
        now = time.time()
        with self._changing() as connection:
            connection.execute(
                "UPDATE jobs SET lease = ?, changed = ?, stage = ?, done = ?, total = ? "
                "WHERE id = ? AND owner = ? AND state = 'running'",
                (now + LEASE, now, stage, done, total, id, self.owner),
            )
            row = connection.execute("SELECT owner, state, cancelling FROM jobs WHERE id = ?", (id,)).fetchone()
        return row is not None and tuple(row) == (self.owner, "running", 0)

    def finish(self, id: str, state: State, *, error: str = "", result: dict[str, Any] | None = None) -> None:
        """Note what became of a job of ours."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, error = ?, result = ?, changed = ?, lease = NULL "
                "WHERE id = ? AND owner = ?",
                (state, error, None if result is None else json.dumps(result), time.time(), id, self.owner),
            )

    def cancel(self, id: str) -> StoredJob:
        """Have a job stop: at once where nobody works on it yet, else at its next sign of life. Raises KeyError."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE jobs SET cancelling = 1, changed = ?, "
                "state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END "
                "WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), id),
            )
        return self.get(id)

    def _is_free(self, owner: str | None, lease: float | None) -> bool:
        """Whether nobody works on a running job any more."""
        if owner is None or lease is None or lease < time.time():
            return True
        host, pid, token = owner.rsplit(":", 2)
        if host != socket.gethostname():
            return False
        if int(pid) == os.getpid():  # in a container a server has the same number each time
            return not token.startswith(_PROCESS)
        return not runs(int(pid))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: all of the block is done, durably, or nothing of it."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._opened()
                with transaction(self._connection) as connection:
                    yield connection
            except sqlite3.Error as error:
                raise cannot_write(self.path, error) from error

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        return connection


def _job(row: tuple[Any, ...]) -> StoredJob:
    id, kind, collection, task, state, stage, done, total, error, result, created, changed, cancelling, asked = row
    return StoredJob(
        id,
        kind,
        collection,
        json.loads(task),
        state,
        stage,
        done,
        total,
        error,
        None if result is None else json.loads(result),
        created,
        changed,
        bool(cancelling),
        asked,
    )
