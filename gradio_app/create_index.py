"""A dataset becomes a searchable collection, with our index and faiss's, in one command.

python gradio_app/create_index.py --data caltech|voc|demo|PATH
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run by its path, so the rooms beside this folder are not found
    paths = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], "-m", "gradio_app.create_index", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": paths})

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import MANIFEST, files_of, numbered, read_manifest
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import Progress, SyncReport, sync
from features.datasets import Dataset, DatasetError, open_dataset, reopen_dataset
from features.encoders import Encoder, EncoderError, create_encoder, encoder_for
from features.extract import extract, positive
from ivfpq import IndexFlat, SearchResult, index_factory, save
from ivfpq.checks import Metric
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.faiss_compat import FaissIndex
from ivfpq.metrics import tie_recall_at_k
from ivfpq.results import worst
from search.engine import DEFAULT_NPROBE, INDEX_FILES, add_rows, read_index
from search.errors import EngineError

logger = logging.getLogger("create_index")

FACTORY = "IVF100,PQ8"
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


@dataclass(frozen=True)
class IndexUpdate:
    """What `sync_collection` did to one index.

    Attributes
    ----------
    taken_out, put_in : int
        Vectors. An edited image counts in both.
    rebuilt : str or None
        Why it was trained and filled anew, if it was.
    seconds : float
        All of it, reading and writing included.
    """

    engine: str
    taken_out: int
    put_in: int
    rebuilt: str | None
    seconds: float

    def __str__(self) -> str:
        done = (
            f"built anew, {self.rebuilt}"
            if self.rebuilt
            else f"{self.taken_out} vectors taken out and {self.put_in} put in, quantizers kept"
        )
        return f"{self.engine}: {done} ({self.seconds:.2f} s)"


def create_index(
    store: FeatureStore,
    *,
    factory: str = FACTORY,
    engines: Sequence[str] = ("ivfpq", "faiss"),
    metric: Metric = "cosine",
    seed: int = 0,
) -> list[EngineReport]:
    """Train, measure and save indexes over a store's vectors, then list them in its manifest.

    Up to 500 vectors (a tenth of a small collection) are held out of training. They query the index before they are
    added to it, so that recall is measured on pictures that the index has never seen; the saved index holds all.
    Indexes that are there already stay in force until the new ones, all of them, take their place.

    Raises
    ------
    ValueError
        If the store holds no usable vector, or the factory string or metric is unknown.
    """
    reports, entries = _build(store, factory, engines, metric, seed)
    # An engine that is not rebuilt keeps its index as long as that covers the same vectors by the same metric.
    kept = {
        name: entry
        for name, entry in store.manifest.get("indexes", {}).items()
        if name not in engines and store.manifest["metric"] == metric and _is_current(store, entry)
    }
    store.update_manifest(metric=metric, indexes={**kept, **entries})
    return reports


def sync_collection(
    folder: Path,
    *,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    limit: int | None = None,
    progress: bool | Progress = True,
) -> tuple[SyncReport, list[IndexUpdate]]:
    """Bring a collection, vectors and indexes, up to date with its images: see `features.collection.sync.sync`.

    Indexes keep their trained quantizers, and vectors are taken out and put in, unless more than half of them change or
    the collection has grown to what the factory string that was asked for needs. All becomes new in one moment; whoever
    has the collection open goes on with what it was and sees the new one when opening it again.

    Parameters
    ----------
    dataset, encoder : optional
        By default those that the collection was made with, as its manifest says.
    limit, progress : optional
        See `features.collection.sync.sync`.

    Raises
    ------
    StoreError
        See `features.collection.sync.sync`. The collection is as it was.
    DatasetError, EncoderError
        What the collection was made with is not here any more.
    """
    made = read_manifest(folder)
    dataset = dataset or reopen_dataset(made["dataset"], made["root"])
    encoder = encoder or encoder_for(made["encoder"])
    updates: list[IndexUpdate] = []

    def update_indexes(store: FeatureStore) -> dict[str, Any]:
        entries = {}
        for name, entry in store.manifest.get("indexes", {}).items():
            entries[name], update = _update(store, name, entry)
            updates.extend([update] if update else [])
        return {"indexes": entries} if entries else {}

    report = sync(dataset, encoder, folder, limit=limit, progress=progress, with_store=update_indexes)
    return report, updates


def _update(store: FeatureStore, name: str, entry: dict[str, Any]) -> tuple[dict[str, Any], IndexUpdate | None]:
    """The manifest's entry of an index over the vectors as they are now, and what was done for it."""
    started = time.perf_counter()
    changed, gone = store.changes_since(entry.get("generation", 0))
    if not changed.size and not gone.size:
        return entry, None
    asked = entry.get("asked", entry["factory"])
    metric: Metric = store.manifest["metric"]
    enough = index_factory(store.features.shape[1], asked, metric=metric).train_size_min
    reason, taken_out = None, 0
    if changed.size + gone.size > store.ids.size / 2:
        reason = "more than half of the collection has changed"
    elif entry["factory"] != asked and len(_split(store, entry["seed"])[1]) >= enough:
        reason = f"there are enough images for {asked} now"
    else:
        try:
            index = read_index(store, name, entry)
            taken_out = int(index.remove_ids(np.concatenate([changed, gone])))
            add_rows(index, store, changed)
            if index.ntotal != store.ids.size:
                reason = f"it did not hold what it should ({index.ntotal} vectors, not {store.ids.size})"
        except (EngineError, RuntimeError) as error:  # faiss cannot take vectors out of some kinds
            reason = str(error)
    if reason is None:
        entry = _save(index, store, name, entry["factory"], asked, entry["seed"])
    else:
        logger.info("%s is built anew: %s", name, reason)
        entry = _build(store, asked, [name], metric, entry["seed"])[1][name]
    return entry, IndexUpdate(name, taken_out, int(changed.size), reason, time.perf_counter() - started)


