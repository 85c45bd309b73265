"""IndexPQ: product quantization alone (Jégou, Douze, Schmid 2011, section III)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ivfpq.checks import Floats, Metric
from ivfpq.index import IndexIVFPQ


class IndexPQ(IndexIVFPQ):
    """Codes of the vectors themselves, all of which every search scans (section III: product quantization alone).

    This is the inverted file with a single list whose centroid is the origin: what the centroid leaves over of a vector
    is the vector. All else is that of `IndexIVFPQ`; `nprobe` is taken and means nothing here.

    Parameters
    ----------
    d, M, nbits, metric, seed
        See `IndexIVFPQ`.
    """

    __slots__ = ()
    _parameters: ClassVar[tuple[str, ...]] = ("d", "M", "nbits", "metric", "seed")

    def __init__(self, d: int, M: int = 8, nbits: int = 8, *, metric: Metric = "l2", seed: int = 0) -> None:
        super().__init__(d, 1, M, nbits, metric=metric, seed=seed)

    def install(self, centroids: Any, codebooks: Any) -> None:
        """Use codebooks (M, ksub, dsub) trained elsewhere. `centroids` must be the origin, (1, d); else as there."""
        if np.any(centroids):
            raise ValueError("centroids must be the origin alone: there is one list, of whole vectors")
        super().install(centroids, codebooks)

    def _cells(self, x: Floats, rng: np.random.Generator) -> Floats:
        return np.zeros((1, self.d), np.float32)
