"""Whose turn it is: per host a queue, connections, a rate and a breaker, and all hosts in turn.

Nothing here waits or looks at a clock: times are handed in, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator

from features.download.errors import FetchError
from features.download.options import DownloadOptions
from features.download.state import Task


class Host:
    """A host, what is to fetch from it, and how it has behaved.

    Attributes
    ----------
    queue : deque of Task
        What is leased of it and not asked yet.
    in_flight : int
        What is being asked.
    is_drained : bool
        Whether there was no more of it to lease.
    """

    def __init__(self, name: str, options: DownloadOptions) -> None:
        self.name = name
        self.queue: deque[Task] = deque()
        self.in_flight = 0
        self.is_drained = False
        self._options = options
        self._burst = max(1.0, min(options.rate, options.per_host))
        self._tokens = self._burst
        self._counted_at = -math.inf
        self._not_before = -math.inf
        self._failures = 0
        self.breaks = 0

    def ready_at(self, now: float) -> float:
        """When it may be asked next; infinite while that depends on an answer."""
        if not self.queue:
            return math.inf
        # After a pause one request shows whether the host is back before more are sent.
        if self.in_flight >= (1 if self.breaks else self._options.per_host):
            return math.inf
        self._fill(now)
        return max(self._not_before, now + max(0.0, 1 - self._tokens) / self._options.rate)

    def take(self, now: float) -> Task:
        """The next task, to be asked now."""
        self._fill(now)
        self._tokens -= 1
        self.in_flight += 1
        return self.queue.popleft()

    def answered(self, now: float, error: FetchError | None, random: random.Random) -> None:
        """What was asked has come to an end, well or not."""
        self.in_flight -= 1
        if error is None or not error.is_host:
            self._failures = self.breaks = 0
        else:
            self._failures += 1
            if self._failures >= self._options.break_after or (self.breaks and now >= self._not_before):
                pause = self._options.break_seconds * 2**self.breaks * random.uniform(0.5, 1.0)
                self._not_before = max(self._not_before, now + pause)
                self.breaks += 1
                self._failures = 0
        if error is not None and error.retry_after is not None:
            self._not_before = max(self._not_before, now + error.retry_after)

    @property
    def is_given_up(self) -> bool:
        return self.breaks > self._options.breaks

    def is_troubled(self, now: float) -> bool:
        """Whether how it has behaved must not be forgotten yet."""
        return bool(self.breaks or self._failures or now < self._not_before)

    def _fill(self, now: float) -> None:
        if now > self._counted_at:
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._options.rate)
            self._counted_at = now


class Hosts:
    """The hosts that are asked now, one after the other."""

    def __init__(self, options: DownloadOptions) -> None:
        self._options = options
        self._ring: deque[Host] = deque()
        self._in_turn: set[str] = set()
        self._known: dict[str, Host] = {}  # those in the ring, and those whose behaviour counts

    def __len__(self) -> int:
        return len(self._ring)

    def __contains__(self, name: str) -> bool:
        return name in self._in_turn

    def __iter__(self) -> Iterator[Host]:
        return iter(self._ring)

    def enter(self, name: str) -> Host:
        """Let a host have its turns; one whose behaviour counts still is known."""
        host = self._known.setdefault(name, Host(name, self._options))
        host.is_drained = False
        if name not in self._in_turn:
            self._in_turn.add(name)
            self._ring.append(host)
        return host

    def leave(self, now: float) -> bool:
        """Let those go that have nothing left to do. Returns whether there were any."""
        left = {host.name for host in self._ring if host.is_drained and not host.queue and not host.in_flight}
        if left:
            self._ring = deque(host for host in self._ring if host.name not in left)
            self._in_turn -= left
            self._known = {
                name: host for name, host in self._known.items() if name in self._in_turn or host.is_troubled(now)
            }
        return bool(left)

    def next(self, now: float) -> tuple[Host | None, float]:
        """The host whose turn it is, which then is the last in turn; or None, and when there may be one."""
        soonest = math.inf
        for _ in range(len(self._ring)):
            host = self._ring[0]
            self._ring.rotate(-1)
            ready_at = host.ready_at(now)
            if ready_at <= now:
                return host, now
            soonest = min(soonest, ready_at)
        return None, soonest


def wait_before_try(tries: int, options: DownloadOptions, random: random.Random) -> float:
    """Seconds to wait before an address is asked again: exponential back-off with full jitter.

    Parameters
    ----------
    tries : int
        How often it was asked so far, at least once.

    Notes
    -----
    uniform(0, min(max_wait, wait * 2**(tries - 1))): M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015.
    """
    return random.uniform(0, min(options.max_wait_seconds, options.wait_seconds * 2 ** (tries - 1)))
