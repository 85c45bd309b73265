"""Inverted lists at one moment: how the codes and the ids of the vectors in each cell lie in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Ids

ID_BYTES = 3  # of an id, at least: enough for 16,777,214 vectors numbered from 0

_NO_ROWS = np.empty(0, np.int64)
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

    Lists of vectors are long, and nobody scans them without looking at `gone`: there a removed vector stays where it
    is. Codes are scanned fast, without a look at what was removed: a list of codes that loses some is copied.
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
    """Vectors stored."""
    gone: Ids = field(default_factory=lambda: _NO_ROWS)
    """Rows that hold a removed vector, in order, int64 (g,); none in lists of codes."""
    addresses: npt.NDArray[Any] = field(init=False)
    """Where the arrays are in memory, for compiled code, which so needs no copy of itself for each kind of array."""

    def __post_init__(self) -> None:
        arrays = (self.blocks, self.packed_ids, self.starts, self.sizes)
        sizes = (self.blocks.shape[1], self.blocks.itemsize, self.packed_ids.shape[1], self.ntotal)
        addresses = np.array([(*(array.ctypes.data for array in arrays), *sizes)], _ADDRESSES)
        object.__setattr__(self, "addresses", addresses)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy's arrays are elsewhere in memory
        return Lists, (self.blocks, self.packed_ids, self.starts, self.sizes, self.ntotal, self.gone)

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
        rows = self.starts[number] + np.arange(self.sizes[number])
        return self.ids(self._present(rows))

    def rows(self, first: Ids | None = None) -> Ids:
        """Numbers of all rows in use, list after list, or of those from the first[l]-th of each list on. int64 (n,)."""
        if first is None:
            return self._present(ranges(self.starts, self.sizes))
        return self._present(ranges(self.starts + first, self.sizes - first))

    def list_numbers(self, rows: Ids | None = None) -> Ids:
        """The list of each of `rows`, which are in use; without, of each row that `rows()` gives. int64 (n,)."""
        if rows is None and not len(self.gone):
            return np.repeat(np.arange(len(self.sizes)), self.sizes)
        if rows is None:
            rows = self.rows()
        used = np.argsort(self.starts, kind="stable")
        used = used[self.sizes[used] > 0]
        return used[np.searchsorted(self.starts[used], rows, side="right") - 1]

    def leading(self, count: int) -> Lists:
        """The first `count` lists alone."""
        if count == len(self.sizes):
            return self
        behind = self._present(ranges(self.starts[count:], self.sizes[count:]))
        return replace(self, starts=self.starts[:count], sizes=self.sizes[:count], ntotal=self.ntotal - len(behind))

    def _present(self, rows: Ids) -> Ids:
        """Those of `rows` that hold no removed vector."""
        return rows[~among(rows, self.gone)] if len(self.gone) else rows


def in_order(lists: Lists) -> bool:
    """Whether the vector with the id i is row i, in one list."""
    n = int(lists.sizes.sum())  # rows, those of removed vectors too
    return np.array_equal(lists.ids(np.arange(n)), np.arange(n))


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


def ranges(starts: Ids, sizes: Ids) -> Ids:
    """starts[0], starts[0] + 1, ... (sizes[0] of them), starts[1], ..."""
    total = int(sizes.sum())
    first = np.cumsum(sizes) - sizes
    return np.arange(total) + np.repeat(starts - first, sizes)


def whole_blocks(sizes: Ids, lanes: int) -> Ids:
    """Each size rounded up to a multiple of `lanes`."""
    return -(-sizes // lanes) * lanes


def distinct(packed_ids: npt.NDArray[np.uint8]) -> int:
    """How many different ids there are among packed ones of 3 bytes, those with all bits set left out."""
    wide = np.zeros((len(packed_ids), 4), np.uint8)
    wide[:, :3] = packed_ids
    there = np.zeros(1 << 24, bool)
    there[wide.view("<u4")[:, 0]] = True
    return int(np.count_nonzero(there[:-1]))


def first_repeated(ids: Ids) -> int | None:
    """An id that comes twice among `ids` (n,), which are not negative; None if there is none."""
    if (ids[1:] > ids[:-1]).all():
        return None
    if ids.max() < 8 * len(ids):  # counting takes a tenth of the time of sorting
        counts = np.bincount(ids)
        return int(counts.argmax()) if counts.max() > 1 else None
    ids = np.sort(ids)
    repeated = ids[1:][ids[1:] == ids[:-1]]
    return int(repeated[0]) if len(repeated) else None


def among(values: Ids, known: Ids) -> npt.NDArray[np.bool_]:
    """Which of the values are among `known`, which are sorted."""
    if not len(known):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[place] == values
    return found


def packed(lists: Lists, rows: Ids, list_numbers: Ids, spare: int = 0) -> Lists:
    """A copy that holds `rows` only, given in order of their lists, with no block to spare but `spare` rows behind."""
    return filled(lists, lists.codes(rows), lists.ids(rows), list_numbers, spare=spare)


def filled(
    like: Lists,
    codes: npt.NDArray[Any],
    ids: Ids,
    list_numbers: Ids,
    room: Ids | None = None,
    id_bytes: int | None = None,
    spare: int = 0,
) -> Lists:
    """Lists of these codes (n, width) and ids (n,), in order of their lists. Without `room`, no block is spare."""
    sizes = np.bincount(list_numbers, minlength=len(like.sizes))
    room = whole_blocks(sizes, like.lanes) if room is None else room
    new = _empty(like, sizes, room, like.packed_ids.shape[1] if id_bytes is None else id_bytes, spare)
    target = ranges(new.starts, sizes)
    new.blocks[target // like.lanes, :, target % like.lanes] = codes
    new.packed_ids[target] = pack_ids(ids, new.packed_ids.shape[1])
    return new


def compact(lists: Lists) -> Lists:
    """The same lists one after the other with no block to spare; not copied if they are so already."""
    if len(lists.gone):
        rows = lists.rows()
        return packed(lists, rows, lists.list_numbers(rows))
    room = whole_blocks(lists.sizes, lists.lanes)
    if room.sum() == len(lists.packed_ids) and (lists.starts == np.cumsum(room) - room).all():
        return lists
    return moved(lists, room, lists.packed_ids.shape[1])


def moved(lists: Lists, room: Ids, id_bytes: int) -> Lists:
    """A copy with `room` rows, in whole blocks, for each list, and with so many bytes an id, no fewer than before."""
    lanes, before = lists.lanes, lists.packed_ids.shape[1]
    new = _empty(lists, lists.sizes, room, id_bytes)
    count = -(-lists.sizes // lanes)
    new.blocks[ranges(new.starts // lanes, count)] = lists.blocks[ranges(lists.starts // lanes, count)]
    rows = new.rows()
    new.packed_ids[rows, :before] = lists.packed_ids[lists.rows()]
    new.packed_ids[rows, before:] = 0
    return new


def _empty(like: Lists, sizes: Ids, room: Ids, id_bytes: int, spare: int = 0) -> Lists:
    """Lists of these sizes with `room` rows each, to be filled in: codes 0 and ids -1 until then."""
    total = int(whole_blocks(room.sum() + spare, like.lanes))
    blocks = np.zeros((total // like.lanes, *like.blocks.shape[1:]), like.blocks.dtype)
    ids = np.full((total, id_bytes), 255, np.uint8)
    return Lists(blocks, ids, np.cumsum(room) - room, sizes, int(sizes.sum()))