def _is_current(store: FeatureStore, entry: dict[str, Any]) -> bool:
    return not any(ids.size for ids in store.changes_since(entry.get("generation", 0)))


def _build(
    store: FeatureStore, factory: str, engines: Sequence[str], metric: Metric, seed: int
) -> tuple[list[EngineReport], dict[str, dict[str, Any]]]:
    """Train, measure and save indexes; returns the reports and the entries for the manifest."""
    if store.ids.size == 0:
        raise ValueError(f"{store.folder} holds no readable image, so there is nothing to index")
    d = store.features.shape[1]
    held_out, training = _split(store, seed)
    kept = np.setdiff1d(store.ids, held_out)

    asked = factory
    needed = index_factory(d, factory, metric=metric, seed=seed).train_size_min
    if training.size < needed:
        logger.warning("%s needs %d images to train, there are %d: building Flat", factory, needed, training.size)
        factory = "Flat"

    queries = _rows(store, held_out)
    truth = _exact_neighbours(store, kept, queries, metric)
    reports, entries = [], {}
    for engine in engines:
        _warm_up(_index(engine, d, factory, metric, seed), _rows(store, training[:needed]))
        index = _index(engine, d, factory, metric, seed)
        if getattr(index, "nlist", None):
            index.nprobe = min(DEFAULT_NPROBE, index.nlist)
        started = time.perf_counter()
        index.train(_rows(store, training))
        trained = time.perf_counter()
        add_rows(index, store, kept)
        added = time.perf_counter()
        recall = us_per_query = None
        if truth is not None:
            found, us_per_query = _search_one_by_one(index, queries, truth.ids.shape[1])
            recall = _recall(store, queries, found, truth, metric)
        add_rows(index, store, held_out)

        entries[engine] = _save(index, store, engine, factory, asked, seed)
        reports.append(
            EngineReport(
                engine=engine,
                factory=factory,
                train_s=trained - started,
                add_s=added - trained,
                file_bytes=(store.folder / entries[engine]["file"]).stat().st_size,
                bytes_per_vector=index.bytes_per_vector,
                recall_at_10=recall,
                us_per_query=us_per_query,
            )
        )
    return reports, entries


def _index(engine: str, d: int, factory: str, metric: Metric, seed: int) -> Any:
    if engine == "ivfpq":
        return index_factory(d, factory, metric=metric, seed=seed)
    return FaissIndex(d, factory, metric=metric)


def _warm_up(index: Any, rows: NDArray[np.float32]) -> None:
    """Use an index of the same kind, so that no time holds what is done once in a process: compiling and loading."""
    index.train(rows)
    index.add_with_ids(rows, np.arange(len(rows)))
    index.search(rows[:1], 1)


