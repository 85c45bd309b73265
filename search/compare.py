"""Engines side by side on one query, with exact search as the truth."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ivfpq.metrics import knn_recall_at_k
from search.engine import Hits, SearchEngine

REPEATS = 3  # searches that a time is the median of


@dataclass(frozen=True)
class Answer:
    """What one engine gave.

    Attributes
    ----------
    hits : Hits
        Its times are medians of `REPEATS` searches.
    recall : float
        Share of the hits of exact search that it found.
    """

    engine: str
    hits: Hits
    recall: float

    @property
    def ids(self) -> frozenset[int]:
        """Of the pictures found."""
        return frozenset(hit.id for hit in self.hits)


def compare(
    engine: SearchEngine,
    vector: NDArray[np.float32],
    own_id: int | None,
    k: int,
    *,
    nprobe: int | None = None,
    rerank: bool = False,
) -> dict[str, Answer]:
    """Every engine's answer to the same query, exact search last.

    Parameters
    ----------
    vector, own_id
        The query, as `SearchEngine.encode` returns it.
    k, nprobe, rerank
        See `SearchEngine.search`.
    """
    found = {name: _search(engine, vector, own_id, k, nprobe, rerank, name) for name in engine.engines}
    truth = _row(found["exact"], k)
    return {name: Answer(name, hits, knn_recall_at_k(_row(hits, k), truth)) for name, hits in found.items()}


def _search(
    engine: SearchEngine,
    vector: NDArray[np.float32],
    own_id: int | None,
    k: int,
    nprobe: int | None,
    rerank: bool,
    name: str,
) -> Hits:
    runs = [
        engine.search_vector(vector, k, own_id=own_id, nprobe=nprobe, engine=name, rerank=rerank)
        for _ in range(REPEATS)
    ]
    hits = runs[-1]
    hits.search_ms = median(run.search_ms for run in runs)
    hits.rerank_ms = median(run.rerank_ms for run in runs)
    return hits


def _row(hits: Hits, k: int) -> NDArray[np.int64]:
    """Ids as the metrics take them: (1, k), -1 where there are fewer."""
    row = np.full((1, k), -1)
    row[0, : len(hits)] = [hit.id for hit in hits]
    return row
