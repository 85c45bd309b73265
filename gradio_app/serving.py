"""What the server does beside answering: its memory, its cache of uploads, and being ready for the first search."""

from __future__ import annotations

import ctypes
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from features.encoders import EncoderError
from search.backends.base import UnreachableError
from search.engine import SearchEngine

logger = logging.getLogger(__name__)

WARM_UP_AFTER = 4.0  # seconds: the first page that is opened comes before
TRIM_EVERY = 5.0  # seconds; it takes 20 ms when the server is at its busiest, and nothing when idle
SWEEP_EVERY = 60.0  # seconds
MAX_CACHE = 2 * 2**30  # bytes of uploads that are kept
_M_ARENA_MAX = -8  # of glibc's mallopt


class UsageError(Exception):
    """Something the person at the command line can put right; the message is all they see."""


def check_port(host: str, port: int) -> None:
    """Raise `UsageError` unless a server can listen there."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address") from error
    except PermissionError as error:
        raise UsageError(f"port {port} may not be used by ordinary users; choose one above 1023 with --port") from error
    except OSError as error:
        raise UsageError(
            f"port {port} on {host} is in use; choose another with --port, e.g. --port {port + 1}"
        ) from error


def share_arenas() -> None:
    """Let all threads share two of glibc's arenas; other systems have none.

    By default each of the server's 40 threads comes to keep the memory of its largest pictures in an arena of its own.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def trim_memory(sleep: Callable[[float], None] = time.sleep) -> None:
    """Give the system back what lies free between what is in use in glibc's arenas, every few seconds, for ever.

    glibc itself gives back the free end of an arena only. Answers of 100 kB to many visitors at once leave it full of
    holes, of which few are of use again: 270 MB after 7,000 searches.
    """
    with suppress(OSError, AttributeError, TypeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            sleep(TRIM_EVERY)
            trim(0)


def sweep_cache(folder: Path, max_bytes: int = MAX_CACHE) -> None:
    """Delete the oldest uploads while all of them together are too large; Gradio itself goes by their age only."""
    files: list[tuple[float, int, Path]] = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
    too_many = sum(size for _, size, _ in files) - max_bytes
    for _, size, path in sorted(files):
        if too_many <= 0:
            break
        with suppress(OSError):
            path.unlink()
        too_many -= size


def warm_up(engines: Sequence[SearchEngine]) -> None:
    """Search once with every engine: the first search loads networks, compiled functions and libraries."""
    for engine in engines:
        grey = np.full((64, 64, 3), 128, np.uint8)
        try:
            for name in engine.engines:
                if name != "exact":  # that one reads all vectors into memory: not before someone wants it
                    with _told(engine, name):
                        engine.search(grey, engine=name)
            for label in list(engine.labels)[:1]:
                engine.search(grey, filter={"label": label})
        except EncoderError as error:
            logger.warning("%s can only be browsed: %s", engine.name, error)
        except Exception:  # of one collection; the others are warmed up all the same
            logger.exception("%s could not be searched at the start", engine.name)


@contextmanager
def _told(engine: SearchEngine, name: str) -> Iterator[None]:
    """A database may be down: others can be searched."""
    try:
        yield
    except UnreachableError as error:
        logger.warning("%s cannot be searched by %s for now: %s", engine.name, name, error)


class Upkeep:
    """The threads beside the server, from `start` to `stop`.

    Parameters
    ----------
    resume : callable
        Goes on with what a server before this one left.
    """

    def __init__(self, engines: Sequence[SearchEngine], cache: Path, resume: Callable[[], None]) -> None:
        self._warm_up = threading.Timer(WARM_UP_AFTER, warm_up, args=(engines,))
        self._warm_up.daemon = True  # its several seconds are not worth waiting for at the end
        self._others: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (_sweep_on, (cache,)),
            (trim_memory, ()),
            (resume, ()),
        ]

    def start(self) -> None:
        self._warm_up.start()
        for function, arguments in self._others:
            threading.Thread(target=function, args=arguments, daemon=True).start()

    def stop(self) -> None:
        self._warm_up.cancel()  # a thread that Python's end finds in torch aborts the process


def _sweep_on(cache: Path) -> None:
    while True:
        time.sleep(SWEEP_EVERY)
        sweep_cache(cache)
