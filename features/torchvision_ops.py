"""Make ``import torchvision`` work beside a CPU-only torch.

torchvision's wheel on the package index is compiled against CUDA. Beside a CPU-only torch its operator library ``_C``
does not load, and since torchvision registers fake kernels for two of its operators on import, that import stops with
``operator torchvision::nms does not exist`` (pytorch/vision issues 9077 and 9085). Declaring the two schemas first is
enough for its models and transforms, which use neither operator.

timm and transformers import torchvision too, so call `declare_operators` before importing any of the three.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from features.lazy_compiler import lazy_compiler

logger = logging.getLogger(__name__)

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_lock = threading.Lock()
_library: Any = None  # the declarations live as long as this object


def declare_operators() -> None:
    """Declare torchvision's operators unless its own library provides them. Call it as often as you like."""
    with _lock:
        if _library is None and "torchvision" not in sys.modules:
            _declare()
            with lazy_compiler():
                importlib.import_module("torchvision.ops")


def _declare() -> None:
    global _library
    import torch

    load_library: Any = torch.ops.load_library  # neither has types
    new_library: Any = torch.library.Library

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for path in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            load_library(path)  # torchvision loads it once more, which does nothing
        except OSError as error:
            logger.debug("torchvision's operators are not available: %s", error)
    missing = [schema for name, schema in _SCHEMAS.items() if not hasattr(torch.ops.torchvision, name)]
    if missing:
        _library = new_library("torchvision", "FRAGMENT")
        for schema in missing:
            _library.define(schema)
