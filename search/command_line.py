"""What the command lines that work on a collection share: streams, the folder of a collection, refusals."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from features.collection.manifest import MANIFEST


def set_up_streams(level: int) -> None:
    """Send log messages from `level` on to standard error, and write what a terminal's encoding does not have."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # names of files may hold anything
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def collection_folder(collections: Path, name: str) -> Path:
    """The collection of this name in a folder of collections, or that in the folder which is named itself.

    Where there is neither, the first: it is what the message will name.
    """
    named = collections / name
    own = Path(name)
    return own if (own / MANIFEST).is_file() and not (named / MANIFEST).is_file() else named


def refused(error: Exception) -> int:
    """Say in one line on standard error what is wrong; returns the exit code."""
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return 2
