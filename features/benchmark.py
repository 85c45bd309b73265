"""What the way images are encoded here gains over plain torch: ``python -m features.extract --benchmark``.

Plain is what a short script does: one image after the other decoded whole and prepared, and 16 at a time through the
network as it was loaded, in eager float32. Ours is what `features.extract` does, short of writing to disk. Both start
from the same files, take turns in one process, and use as many threads as torch does; each keeps its best turn.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features.datasets import Item, common_folder
from features.encoders import Encoder, EncoderError, create_encoder
from features.encoding import encode_items
from features.images import ImageError, decode_image
from features.picture_files import read_picture

ENCODERS = ("resnet50", "efficientnet-lite0", "efficientnet-lite2", "efficientnet-lite2+lite0")
_BATCH = 16
_TURNS = 2


@dataclass(frozen=True)
class Row:
    """One encoder's line: milliseconds an image, and the least cosine between its plain vectors and ours."""

    encoder: str
    runtime: str
    plain_ms: float
    ours_ms: float
    pixels_ms: float
    cosine: float

    @property
    def ratio(self) -> float:
        return self.plain_ms / self.ours_ms


def benchmark(
    items: Sequence[Item],
    names: Sequence[str] = ENCODERS,
    *,
    limit: int | None = None,
    root: Path | None = None,
    follow_links: bool = False,
) -> str:
    """Measure encoders on the CPU with image files and tell it as text.

    Parameters
    ----------
    items : sequence of Item
        Those that cannot be read are left out.
    names : sequence of str
        Encoders. One whose weights are not here is left out and said so, but for ResNet50: it is measured with weights
        made by a seed, which takes the same time.
    limit : int, optional
        Take this many images, spread evenly; 128 by default.
    root : Path, optional
        Where all of them are; the folder that they have in common by default.
    follow_links : bool
        Whether links may lead out of the root: see `picture_files.open_picture`.
    """
    limit = limit or 128
    reading: dict[str, Any] = {"root": root or common_folder(items), "follow_links": follow_links}
    items = [item for item in items[:: max(1, len(items) // limit)][:limit] if _is_readable(item, reading)]
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                weights = _seeded_resnet50(Path(folder)) if name == "resnet50" else None
                rows.append(measure(name, items, weights=weights, **reading))
            except EncoderError as error:
                notes.append(f"{name} was not measured: {error}")
                continue
            if weights is not None:
                notes.append(f"{name} with weights made by a seed: its own are not on this machine")
    head = f"{len(items)} images, end to end from their files; plain is eager float32 with batches of {_BATCH}"
    return "\n".join([machine(), head, "", *_table(rows), *notes])


def measure(
    name: str,
    items: Sequence[Item],
    *,
    weights: str | os.PathLike[str] | None = None,
    root: Path | None = None,
    follow_links: bool = False,
) -> Row:
    """Measure one encoder on items that can all be read; for `root` and `follow_links` see `benchmark`."""
    reading: dict[str, Any] = {"root": root or common_folder(items), "follow_links": follow_links}
    by_extraction = partial(_by_extraction, reading=reading)
    plain = create_encoder(name, weights=weights, device="cpu", runtime="eager")
    ours = create_encoder(name, weights=weights, device="cpu")
    # What the first batch pays for, memory and code that is prepared when first used, is paid here.
    _plainly(items[:_BATCH], plain)
    by_extraction(items[:_BATCH], ours)
    turns = [(_timed(_plainly, items, plain), _timed(by_extraction, items, ours)) for _ in range(_TURNS)]
    images = [decode_image(read_picture(path=item.path, **reading), min_side=ours.min_side) for item in items]
    from_pixels = min(_timed(lambda some, encoder: encoder.encode(some), images, ours)[0] for _ in range(_TURNS))
    (_, expected), (_, found) = turns[0]
    cosines = (expected * found).sum(1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1))
    runtime = ours.spec["runtime"]
    return Row(
        encoder=name,
        runtime=f"{runtime['name']} {runtime['precision']}",
        plain_ms=min(turn[0][0] for turn in turns),
        ours_ms=min(turn[1][0] for turn in turns),
        pixels_ms=from_pixels,
        cosine=float(cosines.min()),
    )


def machine() -> str:
    """The processor, the threads and the versions that times depend on, in one line."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    versions = [f"Python {platform.python_version()}"]
    for package in ("torch", "openvino", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {', '.join(versions)}"


def _timed(
    run: Callable[[Any, Encoder], np.ndarray], what: Sequence[Any], encoder: Encoder
) -> tuple[float, np.ndarray]:
    """Milliseconds an image, and the vectors."""
    start = time.perf_counter()
    features = run(what, encoder)
    return (time.perf_counter() - start) * 1e3 / len(what), features


def _plainly(items: Sequence[Item], encoder: Encoder) -> np.ndarray:
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    return np.concatenate(
        [encoder.encode_prepared([encoder.preprocess(decode_image(item.path)) for item in batch]) for batch in batches]
    )


def _by_extraction(items: Sequence[Item], encoder: Encoder, reading: dict[str, Any]) -> np.ndarray:
    with closing(encode_items(items, encoder, 32, **reading)) as batches:
        return np.concatenate([features for features, _ in batches])


def _is_readable(item: Item, reading: dict[str, Any]) -> bool:
    try:
        decode_image(read_picture(path=item.path, **reading))
    except ImageError:
        return False
    return True


def _seeded_resnet50(folder: Path) -> Path | None:
    """A file with weights made by a seed; None if ResNet50's own are on this machine."""
    from safetensors.torch import save_file

    from features.encoders.resnet50 import cached_weights, resnet50

    if cached_weights() is not None:
        return None
    path = folder / "seeded.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(resnet50(weights=None).state_dict(), path)
    return path


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| encoder | runtime | plain ms/image | ours ms/image | ours images/s | ratio | from pixels, ms | cosine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {row.encoder} | {row.runtime} | {row.plain_ms:.1f} | {row.ours_ms:.1f} | {1e3 / row.ours_ms:.0f} "
        f"| {row.ratio:.2f} | {row.pixels_ms:.1f} | {row.cosine:.5f} |"
        for row in rows
    ]
