"""Measurements that are more than one comparison: ``python -m ivfpq.benchmark --study fast-table`` (or ``scaling``).

``fast-table`` measures speed and size beside faiss, in one run.
``scaling`` shows how the time of a query grows with the vectors, the lists probed, the length of codes and the threads.
Both take vectors by --features (fast-table: those of 2048 dimensions, synthetic ones if none are given), and --n and
--d for the large synthetic set that they make. ``high-recall``, ``target-recall``, ``refinement``, ``codecs`` and
``abilities`` have modules of their own.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.abilities import abilities
from benchmarks.codecs import codecs
from benchmarks.comparison import Case, Comparison, Spread, compare, measure, not_available
from benchmarks.data import MAX_TRAIN, Data, features_of, mixture, prepare, synthetic
from benchmarks.engines import Arguments, EngineError, Subject
from benchmarks.high_recall import high_recall
from benchmarks.process import Process
from benchmarks.refinement import refinement
from benchmarks.report import (
    COLOURS,
    RECALL_MARGIN,
    describe,
    environment,
    markdown,
    missing,
    pyplot,
    short,
    spread,
    write_json,
)
from benchmarks.targets import target_recall
from ivfpq import kernels
from ivfpq.checks import Floats
from ivfpq.threads import cores

logger = logging.getLogger("benchmarks")

NLIST = 1024
LARGE_QUERIES = 500
PROBES = (16, 64)
MORE_PROBES = (1, 2, 4, 8, 16, 32, 64)  # of ours, to find the fewest that reach a recall
TRAINING_ROUNDS = 3
FRESH_PROCESSES = 3
M_VECTORS, M_TRAINING, M_NLIST = 100_000, 20_000, 256
OWN_FACTORIES = (
    "PCA256,IVF1024,RQ8x8",
    "PCA128,IVF100,RQ8x8",
    "OPQ8_128,IVF100,PQ8",
    "PCA128,IVF100,PQ8",
    "IVF100,PQ8",
)  # 8 bytes a vector
THEIR_FACTORY = "PCA128,IVF100,RQ8x8"  # faiss's best at 8 bytes

Way = Literal["batch", "single"]
WAYS: tuple[Way, ...] = ("batch", "single")


def run(args: argparse.Namespace, command: Sequence[str]) -> str:
    """The study that the command line names; returns its report."""
    started = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        return STUDIES[args.study](args, command, Path(folder), started)


def _large(args: argparse.Namespace, folder: Path, make: Callable[[int, int, int], Floats] = synthetic) -> Data:
    n, d = args.n or 1_000_000, args.d or 128
    x, name = make(n + min(LARGE_QUERIES, n // 4), d, args.seed), make.__name__
    return prepare(x, name, folder / name, queries=len(x) - n, k=args.k, seed=args.seed)


def _nlist(data: Data, wanted: int = NLIST) -> int:
    """So many lists, or fewer where there are too few vectors to train them."""
    return min(wanted, max(1, data.n // 40))


# --- beside faiss ---------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line: what was measured of ours and of theirs."""

    what: str
    better: Literal["lower", "higher"] = "lower"
    unit: str = "us"
    ours: Spread | None = None
    theirs: Spread | None = None
    ratio: Spread | None = None
    cores: tuple[float, float] | None = None
    """How many ours and theirs kept busy in a batch: what is missing went to other programs, or was waited for"""
    our_recall: float | None = None
    their_recall: float | None = None
    margin: float = RECALL_MARGIN
    """How much lower than theirs our recall may be"""
    note: str = ""

    @property
    def is_fair(self) -> bool:
        """Whether our recall is no lower than theirs by more than the margin: speed must not be bought with recall."""
        ours, theirs = self.our_recall, self.their_recall
        return ours is None or theirs is None or ours >= theirs - self.margin


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, with their notes below."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    cells = []
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        recalls = [f"{recall:.3f}" for recall in (row.our_recall, row.their_recall) if recall is not None]
        cells.append(
            [
                row.what + (f" [{notes.index(row.note) + 1}]" if row.note else ""),
                spread(row.theirs, unit) if row.theirs else "-",
                spread(row.ours, unit) if row.ours else "-",
                spread(row.ratio, "x") if row.ratio else "-",
                (" / ".join(recalls) or "-") + ("" if row.is_fair else " *"),
                " / ".join(f"{count:.2f}" for count in row.cores or []) or "-",
            ]
        )
    lines = [markdown("what|faiss|ours|faiss / ours|recall ours / faiss|cores", cells, left=1)]
    if not all(row.is_fair for row in rows):
        lines.append("* Our recall is lower: the times are not for equal work.")
    return "\n\n".join([*lines, "\n".join(f"[{i}] {note}  " for i, note in enumerate(notes, 1))])


