"""Index files: a safetensors file whose metadata describes the index. No pickle, nothing executed.

    8 bytes    length of the header, little-endian
    header     JSON: name, type, shape and place of each array, and under "__metadata__":
                   format     "ivfpq"
                   version    of this layout: "4" with codes in pairs, else "3"; "2" is read too
                   kind       the class, e.g. "IndexIVFPQ"
                   parameters JSON: the arguments of its constructor; in place of an index or a transform among them,
                              {"kind": ..., "parameters": ...}
                   metadata   JSON: the user's
                   settings   JSON: what `tune` has found, if anything: [k, recall, found, nprobe, k_factor or null],
                              ...; who does not know it reads the rest
                   data       SHA-256 of all that follows the header
                   header     SHA-256 of the length and the header, this sum itself written as zeros
               padded with spaces so that the arrays start at a multiple of 64 bytes
    arrays     one after the other, little-endian, C order, the widest numbers first

What each kind keeps (`state`), n vectors in all:

    IndexFlat          ids (n, b), vectors float32 (n, d), and sizes int64 (2,) as below if there are zero vectors
    IndexIVFPQ         sizes int64 (nlist,), and list after list, each in whole blocks of 64 vectors: ids (rows, b), -1
                       where a last block has places to spare, and codes (rows / 64, width, 64), uint8 up to 8 bits a
                       number and uint16 above, the numbers of a code one below the other; once trained, centroids
                       float32 (nlist, d) and codebooks float32 (M, ksub, d / M). width is M, or M + 1 where vectors
                       have terms (see `kernels.quantizers`). If there are zero vectors (see `cosine`), there is a list
                       of these more: sizes are (nlist + 1,). Numbers of 4 bits are not in codes but in pairs, two a
                       byte, the first in the lower half: width is then ceil(M / 2), or 1 more (before version 4 each
                       had a byte, in codes)
    IndexIVFRQ         the same with codebooks float32 (M, ksub, d) and terms of two numbers, so that width is M, for
                       inner products, or M + 2 (in version 2 always M)
    IndexIVFSQ         the same with codebooks float32 (2, d), the beginnings and the widths of the components' ranges,
                       and code after code: ids (n, b), codes uint8 (n, width, 1). The last four bytes are the term, a
                       float32, so that width is d, for inner products, or d + 4
    IndexIVFRaBitQ     the same as IndexIVFSQ with codebooks (0, d), and codes of B planes of ceil(d / 8) bytes and two
                       float32 (see `rabitq`), behind which is the term, but for inner products
    IndexPQ, IndexRQ,  the same as these four with one list, whose centroid is the origin; IndexPQ has no terms
    IndexSQ,
    IndexRaBitQ
    IndexPreTransform  of trained linear transform i, transformi.A float32 (d_out, d_in) and transformi.b (d_out,); what
                       the index inside keeps, each name with "index." before it
    IndexRefine        ids (n, b), vectors float32 or float16 (n, d), or, in bytes, sizes, codes and codebooks as
                       IndexSQ; what the base keeps, "index." before its names

An id is b bytes, uint8, the lowest first: 3 while all are below 2**24 - 1, else as many as the largest needs (see
`invlists.pack_ids`).

Any program that reads safetensors can read it. The file is written here rather than by the safetensors package because
of what that does not offer: sums that cover the header too, alignment, and no second copy of the arrays in memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ivfpq.atomic_file import replaced
from ivfpq.base import StoredIndex
from ivfpq.checks import IndexFileError
from ivfpq.tuning import from_json, to_json

VERSION = "3"
VERSION_OF_PAIRS = "4"  # older programs cannot read it, and say so; they read all others
READ = ("2", VERSION, VERSION_OF_PAIRS)
ALIGNMENT = 64
HEADER_MAX = 100_000_000  # as the safetensors package
CHUNK = 1 << 24

_TYPES = {
    "I64": "<i8",
    "F32": "<f4",
    "U16": "<u2",
    "F16": "<f2",
    "U8": "|u1",
}  # widest first: each array stays aligned to its type
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
_NO_SUM = "0" * 64
_SUM_FIELD = b'"header": "'


def save(index: StoredIndex, path: str | os.PathLike[str], *, metadata: dict[str, Any] | None = None) -> None:
    """Write `index` to `path`, all or nothing: whatever happens, the old file or the new one is there.

    Parameters
    ----------
    index : any index of ours
    path : path-like
        Its folder must exist; a file of that name is replaced and keeps its permissions, a link to it is followed.
    metadata : dict, optional
        Stored instead of `index.metadata`; anything that JSON gives back as it was.

    Raises
    ------
    TypeError, ValueError
        If `index` is not one of ours, or JSON cannot hold the metadata, or would change it: a key that is no string,
        a tuple.
    OSError
        If the file cannot be written.
    """
    parts = _encoded(index, metadata)
    with replaced(path) as file:
        for part in parts:
            file.write(part)


def to_bytes(index: StoredIndex, *, metadata: dict[str, Any] | None = None) -> bytes:
    """What `save` would write. Arguments and errors as there."""
    return b"".join(_encoded(index, metadata))


def from_bytes(data: bytes) -> StoredIndex:
    """The index that `to_bytes` wrote. Errors as of `load`."""
    return _checked("the bytes", io.BytesIO(data), False)


def _encoded(index: StoredIndex, metadata: dict[str, Any] | None) -> list[bytes | memoryview]:
    """The parts of a file, one after the other."""
    kind = type(index).__name__
    if StoredIndex.kinds.get(kind) is not type(index):
        raise TypeError(f"save takes {', '.join(StoredIndex.known_kinds())}, got {kind}")
    metadata = index.metadata if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}")
    written = json.dumps(metadata, allow_nan=False)
    if (known := json.loads(written)) != metadata:
        changed = next((key for key, value in metadata.items() if key not in known or known[key] != value), None)
        raise ValueError(f"metadata would not come back from the file as it is: JSON changes what is under {changed!r}")
    parameters, arrays = index.state()
    named = sorted(((n, np.ascontiguousarray(a)) for n, a in arrays.items()), key=lambda e: (-e[1].itemsize, e[0]))

    data_sum = hashlib.sha256()
    entries: dict[str, Any] = {}
    offset = 0
    for name, array in named:
        data_sum.update(_bytes(array))
        span = [offset, offset + array.nbytes]
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": span}
        offset += array.nbytes
    entries["__metadata__"] = {
        "format": "ivfpq",
        "version": VERSION_OF_PAIRS if any(name.endswith("pairs") for name in arrays) else VERSION,
        "kind": kind,
        "parameters": json.dumps(parameters, allow_nan=False),
        "metadata": written,
        **({"settings": to_json(index.settings)} if index.settings else {}),
        "data": data_sum.hexdigest(),
        "header": _NO_SUM,
    }
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > HEADER_MAX:
        raise ValueError(f"metadata is too large: the header would take {len(text)} bytes, at most {HEADER_MAX} fit")
    head = len(text).to_bytes(8, "little") + text
    place = head.rindex(_SUM_FIELD) + len(_SUM_FIELD)
    head = head[:place] + hashlib.sha256(head).hexdigest().encode() + head[place + len(_NO_SUM) :]

    return [head, *(_bytes(array) for _, array in named)]


def load(path: str | os.PathLike[str], *, mmap: bool = False) -> StoredIndex:
    """Read an index that `save` wrote.

    Parameters
    ----------
    path : path-like
    mmap : bool
        Leave the arrays in the file, to be paged in as they are used and shared between processes. The file must stay
        as it is meanwhile (`save` to the same name is fine: it makes a new file). The sums are checked all the same.

    Raises
    ------
    IndexFileError
        If the file is not an index, or is truncated, damaged, or of a later version; the message names it and says
        what is wrong.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        return _checked(path, file, mmap)


