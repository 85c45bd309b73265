"""k-means by scikit-learn, faiss and ours, beside each other: equal points, centroids, iterations and threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.comparison import Spread
from benchmarks.report import markdown, spread
from ivfpq import IndexFlat
from ivfpq.checks import Floats
from ivfpq.kmeans import ITERATIONS, MAX_POINTS_PER_CENTROID, kmeans

Clustering = Callable[[Floats, int, int], tuple[Floats, int]]
"""(x, k, seed) -> centroids (k, d), iterations done"""


class Clustered(NamedTuple):
    """What one of them took and reached. One entry a round, each with a seed of its own."""

    name: str
    seeding: str
    iterations: list[int]
    seconds: list[float]
    objective: list[float]
    """Mean squared distance of the points to their centroid, computed for all by exact search"""


def _ours(x: Floats, k: int, seed: int) -> tuple[Floats, int]:
    return kmeans(x, k, np.random.default_rng(seed), tolerance=None), ITERATIONS


def _faiss(x: Floats, k: int, seed: int) -> tuple[Floats, int]:
    import faiss

    model = faiss.Kmeans(x.shape[1], k, niter=ITERATIONS, seed=seed + 1, min_points_per_centroid=1)
    model.train(x)
    return np.asarray(model.centroids), ITERATIONS


def _sklearn(x: Floats, k: int, seed: int) -> tuple[Floats, int]:
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=1, max_iter=ITERATIONS, tol=0, algorithm="lloyd", random_state=seed).fit(x)
    return model.cluster_centers_, model.n_iter_


CLUSTERINGS: dict[str, tuple[str, Clustering]] = {
    "scikit-learn": ("k-means++", _sklearn),
    "faiss": ("random points", _faiss),
    "ours": ("k-means++, drawn in rounds", _ours),
}


def compare_kmeans(x: Floats, k: int, *, threads: int, repeats: int) -> list[Clustered]:
    """Cluster the same points by all, in turns, `repeats` rounds of it.

    Parameters
    ----------
    x : float32 array, shape (n, d)
        At most MAX_POINTS_PER_CENTROID points a centroid: from more than that, faiss and ours would draw a sample.
    k : int
        Centroids.

    Raises
    ------
    ValueError
        If there are more points than that.
    """
    import threadpoolctl

    if len(x) > k * MAX_POINTS_PER_CENTROID:
        raise ValueError(
            f"{len(x)} points for {k} centroids would not all be used by all: at most {MAX_POINTS_PER_CENTROID} each"
        )
    done = [Clustered(name, seeding, [], [], []) for name, (seeding, _) in CLUSTERINGS.items()]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # our compiled kernels read it
    try:
        with threadpoolctl.threadpool_limits(threads):
            for name in CLUSTERINGS:  # imports and compilation are nobody's time
                CLUSTERINGS[name][1](x[: 2 * k], k, 0)
            for seed in range(repeats):
                for row in done:
                    started = time.perf_counter()
                    centroids, iterations = CLUSTERINGS[row.name][1](x, k, seed)
                    row.seconds.append(time.perf_counter() - started)
                    row.iterations.append(iterations)
                    row.objective.append(_objective(x, centroids))
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return done


def _objective(x: Floats, centroids: Floats) -> float:
    flat = IndexFlat(x.shape[1])
    flat.add(centroids)
    return float(flat.search(x, 1).distances.mean(dtype=np.float64))


def kmeans_table(done: list[Clustered]) -> str:
    """As Markdown: medians, and the smallest and largest."""
    rows = [
        [
            row.name,
            row.seeding,
            "-".join(map(str, sorted({min(row.iterations), max(row.iterations)}))),
            spread(Spread.of(row.seconds)),
            " - ".join(f"{value:.5f}" for value in (min(row.objective), max(row.objective))),
        ]
        for row in done
    ]
    return markdown("k-means of|seeds|iterations|seconds, seeding and all|mean squared distance", rows, left=2)
