"""How work is shared out among threads. Compiled code and numpy's larger operations run in them at the same time."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many threads to take at most: OMP_NUM_THREADS, or one for each processor that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit():
        return max(1, int(wanted))
    return cores()


def spread(work: Callable[[int, int], Any], n: int, count: int) -> list[Any]:
    """What work(first, last) gives for n steps, cut into a piece for each of `count` threads, or of `threads()`."""
    if count > 1:
        count = min(count, threads())
    if count <= 1:
        return [work(0, n)]
    ends = np.linspace(0, n, count + 1).astype(int).tolist()
    return in_threads(work, itertools.pairwise(ends), count)


def in_threads(work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], count: int) -> list[Any]:
    """What work(*each) gives for each of the arguments, in up to `count` threads, or here where none can be had.

    There are none any more when the interpreter is about to end, as in an atexit handler.
    """
    results: list[Callable[[], Any]] = []
    with ThreadPoolExecutor(count) as pool:
        for each in arguments:
            try:
                results.append(pool.submit(work, *each).result)
            except RuntimeError:
                results.append(functools.partial(work, *each))
        return [result() for result in results]
