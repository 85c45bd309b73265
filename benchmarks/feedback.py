"""What judgements of hits gain: ``python -m benchmarks.feedback collections/caltech101``.

Pictures of a collection, and the names of its labels, are searched. Of each query whose first 20 hits hold a right one
and a wrong one, some of these are judged, from the first on: right ones are meant, wrong ones are not. P@20 is the
share of right ones among the next 20 pictures that were not shown yet, without judgements and with them. Only labels
with enough pictures count. The weights in `search.feedback` were chosen on one half of the labels, by a seed; what they
gain is told by the other half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.words import NAMELESS
from features.command_line import add_collections, collection_folder
from search.engine import SearchEngine
from search.errors import QueryError
from search.hits import Answer
from search.options import NEIGHBOURHOOD
from search.query import FeedbackPart, ImagePart, Part, Query, TextPart

SHOWN = 20
LABEL_MIN = 45
"""Pictures of a label: as many as are shown, judged and found."""
JUDGED = {"one check, one cross": 1, "up to three of each": 3, "all 20": SHOWN}
HALVES = ("chosen on", "held out")

Gains = dict[tuple[str, str, str], list[float]]
"""P@20 of each query, by kind of query, half and row."""


def halves_of(counts: Mapping[str, int], seed: int = 0) -> dict[str, str]:
    """In which half each label is that has enough pictures."""
    labels = sorted(label for label, count in counts.items() if count >= LABEL_MIN and label not in NAMELESS)
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    return {labels[place]: HALVES[at % 2] for at, place in enumerate(order)}


def judged(answer: Answer, label: str, most: int) -> FeedbackPart | None:
    """The first right and wrong hits, at most so many of each; None where either is missing."""
    right = [hit.id for hit in answer if label in hit.labels]
    wrong = [hit.id for hit in answer if label not in hit.labels]
    return FeedbackPart(tuple(right[:most]), tuple(wrong[:most])) if right and wrong else None


def precision(answer: Answer, shown: Answer, label: str) -> float:
    """Share of right ones among the first 20 that were not shown."""
    new = [hit for hit in answer if hit.id not in shown.ids][:SHOWN]
    return sum(label in hit.labels for hit in new) / SHOWN


def measure(
    engine: SearchEngine, part: Part, label: str, index: str, neighbourhood: float = NEIGHBOURHOOD
) -> dict[str, float]:
    """P@20 of a query, without judgements and with them; empty where there is nothing to judge."""
    try:
        before = engine.search(Query((part,)), 2 * SHOWN, engine=index, neighbourhood=neighbourhood)
    except QueryError:  # a name that means nothing
        return {}
    shown = before.first(SHOWN)
    if judged(shown, label, 1) is None:
        return {}
    found = {"no judgement": precision(before, shown, label)}
    for row, most in JUDGED.items():
        feedback = judged(shown, label, most)
        assert feedback is not None
        after = engine.search(Query((part, feedback)), 2 * SHOWN, engine=index, neighbourhood=neighbourhood)
        found[row] = precision(after, shown, label)
    return found


def table(gains: Gains, kinds: Sequence[str]) -> str:
    """A Markdown table: a line for each number of judgements, P@20 and what it is more for each half."""
    columns = [(kind, half) for kind in kinds for half in HALVES if gains.get((kind, half, "no judgement"))]
    counts = [len(gains[kind, half, "no judgement"]) for kind, half in columns]
    named = [f"{kind}, {half} ({count:,} queries)" for (kind, half), count in zip(columns, counts, strict=True)]
    lines = ["| | " + " | ".join(named) + " |", "|---|" + "--:|" * len(columns)]
    for row in ("no judgement", *JUDGED):
        cells = []
        for kind, half in columns:
            value, base = (float(np.mean(gains[kind, half, name])) for name in (row, "no judgement"))
            cells.append(
                f"{value:.3f}" + ("" if row == "no judgement" else f" (+{value - base:.3f})".replace("+-", "-"))
            )
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feedback", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    add_collections(parser)
    parser.add_argument("--queries", type=int, default=600, metavar="N", help="pictures searched (%(default)s)")
    parser.add_argument("--engine", default="exact", help="the index (%(default)s)")
    parser.add_argument(
        "--neighbourhood",
        type=float,
        default=NEIGHBOURHOOD,
        metavar="W",
        help="how much neighbours count in the order, with judgements and without (%(default)s)",
    )
    options = parser.parse_args(arguments)
    engine = SearchEngine.open(collection_folder(options.collections, options.collection))
    halves = halves_of(engine.labels)
    labels = {id: engine.store.items[id].labels for id in engine.store.ids.tolist()}
    usable = np.array([id for id, borne in labels.items() if len(borne) == 1 and borne[0] in halves])
    asked = np.random.default_rng(0).permutation(usable)[: options.queries].tolist()
    queries: list[tuple[str, Part, str]] = [("pictures", ImagePart(id), labels[id][0]) for id in asked]
    queries += [("names", TextPart(label.replace("_", " ").lower()), label) for label in halves]
    gains: Gains = {}
    for kind, part, label in queries:
        for row, value in measure(engine, part, label, options.engine, options.neighbourhood).items():
            gains.setdefault((kind, halves[label], row), []).append(value)
    encoder = engine.store.manifest["encoder"]["name"]
    sys.stdout.write(
        f"{table(gains, ('pictures', 'names'))}\n\n{len(labels):,} pictures, {encoder}, {options.engine}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
