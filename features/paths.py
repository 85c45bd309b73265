"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose "~" is the home of whoever it names; of "~old pictures", which names nobody, the path as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises RuntimeError
