"""How long leafing through a collection takes on the server: ``python -m benchmarks.browsing``.

The pictures are made up, without files; a leaf is the HTML of 60 of them, counts are those of five open facets. Each is
measured in processor time: right after an edit, when what was kept of annotations is read again, and once more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from features.collection import edits
from features.collection.records import Facts
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.collection.writer import StoreWriter
from features.datasets import Item
from gradio_app.browse_address import BrowseAddress
from gradio_app.tabs.browse import views
from search.filters import Filter

BATCH = 4096
OPEN = ("label", "folder", "tag", "camera", "rating")
_NUMBERS = count(1)
SPEC = {"name": "made up", "dim": 4, "weights": {"argument": None, "sha256": "0" * 64}, "size": 8}
STEPS: dict[str, dict[str, Any]] = {
    "all pictures": {},
    "a label": {"label": "l3"},
    "three labels, without a tag": {"label": ["l1", "l2", "l3"], "not": {"tag": "w0"}},
    "a camera, two ratings, not a folder": {"camera": "c1", "rating": [3, 4], "not": {"folder": "f5"}},
    "a tag, a size, no album": {"tag": "w1", "size": {"gt": "500kb"}, "album": {"empty": True}},
}


def made_store(folder: Path, size: int) -> FeatureStore:
    """A collection of pictures that do not exist, of each of which a model, a camera and people say something."""
    rng = np.random.default_rng(0)
    root = folder / "pictures"
    items = [Item(id, root / f"f{id % 20}" / f"p{id}.jpg", (f"l{id % 30}",)) for id in range(size)]
    dataset: Any = SimpleNamespace(items=items, root=root, name="made up")
    writer = StoreWriter(folder / "c", dataset, items, SPEC, "float16")
    for begin in range(0, size, BATCH):
        rows = min(BATCH, size - begin)
        writer.append(
            rng.standard_normal((rows, 4)).astype(np.float32),
            [Facts(f"{id:064x}", 640, 480, None) for id in range(begin, begin + rows)],
        )
    store = writer.finish()
    records, said = store.records(), store.annotations
    for begin in range(0, size, BATCH):
        batch = records[begin : begin + BATCH]
        words = np.minimum(rng.zipf(1.3, (len(batch), 3)), 5_000) - 1
        said.put(
            Maker("file", "made up"),
            "1",
            [
                (
                    record,
                    Words(
                        {},
                        {f"w{word}": None for word in each.tolist()},
                        {
                            "camera": f"c{record.id % 9}",
                            "rating": record.id % 6,
                            "taken": datetime(2000 + record.id % 25, 1, 1, tzinfo=UTC),
                        },
                    ),
                )
                for record, each in zip(batch, words, strict=True)
            ],
        )
    edits.set_favourite(said, range(0, size, 50), True)
    edits.put_in_album(said, range(0, size, 100), "best")
    return store


def milliseconds(action: Callable[[], object]) -> float:
    """Of the processor."""
    begin = time.process_time()
    action()
    return 1e3 * (time.process_time() - begin)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browsing", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="pictures (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is taken (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        store = made_store(Path(made), options.count)
        engine: Any = SimpleNamespace(name="made", store=store)
        shelf = views.Shelf.of(engine)
        out = sys.stdout
        out.write(f"{options.count:,} pictures, milliseconds of the processor, medians of {options.rounds}\n\n")
        first = milliseconds(lambda: views.leaf(shelf, BrowseAddress()))
        counted = milliseconds(lambda: views.facets(shelf, BrowseAddress(), OPEN, ()))
        out.write(f"first of all: a leaf {first:.0f}, counts {counted:.0f}\n\n")
        out.write("| shown | leaf after an edit | leaf | counts after an edit | counts |\n|---|--:|--:|--:|--:|\n")
        for title, filter in STEPS.items():
            address = BrowseAddress(Filter.of(filter))
            times = np.array([_round(shelf, address, round) for round in range(options.rounds)])
            shown = " | ".join(f"{each:.0f}" for each in np.median(times, axis=0))
            out.write(f"| {title} | {shown} |\n")
        out.write("\n| order of all pictures | first | again |\n|---|--:|--:|\n")
        for order in ("name", "date", "size", "label", "random"):
            address = BrowseAddress(order=order, seed=1, leaf=100)
            once, *again = [milliseconds(lambda: views.leaf(shelf, address)) for _ in range(options.rounds + 1)]  # noqa: B023
            out.write(f"| {order} | {once:.0f} | {np.median(again):.0f} |\n")
        out.write("\n| edit | done | undone |\n|---|--:|--:|\n")
        for size in (1, 60, 1_000):
            changed = [_edit(store, size, round) for round in range(options.rounds)]
            done, undone = np.median(np.array(changed), axis=0)
            out.write(f"| a tag for {size:,} | {done:.0f} | {undone:.0f} |\n")


def _round(shelf: views.Shelf, address: BrowseAddress, round: int) -> tuple[float, ...]:
    times: list[float] = []
    for draw in (lambda: views.leaf(shelf, address), lambda: views.facets(shelf, address, OPEN, ())):
        edits.add_tag(shelf.engine.store.annotations, [round], f"new {next(_NUMBERS)}")
        times += [milliseconds(draw), milliseconds(draw)]
    return tuple(times)


def _edit(store: FeatureStore, size: int, round: int) -> tuple[float, float]:
    ids = range(round * size, (round + 1) * size)
    done = milliseconds(lambda: edits.add_tag(store.annotations, ids, "seen"))
    return done, milliseconds(lambda: edits.undo(store.annotations))


if __name__ == "__main__":
    main()
