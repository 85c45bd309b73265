"""Which places of which images look most like a direction in the space of the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.encoders import FeatureMap


class Patch(NamedTuple):
    """A place of an image.

    Attributes
    ----------
    image : int
        Number of the image's map.
    box : left, top, right, bottom in pixels of the image
        The place itself; the network looks at more around it.
    similarity : float
        Cosine of what the network sees there and what was asked for.
    """

    image: int
    box: tuple[float, float, float, float]
    similarity: float


def nearest_patches(maps: Sequence[FeatureMap], target: np.ndarray, first: int, count: int) -> list[Patch]:
    """The places that are most like a part of a feature vector, at most one of each image.

    A vector begins with the mean of its image's feature map over all places, so any run of those numbers can be
    compared with what the network sees in one place.

    Parameters
    ----------
    maps : sequence of FeatureMap
        Of the images, from one encoder.
    target : float array, shape (m,)
        For example a codeword of a product quantizer.
    first : int
        Where in the vector it begins; it must end within the channels of the maps.
    count : int
        Most patches wanted.

    Returns
    -------
    list of Patch
        Best first.

    Raises
    ------
    ValueError
        The target reaches beyond what the maps hold.
    """
    channels = maps[0].values.shape[2]
    if first < 0 or first + len(target) > channels:
        raise ValueError(f"target must lie within the {channels} channels, got {first}..{first + len(target) - 1}")
    found = []
    for number, (values, window) in enumerate(maps):
        part = values[:, :, first : first + len(target)]
        norms = np.linalg.norm(part, axis=2) * np.linalg.norm(target)
        cosine = np.divide(part @ target, norms, out=np.zeros_like(norms), where=norms > 0)
        row, column = np.unravel_index(cosine.argmax(), cosine.shape)
        left, top, right, bottom = window
        wide, high = (right - left) / cosine.shape[1], (bottom - top) / cosine.shape[0]
        x, y = left + column * wide, top + row * high
        found.append(Patch(number, (x, y, x + wide, y + high), float(cosine[row, column])))
    return sorted(found, key=lambda patch: -patch.similarity)[:count]
