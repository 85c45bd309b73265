"""Engines side by side on one query, with exact search as the truth."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ivfpq.metrics import knn_recall_at_k
from search.backends.base import UnreachableError
from search.engine import SearchEngine
from search.filters import Filter, FilterLike
from search.hits import Answer
from search.options import SearchOptions

logger = logging.getLogger(__name__)

REPEATS = 3  # searches that a time is the median of


@dataclass(frozen=True)
class Compared:
    """What one engine gave.

    Attributes
    ----------
    answer : Answer
        Its times are medians of `REPEATS` searches.
    recall : float
        Share of the hits of exact search that it found.
    """

    engine: str
    answer: Answer
    recall: float

    @property
    def ids(self) -> frozenset[int]:
        """Of the pictures found."""
        return frozenset(self.answer.ids)


def compare(
    engine: SearchEngine,
    vector: NDArray[np.float32],
    own_id: int | None,
    options: SearchOptions,
    *,
    filter: Filter | FilterLike | None = None,
) -> dict[str, Compared]:
    """The answer of every engine that can be reached to the same query, exact search last.

    Parameters
    ----------
    vector, own_id
        The query, as `SearchEngine.encode` returns it.
    options : SearchOptions
        For all engines; which one it names does not matter.
    filter : Filter or mapping, optional
        See `SearchEngine.search`.
    """

    def ask(name: str) -> Answer:
        wanted = replace(options, engine=name)
        answers = [engine.search_vector(vector, wanted, own_id=own_id, filter=filter) for _ in range(REPEATS)]
        return replace(
            answers[-1],
            search_ms=median(answer.search_ms for answer in answers),
            rerank_ms=median(answer.rerank_ms for answer in answers),
        )

    answers = {}
    for name in engine.engines:
        try:
            answers[name] = ask(name)
        except UnreachableError as error:  # a database is down; the others can be compared
            logger.warning("%s is not compared: %s", name, error)
    truth = _row(answers["exact"], options.k)
    return {
        name: Compared(name, answer, knn_recall_at_k(_row(answer, options.k), truth))
        for name, answer in answers.items()
    }


def _row(answer: Answer, k: int) -> NDArray[np.int64]:
    """Ids as the metrics take them: (1, k), -1 where there are fewer."""
    row = np.full((1, k), -1)
    row[0, : len(answer)] = answer.ids
    return row
