"""The index beside its peers, measured in one run: ``python -m ivfpq.benchmark --help``.

How it is measured:

* Some vectors are held out as queries; `IndexFlat` finds their true neighbours among the rest. An engine is asked for
  ids alone. How far those are is computed here from the vectors, and recall counts ties (`metrics.tie_recall_at_k`).
* Every engine lives in a process of its own (`Worker`), so its memory is its own and a crash costs nobody else. Queries
  are timed inside that process, around the library's call and nothing else.
* Engines take turns, A, B, C, A, B, C, ..., `repeats` rounds of it, so that a machine that drifts drifts for all. What
  is reported is the median of the rounds with the smallest and the largest; a ratio is taken within each round first.
* Before its first timed turn an engine answers every query once. What it compiles, it compiles then or in a small index
  built before (`Engine.warm_up`); both times are reported.
* All get the same number of threads (BLAS, OpenMP, and the engine's own setting). The column `cores` is CPU time
  divided by wall time: it shows who took more, or less.
* What is not installed, does not know a factory string or fails is named with the reason, and the others go on.

To add an engine, derive a class from `Engine` and put it into `ENGINES`. `benchmark_studies` holds measurements that
are more than one comparison.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ivfpq import IndexFlat, IndexIVFPQ, index_factory, io, kernels
from ivfpq.checks import Floats, as_vectors
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.metrics import tie_recall_at_k
from ivfpq.transforms import PCA

logger = logging.getLogger("ivfpq.benchmark")

Arguments = dict[str, Any]

MAX_TRAIN = 100_000  # training vectors: a random sample of so many where there are more, the same for all
K_FACTOR = 10  # a factory that refines re-ranks so many times k candidates
BATCH_SECONDS = 0.2  # a batch is repeated within its turn until it took so long
SINGLES = 200  # queries asked one at a time in a turn ...
SINGLE_SECONDS = 1.0  # ... fewer where those take longer
WARM = 3  # queries before them fetch into the caches what the engine before had put out
SETTLE_SECONDS = 0.03  # before a turn: idle threads of the one before (OpenMP's, BLAS's) spin a while before they sleep
RECALL_MARGIN = 0.005  # ratios between recalls further apart are marked


class EngineError(RuntimeError):
    """An engine is not installed, cannot do what was asked, or broke down."""


# --- data -----------------------------------------------------------------------------------------------------------


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

    def recall(self, ids: Any) -> float:
        """Recall@k, ties counted, of answers (nq, k)."""
        found = np.asarray(ids, np.int64)
        x, y = np.load(self.queries), np.load(self.base, mmap_mode="r")
        distances = np.full(found.shape, np.inf, np.float32)
        query, place = np.nonzero((found >= 0) & (found < self.n))
        distances[query, place] = pair_distances_at(x, query, y, found[query, place], "l2")
        return tie_recall_at_k(found, distances, self.truth, self.k)


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


# --- engines --------------------------------------------------------------------------------------------------------


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
        lists = faiss.try_extract_index_ivf(self.index)
        quantized: Any = faiss.downcast_index(self.index if lists is None else lists)
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


# --- one process an engine ------------------------------------------------------------------------------------------


class Worker:
    """What runs in an engine's own process: each public method is a request, answered in JSON."""

    def start(self, subject: list[str], d: int, seed: int, queries: str, warm_up: bool) -> Arguments:
        """Import the library and warm it up. Memory is counted from here."""
        self.subject, self.d, self.seed = Subject(*subject), d, seed
        self.queries: Floats = np.load(queries)
        self.engine: Any = ENGINES[self.subject.engine](d, self.subject, seed)
        kernel = kernels.active() if self.subject.engine == "ivfpq" else ""
        seconds = _seconds(self.engine.warm_up) if warm_up else 0.0
        self.before = resident_bytes()
        return {"warm_up_s": seconds, "kernel": kernel}

    def train(self, path: str, threads: int) -> float:
        """Begin anew with an untrained index and train it on the vectors of the file; seconds."""
        self.engine = None  # let go of the old one first
        self.engine = ENGINES[self.subject.engine](self.d, self.subject, self.seed)
        self._use(threads, {})
        x = np.load(path)
        return _seconds(lambda: self.engine.train(x))

    def add(self, path: str, threads: int, first: int = 0, last: int | None = None) -> float:
        """Add rows first ... last - 1 of the file; seconds."""
        self._use(threads, {})
        x = np.array(np.load(path, mmap_mode="r")[first:last])
        return _seconds(lambda: self.engine.add(x))

    def first_search(self, k: int, arguments: Arguments, threads: int) -> float:
        """Seconds of one query, if it is the first after building."""
        self._use(threads, arguments)
        return _seconds(lambda: self.engine.search_one(self.queries[:1], k))

    def memory(self) -> int | None:
        """Bytes resident now that were not before anything was built; what was indexed is not among them."""
        now = resident_bytes()
        return None if now is None or self.before is None else now - self.before

    def save(self, path: str) -> int | None:
        """Write the index; the size of the file or folder, None if the engine does not write any."""
        try:
            self.engine.save(Path(path))
        except NotImplementedError:
            return None
        return sum(file.stat().st_size for file in [Path(path), *Path(path).rglob("*")] if file.is_file())

    def load(self, path: str, mmap: bool) -> float:
        """Read an index instead of building one; seconds."""
        return _seconds(lambda: self.engine.load(Path(path), mmap))

    def answers(self, k: int, arguments: Arguments, threads: int) -> Any:
        """Ids for all queries. Untimed: this is the warm-up of these arguments, single queries included."""
        self._use(threads, arguments)
        self.engine.search_one(self.queries[:1], k)
        return np.asarray(self.engine.search(self.queries, k)).tolist()

    def scanned(self, k: int, arguments: Arguments, threads: int) -> float | None:
        """How many vectors a query is compared with, in the mean."""
        self._use(threads, arguments)
        answer: float | None = self.engine.scanned(self.queries, k)
        return answer

    def batch(self, k: int, arguments: Arguments, threads: int) -> tuple[float, float]:
        """All queries in one call, repeated for BATCH_SECONDS: microseconds a query, and the cores busy meanwhile."""
        self._use(threads, arguments)
        time.sleep(SETTLE_SECONDS)
        cpu = time.process_time()
        seconds, calls = _seconds(lambda: self.engine.search(self.queries, k)), 1
        if seconds < BATCH_SECONDS:  # short enough for cold caches to show in it: that was the warm-up
            calls = math.ceil(BATCH_SECONDS / seconds)
            cpu = time.process_time()
            seconds = _seconds(lambda: [self.engine.search(self.queries, k) for _ in range(calls)])
        return seconds / calls / len(self.queries) * 1e6, (time.process_time() - cpu) / seconds

    def single(self, k: int, arguments: Arguments, threads: int, first: int) -> list[float]:
        """Queries one at a time, the `first` and those after it: microseconds of each."""
        self._use(threads, arguments)
        time.sleep(SETTLE_SECONDS)
        times: list[float] = []
        for i in (np.arange(first - WARM, first + SINGLES) % len(self.queries)).tolist():
            query = self.queries[i : i + 1]
            times.append(_seconds(partial(self.engine.search_one, query, k)) * 1e6)
            if len(times) > 2 * WARM and sum(times) > SINGLE_SECONDS * 1e6:
                break
        return times[WARM:]

    def errors(self, path: str) -> tuple[float, float]:
        """What training made small: the mean squared distance of the file's vectors to their coarse centroid, and to
        what their code stands for. One evaluator for both sides: faiss's.
        """
        import faiss

        from ivfpq.faiss_compat import to_faiss

        x: Floats = np.load(path)
        index: Any = to_faiss(self.engine.index) if self.subject.engine == "ivfpq" else self.engine.index
        lists: Any = faiss.downcast_index(index)
        coarse = lists.quantizer.search(x, 1)[0]
        return float(coarse.mean()), float(np.square(x - lists.sa_decode(lists.sa_encode(x))).sum(axis=1).mean())

    def _use(self, threads: int, arguments: Arguments) -> None:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # our compiled kernels read it at every search
        self.engine.threads, self.engine.query = threads, arguments
        self.engine.prepare()


