"""Whether two files show one picture: proved by geometry, where OpenCV is installed.

Points of both are matched (ORB: Rublee et al. 2011, "ORB: an efficient alternative to SIFT or SURF"), the turn, scale
and shift that most of the matches agree on is found (RANSAC: Fischler and Bolles 1981), and what then overlaps must be
alike pixel by pixel. So a picture is told that was cropped, turned by any angle, mirrored, recompressed or recoloured.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INLIERS_MIN = 50
"""Matches that agree on one turn, scale and shift."""
CORRELATION_MIN = 0.9
"""Of the grey pixels of what overlaps."""

SIDE = 512
"""Pixels of the longer side, at which pictures are compared."""

_POINTS = 1_000
_RATIO = 0.8  # of the best match's distance to the next best's, at most: Lowe 2004, section 7.1
_TOLERANCE = 4.0  # pixels
_OVERLAP_MIN = 0.25  # of the smaller picture

INSTALL = "pip install opencv-python-headless"


def can_prove() -> bool:
    """Whether OpenCV is installed."""
    return find_spec("cv2") is not None


def _opencv() -> Any:
    return import_module("cv2")  # as it is needed: few who search need it, and it may not be installed


class Sight(NamedTuple):
    """What is compared of a picture: grey pixels, points (n, 2) in them, and their descriptors (n, 32); the same of the
    mirrored picture.
    """

    grey: NDArray[np.uint8]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    mirrored: tuple[NDArray[np.float32], NDArray[np.uint8]]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Sight:
        """Of a decoded picture, uint8 (H, W, 3)."""
        cv2 = _opencv()
        scale = SIDE / max(pixels.shape[:2])
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        orb = cv2.ORB_create(_POINTS, fastThreshold=5)
        return cls(grey, *_described(orb, grey), _described(orb, grey[:, ::-1].copy()))


def _described(orb: Any, grey: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    found, descriptors = orb.detectAndCompute(grey, None)
    points = np.array([each.pt for each in found], np.float32).reshape(-1, 2)
    return points, np.empty((0, 32), np.uint8) if descriptors is None else descriptors


def is_same_picture(
    one: Sight, other: Sight, *, inliers: int = INLIERS_MIN, correlation: float = CORRELATION_MIN
) -> bool:
    """Whether two pictures, or a part of one and the other, are proved to be the same."""
    ways = ((other.grey, other.points, other.descriptors), (other.grey[:, ::-1], *other.mirrored))
    return any(found >= inliers and alike >= correlation for found, alike in (_agreement(one, *way) for way in ways))


def _agreement(
    one: Sight, grey: NDArray[np.uint8], points: NDArray[np.float32], descriptors: NDArray[np.uint8]
) -> tuple[int, float]:
    """How many matches agree, and the correlation of what then overlaps."""
    cv2 = _opencv()
    if len(one.points) < INLIERS_MIN or len(points) < INLIERS_MIN:
        return 0, 0.0
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(one.descriptors, descriptors, k=2)
    good = [best for best, *rest in pairs if not rest or best.distance < _RATIO * rest[0].distance]
    if len(good) < INLIERS_MIN:
        return len(good), 0.0
    here = one.points[[match.queryIdx for match in good]]
    there = points[[match.trainIdx for match in good]]
    moved, agree = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE)
    count = 0 if moved is None else int(agree.sum())
    if count < INLIERS_MIN:
        return count, 0.0
    size = grey.shape[1], grey.shape[0]
    laid = cv2.warpAffine(one.grey, moved, size)
    covered = cv2.warpAffine(np.full_like(one.grey, 255), moved, size) == 255
    if covered.sum() < _OVERLAP_MIN * min(one.grey.size, grey.size):
        return count, 0.0
    a, b = laid[covered].astype(np.float32), grey[covered].astype(np.float32)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return count, float(a @ b) / spread if spread else 0.0
