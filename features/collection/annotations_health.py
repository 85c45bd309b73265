"""Whether ``annotations.sqlite`` is whole, and mending what in it is derived: the full-text index and the voices."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from features.collection import annotation_rows as change
from features.collection.annotations import Annotations

_WAIT_SECONDS = 5.0
_STALE = f"""
SELECT count(*) FROM ({change.DOCUMENTS}) AS said LEFT JOIN words ON words.rowid = said.picture
WHERE (said.captions, said.tags, said.fields) IS NOT (words.captions, words.tags, words.fields)
    OR (words.rowid NOT NULL AND said.name IS NOT words.name)
"""
_LOST = "SELECT count(*) FROM words WHERE rowid NOT IN (SELECT picture FROM pictures)"
_UNHEARD = (
    f"SELECT count(*) FROM (SELECT * FROM ({change.VOICES}) EXCEPT SELECT source, maker, picture FROM voices "
    f"UNION ALL SELECT * FROM (SELECT source, maker, picture FROM voices EXCEPT SELECT * FROM ({change.VOICES})))"
)


def damage(path: Path) -> str | None:
    """What is wrong with what nobody could make again, in a sentence; None if nothing is.

    The file is only read. What it finds is not to be mended by a program.
    """
    try:
        with closing(_opened(path, "ro")) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > Annotations.VERSION:
                return f"it has version {version}, and this program reads up to {Annotations.VERSION}"
            ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if found != "ok" and "words" not in found:  # later versions of sqlite look into the full-text index as well
                return str(found)
            strays = connection.execute("PRAGMA foreign_key_check").fetchall()
            return f"{len(strays)} rows speak of what is not there, the first in {strays[0][0]}" if strays else None
    except sqlite3.Error as error:
        return str(error)


def stale_words(path: Path) -> str | None:
    """What is wrong with what is derived of the words, in a sentence; None if nothing is."""
    try:
        with closing(_opened(path, "rw")) as connection:
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                return None
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 0)")
            stale, lost, unheard = (connection.execute(query).fetchone()[0] for query in (_STALE, _LOST, _UNHEARD))
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return f"the index of words cannot be read: {error}"
    if stale or lost:
        return f"the index of words is not that of what is said, for {stale + lost:,} pictures"
    return f"{unheard:,} entries of who said what are wrong" if unheard else None


def make_words_again(annotations: Annotations) -> None:
    """Make the full-text index and the voices again from what is said, in one transaction."""
    with annotations.changing() as connection:
        ((table,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'words'").fetchall()
        connection.execute("DROP TABLE words")
        connection.execute(table)
        connection.execute("DELETE FROM voices")
        change.refresh(connection, [key for (key,) in connection.execute("SELECT picture FROM pictures")])


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
