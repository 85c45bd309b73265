"""USearch: a graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.engines.base import Arguments, Engine, Subject
from ivfpq.checks import Floats


class Usearch(Engine):
    """Another graph over the vectors."""

    package = "usearch"
    build_arguments: ClassVar[Arguments] = {"connectivity": 16, "expansion_add": 128}

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        from usearch.index import Index

        self.index = Index(ndim=d, metric="l2sq", dtype="f32", **self.build_arguments)

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        return [{"expansion": max(expansion, k)} for expansion in (16, 64, 256)]

    def add(self, x: Floats) -> None:
        self.index.add(np.arange(len(x), dtype=np.uint64), x, threads=self.threads)

    def prepare(self) -> None:
        if self.query:
            self.index.expansion_search = self.query["expansion"]

    def search(self, xq: Floats, k: int) -> Any:
        return self.index.search(xq, k, threads=self.threads).keys.astype(np.int64)

    def search_one(self, xq: Floats, k: int) -> Any:
        return self.index.search(xq[0], k, threads=1).keys.astype(np.int64)[None]

    def save(self, path: Path) -> None:
        self.index.save(str(path))
