"""Pictures out of a zip file that may have been made to do harm.

Nothing is written outside the folder given, whatever the names in the zip are; no links are made; and what it unpacks
to is counted while it is written, and held against what is free on the disk, so that a small file cannot fill it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from features.datasets.walk import LeftOut, why_not_taken
from features.images import extensions

MAX_BYTES = 20 * 2**30  # unpacked, all files together
MAX_FILE_BYTES = 2**29  # as features.extract reads
MAX_FILES = 500_000
KEEP_FREE = 2**30  # bytes of the disk that are left to others
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
) -> list[LeftOut]:
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
    list of LeftOut
        The other files, but for hidden ones.

    Raises
    ------
    ZipError
        A name leads out of the folder, an entry is a link or no plain file, the zip is encrypted or damaged, unpacks
        to more than the limits or than there is room for, or holds no picture.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [(_place(info), info) for info in archive.infolist() if not _is_folder(info)]
            shown = [(place, info) for place, info in entries if not any(part.startswith(".") for part in place.parts)]
            shown = [(place, info) for place, info in shown if place.parts[0] != "__MACOSX"]
            known = extensions()
            pictures = [(place, info) for place, info in shown if place.suffix.lower() in known]
            _check(pictures, max_bytes, max_file_bytes, max_files)
            top = {place.parts[0] for place, _ in pictures} if all(len(p.parts) > 1 for p, _ in pictures) else set()
            strip = 1 if len(top) == 1 else 0
            total = sum(info.file_size for _, info in pictures)
            _check_room(total, folder)
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
            written = {place for place, _ in pictures}
            others = [place for place, _ in shown if place not in written]
            return [LeftOut(place.as_posix(), why_not_taken(place) or "other files (no extension)") for place in others]
    except ZipError:
        raise
    except FileExistsError as error:
        raise ZipError(f"The zip file holds two files called {os.path.basename(error.filename)!r}.") from error  # noqa: PTH119
    except OSError as error:
        raise ZipError(f"The zip file cannot be unpacked: {error.strerror or error}.") from error
    except MemoryError as error:
        raise ZipError("The zip file cannot be unpacked: there is not enough memory.") from error
    except Exception as error:
        # zipfile and the decompressors meet hostile bytes here and raise whatever the broken field led to: BadZipFile,
        # zlib.error, LZMAError, EOFError, RuntimeError (encrypted), NotImplementedError (packed by an unknown method),
        # UnicodeDecodeError, struct.error, ... Every one of them means that the file is damaged.
        raise ZipError(f"The zip file cannot be read: {error or type(error).__name__}.") from error


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _place(info: zipfile.ZipInfo) -> PurePosixPath:
    """Where a file of the zip belongs, below the folder."""
    if not PurePosixPath(info.filename.replace("\\", "/")).parts:
        raise ZipError("The zip file holds a file without a name.")
    place = place_below(info.filename)
    if place is None:
        raise ZipError(f"The zip file names a place outside its folder: {info.filename!r}.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ZipError(f"The zip file holds a link or a device: {info.filename!r}.")
    return place


def place_below(name: str) -> PurePosixPath | None:
    """Where a file of a name from outside belongs, below a folder; None where the name means anything else."""
    # Old packers of Windows separate folders by backslashes. zipfile has cut the name at NUL.
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half a character
        return None
    place = PurePosixPath(name.replace("\\", "/"))
    if not place.parts or place.is_absolute() or ".." in place.parts or "\0" in name or not _is_plain(place):
        return None
    return place


def _is_plain(place: PurePosixPath) -> bool:
    """Whether no part of a name means something else than itself: a drive, or on Windows a stream or a device."""
    if re.match("[A-Za-z]:", place.parts[0]):
        return False
    if os.name != "nt":
        return True
    devices = r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    return not any(":" in part or re.fullmatch(devices, part, re.IGNORECASE) for part in place.parts)


def _check_room(total: int, folder: Path) -> None:
    above = next(parent for parent in folder.absolute().parents if parent.is_dir())
    room = shutil.disk_usage(above).free - KEEP_FREE
    if total > room:
        raise ZipError(
            f"The pictures unpack to {total:,} bytes, and there is room for {max(room, 0):,}: "
            "free some on the disk first."
        )


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
