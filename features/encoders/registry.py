"""Encoders by name. The module of one is imported, and torch with it, when the encoder is made."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from features.encoders.base import Encoder, EncoderError

logger = logging.getLogger(__name__)

AUTO = "auto"

_CLASSES: dict[str, str | Callable[..., Encoder]] = {
    "resnet50": "features.encoders.resnet50:ResNet50",
    "resnet50-finetuned": "features.encoders.resnet50:ResNet50",
    "resnet50-scratch": "features.encoders.resnet50:ResNet50",
    "efficientnet-lite0": "features.encoders.efficientnet_lite:EfficientNetLite",
    "efficientnet-lite2": "features.encoders.efficientnet_lite:EfficientNetLite",
    "efficientnet-lite2+lite0": "features.encoders.efficientnet_lite:EfficientNetLite",
    "clip": "features.encoders.clip:Clip",
}


def register_encoder(name: str, target: str | Callable[..., Encoder]) -> None:
    """Let `create_encoder` make an encoder of this name; one that is known by it already is replaced.

    Parameters
    ----------
    name : str
        What command lines and manifests call it. One class may be registered under several names.
    target : str or callable
        ``"package.module:Class"``, imported when the encoder is made, or the class itself. It is called as
        ``Class(name, weights=..., device=..., runtime=...)``, with the arguments of `create_encoder`.

    Raises
    ------
    ValueError
        The name is ``"auto"`` or empty, or the target names no module and class.
    """
    if not name or name == AUTO:
        raise ValueError(f"name must not be empty or {AUTO!r}, got {name!r}")
    if isinstance(target, str) and not all(target.partition(":")):
        raise ValueError(f'target must be "package.module:Class", got {target!r}')
    _CLASSES[name] = target


def encoder_names() -> tuple[str, ...]:
    """What `create_encoder` takes, ``"auto"`` first."""
    return AUTO, *_CLASSES


def choose_encoder() -> tuple[str, str]:
    """Name the encoder that ``auto`` stands for, and one line that says which and why.

    ResNet50 if its weights are on this machine already (nothing is downloaded to find out), else EfficientNet-Lite0,
    whose weights were installed with the project's requirements.
    """
    from features.encoders.resnet50 import cached_weights

    cached = cached_weights()
    if cached is not None:
        return "resnet50", f"encoder resnet50: its weights are on this machine ({cached})"
    return (
        "efficientnet-lite0",
        "encoder efficientnet-lite0: ResNet50's weights are not on this machine (--encoder resnet50 downloads them)",
    )


def create_encoder(
    name: str = AUTO,
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
        ``"efficientnet-lite2+lite0"`` (the most accurate without a download), ``"clip"``, or what `register_encoder`
        was told.
    weights : str or path, optional
        A ``.safetensors`` file, or a ``.pth`` state dict (read without unpickling objects). ResNet50 also takes
        ``"IMAGENET1K_V1"`` (its default) and ``"IMAGENET1K_V2"``, downloaded once through torch hub's cache. The
        finetuned and scratch encoders need a file that `features.train` wrote. ``"clip"`` takes a folder of
        transformers, or the name of a model on the Hugging Face hub, downloaded once.
    device : str, optional
        A torch device; the GPU if there is one, else the CPU.
    runtime : {"openvino", "torch", "eager"}, optional
        How the network is run. By default the fastest that is installed; the vectors are the same but for rounding.

    Raises
    ------
    EncoderError
        With the way out: where to put a file, or which package to install.
    """
    if name not in encoder_names():
        raise EncoderError(f"unknown encoder {name!r}; there are {', '.join(encoder_names())}")
    if name == AUTO:
        if weights is not None:
            raise EncoderError(f"name the encoder that {os.fspath(weights)} belongs to: {' or '.join(_CLASSES)}")
        name, reason = choose_encoder()
        logger.info("%s", reason)
    return _class_of(name)(name, weights=weights, device=device, runtime=runtime)


def _class_of(name: str) -> Callable[..., Encoder]:
    target = _CLASSES[name]
    return _imported(target) if isinstance(target, str) else target


def _imported(target: str) -> Callable[..., Encoder]:
    module, _, attribute = target.partition(":")
    found: Callable[..., Encoder] = getattr(import_module(module), attribute)
    return found


def encoder_for(spec: dict[str, Any], *, device: str | None = None) -> Encoder:
    """Make the encoder that a store's manifest describes; `FeatureStore.check_encoder` proves that it is the same."""
    weights = spec.get("weights") or {}
    made = create_encoder(spec["name"], weights=weights.get("argument"), device=device)
    return without_background(made) if "background" in spec else made


def without_background(encoder: Encoder) -> Encoder:
    """The same encoder, which sees white behind the objects of pictures: see `features.encoders.on_white`.

    Raises
    ------
    EncoderError
        What finds the objects is not installed.
    """
    made: Encoder = _imported("features.encoders.on_white:OnWhite")(encoder)
    return made


def shared_encoder(spec: dict[str, Any]) -> Encoder:
    """`encoder_for`, of which all who ask for the same spec share one: it costs a network's memory."""
    key = json.dumps(spec, sort_keys=True)
    with _sharing:
        encoder = _shared.pop(key, None) or encoder_for(spec)
        _keep(key, encoder)
    return encoder


def share_encoder(encoder: Encoder) -> None:
    """Let `shared_encoder` give this one to whoever asks for its spec."""
    with _sharing:
        key = json.dumps(encoder.spec, sort_keys=True)
        _shared.pop(key, None)
        _keep(key, encoder)


def _keep(key: str, encoder: Encoder) -> None:
    _shared[key] = encoder
    if len(_shared) > _MAX_SHARED:
        del _shared[next(iter(_shared))]  # the one that nobody has asked for the longest


_MAX_SHARED = 4
_shared: dict[str, Encoder] = {}
_sharing = threading.Lock()
