"""Engines measured in turns."""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import Data
from benchmarks.engines import Arguments, EngineError, Subject
from benchmarks.process import SINGLES, Process

logger = logging.getLogger("benchmarks")


def as_text(arguments: Arguments) -> str:
    """ "nprobe=8 k_factor=10" """
    return " ".join(f"{name}={value}" for name, value in arguments.items())


@dataclass
class Built:
    """What building an engine took. Seconds and bytes; None where the engine or the system does not tell."""

    subject: Subject
    kernel: str
    warm_up_s: float
    train_s: float
    add_s: float
    first_search_s: float
    memory_bytes: int | None
    file_bytes: int | None


@dataclass
class Case:
    """Queries of one engine with one setting. Each list has one entry a round, in microseconds a query."""

    subject: Subject
    arguments: Arguments
    threads: int
    recall: float = math.nan
    batch_us: list[float] = field(default_factory=list)
    single_us: list[float] = field(default_factory=list)
    """Medians; all of them are in `latencies_us`"""
    latencies_us: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    """Busy in a batch"""
    scanned: float | None = None
    """Vectors (codes) a query is compared with, in the mean; None where the engine does not tell"""

    @property
    def setting(self) -> str:
        """ "nprobe=8 k_factor=10"."""
        return as_text(self.arguments)


@dataclass
class Comparison:
    """One run over one data set."""

    data: Data
    built: list[Built]
    cases: list[Case]
    unavailable: dict[str, str]
    """Why, by label"""


class Spread(NamedTuple):
    """The median of the rounds, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """NaN for no values."""
        values = list(values) or [math.nan]
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, theirs: Sequence[float], ours: Sequence[float]) -> Spread:
        """How many times longer theirs took, round by round."""
        return cls.of(a / b for a, b in zip(theirs, ours, strict=True))


def build(process: Process, data: Data, arguments: Arguments, threads: int) -> Built:
    """Train, add, and look at what came out."""
    train_s = process.ask("train", path=str(data.train), threads=threads)
    add_s = process.ask("add", path=str(data.base), threads=threads)
    first_search_s = process.ask("first_search", k=data.k, arguments=arguments, threads=threads)
    memory = process.ask("memory")
    with tempfile.TemporaryDirectory(dir=data.base.parent) as saved:
        size = process.ask("save", path=str(Path(saved) / "index"))
    started = process.started
    return Built(process.subject, started["kernel"], started["warm_up_s"], train_s, add_s, first_search_s, memory, size)


def turns(settings: Sequence[Sequence[Arguments]], threads: Sequence[int]) -> list[tuple[int, Arguments, int]]:
    """One round: setting by setting and thread count by thread count, the engines that have the setting in turn.

    Parameters
    ----------
    settings : for each engine, its query arguments
    threads : thread counts

    Returns
    -------
    list of (engine number, query arguments, threads)
    """
    distinct: list[Arguments] = []
    for own in settings:
        distinct.extend(arguments for arguments in own if arguments not in distinct)
    return [
        (engine, arguments, count)
        for arguments in distinct
        for count in threads
        for engine, own in enumerate(settings)
        if arguments in own
    ]


def measure(
    processes: Sequence[Process],
    settings: Sequence[Sequence[Arguments]],
    data: Data,
    *,
    threads: Sequence[int],
    repeats: int,
    unavailable: dict[str, str],
) -> list[Case]:
    """Time the queries of built engines, in turns. One that fails is entered in `unavailable` and has no cases."""
    plan = turns(settings, threads)
    cases = [Case(processes[engine].subject, arguments, count) for engine, arguments, count in plan]
    failed: set[int] = set()

    def take_turns(what: Callable[[Process, Case], None]) -> None:
        for (engine, _, _), case in zip(plan, cases, strict=True):
            if engine not in failed:
                try:
                    what(processes[engine], case)
                except EngineError as error:
                    failed.add(engine)
                    not_available(unavailable, case.subject, error)

    def warm_up(process: Process, case: Case) -> None:
        same = {"k": data.k, "arguments": case.arguments, "threads": case.threads}
        case.recall = data.recall(process.ask("answers", **same))
        case.scanned = process.ask("scanned", **same)

    def timed(process: Process, case: Case) -> None:
        same = {"k": data.k, "arguments": case.arguments, "threads": case.threads}
        us, cores = process.ask("batch", **same)
        times = process.ask("single", **same, first=len(case.batch_us) * SINGLES)
        case.batch_us.append(us)
        case.cores.append(cores)
        case.single_us.append(statistics.median(times))
        case.latencies_us.extend(times)

    take_turns(warm_up)
    for number in range(repeats):
        logger.info("round %d of %d", number + 1, repeats)
        take_turns(timed)
    done = [(engine, case) for (engine, _, _), case in zip(plan, cases, strict=True) if engine not in failed]
    return [case for _, case in sorted(done, key=lambda pair: pair[0])]


def compare(
    data: Data, plan: Sequence[tuple[Subject, list[Arguments]]], *, threads: Sequence[int], repeats: int, seed: int
) -> Comparison:
    """Build all subjects, one after the other and with the most threads; then measure their queries in turns."""
    comparison = Comparison(data, [], [], {})
    processes: list[Process] = []
    settings: list[list[Arguments]] = []
    with ExitStack() as stack:
        for subject, arguments in plan:
            try:
                process = stack.enter_context(Process(subject, data, seed))
                logger.info("building %s", subject.label)
                comparison.built.append(build(process, data, arguments[0], max(threads)))
            except EngineError as error:
                not_available(comparison.unavailable, subject, error)
                continue
            processes.append(process)
            settings.append(arguments)
        comparison.cases = measure(
            processes, settings, data, threads=threads, repeats=repeats, unavailable=comparison.unavailable
        )
    return comparison


def not_available(unavailable: dict[str, str], subject: Subject, error: EngineError) -> None:
    unavailable[subject.label] = str(error)
    logger.warning("%s: %s", subject.label, error)
