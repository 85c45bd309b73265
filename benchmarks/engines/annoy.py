"""Annoy: trees of random splits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.engines.base import Arguments, Engine, Subject
from ivfpq.checks import Floats


class Annoy(Engine):
    """Trees of random splits. It has no call for a batch: threads share the queries (it lets go of Python's lock)."""

    package = "annoy"
    build_arguments: ClassVar[Arguments] = {"n_trees": 50}

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        import annoy

        self.index = annoy.AnnoyIndex(d, "euclidean")
        self.index.set_seed(seed)

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        return [{"search_k": times * k * cls.build_arguments["n_trees"]} for times in (1, 4, 16)]

    def add(self, x: Floats) -> None:
        for i, row in enumerate(x):
            self.index.add_item(i, row)
        self.index.build(self.build_arguments["n_trees"], self.threads)

    def search(self, xq: Floats, k: int) -> Any:
        if self.threads == 1:
            return [self._ask(q, k) for q in xq]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda q: self._ask(q, k), xq))

    def search_one(self, xq: Floats, k: int) -> Any:
        return [self._ask(xq[0], k)]

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def _ask(self, q: Floats, k: int) -> list[int]:
        answer: list[int] = self.index.get_nns_by_vector(q, k, self.query["search_k"])
        return answer + [-1] * (k - len(answer))
