"""The preprocessing that belongs to a set of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

# A longer image is cut to this many times its short side before it is resized. The centre crop never sees what is cut
# off, and a panorama of 100,000 x 10 pixels does not become one of 2,560,000 x 256 on the way.
_MAX_ASPECT = 4

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Short side to `resize` pixels, centre crop of `crop`, scale to 0..1, then (x - mean) / std for each channel.

    The same arithmetic as torchvision's ``ImageClassification`` preset, including its rounding of sizes and offsets.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Prepare one image: uint8 (H, W, 3) to float32 (3, crop, crop)."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"image must be a decoded RGB image, uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}"
            )
        picture = Image.fromarray(without_far_ends(image))
        size, (left, top) = self._placed(*picture.size)
        picture = picture.resize(size, _FILTERS[self.interpolation])
        picture = picture.crop((left, top, left + self.crop, top + self.crop))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(torch.float32) / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def window(self, image: np.ndarray) -> tuple[float, float, float, float]:
        """The part of an image (H, W, 3) that is left: left, top, right and bottom edge in its pixels."""
        height, width = image.shape[:2]
        cut_y, cut_x = _far_ends(image)
        inside = (width - 2 * cut_x, height - 2 * cut_y)
        (wide, high), (left, top) = self._placed(*inside)
        x, y = inside[0] / wide, inside[1] / high  # pixels of the image in one of the network's
        return cut_x + left * x, cut_y + top * y, cut_x + (left + self.crop) * x, cut_y + (top + self.crop) * y

    def _placed(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height to resize to, and the left and top edge of the crop in that."""
        short = min(width, height)
        size = (int(self.resize * width / short), int(self.resize * height / short))
        return size, (round((size[0] - self.crop) / 2.0), round((size[1] - self.crop) / 2.0))


def without_far_ends(image: np.ndarray) -> np.ndarray:
    """Cut (H, W, 3) to the middle of its long side, if that is more than four times the short one."""
    height, width = image.shape[:2]
    top, left = _far_ends(image)
    return np.ascontiguousarray(image[top : height - top, left : width - left])


def _far_ends(image: np.ndarray) -> tuple[int, int]:
    """Rows to cut off above and below, columns left and right."""
    height, width = image.shape[:2]
    longest = _MAX_ASPECT * min(height, width)
    return max(0, height - longest) // 2, max(0, width - longest) // 2
