"""One writer of a collection at a time, whichever process or thread it is in.

The lock is the kernel's, on a file beside the collection's folder, so it holds while the folder itself is replaced, and
goes with its process, however that ends. What the file says is for people: who holds the lock, and since when.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from features.collection.errors import StoreError, cannot_write

_POLL_SECONDS = 0.05
_mine = threading.local()  # .depth: how often this thread holds each lock


@contextmanager
def writing(folder: str | os.PathLike[str], *, wait_seconds: float = 0.0, purpose: str = "changed") -> Iterator[None]:
    """Be the only writer of a collection for the time of a ``with`` block.

    A writer may call another of the same collection in its own thread.

    Parameters
    ----------
    folder : path
        The collection's; it need not exist yet.
    wait_seconds : float
        How long to wait for another writer before giving up.
    purpose : str
        What is being done to the collection ("brought up to date"), for who meets the lock.

    Raises
    ------
    StoreError
        Another process or thread is writing, or the lock's file cannot be written.
    """
    place = Path(os.path.realpath(folder))
    depths: dict[Path, int] = _mine.__dict__.setdefault("depths", {})
    if place in depths:
        depths[place] += 1
        try:
            yield
        finally:
            depths[place] -= 1
        return
    path = place.with_name(f".{place.name}.lock")
    file = _locked_file(path, place, time.monotonic() + wait_seconds)
    depths[place] = 1
    try:
        _sign(file, purpose)
        yield
    finally:
        del depths[place]
        with suppress(OSError):  # deleted while it is held; where open files cannot be deleted it stays
            path.unlink()
        file.close()


def _locked_file(path: Path, place: Path, deadline: float) -> BinaryIO:
    """The lock's file, open and locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            if _lock(file) and _is_at(file, path):
                return file
            holder = _holder(file)
        except OSError as error:
            file.close()
            raise cannot_write(path, error) from error
        file.close()
        if time.monotonic() >= deadline and holder is not None:
            raise StoreError(f"{place} is being {_sentence(holder)}")
        time.sleep(_POLL_SECONDS)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether this is still the file of that name: the last holder may have deleted it since it was opened."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: BinaryIO, purpose: str) -> None:
    """Write who holds the lock; it holds without that."""
    holder = {
        "pid": os.getpid(),
        "command": "/".join(Path(sys.argv[0] or "python").parts[-2:]),  # no arguments: a password may be among them
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "purpose": purpose,
    }
    with suppress(OSError):
        file.truncate(0)
        file.write(json.dumps(holder).encode())
        file.flush()


def _holder(file: BinaryIO) -> dict[str, Any] | None:
    """Who holds the lock; None where it has just been released."""
    file.seek(0)
    with suppress(ValueError):
        holder = json.loads(file.read(4096))
        if isinstance(holder, dict):
            return holder
    return {} if not _lock(file) else None


def _sentence(holder: dict[str, Any]) -> str:
    if holder.get("pid") == os.getpid():
        who = "another thread of this process"
    else:
        who = "another process"
        if holder:
            who += f" ({holder.get('command')}, process {holder.get('pid')}, since {holder.get('since')})"
    return f"{holder.get('purpose', 'changed')} by {who}: wait until that has finished, or end it"


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> bool:
        """Try to lock the file, without waiting."""
        file.seek(1 << 30)  # bytes far behind what the file says, which others may read meanwhile
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        """Try to lock the file, without waiting."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
