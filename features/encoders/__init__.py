"""Networks that turn images into vectors. One file per network; torch is loaded when the first encoder is made."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

NAMES = (
    "auto",
    "resnet50",
    "resnet50-finetuned",
    "resnet50-scratch",
    "efficientnet-lite0",
    "efficientnet-lite2",
    "efficientnet-lite2+lite0",
)


class EncoderError(RuntimeError):
    """An encoder cannot be made: unknown name, or weights that are missing, damaged or for another network."""


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

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), from stored features (n, dim) of any float type."""
        ...


def choose_encoder() -> tuple[str, str]:
    """Name the encoder that ``auto`` stands for, and one line that says which and why.

    ResNet50 if its weights are on this machine already (nothing is downloaded to find out), else EfficientNet-Lite0,
    whose weights were installed with the project's requirements.
    """
    from features.encoders import resnet50

    cached = resnet50.cached_weights()
    if cached is not None:
        return "resnet50", f"encoder resnet50: its weights are on this machine ({cached})"
    return (
        "efficientnet-lite0",
        "encoder efficientnet-lite0: ResNet50's weights are not on this machine (--encoder resnet50 downloads them)",
    )


def create_encoder(
    name: str = "auto",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    runtime: str | None = None,
) -> Encoder:
    """Make an encoder by name.

    Parameters
    ----------
    name : str
        ``"auto"`` (see `choose_encoder`; the choice is logged), ``"resnet50"``, ``"resnet50-finetuned"``,
        ``"resnet50-scratch"``, ``"efficientnet-lite0"``, ``"efficientnet-lite2"``,
        ``"efficientnet-lite2+lite0"`` (the most accurate without a download).
    weights : str or path, optional
        A ``.safetensors`` file, or a ``.pth`` state dict (read without unpickling objects). ResNet50 also takes
        ``"IMAGENET1K_V1"`` (its default) and ``"IMAGENET1K_V2"``, downloaded once through torch hub's cache. The
        finetuned and scratch encoders need a file that `features.train` wrote.
    device : str, optional
        A torch device; the GPU if there is one, else the CPU.
    runtime : {"openvino", "torch", "eager"}, optional
        How the network is run. By default the fastest that is installed; the vectors are the same but for rounding.

    Raises
    ------
    EncoderError
        With the way out: where to put a file, or which package to install.
    """
    if name not in NAMES:
        raise EncoderError(f"unknown encoder {name!r}; there are {', '.join(NAMES)}")
    if name == "auto":
        if weights is not None:
            raise EncoderError(f"name the encoder that {os.fspath(weights)} belongs to: {' or '.join(NAMES[1:])}")
        name, reason = choose_encoder()
        logger.info("%s", reason)
    if name.startswith("resnet50"):
        from features.encoders.resnet50 import ResNet50

        return ResNet50(name, weights=weights, device=device, runtime=runtime)
    from features.encoders.efficientnet_lite import EfficientNetLite

    return EfficientNetLite(name, weights=weights, device=device, runtime=runtime)


def encoder_for(spec: dict[str, Any], *, device: str | None = None) -> Encoder:
    """Make the encoder that a store's manifest describes; `FeatureStore.check_encoder` proves that it is the same."""
    return create_encoder(spec["name"], weights=spec["weights"]["argument"], device=device)
