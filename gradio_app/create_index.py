"""A dataset becomes a searchable collection, with our index and faiss's, in one command.

python gradio_app/create_index.py --data caltech|voc|demo|PATH
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the project's root, not this folder, is where imports start
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from numpy.typing import NDArray

from features.datasets import DatasetError, open_dataset
from features.encoders import EncoderError, create_encoder
from features.extract import extract
from features.store import FeatureStore, StoreError, sha256_of
from gradio_app.engine import DEFAULT_NPROBE, INDEX_FILES, add_rows
from ivfpq import IndexFlat, SearchResult, index_factory, save
from ivfpq.checks import Metric
from ivfpq.faiss_compat import FaissIndex
from ivfpq.metrics import knn_recall_at_k

logger = logging.getLogger("create_index")

K = 10
HELD_OUT = 500
MAX_TRAIN = 65_536  # faiss's own default at IVF256 or PQ8: 256 vectors a centroid; more changes nothing measurable


@dataclass(frozen=True)
class EngineReport:
    """One row of the printed table. Times in seconds, sizes in bytes, search in microseconds a query."""

    engine: str
    factory: str
    train_s: float
    add_s: float
    file_bytes: int
    bytes_per_vector: int
    recall_at_10: float | None
    us_per_query: float | None


def create_index(
    store: FeatureStore,
    *,
    factory: str = "IVF100,PQ8",
    engines: Sequence[str] = ("ivfpq", "faiss"),
    metric: Metric = "cosine",
    seed: int = 0,
) -> list[EngineReport]:
    """Train, measure and save indexes over a store's vectors, then list them in its manifest.

    Up to 500 vectors (a tenth of a small collection) are held out of training. They query the index before they are
    added to it, so that recall is measured on pictures that the index has never seen; the saved index holds all.

    Raises
    ------
    ValueError
        If the store holds no usable vector, or the factory string or metric is unknown.
    """
    if store.ids.size == 0:
        raise ValueError(f"{store.folder} holds no readable image, so there is nothing to index")
    d = store.features.shape[1]
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(store.ids)
    held_out = np.sort(shuffled[: min(HELD_OUT, store.ids.size // 10)])
    kept = np.sort(shuffled[held_out.size :])
    training = np.sort(shuffled[held_out.size :][:MAX_TRAIN])

    needed = index_factory(d, factory, metric=metric, seed=seed).train_size_min
    if training.size < needed:
        logger.warning("%s needs %d images to train, there are %d: building Flat", factory, needed, training.size)
        factory = "Flat"

    queries = _rows(store, held_out)
    truth = _exact_neighbours(store, kept, queries, metric)
    reports = []
    # An engine that is not rebuilt keeps its index as long as that covers the same images by the same metric.
    listed = {
        name: entry
        for name, entry in store.manifest.get("indexes", {}).items()
        if name not in engines and entry["images"] == store.ids.size and store.manifest["metric"] == metric
    }
    for engine in engines:
        index: Any = (
            index_factory(d, factory, metric=metric, seed=seed)
            if engine == "ivfpq"
            else FaissIndex(d, factory, metric=metric)
        )
        if getattr(index, "nlist", None):
            index.nprobe = min(DEFAULT_NPROBE, index.nlist)
        started = time.perf_counter()
        index.train(_rows(store, training))
        trained = time.perf_counter()
        add_rows(index, store, kept)
        added = time.perf_counter()
        recall, us_per_query = _measure(index, queries, truth)
        add_rows(index, store, held_out)

        path = store.folder / INDEX_FILES[engine]
        if engine == "ivfpq":
            save(index, path, metadata={"collection": store.folder.name, "encoder": store.manifest["encoder"]["name"]})
        else:
            index.save(path)
        listed[engine] = {
            "file": path.name,
            "sha256": sha256_of(path),
            "factory": factory,
            "seed": seed,
            "images": int(store.ids.size),
        }
        reports.append(
            EngineReport(
                engine=engine,
                factory=factory,
                train_s=trained - started,
                add_s=added - trained,
                file_bytes=path.stat().st_size,
                bytes_per_vector=index.bytes_per_vector,
                recall_at_10=recall,
                us_per_query=us_per_query,
            )
        )
    store.update_manifest(metric=metric, indexes=listed)
    for name, file in INDEX_FILES.items():
        if name not in listed:
            (store.folder / file).unlink(missing_ok=True)
    return reports


def _rows(store: FeatureStore, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(store.features[ids], dtype=np.float32)


def _exact_neighbours(
    store: FeatureStore, kept: NDArray[np.int64], queries: NDArray[np.float32], metric: Metric
) -> SearchResult | None:
    """True neighbours of the held-out queries, or None where there are too few images to hold any out."""
    if not len(queries):
        return None
    flat = IndexFlat(store.features.shape[1], metric=metric)
    add_rows(flat, store, kept)
    return flat.search(queries, min(K, kept.size))


def _measure(index: Any, queries: NDArray[np.float32], truth: SearchResult | None) -> tuple[float | None, float | None]:
    """Recall@10, and the median time of one query at a time in microseconds."""
    if truth is None:
        return None, None
    k = truth.ids.shape[1]
    index.search(queries[:1], k)  # the first call may compile or warm caches
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        result = index.search(query[None], k)
        times.append(time.perf_counter() - started)
        found.append(result.ids[0])
    return float(knn_recall_at_k(np.stack(found), truth.ids)), float(np.median(times) * 1e6)


def format_table(reports: Sequence[EngineReport]) -> str:
    """The reports as an aligned Markdown table."""
    header = ["engine", "factory", "train s", "add s", "file size", "bytes/vector", "recall@10", "µs/query"]
    rows = [
        [
            {"ivfpq": "ivfpq (ours)"}.get(r.engine, r.engine),
            r.factory,
            f"{r.train_s:.2f}",
            f"{r.add_s:.3f}",
            f"{r.file_bytes / 1e6:.2f} MB",
            str(r.bytes_per_vector),
            "-" if r.recall_at_10 is None else f"{r.recall_at_10:.3f}",
            "-" if r.us_per_query is None else f"{r.us_per_query:.0f}",
        ]
        for r in reports
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *([str.rjust] * (len(header) - 2))]
    rule = ["-" * w if a is str.ljust else "-" * (w - 1) + ":" for w, a in zip(widths, align, strict=True)]
    lines = [[a(cell, w) for cell, w, a in zip(row, widths, align, strict=True)] for row in [header, *rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def collection_name(name: str) -> str:
    """A name that is safe as a folder: letters, digits, dot, dash and underscore, not starting with a dot."""
    safe = re.sub(r"[^\w.-]+", "-", name.strip()).strip("-.")
    if not safe:
        raise ValueError(f"{name!r} gives no usable collection name: pass --name")
    return safe


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(description="Turn a dataset into a searchable collection.")
    parser.add_argument(
        "--data", required=True, metavar="caltech|voc|demo|PATH", help="a dataset or a folder of images"
    )
    parser.add_argument("--encoder", default="auto", help="auto (default), resnet50 or efficientnet-lite0")
    parser.add_argument("--weights", metavar="PATH", help="weights file for the encoder")
    parser.add_argument("--factory", default="IVF100,PQ8", help="index description, as faiss writes it (%(default)s)")
    parser.add_argument("--engine", choices=["ivfpq", "faiss", "both"], default="both")
    parser.add_argument("--metric", choices=["cosine", "l2", "ip"], default="cosine")
    parser.add_argument("--name", help="name of the collection (default: that of the dataset)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=_positive, metavar="N", help="take only N images")
    parser.add_argument("--collections", type=Path, default=Path("collections"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        report = run(args)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    except (DatasetError, EncoderError, StoreError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(report)  # noqa: T201
    return 0


def run(args: argparse.Namespace) -> str:
    """Do what the command line asks; returns what belongs on stdout."""
    dataset = open_dataset(args.data)
    folder = args.collections / collection_name(args.name or dataset.name)
    encoder = create_encoder(_encoder_of(folder, args.encoder), weights=args.weights)
    index_factory(encoder.dim, args.factory, metric=args.metric)  # a bad factory string is refused before hours of work
    store = extract(dataset, encoder, folder, limit=args.limit)
    engines = list(INDEX_FILES) if args.engine == "both" else [args.engine]
    reports = create_index(store, factory=args.factory, engines=engines, metric=args.metric, seed=args.seed)

    skipped = len(store.items) - store.ids.size
    held_out = min(HELD_OUT, store.ids.size // 10)
    if args.json:
        return json.dumps(
            {
                "collection": str(folder),
                "images": int(store.ids.size),
                "skipped": int(skipped),
                "encoder": store.manifest["encoder"]["name"],
                "metric": args.metric,
                "queries": held_out,
                "engines": [asdict(report) for report in reports],
            },
            indent=2,
        )
    lines = [
        f"{folder}: {store.ids.size} images of {dataset.name}, {store.manifest['encoder']['name']}, {args.metric}",
        "",
        format_table(reports),
        "",
        f"recall@10 against exact search on {held_out} held-out images, one query at a time (median); "
        "bytes/vector: the code and the id of a stored vector in memory",
    ]
    if skipped:
        lines.insert(1, f"{skipped} damaged images were skipped; the catalog lists them with the reason")
    return "\n".join([*lines, f"search it: python gradio_app/app.py --data {folder.name}"])


def _encoder_of(folder: Path, wanted: str) -> str:
    """A collection begun with one encoder goes on with it unless another is named."""
    if wanted != "auto":
        return wanted
    try:
        return str(json.loads((folder / "manifest.json").read_text())["encoder"]["name"])
    except (OSError, ValueError, KeyError):
        return wanted


if __name__ == "__main__":
    sys.exit(main())
