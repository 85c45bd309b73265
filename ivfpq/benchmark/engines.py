"""The index and its peers behind one interface."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ivfpq import IndexFlat, IndexIVFPQ, index_factory, io
from ivfpq.benchmark.data import MAX_TRAIN
from ivfpq.checks import Floats

Arguments = dict[str, Any]

K_FACTOR = 10  # a factory that refines re-ranks so many times k candidates


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

    @classmethod
    def parse(cls, text: str, factories: Sequence[str]) -> list[Subject]:
        """The subjects that an entry of --engines stands for: one for each factory, if the engine takes any.

        Raises
        ------
        ValueError
            If there is no such engine or variant.
        """
        name, _, variant = text.strip().partition(":")
        engine = ENGINES.get(name)
        if engine is None or (variant and variant not in engine.variants):
            known = [*ENGINES, *(f"{name}:{variant}" for name in ENGINES for variant in ENGINES[name].variants)]
            raise ValueError(f"--engines knows {', '.join(known)}, got {text!r}")
        return [cls(name, factory, variant) for factory in (factories if engine.takes_factory else [""])]


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


class _Factory(Engine):
    takes_factory = True

    @classmethod
    def query_arguments(cls, factory: str, k: int, nprobes: Sequence[int]) -> list[Arguments]:
        refine = {"k_factor": K_FACTOR} if re.search("Refine|RFlat", factory) else {}
        return [{"nprobe": nprobe, **refine} for nprobe in nprobes] if "IVF" in factory else [refine]


class Ivfpq(_Factory):
    """Ours. The variant names a kernel."""

    package = "ivfpq"
    variants = ("reference", "portable", "avx512")

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
        return _mean_codes(self.index.lists.view.sizes, coarse.search(xq, self.query.get("nprobe", 1)).ids)

    def save(self, path: Path) -> None:
        io.save(self.index, path)

    def load(self, path: Path, mmap: bool) -> None:
        self.index = io.load(path, mmap=mmap)


class Faiss(_Factory):
    """faiss through its own Python calls.

    Its factory trains PQ for polysemous codes unless told otherwise, which takes longer than the rest of the training
    and changes no plain search. "faiss" leaves that out, as "PQ8np" in its factory string would; "faiss:polysemous" is
    what the string says by itself.
    """

    package = "faiss-cpu"
    variants = ("polysemous",)

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        import faiss

        self.faiss: Any = faiss
        self.index = faiss.index_factory(d, re.sub(r"\bRefine\b(?!\()", "RFlat", subject.factory))
        quantized: Any = self.index
        while isinstance(quantized, faiss.IndexPreTransform | faiss.IndexRefine):
            quantized = quantized.index if isinstance(quantized, faiss.IndexPreTransform) else quantized.base_index
            quantized = faiss.downcast_index(quantized)
        if subject.variant != "polysemous" and hasattr(quantized, "do_polysemous_training"):
            quantized.do_polysemous_training = False
        parts = [quantized, *(getattr(quantized, codec) for codec in ("pq", "rq") if hasattr(quantized, codec))]
        if isinstance(self.index, faiss.IndexPreTransform):
            chain: Any = self.index.chain
            for opq in map(faiss.downcast_VectorTransform, map(chain.at, range(chain.size()))):
                if isinstance(opq, faiss.OPQMatrix):  # it would train with a quantizer made like this one
                    self.opq = faiss.ProductQuantizer(opq.d_out, opq.M, 8)
                    opq.pq = self.opq
                    parts.append(self.opq)
        for part in parts:
            if hasattr(part, "cp"):
                part.cp.min_points_per_centroid = 1  # no warnings: how many points there are is in the report

    def train(self, x: Floats) -> None:
        self.index.train(x)

    def add(self, x: Floats) -> None:
        self.index.add(x)

    def prepare(self) -> None:
        self.faiss.omp_set_num_threads(self.threads)
        for name, value in self.query.items():
            own_name = {"k_factor": "k_factor_rf"}.get(name, name)
            self.faiss.ParameterSpace().set_index_parameter(self.index, own_name, value)

    def search(self, xq: Floats, k: int) -> Any:
        return self.index.search(xq, k)[1]

    def scanned(self, xq: Floats, k: int) -> float | None:
        if not isinstance(self.index, self.faiss.IndexIVF):
            return None
        lists: Any = self.index.invlists
        sizes = np.array([lists.list_size(number) for number in range(self.index.nlist)])
        return _mean_codes(sizes, self.index.quantizer.search(xq, self.index.nprobe)[1])

    def save(self, path: Path) -> None:
        self.faiss.write_index(self.index, str(path))

    def load(self, path: Path, mmap: bool) -> None:
        self.index = self.faiss.read_index(str(path), self.faiss.IO_FLAG_MMAP if mmap else 0)


def _mean_codes(sizes: Any, probes: Any) -> float:
    """Of lists of these sizes, what those probed hold: probes (nq, nprobe), -1 for none."""
    return float((sizes[probes] * (probes >= 0)).sum(axis=1).mean())


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


class Numpy(Engine):
    """Exact search as one writes it in three lines: a matrix product, and a partial sort of each row."""

    package = "numpy"

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        pass

    def add(self, x: Floats) -> None:
        self.index = x
        self.lengths = np.einsum("ij,ij->i", x, x)

    def search(self, xq: Floats, k: int) -> Any:
        answers = []
        for start in range(0, len(xq), 64):  # 64 x n distances at a time: 256 MB for a million vectors
            distances = self.lengths - 2 * (
                xq[start : start + 64] @ self.index.T
            )  # but for |q|^2, which orders nothing
            best = np.argpartition(distances, k - 1, axis=1)[:, :k]
            order = np.take_along_axis(distances, best, axis=1).argsort(axis=1)
            answers.append(np.take_along_axis(best, order, axis=1))
        return np.concatenate(answers)


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


ENGINES: dict[str, type[Engine]] = {
    "ivfpq": Ivfpq,
    "faiss": Faiss,
    "hnswlib": Hnswlib,
    "annoy": Annoy,
    "sklearn": Sklearn,
    "usearch": Usearch,
    "scann": Scann,
    "numpy": Numpy,
}