def _split(store: FeatureStore, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids that are held out of training and ids to train on, both ascending."""
    shuffled = np.random.default_rng(seed).permutation(store.ids)
    number = min(HELD_OUT, store.ids.size // 10)
    return np.sort(shuffled[:number]), np.sort(shuffled[number:][:MAX_TRAIN])


def _save(index: Any, store: FeatureStore, engine: str, factory: str, asked: str, seed: int) -> dict[str, Any]:
    """Write an index of the store's generation, over none that is in force; returns the manifest's entry."""
    in_force = files_of(read_manifest(store.folder))
    names = (numbered(INDEX_FILES[engine], number) for number in itertools.count(store.generation))
    path = store.folder / next(name for name in names if name not in in_force)
    if engine == "ivfpq":
        save(index, path, metadata={"collection": store.folder.name, "encoder": store.manifest["encoder"]["name"]})
    else:
        index.save(path)
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "factory": factory,
        "asked": asked,  # differs where there were too few images to train it
        "seed": seed,
        "images": int(store.ids.size),
        "generation": store.generation,
    }


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


def _search_one_by_one(index: Any, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], float]:
    """Ids found (nq, k), and the median time of a query in microseconds."""
    index.search(queries[:1], k)  # the first call may compile or warm caches
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        result = index.search(query[None], k)
        times.append(time.perf_counter() - started)
        found.append(result.ids[0])
    return np.stack(found), float(np.median(times) * 1e6)


def _recall(
    store: FeatureStore,
    queries: NDArray[np.float32],
    found: NDArray[np.int64],
    truth: SearchResult,
    metric: Metric,
) -> float:
    """Recall@10, ties counted (a picture may be there twice): distances are computed from the vectors, as exact search
    does it.
    """
    query, place = np.nonzero(found >= 0)
    ids, row = np.unique(found[query, place], return_inverse=True)
    vectors = _rows(store, ids)
    if metric == "cosine":
        queries, vectors = normalised(queries), normalised(vectors)
    distances = np.full(found.shape, worst(metric), np.float32)
    distances[query, place] = pair_distances_at(queries, query, vectors, row, metric)
    sign = 1 if metric == "l2" else -1  # smaller is nearer
    return tie_recall_at_k(found, sign * distances, sign * truth.distances)


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
    parser.add_argument("--factory", help=f"index description, as faiss writes it ({FACTORY})")
    parser.add_argument("--engine", choices=["ivfpq", "faiss", "both"], help="(both)")
    parser.add_argument("--metric", choices=["cosine", "l2", "ip"], help="(cosine)")
    parser.add_argument("--name", help="name of the collection (default: that of the dataset)")
    parser.add_argument("--seed", type=int, help="(0)")
    parser.add_argument(
        "--sync",
        action="store_true",
        help="bring an existing collection up to date with added, edited, renamed and removed images",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="take only N images")
    parser.add_argument("--collections", type=Path, default=Path("collections"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(arguments)


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
    if args.sync and (folder / MANIFEST).is_file():
        return _run_sync(args, dataset, folder)
    encoder = create_encoder(_encoder_of(folder, args.encoder), weights=args.weights)
    index_factory(encoder.dim, args.factory or FACTORY, metric=args.metric or "cosine")  # refused before hours of work
    extract(dataset, encoder, folder, limit=args.limit)
    return _run_create(args, dataset, folder)


def _run_sync(args: argparse.Namespace, dataset: Dataset, folder: Path) -> str:
    encoder = None
    if args.encoder != "auto" or args.weights is not None:
        encoder = create_encoder(_encoder_of(folder, args.encoder), weights=args.weights)
    report, updates = sync_collection(folder, dataset=dataset, encoder=encoder, limit=args.limit)
    if args.json:
        done = json.dumps(
            {"collection": str(folder), **asdict(report), "engines": [asdict(update) for update in updates]},
            indent=2,
            default=str,
        )
    else:
        done = "\n".join([f"{folder}: {report}", *map(str, updates)])
    if _is_as_asked(args, read_manifest(folder)):
        return done
    return f"{done}\n{_run_create(args, dataset, folder)}"


def _is_as_asked(args: argparse.Namespace, manifest: dict[str, Any]) -> bool:
    """Whether the indexes are those of the command line; what it does not say may be anything."""
    indexes = manifest.get("indexes", {})
    return (
        bool(indexes)
        and (args.engine is None or set(indexes) >= set(_engines(args)))
        and args.metric in (None, manifest["metric"])
        and all(args.seed in (None, entry["seed"]) for entry in indexes.values())
        and all(args.factory in (None, entry.get("asked", entry["factory"])) for entry in indexes.values())
    )


def _engines(args: argparse.Namespace) -> list[str]:
    return list(INDEX_FILES) if args.engine in (None, "both") else [args.engine]


def _run_create(args: argparse.Namespace, dataset: Dataset, folder: Path) -> str:
    store = FeatureStore.open(folder)
    metric: Metric = args.metric or "cosine"
    reports = create_index(
        store, factory=args.factory or FACTORY, engines=_engines(args), metric=metric, seed=args.seed or 0
    )

    skipped = store.manifest["damaged"]
    held_out = min(HELD_OUT, store.ids.size // 10)
    if args.json:
        return json.dumps(
            {
                "collection": str(folder),
                "images": int(store.ids.size),
                "skipped": int(skipped),
                "encoder": store.manifest["encoder"]["name"],
                "metric": metric,
                "queries": held_out,
                "engines": [asdict(report) for report in reports],
            },
            indent=2,
        )
    lines = [
        f"{folder}: {store.ids.size} images of {dataset.name}, {store.manifest['encoder']['name']}, {metric}",
        "",
        format_table(reports),
        "",
        f"recall@10 against exact search, ties counted, on {held_out} held-out images, one at a time (median time); "
        "bytes/vector: the code and the id of a stored vector in memory; no time holds compiling, done before",
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
