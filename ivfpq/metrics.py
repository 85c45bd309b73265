"""How good an answer is: recall against exact search, precision against labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ivfpq.checks import positive_int


def knn_recall_at_k(found: Any, truth: Any, k: int | None = None) -> float:
    """The share of the k true nearest neighbours that are among the k found, over all queries.

    Parameters
    ----------
    found, truth : int arrays, shapes (nq, >= k)
        Ids, best first; -1 (nothing found) never counts as a hit.
    k : int, optional
        All columns of `truth` if not given.

    Returns
    -------
    float
        Hits divided by the true neighbours there are (k a query, fewer where `truth` has -1); NaN for none.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an array has fewer than k columns.
    """
    found, truth = _two(found, truth)
    k = truth.shape[1] if k is None else positive_int(k, "k")
    if min(found.shape[1], truth.shape[1]) < k:
        raise ValueError(f"recall at {k} needs {k} columns, got found {found.shape} and truth {truth.shape}")
    found, truth = found[:, :k], truth[:, :k]
    there = int(np.count_nonzero(truth >= 0))
    hits = sum(len(np.intersect1d(f[f >= 0], t)) for f, t in zip(found, truth, strict=True))
    return hits / there if there else float("nan")


def tie_recall_at_k(found: Any, distances: Any, truth: Any, k: int | None = None) -> float:
    """The recall that takes every answer as near as the k-th true neighbour for right, whichever id it has.

    Among vectors at the same distance (copies of one image, say) exact search has to choose, and an engine that chooses
    otherwise is no worse. ann-benchmarks counts in this way, with a tolerance; here there is none, because distances
    that are computed alike, by `distances.pair_distances`, are equal to the bit where vectors are.

    Parameters
    ----------
    found : int array, shape (nq, >= k)
        Ids, best first; -1 (nothing found) never counts, and an id that comes twice counts once.
    distances : array, shape of `found`
        From the query to the vector of that id: smaller is nearer. Computed from the vectors, not what the engine said.
    truth : array, shape (nq, >= k)
        Distances of the true neighbours, nearest first, computed alike; +inf where there are fewer than k.
    k : int, optional
        All columns of `truth` if not given.

    Returns
    -------
    float
        Right answers, at most as many as there are true neighbours, divided by the true neighbours; NaN for none.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an array has fewer than k columns.
    """
    found, truth = _two(found, truth)
    distances = np.asarray(distances)
    k = truth.shape[1] if k is None else positive_int(k, "k")
    if distances.shape != found.shape or min(found.shape[1], truth.shape[1]) < k:
        raise ValueError(
            f"recall at {k} needs {k} columns and a distance for each id, got found {found.shape}, distances "
            f"{distances.shape} and truth {truth.shape}"
        )
    found, distances, truth = found[:, :k], distances[:, :k], truth[:, :k]
    there = np.isfinite(truth).sum(axis=1)
    farthest = np.where(np.isfinite(truth), truth, -np.inf).max(axis=1, initial=-np.inf)
    right = (found >= 0) & (distances <= farthest[:, None])
    hits = [min(len(np.unique(f[r])), n) for f, r, n in zip(found, right, there.tolist(), strict=True)]
    return sum(hits) / int(there.sum()) if there.any() else float("nan")


def one_recall_at_k(found: Any, truth: Any, k: int | None = None) -> float:
    """The share of queries whose true nearest neighbour is among the first k found (Jégou 2011: "recall@R").

    Parameters
    ----------
    found : int array, shape (nq, >= k)
    truth : int array, shape (nq, >= 1)
        Only the first column counts.
    k : int, optional
        All columns of `found` if not given.
    """
    found, truth = _two(found, truth)
    k = found.shape[1] if k is None else positive_int(k, "k")
    if found.shape[1] < k or not truth.shape[1]:
        raise ValueError(f"1-recall at {k} needs {k} columns found, got found {found.shape} and truth {truth.shape}")
    first = truth[:, :1]
    return _mean(((found[:, :k] == first) & (first >= 0)).any(axis=1))


def precision_at_k(relevant: Any, k: int | None = None) -> float:
    """The share of relevant hits among the first k, over all queries.

    Parameters
    ----------
    relevant : bool array, shape (nq, >= k)
        Whether each hit is right (has the query's label, say), best hit first; False where there is no hit.
    """
    relevant = _hits(relevant)
    k = relevant.shape[1] if k is None else positive_int(k, "k")
    if relevant.shape[1] < k:
        raise ValueError(f"precision at {k} needs {k} columns, got {relevant.shape}")
    return _mean(relevant[:, :k])


def mean_average_precision(relevant: Any, n_relevant: Any = None) -> float:
    """The mean over queries of the average precision, which is the mean over right hits of the precision at their rank.

    Parameters
    ----------
    relevant : bool array, shape (nq, n)
        Whether each hit is right, best hit first.
    n_relevant : int array, shape (nq,), optional
        How many right hits there are for each query, found or not; what `relevant` holds if not given. Queries with
        none are left out.

    Returns
    -------
    float
        NaN if no query has a right hit.
    """
    relevant = _hits(relevant)
    there = relevant.sum(axis=1) if n_relevant is None else np.asarray(n_relevant)
    if there.shape != (len(relevant),) or (there < relevant.sum(axis=1)).any():
        raise ValueError(f"n_relevant must hold, for each of {len(relevant)} queries, no fewer than were found right")
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    asked = there > 0
    return _mean((precision * relevant).sum(axis=1)[asked] / there[asked])


def _two(found: Any, truth: Any) -> tuple[Any, Any]:
    found, truth = np.asarray(found), np.asarray(truth)
    if found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth):
        raise ValueError(f"found and truth must have one row a query, got shapes {found.shape} and {truth.shape}")
    return found, truth


def _hits(relevant: Any) -> Any:
    array = np.asarray(relevant)
    if array.ndim != 2 or array.dtype != np.bool_:
        raise ValueError(f"relevant must be bool (nq, n), got {array.dtype} {array.shape}")
    return array


def _mean(values: Any) -> float:
    return float(values.mean()) if values.size else float("nan")
