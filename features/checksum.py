"""Content hashes."""

from __future__ import annotations

import hashlib
import os


def sha256_of(source: str | os.PathLike[str] | bytes) -> str:
    """SHA-256 of a file or of bytes, as 64 hexadecimal digits."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    with open(source, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()
