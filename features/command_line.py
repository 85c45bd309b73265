"""What command lines share: their streams, and how a collection is named."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from features.collection.manifest import MANIFEST
from features.paths import expanded


def set_up_streams(level: int) -> None:
    """Send log messages from `level` on to standard error, and write what a terminal's encoding does not have."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # names of files may hold anything
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def add_collections(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that work on a collection: where it lies."""
    parser.add_argument(
        "--collections", type=expanded, default=Path("collections"), metavar="DIR", help="where it lies (%(default)s)"
    )


def collection_folder(collections: Path, name: str) -> Path:
    """The collection of this name in a folder of collections, or that in the folder which is named itself.

    Where there is neither, the first: it is what the message will name.
    """
    named = collections / name
    own = expanded(name)
    return own if (own / MANIFEST).is_file() and not (named / MANIFEST).is_file() else named
