"""Which formats are read, by what, and what to install for those that nothing here reads."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, ImageFile

from features.images.tiff_tags import DNG_VERSION, NEW_SUBFILE_TYPE, SUB_IFDS, first_directory

# Left out on purpose: EPS starts another program (Ghostscript), WMF needs Windows, and the others are containers that
# Pillow names but cannot decode.
_NOT_IMAGES = frozenset({"EPS", "WMF", "MPEG", "HDF5", "BUFR", "GRIB", "PDF"})

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
_RAW_BEGINNINGS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")

# A JPEG may hold several pictures, and go by names that Pillow does not list or not among those it opens.
_JPEG_EXTENSIONS = frozenset({".mpo", ".jps", ".pjpeg", ".pjp", ".jif", ".jfi", ".insp"})

FILE_ENDINGS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "BMP": ".bmp",
}
"""How files are called whose pictures come over the wire, by Pillow's names of their formats."""

HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
INSTALL_HEIC = "pip install pillow-heif"


@dataclass(frozen=True)
class OptionalReader:
    """A package that reads a kind of images, left to whoever needs it.

    Attributes
    ----------
    kind : str
        What people call the images.
    extensions : frozenset of str
    module : str
        What the package is imported as.
    install : str
        The command that installs it.
    is_content : callable
        Whether a file's content is of this kind.
    """

    kind: str
    extensions: frozenset[str]
    module: str
    install: str
    is_content: Callable[[bytes], bool]

    def advice(self) -> str:
        """What to do about a file that needs the package."""
        return f"{self.kind} images need an extra package: {self.install}"


def is_heic(data: bytes) -> bool:
    """Whether this is an image of a telephone's usual kind."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def is_jpeg_xl(data: bytes) -> bool:
    """Whether this is a JPEG XL, bare or in its container."""
    return data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))


def is_raw(data: bytes) -> bool:
    """Whether this is what a camera's sensor saw, which most cameras put into a TIFF beside a small picture of it."""
    if data.startswith(_RAW_BEGINNINGS) or data[4:12] == b"ftypcrx " or data[:10] == b"II*\0\x10\0\0\0CR":
        return True
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    tags = first_directory(data)
    is_reduced = tags.get(NEW_SUBFILE_TYPE, (0, 0, 0))[2] & 1 == 1
    return DNG_VERSION in tags or (is_reduced and SUB_IFDS in tags)


HEIC = OptionalReader("HEIC", HEIC_EXTENSIONS, "pillow_heif", INSTALL_HEIC, is_heic)
JPEG_XL = OptionalReader("JPEG XL", frozenset({".jxl"}), "pillow_jxl", "pip install pillow-jxl-plugin", is_jpeg_xl)
RAW = OptionalReader(
    "camera raw",
    frozenset({".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"}),
    "rawpy",
    "pip install rawpy",
    is_raw,
)
OPTIONAL_READERS = (HEIC, JPEG_XL, RAW)


@cache
def _register_optional() -> None:
    """Let Pillow open HEIC and JPEG XL where their packages are installed.

    They are extras: pillow-heif brings x265, whose licence is the GPL.
    """
    with suppress(ImportError):
        import_module(HEIC.module).register_heif_opener()
    with suppress(ImportError):
        import_module(JPEG_XL.module)  # registers itself


def readable_formats() -> list[str]:
    """Names of the formats that Pillow, with whatever plugins are registered by now, is allowed to open."""
    Image.init()
    _register_optional()
    return [name for name in Image.OPEN if name not in _NOT_IMAGES]


def extensions() -> frozenset[str]:
    """File name extensions (lower case, with the dot) of the formats that `decode_image` reads."""
    formats = set(readable_formats())
    known = {extension for extension, name in Image.registered_extensions().items() if name in formats}
    return frozenset(known | _JPEG_EXTENSIONS | (RAW.extensions if find_spec(RAW.module) else frozenset()))


_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"qoif",
    b"\0\0\0\x0cjP  ",
)
BEGINNING = 32
"""Bytes of a file that tell an image."""


def looks_like_image(beginning: bytes) -> bool:
    """Whether a file with this beginning is an image of a kind that is read here, going by its signature alone."""
    if beginning[:4] == b"RIFF":
        return beginning[8:12] == b"WEBP"
    if beginning[4:8] == b"ftyp":
        return beginning[8:12] in (b"avif", b"avis") or ("HEIF" in readable_formats() and is_heic(beginning))
    if beginning[:2] == b"BM":
        return beginning[6:10] == bytes(4)
    return beginning.startswith(_BEGINNINGS) or ("JXL" in readable_formats() and is_jpeg_xl(beginning))


def missing_reader(data: bytes) -> OptionalReader | None:
    """The package that would read this content, or None."""
    return next((reader for reader in OPTIONAL_READERS if reader.is_content(data)), None)


def open_with_pillow(data: bytes, formats: Iterable[str]) -> ImageFile.ImageFile | None:
    """Open an image by its content, without decoding it; None if it is of none of these formats.

    Unlike ``Image.open`` this leaves it to the caller which images are too large: for Pillow a JPEG costs its full
    size, at whatever scale it is decoded.
    """
    for name in formats:
        factory, accept = Image.OPEN[name]
        is_accepted = accept is None or accept(data[:16])
        if not is_accepted or isinstance(is_accepted, str):  # a string says which library Pillow was built without
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # what Pillow's readers raise where a file is not theirs
    return None
