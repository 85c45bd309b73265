"""Weights files: read without running code, checked, and fetched only when the user asked for them by name."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import torch
from safetensors.torch import load_file

from features.checksum import sha256_of
from features.encoders import EncoderError


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], str]:
    """Read a state dict and the SHA-256 of its file.

    ``.safetensors`` is read as such, anything else with ``torch.load(weights_only=True)``, which refuses every object
    but tensors and plain containers.

    Raises
    ------
    EncoderError
        The file is missing, damaged, or not a flat dict of tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise EncoderError(f"weights file {path} does not exist")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        # Both readers raise a dozen types for a damaged file, and torch's refusal of foreign objects is one more.
        raise EncoderError(f"{path} is damaged or not a file of weights only: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"weights file {path} must hold a flat dict of tensors (a state dict)")
    return state, sha256_of(path)


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
