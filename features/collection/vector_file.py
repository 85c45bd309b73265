"""Files of vectors, row = id, that can grow at their end.

The manifest's entry of such a file says what of it counts: the rows that its header speaks of, with which it was
written, and after them those of each part in ``grown``. What is written at its end counts from the moment at which a
manifest says so; until then, and where its writer was stopped, it is only surplus, which the next writer overwrites.
Rows that count are never written again, so who has the file open keeps what was there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from features.collection.errors import StoreError
from features.collection.manifest import vector_files
from features.collection.schema import MANIFEST

MAX_PARTS = 256
"""Parts that a file may have grown by; then it is written anew, so that the manifest stays small."""

_CHUNK = 1 << 20


def write_vectors(
    path: Path, shape: tuple[int, int], dtype: np.dtype[Any], blocks: Iterable[np.ndarray]
) -> dict[str, Any]:
    """Write vectors as an npy file, durably; returns its entry for the manifest."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    checksum = hashlib.sha256(header.getvalue())
    try:
        with path.open("wb") as file:
            file.write(header.getvalue())
            _write(file, blocks, checksum)
    except OSError as error:
        _name(error, path)
        raise
    return {"file": path.name, "sha256": checksum.hexdigest()}


def grow_vectors(folder: Path, entry: Mapping[str, Any], blocks: Iterable[np.ndarray]) -> dict[str, Any]:
    """Write rows behind those of a file that count, durably; returns the entry that counts them, too.

    Parameters
    ----------
    blocks : iterable of arrays (b, dim)
        Of the type that the file has.
    """
    path = folder / entry["file"]
    end = _end(map_vectors(folder, entry))
    checksum, rows = hashlib.sha256(), 0

    def counted() -> Iterable[np.ndarray]:
        nonlocal rows
        for block in blocks:
            rows += len(block)
            yield block

    try:
        with path.open("r+b") as file:
            file.seek(end)
            try:
                _write(file, counted(), checksum)
            except BaseException:
                file.truncate(end)  # a full disk gets its room back
                raise
            file.truncate()  # of a longer surplus nothing stays
    except OSError as error:
        _name(error, path)
        raise
    return {**entry, "grown": [*entry.get("grown", ()), {"rows": rows, "sha256": checksum.hexdigest()}]}


def can_grow(entry: Mapping[str, Any]) -> bool:
    """Whether a file may grow by another part."""
    return len(entry.get("grown", ())) < MAX_PARTS


def map_vectors(folder: Path, entry: Mapping[str, Any]) -> np.memmap:
    """The rows of a file that count, memory-mapped, read-only.

    Raises
    ------
    OSError, ValueError
        It cannot be read, is no npy file, or is shorter than it should be.
    """
    path = folder / entry["file"]
    # Not np.load: that takes a zip file of arrays as well.
    written: np.memmap = np.lib.format.open_memmap(path, mode="r")
    more = sum(part["rows"] for part in entry.get("grown", ()))
    if not more:
        return written
    if written.ndim != 2 or not written.flags.c_contiguous:
        raise ValueError(f"an array {written.shape} cannot have grown")
    shape = (len(written) + more, written.shape[1])
    return np.memmap(path, written.dtype, "r", written.offset, shape)


def check_vectors(folder: Path, entry: Mapping[str, Any]) -> None:
    """Raise StoreError unless the rows that count are, bit for bit, what was written."""
    path = folder / entry["file"]
    try:
        end = _end(map_vectors(folder, {"file": entry["file"]}))
        width = map_vectors(folder, entry)[:1].nbytes
        with path.open("rb") as file:
            _check(path, file, end, entry.get("sha256"))
            for part in entry.get("grown", ()):
                _check(path, file, part["rows"] * width, part["sha256"])
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except StoreError:
        raise
    except Exception as error:  # numpy reads the header as Python: whatever a broken one leads to means damage
        raise StoreError(f"{path} is damaged: {error}") from error


def surplus(folder: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes behind the rows that count, by file: of a writer that was stopped, or is at work."""
    found = {}
    for entry in vector_files(manifest):
        with suppress(OSError, ValueError):  # what cannot be read is found elsewhere
            found[entry["file"]] = (folder / entry["file"]).stat().st_size - _end(map_vectors(folder, entry))
    return {file: count for file, count in found.items() if count}


def cut_surplus(folder: Path, manifest: dict[str, Any]) -> None:
    """Take away what `surplus` counts. For who holds the lock."""
    for file, count in surplus(folder, manifest).items():
        path = folder / file
        os.truncate(path, path.stat().st_size - count)


def _end(rows: np.memmap) -> int:
    return int(rows.offset + rows.nbytes)


def _write(file: BinaryIO, blocks: Iterable[np.ndarray], checksum: Any) -> None:
    for block in blocks:
        content = block.tobytes()
        checksum.update(content)
        file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _check(path: Path, file: BinaryIO, count: int, wanted: str | None) -> None:
    """Compare the sum of the next bytes with what the manifest says."""
    checksum = hashlib.sha256()
    while count and (content := file.read(min(count, _CHUNK))):
        checksum.update(content)
        count -= len(content)
    found = checksum.hexdigest()
    if found != (wanted or found):
        raise StoreError(f"{path} is damaged: its SHA-256 is {found}, but {path.parent / MANIFEST} says {wanted}")


def _name(error: OSError, path: Path) -> None:
    if error.errno is not None and error.filename is None:  # a full disk does not say which file it is about
        error.filename = os.fspath(path)
