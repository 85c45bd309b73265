"""How well a collection is searched, judged by its labels: every picture asks for others that bear one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.datasets import Item
from ivfpq.metrics import mean_average_precision, precision_at_k
from search.engine import SearchEngine
from search.errors import EngineError
from search.options import SearchOptions

DEPTH = 100  # results that a query's average precision looks at
BLOCK = 64  # queries at a time: short steps, between which others' searches run and a person can stop
CELLS = 1 << 24  # of the table of a block's queries and all pictures: 64 MiB


@dataclass(frozen=True)
class Confusion:
    """A label whose pictures are taken for others.

    Attributes
    ----------
    label : str
    right, asked : int
        Pictures with this label whose nearest neighbour bears a label of theirs, and all of them that asked.
    mistaken_for : tuple of (str, int)
        Labels of the nearest neighbours that were wrong, and how often, most frequent first.
    example : tuple of int
        Ids of a picture with this label and of its nearest neighbour, which is wrong.
    """

    label: str
    right: int
    asked: int
    mistaken_for: tuple[tuple[str, int], ...]
    example: tuple[int, int]


@dataclass(frozen=True)
class Evaluation:
    """The measures over the queries so far, which are drawn in random order: a part of them already tells a good deal.

    Attributes
    ----------
    engine : str
    k : int
        Of `precision`.
    done, total : int
        Queries: pictures with a label that another picture bears too.
    precision : float
        Precision@k: right hits among the first k.
    mean_average_precision : float
        mAP@100: of the average precision over the first 100 hits, where a query has at most 100 right ones to find
        (Weyand et al. 2020, "Google Landmarks Dataset v2", eq. 1).
    accuracy : float
        1-NN: queries whose nearest neighbour is right.
    worst : tuple of Confusion
        Labels with the lowest accuracy, lowest first.
    """

    engine: str
    k: int
    done: int
    total: int
    precision: float
    mean_average_precision: float
    accuracy: float
    worst: tuple[Confusion, ...]


def evaluate(
    engine: SearchEngine,
    options: SearchOptions,
    *,
    worst: int = 8,
    seed: int = 0,
) -> Iterator[Evaluation]:
    """Search with every picture for others with its label; the picture itself is left out of what it finds.

    Parameters
    ----------
    options : SearchOptions
        Its k is that of precision@k, up to `DEPTH`.
    worst : int
        Labels to list.

    Yields
    ------
    Evaluation
        After each block of queries; the last one is of all.

    Raises
    ------
    EngineError
        If no two pictures share a label, or k is out of range.
    """
    k = options.k
    if k > DEPTH:
        raise EngineError(f"k must be from 1 to {DEPTH}, got {k}")
    items, n = engine.store.items, len(engine.store.items)
    labels = _label_matrix(engine)
    # A picture has something to find if one of its labels is borne by another.
    common = np.asarray(labels.sum(axis=0)).ravel() > 1
    queries = np.flatnonzero(labels[:, common].sum(axis=1) > 0)
    if not queries.size:
        raise EngineError(f"no two pictures of {engine.name} share a label, so there is nothing to judge a search by")
    queries = np.random.default_rng(seed).permutation(queries)

    precision = average_precision = 0.0
    mistakes, right = _Mistakes(items), 0
    deep = replace(options, k=min(DEPTH + 1, n))  # a picture finds itself too
    step = max(1, min(BLOCK, CELLS // n))
    for start in range(0, len(queries), step):
        asking = queries[start : start + step]
        vectors = np.asarray(engine.store.features[asking], dtype=np.float32)
        found = np.full((len(asking), DEPTH + 1), -1)
        neighbours = engine.neighbours(vectors, deep, asking.tolist()).ids
        found[:, : neighbours.shape[1]] = neighbours
        found = _without(found, asking)
        shared = (labels[asking] @ labels.T).toarray() > 0  # whether a picture bears a label of the query's
        shared[np.arange(len(asking)), asking] = False
        relevant = np.take_along_axis(shared, np.maximum(found, 0), axis=1) & (found >= 0)
        mistakes.add(asking, found[:, 0], relevant[:, 0])
        right += int(relevant[:, 0].sum())
        precision += precision_at_k(relevant, k) * len(asking)
        average_precision += mean_average_precision(relevant, np.minimum(shared.sum(axis=1), DEPTH)) * len(asking)
        done = start + len(asking)
        yield Evaluation(
            engine=options.engine,
            k=k,
            done=done,
            total=len(queries),
            precision=precision / done,
            mean_average_precision=average_precision / done,
            accuracy=right / done,
            worst=mistakes.worst(worst),
        )


def _label_matrix(engine: SearchEngine) -> sparse.csr_array:
    """Which picture bears which label: (images, labels) of 0 and 1. Damaged images bear none."""
    names = {label: number for number, label in enumerate(engine.labels)}
    pairs = [(id, names[label]) for id in engine.store.ids.tolist() for label in engine.store.items[id].labels]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    shape = (len(engine.store.items), len(names))
    return sparse.csr_array((np.ones(len(pairs), np.int32), (rows, columns)), shape=shape)


def _without(found: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids found (nq, n) without each query's own, or without the last where that is not among them: (nq, n - 1)."""
    keep = found != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return found[keep].reshape(len(found), -1)


class _Mistakes:
    """Counts, label by label, of what nearest neighbours were."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._asked: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._wrong: dict[str, Counter[str]] = {}
        self._examples: dict[tuple[str, str], tuple[int, int]] = {}  # the first of each kind

    def add(self, queries: NDArray[np.int64], nearest: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
        for query, neighbour, good in zip(queries.tolist(), nearest.tolist(), right.tolist(), strict=True):
            for label in self._items[query].labels:
                self._asked[label] += 1
                self._right[label] += good
                if good or neighbour < 0:
                    continue
                for other in self._items[neighbour].labels:
                    self._wrong.setdefault(label, Counter())[other] += 1
                    self._examples.setdefault((label, other), (query, neighbour))

    def worst(self, count: int) -> tuple[Confusion, ...]:
        """The labels with the lowest share of right neighbours; of equals, the one that asked more often."""
        ranked = sorted(
            self._wrong, key=lambda label: (self._right[label] / self._asked[label], -self._asked[label], label)
        )
        made = []
        for label in ranked[:count]:
            others = tuple(self._wrong[label].most_common(3))
            example = self._examples[label, others[0][0]]
            made.append(Confusion(label, self._right[label], self._asked[label], others, example))
        return tuple(made)