def _seconds(call: Callable[[], object]) -> float:
    """How long it takes; Python's garbage is collected another time."""
    gc.disable()
    try:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    finally:
        gc.enable()


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM, after giving back what is free; None where Linux does not tell."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        text = Path("/proc/self/smaps_rollup").read_text()
    except (OSError, AttributeError):  # not glibc, not Linux
        return None
    match = re.search(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def serve() -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library writes to standard output must not come between the replies
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": getattr(worker, request.pop("do"))(**request)}
        except ImportError as error:
            package = ENGINES[worker.subject.engine].package
            reply = {"error": f"not installed: {error} (the package is {package})"}
        except Exception as error:  # whatever a library raises: the benchmark names it and goes on without this engine
            logger.debug("request failed", exc_info=True)
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Process:
    """The other side of a `Worker`.

    Parameters
    ----------
    cold : bool
        Compile anew instead of reading what was compiled before, and leave out the warm-up.

    Raises
    ------
    EngineError
        From `ask`, if the engine cannot do it or the process is gone; and from the start.
    """

    def __init__(self, subject: Subject, data: Data, seed: int, *, cold: bool = False) -> None:
        self.subject = subject
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        if cold:
            environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=data.base.parent)
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        if subject.engine == "ivfpq" and subject.variant:
            environment["IVFPQ_KERNEL"] = subject.variant
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from ivfpq.benchmark import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self.started: Arguments = self.ask(
                "start", subject=list(subject), d=data.d, seed=seed, queries=str(data.queries), warm_up=not cold
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to one request."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise EngineError("the process has no pipes")
        try:
            pipe_in.write(json.dumps({"do": do, **arguments}) + "\n")
            pipe_in.flush()
            line = pipe_out.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"the process ended with exit status {self._process.wait()} while asked to {do}")
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


