"""How vectors lie in their space: what near and far mean for their labels, and how many dimensions they really use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEASURES = ("Euclidean", "dot", "cosine")


def labelled_pairs(labels: Sequence[tuple[str, ...]], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of images that share a label, and pairs that share none.

    The first of a pair is drawn among all images that have a right answer; the second among those that share one of its
    labels, or none. So a class weighs as much as it has images, not as it has pairs.

    Parameters
    ----------
    labels : n tuples of str
    count : int
        Of each kind.

    Returns
    -------
    same, different : int64, each (count, 2)

    Raises
    ------
    ValueError
        No two images share a label, or all of them do.
    """
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for place, several in enumerate(labels):
        for label in several:
            members.setdefault(label, []).append(place)
    shared = {label: np.array(places) for label, places in members.items() if len(places) > 1}
    firsts = np.unique(np.concatenate([*shared.values(), np.empty(0, np.int64)])).astype(np.int64)
    if not len(firsts) or any(len(places) == len(labels) for places in shared.values()):
        raise ValueError(f"pairs need images that share a label and images that share none, got {len(labels)} images")
    same, different = np.empty((count, 2), np.int64), np.empty((count, 2), np.int64)
    for row, first in enumerate(rng.choice(firsts, count)):
        own = shared[rng.choice([label for label in labels[first] if label in shared])]
        same[row] = first, rng.choice(own[own != first])
        second = first
        while set(labels[first]).intersection(labels[second]):
            second = rng.integers(len(labels))
        different[row] = first, second
    return same, different


def compared(x: np.ndarray, pairs: np.ndarray, measure: str) -> np.ndarray:
    """One of `MEASURES` of each pair of rows of `x` (n, d): float32 (pairs,)."""
    a, b = (np.asarray(x[pairs[:, side]], dtype=np.float32) for side in (0, 1))
    if measure == "Euclidean":
        return np.linalg.norm(a - b, axis=1)
    dot = np.einsum("nd,nd->n", a, b)
    if measure == "dot":
        return dot
    if measure == "cosine":
        return dot / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")


def sparsity(x: np.ndarray) -> np.ndarray:
    """Hoyer's sparsity of each row of `x` (n, d): 0 where all numbers are as large, 1 where a single one is not zero.

    (sqrt(d) - |x|_1 / |x|_2) / (sqrt(d) - 1): Hoyer 2004, "Non-negative matrix factorization with sparseness
    constraints", section 3.1. A row of zeros has none: nan.
    """
    root = np.sqrt(x.shape[1])
    l1, l2 = np.abs(x).sum(axis=1), np.linalg.norm(x, axis=1)
    return (root - np.divide(l1, l2, out=np.full_like(l2, np.nan), where=l2 > 0)) / (root - 1)


def principal_variances(x: np.ndarray) -> np.ndarray:
    """Variances of `x` (n, d) along its principal axes, largest first: float64 (min(n, d),)."""
    centred = np.asarray(x, dtype=np.float64) - np.mean(x, axis=0, dtype=np.float64)
    n, d = centred.shape
    gram = centred.T @ centred if n >= d else centred @ centred.T  # they have the same eigenvalues but for zeros
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0) / max(n - 1, 1)


def effective_dimension(variances: np.ndarray) -> float:
    """The participation ratio (sum v)^2 / sum v^2: d for equal variances, 1 if all lies on a line."""
    return float(variances.sum() ** 2 / (variances**2).sum())


def axes_for(variances: np.ndarray, share: float) -> int:
    """How many principal axes hold this share of the variance."""
    held = np.cumsum(variances) / variances.sum()
    return int(np.searchsorted(held, share - 1e-12)) + 1


def intrinsic_dimension(x: np.ndarray) -> float:
    """Dimension of the surface that vectors lie on, from each one's two nearest neighbours.

    TwoNN (Facco, d'Errico, Rodriguez, Laio 2017, "Estimating the intrinsic dimension of datasets by a minimal
    neighborhood information"): the ratio of both distances follows a Pareto law whose exponent is the dimension; this
    is its maximum likelihood. A vector that is there twice counts once.

    Parameters
    ----------
    x : float array, shape (n, d)
        At least three of them different.
    """
    from sklearn.neighbors import NearestNeighbors

    x = np.unique(x, axis=0)
    distances, _ = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(x).kneighbors(x)
    return float(len(x) / np.log(distances[:, 2] / distances[:, 1]).sum())
