"""What every encoder is: images in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch


class EncoderError(RuntimeError):
    """An encoder cannot be made: unknown name, or weights that are missing, damaged or for another network."""


class FeatureMap(NamedTuple):
    """What a network's last layer sees in each place of an image."""

    values: np.ndarray
    """float32 (h, w, c), row 0 at the top. Their mean over the places is the first c numbers of the image's vector."""
    window: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the image: the part that they divide evenly, which the network sees."""


class Encoder(Protocol):
    """An image in, a vector out. Safe to call from many threads.

    Attributes
    ----------
    name : str
        As `create_encoder` takes it.
    dim : int
        Length of a vector.
    spec : dict
        Everything the vectors depend on (weights and their SHA-256, preprocessing, descriptor) and what ran the network
        (runtime), ready for JSON. Two encoders with the same spec, but for where the weights lie and for the runtime,
        give interchangeable vectors.
    min_side : int, optional
        An image may be decoded at a reduced scale as long as its short side keeps this many pixels (see
        `features.images.decode_image`): twice what the network is shown, so that the vector keeps a cosine of 0.999.
        None: only at full size.
    classes : tuple of str
        Names of what `classify` tells apart, in its order; empty for a network without a classifier.
    """

    name: str
    dim: int
    spec: dict[str, Any]
    min_side: int | None
    classes: tuple[str, ...]

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """Prepare a decoded image: uint8 (H, W, 3) of any size to float32 (3, height, width)."""
        ...

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode decoded images, each uint8 (H, W, 3), to float32 (n, dim)."""
        ...

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> np.ndarray:
        """Encode what `preprocess` returned, so that it can run elsewhere while the network is busy."""
        ...

    def feature_map(self, image: np.ndarray) -> FeatureMap:
        """The last feature map of a decoded image, uint8 (H, W, 3): where in it the vector comes from."""
        ...

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), from stored features (n, dim) of any float type."""
        ...
