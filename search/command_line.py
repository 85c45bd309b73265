"""What the command lines that work on a collection share: the folder of a collection, refusals."""

from __future__ import annotations

import sys

from features.command_line import add_collections, collection_folder

__all__ = ["add_collections", "collection_folder", "refused"]


def refused(error: Exception) -> int:
    """Say in one line on standard error what is wrong; returns the exit code."""
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return 2
