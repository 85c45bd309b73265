"""Perceptual hashes: 64 bits of a picture that hardly change when it is resized, compressed or made brighter.

Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.1: of a picture of 32 x
32 grey pixels, which of its lowest frequencies are above their median; by the package ImageHash. It is hashed in the
eight orientations that turning by right angles and mirroring give, so that a copy is found in any of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATIONS = 8
BITS = 64
HASH_BYTES = ORIENTATIONS * BITS // 8

SIDE = 32
"""Pixels of the sides of what is hashed; ImageHash's own."""

_TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)


def perceptual_hashes(pixels: NDArray[np.uint8]) -> bytes:
    """The hashes of a decoded picture.

    Parameters
    ----------
    pixels : uint8 (H, W, 3)

    Returns
    -------
    bytes
        `HASH_BYTES` of them: eight hashes of 64 bits, the first that of the picture as it is.
    """
    from imagehash import phash  # it loads scipy and wavelets: not on the way to a search

    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    turned = [small if turn is None else small.transpose(turn) for turn in _TURNS]
    return b"".join(np.packbits(phash(each).hash.ravel()).tobytes() for each in turned)
