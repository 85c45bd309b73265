"""Images decoded once for many epochs: shrunken, and kept side by side in one memory-mapped file.

At the small sizes at which a CPU can train, reading and decoding a photograph takes as long as the network takes for
it; reading its few shrunken pixels takes next to nothing.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from features.checksum import sha256_of
from features.collection.file_facts import stat_of
from features.collection.manifest import write_json
from features.datasets import DatasetError, Item, common_folder
from features.encoders.preprocessing import without_far_ends
from features.images import ImageError, decode_image
from features.picture_files import read_picture

logger = logging.getLogger(__name__)

PIXELS = "pixels.u8"
SHAPES = "pixels.json"

_AHEAD = 64
"""Images that may be decoded and not yet written."""


class Pixels:
    """The decoded images of some items, each (height, width, 3) uint8 with the short side at `short` pixels.

    Parameters
    ----------
    folder : Path
        Where the file is, or will be made. One that was made of other images, or at another size, is replaced.
    items : sequence of Item
    short : int
    root : Path, optional
        Where all of them are; the folder that they have in common by default.
    follow_links : bool
        Whether links may lead out of the root: see `picture_files.open_picture`.
    max_pixels : int, optional
        See `decode_image`.
    progress : bool
        Show a progress bar on stderr while decoding.

    Raises
    ------
    DatasetError
        None of them can be decoded.
    OSError
        There is no room for them.
    """

    def __init__(
        self,
        folder: Path,
        items: Sequence[Item],
        short: int,
        *,
        root: Path | None = None,
        follow_links: bool = False,
        max_pixels: int | None = None,
        progress: bool = True,
    ) -> None:
        self.fingerprint = _fingerprint(items, short)
        shapes = _read_shapes(folder, self.fingerprint)
        if shapes is None:
            root = root or common_folder(items)
            shrunken = partial(_shrunken, short=short, root=root, follow_links=follow_links, max_pixels=max_pixels)
            shapes = _decode_all(folder, items, short, shrunken, progress)
            write_json(folder / SHAPES, {"fingerprint": self.fingerprint, "shapes": shapes})
        self._shapes = np.array(shapes, dtype=np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum(self._shapes.prod(axis=1) * 3)])
        self._flat = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r")

    def __getitem__(self, place: int) -> np.ndarray:
        height, width = self._shapes[place]
        return self._flat[self._starts[place] : self._starts[place + 1]].reshape(height, width, 3)

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def damaged(self) -> np.ndarray:
        """Places of the items that could not be decoded."""
        return np.flatnonzero(self._shapes[:, 0] == 0)


def _fingerprint(items: Sequence[Item], short: int) -> str:
    lines = [f"{os.fsencode(item.path)!r} {stat_of(item.path)}" for item in items]
    return sha256_of("\n".join([f"short side {short}", *lines]).encode())


def _read_shapes(folder: Path, fingerprint: str) -> list[tuple[int, int]] | None:
    try:
        made = json.loads((folder / SHAPES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(made, dict) or made.get("fingerprint") != fingerprint:
        return None
    shapes = [(height, width) for height, width in made["shapes"]]
    there = (folder / PIXELS).stat().st_size if (folder / PIXELS).is_file() else -1
    return shapes if there == sum(height * width * 3 for height, width in shapes) else None


def _decode_all(
    folder: Path,
    items: Sequence[Item],
    short: int,
    shrunken: Callable[[Item], np.ndarray | None],
    progress: bool,
) -> list[tuple[int, int]]:
    needed = len(items) * short * short * 4  # most photographs are 4:3 or 3:2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"about {needed >> 20} MiB are needed in {folder} for the shrunken images, {free >> 20} are free")
    (folder / SHAPES).unlink(missing_ok=True)
    shapes: list[tuple[int, int]] = []
    pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
    try:
        with (
            (folder / PIXELS).open("wb") as file,
            tqdm(total=len(items), unit="image", desc="decoding", disable=not progress) as bar,
        ):
            for pixels in _in_order(pool, items, shrunken):
                shapes.append((0, 0) if pixels is None else (pixels.shape[0], pixels.shape[1]))
                file.write(b"" if pixels is None else pixels.tobytes())
                bar.update()
            file.flush()
            os.fsync(file.fileno())
    finally:
        pool.shutdown(cancel_futures=True)
    if not any(height for height, _ in shapes):
        raise DatasetError(f"none of the {len(items)} images can be decoded")
    return shapes


def _in_order(
    pool: ThreadPoolExecutor, items: Sequence[Item], shrunken: Callable[[Item], np.ndarray | None]
) -> Iterator[np.ndarray | None]:
    ahead: deque[Future[np.ndarray | None]] = deque()
    for item in items:
        ahead.append(pool.submit(shrunken, item))
        if len(ahead) > _AHEAD:
            yield ahead.popleft().result()
    for job in ahead:
        yield job.result()


def _shrunken(item: Item, *, short: int, root: Path, follow_links: bool, max_pixels: int | None) -> np.ndarray | None:
    try:
        content = read_picture(root, item.path, follow_links=follow_links)
        picture = Image.fromarray(without_far_ends(decode_image(content, min_side=short, max_pixels=max_pixels)))
    except ImageError as error:
        logger.warning("left out: %s: %s", item.path, error.reason)
        return None
    width, height = picture.size
    scale = short / min(width, height)
    # Never below `short`, whatever the rounding: the validation's centre crop needs it whole.
    size = (max(short, int(width * scale)), max(short, int(height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
