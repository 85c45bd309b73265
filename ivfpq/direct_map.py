"""Which row of the lists holds an id (faiss's word for it is a direct map)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ivfpq.checks import Ids
from ivfpq.list_layout import Lists, among, ranges

CHANGES_MIN = 1024  # so many changes are worth less than sorting all ids again


class DirectMap:
    """The rows of the ids in one value of the lists.

    All ids sorted, and beside them, sorted too, those that have changed since. So a change costs no sorting of all.

    Parameters
    ----------
    lists : Lists
    """

    __slots__ = ("_changed", "_changed_rows", "_ids", "_rows", "_seen")

    def __init__(self, lists: Lists) -> None:
        self._seen = _seen(lists)
        rows = lists.rows()
        stored = lists.ids(rows)
        if (stored[1:] > stored[:-1]).all():
            self._ids, self._rows = stored, rows
        else:
            order = np.argsort(stored, kind="stable")
            self._ids, self._rows = stored[order], rows[order]
        self._changed = self._changed_rows = np.empty(0, np.int64)

    def of(self, lists: Lists) -> DirectMap:
        """The map of another value of the lists: made from this one where that is less work than to make it anew."""
        packed_ids, starts, sizes, gone = self._seen
        if all(mine is theirs for mine, theirs in zip(self._seen, _seen(lists), strict=True)):
            return self
        if lists.packed_ids is not packed_ids or len(lists.sizes) != len(sizes):
            return DirectMap(lists)
        removed = lists.gone[~among(lists.gone, gone)]
        if len(removed) != len(lists.gone) - len(gone):
            return DirectMap(lists)  # of an earlier moment
        # Rows that were there before, in the same place; what they hold is the same.
        common = np.where(lists.starts == starts, np.minimum(lists.sizes, sizes), 0)
        gained = lists.rows(common)
        lost = np.concatenate([ranges(starts + common, sizes - common), removed])
        ids = np.concatenate([lists.ids(gained), lists.ids(lost), self._changed])
        if len(ids) > max(CHANGES_MIN, len(self._ids) // 8):
            return DirectMap(lists)
        made = DirectMap.__new__(DirectMap)
        made._seen, made._ids, made._rows = _seen(lists), self._ids, self._rows
        rows = np.concatenate([gained, np.full(len(lost), -1), self._changed_rows])
        made._changed, first = np.unique(ids, return_index=True)  # the first of equal ids, which is the latest
        made._changed_rows = rows[first]
        return made

    def find(self, ids: Ids) -> Ids:
        """The row of each id, -1 where it is not stored: int64 (n,) -> int64 (n,)."""
        rows = _looked_up(ids, self._ids, self._rows, np.full(len(ids), -1))
        return _looked_up(ids, self._changed, self._changed_rows, rows)


def _seen(lists: Lists) -> tuple[Any, ...]:
    """What the rows of ids depend on. The codes are let go: they may be large."""
    return lists.packed_ids, lists.starts, lists.sizes, lists.gone


def _looked_up(ids: Ids, known: Ids, values: Ids, otherwise: Ids) -> Ids:
    """The value of each id that is among `known`, which are sorted, and what is `otherwise` of the others."""
    if not len(known):
        return otherwise
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[place] == ids, values[place], otherwise)
