"""What engines are compared on: vectors, queries, and the truth about them."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ivfpq import IndexFlat
from ivfpq.checks import Floats, as_vectors
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.metrics import tie_recall_at_k
from ivfpq.transforms import PCA

logger = logging.getLogger("benchmarks")

MAX_TRAIN = 100_000  # training vectors: a random sample of so many where there are more, the same for all


def synthetic(n: int, d: int, seed: int) -> Floats:
    """Clustered vectors: a mixture of Gaussians in a latent space of 32 dimensions, seen in d with noise on top.

    Descriptors of real images have clusters of unequal sizes and widths, directions of unequal weight, and an intrinsic
    dimension far below d; so have these. In detail: 4 sqrt(n) clusters with log-normal weights (sigma 1); centres from
    N(0, I) in r = min(32, d) latent dimensions; points N(centre, s^2 I) with s drawn for each cluster from
    U(0.35, 1.05); x = z B + e with B (r, d) random orthogonal rows scaled by sqrt(r / i) for i = 1 ... r, and e from
    N(0, 0.01 I). The rows are independent of each other, so any of them will do as queries.

    Returns
    -------
    float32 array, shape (n, d)
        The same for the same arguments.
    """
    rng = np.random.default_rng(seed)
    r, clusters = min(32, d), max(1, round(4 * math.sqrt(n)))
    rows = np.linalg.qr(rng.standard_normal((d, r)))[0].T
    basis = (rows * np.sqrt(r / np.arange(1, r + 1))[:, None]).astype(np.float32)
    centres = rng.standard_normal((clusters, r), np.float32)
    weights = rng.lognormal(0, 1, clusters)
    widths = rng.uniform(0.35, 1.05, clusters).astype(np.float32)
    x = np.empty((n, d), np.float32)
    for start in range(0, n, 1 << 16):
        part = x[start : start + (1 << 16)]
        own = rng.choice(clusters, len(part), p=weights / weights.sum())
        latent = centres[own] + widths[own, None] * rng.standard_normal((len(part), r), np.float32)
        np.matmul(latent, basis, out=part)
        part += np.float32(0.1) * rng.standard_normal(part.shape, np.float32)
    return x


def mixture(n: int, d: int, seed: int) -> Floats:
    """Clustered vectors that fill inverted lists unevenly: a plain mixture of 3,000 equally likely Gaussians.

    Centres come from N(0, I), points from N(centre, I / 4), in all d dimensions. k-means with 1,024 centroids gives
    some of them one cluster and others several, and most queries belong to the long lists: for d = 128, the 16 lists
    that the mean query looks into hold 5.8 % of 1,000,000 vectors. Of `synthetic` ones they hold 1.8 %, hardly more
    than 16 / 1,024.

    Returns
    -------
    float32 array, shape (n, d)
        The same for the same arguments, in random order.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((3000, d), np.float32)
    x = np.empty((n, d), np.float32)
    for start in range(0, n, 1 << 16):
        part = x[start : start + (1 << 16)]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= np.float32(0.5)
        part += centres[rng.integers(len(centres), size=len(part))]
    return x


def load_features(path: Path) -> Any:
    """The vectors of a .npy file, or of a .npz file: the array named "features", or its only matrix. Shape (n, d).

    Raises
    ------
    ValueError
        If there is no such array.
    """
    file = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(file, np.ndarray):
        x: Any = file
    else:
        with file:
            matrices = {name: a for name in file.files if (a := file[name]).ndim == 2 and a.dtype.kind in "fiu"}
        x = matrices.get("features") if len(matrices) != 1 else next(iter(matrices.values()))
        if x is None:
            raise ValueError(f"{path} must hold a matrix named 'features' or one only, got {sorted(matrices)}")
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold real vectors (n, d), got {x.dtype} {x.shape}")
    return x


class Data(NamedTuple):
    """What all engines are given, as files, so that each process reads them for itself."""

    name: str
    n: int
    d: int
    k: int
    base: Path
    """float32 (n, d): the vectors to be indexed"""
    train: Path
    """float32 (at most MAX_TRAIN, d): a sample of them"""
    queries: Path
    """float32 (nq, d): vectors held out"""
    truth: Floats
    """Distances of the k true neighbours, float32 (nq, k)"""

    def distances(self, ids: Any) -> Floats:
        """How far answers (nq, any number) are from their queries; +inf where there is no such vector."""
        found = np.asarray(ids, np.int64)
        x, y = np.load(self.queries), np.load(self.base, mmap_mode="r")
        distances = np.full(found.shape, np.inf, np.float32)
        query, place = np.nonzero((found >= 0) & (found < self.n))
        distances[query, place] = pair_distances_at(x, query, y, found[query, place], "l2")
        return distances

    def recall(self, ids: Any) -> float:
        """Recall@k, ties counted, of answers (nq, k)."""
        return tie_recall_at_k(ids, self.distances(ids), self.truth, self.k)


def prepare(x: Any, name: str, folder: Path, *, queries: int, k: int, seed: int, unit: bool = False) -> Data:
    """Hold out queries, find their true neighbours, and write what the engines need into `folder`.

    Parameters
    ----------
    x : array, shape (n, d)
    queries : int
        How many vectors to hold out, at random; at most a fifth of them.
    unit : bool
        Scale the vectors to length 1, which makes the order by squared distance the order by cosine.
    """
    n, d = x.shape
    queries = min(queries, n // 5)
    if queries < 1 or n - queries < k:
        raise ValueError(f"{name} has {n} vectors: too few to hold out a fifth of them and find {k} neighbours")
    rng = np.random.default_rng(seed)
    held_out = rng.choice(n, queries, replace=False)  # in random order: each round asks the next of them
    base, asked = as_vectors(np.delete(x, held_out, axis=0), d), as_vectors(x[held_out], d)
    if unit:
        base, asked = normalised(base), normalised(asked)
    return _with_truth(base, asked, name, folder, k, rng)


def reduced(data: Data, d: int, folder: Path) -> Data:
    """The same vectors and queries in the first d principal directions of what is indexed, and their new truth."""
    base, rng = np.load(data.base), np.random.default_rng(0)
    pca = PCA(data.d, d)
    pca.train(base, rng)
    return _with_truth(pca.apply(base), pca.apply(np.load(data.queries)), f"{data.name} PCA{d}", folder, data.k, rng)


def _with_truth(base: Floats, asked: Floats, name: str, folder: Path, k: int, rng: np.random.Generator) -> Data:
    n, d = base.shape
    logger.info("%s: %d x %d; finding the %d true neighbours of %d queries", name, n, d, k, len(asked))
    flat = IndexFlat(d)
    flat.add(base)
    truth = flat.search(asked, k).distances
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: folder / f"{part}.npy" for part in ("base", "train", "queries")}
    np.save(files["base"], base)
    np.save(files["queries"], asked)
    if n > MAX_TRAIN:
        np.save(files["train"], base[np.sort(rng.choice(n, MAX_TRAIN, replace=False))])
    else:
        files["train"] = files["base"]
    return Data(name, n, d, k, files["base"], files["train"], files["queries"], truth)


def features_of(args: argparse.Namespace) -> tuple[Any, str]:
    """The vectors that --features names, and what to call them: the features.npy of a collection, by its folder."""
    if args.features == "synthetic":
        return synthetic(args.n or 100_000, args.d or 128, args.seed), "synthetic"
    path = Path(args.features)
    return load_features(path), path.parent.resolve().name if path.stem == "features" else path.stem
