"""Lets torchvision and timm be imported without torch's compiler, which nothing here uses.

Both only name it, and that imports 700 modules, sympy among them: 1.3 seconds of a processor in every process that
encodes a picture. torchvision takes from it a function that it calls when it is compiled (0.28), timm marks with it a
method that is not to be compiled (1.0).
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER, _UTILITIES = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def lazy_compiler() -> Iterator[None]:
    """Import torchvision or timm in here: what they take from the compiler imports it when it is called."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utilities = _StandIn(_COMPILER), _StandIn(_UTILITIES)
    compiler.__path__ = []  # a package
    compiler.disable = _disable  # type: ignore[attr-defined]
    utilities.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[_COMPILER], sys.modules[_UTILITIES] = compiler, utilities
    try:
        yield
    finally:
        _remove()


class _StandIn(ModuleType):
    """Gives way to the module itself where anything else is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what importing itself asks
            raise AttributeError(name)
        _remove()
        return getattr(importlib.import_module(self.__name__), name)


def _remove() -> None:
    for name in (_COMPILER, _UTILITIES):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _disable(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
    """`torch.compiler.disable`, at the first call of the function."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, **options)
    real: Callable[..., Any] | None = None

    @functools.wraps(function)
    def uncompiled(*arguments: Any, **named: Any) -> Any:
        nonlocal real
        if real is None:
            real = importlib.import_module(_COMPILER).disable(function, recursive, **options)
        return real(*arguments, **named)

    return uncompiled


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(_UTILITIES).is_compile_supported(device)
