"""What ranking candidates again costs, by how and where the vectors are kept: ``--study refinement``.

Every index is one file, opened in the ways that there are. Memory is what a process of its own has that is no part of a
file, before and after opening it and searching. Times are of one thread's processor, in turns, and the file is in the
cache of the system: what a disk takes is not among them. What is read of a disk is counted by itself, query by query,
after the system was told to forget the file.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Spread
from benchmarks.data import Data, features_of, prepare, synthetic
from benchmarks.process import memory_of_this_process
from benchmarks.report import describe, environment, markdown, spread, write_json
from benchmarks.targets import asking, one_thread, rounds_of
from ivfpq import index_factory, load, save
from ivfpq.kernels import active

COLD = 20  # queries, whose reading of the disk is counted


@dataclass(frozen=True)
class Grade:
    """How the vectors are kept."""

    name: str
    part: str
    """Of the factory string"""
    mmap: bool = False
    sketch: bool | None = None

    def open(self, path: str | Path) -> Any:
        """The index in the file, kept so."""
        index: Any = load(path, mmap=self.mmap)
        index.sketch = self.sketch
        return index


GRADES = (
    Grade("in memory, with sketches", "Refine"),
    Grade("in memory", "Refine", sketch=False),
    Grade("float16 in memory", "Refine(SQfp16)"),
    Grade("a byte a component in memory", "Refine(SQ8)"),
    Grade("in the file, sketches in memory", "Refine", mmap=True, sketch=True),
    Grade("in the file", "Refine", mmap=True),
)


@dataclass
class Row:
    """One grade over one base. Times are microseconds of the processor a query."""

    base: str
    setting: str
    grade: str
    recall: float
    memory: float | None
    """Bytes a vector, of codes, ids and all, that are no part of a file; None where Linux does not tell"""
    file: float
    """Bytes a vector of the file"""
    read: float | None
    """Bytes that one of the first queries reads of the disk; None where no file is left, or Linux does not tell"""
    batch: Spread
    single: Spread
    times_batch: Spread
    """By that of the first grade, round by round"""
    times_single: Spread


def refinement(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """One table; refinement.md and refinement.json into --out."""
    x, name = (synthetic(10_000, 2048, args.seed), "synthetic") if args.features == "synthetic" else features_of(args)
    data = prepare(x, name, folder / "unit", queries=args.queries, k=args.k, seed=args.seed, unit=True)
    nlist = min(100, max(1, data.n // 40))
    bases = [
        (f"PCA{min(256, data.d)},IVF{nlist},SQ8", {"nprobe": 24, "k_factor": 4}),
        (f"PCA{min(128, data.d // 8 * 8)},IVF{nlist},PQ8", {"nprobe": 16, "k_factor": 16}),
    ]
    with one_thread():
        rows = [row for base, how in bases for row in rows_of(data, base, how, args, folder)]
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    text = "\n\n".join(
        [
            "# Candidates ranked again",
            describe(about),
            f"{data.name}, {data.n:,} x {data.d}, length 1, {len(data.truth)} held-out queries, k = {args.k}, kernel "
            f"{active()}. Processor time of one thread, by the medians of {args.repeats} rounds in turns (smallest and "
            "largest in brackets), with the file in the system's cache. Memory is anonymous: no part of a file.",
            table(rows),
        ]
    )
    (args.out / "refinement.md").write_text(text + "\n", encoding="utf-8")
    about_data = {"name": data.name, "n": data.n, "d": data.d, "queries": len(data.truth)}
    content = {"environment": about, "data": about_data, "k": args.k, "repeats": args.repeats}
    write_json(args.out / "refinement.json", {**content, "rows": [asdict(row) for row in rows]})
    return text + "\n"


def rows_of(data: Data, base: str, how: dict[str, Any], args: argparse.Namespace, folder: Path) -> list[Row]:
    """A line for each grade over one base."""
    queries, paths = np.load(data.queries), {}
    for part in dict.fromkeys(grade.part for grade in GRADES):
        index = index_factory(data.d, f"{base},{part}", seed=args.seed)
        index.train(np.load(data.train))
        index.add(np.load(data.base))
        paths[part] = folder / f"{re.sub('[^A-Za-z0-9]', '-', f'{base},{part}')}.index"
        save(index, paths[part])
        del index
    asks = [asking(grade.open(paths[grade.part]), data.k, **how) for grade in GRADES]
    recalls = [data.recall(ask(queries)) for ask in asks]  # which compiles, too
    batch, single = (rounds_of(asks, queries, way, args.repeats) for way in ("batch", "single"))
    del asks  # what a process maps, the system does not forget
    of_file = [(grade, paths[grade.part], str(data.queries), data.k, how) for grade in GRADES]
    memory = [in_a_process(memory_here, *each) for each in of_file]
    read = [in_a_process(read_here, *each) if each[0].mmap else None for each in of_file]
    return [
        Row(
            base,
            " ".join(f"{name}={value}" for name, value in how.items()),
            grade.name,
            recalls[i],
            None if memory[i] is None else memory[i] / data.n,
            paths[grade.part].stat().st_size / data.n,
            read[i],
            Spread.of(batch[i]),
            Spread.of(single[i]),
            Spread.of_ratios(batch[i], batch[0]),
            Spread.of_ratios(single[i], single[0]),
        )
        for i, grade in enumerate(GRADES)
    ]


def in_a_process(count: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(count, *arguments).result()


def memory_here(grade: Grade, path: Path, queries: str, k: int, how: dict[str, Any]) -> int | None:
    """Anonymous bytes that an opened and searched index takes."""
    asked = np.load(queries)
    grade.open(path).search(asked, k, **how)  # what is compiled, and what libraries keep, is not the index's
    before = memory_of_this_process("Anonymous")
    index = grade.open(path)
    index.search(asked, k, **how)
    after = memory_of_this_process("Anonymous")
    return None if before is None or after is None else after - before


def read_here(grade: Grade, path: Path, queries: str, k: int, how: dict[str, Any]) -> float | None:
    """Bytes of the disk that one of the first queries reads when nothing of the file is in memory."""
    asked, index = np.load(queries), grade.open(path)
    index.search(asked, k, **how)
    if not forgotten(path):
        return None
    before = _bytes_read()
    for query in asked[:COLD]:
        index.search(query[None], k, **how)
    after = _bytes_read()
    return None if before is None or after is None else (after - before) / len(asked[:COLD])


def forgotten(path: Path) -> bool:
    """Let the system forget what it has of a file, which this process maps; whether it can be told to."""
    try:
        advise, mappings = ctypes.CDLL(None).madvise, Path("/proc/self/maps").read_text().splitlines()
    except (OSError, AttributeError):  # not Linux
        return False
    for line in mappings:
        if line.endswith(str(path)):
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 4)  # MADV_DONTNEED
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    return True


def _bytes_read() -> int | None:
    """Bytes that this process has read of disks."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return int(re.search(r"^read_bytes: (\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        [
            row.base,
            row.setting,
            row.grade,
            f"{row.recall:.4f}",
            "-" if row.memory is None else f"{row.memory:,.0f}",
            f"{row.file:,.0f}",
            "-" if row.read is None else f"{row.read / 1024:,.0f}",
            spread(row.batch),
            spread(row.times_batch, "x"),
            spread(row.single),
            spread(row.times_single, "x"),
        ]
        for row in rows
    ]
    heads = "candidates of|setting|vectors|recall|memory, bytes a vector|file|kB read a query, cold"
    return markdown(f"{heads}|us in a batch|times|us single|times", lines, 3)