def _checked(name: object, file: BinaryIO, mmap: bool) -> StoredIndex:
    """What `_load` gives; its errors as IndexFileErrors that begin with the name."""
    try:
        return _load(file, mmap)
    except IndexFileError as error:
        raise IndexFileError(f"{name}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise IndexFileError(f"{name}: the parts of the index do not fit together: {error}") from error


def _load(file: BinaryIO, mmap: bool) -> StoredIndex:
    entries, start, size = _header(file)
    about = entries.pop("__metadata__")
    if about["version"] not in READ:
        raise IndexFileError(
            f"written in version {about['version']} of the format, this program reads {', '.join(READ)}: build it again"
        )
    kind: Any = StoredIndex.kinds.get(about["kind"])
    if kind is None:
        raise IndexFileError(f"holds an index of the unknown kind {about['kind']!r}")
    spans = _spans(entries, size - start)
    data_sum = hashlib.sha256()
    arrays: dict[str, Any] = {}
    for name, dtype, shape, offset in spans:
        if mmap and np.prod(shape, dtype=object):
            array: Any = np.asarray(np.memmap(file, dtype, "r", start + offset, tuple(shape)))
            data_sum.update(_bytes(array))
        else:
            array = np.empty(shape, dtype)
            file.seek(start + offset)
            for chunk in _chunks(array):
                if file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]
                    raise IndexFileError("truncated while it was being read")
                data_sum.update(chunk)
            array.flags.writeable = False  # quantizers need no copy
        arrays[name] = array
    if data_sum.hexdigest() != about["data"]:
        raise IndexFileError("the arrays are damaged: their SHA-256 is not the recorded one")
    metadata = json.loads(about["metadata"])
    if not isinstance(metadata, dict):
        raise IndexFileError(f"the metadata must be an object, got {type(metadata).__name__}")
    index: StoredIndex = kind.from_state(json.loads(about["parameters"]), arrays)
    index.metadata = metadata
    index.settings = from_json(about.get("settings", "[]"))
    return index


