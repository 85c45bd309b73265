"""What words add to a picture, and what they take beside one: ``python -m benchmarks.mixed collections/caltech101``.

Pictures of a collection are searched, alone and with the name of their label beside, each counting as much as the
other. The picture itself is left out. P@10 is the share of hits among the first ten that bear its label. Then names
that were not asked before and cut copies of pictures, files that no collection knows, are searched in turns, from the
file or the words to the hits, once all models are loaded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.words import NAMELESS
from features.command_line import add_collections, collection_folder
from features.images import decode_image
from search.engine import SearchEngine
from search.hits import Answer
from search.query import ImagePart, Part, Query, TextPart

K = 10


def name_of(label: str) -> str:
    """A label as a person types it."""
    return label.replace("_", " ").lower()


def precision(answer: Answer, label: str) -> float:
    """Share of the first ten hits that bear a label."""
    return sum(label in hit.labels for hit in answer.first(K)) / K


def precisions(engine: SearchEngine, asked: Mapping[int, str], index: str) -> dict[str, float]:
    """P@10 of pictures, whose labels are given, alone, with their name, and of the name alone."""
    found: dict[str, list[float]] = {}
    for id, label in asked.items():
        picture, name = ImagePart(id), TextPart(name_of(label))
        ways: dict[str, tuple[Part, ...]] = {
            "picture": (picture,),
            "picture and name": (picture, name),
            "name": (name,),
        }
        for way, parts in ways.items():
            found.setdefault(way, []).append(precision(engine.search(Query(parts), K, engine=index), label))
    return {way: float(np.mean(values)) for way, values in found.items()}


def cut_copies(engine: SearchEngine, ids: Sequence[int], folder: Path) -> list[Path]:
    """JPEG files of pictures, less a sixteenth on each side."""
    files = []
    for id in ids:
        pixels = decode_image(engine.store.items[id].path)
        height, width = (side // 16 for side in pixels.shape[:2])
        files.append(folder / f"{id}.jpg")
        Image.fromarray(pixels[height : len(pixels) - height, width : pixels.shape[1] - width]).save(files[-1])
    return files


def times(engine: SearchEngine, files: Sequence[Path], texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Median milliseconds, by the clock and of processors, of a picture and of a text, asked in turns."""
    taken: dict[str, list[tuple[float, float]]] = {"picture": [], "text": []}
    engine.search(files[0], K)
    engine.search(Query((TextPart(texts[0]),)), K)
    for file, text in zip(files[1:], texts[1:], strict=False):
        for way, query in (("picture", file), ("text", Query((TextPart(text),)))):
            began = time.perf_counter(), time.process_time()
            engine.search(query, K)
            taken[way].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        way: (float(clock), float(processor))
        for way, each in taken.items()
        for clock, processor in [1e3 * np.median(each, axis=0)]
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    add_collections(parser)
    parser.add_argument("--queries", type=int, default=500, metavar="N", help="pictures searched (%(default)s)")
    parser.add_argument("--engine", default="exact", help="the index of what is measured by hits (%(default)s)")
    options = parser.parse_args(arguments)
    engine = SearchEngine.open(collection_folder(options.collections, options.collection))
    labels = {id: engine.store.items[id].labels for id in engine.store.ids.tolist()}
    usable = [id for id, borne in labels.items() if len(borne) == 1 and borne[0] not in NAMELESS]
    chosen = np.random.default_rng(0).permutation(usable)[: options.queries].tolist()
    lines = ["| asked | P@10 |", "|---|--:|"]
    for way, value in precisions(engine, {id: labels[id][0] for id in chosen}, options.engine).items():
        lines.append(f"| {way} | {value:.3f} |")
    texts = [f"a {name_of(label)}" for label in sorted({labels[id][0] for id in usable})]
    lines += ["", "| asked, warm | ms | CPU ms |", "|---|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        for way, (clock, processor) in times(
            engine, cut_copies(engine, chosen[: len(texts)], Path(folder)), texts
        ).items():
            lines.append(f"| {way} | {clock:.0f} | {processor:.0f} |")
    encoder = engine.store.manifest["encoder"]["name"]
    sys.stdout.write("\n".join(lines) + f"\n\n{len(labels):,} pictures, {len(chosen):,} asked, {encoder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
