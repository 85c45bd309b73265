"""Inverted lists: which vectors fell into each cell, with their codes (Jégou, Douze, Schmid 2011, section IV)."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Ids
from ivfpq.pq import Packed


class Lists(NamedTuple):
    """The lists at one moment. List l is rows starts[l] ... starts[l] + sizes[l] - 1 of `codes` and `ids`.

    A reader takes one such value and keeps to it. Writers never change a row that a published value covers: they write
    behind the lists' ends or into new arrays, and then publish another value.
    """

    codes: Packed
    """uint8 (rows, code_size)"""
    ids: npt.NDArray[Any]
    """int32, or int64 where needed, (rows,)"""
    starts: Ids
    """int64 (nlist,)"""
    sizes: Ids
    """int64 (nlist,)"""
    ntotal: int

    def rows(self) -> Ids:
        """Numbers of all rows in use, list after list. int64 (ntotal,)."""
        return _ranges(self.starts, self.sizes)

    def list_numbers(self, rows: Ids | None = None) -> Ids:
        """The list of each of `rows`, which are in use; without, of each row that `rows()` gives. int64 (n,)."""
        if rows is None:
            return np.repeat(np.arange(len(self.sizes)), self.sizes)
        used = np.argsort(self.starts, kind="stable")
        used = used[self.sizes[used] > 0]
        return used[np.searchsorted(self.starts[used], rows, side="right") - 1]


class InvertedLists:
    """nlist growing lists of (id, code), each contiguous in memory.

    Parameters
    ----------
    nlist : int
    code_size : int
        Bytes of a code.

    Attributes
    ----------
    view : Lists
        What is stored now. Reading it once gives a state that later changes do not touch.
    """

    __slots__ = ("_order", "_rooms", "code_size", "lock", "nlist", "view")

    def __init__(self, nlist: int, code_size: int) -> None:
        self.nlist = nlist
        self.code_size = code_size
        self.lock = threading.RLock()  # one writer at a time; readers need none
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        none = np.zeros(self.nlist, np.int64)
        self.publish(Lists(np.empty((0, self.code_size), np.uint8), np.empty(0, np.int32), none, none, 0))

    def publish(self, lists: Lists) -> None:
        """Make `lists`, which has no room to spare, the state."""
        with self.lock:
            self._rooms = lists.sizes
            self._order: tuple[Lists, Ids] | None = None
            self.view = lists

    def add(self, list_numbers: Ids, codes: Packed, ids: Ids) -> None:
        """Append each code to its list: int64 (n,), uint8 (n, code_size), int64 (n,) distinct.

        Raises
        ------
        ValueError
            If an id is already stored; then nothing is added.
        """
        if not len(ids):
            return
        with self.lock:
            old = self.view
            clash = self._stored_among(ids)
            if len(clash):
                raise ValueError(f"{len(clash)} of the ids are already in the index, the first is {clash[0]}")
            added = np.bincount(list_numbers, minlength=self.nlist)
            sizes = old.sizes + added
            id_type = np.promote_types(old.ids.dtype, _id_type(ids))
            if (sizes > self._rooms).any() or id_type != old.ids.dtype:
                # Once there is something, leave an eighth to spare: adding one by one then costs a constant each.
                room = np.maximum(self._rooms, sizes + (sizes // 8 + 4 if old.ntotal else 0))
                old, self._rooms = _moved(old, room, id_type), room
            order = np.argsort(list_numbers, kind="stable")
            rows = _ranges(old.starts + old.sizes, added)
            old.codes[rows], old.ids[rows] = codes[order], ids[order]
            self._order = None
            self.view = old._replace(sizes=sizes, ntotal=old.ntotal + len(ids))

    def next_id(self) -> int:
        """One more than the largest id; 0 for none."""
        view = self.view
        return int(view.ids.max()) + 1 if view.ntotal else 0

    def remove(self, ids: Ids) -> int:
        """Drop the given ids; those not stored are ignored. Returns how many went."""
        with self.lock:
            old = self.view
            rows = old.rows()
            keep = ~np.isin(old.ids[rows], ids)
            gone = int(np.count_nonzero(~keep))
            if gone:
                self.publish(_packed(old, rows[keep], old.list_numbers()[keep]))
            return gone

    def update(self, list_numbers: Ids, codes: Packed, ids: Ids) -> None:
        """Give stored ids other codes, maybe in other lists: int64 (n,), uint8 (n, code_size), int64 (n,) distinct.

        Raises
        ------
        KeyError
            If an id is not stored; then nothing is changed.
        """
        with self.lock:
            old = self.view
            replaced = self.find(old, ids)
            if len(unknown := ids[replaced < 0]):
                raise KeyError(f"{len(unknown)} of the ids are not in the index, the first is {unknown[0]}")
            rows, numbers = old.rows(), old.list_numbers()
            kept = ~np.isin(rows, replaced)
            numbers = np.concatenate([numbers[kept], list_numbers])
            order = np.argsort(numbers, kind="stable")
            sizes = np.bincount(numbers, minlength=self.nlist)
            all_codes = np.concatenate([old.codes[rows[kept]], codes])[order]
            all_ids = np.concatenate([old.ids[rows[kept]], ids.astype(old.ids.dtype)])[order]
            self.publish(Lists(all_codes, all_ids, np.cumsum(sizes) - sizes, sizes, len(order)))

    def find(self, lists: Lists, ids: Ids) -> Ids:
        """The row of each id in `lists`, -1 where it is not stored. int64 (n,) -> int64 (n,)."""
        known = self._order
        if known is None or known[0] is not lists:
            rows = lists.rows()
            known = (lists, rows[np.argsort(lists.ids[rows], kind="stable")])
            self._order = known  # one assignment: a reader meanwhile sees the old pair or this one
        order = known[1]
        if not len(order):
            return np.full(len(ids), -1)
        sorted_ids = lists.ids[order]
        place = np.minimum(np.searchsorted(sorted_ids, ids), len(order) - 1)
        return np.where(sorted_ids[place] == ids, order[place], -1)

    def only(self, lists: Lists, ids: Ids) -> Lists:
        """The part of `lists` that holds the given ids."""
        rows = np.unique(self.find(lists, ids))
        rows = rows[rows >= 0]
        numbers = lists.list_numbers(rows)
        order = np.argsort(numbers, kind="stable")
        return _packed(lists, rows[order], numbers[order])

    def restored(self, sizes: Any, ids: Any, codes: Any) -> Lists:
        """Lists read from a file, one after the other with no room to spare, as a value to publish.

        Raises
        ------
        ValueError
            If the three arrays do not fit together, or ids are negative.
        """
        if sizes.dtype != np.int64 or sizes.shape != (self.nlist,) or (sizes < 0).any():
            raise ValueError(f"sizes must be {self.nlist} numbers from 0 up (int64), got {sizes.dtype} {sizes.shape}")
        # Summed without wrapping around: a sum that fits the ids must be the real one.
        total = sum(sizes.tolist())
        if ids.dtype not in (np.int32, np.int64) or ids.shape != (total,):
            raise ValueError(f"ids must be int32 or int64 ({total},), got {ids.dtype} {ids.shape}")
        if codes.dtype != np.uint8 or codes.shape != (total, self.code_size):
            raise ValueError(f"codes must be uint8 ({total}, {self.code_size}), got {codes.dtype} {codes.shape}")
        if total and ids.min() < 0:
            raise ValueError("ids must not be negative")
        return Lists(codes, ids, np.cumsum(sizes) - sizes, np.array(sizes), total)

    def _stored_among(self, ids: Ids) -> Ids:
        view = self.view
        if not view.ntotal or not len(ids):
            return ids[:0]
        stored = view.ids[view.rows()]
        if ids.min() > stored.max():
            return ids[:0]
        return ids[np.isin(ids, stored)]


def _ranges(starts: Ids, sizes: Ids) -> Ids:
    """starts[0], starts[0] + 1, ... (sizes[0] of them), starts[1], ..."""
    total = int(sizes.sum())
    first = np.cumsum(sizes) - sizes
    return np.arange(total) + np.repeat(starts - first, sizes)


def _id_type(ids: Ids) -> npt.DTypeLike:
    """Four bytes an id while they do: at 8 bytes a code, eight would be half of the memory."""
    return np.int32 if not len(ids) or ids.max() <= np.iinfo(np.int32).max else np.int64


def _packed(lists: Lists, rows: Ids, list_numbers: Ids) -> Lists:
    """A copy that holds `rows` only, given in order of their lists, with no room to spare."""
    sizes = np.bincount(list_numbers, minlength=len(lists.sizes))
    return Lists(lists.codes[rows], lists.ids[rows], np.cumsum(sizes) - sizes, sizes, len(rows))


def compact(lists: Lists) -> Lists:
    """The same lists one after the other with no room to spare; not copied if they are so already."""
    if lists.ntotal == len(lists.ids) and (lists.starts == np.cumsum(lists.sizes) - lists.sizes).all():
        return lists
    return _packed(lists, lists.rows(), lists.list_numbers())


def _moved(lists: Lists, room: Ids, id_type: npt.DTypeLike) -> Lists:
    """A copy with `room` rows for each list."""
    starts = np.cumsum(room) - room
    total = int(room.sum())
    codes = np.zeros((total, lists.codes.shape[1]), np.uint8)
    ids = np.full(total, -1, id_type)
    source, target = lists.rows(), _ranges(starts, lists.sizes)
    codes[target], ids[target] = lists.codes[source], lists.ids[source]
    return Lists(codes, ids, starts, lists.sizes, lists.ntotal)
