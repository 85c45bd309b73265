"""Content hashes."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO, cast


def sha256_of(source: str | os.PathLike[str] | bytes | BinaryIO) -> str:
    """SHA-256 of a file, of what an open file has yet to give, or of bytes, as 64 hexadecimal digits."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.file_digest(cast(Any, source), "sha256").hexdigest()