def fast_table(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """Every row of the table; fast-table.md and fast-table.json into --out."""
    rows: list[Row] = []

    def measured(group: Callable[[Data, argparse.Namespace], list[Row]], data: Data) -> None:
        try:
            rows.extend(group(data, args))
        except EngineError as error:  # the other groups are still worth having
            logger.warning("%s: %s", group.__name__, error)
            rows.append(Row(group.__name__.replace("_", " "), note=str(error)))

    large, uneven = _large(args, folder), _large(args, folder, mixture)
    for group, data in (
        (scan_rows, large),
        (inverted_file_rows, large),
        (inverted_file_rows, uneven),
        (storage_rows, large),
    ):
        measured(group, data)
    if args.features == "synthetic":
        x, name = synthetic(10_000, 2048, args.seed), "synthetic"
    else:
        x, name = features_of(args)
    features = prepare(x, name, folder / "features", queries=args.queries, k=args.k, seed=args.seed)
    unit = prepare(x, name, folder / "unit", queries=args.queries, k=args.k, seed=args.seed, unit=True)
    for group, data in (
        (feature_rows, features),
        (training_rows, features),
        (refinement_rows, unit),
        (eight_byte_rows, unit),
    ):
        measured(group, data)
    rows += import_rows()
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    sets = [f"{data.name} {data.n:,} x {data.d} ({len(data.truth)} queries)" for data in (large, uneven, features)]
    text = "\n\n".join(
        [
            "# Speed and size beside faiss, in one run",
            describe(about),
            f"Vectors: {', '.join(sets)}; k = {args.k}; all train on the same {MAX_TRAIN:,} at most. Medians "
            f"of rounds ({args.repeats} for searches, {TRAINING_ROUNDS} for training, {FRESH_PROCESSES} for what needs "
            "fresh processes) in which the engines took turns, and the smallest and largest. A ratio is taken within "
            "each round. faiss is trained without polysemous codes, which no plain search uses, unless the row says "
            "otherwise. `synthetic` vectors fill lists evenly, a `mixture` does not (see their functions in "
            f"data.py). The study took {about['seconds']} s.",
            table(rows),
        ]
    )
    (args.out / "fast-table.md").write_text(text + "\n", encoding="utf-8")
    content = {
        "environment": about,
        "data": [
            {"name": data.name, "n": data.n, "d": data.d, "queries": len(data.truth)}
            for data in (large, uneven, features)
        ],
        "k": args.k,
        "repeats": args.repeats,
        "rows": [asdict(row) for row in rows],
    }
    write_json(args.out / "fast-table.json", content)
    return text + "\n"


def seconds_row(what: str, ours: Sequence[float], theirs: Sequence[float], note: str = "") -> Row:
    """A row of seconds, one of each a round."""
    spreads = Spread.of(ours), Spread.of(theirs), Spread.of_ratios(theirs, ours)
    return Row(what, "lower", "s", *spreads, note=note)


def find(comparison: Comparison, subject: Subject, threads: int, arguments: Arguments) -> Case | None:
    """The case, if it was measured."""
    wanted = (subject, threads, arguments)
    return next((case for case in comparison.cases if (case.subject, case.threads, case.arguments) == wanted), None)


def versus(what: str, way: Way, ours: Case | None, theirs: Case | None, note: str = "") -> Row:
    """A row that divides their time by ours."""
    row = Row(what, note=note)
    mine = [] if ours is None else _times(ours, way)
    other = [] if theirs is None else _times(theirs, way)
    if ours is not None:
        row.ours, row.our_recall = Spread.of(mine), ours.recall
    if theirs is not None:
        row.theirs, row.their_recall = Spread.of(other), theirs.recall
    if ours is not None and theirs is not None:
        row.ratio = Spread.of_ratios(other, mine)
        if way == "batch":
            row.cores = statistics.median(ours.cores), statistics.median(theirs.cores)
    return row


def _times(case: Case, way: Way) -> list[float]:
    return case.batch_us if way == "batch" else case.single_us


def scan_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """All codes of 8 x 8 bits in one list, one query at a time, with the kernel in use and with plain numba."""
    ours = [Subject("ivfpq", "PQ8")]
    if kernels.active() != "portable":
        ours.append(Subject("ivfpq", "PQ8", "portable"))
    theirs = Subject("faiss", "PQ8")
    plan: list[tuple[Subject, list[Arguments]]] = [(subject, [{}]) for subject in (*ours, theirs)]
    done = compare(data, plan, threads=[1], repeats=args.repeats, seed=args.seed)
    other = find(done, theirs, 1, {})
    rows = []
    for subject in ours:
        kernel = next((b.kernel for b in done.built if b.subject == subject), subject.variant)
        what = f"scan of {data.n:,} codes of 8x8 bits, single, 1 thread, kernel {kernel}, against IndexPQ"
        note = done.unavailable.get(subject.label, "")
        rows.append(versus(what, "single", find(done, subject, 1, {}), other, note))
    return rows


def inverted_file_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """IVF1024,PQ16 against the same, and against the 4-bit fast scan in the same bytes at no lower recall."""
    lists = _nlist(data)
    ours, theirs = Subject("ivfpq", f"IVF{lists},PQ16"), Subject("faiss", f"IVF{lists},PQ16")
    fast_scan = Subject("faiss", f"IVF{lists},PQ32x4fs")
    plan = [(subject, [{"nprobe": p} for p in PROBES]) for subject in (theirs, fast_scan)]
    plan.insert(0, (ours, [{"nprobe": p} for p in MORE_PROBES]))
    threads = [1, 2][: cores()]
    done = compare(data, plan, threads=threads, repeats=args.repeats, seed=args.seed)
    rows, missing_note = [], done.unavailable.get(ours.label, "")
    for nprobe, count in product(PROBES, threads):
        mine, other = (find(done, subject, count, {"nprobe": nprobe}) for subject in (ours, theirs))
        for way in WAYS:
            what = f"{data.name}: {ours.factory}, {way}, {_threads(count)}, nprobe {nprobe}"
            rows.append(versus(what, way, mine, other, _scanned(mine, other) or missing_note))
    for nprobe, count in product(PROBES, threads):
        other = find(done, fast_scan, count, {"nprobe": nprobe})
        tried = [find(done, ours, count, {"nprobe": p}) for p in MORE_PROBES]
        enough = [case for case in tried if case and (other is None or case.recall >= other.recall)]
        fewest = f"ours with the fewest probes of {MORE_PROBES} whose recall is no lower"
        for mine, words in ((find(done, ours, count, {"nprobe": nprobe}), ""), (enough[0] if enough else None, fewest)):
            note = "; ".join(
                filter(None, [f"{words}: {mine.setting}" if mine and words else "", _scanned(mine, other)])
            )
            for way in WAYS:
                what = f"{data.name}: {ours.factory}, {way}, {_threads(count)}, nprobe {nprobe}"
                row = versus(f"{what}, against {fast_scan.factory}", way, mine, other, note if mine else missing_note)
                rows.append(replace(row, margin=0.0))
    added = {b.subject: [b.add_s] for b in done.built}
    if ours in added and theirs in added:
        what = f"{data.name}: add {data.n:,} x {data.d} to {ours.factory}, {_threads(max(threads))}"
        rows.append(seconds_row(what, added[ours], added[theirs], "measured once"))
    return rows


def _scanned(ours: Case | None, theirs: Case | None) -> str:
    """How much work a query was, in codes."""
    sides = {"ours": ours, "faiss's": theirs}
    counts = [f"{case.scanned:,.0f} in {side}" for side, case in sides.items() if case and case.scanned is not None]
    return f"a query scans, in the mean, {' and '.join(counts)} codes" if counts else ""


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def feature_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """IVF100,PQ8 on vectors of an encoder."""
    ours, theirs = Subject("ivfpq", "IVF100,PQ8"), Subject("faiss", "IVF100,PQ8")
    return _pair_rows(data, args, ours, theirs, {"nprobe": 8})


def refinement_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """PCA, IVFPQ, and re-ranking with the vectors; all of length 1."""
    ours, theirs = (Subject(engine, "PCA128,IVF100,PQ8,Refine") for engine in ("ivfpq", "faiss"))
    arguments = {"nprobe": 8, "k_factor": 10}
    return _pair_rows(data, args, ours, theirs, arguments)


def _pair_rows(data: Data, args: argparse.Namespace, ours: Subject, theirs: Subject, arguments: Arguments) -> list[Row]:
    threads = [1, 2][: cores()]
    plan = [(ours, [arguments]), (theirs, [arguments])]
    done = compare(data, plan, threads=threads, repeats=args.repeats, seed=args.seed)
    note = done.unavailable.get(ours.label, done.unavailable.get(theirs.label, ""))
    rows = []
    for way in WAYS:
        for count in threads:
            what = f"{ours.factory}, d = {data.d}, {way}, {_threads(count)}, nprobe {arguments['nprobe']}"
            mine, other = find(done, ours, count, arguments), find(done, theirs, count, arguments)
            rows.append(versus(what, way, mine, other, note))
    return rows


def training_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """Training IVF100,PQ8, with what it made of the objective, and adding; engines in turns, one thread."""
    factory = "IVF100,PQ8"
    ours, theirs, default = (
        Subject("ivfpq", factory),
        Subject("faiss", factory),
        Subject("faiss", factory, "polysemous"),
    )
    train: dict[Subject, list[float]] = {ours: [], theirs: [], default: []}
    add: dict[Subject, list[float]] = {ours: [], theirs: []}
    errors: dict[Subject, tuple[float, float]] = {}
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(subject, data, args.seed)) for subject in train]
        for number in range(TRAINING_ROUNDS):
            logger.info("training, round %d of %d", number + 1, TRAINING_ROUNDS)
            for process in processes:
                subject = process.subject
                train[subject].append(process.ask("train", path=str(data.train), threads=1))
                errors[subject] = process.ask("errors", path=str(data.train))
                if subject in add:
                    add[subject].append(process.ask("add", path=str(data.base), threads=1))
    rows = []
    for other, words in (
        (theirs, "without polysemous codes"),
        (default, "by its default, most of which goes into polysemous codes that plain search never uses"),
    ):
        coarse, full = (a / b for a, b in zip(errors[ours], errors[other], strict=True))
        note = f"objective ours / faiss: coarse {coarse:.4f}, with codes {full:.4f}"
        what = f"train {factory} on {data.n:,} x {data.d}, 1 thread, faiss {words}"
        rows.append(seconds_row(what, train[ours], train[other], note))
    what = f"add {data.n:,} x {data.d} to {factory}, 1 thread"
    return [*rows, seconds_row(what, add[ours], add[theirs])]


