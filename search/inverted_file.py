"""The cells and codes inside an index, whatever engine it is of and whatever is wrapped around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexIVFPQ
from ivfpq.checks import Metric
from ivfpq.distances import normalised
from ivfpq.faiss_compat import FaissIndex, from_faiss
from ivfpq.pretransform import IndexPreTransform
from ivfpq.refine import IndexRefine


@dataclass(frozen=True)
class InvertedFile:
    """The cells and codes inside an index, whatever is wrapped around them.

    Attributes
    ----------
    cells : IndexIVFPQ
    outer : index
        What `cells` are in, or they themselves.
    metric : str
        Of the collection. (Cells for cosine may compare vectors of length 1 by their distance.)
    """

    cells: IndexIVFPQ
    outer: Any
    metric: Metric

    @classmethod
    def of(cls, index: Any) -> InvertedFile | None:
        """Of any engine's index; None if it has no inverted lists of codes."""
        outer = _from_faiss(index) if isinstance(index, FaissIndex) else index
        outer = outer.base if isinstance(outer, IndexRefine) else outer
        cells = outer.index if isinstance(outer, IndexPreTransform) else outer
        return cls(cells, outer, index.metric) if isinstance(cells, IndexIVFPQ) else None

    def seen(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query (d,) as the cells are asked for it, shape (1, cells.d)."""
        x = vector[None]
        if self.metric == "cosine" and self.outer.metric != "cosine":
            x = normalised(x)
        return self.outer.apply_chain(x) if isinstance(self.outer, IndexPreTransform) else x

    def score(self, distance: float) -> float:
        """What the cells found, in the terms of the collection's metric."""
        return 1 - distance / 2 if self.metric == "cosine" and self.cells.metric == "l2" else distance


@lru_cache(maxsize=4)
def _from_faiss(index: FaissIndex) -> Any:
    """The same lists and codes in an index of ours, or the index itself if ours has no such kind."""
    try:
        return from_faiss(index.faiss_index)
    except (TypeError, ValueError):
        return index
