"""A transaction of sqlite over the connection of one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction that is open for writing from its beginning: all of the block is done, durably, or nothing of it.

    Parameters
    ----------
    connection : sqlite3.Connection
        With ``isolation_level=None``.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # sqlite may have ended it itself, as on a full disk
            connection.execute("ROLLBACK")
