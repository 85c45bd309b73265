"""Decoded images of any mode to RGB, a band of rows at a time so that little memory is taken twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

_BAND = 1 << 22
"""Pixels that are converted at a time."""

_PHOTOMETRIC, _BITS_PER_SAMPLE, _SAMPLE_FORMAT = 262, 258, 339  # of TIFF
_MIN_IS_WHITE, _UNSIGNED = 0, 1


class ColourError(ValueError):
    """There is no right way to show these colours; the message says what they are."""


def to_rgb(image: Image.Image, png_samples: str = "") -> np.ndarray:
    """RGB as a person would see it, uint8 (H, W, 3), from a loaded image.

    Parameters
    ----------
    png_samples : str
        Of a PNG, Pillow's name for how its samples were stored ("L;4"), which it forgets in loading.

    Raises
    ------
    ColourError
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide_to_rgb(image)
    if "transparency" in image.info:
        image.info["transparency"] = _transparent_colour(image.info["transparency"], png_samples)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, bottom in _bands(image.height, image.width):
        whole = bottom - top == image.height
        pixels[top:bottom] = np.asarray(_band_to_rgb(image if whole else image.crop((0, top, image.width, bottom))))
    return pixels


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _BAND // max(1, width))
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _band_to_rgb(band: Image.Image) -> Image.Image:
    try:
        if band.has_transparency_data:
            over = Image.new("RGBA", band.size, "white")
            over.alpha_composite(band.convert("RGBA"))
            band = over
        return band if band.mode == "RGB" else band.convert("RGB")
    except ValueError as error:  # Pillow has no such conversion
        raise ColourError(f"colours of the kind {band.mode} cannot be shown") from error


def _transparent_colour(stored: Any, png_samples: str) -> Any:
    """The colour of an image that is transparent, in the 8 bits that Pillow makes of its samples.

    Raises
    ------
    ColourError
        It had 16 bits a channel, so it cannot be told from its neighbours any more.
    """
    if png_samples.startswith("RGB;16"):
        raise ColourError("a PNG of 16 bits a channel with one transparent colour cannot be shown right")
    greys = {"L;2": 3, "L;4": 15}.get(png_samples)
    return stored if greys is None else min(int(stored), greys) * (255 // greys)


def _wide_to_rgb(image: Image.Image) -> np.ndarray:
    """Scale wide integers or floats to 8 bits. Pillow itself would clip them, which turns most of an image white.

    Integers that fit 16 bits use that full range (65535 is white; of a TIFF with 12 bits, 4095). Floats within 0..1 use
    that range. Anything else has no agreed white and is stretched between its own least and greatest value.
    """
    tags: Any = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits == 32 and values.dtype.kind == "i" and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)
    bands = list(_bands(*values.shape))
    ends = [(wide.min(), wide.max()) for wide in (_finite(values[top:bottom]) for top, bottom in bands)]
    low, high = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    full = float((1 << min(bits, 16)) - 1)
    if low >= 0 and values.dtype.kind in "iu" and high <= 65535:
        low, high = 0.0, full if high <= full else 65535.0
    elif low >= 0 and values.dtype.kind == "f" and high <= 1:
        low, high = 0.0, 1.0
    transparent = image.info.get("transparency")
    pixels = np.empty((*values.shape, 3), np.uint8)
    for top, bottom in bands:
        grey = np.rint((_finite(values[top:bottom]) - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
        if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
            grey = 255 - grey
        if transparent is not None:
            grey[values[top:bottom] == transparent] = 255
        pixels[top:bottom] = grey[:, :, None]
    return pixels


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
