"""The command line: ``python -m ivfpq.benchmark --help``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import studies
from benchmarks.comparison import compare
from benchmarks.data import features_of, prepare
from benchmarks.engines import ENGINES, EngineError, parse_subjects
from benchmarks.report import environment, write
from benchmarks.studies import STUDIES
from features.paths import expanded
from ivfpq.threads import cores


def _numbers(text: str) -> list[int]:
    values = sorted({int(part) for part in text.split(",")})
    if values[0] < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers from 1 up with commas between them, got {text!r}")
    return values


def _positive(text: str) -> int:
    (value,) = _numbers(text)
    return value


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m ivfpq.benchmark", description="Measure the index and its peers.")
    parser.add_argument(
        "--features", default="synthetic", metavar="FILE.npy|FILE.npz|synthetic", help="vectors (%(default)s)"
    )
    parser.add_argument("--n", type=_positive, help="synthetic vectors (100,000; a study has its own number)")
    parser.add_argument("--d", type=_positive, help="their dimension (128)")
    parser.add_argument(
        "--metric", choices=["l2", "cosine"], default="l2", help="cosine scales all vectors to length 1 (%(default)s)"
    )
    parser.add_argument(
        "--factory",
        nargs="+",
        default=["IVF100,PQ8"],
        help="one or more descriptions for ivfpq and faiss (%(default)s)",
    )
    parser.add_argument(
        "--engines",
        default=",".join(ENGINES),
        help="with commas between them; ivfpq:KERNEL forces a kernel, faiss:polysemous trains as its factory string "
        "says by itself (%(default)s)",
    )
    parser.add_argument("--k", type=_positive, default=10)
    parser.add_argument("--nprobe", type=_numbers, default=[1, 8, 32], metavar="N,N,...", help="(1,8,32)")
    parser.add_argument("--threads", type=_numbers, default=[1], metavar="N,N,...", help="(1)")
    parser.add_argument(
        "--queries", type=_positive, default=1000, help="vectors held out (%(default)s, a fifth at most)"
    )
    parser.add_argument("--repeats", type=_positive, default=5, help="rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", choices=STUDIES, help="a set of measurements instead: see studies.py")
    parser.add_argument("--out", type=expanded, default=Path("build/benchmark"), metavar="DIR", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    command = ["python", "-m", "ivfpq.benchmark", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        if max(args.threads) > cores():
            raise ValueError(f"--threads asks for {max(args.threads)}, this process may use {cores()} cores")
        text = (studies.run if args.study else run)(args, command)
    except (ValueError, OSError, EngineError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text)
    return 0


def run(args: argparse.Namespace, command: Sequence[str]) -> str:
    """One comparison, as the command line asks; returns the report."""
    subjects = [subject for name in args.engines.split(",") for subject in parse_subjects(name, args.factory)]
    plan = [(s, ENGINES[s.engine].query_arguments(s.factory, args.k, args.nprobe)) for s in subjects]
    with tempfile.TemporaryDirectory() as folder:
        x, name = features_of(args)
        data = prepare(
            x, name, Path(folder), queries=args.queries, k=args.k, seed=args.seed, unit=args.metric == "cosine"
        )
        del x
        comparison = compare(data, plan, threads=args.threads, repeats=args.repeats, seed=args.seed)
        return write(args.out, comparison, environment(args.seed, command), args.repeats)
