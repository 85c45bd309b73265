"""Every query compared with every vector: what may be in the answer, by matrix products, and its defined distances."""

from __future__ import annotations

import functools
import weakref

import numpy as np

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import SMALL_BLOCK, comparable, pair_distances_at
from ivfpq.list_layout import Lists, among
from ivfpq.screening import BLOCK, CandidateFilter, Points, screen

SAMPLE = 256  # vectors that say how far from the origin all are
FAR = 16.0  # times their own mean squared deviation: from there on a centre pays, though vectors are moved each time


class Known:
    """What is worth keeping about vectors from one search to the next. The vectors are not kept: they may be replaced.

    Attributes
    ----------
    blocks : weak reference to the array of the vectors
    centre, lengths : see `Points`
    gone : int64 array
        Rows of removed vectors when `copies` were counted.
    copies : int64 array, shape (n,), or None
        See `_copy_numbers`; counted when they are asked for.
    """

    __slots__ = ("blocks", "centre", "copies", "gone", "lengths")

    def __init__(self, lists: Lists, metric: Metric, before: Known | None) -> None:
        y: Floats = lists.blocks[: int(lists.sizes[0]), :, 0]
        self.blocks, self.gone = weakref.ref(lists.blocks), lists.gone
        self.copies: Ids | None = None
        self.centre: Floats | None
        self.lengths: Floats
        if before is None or before.blocks() is not lists.blocks or len(before.lengths) > len(y):
            self.centre = _centre(y) if metric == "l2" else None
            self.lengths = Points.of(y, self.centre).lengths
            return
        self.centre = before.centre
        more = Points.of(y[len(before.lengths) :], self.centre).lengths
        self.lengths = np.concatenate([before.lengths, more]) if len(more) else before.lengths

    def fits(self, lists: Lists) -> bool:
        """Whether this is known of the vectors of these lists."""
        same = self.blocks() is lists.blocks and self.gone is lists.gone
        return same and len(self.lengths) == int(lists.sizes[0])


class Compared:
    """The vectors of one list at one moment, to compare queries with.

    Parameters
    ----------
    lists : Lists
        With one lane. Its first list is what is compared.
    metric : str
    known : Known
        That fits the lists.
    """

    __slots__ = ("_known", "lists", "metric", "points")

    def __init__(self, lists: Lists, metric: Metric, known: Known) -> None:
        self.lists, self.metric, self._known = lists, metric, known
        y: Floats = lists.blocks[: int(lists.sizes[0]), :, 0]
        self.points = Points(y, known.centre, known.lengths)

    def candidates(self, x: Floats, k: int | None, radius: float = np.inf) -> tuple[Ids, Ids, Floats]:
        """What may be among the k nearest of a query, or within the radius of it.

        Parameters
        ----------
        x : float32 array, shape (nq, d)
        k : int or None
        radius : float
            For k None. The sign is turned for ip and cosine.

        Returns
        -------
        query, row : int64 arrays, shape (n,)
        distance : float32 array, shape (n,)
            The defined ones.
        """
        found: list[tuple[Ids, Ids, Floats]] = []
        (y, centre, lengths), gone = self.points, self.lists.gone
        rows = max(1, 4 * BLOCK // x.shape[1])  # 64 MiB of vectors at a time, and as much of distances
        queries = max(1, 4 * BLOCK // max(1, min(rows, len(y))))
        for start in range(0, len(x), queries):
            part = x[start : start + queries]
            kept = CandidateFilter(len(part), k, radius, functools.partial(self._ranked, part, k or 0))
            for first in range(0, len(y), rows):
                block = Points(y[first : first + rows], centre, lengths[first : first + rows])
                score, error = screen(part, block, self.metric)
                if len(gone):
                    ends = np.searchsorted(gone, [first, first + len(block.y)])
                    score[:, gone[ends[0] : ends[1]] - first] = np.inf
                kept.offer(np.arange(len(part)), first, score, error)
            query, row = kept.finish()
            if len(gone):
                present = ~among(row, gone)
                query, row = query[present], row[present]
            distance = comparable(pair_distances_at(part, query, y, row, self.metric), self.metric)
            found.append((query + start, row, distance))
        if len(found) == 1:
            return found[0]
        found.append((np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)))  # of no queries
        query, row, distance = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return query, row, distance

    def _ranked(self, x: Floats, k: int, query: Ids, row: Ids) -> tuple[Ids, Ids, Floats, Ids]:
        """What `CandidateFilter` asks for when there are many: less of the pairs, their defined distances, the ids.

        Of vectors that are the same, no more than the k of the smallest ids can be in an answer.
        """
        if self._known.copies is None:
            self._known.copies = _copy_numbers(self.points.y, self.lists)
        worth = self._known.copies[row] < k
        query, row = query[worth], row[worth]
        distance = comparable(pair_distances_at(x, query, self.points.y, row, self.metric), self.metric)
        return query, row, distance if self.metric == "l2" else -distance, self.lists.ids(row)


def _centre(y: Floats) -> Floats | None:
    """Where vectors (n, d) lie, if that is far from the origin by the measure of their own spread. float32 (d,)."""
    sample = y[:: max(1, len(y) // SAMPLE)].astype(np.float64)
    if not len(sample):
        return None
    centre = sample.mean(axis=0)
    if centre @ centre < FAR * np.square(sample - centre).sum(axis=1).mean() or not centre.any():
        return None
    return centre.astype(np.float32)


def _copy_numbers(y: Floats, lists: Lists) -> Ids:
    """How many of the same vectors have a smaller id, for each row of y (n, d), removed ones at the end. int64 (n,)."""
    words = np.ascontiguousarray(y).view(np.uint32)
    odd = np.random.default_rng(0).integers(1, 2**63, y.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(y), np.uint64)
    step = max(1, SMALL_BLOCK // y.shape[1])
    for start in range(0, len(y), step):
        hashes[start : start + step] = (words[start : start + step] * odd).sum(axis=1, dtype=np.uint64)
    gone = np.zeros(len(y), bool)
    gone[lists.gone] = True
    order = np.lexsort((lists.ids(np.arange(len(y))), gone, hashes))
    same = np.zeros(len(y), bool)  # as the vector before in this order
    for start in range(1, len(y), step):
        part = order[start - 1 : start + step]
        same[start : start + step] = (words[part[1:]] == words[part[:-1]]).all(axis=1)
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(y))))
    numbers = np.empty(len(y), np.int64)
    numbers[order] = np.arange(len(y)) - firsts
    return numbers
