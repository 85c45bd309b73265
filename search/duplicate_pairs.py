"""Pairs of pictures of a collection that may be the same, found without comparing all with all.

Near ones are looked for twice, by perceptual hash in eight orientations and by the vectors of the encoder, through the
index; what either finds can be looked at closer, pair by pair: whether the pixels are equal, or geometry proves it (see
`same_picture`). What was measured stands in docs/PICTURES.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.catalog_schema import HASHED_IN
from features.collection.lock import writing
from features.collection.manifest import new_part
from features.collection.store import FeatureStore, StoreError
from features.images import ImageError
from features.picture_files import stored_pixels
from ivfpq.distances import normalised
from search.near_hashes import near_hashes
from search.same_picture import SIDE, Sight, can_prove, is_same_picture
from search.searcher import candidates_of
from search.space import Candidates
from search.spaces import visual_space

COSINE_ALIKE, COSINE_LIKELY = 0.85, 0.94
"""From which on vectors alone make a pair of candidates, and a likely one."""
BITS_LIKELY = 4
"""In how many bits hashes of a likely pair differ at most; those of candidates in up to `near_hashes.BITS_MAX`."""
NEAREST = 32
"""Of each picture by its vector that may be its duplicates."""
COMPARED_AT_MOST = 20_000
"""Pictures of a collection that are all compared by their vectors; of more, the candidates of its index are."""
CHAIN_MAX = 8
"""Pictures of a group of which every pair is looked at closer; in a larger one those that add to it are."""

_FILE = "duplicates.npy"
_BLOCK = 512
_SIGHTS = 512  # of 0.3 MB each

Ids = NDArray[np.int64]
_NONE: Ids = np.empty(0, np.int64)
Progress = Callable[[int, int], None]


class Level(IntEnum):
    """How sure it is that two files show the same picture, the surest first."""

    SAME_BYTES = 0
    SAME_PIXELS = 1
    PROVED = 2
    LIKELY = 3
    ALIKE = 4

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of pictures that may be the same, those of equal bytes left out: of each content one stands for all.

    Attributes
    ----------
    rows : int64 (p, 4)
        Ids, the smaller first; the `Level`; whether the two were looked at closer.
    """

    rows: Ids

    @property
    def unseen(self) -> int:
        """How many were not looked at closer."""
        return int((self.rows[:, 3] == 0).sum())

    @classmethod
    def of(cls, store: FeatureStore) -> Pairs | None:
        """Those that the manifest of a collection names, as far as they are of its pictures; None where it names none.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        entry = store.manifest.get("duplicates")
        if not entry:
            return None
        path = store.folder / entry["file"]
        try:
            rows = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error
        if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != 4:
            raise StoreError(f"{path} holds {rows.dtype} {rows.shape}, and pairs are int64 (p, 4)")
        return cls(rows)

    def written(self, store: FeatureStore) -> dict[str, Any]:
        """Write them into a new file of a collection; returns the entry for the manifest."""
        path = new_part(store.folder, _FILE, store.generation)
        with path.open("wb") as file:
            np.lib.format.write_array(file, self.rows, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        return {"file": path.name, "sha256": sha256_of(path), "generation": store.generation}


def find_duplicates(store: FeatureStore) -> Pairs:
    """Find the pairs of a collection and name them in its manifest.

    Raises
    ------
    StoreError
        Another writer is at work.
    """
    with writing(store.folder, purpose="searched for duplicates"):
        store = FeatureStore.open(store.folder)
        pairs = found_pairs(store, candidates_of(visual_space(store)))
        store.update_manifest(duplicates=pairs.written(store))
    return pairs


def followed(store: FeatureStore, candidates: Candidates) -> dict[str, Any]:
    """The entry for the manifest of a store that a sync is about to put in force: pairs of new and edited pictures are
    looked for, and the others stay.
    """
    entry = store.manifest.get("duplicates")
    try:
        known = Pairs.of(store)
    except StoreError:  # they can be found anew
        known = None
    if entry is None or known is None:
        return found_pairs(store, candidates).written(store)
    moved = np.union1d(*store.changes_since(entry["generation"]))
    hashed_since = (store.catalog.about(HASHED_IN) or 0) > entry["generation"]
    if not moved.size and not hashed_since:
        return dict(entry)
    return found_pairs(store, candidates, known, moved, everything=hashed_since).written(store)


def found_pairs(
    store: FeatureStore,
    candidates: Candidates,
    known: Pairs | None = None,
    moved: Ids = _NONE,
    *,
    everything: bool = False,
) -> Pairs:
    """The pairs of a store, by hash and by vector.

    Parameters
    ----------
    candidates : callable
        Asks the index for the nearest of pictures.
    known : Pairs, optional
        Those of an earlier generation, which stay as far as they can: then only what may be new is looked for.
    moved : int64 (n,)
        Ids of the pictures that are new, edited or gone since.
    everything : bool
        Look for all, though some are known.
    """
    copies = store.catalog.copies()
    ids = np.setdiff1d(store.ids, [id for each in copies for id in each[1:]])
    before = np.empty((0, 4), np.int64) if known is None else known.rows
    has_moved = np.isin(before[:, :2], moved).any(axis=1)
    stays = before[~has_moved & np.isin(before[:, :2], ids).all(axis=1)]
    asked = ids
    if known is not None and not everything:
        # Another may stand for its content now; it is found from those that were near the one that has gone.
        stand_ins = [each[0] for each in copies]
        asked = np.intersect1d(
            ids, np.concatenate([moved, before[has_moved, :2].ravel(), np.array(stand_ins, np.int64)])
        )
    hashed, hashes = store.catalog.phashes()
    stands = np.isin(hashed, ids)
    hashed, hashes = hashed[stands], hashes[stands]
    near, differing = near_hashes(hashes, np.flatnonzero(np.isin(hashed, asked)) if asked.size < ids.size else None)
    by_hash = np.column_stack([hashed[near], np.where(differing <= BITS_LIKELY, Level.LIKELY, Level.ALIKE)])
    at_once = _BLOCK if ids.size <= COMPARED_AT_MOST else _BLOCK // 8  # of each the vectors of its candidates are read
    by_vector = [_near_vectors(store, ids, block, candidates) for block in _blocks(asked, at_once)]
    new = np.concatenate([by_hash, *by_vector]).astype(np.int64)
    return Pairs(_surest(np.concatenate([stays, np.column_stack([new, np.zeros(len(new), np.int64)])])))


def _near_vectors(store: FeatureStore, ids: Ids, asked: Ids, candidates: Candidates) -> Ids:
    """Pairs (p, 3) of ids and level, of some pictures with those that stand for all, by their vectors."""
    own = normalised(np.asarray(store.features[asked], np.float32))
    if ids.size <= COMPARED_AT_MOST:
        parts = [own @ normalised(np.asarray(store.features[block], np.float32)).T for block in _blocks(ids)]
        cosines, others = np.concatenate(parts, axis=1), np.broadcast_to(ids, (asked.size, ids.size))
    else:
        others = candidates(asked, NEAREST + 1)
        near = normalised(np.asarray(store.features[np.maximum(others, 0)].reshape(others.size, -1), np.float32))
        cosines = np.einsum("nd,nmd->nm", own, near.reshape(*others.shape, -1))
        cosines[~np.isin(others, ids)] = -1
    cosines = np.where(others == asked[:, None], -1, cosines)
    if cosines.shape[1] > NEAREST:
        nearest = np.argpartition(-cosines, NEAREST, axis=1)[:, :NEAREST]
        cosines, others = np.take_along_axis(cosines, nearest, 1), np.take_along_axis(others, nearest, 1)
    row, column = np.nonzero(cosines >= COSINE_ALIKE)
    one, other = asked[row], others[row, column]
    level = np.where(cosines[row, column] >= COSINE_LIKELY, Level.LIKELY, Level.ALIKE)
    return np.column_stack([np.minimum(one, other), np.maximum(one, other), level])


def _blocks(ids: Ids, size: int = _BLOCK) -> list[Ids]:
    return [ids[start : start + size] for start in range(0, ids.size, size)]


def _surest(rows: Ids) -> Ids:
    """Of each pair the row that was looked at closer, or else that of the surest level; in ascending order."""
    order = np.lexsort((rows[:, 2], -rows[:, 3], rows[:, 1], rows[:, 0]))
    rows = rows[order]
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    return rows[is_first]


def look_closer(store: FeatureStore, *, progress: Progress | None = None) -> Pairs:
    """Look at the pairs that only hash and vector speak for, and name what is found in the manifest.

    What was looked at is kept, also where this is stopped; a pair that cannot be read is looked at again the next time.

    Raises
    ------
    StoreError
        OpenCV is not installed, or another writer is at work.
    """
    if not can_prove():
        raise StoreError("a closer look takes OpenCV: pip install opencv-python-headless")
    with writing(store.folder, purpose="searched for duplicates"):
        store = FeatureStore.open(store.folder)
        pairs = Pairs.of(store) or found_pairs(store, candidates_of(visual_space(store)))
        rows = pairs.rows.copy()
        try:
            _look_at(store, rows, progress)
        finally:
            if (rows != pairs.rows).any() or "duplicates" not in store.manifest:
                store.update_manifest(duplicates=Pairs(rows).written(store))
    return Pairs(rows)


def _look_at(store: FeatureStore, rows: Ids, progress: Progress | None) -> None:
    """Fill in what a closer look at each pair tells."""
    sizes = store.catalog.sizes(np.unique(rows[:, :2]).tolist())
    hashed, hashes = store.catalog.phashes()
    hash_of = dict(zip(hashed.tolist(), hashes[:, 0].tolist(), strict=True))
    paths = {record.id: record.path for record in store.records(np.unique(rows[:, :2]).tolist())}

    def pixels_of(id: int, min_side: int | None = None) -> NDArray[np.uint8]:
        return stored_pixels(store.manifest, paths[id], min_side=min_side)

    @lru_cache(_SIGHTS)
    def sight(id: int) -> Sight:
        return Sight.of(pixels_of(id, SIDE))

    def level_of(place: int) -> int | None:
        one, other, level = rows[place, :3].tolist()
        try:
            may_be_equal = sizes[one][:2] == sizes[other][:2] and hash_of.get(one, 0) == hash_of.get(other, 1)
            if may_be_equal and np.array_equal(pixels_of(one), pixels_of(other)):
                return int(Level.SAME_PIXELS)
            return int(Level.PROVED) if is_same_picture(sight(one), sight(other)) else level
        except ImageError:
            return None

    groups = Chains()
    for one, other, level, seen in rows.tolist():
        if seen and level <= Level.PROVED:
            groups.join(one, other)
    todo = np.flatnonzero(rows[:, 3] == 0)
    todo = todo[np.lexsort((rows[todo, 1], rows[todo, 0]))]
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="duplicates") as pool:
        for start in range(0, todo.size, _BLOCK):
            block = [
                each for each in todo[start : start + _BLOCK].tolist() if not groups.is_long(*rows[each, :2].tolist())
            ]
            for place, level in zip(block, pool.map(level_of, block), strict=True):
                if level is not None:
                    rows[place, 2:] = level, 1
                    if level <= Level.PROVED:
                        groups.join(*rows[place, :2].tolist())
            if progress is not None:
                progress(min(start + _BLOCK, todo.size), todo.size)


class Chains:
    """Pictures that hang together (union-find: Tarjan 1975), and how many."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self._size: dict[int, int] = {}

    def root(self, id: int) -> int:
        parent = self._parent.setdefault(id, id)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        self._parent[id] = parent
        return parent

    def join(self, one: int, other: int) -> None:
        first, second = self.root(one), self.root(other)
        if first != second:
            self._parent[second] = first
            self._size[first] = self._size.get(first, 1) + self._size.get(second, 1)

    def is_long(self, one: int, other: int) -> bool:
        """Whether both are in one chain of more than `CHAIN_MAX`."""
        root = self.root(one)
        return root == self.root(other) and self._size.get(root, 1) > CHAIN_MAX
