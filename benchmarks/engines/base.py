"""What an engine is to the benchmark, and what a line of a plot stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ivfpq.checks import Floats

Arguments = dict[str, Any]

K_FACTOR = 10  # a factory that refines re-ranks so many times k candidates
K_FACTORS_OF_BYTES = (2, 3, 4)  # fewer, where candidates come of a byte a component
EF_SEARCH = (16, 32, 64, 128)


class EngineError(RuntimeError):
    """An engine is not installed, cannot do what was asked, or broke down."""


class Subject(NamedTuple):
    """One line of a plot: an engine, and what it is told to build."""

    engine: str
    """A key of ENGINES"""
    factory: str = ""
    variant: str = ""
    """What stands behind the colon in "ivfpq:portable" """

    @property
    def label(self) -> str:
        """As people write it: "ivfpq:portable IVF100,PQ8"."""
        name = f"{self.engine}:{self.variant}" if self.variant else self.engine
        return f"{name} {self.factory}".strip()


class Engine:
    """A library under test, comparing by Euclidean distance: what is its own about building and querying.

    The constructor imports the library, so that one which is not installed is said to be missing where it is used.
    Only `train`, `add`, `search` and `search_one` are timed.

    Attributes
    ----------
    threads : int
        How many to use. (Those of BLAS, OpenMP and numba are set already.)
    query : dict
        Query arguments, one of `query_arguments`. Build arguments never change.
    """

    package: ClassVar[str] = ""
    """The distribution to install."""
    takes_factory: ClassVar[bool] = False
    variants: ClassVar[tuple[str, ...]] = ()
    build_arguments: ClassVar[Arguments] = {}

    threads: int = 1
    query: Arguments
    index: Any

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        raise NotImplementedError

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        """The settings of a query to measure, cheapest first."""
        return [{}]

    def warm_up(self) -> None:
        """Compile what the engine compiles, on an index that does not matter."""

    def train(self, x: Floats) -> None:
        """Learn what has to be learnt before adding, from vectors (n, d)."""

    def add(self, x: Floats) -> None:
        """Store vectors (n, d) under the next ids, from 0 up."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Hand `threads` and `query`, which are new, to a library that keeps them."""

    def search(self, xq: Floats, k: int) -> Any:
        """Ids of the k nearest of each query: (nq, d) -> (nq, k), missing ones -1."""
        raise NotImplementedError

    def search_one(self, xq: Floats, k: int) -> Any:
        """The same for one query, (1, d), in the way the library does that best."""
        return self.search(xq, k)

    def scanned(self, xq: Floats, k: int) -> float | None:
        """How many vectors (codes) a query is compared with, in the mean: what the lists hold that it looks into, or
        what a tree does not leave out (its centres, if it has some, count too). None if that is not known.
        """
        return None

    def save(self, path: Path) -> None:
        """Write the index to a file or folder."""
        raise NotImplementedError

    def load(self, path: Path, mmap: bool) -> None:
        """Read back what `save` wrote."""
        raise NotImplementedError


class FactoryEngine(Engine):
    """A library that builds what a factory string says."""

    takes_factory = True

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        widths: list[Arguments] = [{}]
        factors = K_FACTORS_OF_BYTES if "SQ8" in factory else (K_FACTOR,)
        if "IVF" in factory:
            widths = [{"nprobe": nprobe} for nprobe in nprobes]
        elif "HNSW" in factory:
            widths = [{"efSearch": max(ef, k)} for ef in EF_SEARCH]
        if not re.search("Refine|RFlat", factory):
            return widths
        return [{**width, "k_factor": factor} for width in widths for factor in factors]


def mean_codes(sizes: Any, probes: Any) -> float:
    """Of lists of these sizes, what those probed hold: probes (nq, nprobe), -1 for none."""
    return float((sizes[probes] * (probes >= 0)).sum(axis=1).mean())
