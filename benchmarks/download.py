"""What a download survives, and how fast it is: ``python -m benchmarks.download``.

A list of addresses over made-up hosts on this machine (`benchmarks.web`), a share of which misbehave, is downloaded by
the command line in a process of its own, which is killed (kill -9) again and again and started again. Then every
address must have come to the end that its kind has, every picture must be that of its address, and nothing may have
been fetched twice but what was in hand at a kill or had failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from benchmarks.web import LASTING, PASSING, Web, colour_of
from features.download.state import STATE
from features.images import decode_image

_MISBEHAVING = (*PASSING, *LASTING, "untyped", "redirect")
_TIMES = {"flaky": 2, "throttled": 2, "closing": 2, "cut": 2}


@dataclass
class Survival:
    """What came of a run.

    Attributes
    ----------
    again : int
        Addresses that were in hand at a kill and were asked for once more.
    memory_mb : list of float
        Resident memory of the command (without its decoding processes), at the times it was looked at.
    faults : list of str
        What should not have happened.
    """

    addresses: int
    kills: int
    seconds: float = 0.0
    done: int = 0
    again: int = 0
    most_at_once: int = 0
    memory_mb: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run(addresses: int, hosts: int, kills: int, misbehaving: float, folder: Path, seed: int = 0) -> Survival:
    """Download from made-up hosts and kill the command `kills` times on the way, spread over the addresses.

    Parameters
    ----------
    misbehaving : float
        The share of addresses whose kind is not to give a picture at once.
    """
    rng = np.random.default_rng(seed)
    survival = Survival(addresses, kills)
    with Web(hosts).running() as web:
        kinds = ["good" if plain else rng.choice(_MISBEHAVING) for plain in rng.random(addresses) >= misbehaving]
        urls = [web.url(int(rng.integers(hosts)), kind, number) for number, kind in enumerate(kinds)]
        place = folder / "list.csv"
        with place.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["number", "url"])
            table.writerows(enumerate(urls))
        out = folder / "out"
        in_hand: Counter[str] = Counter()
        begun = time.monotonic()
        with tqdm(total=addresses, unit="address", disable=None) as bar, (folder / "log").open("w") as log:
            for kill in range(kills + 1):
                goal = addresses * (kill + 1) // (kills + 1) if kill < kills else None
                in_hand.update(_until(web, place, out, goal, survival, bar, log))
        survival.seconds = time.monotonic() - begun
        survival.most_at_once = max(web.most_at_once.values())
        _check(survival, web, urls, kinds, out, in_hand)
    return survival


def _until(
    web: Web, place: Path, out: Path, goal: int | None, survival: Survival, bar: tqdm[None], log: TextIO
) -> list[str]:
    """Let the command run to its end, or kill it after so many addresses. Returns what was leased then."""
    command = [sys.executable, "-m", "features.download", str(place), "--out", str(out), "--allow-private"]
    process = subprocess.Popen([*command, "--rate", "1000", "--max-size", "1"], stdout=log, stderr=log)
    while process.poll() is None:
        time.sleep(0.2)
        ended = _ended(out)
        bar.update(ended - bar.n)
        if goal is not None and ended >= goal:
            process.send_signal(signal.SIGKILL)
            break
        if goal is None and (memory := _memory_mb(process.pid)) is not None:
            survival.memory_mb.append(memory)
    if process.wait() not in (0, -signal.SIGKILL):
        survival.faults.append(f"the command ended with {process.returncode}")
    with _state(out) as state:
        return [url for (url,) in state.execute("SELECT url FROM url WHERE state = 'leased'")]


def _check(survival: Survival, web: Web, urls: list[str], kinds: list[str], out: Path, in_hand: Counter[str]) -> None:
    with _state(out) as state:
        ends = {url: row for url, *row in state.execute("SELECT url, state, cause, file FROM url")}
    expected = {
        url: ("failed", LASTING[kind]) if kind in LASTING else ("done", None)
        for url, kind in zip(urls, kinds, strict=True)
    }
    if len(ends) != len(urls):
        survival.faults.append(f"{len(ends):,} addresses in place of {len(urls):,}")
    files = set()
    for number, (url, kind) in enumerate(zip(urls, kinds, strict=True)):
        ended, cause, file = ends[url]
        if (ended, cause) != expected[url]:
            survival.faults.append(f"{url}: {ended}, {cause}")
        if ended == "done":
            survival.done += 1
            files.add(file)
            if tuple(decode_image(out / file)[0, 0]) != colour_of(number):
                survival.faults.append(f"{url}: the picture of another")
        # What was leased at a kill may have been asked for by then; where redirects end is found at the sixth.
        most = (_TIMES.get(kind, 1) + in_hand[url]) * (6 if kind == "loop" else 1)
        if web.asked[url] > most:
            survival.faults.append(f"{url}: asked {web.asked[url]} times, {in_hand[url]} kills")
        survival.again += in_hand[url] > 0 and web.asked[url] > (6 if kind == "loop" else _TIMES.get(kind, 1))
    there = {path.relative_to(out).as_posix() for path in out.glob("??/*")}
    if there != files:
        survival.faults.append(f"{len(there ^ files):,} files of nobody, or nowhere")
    rows = [json.loads(line)["file"] for line in (out / "pictures.jsonl").read_text().splitlines()]
    if sorted(rows) != sorted(files):
        survival.faults.append("the table is not of the files")


def _state(out: Path) -> sqlite3.Connection:
    return sqlite3.connect(out / STATE, timeout=60)


def _ended(out: Path) -> int:
    try:
        with _state(out) as state:
            found = state.execute("SELECT COUNT(*) FROM url WHERE state IN ('done', 'failed', 'refused')").fetchone()
        return int(found[0])
    except sqlite3.OperationalError:  # it is being made
        return 0


def _quarters(memory: list[float]) -> list[str]:
    seen = [each for each in memory if each > 0] or [0.0]  # a process that has ended has none
    return [f"{seen[max(0, len(seen) * quarter // 4 - 1)]:.0f}" for quarter in (1, 2, 3, 4)]


def _memory_mb(process: int) -> float | None:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where something happened that should not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__.split("\n\n")[1])
    parser.add_argument("--addresses", type=int, default=25_000, metavar="N", help="(%(default)s)")
    parser.add_argument("--hosts", type=int, default=50, metavar="N", help="(%(default)s)")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="(%(default)s)")
    parser.add_argument("--misbehaving", type=float, default=0.1, metavar="SHARE", help="(%(default)s)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        survival = run(given.addresses, given.hosts, given.kills, given.misbehaving, Path(folder))
    rate = survival.addresses / survival.seconds
    sys.stdout.write(
        f"{survival.addresses:,} addresses over {given.hosts} hosts, {survival.kills} times kill -9: "
        f"{survival.done:,} pictures in {survival.seconds:.0f} s ({rate:.0f} addresses a second, starts included); "
        f"asked again after a kill: {survival.again:,}; of one host at once: at most {survival.most_at_once}; "
        f"memory of the last process at each quarter of its time: {', '.join(_quarters(survival.memory_mb))} MB\n"
    )
    for fault in survival.faults[:20]:
        sys.stdout.write(f"fault: {fault}\n")
    sys.stdout.write(f"{len(survival.faults)} faults\n")
    return 1 if survival.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
