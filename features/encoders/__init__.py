"""Networks that turn images into vectors. One file for each network; torch is loaded when the first encoder is made."""

from features.encoders.base import Encoder, EncoderError, FeatureMap
from features.encoders.registry import (
    choose_encoder,
    create_encoder,
    encoder_for,
    encoder_names,
    register_encoder,
    share_encoder,
    shared_encoder,
    without_background,
)

__all__ = [
    "Encoder",
    "EncoderError",
    "FeatureMap",
    "choose_encoder",
    "create_encoder",
    "encoder_for",
    "encoder_names",
    "register_encoder",
    "share_encoder",
    "shared_encoder",
    "without_background",
]
