"""scikit-learn's exact search."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.engines.base import Engine, Subject
from ivfpq.checks import Floats


class Sklearn(Engine):
    """scikit-learn's exact search: all distances, or by a tree (the variant), which keeps the vectors in float64."""

    package = "scikit-learn"
    variants = ("kd_tree", "ball_tree")

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        from sklearn.neighbors import BallTree, KDTree, NearestNeighbors

        self.tree: Any = {"kd_tree": KDTree, "ball_tree": BallTree}.get(subject.variant)
        self.index = NearestNeighbors(algorithm="brute")

    def add(self, x: Floats) -> None:
        if self.tree is None:
            self.index.fit(x)
        else:
            self.index = self.tree(x)

    def search(self, xq: Floats, k: int) -> Any:
        if self.tree is None:
            return self.index.kneighbors(xq, k, return_distance=False)
        if self.threads == 1 or len(xq) < self.threads:
            return self.index.query(xq, k, return_distance=False)
        with ThreadPoolExecutor(self.threads) as pool:  # a tree has no threads of its own; it lets go of Python's lock
            parts = pool.map(
                lambda part: self.index.query(part, k, return_distance=False), np.array_split(xq, self.threads)
            )
            return np.concatenate(list(parts))

    def scanned(self, xq: Floats, k: int) -> float | None:
        if self.tree is None:
            return None
        self.index.reset_n_calls()
        self.index.query(xq, k, return_distance=False)
        return float(self.index.get_n_calls()) / len(xq)
