"""What came is a picture: decoded to show it, reduced if asked, and kept under its name. Done in other processes.

Where one file is enough to end a process, another process takes its place and the others' files are done again.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from PIL import Image

from features.images import STRANGERS_PICTURES, TOO_LARGE, ImageError, decode_image
from features.images.formats import FILE_ENDINGS, open_with_pillow, readable_formats

JPEG_QUALITY = 90
_PNG = b"\x89PNG\r\n\x1a\n"
_TIMES = 3  # that a file may be given to a process which then ends


@dataclass(frozen=True)
class Kept:
    """A picture under its name.

    Attributes
    ----------
    file : str
        Relative to the folder.
    bytes, width, height : int
    """

    file: str
    bytes: int
    width: int
    height: int


@dataclass(frozen=True)
class NotKept:
    """Why what came is not kept: what it is counted as, and a sentence."""

    cause: str
    message: str


def file_of(key: str, suffix: str) -> str:
    """The place of a picture in its folder: nothing of it comes from the wire."""
    return f"{key[:2]}/{key}{suffix}"


def keep_picture(part: str, folder: str, key: str, resize: int | None) -> Kept | NotKept:
    """Look whether a file is a picture and give it its name; what is under that name is complete.

    Parameters
    ----------
    part, folder, key : str
        The file, the folder of pictures, on the same file system, and what the picture is called.
    resize : int, optional
        The longer side, in pixels, to which a larger picture is reduced; it becomes a JPEG. Others stay as they came.

    Raises
    ------
    OSError
        The picture cannot be written.
    """
    content = Path(part).read_bytes()
    suffix, size = _told_by_header(content)
    longer = max(size)
    try:
        if resize is None or longer <= resize:
            pixels = decode_image(content, limits=STRANGERS_PICTURES)
        else:
            # At twice its new size a JPEG is still sharp; it need not be decoded at more.
            pixels = decode_image(content, min_side=max(1, 2 * resize * min(size) // longer), limits=STRANGERS_PICTURES)
    except ImageError as error:
        cause = "too many pixels" if error.reason.startswith(TOO_LARGE) else "damaged"
        return NotKept(cause, error.reason[:300])
    if suffix is None:  # a camera's raw file, say, of which the small picture in it was decoded
        return NotKept("not an image", "It is of none of the kinds that are kept.")
    height, width = pixels.shape[:2]
    done = Path(part)
    if resize is not None and max(longer, width, height) > resize:  # the header may not have said how large it is
        suffix = ".jpg"
        scale = resize / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        done = Path(f"{part}.reduced")
        reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        reduced.save(done, "JPEG", quality=JPEG_QUALITY)
    with done.open("r+b") as file:
        os.fsync(file.fileno())
        count = os.fstat(file.fileno()).st_size
    name = file_of(key, suffix)
    target = Path(folder, name)
    target.parent.mkdir(exist_ok=True)
    done.replace(target)
    return Kept(name, count, width, height)


def _told_by_header(content: bytes) -> tuple[str | None, tuple[int, int]]:
    """The ending of a file's name and the size of the picture; None and (1, 1) where its header does not say."""
    try:
        image = open_with_pillow(content, [name for name in readable_formats() if name in FILE_ENDINGS])
    except Exception:  # Pillow's readers meet hostile bytes here; decoding says what is wrong, or does without them
        return (".png" if content.startswith(_PNG) else None), (1, 1)
    return (None, (1, 1)) if image is None else (FILE_ENDINGS.get(image.format or ""), image.size)


class PictureProcesses:
    """Processes that keep pictures, for one event loop."""

    def __init__(self, folder: Path, resize: int | None, processes: int | None = None) -> None:
        self._folder, self._resize = str(folder), resize
        self._count = processes or os.cpu_count() or 1
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._count, mp_context=context, initializer=_end_with_parent)

    async def keep(self, part: Path, key: str) -> Kept | NotKept:
        """See `keep_picture`."""
        for time in range(_TIMES):
            pool = self._pool
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    pool, keep_picture, str(part), self._folder, key, self._resize
                )
            except FileNotFoundError:
                if not time:
                    raise
                break  # the process ended after it had given the picture its name
            except BrokenProcessPool:
                if self._pool is pool:
                    pool.shutdown(wait=False)
                    self._pool = self._started()
        return NotKept("cannot be decoded", "The process that decodes it ends.")

    def close(self) -> None:
        """End the processes, once they have done what they are doing."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """In a process of the pool: leave Ctrl-C to the parent, and end where that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
