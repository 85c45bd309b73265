"""What a wanted recall costs beside the best numbers one could have chosen: ``--study target-recall``.

An index is tuned on queries that were held out, and asked with `target_recall` on others. Against that stands the fixed
pair of nprobe and k_factor that takes the least time of all that find as many on those very queries: what nobody can
know beforehand. Times are of one thread's processor, so that a busy machine says little.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks.comparison import Spread
from benchmarks.data import Data, features_of, prepare, synthetic
from benchmarks.report import describe, environment, markdown, spread, write_json
from ivfpq import IndexFlat, index_factory
from ivfpq.checks import Floats
from ivfpq.kernels import active
from ivfpq.metrics import knn_recall_at_k

TARGETS = (0.9, 0.95, 0.99)
PROBES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 80, 100)
K_FACTORS = (1, 2, 3, 4, 6, 8)
FINALISTS = 4  # fixed settings that are measured as often as the target: one round alone may mislead
SINGLES = 100  # queries asked one at a time, each round

Ask = Callable[[Floats], Any]


@dataclass
class Row:
    """One target, asked in one way. Times are microseconds of the processor a query."""

    target: float
    way: str
    recall: float
    setting: str
    us: Spread
    best: str
    best_recall: float
    best_us: Spread
    times_best: Spread
    """The target's time by that of the best, round by round"""


def target_recall(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """One table; target-recall.md and target-recall.json into --out."""
    x, name = (synthetic(10_000, 2048, args.seed), "synthetic") if args.features == "synthetic" else features_of(args)
    data = prepare(x, name, folder / "unit", queries=2 * args.queries, k=args.k, seed=args.seed, unit=True)
    factory = f"PCA{min(256, data.d)},IVF{min(100, max(1, data.n // 40))},SQ8,Refine"
    with one_thread():
        index = index_factory(data.d, factory, seed=args.seed)
        index.train(np.load(data.train))
        index.add(np.load(data.base))
        rows = rows_of(index, data, args.repeats)
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    asked = len(data.truth) // 2
    text = "\n\n".join(
        [
            "# A wanted recall",
            describe(about),
            f"{data.name}, {data.n:,} x {data.d}, length 1, {factory}, k = {args.k}, kernel {active()}: tuned on "
            f"{len(data.truth) - asked} queries, asked with {asked} others. Processor time of one thread, by the "
            f"medians of {args.repeats} rounds in turns (smallest and largest in brackets). The best fixed setting is "
            "the fastest that finds as much on the queries asked.",
            table(rows),
        ]
    )
    (args.out / "target-recall.md").write_text(text + "\n", encoding="utf-8")
    about_data = {"name": data.name, "n": data.n, "d": data.d, "queries": asked, "factory": factory}
    content = {"environment": about, "data": about_data, "k": args.k, "repeats": args.repeats}
    write_json(args.out / "target-recall.json", {**content, "rows": [asdict(row) for row in rows]})
    return text + "\n"


def rows_of(index: Any, data: Data, repeats: int) -> list[Row]:
    """Tune the index on the second half of the queries, and measure it on the first."""
    queries, k = np.load(data.queries), data.k
    asked, learnt = np.split(queries, [len(queries) // 2])
    flat = IndexFlat(data.d)
    flat.add(np.load(data.base))
    truth = flat.search(asked, k).ids
    fixed = []
    for nprobe, k_factor in product([p for p in PROBES if p == 1 or p <= index.nlist], K_FACTORS):
        ask = asking(index, k, nprobe=nprobe, k_factor=k_factor)
        found = knn_recall_at_k(ask(asked), truth)
        fixed.append((min(_seconds(ask, asked) for _ in range(2)), nprobe, k_factor, found))
    rows = []
    for target in TARGETS:
        tuned = index.tune(learnt, k, target)
        wanted = asking(index, k, target_recall=target)
        recall = knn_recall_at_k(wanted(asked), truth)
        finalists = sorted(one for one in fixed if one[-1] >= min(target, recall))[:FINALISTS]
        for way in ("batch", "single"):
            asks = [wanted, *(asking(index, k, nprobe=n, k_factor=f) for _, n, f, _ in finalists)]
            times = rounds_of(asks, asked, way, repeats)
            best = min(range(1, len(times)), key=lambda i: Spread.of(times[i]).median)
            _, nprobe, k_factor, found = finalists[best - 1]
            rows.append(
                Row(
                    target,
                    way,
                    recall,
                    f"nprobe={tuned.nprobe} k_factor={tuned.k_factor}",
                    Spread.of(times[0]),
                    f"nprobe={nprobe} k_factor={k_factor}",
                    found,
                    Spread.of(times[best]),
                    Spread.of_ratios(times[0], times[best]),
                )
            )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        [
            f"{row.target:g}",
            row.way,
            f"{row.recall:.4f}",
            row.setting,
            spread(row.us),
            row.best,
            f"{row.best_recall:.4f}",
            spread(row.best_us),
            spread(row.times_best, "x"),
        ]
        for row in rows
    ]
    heads = "wanted|asked|recall found|tuned setting|us a query|best fixed|its recall|its us a query|times the best"
    return markdown(heads, lines, 4)


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and our compiled code, which reads the variable at every search, use one thread meanwhile."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def asking(index: Any, k: int, **how: Any) -> Ask:
    return lambda x: index.search(x, k, **how).ids


def _seconds(ask: Ask, x: Floats) -> float:
    started = time.process_time()
    ask(x)
    return time.process_time() - started


def rounds_of(asks: Sequence[Ask], x: Floats, way: str, repeats: int) -> list[list[float]]:
    """Microseconds a query of each way to ask, in turns, every second round backwards."""
    times: list[list[float]] = [[] for _ in asks]
    parts = [x] if way == "batch" else np.split(x[:SINGLES], len(x[:SINGLES]))
    for number in range(repeats):
        order = range(len(asks))
        for i in order if number % 2 else reversed(order):
            seconds = sum(_seconds(asks[i], part) for part in parts)
            times[i].append(seconds / sum(map(len, parts)) * 1e6)
    return times
