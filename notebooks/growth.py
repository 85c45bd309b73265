"""Engines against each other as the vectors become more, each for as long as its time budget lasts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.comparison import Built, Case, Comparison, Spread, as_text, compare
from benchmarks.data import prepare
from benchmarks.engines import Arguments, Subject
from benchmarks.report import draw_rounds, lines, markdown, spread
from ivfpq.checks import Floats

MAX_NLIST, POINTS_PER_LIST = 1024, 40


class Runner(NamedTuple):
    """An engine with one setting of queries, whose index grows with the vectors."""

    subject: Subject
    """Its factory may hold "{nlist}": as many lists as there are POINTS_PER_LIST vectors for, at most MAX_NLIST"""
    arguments: Arguments

    def at(self, n: int) -> Subject:
        """The subject for n vectors."""
        nlist = min(MAX_NLIST, max(1, n // POINTS_PER_LIST))
        return self.subject._replace(factory=self.subject.factory.format(nlist=nlist))

    @property
    def label(self) -> str:
        """The subject, and the setting where there is one: "ivfpq IVFn,PQ16, nprobe=16"."""
        return ", ".join(filter(None, [self.subject.label.replace("{nlist}", "n"), as_text(self.arguments)]))


def grow(
    x: Floats,
    sizes: Sequence[int],
    runners: Sequence[Runner],
    *,
    name: str,
    folder: Path,
    queries: int,
    k: int,
    threads: int,
    repeats: int,
    seed: int,
    budget_s: float,
) -> list[Comparison]:
    """Compare the runners over the first n of the vectors, for each n of `sizes`.

    One that would spend more than `budget_s` seconds at a size, going by what it took at the size before and growing in
    proportion, is left out from there on and named among `Comparison.unavailable`.

    Parameters
    ----------
    x : float32 array, shape (n, d)
        In random order, and as many more than the largest size as there are queries.
    sizes : increasing

    Returns
    -------
    list of Comparison
        One a size.
    """
    if len(x) < max(sizes) + queries:
        raise ValueError(f"{max(sizes)} vectors and {queries} queries need as many rows, got {len(x)}")
    comparisons: list[Comparison] = []
    left_out: dict[str, str] = {}
    for n in sizes:
        data = prepare(x[: n + queries], name, folder / str(n), queries=queries, k=k, seed=seed)
        if comparisons:
            left_out |= _too_slow(runners, comparisons[-1], n, budget_s)
        plan = [(runner.at(n), [runner.arguments]) for runner in runners if runner.label not in left_out]
        comparison = compare(data, plan, threads=[threads], repeats=repeats, seed=seed)
        comparison.unavailable.update(left_out)
        comparisons.append(comparison)
    return comparisons


def _too_slow(runners: Sequence[Runner], before: Comparison, n: int, budget_s: float) -> dict[str, str]:
    """The labels of those that would take more than the budget for n vectors, and why."""
    reasons = {}
    for runner in runners:
        for case, built in _cases(before, runner):
            rounds = len(case.batch_us) + 1  # one more finds the answers
            batches_us = statistics.median(case.batch_us) * len(before.data.truth) * rounds
            seconds = built.train_s + built.add_s + (batches_us + sum(case.latencies_us)) / 1e6
            if seconds * n / before.data.n > budget_s:
                reasons[runner.label] = (
                    f"took {seconds:.0f} s for {before.data.n:,} vectors; for {n:,} it has {budget_s:.0f} s"
                )
    return reasons


# What a panel shows of an engine at a size: one number a round.
PANELS: dict[str, Callable[[Case, Built], list[float]]] = {
    "build, seconds": lambda case, built: [built.train_s + built.add_s],
    "memory, MB": lambda case, built: [math.nan if built.memory_bytes is None else built.memory_bytes / 1e6],
    "recall": lambda case, built: [case.recall],
    "one query at a time, us": lambda case, built: case.single_us,
    "in batches, us a query": lambda case, built: case.batch_us,
}


def draw_growth(axes: Sequence[Any], comparisons: Sequence[Comparison], runners: Sequence[Runner]) -> None:
    """One of PANELS on each axis against the number of vectors; bars from the smallest round to the largest."""
    styles = lines([runner.subject for runner in runners])
    for ax, (what, values) in zip(axes, PANELS.items(), strict=False):
        for runner in runners:
            points = [(c.data.n, values(case, built)) for c in comparisons for case, built in _cases(c, runner)]
            sizes, rounds = [n for n, _ in points], [numbers for _, numbers in points]
            draw_rounds(ax, sizes, rounds, label=runner.label, **styles[runner.subject])
        ax.set(xscale="log", yscale="linear" if what == "recall" else "log", title=what, xlabel="vectors")


def growth_table(comparisons: Sequence[Comparison], runners: Sequence[Runner]) -> str:
    """As Markdown: the microseconds of one query at a time, and the recall, of each runner at each size."""
    rows = []
    for runner in runners:
        row = [runner.label]
        for comparison in comparisons:
            found = _cases(comparison, runner)
            row += [f"{spread(Spread.of(case.single_us))}, {case.recall:.2f}" for case, _ in found] or ["-"]
        rows.append(row)
    header = "|".join(["us of one query at a time, recall", *(f"n = {c.data.n:,}" for c in comparisons)])
    last = comparisons[-1].unavailable
    return "\n\n".join([markdown(header, rows, left=1), *(f"-: {label} {why}" for label, why in last.items())])


def _cases(comparison: Comparison, runner: Runner) -> list[tuple[Case, Built]]:
    """What was measured of a runner: one case, or none."""
    built, wanted = {b.subject: b for b in comparison.built}, (runner.at(comparison.data.n), runner.arguments)
    return [(case, built[case.subject]) for case in comparison.cases if (case.subject, case.arguments) == wanted]
