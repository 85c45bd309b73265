"""Pictures are used while others are still being fetched, in a thread beside the download.

What has come lies in files and in the state of the download, so nothing waits in memory. A turn takes all that has come
by then; the next begins when enough more has come for its own costs, such as looking through a long list, to be small
beside what it does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from features.datasets import Dataset, DatasetError, open_dataset
from features.encoding import Progress

FIRST = 1_000
SHARE = 0.1

_AGAIN_SECONDS = 0.1  # until what was told of is looked for again, where it is not there yet

Use = Callable[[Dataset, Progress], None]
"""Called with what has come; it calls the progress often, which raises when nothing more is to be done."""


class _OverError(Exception):
    """Nothing more comes: what is left is for who waits for it."""


class UsedMeanwhile:
    """A `features.datasets.base.Meanwhile` that uses pictures in a thread.

    Parameters
    ----------
    begins : callable
        Given the folder to which pictures come, says what is done with them; None for nothing.
    first : int
        So many pictures at least make a turn.
    share : float
        And this share of those that had come before.
    """

    def __init__(self, begins: Callable[[Path], Use | None], *, first: int = FIRST, share: float = SHARE) -> None:
        self._begins, self._first, self._share = begins, first, share
        self._come, self._is_over = 0, False
        self._told = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def begin(self, folder: Path) -> None:
        use = self._begins(folder)
        if use is not None:
            self._come = len(_come_to(folder))
            self._thread = threading.Thread(target=self._work, args=(folder, use), name="meanwhile", daemon=True)
            self._thread.start()

    def came(self, count: int) -> None:
        with self._told:
            self._come += count
            self._told.notify()

    def end(self) -> None:
        with self._told:
            self._is_over = True
            self._told.notify()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, folder: Path, use: Use) -> None:
        used = 0
        try:
            while self._waited_for(used + max(self._first, round(self._share * used))):
                there = len(_come_to(folder))
                if there > used:
                    use(open_dataset(str(folder)), self._go_on)
                    used = there
                else:
                    with self._told:
                        self._told.wait(_AGAIN_SECONDS)
        except _OverError:
            pass
        except Exception as error:  # told by `end`, in the thread of who waits for it
            self._error = error

    def _waited_for(self, count: int) -> bool:
        """Wait until so many have come; False where nothing more comes."""
        with self._told:
            self._told.wait_for(lambda: self._is_over or self._come >= count)
            return not self._is_over

    def _go_on(self, done: int, total: int) -> None:
        if self._is_over:
            raise _OverError


def _come_to(folder: Path) -> list[Path]:
    """The pictures that are there."""
    try:
        return [item.path for item in open_dataset(str(folder)).items]
    except DatasetError:  # none yet
        return []
