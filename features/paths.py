"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose "~" is the home of whoever it names, where the shell has not spelled it out (``--out=~/x``).

    One that names nobody, "~old pictures", is the path as it is, and so is that of a file or folder which is there.
    """
    own = Path(path)
    if str(own).startswith("~") and "\0" not in str(own) and not os.path.lexists(own):
        return Path(os.path.expanduser(own))  # noqa: PTH111  # Path.expanduser raises RuntimeError
    return own
