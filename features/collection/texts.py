"""All texts of a column in one piece, which is looked through faster than sqlite reads them again, row by row."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from features.collection.columns import numbers_of

MOST_BYTES = 16 << 20
"""Of all texts together; more are left to sqlite."""

_BETWEEN = 30  # the separator of records, which no text holds that was cleaned

_AT_ONCE = 2  # letters that are compared everywhere; the others only where these fit


class Texts:
    """Texts, each of a key.

    Parameters
    ----------
    keys : int64 (n,)
    joined : bytes
        Their texts in UTF-8, with a separator between.
    """

    def __init__(self, keys: NDArray[np.int64], joined: bytes) -> None:
        self._keys = keys
        self._letters = np.frombuffer(joined.lower(), np.uint8)  # of ASCII alone, as LIKE
        self._starts = np.concatenate([[0], np.flatnonzero(self._letters == _BETWEEN) + 1])

    @classmethod
    def read(cls, connection: sqlite3.Connection, rows: str, column: str, key: str) -> Texts | None:
        """Those of a column; None where they are too many, there is none, or one holds what separates them."""
        query = f"SELECT CAST(group_concat({column}, char({_BETWEEN})) AS BLOB), group_concat({key}) FROM {rows}"
        ((joined, keys),) = connection.execute(query)
        if not joined or len(joined) > MOST_BYTES:
            return None
        texts = cls(numbers_of(keys), joined)
        return texts if texts._starts.size == texts._keys.size and texts._starts[-1] < len(joined) else None

    def keys_containing(self, wanted: str) -> NDArray[np.int64]:
        """Keys of the texts that contain what is wanted, as LIKE compares: A for a, other letters as they are."""
        asked, letters = wanted.encode("utf-8", "surrogatepass").lower(), self._letters
        places = letters.size - len(asked) + 1
        if places <= 0 or _BETWEEN in asked:
            return self._keys[:0]
        fits = np.zeros(letters.size, bool)
        fits[:places] = True
        for place, letter in enumerate(asked[:_AT_ONCE]):
            fits[:places] &= letters[place : place + places] == letter
        if len(asked) > _AT_ONCE:
            at = np.flatnonzero(fits)
            for place, letter in enumerate(asked[_AT_ONCE:], start=_AT_ONCE):
                at = at[letters[at + place] == letter]
            fits[:] = False
            fits[at] = True
        return self._keys[np.logical_or.reduceat(fits, self._starts)]
