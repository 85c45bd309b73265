"""A sudden end, for tests of what must survive one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any


def kill_before(step: int, folder: Path) -> None:
    """kill -9 this process before its step-th operation, from now on, on a file of this folder."""
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "sqlite3.connect") and str(folder) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
