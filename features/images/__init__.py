"""Any image file to RGB pixels, or an ``ImageError`` that says which file and why."""

from features.images.decode import decode_image, decode_with_size
from features.images.errors import ImageError
from features.images.formats import HEIC_EXTENSIONS, INSTALL_HEIC, extensions
from features.images.limits import MAX_PIXELS, OWN_PICTURES, STRANGERS_PICTURES, TOO_LARGE, DecodeLimits

__all__ = [
    "HEIC_EXTENSIONS",
    "INSTALL_HEIC",
    "MAX_PIXELS",
    "OWN_PICTURES",
    "STRANGERS_PICTURES",
    "TOO_LARGE",
    "DecodeLimits",
    "ImageError",
    "decode_image",
    "decode_with_size",
    "extensions",
]
