"""Files that every viewer shows although they are not quite as they should be."""

from __future__ import annotations

import struct

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})
"""Chunks that a reader may pass over by the standard, and on which hangs what is seen."""

_JPEG_END = b"\xff\xd9"
_FILLING = b"\xfe\xee\xbd\xd5" * 64
"""What follows a scan that ended early becomes pixels; it must look like nothing that would be missing."""


def png_without_metadata(data: bytes) -> bytes | None:
    """A PNG without texts, profiles and all else that does not change its pixels; None if there is nothing of it.

    Pillow refuses a file whose metadata are damaged, or large when they are unpacked.
    """
    if not data.startswith(_PNG_SIGNATURE):
        return None
    kept, place = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        is_critical = not kind[:1].islower()
        if is_critical or kind in _PNG_NEEDED:
            kept.append(data[place:end])
        place = end
    found = b"".join([*kept, data[place:]])
    return None if len(found) == len(data) else found


def jpegs_with_end_marker(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG with the end marker that it lacks, and the same with some filling before the marker.

    Where nothing but the marker is missing, the decoder has all it needs before it meets the filling, and both give the
    same pixels. Where the end of the picture is missing, it makes pixels of whatever comes, and they differ.
    """
    data = data.removesuffix(_JPEG_END[:1])
    return data + _JPEG_END, data + _FILLING + _JPEG_END
