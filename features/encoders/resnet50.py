"""ResNet50 (He, Zhang, Ren, Sun 2015): 2048-d, the globally pooled output of its last stage.

It comes in three ways: ``resnet50`` with weights from elsewhere (torchvision's by default), ``resnet50-finetuned`` and
``resnet50-scratch`` with a file of `features.train`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from features.torchvision_ops import declare_operators

declare_operators()  # before torchvision is imported

from torchvision.models import ResNet50_Weights, resnet50  # noqa: E402

from features.encoders.base import EncoderError  # noqa: E402
from features.encoders.network import NetworkEncoder  # noqa: E402
from features.encoders.preprocessing import Preprocessing  # noqa: E402
from features.encoders.weights import (  # noqa: E402
    cache_path,
    checksum_prefix,
    class_names,
    fetch,
    load_into,
    read_training,
    read_weights,
)
from features.paths import expanded  # noqa: E402

DIM = 2048


def preprocessing_of(version: ResNet50_Weights) -> Preprocessing:
    """Preprocessing that torchvision's weights were evaluated with."""
    preset = version.transforms()
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def cached_weights() -> Path | None:
    """Torchvision's weights in torch hub's cache, V1 before V2, or None; nothing is ever downloaded here."""
    return next((path for path in map(_cache_path, ResNet50_Weights) if path.is_file()), None)


def _cache_path(version: ResNet50_Weights) -> Path:
    return cache_path(version.url)


def find_weights(weights: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    """Turn what the user named into a file, downloading it if it is torchvision's, and what to record of it.

    Returns
    -------
    path : Path
    origin : dict
        ``argument`` and ``source``, as `NetworkEncoder` takes them.
    """
    if weights is None:
        cached = cached_weights()
        weights = next((v.name for v in ResNet50_Weights if _cache_path(v) == cached), "IMAGENET1K_V1")
    argument = os.fspath(weights)
    if argument in ResNet50_Weights.__members__:
        return fetch(ResNet50_Weights[argument].url), {"argument": argument, "source": f"torchvision {argument}"}
    path = expanded(argument).resolve()
    return path, {"argument": str(path), "source": str(path)}


def preprocessing_for(digest: str) -> Preprocessing:
    """Preprocessing of the weights file with this SHA-256: torchvision's own for its files, V1's for any other."""
    # torchvision's file names end in the first digits of the file's SHA-256, so a renamed copy is known too.
    version = next((v for v in ResNet50_Weights if digest.startswith(checksum_prefix(v.url))), None)
    return preprocessing_of(version or ResNet50_Weights.IMAGENET1K_V1)


class ResNet50(NetworkEncoder):
    """ResNet50 without its last layer.

    Parameters
    ----------
    name : str
        ``"resnet50"``, ``"resnet50-finetuned"`` or ``"resnet50-scratch"``; the last two take only a file of
        `features.train` that began where they say, and the first only weights from elsewhere.
    weights : str or path, optional
        ``"IMAGENET1K_V1"`` or ``"IMAGENET1K_V2"`` (torchvision's, downloaded once), or a file with a state dict. By
        default the version that is on this machine already, else V1. A file that is a copy of one of torchvision's
        gets the preprocessing of that version, a trained one its own, any other file that of V1.
    device, runtime : str, optional
        See `create_encoder`.
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        runtime: str | None = None,
    ) -> None:
        if weights is None and name != "resnet50":
            raise EncoderError(f"{name} needs --weights: a file that python -m features.train --encoder resnet50 wrote")
        path, origin = find_weights(weights)
        state, digest = read_weights(path)
        training = read_training(path)
        found = "resnet50" if training is None else training.kind
        if found != name:
            plain = " (plain weights, whose header tells of no training)" if training is None else ""
            raise EncoderError(f"{path} holds {found}{plain}, not {name}: say --encoder {found}")
        bias = state.get("fc.bias")
        net = resnet50(num_classes=1000 if bias is None else len(bias))
        load_into(net, state, path)
        classifier, net.fc = net.fc, torch.nn.Identity()
        super().__init__(
            name,
            net,
            classifier,
            dim=DIM,
            preprocessing=preprocessing_for(digest) if training is None else training.preprocessing,
            classes=class_names(training, classifier.out_features),
            multi_label=training is not None and training.multi_label,
            weights={**origin, "sha256": digest},
            descriptor="global average pooling of the last stage",
            device=device,
            runtime=runtime,
            bears_bfloat16=True,
        )

    def _last_maps(self, batch: torch.Tensor) -> torch.Tensor:
        net = self._net
        maps = net.maxpool(net.relu(net.bn1(net.conv1(batch))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            maps = stage(maps)
        return maps
