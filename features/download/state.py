"""What became of each address, in SQLite: what is committed here has happened.

A file of a picture is complete under its name before its row says so; a run that is killed therefore fetches again
what it was fetching, and nothing else. One process at a time has the state, and one thread of it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from features.addresses import AddressError, web_address
from features.download.lists import Entry
from features.sqlite_transaction import transaction

STATE = "download.sqlite"
"""The name of the file in the folder of a download."""

MAX_ADDRESS = 8192
"""Characters of an address, beyond which servers do not read it."""

PRIVATE = "private address"

_BATCH = 5000
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE url (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,            -- of the whole address; files are called by it
    url TEXT NOT NULL,
    host TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'todo',  -- todo, aside, leased, done, failed, refused
    due REAL NOT NULL DEFAULT 0,         -- of todo: not before; of leased: until
    attempts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,    -- the attempts since it was taken up (again)
    is_permanent INTEGER,
    cause TEXT,
    message TEXT,
    file TEXT,
    bytes INTEGER,
    width INTEGER,
    height INTEGER,
    fields TEXT NOT NULL                 -- the other columns of the list, JSON
);
CREATE INDEX url_todo ON url (host, due) WHERE state = 'todo';
CREATE INDEX url_due ON url (due) WHERE state = 'todo';
CREATE TABLE list (name TEXT NOT NULL, column TEXT, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL);
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True)
class Task:
    """An address to fetch now."""

    id: int
    key: str
    url: str
    host: str
    tries: int


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    state : str
        "todo" is: to be asked again, not before `due` (seconds since 1970).
    """

    task: Task
    state: Literal["done", "failed", "refused", "todo"]
    cause: str | None = None
    message: str | None = None
    is_permanent: bool = False
    due: float = 0.0
    file: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Added:
    """What a list brought: rows, and those of them whose addresses were known by then."""

    rows: int
    known: int


