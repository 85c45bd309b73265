"""ScaNN: a tree and 4-bit codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.data import MAX_TRAIN
from benchmarks.engines.base import Arguments, Engine, Subject
from ivfpq.checks import Floats


class Scann(Engine):
    """A tree of sqrt(n) leaves, 4-bit anisotropic codes, and re-ranking of the best 100 (Guo et al. 2020)."""

    package = "scann"
    build_arguments: ClassVar[Arguments] = {"dimensions_per_block": 2, "threshold": 0.2, "reorder": 100}

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        from scann import scann_ops_pybind

        self.scann, self.index = scann_ops_pybind, None

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        return [{"leaves": nprobe} for nprobe in nprobes]

    def add(self, x: Floats) -> None:
        own, leaves = self.build_arguments, max(1, round(math.sqrt(len(x))))
        builder = self.scann.builder(x, 10, "squared_l2").set_n_training_threads(self.threads)
        builder = builder.tree(leaves, min(leaves, 8), training_sample_size=min(len(x), MAX_TRAIN))
        builder = builder.score_ah(own["dimensions_per_block"], anisotropic_quantization_threshold=own["threshold"])
        self.index = builder.reorder(own["reorder"]).build()

    def prepare(self) -> None:
        if self.index is not None:
            self.index.set_num_threads(self.threads)

    def search(self, xq: Floats, k: int) -> Any:
        ask = self.index.search_batched if self.threads == 1 else self.index.search_batched_parallel
        return ask(xq, final_num_neighbors=k, leaves_to_search=self.query["leaves"])[0].astype(np.int64)

    def search_one(self, xq: Floats, k: int) -> Any:
        ids = self.index.search(xq[0], final_num_neighbors=k, leaves_to_search=self.query["leaves"])[0]
        return ids.astype(np.int64)[None]

    def save(self, path: Path) -> None:
        path.mkdir()
        self.index.serialize(str(path))
