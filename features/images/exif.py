"""What a camera has written into a picture file: EXIF, in words."""

from __future__ import annotations

import io
from typing import BinaryIO, NamedTuple

from PIL import ExifTags, Image

MAX_VALUE = 200
"""Characters of a value."""

_SHOWN = (
    "Make", "Model", "LensModel", "DateTimeOriginal", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength",
    "Flash", "Orientation", "Software", "Artist", "Copyright",
)  # fmt: skip


class Exif(NamedTuple):
    """What EXIF says.

    Attributes
    ----------
    values : dict of str to str
        By the names of the standard; without what says where the picture was taken.
    place : tuple of float, optional
        Where: degrees north and east.
    """

    values: dict[str, str]
    place: tuple[float, float] | None = None


def read_exif(content: bytes) -> Exif:
    """The EXIF of a picture file; empty where there is none or it makes no sense."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            exif = image.getexif()
            tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
            gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # whatever a broken file leads the readers of its metadata to
        return Exif({})
    named = {ExifTags.TAGS.get(tag, ""): value for tag, value in tags.items()}
    values = {name: text for name in _SHOWN if (text := _text(name, named.get(name)))}
    return Exif(values, _place(gps))


def camera_of(source: bytes | BinaryIO) -> str:
    """Which camera a picture file, its content or open, says it was taken with; "" where it says nothing.

    It is the model, after the maker unless that names itself: "NIKON D90", "Apple iPhone 12". Of a file that is open
    only the beginning is read.

    Raises
    ------
    OSError
        A file that is open cannot be read.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.format == "PNG" and "exif" not in image.info:  # it would be decoded to look behind its pixels
                return ""
            exif = image.getexif()
    except Exception as error:  # whatever a broken file leads the readers of its metadata to
        if isinstance(error, OSError) and error.errno is not None and not isinstance(source, bytes):
            raise  # the file could not be read: that says nothing of its camera
        return ""
    maker, model = (_text("", exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    names_itself = maker and model.casefold().startswith(maker.split()[0].casefold())
    return (model if names_itself else f"{maker} {model}".strip())[:MAX_VALUE]


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if name == "ExposureTime":
        try:
            seconds = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError):
            return ""
        return f"1/{round(1 / seconds)} s" if 0 < seconds < 0.5 else f"{seconds:g} s"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(str(value).replace("\0", " ").split())[:MAX_VALUE]


def _place(gps: dict[int, object]) -> tuple[float, float] | None:
    tags = ExifTags.GPS
    parts = []
    for degrees, side, negative, most in (
        (tags.GPSLatitude, tags.GPSLatitudeRef, "S", 90),
        (tags.GPSLongitude, tags.GPSLongitudeRef, "W", 180),
    ):
        try:
            whole, minutes, seconds = (float(part) for part in gps[degrees])  # type: ignore[attr-defined]
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        found = whole + minutes / 60 + seconds / 3600
        if not 0 <= found <= most:  # also of what is no number
            return None
        parts.append(-found if gps.get(side) == negative else found)
    return parts[0], parts[1]
