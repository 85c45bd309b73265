"""The one way to open a picture of a collection, for whoever shows, sends, searches with or encodes it.

A name in a folder of pictures may be a link to any file of the machine, a pipe that nobody writes to, or a device that
never ends. What is opened here lies below the collection's root, is a regular file and is read up to a limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.images import ImageError, decode_image

MAX_FILE_BYTES = 1 << 29
"""Default size limit of a picture file: files are read whole, by several threads at once."""

_CHUNK = 1 << 20

# Without O_NONBLOCK opening a pipe would wait for its writer; O_NOFOLLOW refuses a link that has taken the file's place
# since it was looked at.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def open_picture(root: str | os.PathLike[str], path: str | os.PathLike[str], *, follow_links: bool = False) -> BinaryIO:
    """Open a picture file of a collection for reading.

    Links within the root are followed. Whether the picture may be shown at all, or is marked damaged, is for the caller
    to know. What is checked is what was opened: ``os.fstat`` of the result tells its size.

    Parameters
    ----------
    root : path
        The collection's root folder.
    path : path
        Of the file, relative to the root, or absolute.
    follow_links : bool
        Whether links may lead out of the root, as the owner asked when the collection was made.

    Raises
    ------
    ImageError
        The file is missing, lies outside the root, is not a regular file, or cannot be opened. ``errno`` is set where
        the operating system said so, which tells what is not known (a drive that is away) from what is refused.
    """
    name = os.fspath(path)
    try:
        resolved, folder = Path(os.path.realpath(Path(root, path), strict=True)), Path(os.path.realpath(root))
        if follow_links:
            descriptor = os.open(resolved, _FLAGS)
        elif resolved.is_relative_to(folder):
            descriptor = _open_below(folder, resolved)
        else:
            raise ImageError(name, f"a link to {resolved}, which is outside {os.fspath(root)}")
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(name, error.strerror or str(error), error.errno) from error
    except ValueError as error:  # a NUL character in the path
        raise ImageError(repr(name), str(error)) from error
    kind = file_kind(os.fstat(descriptor).st_mode)
    if kind is not None:
        os.close(descriptor)
        raise ImageError(name, f"a {kind}, not a file")
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123


def _open_below(folder: Path, file: Path) -> int:
    """Open a file below a folder, both without links, one part of the path after the other.

    A link that has taken the place of any of them since they were looked at is refused.
    """
    if os.open not in os.supports_dir_fd:  # Windows
        return os.open(file, _FLAGS)
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
    *parents, name = file.relative_to(folder).parts or (".",)
    inside = os.open(folder, flags)
    try:
        for parent in parents:
            outside, inside = inside, os.open(parent, flags, dir_fd=inside)
            os.close(outside)
        return os.open(name, _FLAGS, dir_fd=inside)
    finally:
        os.close(inside)


def read_picture(
    root: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_FILE_BYTES,
    follow_links: bool = False,
) -> bytes:
    """Read a picture file of a collection; see `open_picture`.

    Raises
    ------
    ImageError
        As `open_picture`; also where there are more than `max_bytes`, however many were announced.
    """
    with open_picture(root, path, follow_links=follow_links) as file:
        announced = os.fstat(file.fileno()).st_size
        parts: list[bytes] = []
        count, wanted = 0, announced + 1
        try:
            while max(count, announced) <= max_bytes and (part := file.read(wanted)):
                parts.append(part)
                count, wanted = count + len(part), _CHUNK  # a file may be longer than it was when it was opened
        except OSError as error:
            raise ImageError(os.fspath(path), error.strerror or str(error), error.errno) from error
    if max(count, announced) > max_bytes:
        raise ImageError(os.fspath(path), f"too large: {max(count, announced)} bytes; at most {max_bytes} are read")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def stored_pixels(
    manifest: Mapping[str, Any], path: str | os.PathLike[str], *, min_side: int | None = None
) -> NDArray[np.uint8]:
    """A picture of the collection of a manifest, decoded as it was for the collection, uint8 (H, W, 3).

    Parameters
    ----------
    min_side : int, optional
        See `decode_image`.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    source = manifest.get("source") or {}
    content = read_picture(manifest["root"], path, follow_links=source.get("follow_links") is True)
    megapixels = source.get("max_megapixels")
    try:
        return decode_image(
            content, min_side=min_side, max_pixels=None if megapixels is None else round(megapixels * 1e6)
        )
    except ImageError as error:
        raise ImageError(os.fspath(path), error.reason, error.errno) from error


def file_kind(mode: int) -> str | None:
    """What a file is by its ``st_mode``, in a word; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFLNK: "link",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")
