"""What nearly exact answers cost: ``python -m ivfpq.benchmark --study high-recall``.

Each engine is built once and asked with all settings of a query, in turns. For each recall that is wanted, a line shows
the cheapest setting that reaches it, of all that were measured, and how many times ours that takes, round by round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.comparison import Case, Comparison, Spread, compare
from benchmarks.data import features_of, prepare, synthetic
from benchmarks.engines import Arguments, Subject
from benchmarks.report import describe, environment, markdown, missing, spread, write_json

RECALLS = (0.95, 0.99, 0.999)
EF = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
PROBES = (4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 100)
OURS = "ivfpq"


def settings(subject: Subject, k: int, nlist: int) -> list[Arguments]:
    """All that an engine is asked with, by what it builds."""
    factory = subject.factory
    if "HNSW" not in factory and "IVF" not in factory:  # hnswlib, a graph of its own
        return [{"ef": max(ef, k)} for ef in EF]
    widths: list[Arguments] = [{"nprobe": nprobe} for nprobe in PROBES if nprobe <= nlist]
    if "HNSW" in factory:
        widths = [{"efSearch": ef} for ef in EF if ef >= k]
    if "Refine" not in factory:
        return widths
    factors = (6, 10, 16, 30) if "PQ8" in factory else (1, 2, 3, 4, 6)
    return [
        {**width, "k_factor": factor}
        for width, factor in product(widths, factors)
        if k * factor <= width.get("efSearch", k * factor)  # a graph gives no more candidates than it looks at
    ]


def subjects(d: int, nlist: int) -> list[Subject]:
    """Ours, and the kinds of others that come nearest."""
    few, many = min(128, d // 8 * 8), min(256, d)
    return [
        Subject(OURS, f"PCA{many},IVF{nlist},SQ8,Refine"),
        Subject(OURS, f"PCA{few},IVF{nlist},PQ8,Refine"),
        Subject("faiss", f"PCA{many},HNSW32_SQ8,Refine"),
        Subject("faiss", f"PCA{many},IVF{nlist},SQ8,Refine"),
        Subject("faiss", "HNSW32"),
        Subject("faiss", f"IVF{nlist},Flat"),
        Subject("hnswlib"),
    ]


def high_recall(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """One table; high-recall.md and high-recall.json into --out."""
    x, name = (synthetic(10_000, 2048, args.seed), "synthetic") if args.features == "synthetic" else features_of(args)
    data = prepare(x, name, folder / "unit", queries=args.queries, k=args.k, seed=args.seed, unit=True)
    nlist = min(100, max(1, data.n // 40))
    plan = [(subject, settings(subject, args.k, nlist)) for subject in subjects(data.d, nlist)]
    done = compare(data, plan, threads=[1], repeats=args.repeats, seed=args.seed)
    rows = [row for recall in RECALLS for row in rows_for(done, recall)]
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    text = "\n\n".join(
        [
            "# Nearly exact answers",
            describe(about),
            f"{data.name}, {data.n:,} x {data.d}, length 1, {len(data.truth)} held-out queries, k = {args.k}, one "
            "thread. The cheapest setting of each that reaches the recall, by the medians of "
            f"{args.repeats} rounds in turns (smallest and largest in brackets).",
            table(rows),
            *missing(done.unavailable),
        ]
    )
    (args.out / "high-recall.md").write_text(text + "\n", encoding="utf-8")
    about_data = {"name": data.name, "n": data.n, "d": data.d, "queries": len(data.truth)}
    content = {"environment": about, "data": about_data, "k": args.k, "repeats": args.repeats, "rows": rows}
    write_json(args.out / "high-recall.json", {**content, "cases": [asdict(case) for case in done.cases]})
    return text + "\n"


def cheapest(cases: Sequence[Case], recall: float, way: str) -> Case | None:
    """The case that reaches the recall in the least time, the median of its rounds."""
    enough = [case for case in cases if case.recall >= recall]
    return min(enough, key=lambda case: Spread.of(_times(case, way)).median, default=None)


def rows_for(done: Comparison, recall: float) -> list[dict[str, Any]]:
    """A line for each subject and way of asking, ours first."""
    found = []
    for way in ("batch", "single"):
        own = cheapest([case for case in done.cases if case.subject.engine == OURS], recall, way)
        for subject in dict.fromkeys(case.subject for case in done.cases):
            best = cheapest([case for case in done.cases if case.subject == subject], recall, way)
            row: dict[str, Any] = {"wanted": recall, "way": way, "subject": subject.label}
            if best is not None:
                times = _times(best, way)
                row |= {"setting": best.setting, "recall": best.recall, "us": Spread.of(times)}
                if own is not None:
                    row["of_ours"] = Spread.of_ratios(times, _times(own, way))
            found.append(row)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The lines as Markdown; what does not reach a recall says so."""
    lines = []
    for row in rows:
        line = [f"{row['wanted']:g}", row["way"], row["subject"]]
        if "us" in row:
            ratio = spread(Spread(*row["of_ours"]), "x") if "of_ours" in row else "-"
            line += [row["setting"], f"{row['recall']:.4f}", spread(Spread(*row["us"])), ratio]
        else:
            line += ["not reached", "-", "-", "-"]
        lines.append(line)
    return markdown("recall wanted|asked|engine|setting|recall|us a query|times ours", lines, 4)


def _times(case: Case, way: str) -> list[float]:
    return case.batch_us if way == "batch" else case.single_us
