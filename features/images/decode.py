"""From the content of a file to pixels."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from features.images.colours import ColourError, to_rgb
from features.images.errors import ImageError
from features.images.formats import is_raw, missing_reader, open_with_pillow, readable_formats
from features.images.limits import MAX_REDUCTION, OWN_PICTURES, TOO_LARGE, DecodeLimits, decoding_memory
from features.images.raw_preview import preview_of
from features.images.repair import jpegs_with_end_marker, png_without_metadata
from features.images.tiff_tags import ORIENTATION, first_directory, orientation_in

logger = logging.getLogger(__name__)

NO_IMAGE = "not an image in any format that can be read"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

_NATIVE_ORDER = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
"""Pillow's names of TIFF samples of a given byte order, and of the same ones in the order of this machine."""

# Bytes a pixel: what Pillow holds of each mode (4 for what is not here), and what its readers take besides.
_HELD = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4}
_READER = {"JPEG": 0, "MPO": 0, "PNG": 0, "WEBP": 8, "AVIF": 12, "HEIF": 8, "JPEG2000": 24}
_OTHER_READER = 8
_BAND_BYTES = 64 << 20
"""What converting a band of rows takes at most."""


@dataclass(frozen=True)
class _Request:
    """What is wanted of an image, and what it is called in errors."""

    name: str
    min_side: int | None
    limits: DecodeLimits


def decode_image(
    source: str | os.PathLike[str] | bytes,
    *,
    min_side: int | None = None,
    max_pixels: int | None = None,
    limits: DecodeLimits = OWN_PICTURES,
) -> np.ndarray:
    """Decode an image as a person would see it.

    The EXIF orientation is applied, transparency is laid over white, an animation gives its first frame, 16-bit and
    floating-point images are scaled to 8 bits, and CMYK is inverted ink on white paper, as Adobe's programs write it
    and browsers show it. What the file is called plays no part: its content decides. HEIC and JPEG XL are read where
    their packages are installed; of a camera's raw file, where rawpy is, the picture that is embedded in it.

    Parameters
    ----------
    source : path or bytes
        A file, or the content of one.
    min_side : int, optional
        The least short side, in pixels, that is of use. A JPEG that is at least twice as large is decoded at 1/2, 1/4
        or 1/8 of its size, the smallest that keeps the short side at `min_side` or more; this takes a fraction of the
        time and memory. None: full size.
    max_pixels : int, optional
        In place of that of the limits. An image that would be larger when it is decoded (at its reduced scale, where
        `min_side` allows one) is refused from its header, before any memory is taken for the pixels.
    limits : DecodeLimits
        What may be decoded: `OWN_PICTURES`, or `STRANGERS_PICTURES` for what comes from elsewhere.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, C-contiguous, writable. H and W are those of the image as seen, divided by 2, 4 or 8 (rounded up) where
        `min_side` allowed it.

    Raises
    ------
    ImageError
        The file is missing, empty, not an image, damaged, truncated, or too large; or there was no memory for it.

    Notes
    -----
    All images that are decoded at the same time share `features.images.limits.decoding_memory`: when it is used up,
    one waits for the others.
    """
    return decode_with_size(source, min_side=min_side, max_pixels=max_pixels, limits=limits)[0]


