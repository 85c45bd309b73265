"""A space over made vectors, whose pictures come and go, for tests of what indexes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.space import VISUAL, Space
from search.spaces import space_kind

DIM = 16


class MadeStore:
    """As much of a FeatureStore as a backend asks of one. Vectors lie in eight heaps, labels tell which."""

    def __init__(self, folder: Path, count: int = 640) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        heaps = generator.standard_normal((8, DIM)) * 3
        self.folder = folder
        self.features = (heaps[np.arange(count) % 8] + generator.standard_normal((count, DIM))).astype(np.float32)
        self.ids = np.arange(count)
        self.generation = 0
        self.manifest = {
            "encoder": {"name": "made"},
            "features": {"file": "features.npy"},
            "format": 1,
            "metric": "cosine",
        }
        self._changes: list[tuple[np.ndarray, np.ndarray]] = []

    def change(self, changed, gone) -> None:
        """The next generation: these vectors become their opposites, those are of no use any more."""
        changed, gone = np.array(changed, np.int64), np.array(gone, np.int64)
        self.features = self.features.copy()
        self.features[changed] *= -1
        self.ids = np.setdiff1d(np.union1d(self.ids, changed), gone)
        self.generation += 1
        self._changes.append((changed, gone))

    def changes_since(self, generation: int) -> tuple[np.ndarray, np.ndarray]:
        later = self._changes[generation:]
        changed = np.unique(np.concatenate([np.empty(0, np.int64), *(each for each, _ in later)]))
        gone = np.unique(np.concatenate([np.empty(0, np.int64), *(each for _, each in later)]))
        return np.setdiff1d(changed, gone), gone

    def space(self, metric="cosine", indexes=None) -> Space:
        return Space(space_kind(VISUAL), self, self.features, metric, indexes or {})
