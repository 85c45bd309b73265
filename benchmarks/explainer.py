"""Make the numbers and pictures of docs/explainer: `python -m benchmarks.explainer`.

The pictures are views of 15 photographs that ship with installed packages and may be passed on. One view of each of 12
is a query, 96 are stored, and what is trained is trained on the others.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.command_line import set_up_streams
from features.datasets import open_dataset
from features.encoders import create_encoder
from features.images import decode_image
from ivfpq import IndexFlat, IndexPreTransform, index_factory, save
from ivfpq.distances import normalised
from ivfpq.kmeans import lloyd
from ivfpq.pq import ProductQuantizer
from search.explain.page import PAGE, means_of, places, rounded, write_page, written
from search.explain.recording import CellSearch, exact, packed, recorded_query

logger = logging.getLogger(__name__)

MEASURED = Path(__file__).parent / "measured"
INDEX = MEASURED / "explainer.ivfpq"
FACTORY = "PCA64,IVF12,PQ8"
NLIST, STORED, K, CODED = 12, 96, 10, 8
NLISTS = (4, 8, 12, 16, 24)
PARTS, BITS = (1, 2, 4, 8, 16, 32), (2, 4, 6, 8)
BUDGETS = {
    8: {"PQ": "PCA64,PQ8", "8-bit components": "PCA8,SQ8"},
    16: {"PQ": "PCA64,PQ16", "RaBitQ": "PCAR64,RaBitQ", "8-bit components": "PCA16,SQ8"},
    32: {"PQ": "PCA64,PQ32", "RaBitQ": "PCAR192,RaBitQ", "8-bit components": "PCA32,SQ8"},
}
WITHOUT_QUERY = {"brick wall", "gravel", "retina"}

CREDITS = {
    "astronaut": "Eileen Collins, NASA; public domain",
    "brick wall": "CC0 Textures; CC0",
    "cameraman": "Lav Varshney; CC0",
    "chelsea the cat": "Stefan van der Walt; CC0",
    "coffee": "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0",
    "coins": "Brooklyn Museum; no known copyright restrictions",
    "dahlia": "vultilion (flickr), by way of scikit-learn; CC BY 2.0",
    "galaxies": "Hubble eXtreme Deep Field, NASA; public domain",
    "grace hopper": "U.S. Navy, by way of matplotlib; public domain",
    "grass": "linolafett (DeviantArt); CC0",
    "gravel": "CC0 Textures; CC0",
    "retina": "Mikael Häggström; CC0",
    "rocket": "SpaceX; public domain",
    "summer palace": "danielbuechele (flickr), by way of scikit-learn; CC BY 2.0",
    "tissue": "Center for Microscopy and Molecular Imaging; no known copyright restrictions",
}
"""The photographs that are shown, whose they are, and by what right; all but three ship with scikit-image. Of those of
the demo collection that are not here no package says that they may be passed on.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explainer", description="Make docs/explainer's numbers."
    )
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), metavar="FOLDER", help="of the demo's views")
    parser.add_argument("--features", type=Path, metavar="FILE", help="vectors of all views (.npy), if they are there")
    args = parser.parse_args(argv)
    set_up_streams(logging.INFO)
    views = [view for view in open_dataset("demo", datasets_dir=args.datasets).items if view.labels[0] in CREDITS]
    x = normalised(_features(args, [view.id for view in views], [view.path for view in views]))
    data, order = made(x, [view.labels[0] for view in views])
    write_page(PAGE, data, [Image.open(views[row].path) for row in order])
    return 0


def _features(args: argparse.Namespace, ids: list[int], paths: list[Any]) -> np.ndarray:
    if args.features:
        return np.load(args.features)[ids].astype(np.float32)
    encoder = create_encoder("efficientnet-lite0")
    return np.concatenate(
        [encoder.encode([decode_image(path) for path in paths[i : i + 32]]) for i in range(0, len(paths), 32)]
    )


