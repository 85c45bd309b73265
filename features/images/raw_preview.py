"""The picture that a camera puts beside what its sensor saw."""

from __future__ import annotations

import io

from PIL import Image

from features.images.errors import ImageError
from features.images.formats import RAW


def preview_of(data: bytes, name: str) -> bytes | Image.Image:
    """The preview inside a camera's raw file: a JPEG file, or an image.

    Raises
    ------
    ImageError
        There is none, or the package that finds it is not installed.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(name, RAW.advice()) from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            preview = raw.extract_thumb()
    except rawpy.LibRawError as error:
        raise ImageError(name, f"a camera raw image without a preview that can be read ({error})") from error
    if preview.format == rawpy.ThumbFormat.JPEG:
        return bytes(preview.data)
    return Image.fromarray(preview.data)
