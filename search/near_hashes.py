"""Pairs of perceptual hashes that differ in a few bits, found without comparing all with all.

Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing": two hashes of 64 bits that
differ in at most six of them differ in at most one bit in one of four parts of 16.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BITS_MAX = 6

CROWD = 512
"""Hashes of which a part may be the same: more are of blank or nearly blank pictures, and no sign of anything."""

COMPARED_AT_MOST = 256
"""Pictures that are compared with all, one by one, where only their pairs are wanted."""

_PARTS, _PART_BITS = 4, 16
_BLOCK = 4_096
_ONE_BIT_OFF = np.array([0, *(1 << bit for bit in range(_PART_BITS))], np.uint16)

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def near_hashes(hashes: Hashes, rows: Ids | None = None, bits: int = BITS_MAX) -> tuple[Ids, Ids]:
    """The pairs of pictures of which one, in any orientation, has nearly the hash of the other as it is.

    Parameters
    ----------
    hashes : uint64 (n, 8)
        As `features.phash` makes them.
    rows : int64 (m,), optional
        Only pairs with one of these; by default all.
    bits : int
        In how many they may differ, at most `BITS_MAX`.

    Returns
    -------
    pairs : int64 (p, 2)
        Rows of the hashes, the smaller first, in ascending order.
    differing : int64 (p,)
        In how many bits.
    """
    if not 0 <= bits <= BITS_MAX:
        raise ValueError(f"bits must be from 0 to {BITS_MAX}, got {bits}")
    if rows is not None and rows.size <= COMPARED_AT_MOST:
        found = list(_compared(hashes, rows, bits))
    else:
        found = [each for part in range(_PARTS) for each in _alike_in(part, hashes, bits)]
    pairs = np.unique(np.concatenate([np.empty((0, 3), np.int64), *found]), axis=0)
    is_first = np.ones(len(pairs), bool)  # of a pair that was found in several ways the fewest bits count
    is_first[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(axis=1)
    if rows is not None:
        is_first &= np.isin(pairs[:, :2], rows).any(axis=1)
    return pairs[is_first, :2], pairs[is_first, 2]


def _compared(hashes: Hashes, rows: Ids, bits: int) -> Iterator[Ids]:
    """Pairs (p, 2) of some rows with any, and in how many bits they differ, a column more."""
    for row in rows.tolist():
        ours = np.bitwise_count(hashes[:, :1] ^ hashes[row]).min(axis=1)
        theirs = np.bitwise_count(hashes ^ hashes[row, 0]).min(axis=1)
        differing = np.minimum(ours, theirs)
        differing[row] = BITS_MAX + 1
        others = np.flatnonzero(differing <= bits)
        yield _as_rows(np.full(others.size, row), others, differing[others])


def _alike_in(part: int, hashes: Hashes, bits: int) -> Iterator[Ids]:
    """Pairs as those of `_compared` that differ in at most one bit of a part."""
    upright = np.ascontiguousarray(hashes[:, 0]).view(np.uint16).reshape(-1, _PARTS)[:, part]
    order = np.argsort(upright, kind="stable")
    begins = np.searchsorted(upright[order], np.arange(2**_PART_BITS + 1))
    for start in range(0, len(hashes), _BLOCK):
        turned = np.ascontiguousarray(hashes[start : start + _BLOCK])
        values = turned.view(np.uint16).reshape(*turned.shape, _PARTS)[:, :, part, None] ^ _ONE_BIT_OFF
        first, last = begins[values].ravel(), begins[values.astype(np.int64) + 1].ravel()
        sizes = np.where(last - first > CROWD, 0, last - first)
        places = np.flatnonzero(sizes)
        sizes = sizes[places]
        steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        others = order[np.repeat(first[places], sizes) + steps]
        own, turn = np.divmod(np.repeat(places // _ONE_BIT_OFF.size, sizes), turned.shape[1])
        differing = np.bitwise_count(turned[own, turn] ^ hashes[others, 0])
        near = (differing <= bits) & (own + start != others)
        yield np.unique(_as_rows(own[near] + start, others[near], differing[near]), axis=0)


def _as_rows(one: Ids, other: Ids, differing: NDArray[np.uint8]) -> Ids:
    return np.stack([np.minimum(one, other), np.maximum(one, other), differing.astype(np.int64)], axis=1)
