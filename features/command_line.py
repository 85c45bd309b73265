"""What command lines share: their streams."""

from __future__ import annotations

import logging
import sys


def set_up_streams(level: int) -> None:
    """Send log messages from `level` on to standard error, and write what a terminal's encoding does not have."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # names of files may hold anything
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