def made(x: np.ndarray, labels: list[str]) -> tuple[dict[str, Any], list[int]]:
    """The numbers of the page, and the rows whose pictures it shows, from vectors of length 1."""
    asked, stored, trained = split(labels)
    index = index_factory(x.shape[1], FACTORY, metric="l2", seed=0)
    if not isinstance(index, IndexPreTransform):
        raise TypeError(f"{FACTORY} has no transform in front: {index!r}")
    index.train(x[trained])
    index.add(x[stored])
    cells = index.index
    save(cells, INDEX)
    seen = [index.apply_chain(x[rows]) for rows in (asked, stored, trained)]
    plane = places(np.concatenate(seen))
    at_asked, at_stored, at_trained = np.split(plane, np.cumsum([len(asked), len(stored)]))
    truth = IndexFlat(x.shape[1])
    truth.add(x[stored])
    among = truth.search(x[stored], 7)
    exactly = truth.search(x[asked], K)
    kept = float(
        np.square(seen[2] - seen[2].mean(axis=0)).sum() / np.square(x[trained] - x[trained].mean(axis=0)).sum()
    )
    numbers = cells.codes_of(np.arange(STORED))[0]
    names = sorted(set(labels))
    data = {
        "about": {
            "title": "How an index finds pictures",
            "collection": f"{STORED} views of {len(names)} photographs",
            "factory": FACTORY, "command": "python -m benchmarks.explainer", "exported": False,
            "dim": int(x.shape[1]), "d": cells.d, "nlist": cells.nlist, "M": cells.M, "nbits": cells.nbits,
            "stored": STORED, "trained": len(trained), "kept": round(kept, 4), "k": K, "nprobe": 1, "metric": "l2",
        },
        "credits": [{"label": name, "credit": CREDITS[name]} for name in names],
        "ids": list(range(STORED)),
        "pictures": [{"label": labels[row], "at": rounded(at)} for row, at in zip(stored, at_stored, strict=True)],
        "vectors": packed(seen[1]),
        "neighbours": [
            {"ids": [int(i) for i in ids if i != own][:6], "distances": exact(d[ids != own][:6])}
            for own, (ids, d) in enumerate(zip(among.ids, among.distances, strict=True))
        ],
        "lists": written(numbers.tolist()),
        "sizes": np.bincount(numbers, minlength=NLIST).tolist(),
        "dots": rounded(at_trained, 3),
        "kmeans": {str(n): _kmeans(seen, at_trained, n, cells) for n in NLISTS},
        "queries": [
            {
                "label": labels[row], "at": rounded(at_asked[number]), "vector": packed(seen[0][number]),
                "truth": exactly.ids[number].tolist(), "truth_distances": exact(exactly.distances[number]),
                **recorded_query(
                    CellSearch(cells, seen[0][number]),
                    _distances(seen[0][number], seen[1], x[row], x[stored]),
                    nprobe=NLIST,
                    k=K,
                ),
            }
            for number, row in enumerate(asked)
        ],
        "codes": _codes(cells, seen, exactly.ids[:CODED, 0]),
        "budgets": [_budget(n, codecs, x, asked, stored, trained, exactly.ids) for n, codecs in BUDGETS.items()],
        "measured": measured(),
    }  # fmt: skip
    return data, [*stored, *asked]


def _distances(kept: np.ndarray, seen: np.ndarray, whole: np.ndarray, x: np.ndarray) -> Any:
    """What `recorded_query` asks for."""
    return lambda ids: (pair_distances(kept, seen[ids]), pair_distances(whole, x[ids]))


