"""Our own index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.base import FactoryEngine, Subject, mean_codes
from ivfpq import IndexFlat, IndexIVFPQ, index_factory, io
from ivfpq.checks import Floats


class Ivfpq(FactoryEngine):
    """Ours. The variant names a kernel."""

    package = "ivfpq"
    variants = ("reference", "portable", "avx2", "avx512")

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        self.d, self.factory, self.seed = d, subject.factory, seed
        self.index = index_factory(d, subject.factory, seed=seed)

    def warm_up(self) -> None:
        """Build and search a small index of the same kind, so of the same code."""
        index: Any = index_factory(self.d, re.sub(r"IVF\d+", "IVF8", self.factory), seed=self.seed)
        n = max(1024, getattr(index, "train_size_min", 0))
        x = np.random.default_rng(self.seed).standard_normal((n, self.d), np.float32)
        index.train(x)
        index.add(x)
        for nq in (1, 64):
            index.search(x[:nq], 10, nprobe=1)

    def train(self, x: Floats) -> None:
        self.index.train(x)

    def add(self, x: Floats) -> None:
        self.index.add(x)

    def prepare(self) -> None:
        if "k_factor" in self.query:
            self.index.k_factor = self.query["k_factor"]

    def search(self, xq: Floats, k: int) -> Any:
        return self.index.search(xq, k, nprobe=self.query.get("nprobe")).ids

    def scanned(self, xq: Floats, k: int) -> float | None:
        if not isinstance(self.index, IndexIVFPQ):
            return None
        coarse = IndexFlat(self.d)
        coarse.add(self.index.centroids)
        return mean_codes(self.index.lists.view.sizes, coarse.search(xq, self.query.get("nprobe", 1)).ids)

    def save(self, path: Path) -> None:
        io.save(self.index, path)

    def load(self, path: Path, mmap: bool) -> None:
        self.index = io.load(path, mmap=mmap)