def eight_byte_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """The best recall at 8 bytes a vector that a factory string of ours reaches, beside faiss's best."""

    def recall(subject: Subject) -> float:
        logger.info("recall at 8 bytes: %s", subject.label)
        with Process(subject, data, args.seed) as process:
            process.ask("train", path=str(data.train), threads=cores())
            process.ask("add", path=str(data.base), threads=cores())
            return data.recall(process.ask("answers", k=data.k, arguments={"nprobe": 32}, threads=cores()))

    reached: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for factory in OWN_FACTORIES:
        subject = Subject("ivfpq", factory)
        try:
            reached[factory] = recall(subject)
        except EngineError as error:
            not_available(unavailable, subject, error)
    best = max(reached, key=reached.__getitem__)
    note = "; ".join(
        [*(f"{f} {r:.3f}" for f, r in reached.items()), *(f"{label} not available" for label in unavailable)]
    )
    what = f"recall@{data.k} at 8 bytes, {len(data.truth)} queries, vectors of length 1, nprobe 32: {best}"
    theirs = recall(Subject("faiss", THEIR_FACTORY))
    note += f"; faiss is {THEIR_FACTORY}"
    return [Row(what, "higher", "", Spread.of([reached[best]]), Spread.of([theirs]), note=note)]


def storage_rows(data: Data, args: argparse.Namespace) -> list[Row]:
    """IVF1024,PQ8 from its file, in fresh processes: time to load memory-mapped, memory, first query."""
    factory = f"IVF{_nlist(data)},PQ8"
    load: dict[str, list[float]] = {"ivfpq": [], "faiss": []}
    memory: dict[str, list[float]] = {"ivfpq": [], "faiss": []}
    mapped: dict[str, list[float]] = {"ivfpq": [], "faiss": []}
    size: dict[str, float] = {}
    cold: list[float] = []
    ask: Arguments = {"k": data.k, "arguments": {"nprobe": 16}, "threads": 1}
    for engine in load:
        with Process(Subject(engine, factory), data, args.seed) as process:
            logger.info("building %s", process.subject.label)
            process.ask("train", path=str(data.train), threads=cores())
            process.ask("add", path=str(data.base), threads=cores())
            size[engine] = process.ask("save", path=str(data.base.parent / engine)) / data.n
    for _ in range(FRESH_PROCESSES):
        for engine in load:
            path = str(data.base.parent / engine)
            for mmap in (True, False):
                with Process(Subject(engine, factory), data, args.seed) as process:
                    seconds = process.ask("load", path=path, mmap=mmap)
                    process.ask("batch", **ask)
                    resident = process.ask("memory")
                    if mmap:
                        load[engine].append(seconds * 1e3)
                    if resident is not None:
                        (mapped if mmap else memory)[engine].append(resident / data.n)
    for _ in range(2):
        with Process(Subject("ivfpq", factory), data, args.seed, cold=True) as process:
            process.ask("load", path=str(data.base.parent / "ivfpq"), mmap=False)
            cold.append(process.ask("first_search", **ask))
    words = [
        f"{engine}: {short(Spread.of(mapped[engine]).median)} memory-mapped, {size[engine]:.1f} in the file"
        for engine in mapped
    ]
    queries = (
        f"what of the process is in RAM when it has loaded the index and answered {len(data.truth)} queries, less what "
        f"was when it had built and searched a small one; {'; '.join(words)}"
    )
    spreads = [(Spread.of(measured["ivfpq"]), Spread.of(measured["faiss"])) for measured in (load, memory)]
    what = f"{factory} of {data.n:,} vectors"
    return [
        Row(f"load {what}, memory-mapped", "lower", "ms", *spreads[0], note="file in the page cache"),
        Row(f"memory a vector, {what}", "lower", "bytes", *spreads[1], note=queries),
        Row("first query, nothing compiled before", "lower", "s", Spread.of(cold)),
    ]


