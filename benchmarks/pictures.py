"""How well pictures find pictures, by neighbours, too: ``python -m benchmarks.pictures collections/caltech101``.

2,000 pictures are held out: they are the queries, and no part of what is searched, nor of its principal components. A
hit is right if it bears the label of the query; labels are read for nothing else. All pictures are ranked: mAP is the
mean average precision, 1-NN the share of queries whose first hit is right, P@n that of right ones among the first n. Of
a collection it is told besides how often a copy of a stored picture, of which a sixteenth was cut away on each side,
finds that picture first. A file of features serves too: ``FEATURES.npz`` with `features` (n, d) and `labels` (n,).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.command_line import add_collections, collection_folder
from features.images import ImageError, decode_image
from features.paths import expanded
from ivfpq.distances import normalised
from search.engine import SearchEngine
from search.neighbour_order import CANDIDATES, NeighbourOrder, Ranked
from search.neighbourhood import build_neighbourhood, fit_components

HELD_OUT = 2_000
COPIES = 500
CUT = 16
WEIGHTS = (0.0, 0.5, 1.0)
MEASURES = ("mAP", "1-NN", "P@5", "P@20")

_BLOCK = 200

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """What is searched: unit vectors, float32 (n, d), with all that a search needs of a space."""

    features: Floats
    vectors: NDArray[Any]
    beside: Mapping[str, NDArray[Any]]

    @property
    def ids(self) -> Ids:
        return np.arange(len(self.features))

    def rows(self, ids: Ids) -> Floats:
        return np.asarray(self.vectors[ids], np.float32)

    @classmethod
    def of(cls, features: Floats) -> Stored:
        made = cls(features, features, {})
        space = build_neighbourhood(made, fit_components(made))
        return cls(features, space.vectors, space.beside)


def rankings(stored: Stored, queries: Floats, weights: Sequence[float]) -> Iterator[list[Ids]]:
    """Of each query the order of all that is stored, by each weight of the neighbourhood."""
    order = NeighbourOrder(stored)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        for query, plain in zip(block, block @ stored.features.T, strict=True):
            ids = np.argsort(-plain, kind="stable")
            found = Ranked(ids, plain[ids], plain[ids])
            yield [order.first(query, found, weight)[0].ids if weight else ids for weight in weights]


def measures_of(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`MEASURES` of one ranking: whether each hit is right, best first."""
    shares = relevant.cumsum() / np.arange(1, relevant.size + 1)
    average = shares[relevant].mean() if relevant.any() else 0.0
    return np.array([average, relevant[0], relevant[:5].mean(), relevant[:20].mean()])


def held_out(features: Floats, labels: NDArray[Any], count: int = HELD_OUT, seed: int = 0) -> NDArray[np.float64]:
    """`MEASURES`, the mean over the queries, by each of `WEIGHTS`: (weights, measures)."""
    shuffled = np.random.default_rng(seed).permutation(len(features))
    asked, kept = shuffled[:count], shuffled[count:]
    total = np.zeros((len(WEIGHTS), len(MEASURES)))
    stored = Stored.of(features[kept])
    for query, ranked in zip(asked, rankings(stored, features[asked], WEIGHTS), strict=True):
        for row, ids in enumerate(ranked):
            total[row] += measures_of(labels[kept[ids]] == labels[query])
    return total / len(asked)


def copies_found(
    engine: SearchEngine, features: Floats, count: int = COPIES, cut: int = CUT, seed: int = 1
) -> NDArray[np.float64]:
    """How often a copy of a stored picture, less 1 / cut on each side, finds it first, by each of `WEIGHTS`."""
    chosen, vectors = [], []
    for row in np.random.default_rng(seed).permutation(len(features))[:count].tolist():
        try:
            pixels = decode_image(engine.store.items[int(engine.store.ids[row])].path)
        except ImageError:  # it has gone since
            continue
        height, width = pixels.shape[:2]
        inner = pixels[height // cut : height - height // cut, width // cut : width - width // cut]
        vectors.append(engine.encoder.encode([np.ascontiguousarray(inner)])[0])
        chosen.append(row)
    stored = Stored.of(features)
    ranked = rankings(stored, normalised(np.stack(vectors)), WEIGHTS)
    first = [[ids[0] == row for ids in each] for row, each in zip(chosen, ranked, strict=True)]
    return np.mean(first, axis=0)


def table(figures: NDArray[np.float64], copies: NDArray[np.float64] | None) -> str:
    """A Markdown table: a line for each weight."""
    names = [*MEASURES, *([] if copies is None else ["a cropped copy finds it first"])]
    lines = ["| neighbourhood | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for row, weight in enumerate(WEIGHTS):
        cells = [*figures[row], *([] if copies is None else [copies[row]])]
        lines.append(f"| {weight:g} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", help="a collection, its folder, or a file of features and labels (.npz)")
    add_collections(parser)
    parser.add_argument("--queries", type=int, default=HELD_OUT, metavar="N", help="(%(default)s)")
    parser.add_argument("--copies", type=int, default=COPIES, metavar="N", help="(%(default)s); 0: none are made")
    parser.add_argument("--cut", type=int, default=CUT, metavar="N", help="of copies, 1/N on each side (%(default)s)")
    options = parser.parse_args(arguments)
    engine = None
    if (file := expanded(options.source)).is_file():
        with np.load(file, allow_pickle=False) as given:
            features, labels = normalised(given["features"].astype(np.float32)), given["labels"]
    else:
        engine = SearchEngine.open(collection_folder(options.collections, options.source))
        store = engine.store
        features = normalised(np.asarray(store.features[store.ids], np.float32))
        labels = np.array([",".join(store.items[id].labels) for id in store.ids.tolist()])
    if not 0 < options.queries < len(features):
        parser.error(f"--queries must be from 1 to {len(features) - 1}, got {options.queries}")
    figures = held_out(features, labels, options.queries)
    copies = (
        copies_found(engine, features, options.copies, options.cut) if engine is not None and options.copies else None
    )
    sys.stdout.write(f"{table(figures, copies)}\n\n{options.queries:,} of {len(features):,} pictures held out; ")
    sys.stdout.write(f"the first {CANDIDATES:,} by similarity are ordered again\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
