"""Inverted lists that grow and shrink (Jégou, Douze, Schmid 2011, section IV)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Ids
from ivfpq.direct_map import DirectMap
from ivfpq.list_layout import (
    ID_BYTES,
    Lists,
    among,
    bytes_of_id,
    compact,
    distinct,
    filled,
    first_repeated,
    moved,
    pack_ids,
    packed,
    ranges,
    whole_blocks,
)
from ivfpq.publication import Change, Published

CODES_IN_BLOCK = 64  # as many as one AVX-512 register holds bytes
GONE_SHARE = 32  # of so many rows one may hold a removed vector before the others are copied together
FLAGGED_MIN = 1 << 18  # from this many ids on, one flag for each possible id costs less than looking at the ids in use


class State(NamedTuple):
    """Lists, and what their writers must know."""

    lists: Lists
    room: Ids
    """Rows that each list can take, int64 (nlist,)"""
    free: int
    """The first of the rows at the end of the arrays that no list has"""
    next_id: int | None
    """One more than the largest id; None where that is not known"""


class InvertedLists:
    """nlist growing lists of (id, code), each contiguous in memory.

    `added`, `removed` and their like say what a change makes of the lists, for the caller, who holds the lock, to
    publish it with other changes that belong to it. `add`, `remove` and theirs make the change.

    Parameters
    ----------
    nlist : int
    width : int
        Numbers in a code.
    dtype : numpy type
        Of a number.
    lanes : int
        Codes in a block: see `Lists`. With 1, a code is in one piece.
    marks_removed : bool
        Whether what is removed stays in its place and is named by `Lists.gone`, which with one lane is possible.
    published : Published, optional
        Where the lists are published; their own place if not given.

    Attributes
    ----------
    view : Lists
        What is stored now. Reading it once gives a state that later changes do not touch.
    part : int
        Of what is published, the number of the lists.

    Notes
    -----
    A vector in list number nlist is in none that a search looks into: see `cosine`. There is no such list as long as
    nothing is in it.
    """

    __slots__ = ("_map", "dtype", "lanes", "marks_removed", "nlist", "part", "published", "width")

    def __init__(
        self,
        nlist: int,
        width: int,
        dtype: npt.DTypeLike = np.uint8,
        lanes: int = CODES_IN_BLOCK,
        published: Published | None = None,
        *,
        marks_removed: bool = False,
    ) -> None:
        self.nlist = nlist
        self.width = width
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.lanes = lanes
        self.marks_removed = marks_removed
        self.published = Published() if published is None else published
        self._map: DirectMap | None = None
        self.part = self.published.append(self._empty())

    @property
    def view(self) -> Lists:
        """What is stored now."""
        lists: Lists = self.published.parts[self.part].lists
        return lists

    @property
    def lock(self) -> Any:
        """Held by the one writer there may be at a time; readers need none."""
        return self.published.lock

    def add(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> None:
        """Append each code to its list: int64 (n,), (n, width), int64 (n,) distinct.

        Raises
        ------
        ValueError
            If an id is already stored; then nothing is added.
        """
        with self.lock:
            self.published.replace(self.added(list_numbers, codes, ids))

    def added(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> Change:
        """What `add` makes of the lists."""
        state = self._state()
        if len(ids) and ids.min() < self.next_id():
            clash = ids[self.find(state.lists, ids) >= 0]
            if len(clash):
                raise ValueError(f"{len(clash)} of the ids are already in the index, the first is {clash[0]}")
        return self.part, self._appended(self._state(), list_numbers, codes, ids)

    def merged(self, lists: Lists) -> Change:
        """What becomes of the lists with all that `lists`, of another of this kind, hold, under the same ids."""
        rows = lists.rows()
        return self.added(lists.list_numbers(), lists.codes(rows), lists.ids(rows))

    def remove(self, ids: Ids) -> int:
        """Drop the given ids; those not stored are ignored. Returns how many went."""
        with self.lock:
            change, count = self.removed(ids)
            self.published.replace(change)
            return count

    def removed(self, ids: Ids) -> tuple[Change, int]:
        """What `remove` makes of the lists, and how many ids go."""
        state = self._state()
        rows = self._rows_of(state.lists, ids)
        return (self.part, self._without(state, rows) if len(rows) else state), len(rows)

    def update(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> None:
        """Give stored ids other codes, maybe in other lists: int64 (n,), (n, width), int64 (n,) distinct.

        Raises
        ------
        KeyError
            If an id is not stored; then nothing is changed.
        """
        with self.lock:
            self.published.replace(self.updated(list_numbers, codes, ids))

    def updated(self, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> Change:
        """What `update` makes of the lists."""
        state = self._state()
        unknown = ids[self.find(state.lists, ids) < 0]
        if len(unknown):
            raise KeyError(f"{len(unknown)} of the ids are not in the index, the first is {unknown[0]}")
        if not len(ids):
            return self.part, state
        next_id = state.next_id
        left = self._without(state, self._rows_of(state.lists, ids))
        return self.part, self._appended(left, list_numbers, codes, ids)._replace(next_id=next_id)

    def clear(self) -> None:
        """Forget everything."""
        self.published.replace(self.cleared())

    def cleared(self) -> Change:
        """What `clear` makes of the lists."""
        return self.part, self._empty()

    def publish(self, lists: Lists) -> None:
        """Make `lists` the state. What its blocks have to spare is not used: others may know the arrays too."""
        self.published.replace((self.part, State(lists, lists.sizes, len(lists.packed_ids), None)))

    def settled(self) -> Lists:
        """The state with no block to spare, in arrays that nobody will write to any more."""
        with self.lock:
            lists = compact(self.view)
            self.publish(lists)
        return lists

    def next_id(self) -> int:
        """One more than the largest id; 0 for none."""
        with self.lock:
            state = self._state()
            if state.next_id is None:
                known = int(state.lists.ids(state.lists.rows()).max(initial=-1)) + 1
                state = state._replace(next_id=known)
                self.published.replace((self.part, state))
            return known if state.next_id is None else state.next_id

    def find(self, lists: Lists, ids: Ids) -> Ids:
        """The row of each id in `lists`, -1 where it is not stored. int64 (n,) -> int64 (n,)."""
        known = self._map
        known = DirectMap(lists) if known is None else known.of(lists)
        if lists is self.view:  # what is not published may yet be overwritten
            self._map = known  # one assignment: a reader meanwhile sees the old one or this
        return known.find(ids)

    def only(self, lists: Lists, ids: Ids) -> Lists:
        """The part of `lists` that holds the given ids."""
        rows = self._rows_of(lists, ids)
        numbers = lists.list_numbers(rows)
        order = np.argsort(numbers, kind="stable")
        return packed(lists, rows[order], numbers[order])

    def restored(self, sizes: Any, ids: Any, blocks: Any) -> Lists:
        """Lists read from a file, one after the other with no block to spare, as a value to publish.

        Raises
        ------
        ValueError
            If the three arrays do not fit together, ids are negative, or one comes twice.
        """
        counts = (self.nlist, self.nlist + 1)
        if sizes.dtype != np.int64 or sizes.ndim != 1 or len(sizes) not in counts or (sizes < 0).any():
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
        room = whole_blocks(sizes, self.lanes)
        starts = np.cumsum(room) - room
        spare = ids[ranges(starts + sizes, room - sizes)]
        if (spare != 255).any() or (ids.shape[1] == 8 and np.count_nonzero(ids[:, 7] > 127) != len(spare)):
            raise ValueError("ids must not be negative, but for -1 behind the end of a list")
        lists = Lists(blocks, ids, starts, np.array(sizes), total)
        if not (ids.shape[1] == 3 and total >= FLAGGED_MIN and distinct(ids) == total):
            stored = lists.ids(lists.rows())
            if (repeated := first_repeated(stored)) is not None:
                raise ValueError(f"ids must be distinct, but {repeated} comes twice")
        return lists

    def _state(self) -> State:
        state: State = self.published.parts[self.part]
        return state

    def _empty(self) -> State:
        none, ids = np.zeros(self.nlist, np.int64), np.empty((0, ID_BYTES), np.uint8)
        return State(Lists(np.empty((0, self.width, self.lanes), self.dtype), ids, none, none, 0), none, 0, None)

    def _rows_of(self, lists: Lists, ids: Ids) -> Ids:
        """The rows of those of the ids that are stored, in order."""
        rows = np.unique(self.find(lists, ids))
        return rows[np.searchsorted(rows, 0) :]

    def _appended(self, state: State, list_numbers: Ids, codes: npt.NDArray[Any], ids: Ids) -> State:
        """With these codes, whose ids are not stored. Only rows that no list covers are written to."""
        if not len(ids):
            return state
        state = self._widened(state, len(added := np.bincount(list_numbers, minlength=len(state.lists.sizes))))
        largest = int(ids.max())
        next_id = None if state.next_id is None else max(state.next_id, largest + 1)
        state = self._with_room(state, state.lists.sizes + added, bytes_of_id(largest))
        old = state.lists
        # Small numbers are sorted by their digits, in a fifth of the time.
        order = np.argsort(list_numbers.astype(np.min_scalar_type(self.nlist)), kind="stable")
        rows = ranges(old.starts + old.sizes, added)
        old.blocks[rows // self.lanes, :, rows % self.lanes] = codes[order]
        old.packed_ids[rows] = pack_ids(ids[order], old.packed_ids.shape[1])
        lists = replace(old, sizes=old.sizes + added, ntotal=old.ntotal + len(ids))
        return state._replace(lists=lists, next_id=next_id)

    def _widened(self, state: State, count: int) -> State:
        """With `count` lists, of which there is one more than before when the first vector comes into it."""
        old = state.lists
        more = count - len(old.sizes)
        if not more:
            return state
        ends, none = np.full(more, len(old.packed_ids)), np.zeros(more, np.int64)
        lists = replace(old, starts=np.append(old.starts, ends), sizes=np.append(old.sizes, none))
        return state._replace(lists=lists, room=np.append(state.room, none))

    def _with_room(self, state: State, sizes: Ids, id_bytes: int) -> State:
        """With room for lists of these sizes and ids of so many bytes, in other arrays if it takes them."""
        old = state.lists
        id_bytes = max(old.packed_ids.shape[1], id_bytes)
        short = np.flatnonzero(sizes > state.room)
        if not len(short) and id_bytes == old.packed_ids.shape[1]:
            return state
        # Once there is something, leave an eighth to spare: adding one by one then costs a constant each.
        wanted = np.maximum(state.room, sizes + (sizes // 8 + 4 if old.ntotal else 0))
        room = whole_blocks(wanted, self.lanes)
        if (
            id_bytes == old.packed_ids.shape[1]
            and not len(old.gone)
            and state.free + room[short].sum() <= len(old.packed_ids)
        ):
            rows = ranges(old.starts[short], old.sizes[short])
            return self._at_the_end(state, short, rows, room[short])
        if len(old.gone):
            rows = old.rows()
            lists = filled(old, old.codes(rows), old.ids(rows), old.list_numbers(rows), room, id_bytes)
        else:
            lists = moved(old, room, id_bytes)
        return State(lists, room, int(room.sum()), state.next_id)

    def _at_the_end(self, state: State, numbers: Ids, rows: Ids, room: Ids) -> State:
        """With the lists of these numbers, which keep `rows`, copied to where the arrays have so much room for each."""
        old = state.lists
        kept = np.bincount(old.list_numbers(rows), minlength=len(old.sizes))[numbers] if len(rows) else 0 * numbers
        starts, sizes, rooms = old.starts.copy(), old.sizes.copy(), state.room.copy()
        starts[numbers], sizes[numbers], rooms[numbers] = state.free + np.cumsum(room) - room, kept, room
        if len(rows):  # else there may be nothing that can be written to: a file's arrays
            target = ranges(starts[numbers], kept)
            old.blocks[target // self.lanes, :, target % self.lanes] = old.codes(rows)
            old.packed_ids[target] = old.packed_ids[rows]
        lists = replace(old, starts=starts, sizes=sizes, ntotal=old.ntotal - int((old.sizes - sizes).sum()))
        return State(lists, rooms, state.free + int(room.sum()), state.next_id)

    def _without(self, state: State, rows: Ids) -> State:
        """Without these rows, which are in use and in order."""
        old = state.lists
        next_id = state.next_id
        if next_id is not None and int(old.ids(rows).max()) == next_id - 1:
            next_id = None
        if self.marks_removed:
            gone = np.insert(old.gone, np.searchsorted(old.gone, rows), rows)
            if len(gone) * GONE_SHARE <= old.sizes.sum():
                lists = replace(old, gone=gone, ntotal=old.ntotal - len(rows))
                return state._replace(lists=lists, next_id=next_id)
            kept = old.rows()
            kept = kept[~among(kept, rows)]
            lists = packed(old, kept, old.list_numbers(kept))
            return State(lists, lists.sizes, len(lists.packed_ids), next_id)
        numbers = np.unique(old.list_numbers(rows))
        kept = ranges(old.starts[numbers], old.sizes[numbers])
        kept = kept[~among(kept, rows)]
        room = whole_blocks(old.sizes[numbers] - np.bincount(old.list_numbers(rows))[numbers], self.lanes)
        if state.free + room.sum() <= len(old.packed_ids):
            return self._at_the_end(state, numbers, kept, room)._replace(next_id=next_id)
        # The next lists that lose something find room at the end.
        kept = old.rows()
        kept = kept[~among(kept, rows)]
        lists = packed(old, kept, old.list_numbers(kept), old.ntotal // 8)
        room = whole_blocks(lists.sizes, self.lanes)
        return State(lists, room, int(room.sum()), next_id)
