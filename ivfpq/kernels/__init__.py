"""How candidates are scanned: one answer (`reference` defines it), several speeds.

`IVFPQ_KERNEL` in the environment names the kernel to use.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

AVAILABLE = ("reference",)  # fastest last


def active() -> str:
    """The name of the kernel that searches use.

    Raises
    ------
    ValueError
        If `IVFPQ_KERNEL` names none.
    """
    name = os.environ.get("IVFPQ_KERNEL") or AVAILABLE[-1]
    if name not in AVAILABLE:
        raise ValueError(f"IVFPQ_KERNEL must be one of {', '.join(AVAILABLE)}, got {name!r}")
    return name


def get() -> ModuleType:
    """The active kernel: a module with `search` and `range_search`, as in `reference`."""
    return importlib.import_module(f"ivfpq.kernels.{active()}")
