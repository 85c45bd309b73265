"""Pictures out of a zip file that may have been made to do harm.

Nothing is written outside the folder given, whatever the names in the zip are; no links are made; and what it unpacks
to is counted while it is written, so that a small file cannot fill the disk.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from features.images import extensions

MAX_BYTES = 20 * 2**30  # unpacked, all files together
MAX_FILE_BYTES = 2**29  # as features.extract reads
MAX_FILES = 500_000
_CHUNK = 2**20


class ZipError(ValueError):
    """The zip file is damaged, or nothing that should be unpacked; the message says why."""


def unpack(
    source: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_files: int = MAX_FILES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Unpack the pictures of a zip file into a new folder.

    Only what is called like a picture is written. Hidden files are passed over, and so is a folder that everything
    else lies in: its name would be part of every label.

    Parameters
    ----------
    folder : Path
        Is made; must not exist. After an error it may hold some of the pictures.
    progress : callable
        Called with the bytes written so far and the bytes there will be.

    Returns
    -------
    int
        How many other files were passed over.

    Raises
    ------
    ZipError
        A name leads out of the folder, an entry is a link or no plain file, the zip is encrypted or damaged, unpacks
        to more than the limits, or holds no picture.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [(_place(info), info) for info in archive.infolist() if not info.is_dir()]
            shown = [(place, info) for place, info in entries if not any(part.startswith(".") for part in place.parts)]
            shown = [(place, info) for place, info in shown if place.parts[0] != "__MACOSX"]
            known = extensions()
            pictures = [(place, info) for place, info in shown if place.suffix.lower() in known]
            _check(pictures, max_bytes, max_file_bytes, max_files)
            top = {place.parts[0] for place, _ in pictures} if all(len(p.parts) > 1 for p, _ in pictures) else set()
            strip = 1 if len(top) == 1 else 0
            total = sum(info.file_size for _, info in pictures)
            folder.mkdir(parents=True)
            done = 0
            for place, info in pictures:
                target = folder.joinpath(*place.parts[strip:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, open(target, "xb") as file:  # noqa: PTH123  # "x": never over another
                    size = 0
                    while chunk := packed.read(_CHUNK):
                        size += len(chunk)
                        if size > info.file_size:
                            raise ZipError(f"{info.filename!r} unpacks to more than the zip file says.")
                        file.write(chunk)
                done += size
                progress(done, total)
            return len(shown) - len(pictures)
    except FileExistsError as error:
        raise ZipError(f"The zip file holds two files called {os.path.basename(error.filename)!r}.") from error  # noqa: PTH119
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        # RuntimeError: encrypted; NotImplementedError: packed by a method that Python does not know.
        raise ZipError(f"The zip file cannot be read: {error}.") from error
    except OSError as error:
        raise ZipError(f"The zip file cannot be unpacked: {error.strerror or error}.") from error


def _place(info: zipfile.ZipInfo) -> PurePosixPath:
    """Where a file of the zip belongs, below the folder."""
    name = info.filename  # zipfile has replaced "\\" on Windows only, and cut the name at NUL
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or ":" in place.parts[:1] or not place.parts:
        raise ZipError(f"The zip file names a place outside its folder: {name!r}.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ZipError(f"The zip file holds a link or a device: {name!r}.")
    return place


def _check(
    pictures: list[tuple[PurePosixPath, zipfile.ZipInfo]], max_bytes: int, max_file_bytes: int, max_files: int
) -> None:
    if not pictures:
        raise ZipError("The zip file holds no picture.")
    if len(pictures) > max_files:
        raise ZipError(f"The zip file holds {len(pictures):,} pictures; at most {max_files:,} are taken.")
    largest = max((info for _, info in pictures), key=lambda info: info.file_size)
    if largest.file_size > max_file_bytes:
        raise ZipError(f"{largest.filename!r} has {largest.file_size:,} bytes; at most {max_file_bytes:,} are read.")
    total = sum(info.file_size for _, info in pictures)
    if total > max_bytes:
        raise ZipError(f"The pictures unpack to {total:,} bytes; at most {max_bytes:,} are taken.")
