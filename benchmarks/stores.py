"""What databases cost beside our own index: ``python -m benchmarks.stores``.

Vectors are made: heaps of points in 128 dimensions. Each engine runs in a process of its own and keeps them as a
collection would. Latencies are of single queries for 10 neighbours, once with a filter that lets one in a hundred pass;
memory is what the process has more than before, disk what lies in the folder of the index.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.process import resident_bytes
from ivfpq import IndexFlat
from ivfpq.metrics import knn_recall_at_k
from search.backends import get_backend
from search.backends.base import IndexRecipe
from search.space import VISUAL, Space
from search.spaces import space_kind

DIM = 128
HEAPS = 1000
QUERIES = 100
CHANGED = 1000
ADDRESSES = {"lance": "lance://{}/lance", "milvus": "milvus://{}/milvus"}
CODES = {"milvus": "SQ8"}  # Milvus Lite has no product codes


def made_space(folder: Path, count: int) -> Space:
    """A space of a collection of made vectors."""
    generator = np.random.default_rng(0)
    heaps = generator.standard_normal((HEAPS, DIM), np.float32) * 2
    vectors = np.empty((count, DIM), np.float32)
    for begin in range(0, count, 65_536):
        part = vectors[begin : begin + 65_536]
        part[:] = heaps[generator.integers(0, HEAPS, len(part))]
        part += generator.standard_normal(part.shape, np.float32)
    manifest = {"encoder": {"name": "made"}, "features": {"file": "features.npy"}, "format": 1, "metric": "cosine"}
    store: Any = SimpleNamespace(
        folder=folder, ids=np.arange(count), generation=0, manifest=manifest, features=vectors, changes_since=_nothing
    )
    return Space(space_kind(VISUAL), store, vectors, "cosine", {})


def _nothing(generation: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.empty(0, np.int64), np.empty(0, np.int64)


def measured(engine: str, count: int, folder: Path) -> dict[str, Any]:
    """Figures of one engine over so many vectors, measured here."""
    space, backend = made_space(folder, count), get_backend(engine)
    nlist = max(1, min(1024, count // 256))
    recipe = IndexRecipe(
        f"IVF{nlist},{CODES.get(engine, 'PQ16')}", "cosine", 0, ADDRESSES.get(engine, "").format(folder) or None
    )
    before = resident_bytes() or 0
    started = time.perf_counter()
    entry, _ = backend.build(space, recipe)
    built = time.perf_counter() - started

    generator = np.random.default_rng(1)
    queries = space.vectors[generator.choice(count, QUERIES, replace=False)] + 0.5 * generator.standard_normal(
        (QUERIES, DIM)
    ).astype(np.float32)
    allowed = np.sort(generator.choice(count, count // 100, replace=False))
    index = backend.open(space, entry)
    index.search(queries[:1], 10)
    times: dict[str, list[float]] = {"plain": [], "filtered": []}
    found = []
    for query in queries:
        for kind, ids in (("plain", None), ("filtered", allowed)):
            begin = time.perf_counter()
            answer = index.search(query[None], 10, ids=ids)
            times[kind].append(1e3 * (time.perf_counter() - begin))
            if ids is None:
                found.append(answer.ids[0])
    memory = (resident_bytes() or 0) - before
    flat = IndexFlat(DIM, metric="cosine")
    space.add_rows(flat, space.ids)
    truth = flat.search(queries, 10).ids
    changed = np.sort(generator.choice(count, min(CHANGED, count // 4), replace=False))
    store: Any = space.store
    store.generation = 1  # what is put in anew belongs to the next one
    begin = time.perf_counter()
    backend.update(space, entry, changed, np.empty(0, np.int64))
    return {
        "engine": engine,
        "factory": entry["factory"],
        "count": count,
        "p50_ms": float(np.median(times["plain"])),
        "p95_ms": float(np.quantile(times["plain"], 0.95)),
        "filtered_ms": float(np.median(times["filtered"])),
        "recall": float(knn_recall_at_k(np.stack(found), truth)),
        "build_per_s": count / built,
        "update_s": time.perf_counter() - begin,
        "memory_mb": memory / 1e6,
        "disk_mb": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__.split("\n\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="vectors")
    parser.add_argument("--engines", nargs="+", default=["ivfpq", "lance", "milvus"], choices=["ivfpq", *ADDRESSES])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            result = measured(options.engines[0], options.counts[0], Path(folder))
        sys.stdout.write(json.dumps(result) + "\n")
        return
    sys.stdout.write(
        "| vectors | engine | index | ms | p95 | ms, filter | recall@10 | built a second | 1,000 put in, s | memory | "
        "disk |\n|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    for count in options.counts:
        for engine in options.engines:
            own = [sys.executable, "-m", "benchmarks.stores", "--here", "--engines", engine, "--counts", str(count)]
            done = subprocess.run(own, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            sys.stdout.write(
                f"| {count:,} | {engine} | {row['factory']} | {row['p50_ms']:.2f} | {row['p95_ms']:.2f} | "
                f"{row['filtered_ms']:.2f} | {row['recall']:.3f} | {row['build_per_s']:,.0f} | {row['update_s']:.2f} | "
                f"{row['memory_mb']:,.0f} MB | {row['disk_mb']:,.0f} MB |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
