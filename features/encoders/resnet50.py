"""ResNet50 (He, Zhang, Ren, Sun 2015): 2048-d, the globally pooled output of its last stage."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from features.torchvision_ops import declare_operators

declare_operators()  # before torchvision is imported

from torchvision.models import ResNet50_Weights, resnet50  # noqa: E402

from features.encoders.network import NetworkEncoder  # noqa: E402
from features.encoders.preprocessing import Preprocessing  # noqa: E402
from features.encoders.weights import cache_path, checksum_prefix, fetch, load_into, read_weights  # noqa: E402

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


class ResNet50(NetworkEncoder):
    """ResNet50 without its last layer.

    Parameters
    ----------
    weights : str or path, optional
        ``"IMAGENET1K_V1"`` or ``"IMAGENET1K_V2"`` (torchvision's, downloaded once), or a file with a state dict. By
        default the version that is on this machine already, else V1. A file that is a copy of one of torchvision's
        gets the preprocessing of that version, any other file that of V1.
    device : str, optional
        See `create_encoder`.
    """

    def __init__(self, *, weights: str | os.PathLike[str] | None = None, device: str | None = None) -> None:
        if weights is None:
            cached = cached_weights()
            weights = next((v.name for v in ResNet50_Weights if _cache_path(v) == cached), "IMAGENET1K_V1")
        argument = os.fspath(weights)
        if argument in ResNet50_Weights.__members__:
            path = fetch(ResNet50_Weights[argument].url)
            source = f"torchvision {argument}"
        else:
            path = Path(argument).expanduser().resolve()
            argument = source = str(path)
        state, digest = read_weights(path)
        # torchvision's file names end in the first digits of the file's SHA-256, so a renamed copy is known too.
        version = next((v for v in ResNet50_Weights if digest.startswith(checksum_prefix(v.url))), None)
        bias = state.get("fc.bias")
        net = resnet50(num_classes=1000 if bias is None else len(bias))
        load_into(net, state, path)
        classifier, net.fc = net.fc, torch.nn.Identity()
        names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
        if classifier.out_features != len(names):
            names = [f"class {number}" for number in range(classifier.out_features)]
        super().__init__(
            "resnet50",
            net,
            classifier,
            dim=DIM,
            preprocessing=preprocessing_of(version or ResNet50_Weights.IMAGENET1K_V1),
            classes=tuple(names),
            weights={"argument": argument, "source": source, "sha256": digest},
            descriptor="global average pooling of the last stage",
            device=device,
        )

    def _describe(self, batch: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self._net(batch)
        return pooled

    def _last_maps(self, batch: torch.Tensor) -> torch.Tensor:
        net = self._net
        maps = net.maxpool(net.relu(net.bn1(net.conv1(batch))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            maps = stage(maps)
        return maps
