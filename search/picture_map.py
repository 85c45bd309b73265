"""All pictures of a collection as points of a plane: the first two principal components of their vectors.

The map is made when it is first asked for, and kept beside the collection in a file of its own, which its manifest
names. A sync makes that file out of date, and the next who asks has it made anew.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.lock import writing
from features.collection.manifest import new_part, read_manifest
from features.collection.store import FeatureStore, StoreError
from features.collection.vector_file import write_vectors
from ivfpq.distances import normalised

logger = logging.getLogger(__name__)

LEARNT_FROM = 20_000
"""Vectors that the two directions are computed from at most: 160 MB of float32 at 2048-d."""

_FILE = "map.npy"
_BLOCK = 8192
_making = threading.Lock()


@dataclass(frozen=True, eq=False)
class PictureMap:
    """Where each picture of a collection lies on a plane.

    Attributes
    ----------
    ids : int64 (n,)
        Of the usable pictures, ascending.
    points : float32 (n, 2)
    directions : float32 (dim, 2)
    middle : float32 (2,)
        What is taken off a vector's components: those of the mean.
    metric : str
        Of the collection; with "cosine" vectors count by their direction alone.
    """

    ids: NDArray[np.int64]
    points: NDArray[np.float32]
    directions: NDArray[np.float32]
    middle: NDArray[np.float32]
    metric: str

    @cached_property
    def reach(self) -> float:
        """The largest coordinate of a point, whatever its sign; 1 where all lie in the middle."""
        return float(np.abs(self.points).max(initial=0)) or 1.0

    def places(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where vectors (n, dim), such as that of a query, lie: float32 (n, 2)."""
        return _compared(vectors, self.metric) @ self.directions - self.middle

    @classmethod
    def make(cls, store: FeatureStore) -> PictureMap:
        """Compute the map of a collection.

        The directions are those of a principal component analysis of all vectors, or of `LEARNT_FROM` of more, chosen
        by chance with a fixed seed.
        """
        from sklearn.decomposition import PCA

        ids, metric = store.ids, store.metric
        learnt = ids
        if ids.size > LEARNT_FROM:
            learnt = np.sort(np.random.default_rng(0).choice(ids, LEARNT_FROM, replace=False))
        count = min(2, learnt.size, store.features.shape[1])
        directions = np.zeros((store.features.shape[1], 2), np.float32)
        middle = np.zeros(2, np.float32)
        if learnt.size > 1:
            found = PCA(count, random_state=0).fit(_vectors(store, learnt))
            directions[:, :count] = found.components_.T
            middle = (found.mean_ @ directions).astype(np.float32)
        blocks = [ids[start : start + _BLOCK] for start in range(0, ids.size, _BLOCK)]
        points = [_vectors(store, block) @ directions - middle for block in blocks]
        return cls(ids, np.concatenate([np.empty((0, 2), np.float32), *points]), directions, middle, metric)

    @classmethod
    def read(cls, store: FeatureStore) -> PictureMap | None:
        """The map that the manifest of a collection names; None where there is none of this state of it.

        Raises
        ------
        StoreError
            The file is not what was written.
        """
        entry = store.manifest.get("map")
        if not entry or (entry.get("generation", 0), entry["metric"]) != (store.generation, store.metric):
            return None
        path, dim = store.folder / entry["file"], store.features.shape[1]
        try:
            if sha256_of(path) != entry.get("sha256"):
                raise StoreError(f"{path} is damaged: it is not what was written")
            rows = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise error if isinstance(error, StoreError) else StoreError(f"{path} cannot be read: {error}") from error
        wanted = (dim + 1 + store.ids.size, 2)
        if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.shape != wanted:
            raise StoreError(f"{path} does not hold float32 {wanted}, as a map of {store.ids.size} pictures does")
        return cls(store.ids, rows[dim + 1 :], rows[:dim], rows[dim], store.metric)

    def write(self, store: FeatureStore) -> None:
        """Keep the map beside a collection, and name it in the manifest.

        Raises
        ------
        StoreError
            Another writer is at work, or the collection has been brought up to date meanwhile.
        """
        with writing(store.folder, purpose="drawn as a map"):
            if read_manifest(store.folder).get("generation", 0) != store.generation:
                raise StoreError(f"{store.folder} has been brought up to date meanwhile")
            rows = np.concatenate([self.directions, self.middle[None], self.points])
            path = new_part(store.folder, _FILE, store.generation)
            entry = write_vectors(path, (len(rows), 2), rows.dtype, [rows])
            store.update_manifest(map={**entry, "generation": store.generation, "metric": self.metric})


def map_of(store: FeatureStore) -> PictureMap:
    """The map of a collection: read, or else made, and then kept where that can be. Safe to use from many threads.

    Where it cannot be written it is there until the collection is closed.
    """
    if (known := _ready(store)) is not None:
        return known
    with _making:  # one at a time: each takes all processors
        if (known := _ready(store)) is not None:  # another thread has made it meanwhile
            return known
        try:
            found = PictureMap.read(store)
        except StoreError as error:
            logger.warning("%s; it is made anew", error)
            found = None
        if found is None:
            found = PictureMap.make(store)
            try:
                found.write(store)
            except (StoreError, OSError) as error:
                logger.info("the map of %s is not kept: %s", store.folder.name, error)
        _known[store] = found
        return found


_known: WeakKeyDictionary[FeatureStore, PictureMap] = WeakKeyDictionary()


def _ready(store: FeatureStore) -> PictureMap | None:
    known = _known.get(store)
    return known if known is not None and known.metric == store.metric else None


def _vectors(store: FeatureStore, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return _compared(np.asarray(store.features[ids], np.float32), store.metric)


def _compared(vectors: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    return normalised(vectors) if metric == "cosine" else vectors
