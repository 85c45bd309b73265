"""What goes wrong with a collection, and the sentence for it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

_PROBE_BYTES = 1 << 20


class StoreError(ValueError):
    """A store is missing, damaged, incomplete, or its parts (or an encoder) do not belong together."""


def cannot_write(path: Path, error: OSError | sqlite3.Error) -> StoreError:
    """The error for a file that cannot be written, with the operating system's own reason.

    sqlite keeps the reason to itself, so it is found out by writing another file in the same folder.
    """
    reason = error.strerror if isinstance(error, OSError) else os_reason(path)
    return StoreError(f"{path} cannot be written: {reason or error}")


def os_reason(path: Path) -> str | None:
    """Why a file of this folder and size cannot be written, in the operating system's words; None where it can."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        size = path.stat().st_size if path.exists() else 0
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * _PROBE_BYTES)
                file.flush()
                file.truncate(size + _PROBE_BYTES)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        if path.exists():
            path.open("r+b").close()
    except OSError as error:
        return error.strerror
    return None
