"""Columns of numbers out of sqlite as arrays, by way of one text: a row of Python for each would take far longer."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray


def numbers_of(joined: str | None) -> NDArray[np.int64]:
    """The numbers that ``group_concat`` has joined, int64 (n,); None, of no rows, is none."""
    return np.fromstring(joined, np.int64, sep=",") if joined else np.empty(0, np.int64)


def image_of_key(connection: sqlite3.Connection, pictures: str = "pictures") -> NDArray[np.int64]:
    """Which image each key of the annotations is of: int64 (largest key + 1,), -1 where there is none.

    Parameters
    ----------
    connection : sqlite3.Connection
    pictures : str
        The table of that name as the connection knows it.
    """
    ((keys, images),) = connection.execute(
        f"SELECT group_concat(picture), group_concat(ifnull(image_id, -1)) FROM {pictures}"
    )
    known = numbers_of(keys)
    made = np.full(int(known.max(initial=-1)) + 1, -1)
    made[known] = numbers_of(images)
    return made
