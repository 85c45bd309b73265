"""What it costs to add pictures to a large collection: ``python -m benchmarks.appending --rows 100000``.

Vectors of the collection are made, its pictures are empty files of which nothing but the names is read; the added
pictures are painted, and encoded for real. What is measured of each step: seconds, bytes written to files, and the most
memory that the process had of its own at a time (anonymous pages: what is mapped from a file is not among it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.collection.records import Facts
from features.collection.store import FeatureStore
from features.collection.writer import StoreWriter
from features.datasets import ImageFolder, Item
from features.encoders import Encoder, create_encoder
from features.encoding import extract
from features.phash import HASH_BYTES
from search.build import append_collection, create_index, create_spaces
from search.duplicate_pairs import find_duplicates
from search.engine import SearchEngine
from search.space import VISUAL

_BATCH = 4_096
_A_FOLDER = 1_000  # files
_LOOK_SECONDS = 0.02
_SIZE = (320, 240)

Step = dict[str, Any]


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def written_bytes() -> int:
    """What this process has handed to the system to be written, since it began."""
    told = Path("/proc/self/io").read_text()
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("wchar:"))


@contextmanager
def measured(steps: list[Step], name: str) -> Iterator[Step]:
    """Measure what is done in a ``with`` block."""
    step: Step = {"step": name}
    most, is_over = anonymous_bytes(), threading.Event()

    def look() -> None:
        nonlocal most
        while not is_over.wait(_LOOK_SECONDS):
            most = max(most, anonymous_bytes())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    written, started = written_bytes(), time.perf_counter()
    try:
        yield step
    finally:
        seconds = time.perf_counter() - started
        is_over.set()
        looking.join()
        step.update(
            seconds=round(seconds, 2),
            written_mb=round((written_bytes() - written) / 1e6, 1),
            most_mb=round(max(most, anonymous_bytes()) / 1e6),
        )
        steps.append(step)
        sys.stderr.write(f"{json.dumps(step)}\n")


def made_rows(count: int, dim: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Vectors as those of pictures: none negative, in heaps, no two the same."""
    heaps = np.abs(np.random.default_rng(1).standard_normal((2_000, dim), np.float32))
    noise = np.abs(np.random.default_rng(2).standard_normal((5_000, dim), np.float32))
    one, other, place = generator.integers(0, [2_000, 2_000, 5_000], (count, 3)).T
    part: NDArray[np.float32] = generator.random((count, 1), np.float32)
    return heaps[one] + part * heaps[other] + 0.5 * noise[place]


class BrightnessEncoder:
    """Stands for a network where only the number of dimensions matters: the brightness of places of a picture."""

    name, classes, min_side = "brightness", (), None

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.spec = {"name": self.name, "dim": dim, "weights": {"argument": None, "source": "", "sha256": "0" * 64}}

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen = image[:: image.shape[0] // 12, :: image.shape[1] // 16].mean(axis=2, dtype=np.float32)
        return np.resize(seen, self.dim)

    def encode_prepared(self, prepared: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack(prepared).astype(np.float32)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self.encode_prepared([self.preprocess(image) for image in images])


class MadePictures:
    """As many pictures as are wanted: empty files, or none at all, of which the collection then knows nothing new."""

    name = "made"

    def __init__(self, root: Path, count: int, *, has_files: bool) -> None:
        self.root = root
        self.items = [
            Item(number, root / f"{number // _A_FOLDER:04}" / f"{number:07}.jpg", ()) for number in range(count)
        ]
        for place in {item.path.parent for item in self.items} if has_files else ():
            place.mkdir(parents=True)
        for item in self.items if has_files else ():
            item.path.touch()


def made_collection(folder: Path, count: int, encoder: Encoder, *, has_files: bool) -> FeatureStore:
    """A collection of made vectors."""
    dataset = MadePictures(folder / "images", count, has_files=has_files)
    generator = np.random.default_rng(0)
    with closing(StoreWriter(folder / "made", dataset, dataset.items, encoder.spec, "float16")) as writer:
        for start in range(0, count, _BATCH):
            rows = made_rows(min(_BATCH, count - start), encoder.dim, generator)
            facts = [
                Facts(generator.bytes(32).hex(), *_SIZE, None, generator.bytes(HASH_BYTES)) for _ in range(len(rows))
            ]
            writer.append(rows, facts)
        return writer.finish()


def paint(folder: Path, count: int, seed: int) -> None:
    """Pictures of coloured patches."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        patches = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(patches).resize(_SIZE, Image.Resampling.BICUBIC).save(folder / f"{seed}-{number:05}.jpg")


def measure(
    folder: Path,
    rows: int,
    added: int,
    encoder: Encoder,
    spaces: Sequence[str],
    *,
    factory: str | None = None,
    engines: Sequence[str] | None = None,
    has_files: bool = True,
) -> list[Step]:
    """Make a collection, add to it, and say what each step took."""
    steps: list[Step] = []
    with measured(steps, "vectors and catalog"):
        store = made_collection(folder, rows, encoder, has_files=has_files)
    with measured(steps, "indexes"):
        create_index(store, factory=factory, engines=engines)
    for name in spaces:
        if name != VISUAL:
            with measured(steps, f"space {name}"):
                create_spaces(store, [*store.manifest.get("spaces", {}), name], encoder=encoder)
    with measured(steps, "duplicates"):
        find_duplicates(store)
    del store
    paint(folder / "images" / "new", added, 1)
    encoder.encode([np.zeros((*_SIZE, 3), np.uint8)] * 4)  # what is loaded or compiled once is no part of it
    with measured(steps, "the new pictures alone, encoded"):
        extract(ImageFolder(folder / "images" / "new"), encoder, folder / "alone", progress=False)
    size = (folder / "made" / "features.npy").stat()
    with measured(steps, "the new pictures, added") as step:
        dataset = ImageFolder(folder / "images")
        report, updates = append_collection(folder / "made", dataset=dataset, encoder=encoder, progress=False)
    step["updates"] = [str(update) for update in updates]
    step["vectors_copied"] = (folder / "made" / "features.npy").stat().st_ino != size.st_ino
    step["added"] = len(report.added)
    with measured(steps, "opened to be searched"):
        SearchEngine.open(folder / "made")
    return steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.appending", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="pictures that there are (%(default)s)")
    parser.add_argument("--added", type=int, default=1_000, metavar="N", help="pictures that come (%(default)s)")
    parser.add_argument("--dim", type=int, metavar="N", help="no network, but brightness at so many places")
    parser.add_argument(
        "--no-files", action="store_true", help="of the pictures that there are: their names are not read"
    )
    parser.add_argument("--factory", help="of the indexes")
    parser.add_argument("--engines", metavar="NAME,NAME", help="(ivfpq,faiss)")
    parser.add_argument("--spaces", default="visual,neighbourhood,concepts", metavar="NAME,NAME", help="(%(default)s)")
    parser.add_argument("--folder", type=Path, help="an empty folder for it; by default one that goes again")
    options = parser.parse_args(arguments)
    encoder: Any = create_encoder("auto") if options.dim is None else BrightnessEncoder(options.dim)
    folder = options.folder or Path(tempfile.mkdtemp())
    try:
        steps = measure(
            folder,
            options.rows,
            options.added,
            encoder,
            options.spaces.split(","),
            factory=options.factory,
            engines=None if options.engines is None else options.engines.split(","),
            has_files=not options.no_files,
        )
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    sys.stdout.write(json.dumps({"rows": options.rows, "added": options.added, "steps": steps}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
