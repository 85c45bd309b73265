"""Weights files: read without running code, checked, and fetched only when the user asked for them by name."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from features.checksum import sha256_of
from features.encoders.base import EncoderError
from features.encoders.preprocessing import Preprocessing
from features.paths import expanded
from features.torchvision_ops import declare_operators

declare_operators()  # before torchvision is imported

from torchvision.models import ResNet50_Weights  # noqa: E402

logger = logging.getLogger(__name__)

_TRAINING = "training"
"""Key under which the header of a safetensors file holds a `Training`, as JSON."""


@dataclass(frozen=True)
class Training:
    """What a file that `features.train` wrote says of itself, in its header.

    Attributes
    ----------
    network : str
        The encoder it belongs to, without the suffix that says how it was trained.
    init : {"imagenet", "scratch"}
        Where training began: at weights from a file, or at random ones.
    classes : tuple of str
        Names of the classifier's outputs.
    multi_label : bool
        Whether an image may have several classes (a sigmoid each) or has exactly one (a softmax).
    preprocessing : Preprocessing
        What images must go through.
    recipe, metrics : dict
        How it was made and how good it is, for people.
    """

    network: str
    init: str
    classes: tuple[str, ...]
    multi_label: bool
    preprocessing: Preprocessing
    recipe: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def kind(self) -> str:
        """The network and how it came about: ``resnet50-finetuned``, ``resnet50-scratch``, ..."""
        return f"{self.network}-{'scratch' if self.init == 'scratch' else 'finetuned'}"


def read_training(path: str | os.PathLike[str]) -> Training | None:
    """Read what a weights file says of its training; None if it says nothing, as files from elsewhere do.

    Raises
    ------
    EncoderError
        It says something that cannot be read.
    """
    path = expanded(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_TRAINING)
        if text is None:
            return None
        fields = json.loads(text)
        fields["classes"] = tuple(fields["classes"])
        preprocessing = fields["preprocessing"]
        preprocessing.update({name: tuple(preprocessing[name]) for name in ("mean", "std")})
        return Training(**{**fields, "preprocessing": Preprocessing(**preprocessing)})
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{path} is damaged: its header cannot be read ({_first_line(error)})") from error


def write_training(path: Path, state: dict[str, torch.Tensor], training: Training) -> None:
    """Write weights with their `Training` in the header, durably: at any moment the file is the old or the new one."""
    write_tensors(path, state, {_TRAINING: json.dumps(asdict(training), ensure_ascii=False)})


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file so that at any moment it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, header)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def class_names(training: Training | None, count: int) -> tuple[str, ...]:
    """Names of a classifier's outputs: the file's own, ImageNet's if there are 1,000, else numbers."""
    if training is not None:
        return training.classes
    names = imagenet_classes()
    return names if count == len(names) else tuple(f"class {number}" for number in range(count))


def imagenet_classes() -> tuple[str, ...]:
    """Names of ImageNet's 1,000 classes, in the order that all networks use."""
    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], str]:
    """Read a state dict and the SHA-256 of its file.

    ``.safetensors`` is read as such, anything else with ``torch.load(weights_only=True)``, which refuses every object
    but tensors and plain containers.

    Raises
    ------
    EncoderError
        The file is missing, damaged, or not a flat dict of tensors.
    """
    path = expanded(path)
    if not path.is_file():
        raise EncoderError(f"weights file {path} does not exist")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        # Both readers raise a dozen types for a damaged file, and torch's refusal of foreign objects is one more.
        raise EncoderError(f"{path} is damaged or not a file of weights only: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"weights file {path} must hold a flat dict of tensors (a state dict)")
    digest = sha256_of(path)
    logger.info("weights %s, SHA-256 %s", path, digest)
    return state, digest


def load_into(net: torch.nn.Module, state: dict[str, torch.Tensor], source: str | os.PathLike[str]) -> None:
    """Load a state dict into a network, by name, or in order where another library named the same tensors otherwise.

    Raises
    ------
    EncoderError
        The tensors are not this network's.
    """
    own = net.state_dict()
    if state.keys() != own.keys() and [v.shape for v in state.values()] == [v.shape for v in own.values()]:
        state = dict(zip(own, state.values(), strict=True))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise EncoderError(
            f"{os.fspath(source)} does not hold weights of this network ({type(net).__name__}): "
            f"{len(state)} tensors, {len(own)} wanted; {_first_line(error, skip=1)}"
        ) from error


def cache_path(url: str) -> Path:
    """Where torch hub keeps the file of this address (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])


def checksum_prefix(url: str) -> str:
    """First digits of the SHA-256 of a published weights file; its name ends in them (``resnet50-0676ba61.pth``)."""
    return PurePosixPath(url).stem.rsplit("-", 1)[-1]


def fetch(url: str) -> Path:
    """Return the file of this address from torch hub's cache; download it first if it is not there.

    The checksum that its name carries is verified either way.

    Raises
    ------
    EncoderError
        It cannot be downloaded, or its checksum differs. The message says where to put the file.
    """
    path = cache_path(url)
    prefix = checksum_prefix(url)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), prefix)
        except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a wrong checksum is a RuntimeError
            raise EncoderError(
                f"{url} cannot be downloaded ({_first_line(error)}). Fetch it on another machine and put it at {path}, "
                f"name your copy with --weights, or use --encoder efficientnet-lite0, which needs no download"
            ) from error
    digest = sha256_of(path)
    if not digest.startswith(prefix):
        raise EncoderError(
            f"{path} is damaged: its SHA-256 begins with {digest[: len(prefix)]}, its name says {prefix}. "
            f"Remove it and run the same command again, or put a good copy of {url} there"
        )
    return path


def _first_line(error: Exception, skip: int = 0) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(skip, len(lines) - 1)] if lines else type(error).__name__
