"""A download from its list to its folder: leases, requests, pictures and what becomes of them, all together."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from features.collection.errors import StoreError, os_reason
from features.collection.lock import writing
from features.download.errors import DownloadError, FetchError, RefusedError
from features.download.fetch import Fetcher
from features.download.hosts import Host, Hosts, wait_before_try
from features.download.lists import read_list
from features.download.options import DownloadOptions
from features.download.pictures import NotKept, PictureProcesses
from features.download.state import STATE, DownloadState, Outcome, Task

PARTS = ".partial"
"""The folder of what is not complete, in the folder of a download."""

_QUEUED = 16  # of a host, in hand at a time
_HOSTS = 512  # that have their turns at a time
_COMMIT_SECONDS = 0.25
_COMMIT_AFTER = 500
_LEASE_SECONDS = 3600.0
_LOOK_SECONDS = 0.5  # between two looks at which hosts there are

_T = TypeVar("_T")

Progress = Callable[[Counter[str]], None]
"""Called with what came to an end since it was last called: "done", or the causes of what failed or was refused."""


def add_list(
    state: DownloadState, path: Path, column: str | None, progress: Callable[[int], None] | None = None
) -> list[str]:
    """Add the entries of a list that is not known yet, or has changed. Returns sentences on what could not be read.

    Raises
    ------
    DownloadError
        The list cannot be read, or has no such column.
    """
    notes: list[str] = []
    try:
        if not state.has_list(path, column):
            state.add(_counted(read_list(path, column, notes), progress), (path, column))
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error.strerror or error}") from error
    return notes


def _counted(entries: Iterator[_T], progress: Callable[[int], None] | None) -> Iterator[_T]:
    for entry in entries:
        if progress is not None:
            progress(1)
        yield entry


@contextmanager
def opened_state(folder: Path) -> Iterator[DownloadState]:
    """The state of a download, for the time of a ``with`` block in which no other process has it.

    Raises
    ------
    DownloadError
        Another process downloads to this folder, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder, purpose="downloaded to"):
            state = DownloadState(folder / STATE)
            try:
                yield state
            finally:
                state.close()
    except StoreError as error:
        raise DownloadError(str(error)) from error
    except sqlite3.Error as error:
        raise DownloadError(_disk_sentence(folder, error)) from error
    except OSError as error:
        raise DownloadError(_disk_sentence(folder, error)) from error


def download(
    state: DownloadState,
    folder: Path,
    options: DownloadOptions,
    *,
    progress: Progress | None = None,
    seed: int | None = None,
) -> bool:
    """Fetch all that is to do, as `DownloadState.begin` has left it. Not to be called from a running event loop.

    Parameters
    ----------
    seed : int, optional
        Of the jitter of waits; by default another one each time.

    Returns
    -------
    bool
        Whether it came to its end; False if Ctrl-C or SIGTERM stopped it, with all that was done kept.

    Raises
    ------
    DownloadError
        The disk is full, or a file cannot be written; what was done is kept.
    """
    parts = folder / PARTS
    shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
    parts.mkdir()
    try:
        return asyncio.run(_Run(state, folder, options, progress or (lambda _: None), seed).run())
    except (OSError, sqlite3.Error) as error:
        raise DownloadError(_disk_sentence(folder, error)) from error
    finally:
        shutil.rmtree(parts, ignore_errors=True)


