"""What `benchmark` measured, as tables (Markdown, CSV, JSON) and figures."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import re
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Case, Comparison, Spread, as_text
from benchmarks.engines import ENGINES, Arguments, Subject
from ivfpq import kernels
from ivfpq.threads import cores

RECALL_MARGIN = 0.005  # recalls further apart than this are marked beside a ratio
HELD_OUT = "Times are around the library's call alone; recall counts ties."

# An engine has its colour in every figure: Okabe and Ito's, which the colour-blind can tell apart.
COLOURS = dict(
    zip(ENGINES, cycle(["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F"]))
)
STYLES = ("o-", "s--", "^:", "D-.", "v-", "P--", "X:")  # for factory strings and variants, one after the other


# --- machine --------------------------------------------------------------------------------------------------------


def environment(seed: int, command: Sequence[str]) -> Arguments:
    """What a reader has to know of the machine and the libraries to believe a number, or to repeat it."""
    import threadpoolctl

    versions = {}
    for package in ("numpy", "numba", *(engine.package for engine in ENGINES.values())):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "from this folder" if package == "ivfpq" else "not installed"
    facts = ("internal_api", "version", "architecture", "threading_layer")
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "seed": seed,
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "kernel": kernels.active(),
        "blas": [" ".join(str(pool[fact]) for fact in facts if pool.get(fact)) for pool in pools],
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


# --- tables ---------------------------------------------------------------------------------------------------------


def records(comparison: Comparison) -> list[Arguments]:
    """One flat row a case, for CSV and JSON."""
    built = {b.subject: b for b in comparison.built}
    rows = []
    for case in comparison.cases:
        b, batch, single = built[case.subject], Spread.of(case.batch_us), Spread.of(case.single_us)
        p50, p95, p99 = np.percentile(case.latencies_us, [50, 95, 99]).tolist()
        rows.append(
            {
                **case.subject._asdict(),
                "build": as_text(ENGINES[case.subject.engine].build_arguments),
                "query": case.setting,
                "threads": case.threads,
                "recall": case.recall,
                "codes_scanned": case.scanned,
                "batch_us": batch.median,
                "batch_us_low": batch.low,
                "batch_us_high": batch.high,
                "batch_queries_per_s": 1e6 / batch.median,
                "single_p50_us": p50,
                "single_p95_us": p95,
                "single_p99_us": p99,
                "single_p50_us_low": single.low,
                "single_p50_us_high": single.high,
                "single_queries": len(case.latencies_us),
                "cores_in_batch": statistics.median(case.cores),
                "train_s": b.train_s,
                "add_s": b.add_s,
                "warm_up_s": b.warm_up_s,
                "first_search_s": b.first_search_s,
                "memory_bytes": b.memory_bytes,
                "file_bytes": b.file_bytes,
                "kernel": b.kernel,
            }
        )
    return rows


def ratios(comparison: Comparison) -> list[Arguments]:
    """Ours against faiss wherever both have the same factory string, query arguments and threads."""
    theirs = {
        (case.subject.factory, case.setting, case.threads): case
        for case in comparison.cases
        if case.subject.engine == "faiss" and not case.subject.variant
    }
    rows = []
    for ours in comparison.cases:
        other = theirs.get((ours.subject.factory, ours.setting, ours.threads))
        if ours.subject.engine == "ivfpq" and other is not None:
            rows.append(
                {
                    "subject": ours.subject.label,
                    "query": ours.setting,
                    "threads": ours.threads,
                    "batch": Spread.of_ratios(other.batch_us, ours.batch_us)._asdict(),
                    "single": Spread.of_ratios(other.single_us, ours.single_us)._asdict(),
                    "recall": ours.recall,
                    "faiss_recall": other.recall,
                }
            )
    return rows


def markdown(header: str, rows: Iterable[Sequence[str]], left: int) -> str:
    """An aligned table. The header's cells have "|" between them; the first `left` columns are text, others numbers."""
    cells = [header.split("|"), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(cells[0]))]
    align = [str.ljust if i < left else str.rjust for i in range(len(widths))]
    padded = [[a(cell, w) for a, cell, w in zip(align, row, widths, strict=True)] for row in cells]
    rule = ["-" * w if a is str.ljust else "-" * (w - 1) + ":" for a, w in zip(align, widths, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [padded[0], rule, *padded[1:]])


def short(value: float | None, scale: float = 1) -> str:
    """`value / scale` in three significant digits, no exponent; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    value /= scale
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 1e-4 else "0"


def spread(values: Spread, unit: str = "") -> str:
    """ "2.31x (2.20-2.45)", with "x" as the unit; without the brackets if there is one value."""
    median, low, high = map(short, values)
    return f"{median}{unit}" if low == high else f"{median}{unit} ({low}-{high})"


def report(comparison: Comparison, about: Arguments, repeats: int) -> str:
    """All tables as Markdown."""
    data = comparison.data
    queries = [
        [
            case.subject.label,
            row["query"],
            str(row["threads"]),
            f"{row['recall']:.4f}",
            spread(Spread.of(case.batch_us)),
            short(row["batch_queries_per_s"]),
            spread(Spread.of(case.single_us)),
            short(row["single_p95_us"]),
            short(row["single_p99_us"]),
            f"{row['cores_in_batch']:.2f}",
        ]
        for row, case in zip(records(comparison), comparison.cases, strict=True)
    ]
    pairs = [
        [
            row["subject"],
            row["query"],
            str(row["threads"]),
            spread(Spread(**row["batch"]), "x"),
            spread(Spread(**row["single"]), "x"),
            f"{row['recall']:.4f}",
            f"{row['faiss_recall']:.4f}" + (" *" if abs(row["recall"] - row["faiss_recall"]) > RECALL_MARGIN else ""),
        ]
        for row in ratios(comparison)
    ]
    engines = [
        [
            b.subject.label,
            as_text(ENGINES[b.subject.engine].build_arguments),
            b.kernel,
            short(b.train_s),
            short(b.add_s),
            short(b.warm_up_s) if b.kernel else "",
            short(b.first_search_s, 1e-3),
            short(b.memory_bytes, 1e6),
            short(b.memory_bytes, data.n),
            short(b.file_bytes, 1e6),
        ]
        for b in comparison.built
    ]
    parts = [
        f"# {data.name}: {data.n:,} vectors of {data.d} dimensions, {len(data.truth)} queries held out",
        describe(about),
        f"Medians of {repeats} rounds in which the engines took turns, and the smallest and largest. {HELD_OUT}",
        "## Queries",
        markdown(
            f"engine|query|threads|recall@{data.k}|batch us/query|queries/s|single p50 us|p95|p99|cores",
            queries,
            left=2,
        ),
    ]
    if pairs:
        parts += [
            "## Times faster than faiss: same vectors, factory string, query arguments and threads",
            markdown(f"ours|query|threads|batch|single|recall@{data.k}|faiss's recall", pairs, left=2),
            "Each ratio is the median of the rounds' ratios, and the smallest and largest. "
            f"* Recalls more than {RECALL_MARGIN} apart.",
        ]
    parts += [
        "## Building",
        markdown(
            "engine|built with|kernel|train s|add s|compile s|first query ms|memory MB|bytes/vector|file MB",
            engines,
            left=3,
        ),
        f"Built with {max((case.threads for case in comparison.cases), default=1)} threads. `compile s`: to build and "
        "search a small index first, in which kernels are compiled or read from their cache; it is in no other time. "
        "`memory`: what the process holds more than before it built the index, the vectors given to it not counted.",
        *missing(comparison.unavailable),
    ]
    return "\n\n".join(parts) + "\n"


def conditions(comparison: Comparison) -> str:
    """Under what the numbers of a comparison were measured, in a line for below a figure."""
    data, cases = comparison.data, comparison.cases
    threads = "/".join(map(str, sorted({case.threads for case in cases})))
    rounds = max((len(case.batch_us) for case in cases), default=0)
    return (
        f"{data.name}: n = {data.n:,}, d = {data.d}, {len(data.truth):,} held-out queries, k = {data.k}; threads: "
        f"{threads}; median of {rounds} interleaved rounds{' (smallest-largest)' if rounds > 1 else ''}"
    )


def summary(comparison: Comparison) -> str:
    """One line a setting: recall, speed, what building took and what it takes to keep. With what could not be had."""
    built = {b.subject: b for b in comparison.built}
    rows = [
        [
            case.subject.label,
            case.setting,
            f"{case.recall:.3f}",
            spread(Spread.of(case.batch_us)),
            spread(Spread.of(case.single_us)),
            short(built[case.subject].train_s + built[case.subject].add_s),
            short(built[case.subject].memory_bytes, comparison.data.n),
        ]
        for case in comparison.cases
    ]
    header = f"engine|query|recall@{comparison.data.k}|us/query in batches|us, one at a time|build s|bytes/vector"
    parts = [markdown(header, rows, left=2), conditions(comparison)]
    return "\n\n".join([*parts, *(f"Not measured: {label}: {why}" for label, why in comparison.unavailable.items())])


def winners(comparison: Comparison, recalls: Sequence[float]) -> str:
    """Of those that reach a recall: who answers quickest, is built quickest and is smallest; one line a recall."""
    built = {b.subject: b for b in comparison.built}
    contests: dict[str, Callable[[Case], float]] = {
        "us/query in batches": lambda case: statistics.median(case.batch_us),
        "us, one at a time": lambda case: statistics.median(case.single_us),
        "s to build": lambda case: built[case.subject].train_s + built[case.subject].add_s,
        "bytes/vector": lambda case: (
            math.inf if (size := built[case.subject].memory_bytes) is None else size / comparison.data.n
        ),
    }
    rows = []
    for recall in recalls:
        able = [case for case in comparison.cases if case.recall >= recall]
        row = [f"{recall:g}"]
        for what in contests.values():
            best = min(able, key=what, default=None)
            if best is None or math.isinf(what(best)):
                row.append("none")
            else:
                row.append(f"{best.subject.label} {best.setting}".strip() + f": {short(what(best))}")
        rows.append(row)
    header = "|".join([f"recall@{comparison.data.k} at least", *contests])
    return "\n\n".join([markdown(header, rows, left=1 + len(contests)), conditions(comparison)])


def missing(unavailable: dict[str, str]) -> list[str]:
    """The paragraphs that name what was not measured."""
    return (
        ["## Not measured", "\n".join(f"- {label}: {why}" for label, why in unavailable.items())] if unavailable else []
    )


def describe(about: Arguments) -> str:
    """The environment as a short Markdown list."""
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    load = ", ".join(map(str, about["load_average"]))
    return (
        f"- {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; load average at the end {load}\n"
        f"- {about['system']}; Python {about['python']}; kernel `{about['kernel']}`; BLAS: {'; '.join(about['blas'])}\n"
        f"- {versions}\n"
        f"- `{about['command']}`, seed {about['seed']}, {about['date']}"
    )


def write(folder: Path, comparison: Comparison, about: Arguments, repeats: int) -> str:
    """report.md, results.json, results.csv and pareto.png into `folder`; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, data = records(comparison), comparison.data
    text = report(comparison, about, repeats)
    (folder / "report.md").write_text(text, encoding="utf-8")
    write_json(
        folder / "results.json",
        {
            "environment": about,
            "data": {"name": data.name, "n": data.n, "d": data.d, "queries": len(data.truth), "k": data.k},
            "repeats": repeats,
            "results": [
                {**row, "rounds": {"batch_us": case.batch_us, "single_p50_us": case.single_us}}
                for row, case in zip(rows, comparison.cases, strict=True)
            ],
            "ratios": ratios(comparison),
            "unavailable": comparison.unavailable,
        },
    )
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    if rows:
        pareto(folder / "pareto.png", comparison)
    return text


def write_json(path: Path, content: Any) -> None:
    """Indented; NaN, which JSON has not, is refused."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


# --- figures --------------------------------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Case], list[float]]] = {
    "in batches": lambda case: case.batch_us,
    "one at a time": lambda case: case.single_us,
}


def pareto(path: Path, comparison: Comparison) -> None:
    """Recall against queries a second (up and to the right is better), in batches and one at a time."""
    plt = pyplot()
    data, threads = comparison.data, sorted({case.threads for case in comparison.cases})
    figure, axes = plt.subplots(len(threads), 2, figsize=(11, 4.2 * len(threads)), sharex=True, squeeze=False)
    for row, count in zip(axes, threads, strict=True):
        draw_pareto(row, comparison, count)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    figure.suptitle(
        f"{data.name}: n = {data.n:,}, d = {data.d}, k = {data.k}, {len(data.truth)} queries, medians of "
        f"{max(len(case.batch_us) for case in comparison.cases)} rounds"
    )
    figure.savefig(path)
    plt.close(figure)


def draw_pareto(axes: Sequence[Any], comparison: Comparison, threads: int) -> None:
    """Recall against queries a second on two axes, one for each of WAYS; bars from slowest to quickest round."""
    for ax, (way, us) in zip(axes, WAYS.items(), strict=True):
        for subject, style in lines([b.subject for b in comparison.built]).items():
            cases = [case for case in comparison.cases if case.subject == subject and case.threads == threads]
            cases.sort(key=lambda case: case.recall)
            rates = [[1e6 / time for time in us(case)] for case in cases]
            draw_rounds(ax, [case.recall for case in cases], rates, label=subject.label, **style)
        ax.set(yscale="log", title=f"{way}, {threads} thread{'s' if threads > 1 else ''}")
        ax.set_xlabel(f"recall@{comparison.data.k}")
    axes[0].set_ylabel("queries a second")


def draw_rounds(ax: Any, values: Sequence[float], rounds: Sequence[Sequence[float]], **style: Any) -> None:
    """The median of the rounds at each value, and a bar from the smallest to the largest."""
    spreads = [Spread.of(numbers) for numbers in rounds]
    ends = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    ax.errorbar(values, [s.median for s in spreads], ends, elinewidth=1, **style)


def lines(subjects: Sequence[Subject]) -> dict[Subject, Arguments]:
    """How each is drawn: colour by engine, marks and dashes by what it built, equal for all engines; ours stand out."""
    built = list(dict.fromkeys((subject.factory, subject.variant) for subject in subjects))
    styles: dict[Subject, Arguments] = {}
    for subject in subjects:
        style = STYLES[built.index((subject.factory, subject.variant)) % len(STYLES)]
        ours = subject.engine == "ivfpq"
        styles[subject] = {
            "color": COLOURS[subject.engine],
            "marker": style[0],
            "linestyle": style[1:],
            "linewidth": 2.6 if ours else 1.4,
            "markersize": 7 if ours else 5,
            "zorder": 3 if ours else 2,
        }
    return styles


def pyplot() -> Any:
    """matplotlib, drawing into files only, in one style for all figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.dpi": 130,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.titlesize": "medium",
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "legend.handlelength": 3,
        }
    )
    return plt
