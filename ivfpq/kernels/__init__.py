"""How candidates are scanned: one answer (`reference` defines it), several speeds.

`IVFPQ_KERNEL` in the environment names the kernel to use; otherwise the fastest is taken that this machine can run.
What is compiled is numba's work, which is imported by the first add or search and not before. README.md in this folder
has a table of all that a kernel must handle.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import Any

NAMES = ("reference", "portable", "avx2", "avx512")  # fastest last
FEATURES = {
    "avx2": frozenset({"avx2"}),  # Intel since Haswell, AMD since Zen
    "avx512": frozenset({"avx512f", "avx512bw", "avx512vbmi"}),  # Intel since Ice Lake, AMD since Zen 4
}

_log = logging.getLogger(__name__)


@functools.cache
def available() -> tuple[str, ...]:
    """The names of the kernels that this machine can run, fastest last.

    `portable` needs numba, `avx2` a processor with AVX2 as well, and `avx512` one with AVX-512 VBMI.
    """
    return tuple(name for name in NAMES if name not in _obstacles())


def active() -> str:
    """The name of the kernel that searches use.

    Raises
    ------
    ValueError
        If `IVFPQ_KERNEL` names none, or one that this machine cannot run.
    """
    name = os.environ.get("IVFPQ_KERNEL")
    if not name:
        return available()[-1]
    if name != "reference" and name not in available():
        why = f": {_obstacles()[name]}" if name in _obstacles() else ""
        raise ValueError(f"IVFPQ_KERNEL must be one of {', '.join(available())}, got {name!r}{why}")
    return name


@functools.cache
def compiled_module(name: str) -> Any:
    """A module of this package that numba compiles, imported when it is first asked for."""
    return importlib.import_module(f"ivfpq.kernels.{name}")


@functools.cache
def _obstacles() -> dict[str, str]:
    """Why kernels cannot be used here, by their names."""
    compiled = NAMES[1:]
    try:
        jit = compiled_module("jit")
    except ModuleNotFoundError as error:
        return dict.fromkeys(compiled, f"numba is not installed ({error})")
    except Exception as error:  # it does not fit this Python or numpy, or its libraries do not load
        _log.warning("numba cannot be imported, so searches are slow: %s", error)
        return dict.fromkeys(compiled, f"numba cannot be imported ({error})")
    if jit.config.DISABLE_JIT:
        return dict.fromkeys(compiled, "NUMBA_DISABLE_JIT is set, so numba compiles nothing")
    lacking = {name: sorted(needed - jit.target_features()) for name, needed in FEATURES.items()}
    return {
        name: f"the processor that numba compiles for lacks {', '.join(features)}"
        for name, features in lacking.items()
        if features
    }
