"""How well labelled features retrieve and how well probabilities classify.

python -m features.evaluate COLLECTION ...
"""

from __future__ import annotations

import argparse
import json
import logging
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.collection.store import FeatureStore, StoreError
from features.command_line import add_collections, collection_folder, set_up_streams

_BLOCK = 512
"""Queries ranked at a time: the similarities of a block against all images are in memory at once."""


@dataclass(frozen=True)
class Retrieval:
    """What leave-one-out retrieval gives, each the mean over the queries.

    Attributes
    ----------
    mean_average_precision : float
        Over the whole ranking.
    precision_at_5 : float
        Share of right images among the first five.
    nearest_neighbor : float
        Share of queries whose first hit is right (the accuracy of 1-NN classification, for single labels).
    queries : int
        Images that share a label with at least one other; the rest have no right answer and are not asked.
    """

    mean_average_precision: float
    precision_at_5: float
    nearest_neighbor: float
    queries: int


def leave_one_out(features: np.ndarray, labels: Sequence[tuple[str, ...]]) -> Retrieval:
    """Search with each image among all the others, by cosine; a hit is right if it shares a label with the query.

    Parameters
    ----------
    features : float array, shape (n, d)
    labels : n tuples of str

    Raises
    ------
    ValueError
        The two have not the same length.
    """
    if len(features) != len(labels):
        raise ValueError(f"labels must have one entry for each of the {len(features)} features, got {len(labels)}")
    names = sorted({label for several in labels for label in several})
    shown = indicators(labels, names)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.asarray(features / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
    scores = []
    for start in range(0, len(unit), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = unit[block] @ unit.T
        own = np.arange(len(similarity))
        similarity[own, start + own] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        right = np.take_along_axis(shown[block] @ shown.T > 0, order, axis=1)
        right = right[right.any(axis=1)]
        precision = np.cumsum(right, axis=1) / np.arange(1, len(unit))
        average = (precision * right).sum(axis=1) / right.sum(axis=1)
        scores.append(np.column_stack([average, right[:, :5].mean(axis=1), right[:, 0]]))
    found = np.concatenate(scores) if scores else np.empty((0, 3))
    if not len(found):
        return Retrieval(float("nan"), float("nan"), float("nan"), 0)
    average, first_five, first = found.mean(axis=0).tolist()
    return Retrieval(average, first_five, first, len(found))


def class_mean_average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """Rank all images by each class's score; the mean of the classes' average precisions, as PASCAL VOC judges.

    Parameters
    ----------
    scores : float array, shape (n, classes)
    shown : array, shape (n, classes)
        1 where the image shows the class. Classes that no image shows are left out.
    """
    there = np.any(shown, axis=0)
    scores, shown = np.asarray(scores)[:, there], np.asarray(shown)[:, there]
    right = np.take_along_axis(shown, np.argsort(-scores, axis=0, kind="stable"), axis=0)
    precision = np.cumsum(right, axis=0) / np.arange(1, len(right) + 1)[:, None]
    return float(((precision * right).sum(axis=0) / right.sum(axis=0)).mean())


def indicators(labels: Sequence[tuple[str, ...]], names: Sequence[str]) -> np.ndarray:
    """Float32 (n, names): 1 where an image has the label. Labels that are not among the names are passed over."""
    place = {name: number for number, name in enumerate(names)}
    shown = np.zeros((len(labels), len(names)), dtype=np.float32)
    for row, several in enumerate(labels):
        shown[row, [place[label] for label in several if label in place]] = 1
    return shown


def evaluate_store(folder: Path) -> dict[str, Any]:
    """Leave-one-out retrieval over a collection's usable images, and whose vectors they are.

    Raises
    ------
    StoreError
        There is no collection, or its parts do not belong together.
    """
    store = FeatureStore.open(folder)
    encoder = store.manifest["encoder"]
    items = store.items
    found = leave_one_out(store.features[store.ids].astype(np.float32), [items[id].labels for id in store.ids.tolist()])
    return {
        "collection": folder.name,
        "dataset": store.manifest["dataset"],
        "encoder": encoder["name"],
        "weights": (encoder.get("weights") or {}).get("source"),
        "dim": store.features.shape[1],
        "images": int(store.ids.size),
        "labels": len(store.labels()),
        **asdict(found),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m features.evaluate",
        description="Search with each image of a collection among all its others, by cosine; a hit is right if it "
        "shares a label with the query.",
    )
    parser.add_argument("named", nargs="+", metavar="COLLECTION", help="a collection, or its folder")
    add_collections(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    set_up_streams(logging.WARNING)
    try:
        rows = [evaluate_store(collection_folder(options.collections, name)) for name in options.named]
    except (StoreError, OSError, sqlite3.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    for row in rows:
        sys.stdout.write(
            f"{row['collection']}: {row['encoder']}, {row['queries']} queries among {row['images']} images, "
            f"{row['labels']} labels: mAP {row['mean_average_precision']:.4f}, 1-NN {row['nearest_neighbor']:.4f}, "
            f"P@5 {row['precision_at_5']:.4f}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
