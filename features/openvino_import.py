"""OpenVINO, imported so that it stays silent."""

from __future__ import annotations

import importlib.util
import sys


def openvino_is_installed() -> bool:
    """Whether `silence_openvino` is worth calling; nothing is imported to find out."""
    return importlib.util.find_spec("openvino") is not None


def silence_openvino() -> None:
    """Keep OpenVINO from reporting its import to a server of its maker; call it before importing the package.

    It does so where the module ``openvino_telemetry`` is installed. Nothing here reaches for the network unasked.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
