"""The first directory of a TIFF, which is also what EXIF metadata begin with, read entry by entry.

Pillow stops reading at the first entry that is odd. Browsers do not, and what is asked of the metadata here, above all
which side of a photograph is up, must not hang on what else a camera or a program wrote.
"""

from __future__ import annotations

import struct

ORIENTATION, NEW_SUBFILE_TYPE, SUB_IFDS, DNG_VERSION = 0x112, 0xFE, 0x14A, 0xC612

_SHORT = 3
_ENTRY = 12


def first_directory(data: bytes) -> dict[int, tuple[int, int, int]]:
    """Entries of the first directory: tag to (type, count, value), of the value what fits the entry as SHORT.

    Parameters
    ----------
    data : bytes
        A TIFF, or EXIF metadata with or without their marker.

    Returns
    -------
    dict
        Of a tag that is there twice, the first. Empty if this is no TIFF.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return {}
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries: dict[int, tuple[int, int, int]] = {}
    for place in range(start + 2, min(start + 2 + count * _ENTRY, len(data) - _ENTRY + 1), _ENTRY):
        tag, kind, number, value = struct.unpack_from(f"{order}HHIH", data, place)
        entries.setdefault(tag, (kind, number, value))
    return entries


def orientation_in(exif: bytes) -> int:
    """The orientation that EXIF metadata give, 1 to 8; 1 (upright) if they give none."""
    kind, number, value = first_directory(exif).get(ORIENTATION, (0, 0, 0))
    return value if (kind, number) == (_SHORT, 1) and 1 <= value <= 8 else 1