def import_rows() -> list[Row]:
    """Import time in fresh processes."""
    seconds: dict[str, list[float]] = {"ivfpq": [], "faiss": [], "numpy": []}
    root = str(Path(__file__).resolve().parent.parent)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    for number in range(FRESH_PROCESSES + 1):
        for name, times in seconds.items():
            code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
            done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
            if number:  # the first one wrote byte code and read the disk
                times.append(float(done.stdout))
    note = f"numpy alone {short(Spread.of(seconds['numpy']).median)} s"
    ours, theirs = Spread.of(seconds["ivfpq"]), Spread.of(seconds["faiss"])
    return [Row("import", "lower", "s", ours, theirs, note=note)]


# --- how the cost grows ---------------------------------------------------------------------------------------------


@dataclass
class Point:
    """One measurement of a curve."""

    curve: str
    value: int
    engine: str
    batch_us: Spread
    single_us: Spread


def scaling(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """One thing varied at a time; scaling.md, scaling.json and scaling.png into --out."""
    data = _large(args, folder)
    unavailable: dict[str, str] = {}
    points: list[Point] = []
    base: Arguments = {"nprobe": min(16, _nlist(data))}

    def add(curve: str, value: int, cases: Sequence[Case]) -> None:
        for case in cases:
            spreads = Spread.of(case.batch_us), Spread.of(case.single_us)
            points.append(Point(curve, value, case.subject.engine, *spreads))

    def timed(processes: Sequence[Process], settings: list[Arguments], threads: Sequence[int]) -> list[Case]:
        own = [settings] * len(processes)
        return measure(processes, own, data, threads=threads, repeats=args.repeats, unavailable=unavailable)

    def trained(stack: ExitStack, factory: str, sample: Path) -> list[Process]:
        processes = []
        for subject in (Subject("ivfpq", factory), Subject("faiss", factory)):
            try:
                process = stack.enter_context(Process(subject, data, args.seed))
                logger.info("training %s", subject.label)
                process.ask("train", path=str(sample), threads=cores())
            except EngineError as error:
                not_available(unavailable, subject, error)
                continue
            processes.append(process)
        return processes

    def grown(processes: Sequence[Process], first: int, last: int) -> None:
        for process in processes:
            process.ask("add", path=str(data.base), threads=cores(), first=first, last=last)

    with ExitStack() as stack:
        processes = trained(stack, f"IVF{_nlist(data)},PQ16", data.train)
        sizes = [n for n in (10_000, 30_000, 100_000, 300_000, 1_000_000) if n < data.n] + [data.n]
        for before, n in zip([0, *sizes], sizes, strict=False):
            grown(processes, before, n)
            add("vectors", n, timed(processes, [base], [1]))
        for nprobe in [p for p in (1, 2, 4, 8, 16, 32, 64, 128, 256) if p <= _nlist(data)]:
            add("lists probed", nprobe, timed(processes, [{"nprobe": nprobe}], [1]))
        for count in range(1, cores() + 1):
            add("threads", count, timed(processes, [base], [count]))
    few, sample = min(data.n, M_VECTORS), folder / "few.npy"  # for each M both train anew: on less, to be quick
    np.save(sample, np.load(data.train, mmap_mode="r")[:M_TRAINING])
    for M in (4, 8, 16, 32, 64):
        if data.d % M == 0:
            with ExitStack() as stack:
                processes = trained(stack, f"IVF{_nlist(data, M_NLIST)},PQ{M}", sample)
                grown(processes, 0, few)
                add("bytes a code (M)", M, timed(processes, [base], [1]))

    varied_m = f"M is varied over {few:,} vectors in {_nlist(data, M_NLIST)} lists"
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    fixed = f"IVF{_nlist(data)},PQ16, {data.n:,} vectors of {data.d} dimensions, nprobe {base['nprobe']}, 1 thread"
    cells = [
        [point.curve, f"{point.value:,}", point.engine, spread(point.batch_us), spread(point.single_us)]
        for point in points
    ]
    text = "\n\n".join(
        [
            "# How the time of a query grows",
            describe(about),
            f"Fixed unless varied: {fixed}. {varied_m}. Medians of {args.repeats} rounds in "
            f"which the engines took turns, and the smallest and largest. The study took {about['seconds']} s.",
            markdown("varied|value|engine|batch us/query|single p50 us", cells, left=1),
            *missing(unavailable),
        ]
    )
    (args.out / "scaling.md").write_text(text + "\n", encoding="utf-8")
    content = {
        "environment": about,
        "fixed": fixed,
        "varied_m": varied_m,
        "queries": len(data.truth),
        "k": data.k,
        "repeats": args.repeats,
        "points": [asdict(point) for point in points],
        "unavailable": unavailable,
    }
    write_json(args.out / "scaling.json", content)
    rounds = f"medians of {args.repeats} rounds, shaded from the smallest to the largest"
    title = (
        f"Fixed unless varied: {fixed}\n{varied_m}; k = {data.k}, {len(data.truth)} queries; {rounds}; {about['cpu']}"
    )
    draw_scaling(args.out / "scaling.png", points, title)
    return text + "\n"


def draw_scaling(path: Path, points: Sequence[Point], title: str) -> None:
    """A panel for what is varied; both axes logarithmic, with a line of what proportional growth would be."""
    plt = pyplot()
    from matplotlib.ticker import LogLocator

    curves = list(dict.fromkeys(point.curve for point in points))
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.4), squeeze=False)
    for ax, curve in zip(axes.flat, curves, strict=False):
        for engine in dict.fromkeys(point.engine for point in points):
            own = [point for point in points if point.curve == curve and point.engine == engine]
            values, colour = [point.value for point in own], COLOURS[engine]
            for way, line, fill in (("in batches", "o-", colour), ("one at a time", "o--", "white")):
                spreads = [point.batch_us if way == "in batches" else point.single_us for point in own]
                ax.plot(
                    values,
                    [s.median for s in spreads],
                    line,
                    label=f"{engine}, {way}",
                    color=colour,
                    markerfacecolor=fill,
                    linewidth=2.4 if engine == "ivfpq" else 1.4,
                    markersize=5,
                )
                low, high = ([getattr(s, end) for s in spreads] for end in ("low", "high"))
                ax.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
        values = sorted({point.value for point in points if point.curve == curve})
        slope = -1 if curve == "threads" else 1
        spreads = [spread for point in points if point.curve == curve for spread in (point.batch_us, point.single_us)]
        end = min(point.batch_us.median for point in points if point.curve == curve and point.value == values[-1])
        ideal = [end * (value / values[-1]) ** slope for value in values]
        label = "proportional growth (threads: decline)"
        ax.plot(values, ideal, ":", color="grey", linewidth=1.2, zorder=1, label=label)
        ax.set(xscale="log", yscale="log", xlabel=curve)
        ax.set_xticks(values, [f"{value:,}" for value in values])
        ax.minorticks_off()
        ax.set_ylim(min(s.low for s in spreads) / 1.3, max(s.high for s in spreads) * 1.3)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    for ax in axes.flat[len(curves) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("microseconds a query")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=100)
    plt.close(figure)


STUDIES: dict[str, Callable[[argparse.Namespace, Sequence[str], Path, float], str]] = {
    "fast-table": fast_table,
    "scaling": scaling,
    "high-recall": high_recall,
    "target-recall": target_recall,
    "refinement": refinement,
    "codecs": codecs,
    "abilities": abilities,
}
