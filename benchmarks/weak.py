"""Whether weak matches are told: ``python -m benchmarks.weak collections/caltech101``.

Ten classes are withheld, and so are 500 pictures of the others. Both ask what is left: for a picture of a withheld
class there is nothing right to be found. AUC is how often, of one query of each kind, that of the kept class has the
stronger hits (`search.strength`); beside it the same of the plain similarity of the five nearest. Then the share of
each kind that is told to have weak matches. Labels say what is withheld, and nothing else reads them. A file of
features serves too: ``FEATURES.npz`` with `features` (n, d) and `labels` (n,).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.pictures import Floats, Stored
from benchmarks.words import NAMELESS
from features.paths import expanded
from ivfpq.distances import normalised
from search.engine import SearchEngine
from search.neighbour_order import Ranked
from search.strength import ASKED, NEAREST, StrengthOfHits

DRAWS = 10
WITHHELD = 10
ASKED_OF_EACH = 500
MEASURES = ("AUC", "AUC, plain", "told of a withheld class", "told of a kept class")


class Asked:
    """Vectors that are searched, and how strong what they find is."""

    def __init__(self, features: Floats) -> None:
        stored = Stored.of(features)
        self._features = features
        self._strength = StrengthOfHits(stored, _Rows(features))

    def of(self, queries: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Strength of the hits of each query, their plain similarity, and whether they are told to be weak."""
        values, plain, weak = [], [], []
        for query, similarities in zip(queries, queries @ self._features.T, strict=True):
            first = np.argpartition(-similarities, ASKED)[:ASKED]
            found = self._strength.of(query, Ranked(first, similarities[first], similarities[first]))
            assert found is not None
            values.append(found.value)
            plain.append(np.sort(similarities[first])[-NEAREST:].mean())
            weak.append(found.is_weak)
        return np.array(values), np.array(plain), np.array(weak)


class _Rows:
    def __init__(self, features: Floats) -> None:
        self._features = features

    def rows(self, ids: NDArray[np.int64]) -> Floats:
        return self._features[ids]


def auc(stronger: NDArray[np.float64], weaker: NDArray[np.float64]) -> float:
    """How often one of `stronger` is above one of `weaker`; equal ones count half."""
    ordered = np.sort(weaker)
    below = np.searchsorted(ordered, stronger, "left") + np.searchsorted(ordered, stronger, "right")
    return float(below.mean() / (2 * len(weaker)))


def one_draw(features: Floats, labels: NDArray[np.str_], seed: int, asked: int = ASKED_OF_EACH) -> NDArray[np.float64]:
    """`MEASURES` with ten classes withheld that are drawn by this seed."""
    rng = np.random.default_rng(seed)
    named = ~np.isin(labels, NAMELESS)
    withheld = np.isin(labels, rng.choice(np.unique(labels[named]), WITHHELD, replace=False))
    strangers, known = (
        rng.choice(rows, min(asked, rows.size // 2), replace=False)
        for rows in (np.flatnonzero(withheld), np.flatnonzero(named & ~withheld))
    )
    kept = ~withheld
    kept[known] = False
    collection = Asked(features[kept])
    (strong, near, false_alarm), (weak, far, told) = collection.of(features[known]), collection.of(features[strangers])
    return np.array([auc(strong, weak), auc(near, far), told.mean(), false_alarm.mean()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weak", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=expanded, help="a folder of collections/, or a file of features and labels")
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help="of ten classes each (%(default)s)")
    options = parser.parse_args(arguments)
    if options.source.is_file():
        with np.load(options.source, allow_pickle=False) as given:
            features, labels = normalised(given["features"].astype(np.float32)), given["labels"].astype(str)
    else:
        store = SearchEngine.open(options.source).store
        features = normalised(np.asarray(store.features[store.ids], np.float32))
        labels = np.array([",".join(store.items[id].labels) for id in store.ids.tolist()])
    draws = np.array([one_draw(features, labels, seed) for seed in range(options.draws)])
    lines = ["| of ten withheld classes | mean | lowest | highest |", "|---|--:|--:|--:|"]
    for name, column in zip(MEASURES, draws.T, strict=True):
        lines.append(f"| {name} | {column.mean():.3f} | {column.min():.3f} | {column.max():.3f} |")
    sys.stdout.write("\n".join(lines) + f"\n\n{len(features):,} pictures, {options.draws} draws\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