class _Run:
    """One run, in one event loop. All of SQLite is in one thread beside it."""

    def __init__(
        self, state: DownloadState, folder: Path, options: DownloadOptions, progress: Progress, seed: int | None
    ) -> None:
        self._state, self._folder, self._options, self._progress = state, folder, options, progress
        self._random = random.Random(seed)
        self._hosts = Hosts(options)
        self._outcomes: list[Outcome] = []
        self._tasks: dict[asyncio.Task[None], tuple[Host, Task]] = {}
        self._database = ThreadPoolExecutor(1, "state")
        self._look_again = 0.0  # when hosts that are not in turn may have something to do, in seconds since 1970
        self._last_host = ""
        self._failure: Exception | None = None
        self._is_stopped = False

    async def run(self) -> bool:
        self._changed = asyncio.Event()
        self._pictures = PictureProcesses(self._folder, self._options.resize, self._options.processes)
        committing = asyncio.create_task(self._commit_now_and_then())
        try:
            with self._stopping_on_signals():
                async with Fetcher(self._options) as self._fetcher:
                    try:
                        await self._ask_all()
                    finally:
                        for task in self._tasks:
                            task.cancel()
                        await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            committing.cancel()
            with suppress(asyncio.CancelledError):
                await committing
            try:
                await self._commit()
                in_hand = [task for host in self._hosts for task in host.queue]
                await self._in_database(self._state.release, in_hand)
            finally:
                self._database.shutdown()
                await asyncio.to_thread(self._pictures.close)
        if self._failure is not None:
            raise self._failure
        return not self._is_stopped

    async def _ask_all(self) -> None:
        while not self._is_stopped and self._failure is None:
            self._changed.clear()
            await self._refill()
            now = time.monotonic()
            host, soonest = self._hosts.next(now) if len(self._tasks) < self._options.concurrency else (None, math.inf)
            if host is not None:
                taken = host.take(now)
                task = asyncio.create_task(self._ask(host, taken))
                self._tasks[task] = host, taken
                task.add_done_callback(self._ended)
                continue
            if not self._tasks and not len(self._hosts):
                await self._commit()
                due = await self._in_database(self._state.next_due)
                if due is None:
                    return
                self._look_again = min(self._look_again, due)
                soonest = now + max(0.0, due - time.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(None if soonest == math.inf else max(0.001, soonest - now)):
                    await self._changed.wait()

    async def _refill(self) -> None:
        """Lease what hosts in turn can take soon, and let hosts come and go."""
        if self._hosts.leave(time.monotonic()):
            self._look_again = 0.0
        now = time.time()
        room = _HOSTS - len(self._hosts)
        if room > 0 and now >= self._look_again:
            found = await self._in_database(self._state.hosts_after, self._last_host, now, room + len(self._hosts))
            new = [name for name in found if name not in self._hosts][:room]
            for name in new:
                self._hosts.enter(name)
            if new:
                self._last_host = new[-1]
            due = await self._in_database(self._state.next_due) if len(new) < room else now
            self._look_again = math.inf if due is None else max(due, now + _LOOK_SECONDS)
        wanted = [
            (host.name, _QUEUED - len(host.queue))
            for host in self._hosts
            if not host.is_drained and len(host.queue) <= _QUEUED // 4
        ]
        if not wanted:
            return
        leased = await self._in_database(self._state.lease, wanted, now, now + _LEASE_SECONDS)
        asked = dict(wanted)
        for host in self._hosts:
            if host.name in leased:
                host.queue.extend(leased[host.name])
                host.is_drained = len(leased[host.name]) < asked[host.name]

    async def _ask(self, host: Host, task: Task) -> None:
        part = self._folder / PARTS / task.key
        error: FetchError | None = None
        is_answered = False
        try:
            with part.open("wb") as file:
                is_whole = await self._fetcher.fetch(task.url, file)
            host.answered(time.monotonic(), None, self._random)
            is_answered = True
            self._changed.set()  # the host may be asked again while the picture is looked at
            kept = await self._pictures.keep(part, task.key)
            if isinstance(kept, NotKept):
                # Where nobody said how long the file is, its end may be missing.
                raise FetchError(kept.cause, kept.message, is_permanent=is_whole and kept.cause != "cannot be decoded")
            self._end(Outcome(task, "done", file=kept.file, bytes=kept.bytes, width=kept.width, height=kept.height))
        except RefusedError as refused:
            self._end(Outcome(task, "refused", refused.cause, refused.message, True))
        except FetchError as failed:
            error = failed
            self._end(self._failed(task, failed))
        except Exception as failure:  # of this machine or of ours, not of the network: the run ends with it
            self._failure = failure
            host.queue.appendleft(task)
        finally:
            if not is_answered:
                host.answered(time.monotonic(), error, self._random)
            with suppress(OSError):
                for left in (part, Path(f"{part}.reduced")):
                    left.unlink(missing_ok=True)
        if host.is_given_up:
            await self._give_up(host, error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        host, taken = self._tasks.pop(task)
        if task.cancelled():  # even before it began; it is given back with what was not asked
            host.queue.appendleft(taken)
        elif (error := task.exception()) is not None and self._failure is None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(str(error))
        self._changed.set()

    def _failed(self, task: Task, error: FetchError) -> Outcome:
        tries = task.tries + 1
        if error.is_permanent or tries >= self._options.tries:
            return Outcome(task, "failed", error.cause, error.message, error.is_permanent)
        wait = wait_before_try(tries, self._options, self._random)
        due = time.time() + max(wait, error.retry_after or 0.0)
        return Outcome(task, "todo", error.cause, error.message, due=due)

    def _end(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if outcome.state != "todo":
            self._progress(Counter([outcome.cause or "done"]))

    async def _give_up(self, host: Host, error: FetchError | None) -> None:
        """Count the rest of a host that stays away as failed, for now."""
        message = f"The host fails again and again{'' if error is None else ': ' + error.message}"
        host.breaks = 0  # whoever comes later to it begins anew
        self._outcomes.extend(Outcome(task, "failed", "host is down", message) for task in host.queue)
        self._progress(Counter({"host is down": len(host.queue)}))
        host.queue.clear()
        await self._commit()
        count = await self._in_database(self._state.give_up, host.name, "host is down", message)
        self._progress(Counter({"host is down": count}))

    async def _commit_now_and_then(self) -> None:
        try:
            while True:
                await asyncio.sleep(_COMMIT_SECONDS)
                await self._commit()
        except (OSError, sqlite3.Error) as error:
            self._failure = error
            self._changed.set()

    async def _commit(self) -> None:
        while self._outcomes:
            batch, self._outcomes = self._outcomes[:_COMMIT_AFTER], self._outcomes[_COMMIT_AFTER:]
            # Who stops the committing between two commits would lose what is in hand here.
            await asyncio.shield(self._in_database(self._record, batch))
            self._look_again = min([self._look_again, *(outcome.due for outcome in batch if outcome.state == "todo")])

    def _record(self, outcomes: list[Outcome]) -> None:
        """The names of the files must outlive a power cut if what is said of them does."""
        for folder in {(self._folder / outcome.file).parent for outcome in outcomes if outcome.file is not None}:
            _sync_folder(folder)
        self._state.record(outcomes)

    async def _in_database(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._database, work, *arguments)

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        caught = []
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, self._stop)
                caught.append(number)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self._is_stopped = True
        self._changed.set()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_sentence(folder: Path, error: Exception) -> str:
    text = str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in text:
        return f"the disk of {folder} is full: make room, and the same command goes on from here"
    if isinstance(error, sqlite3.Error):  # it keeps the reason to itself
        return f"{folder / STATE} cannot be used: {os_reason(folder / STATE) or text}"
    return f"{folder} cannot be written: {getattr(error, 'strerror', None) or text}"
