"""How a network is run: on a CPU by OpenVINO where it is installed, else by torch.

All ways give the same vectors but for rounding. ``"eager"`` is the definition: the network as it was loaded, in
float32. The others fold batch normalisation into the convolutions, and where the processor multiplies bfloat16
natively, a network that bears it (one whose vectors keep a cosine of 0.999 to the definition) is run in bfloat16.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from importlib import metadata
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from features.encoders.base import EncoderError
from features.openvino_import import openvino_is_installed, silence_openvino

NAMES = ("openvino", "torch", "eager")


class Runtime(Protocol):
    """A network ready to run. Safe to call from many threads.

    Attributes
    ----------
    record : dict
        ``name``, ``version`` and ``precision``, for the manifest.
    """

    record: dict[str, str]

    def __call__(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        """Run n images, each float32 (3, crop, crop), to float32 (n, dim)."""
        ...


def make_runtime(
    name: str | None, net: torch.nn.Module, *, crop: int, device: str | None, bears_bfloat16: bool
) -> Runtime:
    """Make a network ready to run; it belongs to the runtime from here on.

    Parameters
    ----------
    name : {"openvino", "torch", "eager"}, optional
        By default the fastest: OpenVINO if it is installed and the device is a CPU.
    net : torch.nn.Module
        Takes float32 (n, 3, crop, crop), gives (n, dim).
    device : str, optional
        A torch device; the GPU if there is one, else the CPU.
    bears_bfloat16 : bool
        Whether the network may run in bfloat16.

    Raises
    ------
    EncoderError
        The name is unknown, the device cannot be used, or OpenVINO is not installed or is asked for on a GPU.
    """
    if name is not None and name not in NAMES:
        raise EncoderError(f"unknown runtime {name!r}; there are {', '.join(NAMES)}")
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise EncoderError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    installed = openvino_is_installed()
    if name == "openvino" and not (installed and place.type == "cpu"):
        raise EncoderError(
            f"runtime openvino is for the CPU, not for {place}" if installed else "pip install openvino to run with it"
        )
    net.eval().requires_grad_(False)
    if name == "eager":
        return _Torch(net, place, torch.float32, torch.contiguous_format, "eager")
    fold_batch_norm(net)
    if installed and place.type == "cpu" and name != "torch":
        return _OpenVino(net, crop, bears_bfloat16)
    bfloat16 = bears_bfloat16 and _multiplies_bfloat16(place)
    return _Torch(net, place, torch.bfloat16 if bfloat16 else torch.float32, torch.channels_last, "torch")


class _Torch:
    def __init__(
        self, net: torch.nn.Module, device: torch.device, dtype: torch.dtype, layout: torch.memory_format, name: str
    ) -> None:
        module: Any = net  # torch's types do not know of a layout here
        try:
            self._net = module.to(device, memory_format=layout)
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
            raise EncoderError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
        self._device, self._dtype, self._layout = device, dtype, layout
        self.record = {"name": name, "version": torch.__version__, "precision": str(dtype).removeprefix("torch.")}

    def __call__(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        batch = torch.stack(list(images)).contiguous(memory_format=self._layout)
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        else:
            batch = batch.to(self._device)
        reduced = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=reduced):
            features: np.ndarray = self._net(batch).float().cpu().numpy()
        return features


class _OpenVino:
    """OpenVINO on as many threads as torch would use, so that OMP_NUM_THREADS and torch's own setting count.

    It compiles the network, which takes seconds, when the first images come: who searches by words has none. One
    request at a time has all threads; callers queue.
    """

    def __init__(self, net: torch.nn.Module, crop: int, bears_bfloat16: bool) -> None:
        self._net, self._crop = net, crop
        self._bfloat16 = bears_bfloat16 and "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._request: Any = None
        self._lock = threading.Lock()
        self.record = {
            "name": "openvino",
            "version": metadata.version("openvino"),
            "precision": "bfloat16" if self._bfloat16 else "float32",
        }

    def __call__(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        batch = torch.stack(list(images)).contiguous().numpy()
        with self._lock:
            if self._request is None:
                self._request = self._compiled()
            self._request.infer([batch], share_inputs=True)
            features: np.ndarray = self._request.get_output_tensor().data.copy()
        return features

    def _compiled(self) -> Any:
        core = _openvino_core()
        import openvino

        with _tracing, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch wants no more tracing; OpenVINO traces
            # OpenVINO itself would trace with torch's check, which runs the network again and again.
            example = torch.zeros(1, 3, self._crop, self._crop)
            traced = torch.jit.trace(self._net, example, strict=False, check_trace=False)
            model = openvino.convert_model(traced, input=[(-1, 3, self._crop, self._crop)])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core.compile_model(model, "CPU", settings).create_infer_request()


_tracing = threading.Lock()
"""Held while torch traces: it keeps what it knows of a trace for the whole process."""


def _openvino_core() -> Any:
    silence_openvino()
    import openvino

    return openvino.Core()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def fold_batch_norm(net: torch.nn.Module) -> None:
    """Fold each batch normalisation into the convolution registered just before it, in place.

    In evaluation mode both are linear, so this only saves passes over memory. An activation that timm keeps inside the
    normalisation stays.
    """
    for parent in list(net.modules()):
        for (_, first), (name, second) in pairwise(list(parent.named_children())):
            if isinstance(first, torch.nn.Conv2d) and isinstance(second, torch.nn.BatchNorm2d):
                fused = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
                first.weight, first.bias = fused.weight, fused.bias
                setattr(parent, name, getattr(second, "act", torch.nn.Identity()))
