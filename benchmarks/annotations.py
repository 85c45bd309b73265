"""How fast words and filters are over many pictures, all made up: ``python -m benchmarks.annotations``.

Each is asked twice: of an open collection that has been asked for something else before, and again. What is told are
milliseconds of a processor, the fewest of seven rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.collection.annotations import Annotations
from features.collection.catalog import Catalog
from features.collection.fields import own_field
from features.collection.records import Record, Row
from features.collection.said import Maker, Words
from search.grammar import parse

BATCH = 4096
WORD_COUNT = 5_000
QUERIES = ("w0", "w7 w40", "w3 w11 w200 w4000", "w999")
FILTERS = (
    "tag:w3 rating:>=4 year:2010..2015 label:l1",
    "tag:w0|w1|w2 caption:*w1* rating:<3 size:>500000",
    "source:file -tag:w0 year:>2005 folder:f3",
    "name:*p1* format:jpg size:>5 path:*7*",
    "caption:*w1* caption:*w2* caption:*w3* caption:*w4*",
)


class MadeCollection:
    """A catalog of pictures that do not exist, and annotations of them.

    Attributes
    ----------
    folder : Path
    manifest : dict
    generation : int
    """

    generation = 0

    def __init__(self, folder: Path, count: int) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.manifest: dict[str, Any] = {}
        rows = [
            Row(id, Path(f"f{id % 20}/p{id}.jpg"), 10 * id, 10**18 + id, f"{id:064x}", 640, 480, None)
            for id in range(count)
        ]
        self.catalog = Catalog.create(folder / "catalog.sqlite")
        self.catalog.fill(rows, ((id, (f"l{id % 30}",)) for id in range(count)))
        self._records = [Record(*row[:5]) for row in rows]
        self.annotations = Annotations.open(self)
        for start in range(0, count, BATCH):
            batch = self._records[start : start + BATCH]
            words = [
                [f"w{word}" for word in each] for each in np.minimum(rng.zipf(1.3, (len(batch), 12)), WORD_COUNT) - 1
            ]
            said = [
                Words({" ".join(each[:9]): None}, dict.fromkeys(each[9:]), {"rating": id % 6, "year": 2000 + id % 25})
                for id, each in enumerate(words)
            ]
            self.annotations.put(Maker("file", "made up"), "1", zip(batch, said, strict=True))

    def records(self, ids: Sequence[int] | None = None) -> list[Record]:
        return self._records if ids is None else [self._records[id] for id in ids]

    def update_manifest(self, **entries: Any) -> None:
        self.manifest.update(entries)


def fastest(begin: Callable[[], Callable[[], object]], times: int = 7) -> tuple[float, float]:
    """CPU milliseconds of what `begin` gives when it is called first and when called again, the fewest of each."""
    first: list[float] = []
    again: list[float] = []
    for _ in range(times):
        action = begin()
        for taken in (first, again):
            started = time.process_time()
            action()
            taken.append(time.process_time() - started)
    return 1e3 * min(first), 1e3 * min(again)


def words_of(made: MadeCollection, text: str) -> Callable[[], int]:
    """The search for a text in annotations that have just been opened."""
    annotations = Annotations.open(made)
    annotations.word_scores("something else")
    return lambda: annotations.word_scores(text)[0].size


def filter_of(made: MadeCollection, typed: str) -> Callable[[], int]:
    """The look for what a filter lets through in a catalog that has just been opened."""
    own = {name: own_field(name, kind) for name, kind in made.annotations.fields().items()}
    catalog = Catalog.open(made.catalog.path)

    def find(typed: str) -> int:
        tree = parse(typed).filter.where
        assert tree is not None
        return catalog.ids_matching(tree, made.annotations.path, own).size

    find("tag:else favourite:yes")
    return lambda: find(typed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.annotations", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="pictures (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        made = MadeCollection(Path(folder), options.count)
        lines = ["| asked | found | CPU ms at first | again |", "|---|--:|--:|--:|"]
        for kind, begin, asked in (("words", words_of, QUERIES), ("filter", filter_of, FILTERS)):
            for typed in asked:
                found = begin(made, typed)()
                first, again = fastest(lambda: begin(made, typed))  # noqa: B023
                lines.append(
                    f"| {kind} `{typed.replace('|', chr(92) + '|')}` | {found:,} | {first:.1f} | {again:.1f} |"
                )
        made.annotations.close()
        made.catalog.close()
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
