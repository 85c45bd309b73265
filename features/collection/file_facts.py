"""What a collection keeps of an image file without reading it: its path, size and time."""

from __future__ import annotations

import os
from pathlib import Path

from features.collection.folding import folded

UNKNOWN_TIME = 2**63 - 1
"""Stands for times that sqlite cannot hold, as of the year 2300, with either sign; no two of them are the same."""


def path_to(path: Path) -> str | bytes:
    """A relative path as the catalog holds it: text, or bytes if it is not valid UTF-8."""
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def path_from(stored: str | bytes) -> Path:
    """What `path_to` was given."""
    return Path(os.fsdecode(stored))


def parts_of(stored: str | bytes) -> tuple[str, str, str, str | None, str | None]:
    """Folder, name and, in lower case, ending of a path as the catalog holds it; folder and name once more, `folded`.

    What is plain ASCII is not folded, but None: sqlite compares that without regard to case by itself.
    """
    text = stored if isinstance(stored, str) else stored.decode("utf-8", "replace")
    folder, _, name = text.rpartition("/")
    stem, _, ending = name.rpartition(".")
    folder_folded, name_folded = (None if part.isascii() else folded(part) for part in (folder, name))
    return folder, name, ending.lower() if stem else "", folder_folded, name_folded


def stat_of(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; (-1, 0) for a file that cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, max(-UNKNOWN_TIME, min(found.st_mtime_ns, UNKNOWN_TIME))
