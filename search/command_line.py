"""What the command lines that work on a collection share: the folder of a collection, refusals."""

from __future__ import annotations

import sys
from pathlib import Path

from features.collection.manifest import MANIFEST
from features.paths import expanded


def collection_folder(collections: Path, name: str) -> Path:
    """The collection of this name in a folder of collections, or that in the folder which is named itself.

    Where there is neither, the first: it is what the message will name.
    """
    named = collections / name
    own = expanded(name)
    return own if (own / MANIFEST).is_file() and not (named / MANIFEST).is_file() else named


def refused(error: Exception) -> int:
    """Say in one line on standard error what is wrong; returns the exit code."""
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return 2
