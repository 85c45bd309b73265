"""An encoder that sees every picture without what is behind its object: an option of a collection, off by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from features.background import RECORD, SIDE, on_white, shared_network
from features.encoders.base import Encoder, FeatureMap

if TYPE_CHECKING:
    import torch


class OnWhite:
    """An `Encoder` of pictures with white behind their objects. Where no object stands out, it sees all of a picture.

    Parameters
    ----------
    encoder : Encoder
        What makes the vectors.

    Raises
    ------
    EncoderError
        What finds objects is not installed.
    """

    def __init__(self, encoder: Encoder) -> None:
        shared_network()  # what is missing is said before the first picture
        self._encoder = encoder
        self.name = encoder.name
        self.dim = encoder.dim
        self.classes = encoder.classes
        self.min_side = None if encoder.min_side is None else max(encoder.min_side, 2 * SIDE)
        self.spec: dict[str, Any] = {**encoder.spec, "background": RECORD}

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        return self._encoder.preprocess(_seen(image))

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self._encoder.encode([_seen(image) for image in images])

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> np.ndarray:
        return self._encoder.encode_prepared(prepared)

    def feature_map(self, image: np.ndarray) -> FeatureMap:
        return self._encoder.feature_map(_seen(image))

    def classify(self, features: np.ndarray) -> np.ndarray:
        return self._encoder.classify(features)


def _seen(image: np.ndarray) -> np.ndarray:
    cut = on_white(image)
    return image if cut is None else cut
