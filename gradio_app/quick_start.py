"""Imports Gradio in half the time. To be imported before anything else that imports Gradio.

At every import Gradio parses its own sources, once for each component, to write stub files (``.pyi``) for editors
beside them. It leaves out what has no source file; while it is imported here, no class has one.
"""

from __future__ import annotations

import inspect
from typing import Any

_getfile = inspect.getfile


def _no_file_of_a_class(object: Any) -> str:
    if isinstance(object, type):
        raise OSError("looking for the sources of classes takes too long while Gradio is imported")
    return _getfile(object)


inspect.getfile = _no_file_of_a_class
try:
    import gradio  # noqa: F401
finally:
    inspect.getfile = _getfile
