"""Arrays that take long to make and depend on nothing but what their name says: kept in the user's cache folder."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.paths import expanded

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where they lie; ``XDG_CACHE_HOME`` moves it."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "reverse-image-search"


def kept(name: str, shape: tuple[int, ...], make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """An array of this name, read from its file, or made and written there as float16.

    What comes back is the same either way: rounded to float16. A file that cannot be read, or is of another shape, is
    made again; where none can be written, the array is made each time.

    Parameters
    ----------
    name : str
        Says all that the array depends on, as by a checksum.
    shape : tuple of int
    make : callable
    """
    path = cache_folder() / f"{name}.npy"
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == shape and found.dtype == np.float16 and np.isfinite(found).all():
            return found.astype(np.float32)
    except (OSError, ValueError, EOFError):
        pass
    made = make().astype(np.float16)
    temporary = path.with_name(f".{name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.save(file, made, allow_pickle=False)
        temporary.replace(path)
    except OSError as error:
        logger.info("%s cannot be kept, so it is made again each time: %s", path, error)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return made.astype(np.float32)
