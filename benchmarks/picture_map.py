"""How long the map of a collection takes on the server: ``python -m benchmarks.picture_map``.

Vectors are made up, in heaps as those of pictures are, of pictures that do not exist. Measured are the first making,
with its writing, the reading by the next process, and what the page asks for, each in seconds that a visitor waits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from features.collection.records import Facts
from features.collection.store import FeatureStore
from features.collection.writer import StoreWriter
from features.datasets import Item
from gradio_app.routes.map import map_routes
from search.build import create_index
from search.engine import SearchEngine
from search.picture_map import map_of

BATCH = 4096
HEAPS = 100


def made_store(folder: Path, count: int, dim: int) -> FeatureStore:
    """A collection of `HEAPS` heaps of vectors; the label of a picture is its heap."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((HEAPS, dim)).astype(np.float32)
    root = folder / "pictures"
    items = [Item(id, root / f"p{id}.jpg", (f"heap {id % HEAPS}",)) for id in range(count)]
    dataset: Any = SimpleNamespace(items=items, root=root, name="made up")
    spec = {"name": "made up", "dim": dim, "weights": {"argument": None, "sha256": "0" * 64}, "size": 8}
    writer = StoreWriter(folder / "c", dataset, items, spec, "float16")
    for begin in range(0, count, BATCH):
        ids = np.arange(begin, min(begin + BATCH, count))
        rows = middles[ids % HEAPS] + rng.standard_normal((ids.size, dim), np.float32)
        writer.append(rows, [Facts(f"{id:064x}", 640, 480, None) for id in ids.tolist()])
    return writer.finish()


def seconds(action: Callable[[], object]) -> float:
    """That an action takes, by the clock."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture_map", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="pictures (%(default)s)")
    parser.add_argument("--dim", type=int, default=2048, help="numbers of a vector (%(default)s)")
    parser.add_argument("--factory", default="IVF256,PQ8", help="the index (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is taken (%(default)s)")
    parser.add_argument("--keep", type=Path, help="a folder in which to leave the collection")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        store = made_store(folder, options.count, options.dim)
        create_index(store, factory=options.factory, engines=["ivfpq"])
        out = sys.stdout
        out.write(
            f"{options.count:,} pictures of {options.dim} dimensions, {options.factory}, seconds by the clock\n\n"
        )
        out.write(f"first making: {seconds(lambda: map_of(FeatureStore.open(store.folder))):.2f}\n")
        out.write(f"read from its file: {seconds(lambda: map_of(FeatureStore.open(store.folder))):.3f}\n\n")
        engine = SearchEngine.open(store.folder)
        client = TestClient(FastAPI(routes=map_routes({"c": engine})))
        out.write("| answer | first | again (median) | bytes |\n|---|--:|--:|--:|\n")
        facts: dict[str, Any] = {}
        for name in ("what to draw", "points", "lists"):
            place = {"what to draw": "map/c", "points": facts.get("points", "")}.get(name) or facts["lists"]["numbers"]
            first, *again = [seconds(lambda: client.get(f"/{place}")) for _ in range(options.rounds + 1)]  # noqa: B023
            reply = client.get(f"/{place}")
            facts = facts or reply.json()
            out.write(f"| {name} | {first:.3f} | {np.median(again):.3f} | {len(reply.content):,} |\n")


if __name__ == "__main__":
    main()
