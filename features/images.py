"""Any image file to RGB pixels, or an ``ImageError`` that says which file and why."""

from __future__ import annotations

import io
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
"""Default pixel cap: a decoded image of this size takes 300 MB."""

# Left out on purpose: EPS starts another program (Ghostscript), WMF needs Windows, and the others are containers that
# Pillow names but cannot decode.
_NOT_IMAGES = frozenset({"EPS", "WMF", "MPEG", "HDF5", "BUFR", "GRIB", "PDF"})

HEIC_EXTENSIONS = frozenset({".heic", ".heif"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
INSTALL_HEIC = "pip install pillow-heif"


class ImageError(ValueError):
    """An image cannot be opened or decoded.

    Attributes
    ----------
    name : str
        Which one.
    reason : str
        Why.
    errno : int, optional
        Of the operating system, where it was what refused; such a file may be readable another time.
    """

    def __init__(self, name: str, reason: str, errno: int | None = None) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.errno = errno


@cache
def _register_heic() -> None:
    """Let Pillow open HEIC if pillow-heif is installed: an extra, for it brings x265, whose licence is the GPL."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _formats() -> list[str]:
    """Names of the formats that Pillow, with whatever plugins are registered by now, is allowed to open."""
    Image.init()
    _register_heic()
    return [name for name in Image.OPEN if name not in _NOT_IMAGES]


def extensions() -> frozenset[str]:
    """File name extensions (lower case, with the dot) of the formats that `decode_image` reads."""
    formats = set(_formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


def decode_image(
    source: str | os.PathLike[str] | bytes, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image as a person would see it.

    The EXIF orientation is applied, transparency is laid over white, an animation gives its first frame, 16-bit and
    floating-point images are scaled to 8 bits, and CMYK is inverted ink on white paper, as Adobe's programs write it
    and browsers show it. What the file is called plays no part: its content decides. HEIC is read where pillow-heif is
    installed.

    Parameters
    ----------
    source : path or bytes
        A file, or the content of one.
    min_side : int, optional
        The least short side, in pixels, that is of use. A JPEG that is at least twice as large is decoded at 1/2, 1/4
        or 1/8 of its size, the smallest that keeps the short side at `min_side` or more; this takes a fraction of the
        time and memory. None: full size.
    max_pixels : int
        Larger images are refused from their header, before any memory is taken for the pixels, whatever `min_side` is.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, C-contiguous, writable. H and W are those of the image as seen, divided by 2, 4 or 8 (rounded up) where
        `min_side` allowed it.

    Raises
    ------
    ImageError
        The file is missing, empty, not an image, damaged, truncated, or larger than `max_pixels`.
    """
    return decode_with_size(source, min_side=min_side, max_pixels=max_pixels)[0]


def decode_with_size(
    source: str | os.PathLike[str] | bytes, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS
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
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = f"image of {len(source)} bytes", bytes(source)
    else:
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise ImageError(name, error.strerror or str(error), error.errno) from error
        except ValueError as error:  # a NUL character in the path
            raise ImageError(repr(name), str(error)) from error
    if not data:
        raise ImageError(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(name, _too_large(width, height, max_pixels))
            if min_side is not None:
                image.draft(None, (min_side, min_side))
            reduced = image.size != (width, height)
            image.load()
            upright, turned = _upright(image, name)
            pixels = _to_rgb(upright)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in Image.OPEN:
            raise ImageError(name, f"HEIC images need an extra package: {INSTALL_HEIC}") from error
        raise ImageError(name, "not an image in any format that can be read") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, met before ours can be
        raise ImageError(name, f"too large to decode ({error})") from error
    except MemoryError as error:
        raise ImageError(name, "not enough memory to decode it") from error
    except Exception as error:
        # Pillow's readers meet hostile bytes here and raise whatever the broken field led to: OSError, SyntaxError,
        # struct.error, zlib.error, IndexError, ... Every one of them means that the file is damaged.
        raise ImageError(name, f"damaged ({error or type(error).__name__})") from error
    if reduced:
        return pixels, (height, width) if turned else (width, height)
    return pixels, (pixels.shape[1], pixels.shape[0])  # some readers find the true size only in the pixels


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:.1f} are decoded"


def _upright(image: Image.Image, name: str) -> tuple[Image.Image, bool]:
    """The image as its EXIF orientation wants it, and whether that made its width its height."""
    try:
        return ImageOps.exif_transpose(image), image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception as error:  # unreadable metadata must not cost us readable pixels
        logger.debug("%s: EXIF ignored (%s)", name, error)
        return image, False


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        image = over
    return np.array(image.convert("RGB"))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale (H, W) wide integers or floats to uint8. Pillow itself would clip them, which turns most of it white.

    Integers that fit 16 bits use that full range (65535 is white). Floats within 0..1 use that range. Anything else
    has no agreed white and is stretched between its own least and greatest value.
    """
    wide = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and values.dtype.kind in "iu" and high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and values.dtype.kind == "f" and high <= 1:
        low, high = 0.0, 1.0
    return np.rint((wide - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
