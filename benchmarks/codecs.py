"""How much of the neighbours a codec keeps in so many bytes: ``python -m ivfpq.benchmark --study codecs``.

Every codec of ours, and those that faiss alone has, learns the same vectors and encodes them in 4, 8, 16 and 32 bytes,
in one list and in an inverted file. All are searched without re-ranking, so what they find depends on the codes.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.comparison import not_available
from benchmarks.data import Data, features_of, prepare
from benchmarks.engines import Arguments, EngineError, Subject
from benchmarks.process import Process
from benchmarks.report import COLOURS, describe, environment, markdown, missing, pyplot, short, write_json
from ivfpq.metrics import tie_recall_at_k
from ivfpq.threads import cores

logger = logging.getLogger("benchmarks")

BYTES = (4, 8, 16, 32)
NLIST, NPROBE = 100, 32  # a third of the lists: what is lost by then, the codes lose
RANKS = (1, 10, 100)  # how many answers may be looked at before the nearest vector of all is among them
DIMENSIONS = 128  # what PCA and OPQ leave
SYNTHETIC = 10_000  # vectors, if none are given


class Codec(NamedTuple):
    """A way to encode, in the words of a factory string; {m} is how many bytes there are."""

    name: str
    engine: str
    transform: str
    code: str
    largest: int = BYTES[-1]
    """More bytes than these would take minutes to train ..."""
    largest_in_lists: int = BYTES[-1]
    """... and so many in an inverted file; 0 for none"""

    def factory(self, m: int, lists: int) -> str:
        """The string for m bytes: with so many inverted lists, or 0 for none."""
        sizes = {"m": m, "half": m // 2, "twice": 2 * m, "d": DIMENSIONS}
        parts = [self.transform.format(**sizes), f"IVF{lists}" if lists else "", self.code.format(**sizes)]
        return ",".join(filter(None, parts))


CODECS = (
    Codec("PQ", "ivfpq", "", "PQ{m}"),
    Codec("PCA + PQ", "ivfpq", "PCA{d}", "PQ{m}"),
    Codec("OPQ + PQ", "ivfpq", "OPQ{m}_{d}", "PQ{m}", largest_in_lists=0),
    Codec("RQ", "ivfpq", "", "RQ{m}x8", largest=4, largest_in_lists=0),
    Codec("PCA + RQ", "ivfpq", "PCA{d}", "RQ{m}x8", largest=16, largest_in_lists=8),
    Codec("PQ", "faiss", "", "PQ{m}"),
    Codec("PCA + PQ", "faiss", "PCA{d}", "PQ{m}"),
    Codec("PCA + RQ", "faiss", "PCA{d}", "RQ{m}x8", largest=16, largest_in_lists=0),
    Codec("PCA + LSQ", "faiss", "PCA{d}", "LSQ{m}x8", largest=8, largest_in_lists=0),
    Codec("PCA + PRQ", "faiss", "PCA{d}", "PRQ2x{half}x8", largest=16, largest_in_lists=0),
    Codec("PCA + PQ4fs", "faiss", "PCA{d}", "PQ{twice}x4fs"),
    Codec("PCA + SQ8", "faiss", "PCA{m}", "SQ8"),
    Codec("PCA + SQ4", "faiss", "PCA{twice}", "SQ4"),
)


@dataclass
class Encoded:
    """What one codec made of the vectors in so many bytes."""

    codec: str
    engine: str
    factory: str
    bytes: int
    lists: int
    """0: no inverted file"""
    recall: float
    """Of the k true neighbours among the k found, ties counted"""
    nearest_found: dict[str, float]
    """Of the queries whose true nearest is among the first R found, for R of RANKS (Jégou's "recall@R")"""
    train_s: float
    add_us: float
    """A vector"""


def codecs(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """Measure all codecs; codecs.md, codecs.json and codecs.png into --out."""
    args.n = args.n or SYNTHETIC
    x, name = features_of(args)
    unit = args.metric == "cosine"
    data = prepare(x, name, folder / "data", queries=args.queries, k=args.k, seed=args.seed, unit=unit)
    del x
    rows: list[Encoded] = []
    unavailable: dict[str, str] = {}
    for engine in dict.fromkeys(codec.engine for codec in CODECS):
        own = [codec for codec in CODECS if codec.engine == engine]
        with Process(Subject(engine, own[0].factory(BYTES[0], 0)), data, args.seed) as process:
            for codec, lists, m in product(own, (0, max(1, min(NLIST, data.n // 40))), BYTES):
                if m > (codec.largest_in_lists if lists else codec.largest):
                    continue
                subject = Subject(engine, codec.factory(m, lists))
                logger.info("%d bytes: %s", m, subject.label)
                try:
                    rows.append(_encoded(process, codec, data, m, lists, args.seed))
                except EngineError as error:
                    not_available(unavailable, subject, error)
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    facts = {"name": data.name, "n": data.n, "d": data.d, "k": data.k, "queries": len(data.truth), "unit": unit}
    fixed: Arguments = {**facts, "threads": cores(), "nprobe": NPROBE}
    text = "\n\n".join(
        [
            "# What codecs keep in equal bytes",
            describe(about),
            describe_data(fixed),
            recalls(rows, data.k),
            costs(rows),
            *missing(unavailable),
        ]
    )
    (args.out / "codecs.md").write_text(text + "\n", encoding="utf-8")
    content = {"environment": about, "data": fixed, "rows": [asdict(row) for row in rows], "unavailable": unavailable}
    write_json(args.out / "codecs.json", content)
    draw(args.out / "codecs.png", rows, fixed)
    return text + "\n"


def _encoded(process: Process, codec: Codec, data: Data, m: int, lists: int, seed: int) -> Encoded:
    """Train, add and search, in a process that may have had another index before."""
    subject = Subject(codec.engine, codec.factory(m, lists))
    process.ask("start", subject=list(subject), d=data.d, seed=seed, queries=str(data.queries), warm_up=False)
    train_s = process.ask("train", path=str(data.train), threads=cores())
    add_s = process.ask("add", path=str(data.base), threads=cores())
    arguments = {"nprobe": min(NPROBE, lists)} if lists else {}
    found = np.array(process.ask("answers", k=max(*RANKS, data.k), arguments=arguments, threads=cores()), np.int64)
    distances = data.distances(found)
    nearest = distances <= data.truth[:, :1]
    return Encoded(
        codec.name,
        codec.engine,
        subject.factory,
        m,
        lists,
        tie_recall_at_k(found, distances, data.truth, data.k),
        {str(rank): float(nearest[:, :rank].any(axis=1).mean()) for rank in RANKS},
        train_s,
        add_s / data.n * 1e6,
    )


def describe_data(fixed: Arguments) -> str:
    """The sentences that a table or a figure of this study needs beside it."""
    scaled = " scaled to length 1" if fixed["unit"] else ""
    return (
        f"{fixed['n']:,} vectors of {fixed['d']} dimensions ({fixed['name']}){scaled}, {fixed['queries']} others as "
        f"queries, {fixed['threads']} threads, each trained and measured once. Bytes are those of a code alone: beside "
        "it ours keeps an id of 3 bytes and, for squared distances, one byte more; faiss an id of 8. With inverted "
        f"lists {fixed['nprobe']} are probed. What is missing would take minutes to train."
    )


def recalls(rows: Sequence[Encoded], k: int) -> str:
    """Recall@k by codec and bytes, one list beside an inverted file; the best of each column is bold."""
    columns = [(lists, m) for lists in sorted({row.lists for row in rows}) for m in sorted({row.bytes for row in rows})]
    values = {(row.codec, row.engine, row.lists, row.bytes): f"{row.recall:.3f}" for row in rows}
    lines = list(dict.fromkeys((row.codec, row.engine) for row in rows))
    best = {column: max(values.get((*line, *column), "") for line in lines) for column in columns}

    def cell(line: tuple[str, str], column: tuple[int, int]) -> str:
        value = values.get((*line, *column), "-")
        return f"**{value}**" if value == best[column] else value

    header = [f"{m} B{f', IVF{lists}' if lists else ''}" for lists, m in columns]
    cells = [[name, engine, *(cell((name, engine), column) for column in columns)] for name, engine in lines]
    return markdown("|".join([f"recall@{k}", "of", *header]), cells, left=2)


def costs(rows: Sequence[Encoded]) -> str:
    """All that was measured, a row for each index."""
    cells = [
        [
            f"{row.engine} {row.factory}",
            str(row.bytes),
            f"{row.recall:.3f}",
            *(f"{row.nearest_found[str(rank)]:.3f}" for rank in RANKS),
            short(row.train_s),
            short(row.add_us),
        ]
        for row in rows
    ]
    ranks = "|".join(f"nearest in {rank}" for rank in RANKS)
    return markdown(f"index|bytes|recall|{ranks}|train s|encode us/vector", cells, left=1)


def draw(path: Path, rows: Sequence[Encoded], fixed: Arguments) -> None:
    """Recall against bytes, a panel without and one with inverted lists."""
    plt = pyplot()
    kinds = sorted({row.lists for row in rows})
    figure, axes = plt.subplots(1, len(kinds), figsize=(11, 4.8), sharey=True, squeeze=False)
    names = list(dict.fromkeys((row.engine, row.codec) for row in rows))
    marks = "osD^vPX*"
    for ax, lists in zip(axes[0], kinds, strict=True):
        for engine, codec in names:
            own = [row for row in rows if (row.engine, row.codec, row.lists) == (engine, codec, lists)]
            number = [name for name in names if name[0] == engine].index((engine, codec))
            ax.plot(
                [row.bytes for row in own],
                [row.recall for row in own],
                "-" if engine == "ivfpq" else "--",
                marker=marks[number],
                color=COLOURS[engine],
                alpha=0.9,
                linewidth=1.6 if engine == "ivfpq" else 1.2,
                markersize=6,
                label=f"{engine} {codec}",
            )
        ax.set(
            xscale="log", xlabel="bytes a code", title=f"IVF{lists}, nprobe {fixed['nprobe']}" if lists else "one list"
        )
        ax.set_xticks(BYTES, [str(m) for m in BYTES])
        ax.minorticks_off()
    axes[0, 0].set_ylabel(f"recall@{fixed['k']}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(
        f"{fixed['name']}: n = {fixed['n']:,}, d = {fixed['d']}, k = {fixed['k']}, {fixed['queries']} queries, each "
        "trained once",
        fontsize="medium",
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