def _header(file: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """The header as JSON holds it, where the arrays start, and the size of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, HEADER_MAX):
        raise IndexFileError(f"truncated or not an index file: {size} bytes, with a header of {length} announced")
    head = prefix + file.read(length)
    place = head.rfind(_SUM_FIELD) + len(_SUM_FIELD)
    recorded = head[place : place + 64]
    if place < 8 + len(_SUM_FIELD):
        raise IndexFileError("not an index file, or its header is damaged: it has no sum")
    blank = head[:place] + _NO_SUM.encode() + head[place + 64 :]
    # Before it is read as JSON, which can take thirty times as much memory as the text.
    if hashlib.sha256(blank).hexdigest().encode() != recorded:
        raise IndexFileError("the header is damaged: its SHA-256 is not the recorded one")
    try:
        entries = json.loads(head[8:])
        if entries["__metadata__"]["format"] != "ivfpq":
            raise KeyError("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IndexFileError("not an index file, or its header is damaged") from None
    return entries, 8 + length, size


def _spans(entries: dict[str, Any], available: int) -> list[tuple[str, str, list[int], int]]:
    """Name, type, shape and offset of each array; they fill the file exactly. Nothing is allocated before this."""
    spans, offset = [], 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise IndexFileError(f"array {name} has the impossible shape {shape}")
        nbytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if entry["data_offsets"] != [offset, offset + nbytes]:
            raise IndexFileError(f"array {name} is not where its shape and the arrays before it put it")
        spans.append((name, dtype, shape, offset))
        offset += nbytes
    if offset != available:
        raise IndexFileError(f"truncated or too long: {offset} bytes of arrays are announced, {available} are there")
    return spans


def _bytes(array: Any) -> memoryview:
    """The memory of a C-ordered array. (An empty one cannot be viewed as bytes.)"""
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")


def _chunks(array: Any) -> Iterator[memoryview]:
    whole = _bytes(array)
    for start in range(0, len(whole), CHUNK):
        yield whole[start : start + CHUNK]