def key_of(url: str) -> bytes:
    """What stands for an address: half of its SHA-256."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:16]


class DownloadState:
    """The addresses of a download and what became of them. Used by one thread at a time.

    Raises
    ------
    sqlite3.Error
        The file cannot be read or written, or is no such state.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only:
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            return
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            with transaction(self._db):
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
        elif version != _VERSION:
            self._db.close()
            raise sqlite3.DatabaseError(f"{path} is of version {version}; this program writes version {_VERSION}")

    def close(self) -> None:
        self._db.close()

    # What there is to do

    def has_list(self, path: Path, column: str | None) -> bool:
        """Whether all of this list was added, and it has not changed since."""
        found = self._db.execute(
            "SELECT 1 FROM list WHERE (name, column, size, mtime_ns) IS (?, ?, ?, ?)", _of(path, column)
        )
        return found.fetchone() is not None

    def lists(self) -> list[str]:
        """The paths of all lists that were added."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT name FROM list ORDER BY name")]

    def add(self, entries: Iterable[Entry], source: tuple[Path, str | None] | None = None) -> Added:
        """Add what is not known yet; an address that comes again is fetched once, and its first row counts.

        Addresses that will not be asked are refused here, with a sentence.

        Parameters
        ----------
        source : (Path, str or None), optional
            The list and its column, noted once all is added.
        """
        rows = known = 0
        entries = iter(entries)
        while batch := list(islice(entries, _BATCH)):
            with transaction(self._db):
                before = self._db.total_changes
                self._db.executemany(
                    "INSERT OR IGNORE INTO url (key, url, host, state, is_permanent, cause, message, fields) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    map(_row, batch),
                )
                known += len(batch) - (self._db.total_changes - before)
            rows += len(batch)
        if source is not None:
            with transaction(self._db):
                self._db.execute("DELETE FROM list WHERE name = ? AND column IS ?", _of(*source)[:2])
                self._db.execute("INSERT INTO list VALUES (?, ?, ?, ?)", _of(*source))
        return Added(rows, known)

    def begin(self, *, retry: Literal["transient", "all"] | None = None, allow_private: bool = False) -> None:
        """Before a run: what a killed one had in hand is to do again; and only failures are, with `retry`."""
        with transaction(self._db):
            self._db.execute("UPDATE url SET state = 'todo', due = 0 WHERE state IN ('leased', 'aside')")
            if retry is not None:
                self._db.execute("UPDATE url SET state = 'aside' WHERE state = 'todo' AND attempts = 0")
                self._db.execute(
                    "UPDATE url SET state = 'todo', due = 0, tries = 0 "
                    "WHERE state = 'failed' AND (is_permanent = 0 OR ?)",
                    (retry == "all",),
                )
            elif allow_private:
                self._db.execute("UPDATE url SET state = 'todo' WHERE state = 'refused' AND cause = ?", (PRIVATE,))

    def hosts_after(self, host: str, now: float, count: int) -> list[str]:
        """Hosts that have something to fetch now, in the order of their names, those behind `host` first."""
        found: list[str] = []
        last, wrapped = host, False
        while len(found) < count:
            row = self._db.execute(
                "SELECT host FROM url WHERE state = 'todo' AND host > ? AND due <= ? ORDER BY host LIMIT 1", (last, now)
            ).fetchone()
            if row is None and not wrapped:
                last, wrapped = "", True
                continue
            if row is None or (wrapped and row[0] > host):
                break
            last = row[0]
            found.append(last)
        return found

    def lease(self, wanted: Sequence[tuple[str, int]], now: float, until: float) -> dict[str, list[Task]]:
        """Take so many tasks of each of some hosts in hand; fewer come where there are no more now."""
        taken: dict[str, list[Task]] = {}
        with transaction(self._db):
            for host, count in wanted:
                rows = self._db.execute(
                    "SELECT id, key, url, tries FROM url WHERE state = 'todo' AND host = ? AND due <= ? ORDER BY due "
                    "LIMIT ?",
                    (host, now, count),
                ).fetchall()
                taken[host] = [Task(id, key.hex(), url, host, tries) for id, key, url, tries in rows]
            self._db.executemany(
                "UPDATE url SET state = 'leased', due = ? WHERE id = ?",
                [(until, task.id) for tasks in taken.values() for task in tasks],
            )
        return taken

    def release(self, tasks: Iterable[Task]) -> None:
        """Give back what was leased and not asked."""
        with transaction(self._db):
            self._db.executemany("UPDATE url SET state = 'todo', due = 0 WHERE id = ?", [(task.id,) for task in tasks])

    def next_due(self) -> float | None:
        """When the next task may be taken, in seconds since 1970; None where there is none."""
        due: float | None = self._db.execute("SELECT MIN(due) FROM url WHERE state = 'todo'").fetchone()[0]
        return due

    # What became of it

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Write what became of some tasks, in one transaction."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE url SET state = ?, due = ?, is_permanent = ?, cause = ?, message = ?, file = ?, bytes = ?, "
                "width = ?, height = ?, attempts = attempts + 1, tries = tries + 1 WHERE id = ?",
                [
                    (o.state, o.due, o.is_permanent, o.cause, o.message, o.file, o.bytes, o.width, o.height, o.task.id)
                    for o in outcomes
                ],
            )

    def give_up(self, host: str, cause: str, message: str) -> int:
        """Count all that is still to do of a host as failed, for now. Returns how many that are."""
        with transaction(self._db):
            return self._db.execute(
                "UPDATE url SET state = 'failed', is_permanent = 0, cause = ?, message = ?, attempts = attempts + 1 "
                "WHERE state = 'todo' AND host = ?",
                (cause, message, host),
            ).rowcount

    # What there is to tell

    def counts(self) -> dict[str, int]:
        """How many addresses are in each state."""
        return dict(self._db.execute("SELECT state, COUNT(*) FROM url GROUP BY state").fetchall())

    def causes(self) -> list[tuple[str, bool, str, int]]:
        """Of what failed or was refused: state, whether for good, cause and number, the most frequent first."""
        found = self._db.execute(
            "SELECT state, is_permanent, cause, COUNT(*) AS number FROM url WHERE state IN ('failed', 'refused') "
            "GROUP BY state, is_permanent, cause ORDER BY number DESC, cause"
        )
        return [(state, bool(permanent), cause, number) for state, permanent, cause, number in found]

    def examples(self, state: str, cause: str, count: int) -> list[tuple[str, str]]:
        """Some addresses, and the sentence of each."""
        return self._db.execute(
            "SELECT url, message FROM url WHERE state = ? AND cause = ? ORDER BY id LIMIT ?", (state, cause, count)
        ).fetchall()

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """File (relative to the folder), address and other columns (JSON) of what is done, as the list has them."""
        yield from self._db.execute("SELECT file, url, fields FROM url WHERE state = 'done' ORDER BY id")


def _of(path: Path, column: str | None) -> tuple[str, str | None, int, int]:
    found = path.stat()
    return list_name(path), column, found.st_size, found.st_mtime_ns


def list_name(path: Path) -> str:
    """What a list is called in the state: its path, escapes in it where that is not UTF-8, which SQLite refuses."""
    return os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")


def _row(entry: Entry) -> tuple[bytes, str, str, str, int | None, str | None, str | None, str]:
    shown = entry.url.encode("utf-8", "backslashreplace").decode()
    key = key_of(entry.url)
    try:
        if len(entry.url) > MAX_ADDRESS:
            raise AddressError(f"The address has {len(entry.url):,} characters; at most {MAX_ADDRESS:,} are asked for.")
        host = web_address(entry.url).raw_host.decode("ascii").lower()
    except AddressError as error:
        if not entry.url:
            return key, "", "", "refused", 1, "no address", "The row has no address.", entry.fields
        return key, shown[:200], "", "refused", 1, "no web address", str(error), entry.fields
    return key, shown, host, "todo", None, None, None, entry.fields