# --- measuring ------------------------------------------------------------------------------------------------------


def as_text(arguments: Arguments) -> str:
    """ "nprobe=8 k_factor=10" """
    return " ".join(f"{name}={value}" for name, value in arguments.items())


@dataclass
class Built:
    """What building an engine took. Seconds and bytes; None where the engine or the system does not tell."""

    subject: Subject
    kernel: str
    warm_up_s: float
    train_s: float
    add_s: float
    first_search_s: float
    memory_bytes: int | None
    file_bytes: int | None


@dataclass
class Case:
    """Queries of one engine with one setting. Each list has one entry a round, in microseconds a query."""

    subject: Subject
    arguments: Arguments
    threads: int
    recall: float = math.nan
    batch_us: list[float] = field(default_factory=list)
    single_us: list[float] = field(default_factory=list)
    """Medians; all of them are in `latencies_us`"""
    latencies_us: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    """Busy in a batch"""
    scanned: float | None = None
    """Vectors (codes) a query is compared with, in the mean; None where the engine does not tell"""

    @property
    def setting(self) -> str:
        """ "nprobe=8 k_factor=10"."""
        return as_text(self.arguments)


@dataclass
class Comparison:
    """One run over one data set."""

    data: Data
    built: list[Built]
    cases: list[Case]
    unavailable: dict[str, str]
    """Why, by label"""


