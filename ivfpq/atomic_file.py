"""Files that are replaced all or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed: no lock is needed there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of the one at `path` when all went well.

    Until then it lies beside it under another name, so that whatever happens the old file or the new one is there. A
    link is followed: what it leads to is replaced. A file that is there keeps its permissions. What killed processes
    left behind of the same file is removed.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to, or `path` is not a regular file. The message names them.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
    mode = target.stat().st_mode if target.exists() else None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(target))
    prefix = f".ivfpq-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    _remove_left_behind(target.parent, prefix)
    temporary, file = _created(target, prefix)
    try:
        with file:
            yield file
            file.flush()
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            os.fsync(file.fileno())
            if fcntl is not None:  # replaced while it is locked: nobody takes it for one that was left behind
                temporary.replace(target)
        if fcntl is None:
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name must outlive a power cut as well
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _created(target: Path, prefix: str) -> tuple[Path, BinaryIO]:
    """A new file beside `target`, locked as long as it is open. Its name is short, however long the target's is."""
    while True:
        temporary = target.with_name(f"{prefix}{secrets.token_hex(6)}.tmp")
        try:
            file = temporary.open("xb")
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(target)) from None
        if fcntl is None:
            return temporary, file
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():  # nobody took it for left behind between the two
            return temporary, file
        file.close()


def _remove_left_behind(folder: Path, prefix: str) -> None:
    """Remove the files of that prefix that no process has open."""
    for path in folder.glob(f"{prefix}*.tmp"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        if fcntl is None:
            with contextlib.suppress(OSError):
                path.unlink()