def pair_distances(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The distances of a query (d,) to vectors (n, d), as `ivfpq` defines them."""
    flat = IndexFlat(len(query))
    flat.add(vectors)
    found = flat.search(query[None], len(vectors))
    return found.distances[0][np.argsort(found.ids[0])]


def split(labels: list[str]) -> tuple[list[int], list[int], list[int]]:
    """Rows of queries, of what is stored, and of what is trained on; none is two of these."""
    rng, names = np.random.default_rng(0), sorted(set(labels))
    asked: list[int] = []
    stored: list[int] = []
    for number, name in enumerate(names):
        rows = rng.permutation([row for row, label in enumerate(labels) if label == name]).tolist()
        count = STORED // len(names) + (number < STORED % len(names))
        stored += rows[:count]
        asked += [] if name in WITHOUT_QUERY else rows[count : count + 1]
    return asked, stored, sorted({*range(len(labels))} - {*asked, *stored})


def _kmeans(seen: list[np.ndarray], at: np.ndarray, nlist: int, cells: Any) -> dict[str, Any]:
    """k-means as it ran, and where it leaves what is stored."""
    rounds, means = [], seen[2][:0]
    for iteration in lloyd(seen[2], nlist, np.random.default_rng(0)):
        rounds.append(
            {
                "objective": round(iteration.objective, 4),
                "cells": written(iteration.nearest.tolist()),
                "centroids": means_of(at, iteration.nearest, nlist),
            }
        )
        means = iteration.means
    if nlist == cells.nlist and not np.array_equal(means, cells.centroids):
        raise AssertionError("the index was trained otherwise than k-means ran here")
    coarse = IndexFlat(means.shape[1])
    coarse.add(means)
    lists = coarse.search(seen[1], 1).ids[:, 0]
    return {"rounds": rounds, "lists": written(lists.tolist())}


def _codes(cells: Any, seen: list[np.ndarray], shown: np.ndarray) -> dict[str, Any]:
    """What is left of residuals by codes of each length, and of a few pictures which codewords they chose from."""

    def residuals(x: np.ndarray) -> np.ndarray:
        return x - cells.centroids[cells.quantized(x)[0]]

    stored, trained = residuals(seen[1]), residuals(seen[2])
    scale = float(np.abs(stored[shown]).max())
    configs = []
    for M in PARTS:
        for nbits in BITS:
            pq = cells.pq
            if (M, nbits) != (cells.M, cells.nbits):
                pq = _best_trained(cells.d, M, nbits, trained)
            rebuilt = pq.decode(pq.encode(stored))
            error = np.square(stored - rebuilt).sum(axis=1) / np.square(stored).sum(axis=1)
            configs.append(
                {
                    "M": M, "nbits": nbits, "errors": rounded(error),
                    "rebuilt": packed(np.round(127 * np.clip(rebuilt[shown] / scale, -1, 1)).astype(np.int8)),
                }
            )  # fmt: skip
    parts = stored[shown].reshape(len(shown), cells.M, 1, cells.pq.dsub)
    costs = np.square(parts - cells.pq.codebooks[None]).sum(axis=3)
    shades = np.round(255 * costs / costs.max(axis=2, keepdims=True)).astype(np.uint8)
    return {
        "pictures": [int(id) for id in shown], "scale": exact(scale), "residuals": packed(stored[shown]),
        "configs": configs, "costs": packed(shades), "codes": cells.codes_of(shown)[1].tolist(),
    }  # fmt: skip


def _best_trained(d: int, M: int, nbits: int, x: np.ndarray) -> ProductQuantizer:
    """Of three trainings the one that errs least on what it was trained on: figures compare sizes, not luck."""
    trained = []
    for seed in range(3):
        pq = ProductQuantizer(d, M, nbits)
        pq.train(x, np.random.default_rng(seed))
        trained.append(pq)
    return min(trained, key=lambda pq: float(np.square(x - pq.decode(pq.encode(x))).sum()))


def _budget(
    size: int, codecs: dict[str, str], x: np.ndarray, asked: Any, stored: Any, trained: Any, truth: np.ndarray
) -> dict[str, Any]:
    """What codecs of so many bytes a vector find."""
    found = []
    for name, factory in codecs.items():
        index = index_factory(x.shape[1], factory, metric="l2", seed=0)
        index.train(x[trained])
        index.add(x[stored])
        if index.code_size != size:
            raise AssertionError(f"{factory} takes {index.code_size} bytes, not {size}")
        ids = index.search(x[asked], K).ids
        recall = np.mean(
            [len({*mine} & {*theirs}) / K for mine, theirs in zip(ids.tolist(), truth.tolist(), strict=True)]
        )
        found.append({"name": name, "factory": factory, "hits": ids.tolist(), "recall": round(float(recall), 4)})
    return {"bytes": size, "codecs": found}


def measured() -> dict[str, Any]:
    """What the benchmark found of codes of 8, 16 and 32 bytes, and of the time of a scan."""
    report = json.loads((MEASURED / "codecs.json").read_text(encoding="utf-8"))
    scan = json.loads((MEASURED / "faiss.json").read_text(encoding="utf-8"))
    wanted = {("PCA + PQ", "ivfpq"), ("PCA + RQ", "ivfpq"), ("PCA + SQ8", "faiss")}
    rows = [
        {"codec": row["codec"], "engine": row["engine"], "bytes": row["bytes"], "recall": row["recall"]}
        for row in report["rows"]
        if (row["codec"], row["engine"]) in wanted and row["bytes"] in BUDGETS and not row["lists"]
    ]
    environment, data = report["environment"], report["data"]
    what = next(
        row for row in scan["rows"] if row["what"].startswith("scan of 1,000,000 codes") and "avx512" in row["what"]
    )
    return {
        "rows": rows, "n": data["n"], "queries": data["queries"], "name": data["name"],
        "cpu": environment["cpu"], "date": environment["date"][:10], "kernel": environment["kernel"], "scan": what,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
