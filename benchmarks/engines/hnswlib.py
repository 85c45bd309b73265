"""hnswlib: a graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.engines.base import Arguments, Engine, Subject
from ivfpq.checks import Floats


class Hnswlib(Engine):
    """A graph over the vectors (Malkov and Yashunin 2016)."""

    package = "hnswlib"
    build_arguments: ClassVar[Arguments] = {"M": 16, "ef_construction": 200}

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        import hnswlib

        self.index, self.seed = hnswlib.Index("l2", d), seed

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        return [{"ef": max(ef, k)} for ef in (16, 64, 256)]

    def add(self, x: Floats) -> None:
        self.index.init_index(max_elements=len(x), random_seed=self.seed, **self.build_arguments)
        self.index.add_items(x, num_threads=self.threads)

    def prepare(self) -> None:
        if self.query:
            self.index.set_ef(self.query["ef"])

    def search(self, xq: Floats, k: int) -> Any:
        return self.index.knn_query(xq, k, num_threads=self.threads)[0]

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))