class Spread(NamedTuple):
    """The median of the rounds, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """NaN for no values."""
        values = list(values) or [math.nan]
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, theirs: Sequence[float], ours: Sequence[float]) -> Spread:
        """How many times longer theirs took, round by round."""
        return cls.of(a / b for a, b in zip(theirs, ours, strict=True))


def build(process: Process, data: Data, arguments: Arguments, threads: int) -> Built:
    """Train, add, and look at what came out."""
    train_s = process.ask("train", path=str(data.train), threads=threads)
    add_s = process.ask("add", path=str(data.base), threads=threads)
    first_search_s = process.ask("first_search", k=data.k, arguments=arguments, threads=threads)
    memory = process.ask("memory")
    with tempfile.TemporaryDirectory(dir=data.base.parent) as saved:
        size = process.ask("save", path=str(Path(saved) / "index"))
    started = process.started
    return Built(process.subject, started["kernel"], started["warm_up_s"], train_s, add_s, first_search_s, memory, size)


def turns(settings: Sequence[Sequence[Arguments]], threads: Sequence[int]) -> list[tuple[int, Arguments, int]]:
    """One round: setting by setting and thread count by thread count, the engines that have the setting in turn.

    Parameters
    ----------
    settings : for each engine, its query arguments
    threads : thread counts

    Returns
    -------
    list of (engine number, query arguments, threads)
    """
    distinct: list[Arguments] = []
    for own in settings:
        distinct.extend(arguments for arguments in own if arguments not in distinct)
    return [
        (engine, arguments, count)
        for arguments in distinct
        for count in threads
        for engine, own in enumerate(settings)
        if arguments in own
    ]


def measure(
    processes: Sequence[Process],
    settings: Sequence[Sequence[Arguments]],
    data: Data,
    *,
    threads: Sequence[int],
    repeats: int,
    unavailable: dict[str, str],
) -> list[Case]:
    """Time the queries of built engines, in turns. One that fails is entered in `unavailable` and has no cases."""
    plan = turns(settings, threads)
    cases = [Case(processes[engine].subject, arguments, count) for engine, arguments, count in plan]
    failed: set[int] = set()

    def take_turns(what: Callable[[Process, Case], None]) -> None:
        for (engine, _, _), case in zip(plan, cases, strict=True):
            if engine not in failed:
                try:
                    what(processes[engine], case)
                except EngineError as error:
                    failed.add(engine)
                    not_available(unavailable, case.subject, error)

    def warm_up(process: Process, case: Case) -> None:
        same = {"k": data.k, "arguments": case.arguments, "threads": case.threads}
        case.recall = data.recall(process.ask("answers", **same))
        case.scanned = process.ask("scanned", **same)

    def timed(process: Process, case: Case) -> None:
        same = {"k": data.k, "arguments": case.arguments, "threads": case.threads}
        us, cores = process.ask("batch", **same)
        times = process.ask("single", **same, first=len(case.batch_us) * SINGLES)
        case.batch_us.append(us)
        case.cores.append(cores)
        case.single_us.append(statistics.median(times))
        case.latencies_us.extend(times)

    take_turns(warm_up)
    for number in range(repeats):
        logger.info("round %d of %d", number + 1, repeats)
        take_turns(timed)
    done = [(engine, case) for (engine, _, _), case in zip(plan, cases, strict=True) if engine not in failed]
    return [case for _, case in sorted(done, key=lambda pair: pair[0])]


def compare(
    data: Data, plan: Sequence[tuple[Subject, list[Arguments]]], *, threads: Sequence[int], repeats: int, seed: int
) -> Comparison:
    """Build all subjects, one after the other and with the most threads; then measure their queries in turns."""
    comparison = Comparison(data, [], [], {})
    processes: list[Process] = []
    settings: list[list[Arguments]] = []
    with ExitStack() as stack:
        for subject, arguments in plan:
            try:
                process = stack.enter_context(Process(subject, data, seed))
                logger.info("building %s", subject.label)
                comparison.built.append(build(process, data, arguments[0], max(threads)))
            except EngineError as error:
                not_available(comparison.unavailable, subject, error)
                continue
            processes.append(process)
            settings.append(arguments)
        comparison.cases = measure(
            processes, settings, data, threads=threads, repeats=repeats, unavailable=comparison.unavailable
        )
    return comparison


def not_available(unavailable: dict[str, str], subject: Subject, error: EngineError) -> None:
    unavailable[subject.label] = str(error)
    logger.warning("%s: %s", subject.label, error)


# --- command line ---------------------------------------------------------------------------------------------------


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numbers(text: str) -> list[int]:
    values = sorted({int(part) for part in text.split(",")})
    if values[0] < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers from 1 up with commas between them, got {text!r}")
    return values


def _positive(text: str) -> int:
    (value,) = _numbers(text)
    return value


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m ivfpq.benchmark", description="Measure the index and its peers.")
    parser.add_argument(
        "--features", default="synthetic", metavar="FILE.npy|FILE.npz|synthetic", help="vectors (%(default)s)"
    )
    parser.add_argument("--n", type=_positive, help="synthetic vectors (100,000; a study has its own number)")
    parser.add_argument("--d", type=_positive, help="their dimension (128)")
    parser.add_argument(
        "--metric", choices=["l2", "cosine"], default="l2", help="cosine scales all vectors to length 1 (%(default)s)"
    )
    parser.add_argument(
        "--factory",
        nargs="+",
        default=["IVF100,PQ8"],
        help="one or more descriptions for ivfpq and faiss (%(default)s)",
    )
    parser.add_argument(
        "--engines",
        default=",".join(ENGINES),
        help="with commas between them; ivfpq:KERNEL forces a kernel, faiss:polysemous trains as its factory string "
        "says by itself (%(default)s)",
    )
    parser.add_argument("--k", type=_positive, default=10)
    parser.add_argument("--nprobe", type=_numbers, default=[1, 8, 32], metavar="N,N,...", help="(1,8,32)")
    parser.add_argument("--threads", type=_numbers, default=[1], metavar="N,N,...", help="(1)")
    parser.add_argument(
        "--queries", type=_positive, default=1000, help="vectors held out (%(default)s, a fifth at most)"
    )
    parser.add_argument("--repeats", type=_positive, default=5, help="rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--study", choices=["fast-table", "scaling"], help="a set of measurements instead: see benchmark_studies"
    )
    parser.add_argument("--out", type=Path, default=Path("build/benchmark"), metavar="DIR", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    command = ["python", "-m", "ivfpq.benchmark", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        if max(args.threads) > cores():
            raise ValueError(f"--threads asks for {max(args.threads)}, this process may use {cores()} cores")
        if args.study:
            from ivfpq import benchmark_studies

            text = benchmark_studies.run(args, command)
        else:
            text = run(args, command)
    except (ValueError, OSError, EngineError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text)
    return 0


def run(args: argparse.Namespace, command: Sequence[str]) -> str:
    """One comparison, as the command line asks; returns the report."""
    from ivfpq.benchmark_report import environment, write

    subjects = [subject for name in args.engines.split(",") for subject in Subject.parse(name, args.factory)]
    plan = [(s, ENGINES[s.engine].query_arguments(s.factory, args.k, args.nprobe)) for s in subjects]
    with tempfile.TemporaryDirectory() as folder:
        x, name = features_of(args)
        data = prepare(
            x, name, Path(folder), queries=args.queries, k=args.k, seed=args.seed, unit=args.metric == "cosine"
        )
        del x
        comparison = compare(data, plan, threads=args.threads, repeats=args.repeats, seed=args.seed)
        return write(args.out, comparison, environment(args.seed, command), args.repeats)


def features_of(args: argparse.Namespace) -> tuple[Any, str]:
    """The vectors that --features names, and what to call them."""
    if args.features == "synthetic":
        return synthetic(args.n or 100_000, args.d or 128, args.seed), "synthetic"
    path = Path(args.features)
    return load_features(path), path.stem


if __name__ == "__main__":
    # By its full name, so that this file is not there a second time when benchmark_studies imports it.
    from ivfpq.benchmark import main as _main

    sys.exit(_main())
