"""What cosine similarity is where a vector has no direction, and where it comes of a distance.

**The rule.** The similarity of a zero vector, stored or asked with, to any vector is 0, whatever the kind of the index.

`IndexFlat` and `IndexRefine` give that by their formula. A code does not show that it stands for a zero vector, and a
distance to a zero vector does not say 0. So an index of codes, or of transformed vectors, keeps zero vectors apart: in
the list behind the last one that a search looks into. Every search counts them in, whatever lists it looks into. To a
zero query all stored vectors are equally near: the smallest ids are its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ivfpq.checks import Floats, Ids
from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import Lists
from ivfpq.results import RangeResult, SearchResult, best_k, within


def similarity(distances: Floats) -> Floats:
    """Cosines, of squared distances between vectors of length 1."""
    return np.float32(1) - distances / np.float32(2)


def zero_rows(x: Floats) -> Ids:
    """The numbers of the rows of x (n, d) that are zero: int64."""
    if x[:, 0].all():  # as good as always, and quickly seen
        return np.empty(0, np.int64)
    return np.flatnonzero(~x.any(axis=1))


def apart(list_numbers: Ids, x: Floats, nlist: int) -> Ids:
    """The lists (n,) of vectors (n, d), zero vectors going into list number nlist."""
    zeros = zero_rows(x)
    if len(zeros):
        list_numbers[zeros] = nlist
    return list_numbers


def matters(x: Floats, stored: InvertedLists, lists: Lists) -> bool:
    """Whether there are zero vectors among the queries (nq, d) or the stored ones."""
    return len(lists.sizes) > stored.nlist or len(zero_rows(x)) > 0


def zero_vectors(stored: InvertedLists, lists: Lists, ids: Any) -> Ids:
    """The ids of the zero vectors that are kept apart in `lists`; of those among `ids`, if given. int64 (z,)."""
    if len(lists.sizes) == stored.nlist:
        return np.empty(0, np.int64)
    found = lists.list_ids(stored.nlist)
    return found if ids is None else found[np.isin(found, ids)]


def everything(stored: InvertedLists, lists: Lists, ids: Any) -> Ids:
    """All ids in `lists`, or those of `ids` that are there: in order, int64 (n,)."""
    if ids is None:
        return np.sort(lists.ids(lists.rows()))
    ids = np.unique(ids)
    return ids[stored.find(lists, ids) >= 0]


def with_zero_vectors(found: SearchResult, x: Floats, stored: InvertedLists, lists: Lists, ids: Any) -> SearchResult:
    """What a search of (nq, d) vectors of length 1, or 0, found among the others, made right by the rule."""
    k = found.ids.shape[1]
    asked, zeros = zero_rows(x), zero_vectors(stored, lists, ids)
    if len(zeros):
        query, place = np.nonzero(found.ids >= 0)
        all_queries = np.repeat(np.arange(len(x)), len(zeros))
        found = best_k(
            np.concatenate([query, all_queries]),
            np.concatenate([found.distances[query, place], np.zeros(len(all_queries), np.float32)]),
            np.concatenate([found.ids[query, place], np.tile(zeros, len(x))]),
            len(x),
            k,
            "cosine",
        )
    if len(asked):
        smallest = everything(stored, lists, ids)[:k]
        found.ids[asked], found.distances[asked] = -1, -np.inf
        found.ids[asked, : len(smallest)], found.distances[asked, : len(smallest)] = smallest, 0
    return found


def reachable(found: Iterable[Ids], x: Floats, stored: InvertedLists, lists: Lists, ids: Any) -> Iterator[Ids]:
    """The ids that each query (nq, d) is compared with, of which `found` are those in its lists."""
    asked, zeros = set(zero_rows(x).tolist()), zero_vectors(stored, lists, ids)
    for i, others in enumerate(found):
        yield everything(stored, lists, ids) if i in asked else np.concatenate([zeros, others])


def within_zero_vectors(
    found: RangeResult, x: Floats, stored: InvertedLists, lists: Lists, radius: float, ids: Any
) -> RangeResult:
    """As `with_zero_vectors`, for all whose similarity is above the radius."""
    asked, zeros = zero_rows(x), zero_vectors(stored, lists, ids)
    if not len(asked) and not len(zeros):
        return found
    query = np.repeat(np.arange(len(x)), np.diff(found.lims))
    kept = ~np.isin(query, asked)
    others = np.setdiff1d(np.arange(len(x)), asked)
    known = everything(stored, lists, ids) if len(asked) else zeros[:0]
    more_queries = np.concatenate([np.repeat(others, len(zeros)), np.repeat(asked, len(known))])
    more_ids = np.concatenate([np.tile(zeros, len(others)), np.tile(known, len(asked))])
    return within(
        np.concatenate([query[kept], more_queries]),
        np.concatenate([found.distances[kept], np.zeros(len(more_ids), np.float32)]),
        np.concatenate([found.ids[kept], more_ids]),
        len(x),
        radius,
        "cosine",
    )
