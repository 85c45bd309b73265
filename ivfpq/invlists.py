"""Inverted lists: which vectors fell into each cell, with their codes (Jégou, Douze, Schmid 2011, section IV)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Ids

LANES = 64  # codes in a block: as many as one AVX-512 register holds bytes
ID_BYTES = 3  # of an id, at least: enough for 16,777,214 vectors numbered from 0

_ADDRESSES = np.dtype(
    [(name, np.int64) for name in ("blocks", "ids", "starts", "sizes", "width", "code_bytes", "id_bytes", "ntotal")]
)


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """The lists at one moment: list l is rows starts[l] ... starts[l] + sizes[l] - 1.

    Codes are kept in blocks, transposed, so that a scan loads the m-th number of all codes of a block at once: row r
    is blocks[r // lanes, :, r % lanes]. A list starts with a block of its own, and what its last block has to spare
    means nothing.

    A reader takes one such value and keeps to it. Writers never change a row that a published value covers: they write
    behind the lists' ends or into new arrays, and then publish another value.
    """

    blocks: npt.NDArray[Any]
    """(blocks, width, lanes)"""
    packed_ids: npt.NDArray[np.uint8]
    """(rows, bytes of an id): see `pack_ids`"""
    starts: Ids
    """int64 (nlist,), multiples of the lanes"""
    sizes: Ids
    """int64 (nlist,)"""
    ntotal: int
    addresses: npt.NDArray[Any] = field(init=False)
    """Where the arrays are in memory, for compiled code, which so needs no copy of itself for each kind of array."""

    def __post_init__(self) -> None:
        arrays = (self.blocks, self.packed_ids, self.starts, self.sizes)
        sizes = (self.blocks.shape[1], self.blocks.itemsize, self.packed_ids.shape[1], self.ntotal)
        addresses = np.array([(*(array.ctypes.data for array in arrays), *sizes)], _ADDRESSES)
        object.__setattr__(self, "addresses", addresses)

    @property
    def lanes(self) -> int:
        """Codes in a block."""
        return self.blocks.shape[2]

    @property
    def bytes_per_vector(self) -> int:
        """What a row takes, code and id."""
        return self.blocks.shape[1] * self.blocks.itemsize + self.packed_ids.shape[1]

    def codes(self, rows: Ids) -> npt.NDArray[Any]:
        """The codes of rows (n,): shape (n, width)."""
        return self.blocks[rows // self.lanes, :, rows % self.lanes]

    def ids(self, rows: Ids) -> Ids:
        """The ids of rows (n,): int64 (n,)."""
        return unpack_ids(self.packed_ids[rows])

    def list_ids(self, number: int) -> Ids:
        """The ids in list `number`, in the order of its rows. int64 (size,)."""
        start = self.starts[number]
        return unpack_ids(self.packed_ids[start : start + self.sizes[number]])

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
    width : int
        Numbers in a code.
    dtype : numpy type
        Of a number.
    lanes : int
        Codes in a block: see `Lists`. With 1, a code is in one piece.

    Attributes
    ----------
    view : Lists
        What is stored now. Reading it once gives a state that later changes do not touch.
    """

    __slots__ = ("_next_id", "_order", "_rooms", "dtype", "lanes", "lock", "nlist", "view", "width")

    def __init__(self, nlist: int, width: int, dtype: npt.DTypeLike = np.uint8, lanes: int = LANES) -> None:
        self.nlist = nlist
        self.width = width
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.lanes = lanes
        self.lock = threading.RLock()  # one writer at a time; readers need none
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        none, ids = np.zeros(self.nlist, np.int64), np.empty((0, ID_BYTES), np.uint8)
        self.publish(Lists(np.empty((0, self.width, self.lanes), self.dtype), ids, none, none, 0))

    def publish(self, lists: Lists) -> None:
        """Make `lists` the state. What its blocks have to spare is not used: others may know the arrays too."""
        with self.lock:
            self._rooms = lists.sizes
            self._order: tuple[Lists, Ids, Ids] | None = None
            self._next_id: int | None = None
            self.view = lists

    def add(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> None:
        """Append each code to its list: int64 (n,), (n, width), int64 (n,) distinct.

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
            first_free, largest = self.next_id(), int(ids.max())
            id_bytes = max(old.packed_ids.shape[1], bytes_of_id(largest))
            if (sizes > self._rooms).any() or id_bytes != old.packed_ids.shape[1]:
                # Once there is something, leave an eighth to spare: adding one by one then costs a constant each.
                wanted = np.maximum(self._rooms, sizes + (sizes // 8 + 4 if old.ntotal else 0))
                room = _whole_blocks(wanted, self.lanes)
                old, self._rooms = _moved(old, room, id_bytes), room
            # Small numbers are sorted by their digits, in a fifth of the time.
            order = np.argsort(list_numbers.astype(np.min_scalar_type(self.nlist)), kind="stable")
            rows = _ranges(old.starts + old.sizes, added)
            old.blocks[rows // self.lanes, :, rows % self.lanes] = codes[order]
            old.packed_ids[rows] = pack_ids(ids[order], id_bytes)
            self._order, self._next_id = None, max(first_free, largest + 1)
            self.view = replace(old, sizes=sizes, ntotal=old.ntotal + len(ids))

    def merge(self, lists: Lists) -> None:
        """Append all that `lists` of another of this kind hold, under the same ids. Errors as `add`."""
        rows = lists.rows()
        self.add(lists.list_numbers(), lists.codes(rows), lists.ids(rows))

    def settled(self) -> Lists:
        """The state with no block to spare, in arrays that nobody will write to any more."""
        with self.lock:
            lists = compact(self.view)
            self.publish(lists)
        return lists

    def next_id(self) -> int:
        """One more than the largest id; 0 for none."""
        with self.lock:
            if self._next_id is None:
                self._next_id = int(self.view.ids(self.view.rows()).max(initial=-1)) + 1
            return self._next_id

    def remove(self, ids: Ids) -> int:
        """Drop the given ids; those not stored are ignored. Returns how many went."""
        with self.lock:
            old = self.view
            rows = old.rows()
            keep = ~np.isin(old.ids(rows), ids)
            gone = int(np.count_nonzero(~keep))
            if gone:
                self.publish(_packed(old, rows[keep], old.list_numbers()[keep]))
            return gone

    def update(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> None:
        """Give stored ids other codes, maybe in other lists: int64 (n,), (n, width), int64 (n,) distinct.

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
            all_codes = np.concatenate([old.codes(rows[kept]), codes])[order]
            all_ids = np.concatenate([old.ids(rows[kept]), ids])[order]
            self.publish(_filled(old, all_codes, all_ids, numbers[order]))

    def find(self, lists: Lists, ids: Ids) -> Ids:
        """The row of each id in `lists`, -1 where it is not stored. int64 (n,) -> int64 (n,)."""
        known = self._order
        if known is None or known[0] is not lists:
            rows = lists.rows()
            stored = lists.ids(rows)
            order = np.argsort(stored, kind="stable")
            known = (lists, stored[order], rows[order])
            self._order = known  # one assignment: a reader meanwhile sees the old ones or these
        _, stored, rows = known
        if not len(rows):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(stored, ids), len(rows) - 1)
        return np.where(stored[place] == ids, rows[place], -1)

    def only(self, lists: Lists, ids: Ids) -> Lists:
        """The part of `lists` that holds the given ids."""
        rows = np.unique(self.find(lists, ids))
        rows = rows[rows >= 0]
        numbers = lists.list_numbers(rows)
        order = np.argsort(numbers, kind="stable")
        return _packed(lists, rows[order], numbers[order])

    def restored(self, sizes: Any, ids: Any, blocks: Any) -> Lists:
        """Lists read from a file, one after the other with no block to spare, as a value to publish.

        Raises
        ------
        ValueError
            If the three arrays do not fit together, or ids are negative.
        """
        if sizes.dtype != np.int64 or sizes.shape != (self.nlist,) or (sizes < 0).any():
            raise ValueError(f"sizes must be {self.nlist} numbers from 0 up (int64), got {sizes.dtype} {sizes.shape}")
        # Summed without wrapping around: a sum that fits the ids must be the real one.
        total = sum(sizes.tolist())
        count = sum(-(-size // self.lanes) for size in sizes.tolist())
        if (
            ids.dtype != np.uint8
            or ids.ndim != 2
            or len(ids) != count * self.lanes
            or not ID_BYTES <= ids.shape[1] <= 8
        ):
            raise ValueError(f"ids must be uint8 ({count * self.lanes}, 3 to 8), got {ids.dtype} {ids.shape}")
        shape = (count, self.width, self.lanes)
        if blocks.dtype != self.dtype or blocks.shape != shape:
            raise ValueError(f"codes must be {self.dtype} {shape}, got {blocks.dtype} {blocks.shape}")
        room = _whole_blocks(sizes, self.lanes)
        starts = np.cumsum(room) - room
        spare = ids[_ranges(starts + sizes, room - sizes)]
        if (spare != 255).any() or (ids.shape[1] == 8 and np.count_nonzero(ids[:, 7] > 127) != len(spare)):
            raise ValueError("ids must not be negative, but for -1 behind the end of a list")
        return Lists(blocks, ids, starts, np.array(sizes), total)

    def _stored_among(self, ids: Ids) -> Ids:
        view = self.view
        if ids.min() >= self.next_id():
            return ids[:0]
        return ids[np.isin(ids, view.ids(view.rows()))]


def bytes_of_id(largest: int) -> int:
    """How many bytes ids up to `largest` take. At 8 bytes a code, 8 an id would be half of the memory."""
    return max(ID_BYTES, -(-(largest + 1).bit_length() // 8))  # + 1: all bits set means -1


def pack_ids(ids: Ids, size: int) -> npt.NDArray[np.uint8]:
    """Ids (n,) as the lowest `size` bytes of each, the lowest first: uint8 (n, size). -1 has all bits set."""
    return ids.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :size]


def unpack_ids(packed: npt.NDArray[np.uint8]) -> Ids:
    """What `pack_ids` made of ids from 0 up: int64 (n,)."""
    wide = np.zeros((len(packed), 8), np.uint8)
    wide[:, : packed.shape[1]] = packed
    return wide.view("<i8")[:, 0].astype(np.int64, copy=False)


def _ranges(starts: Ids, sizes: Ids) -> Ids:
    """starts[0], starts[0] + 1, ... (sizes[0] of them), starts[1], ..."""
    total = int(sizes.sum())
    first = np.cumsum(sizes) - sizes
    return np.arange(total) + np.repeat(starts - first, sizes)


def _whole_blocks(sizes: Ids, lanes: int) -> Ids:
    """Each size rounded up to a multiple of `lanes`."""
    return -(-sizes // lanes) * lanes


def _packed(lists: Lists, rows: Ids, list_numbers: Ids) -> Lists:
    """A copy that holds `rows` only, given in order of their lists, with no block to spare."""
    return _filled(lists, lists.codes(rows), lists.ids(rows), list_numbers)


def _filled(like: Lists, codes: npt.NDArray[Any], ids: Ids, list_numbers: Ids) -> Lists:
    """Lists of these codes (n, width) and ids (n,), given in order of their lists, with no block to spare."""
    sizes = np.bincount(list_numbers, minlength=len(like.sizes))
    new = _empty(like, sizes, _whole_blocks(sizes, like.lanes), like.packed_ids.shape[1])
    target = new.rows()
    new.blocks[target // like.lanes, :, target % like.lanes] = codes
    new.packed_ids[target] = pack_ids(ids, like.packed_ids.shape[1])
    return new


def compact(lists: Lists) -> Lists:
    """The same lists one after the other with no block to spare; not copied if they are so already."""
    room = _whole_blocks(lists.sizes, lists.lanes)
    if room.sum() == len(lists.packed_ids) and (lists.starts == np.cumsum(room) - room).all():
        return lists
    return _moved(lists, room, lists.packed_ids.shape[1])


def _moved(lists: Lists, room: Ids, id_bytes: int) -> Lists:
    """A copy with `room` rows, in whole blocks, for each list, and with so many bytes an id, no fewer than before."""
    lanes, before = lists.lanes, lists.packed_ids.shape[1]
    new = _empty(lists, lists.sizes, room, id_bytes)
    count = -(-lists.sizes // lanes)
    new.blocks[_ranges(new.starts // lanes, count)] = lists.blocks[_ranges(lists.starts // lanes, count)]
    rows = new.rows()
    new.packed_ids[rows, :before] = lists.packed_ids[lists.rows()]
    new.packed_ids[rows, before:] = 0
    return new


def _empty(like: Lists, sizes: Ids, room: Ids, id_bytes: int) -> Lists:
    """Lists of these sizes with `room` rows each, to be filled in: codes 0 and ids -1 until then."""
    total = int(room.sum())
    blocks = np.zeros((total // like.lanes, *like.blocks.shape[1:]), like.blocks.dtype)
    ids = np.full((total, id_bytes), 255, np.uint8)
    return Lists(blocks, ids, np.cumsum(room) - room, sizes, int(sizes.sum()))
