"""Random views of the training images."""

from __future__ import annotations

import numpy as np
import torch

from features.pixels import Pixels
from features.torchvision_ops import declare_operators

declare_operators()  # before torchvision

from torchvision.transforms import v2  # noqa: E402


class RandomViews(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Randomly cropped, flipped and coloured views: uint8 (3, size, size), and the image's place.

    What happens to an image follows from the seed, the epoch and its place alone, so neither the number of workers nor
    an interruption changes it.
    """

    def __init__(self, pixels: Pixels, size: int, seeds: tuple[int, int]) -> None:
        self._pixels = pixels
        self._seeds = seeds
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2),
            ]
        )

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self._pixels[place].copy()).permute(2, 0, 1)  # what is mapped cannot be written to
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([*self._seeds, place]).generate_state(1)[0]))
            return self._transform(pixels), place