def decode_with_size(
    source: str | os.PathLike[str] | bytes,
    *,
    min_side: int | None = None,
    max_pixels: int | None = None,
    limits: DecodeLimits = OWN_PICTURES,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image as `decode_image` does; also tell how large the whole of it is.

    Returns
    -------
    pixels : ndarray of uint8, shape (H, W, 3)
    size : (int, int)
        Width and height in pixels of the image as seen, at full size.
    """
    if min_side is not None and min_side < 1:
        raise ValueError(f"min_side must be at least 1, got {min_side}")
    if max_pixels is not None:
        limits = replace(limits, max_pixels=max_pixels)
    name, data = _content_of(source)
    if not data:
        raise ImageError(name, "the file is empty")
    if len(data) < 4:  # Pillow looks for the first four bytes of a DIB, whether they are there or not
        raise ImageError(name, NO_IMAGE)
    request = _Request(name, min_side, limits)
    try:
        return _decode_or_repair(data, request)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        reader = missing_reader(data)
        reason = reader.advice() if reader else NO_IMAGE
        raise ImageError(name, reason) from error
    except TimeoutError as error:
        raise ImageError(name, f"too much is decoded at the same time ({error}): try again") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, met in some formats before ours can be
        raise ImageError(name, f"too large to decode ({error})") from error
    except MemoryError as error:
        raise ImageError(name, "not enough memory to decode it") from error
    except ColourError as error:
        raise ImageError(name, str(error)) from error
    except Exception as error:
        # Pillow's readers meet hostile bytes here and raise whatever the broken field led to: OSError, SyntaxError,
        # struct.error, zlib.error, IndexError, ... Every one of them means that the file is damaged.
        raise ImageError(name, f"damaged ({error or type(error).__name__})") from error


def _content_of(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    """What the image is called in messages, and its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image of {len(source)} bytes", bytes(source)
    name = os.fspath(source)
    try:
        return name, Path(source).read_bytes()
    except OSError as error:
        raise ImageError(name, error.strerror or str(error), error.errno) from error
    except ValueError as error:  # a NUL character in the path
        raise ImageError(repr(name), str(error)) from error


def _decode_or_repair(data: bytes, request: _Request) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode what is there; where that fails for something that does not touch the pixels, decode without it."""
    try:
        return _decode(data, request)
    except (ImageError, ColourError, MemoryError, TimeoutError, Image.DecompressionBombError):
        raise
    except Exception:
        without = png_without_metadata(data)
        if without is not None:
            decoded = _decode(without, request)
            logger.info("%s: decoded without its metadata, which cannot be read", request.name)
            return decoded
        if not data.startswith(b"\xff\xd8"):
            raise
        whole, filled = jpegs_with_end_marker(data)
        decoded = _decode(whole, request)
        if not np.array_equal(decoded[0], _decode(filled, request)[0]):
            raise
        logger.info("%s: the end marker is missing, the picture is whole", request.name)
        return decoded


def _decode(data: bytes, request: _Request) -> tuple[np.ndarray, tuple[int, int]]:
    if is_raw(data):
        orientation = orientation_in(data)
        preview = preview_of(data, request.name)
        if isinstance(preview, bytes):
            data = preview
        else:
            return _decode_opened(preview, preview.size, orientation, len(data), request)
    else:
        orientation = 1
    formats = readable_formats()
    allowed = request.limits.formats
    image = open_with_pillow(data, formats if allowed is None else [name for name in formats if name in allowed])
    if image is None:
        if allowed is not None and open_with_pillow(data, [name for name in formats if name not in allowed]):
            raise ImageError(request.name, f"not in a format that is taken here: {', '.join(sorted(allowed))}")
        raise UnidentifiedImageError
    with image:
        size = image.size
        if request.min_side is not None:
            image.draft(None, (request.min_side, request.min_side))
        return _decode_opened(image, size, orientation, len(data), request)


def _decode_opened(
    image: Image.Image, size: tuple[int, int], orientation: int, file_bytes: int, request: _Request
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image that was opened and whose full `size` was known before it was reduced.

    `orientation` holds where its own metadata give none.
    """
    _check_size(image.size, size, request)
    reduced = image.size != size
    with decoding_memory.reserve(_cost(image, size, file_bytes), request.limits.max_wait):
        png_samples = _png_samples(image)
        _prepare_tiff(image)
        image.load()
        orientation = _orientation_of(image, orientation)
        if orientation in _TURNS:
            image = _turned(image, _TURNS[orientation])
        pixels = to_rgb(image, png_samples)
    if reduced:
        return pixels, size[::-1] if orientation in _SIDEWAYS else size
    return pixels, (pixels.shape[1], pixels.shape[0])  # some readers find the true size only in the pixels


def _check_size(decoded: tuple[int, int], announced: tuple[int, int], request: _Request) -> None:
    most = request.limits.max_pixels
    for (width, height), allowed in ((decoded, most), (announced, most * MAX_REDUCTION)):
        if width * height > allowed:
            raise ImageError(
                request.name,
                f"{TOO_LARGE} {width} x {height} is {width * height / 1e6:.1f} megapixels; at most {allowed / 1e6:.1f} "
                f"are decoded",
            )


def _cost(image: Image.Image, size: tuple[int, int], file_bytes: int) -> int:
    """Bytes that decoding takes at most, the file and the pixels that are returned included."""
    held = 2 * _HELD.get(image.mode, 4)  # a second time where it is turned, or as an array of wide numbers
    reader = _READER.get(image.format or "", _OTHER_READER)
    cost = file_bytes + _BAND_BYTES + image.width * image.height * (held + reader + 3)
    if image.info.get("progressive"):
        cost += size[0] * size[1] * len(image.getbands()) * 2  # all coefficients, whatever the scale
    return cost


def _orientation_of(image: Image.Image, otherwise: int) -> int:
    """The EXIF orientation of a loaded image; that of a TIFF Pillow has applied itself.

    Not before it is loaded: a PNG may have its metadata at the end, and Pillow would load it to find them.
    """
    if image.format == "TIFF":
        return 1
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return orientation_in(exif) if ORIENTATION in first_directory(exif) else otherwise
    try:  # older PNGs keep it in a text, some programs in XMP
        found: Any = image.getexif().get(ExifTags.Base.Orientation, otherwise)
    except Exception as error:  # unreadable metadata must not cost us readable pixels
        logger.debug("metadata ignored (%s)", error)
        return otherwise
    return found if found in _TURNS else otherwise


def _prepare_tiff(image: Any) -> None:
    """Mend what Pillow does to a TIFF in loading.

    It turns it, and writes the rest of its metadata back, which fails for odd ones. And where the samples are
    compressed, libtiff has put them into the order of this machine already, of which Pillow thinks for some kinds only.
    """
    if image.format != "TIFF":
        return
    exif = Image.Exif()
    exif[ORIENTATION] = image.tag_v2.get(ORIENTATION, 1)
    image.getexif = lambda: exif
    image.info.pop("xmp", None)
    image.tile = [
        tile._replace(args=(_NATIVE_ORDER.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff"
        else tile
        for tile in image.tile
    ]


def _png_samples(image: Image.Image) -> str:
    """Pillow's name for how the samples of a PNG are stored; known only before it is loaded."""
    tiles = getattr(image, "tile", [])
    return str(tiles[0].args) if image.format == "PNG" and tiles else ""


def _turned(image: Image.Image, turn: Image.Transpose) -> Image.Image:
    """A loaded image turned, its metadata left out but for what its colours need."""
    info = image.info
    turned = image.transpose(turn)
    turned.info = {key: info[key] for key in ("transparency",) if key in info}
    return turned
