"""Many visitors at once: do they wait long, do they get each other's answers, does the server grow?

python -m gradio_app.load_test [--data NAME ...] [--sessions 50] [--searches 2000] [--pause 0]

It serves the collections on a free port of this machine in a process of its own, and sends what the page sends. Each
visitor goes on from picture to picture and from collection to collection. Every answer is compared with what the engine
says when it is asked directly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from features.images import decode_image
from gradio_app.engine import Hit, SearchEngine

K = 20
NPROBE = 8
WARM_UP = 20  # searches of one visitor before anything is measured
DIFFERENT = 64  # questions for each collection
ALONE = 100  # searches of one visitor alone, to compare with
TOKEN = re.compile(r'class="ris-crop[^"]*" data-token="(\w+)" data-width="(\d+)" data-height="(\d+)"')
FOUND = re.compile(r'<figure class="ris-tile" data-collection="([^"]*)" data-id="(\d+)"')


@dataclass
class Report:
    """What was measured; times in milliseconds, sizes in MB.

    Attributes
    ----------
    alone, together : list of float
        Times of whole requests, from asking to the last byte of the answer: of one visitor, and of all at once.
    mixed_up : list of str
        Answers that were not the ones asked for.
    memory : list of float
        Resident memory of the server, taken as the searches went on.
    cache : float
        What lies in the server's cache folder in the end.
    """

    sessions: int
    seconds: float = 0.0
    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    cache: float = 0.0

    def __str__(self) -> str:
        single = statistics.median(self.alone)
        p95 = _percentile(self.together, 95)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # All visitors ask at once and the cores are shared: so many requests wait for each core.
        fair = single * self.sessions / cores
        lines = [
            f"{self.sessions} visitors, {len(self.together):,} searches in {self.seconds:.0f} s, {cores} cores",
            f"one visitor alone   median {single:6.1f} ms   p95 {_percentile(self.alone, 95):6.1f} ms",
            f"all at once         median {statistics.median(self.together):6.1f} ms   p95 {p95:6.1f} ms",
            f"p95 is {p95 / single:.1f} times one visitor's median; with the cores shared out evenly, all at once "
            f"would take {fair:.0f} ms each",
            f"answers mixed up    {len(self.mixed_up)}",
            f"memory in MB        {' '.join(f'{size:.0f}' for size in self.memory) or 'not known here'}",
            f"cache folder in MB  {self.cache:.1f}",
        ]
        return "\n".join(lines + self.mixed_up[:10])


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


@dataclass(frozen=True)
class Question:
    """A picture of a collection, or a part of it, and the ids to be found."""

    collection: str
    image_id: int
    box: tuple[int, int, int, int] | None
    answer: tuple[int, ...]


class Visitor:
    """One session of the page, as a browser would have it."""

    def __init__(self, client: httpx.AsyncClient, events: dict[str, int], name: str) -> None:
        self.client = client
        self.events = events
        self.name = name

    async def send(self, event: str, data: list[Any], **extra: Any) -> list[Any]:
        body = {"fn_index": self.events[event], "data": data, "session_hash": self.name, **extra}
        (await self.client.post("gradio_api/queue/join", json=body)).raise_for_status()
        async with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.name}) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"{event}: {message['output']}")
                    output: list[Any] = message["output"]["data"]
                    return output
        raise RuntimeError(f"{event}: no answer")

    async def search(self, question: Question) -> tuple[float, str | None]:
        """Choose a picture and search; the time of the search in ms, and what was wrong with the answer."""
        chosen = {"collection": question.collection, "id": question.image_id}
        (picture,) = await self.send("ris-examples.pick", [None], event_data=chosen)
        found = TOKEN.search(picture)
        if found is None:
            return 0.0, f"{self.name} chose {chosen} and was shown no picture"
        token, size = found[1], (int(found[2]), int(found[3]))
        drawn = f"{token}:{','.join(map(str, question.box or (0, 0, *size)))}"
        data: list[Any] = [None, drawn, question.collection, K, "ivfpq", NPROBE, False, [], "", "score"]
        started = time.perf_counter()
        results, *_ = await self.send("ris-picture.go", data)
        took = (time.perf_counter() - started) * 1e3
        got = tuple((name, int(i)) for name, i in FOUND.findall(results))
        right = tuple((question.collection, i) for i in question.answer)
        return took, None if got == right else f"{self.name} chose {chosen} and got {got[:3]}, not {right[:3]}"


def ask(engine: SearchEngine, image_id: int, crop: bool) -> Question:
    """A question with its answer. A box makes an outside picture of it, whose vector must be computed."""
    path = engine.store.items[image_id].path
    if not crop:
        return Question(engine.name, image_id, None, _ids(engine.search(path, K, nprobe=NPROBE)))
    pixels = decode_image(path)
    height, width = pixels.shape[:2]
    box = (0, 0, max(width * 3 // 4, 1), height)
    part = pixels[:, : box[2]]
    whole = None if box[2] == width else box
    return Question(engine.name, image_id, whole, _ids(engine.search(part if whole else path, K, nprobe=NPROBE)))


def _ids(hits: Iterable[Hit]) -> tuple[int, ...]:
    return tuple(hit.id for hit in hits)


async def measure(
    url: str,
    engines: Sequence[SearchEngine],
    sessions: int,
    searches: int,
    crops: float,
    pause: float = 0.0,
    alone: int = ALONE,
    pid: int | None = None,
) -> Report:
    """Send `searches` from so many visitors to a server that is running.

    Parameters
    ----------
    crops : float
        Share of the searches that are of a part of a picture.
    pause : float
        Seconds between the searches of a visitor, on average.
    alone : int
        Searches of one visitor before the others come, to compare with.
    pid : int, optional
        The server's process, to look at its memory.
    """
    rng = random.Random(0)
    # Few enough to have their answers at hand: computing them in between would take the cores from the server.
    kinds = [rng.random() < crops for _ in range(DIFFERENT)]
    questions = [ask(engine, int(rng.choice(engine.store.ids)), crop) for crop in kinds for engine in engines]
    report = Report(sessions)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as client:
        config = (await client.get("config")).json()
        names = {component["id"]: component["props"].get("elem_id") for component in config["components"]}
        events = {f"{names.get(t)}.{e}": d["id"] for d in config["dependencies"] for t, e in d["targets"]}

        async def visit(number: int, turns: int, wait: float, times: list[float]) -> None:
            rng = random.Random(number)
            visitor = Visitor(client, events, f"visitor{number}")
            for _ in range(turns):
                await asyncio.sleep(rng.uniform(0, 2 * wait))
                took, wrong = await visitor.search(rng.choice(questions))
                times.append(took)
                if wrong:
                    report.mixed_up.append(wrong)

        await visit(-1, WARM_UP, 0, [])
        await visit(0, alone, 0, report.alone)
        done = asyncio.Event()

        async def look_at_memory() -> None:
            while pid is not None and not done.is_set():
                if len(report.together) >= len(report.memory) * searches / 10:
                    report.memory.extend(_memory_of(pid))
                await asyncio.sleep(0.05)

        looking = asyncio.create_task(look_at_memory())
        started = time.perf_counter()
        turns = -(-searches // sessions)
        await asyncio.gather(*(visit(number + 1, turns, pause, report.together) for number in range(sessions)))
        report.seconds = time.perf_counter() - started
        done.set()
        await looking
    return report


def _memory_of(pid: int) -> list[float]:
    """Resident memory in MB, where the system tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gradio_app.load_test", description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", metavar="NAME", help="collections to search (default: all)")
    parser.add_argument("--sessions", type=int, default=50, metavar="N", help="visitors at once (%(default)s)")
    parser.add_argument("--searches", type=int, default=2000, metavar="N", help="of all together (%(default)s)")
    parser.add_argument("--crops", type=float, default=0.2, metavar="SHARE", help="of parts of pictures (%(default)s)")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="between two searches (%(default)s)")
    args = parser.parse_args(arguments)

    from gradio_app.app import COLLECTIONS, UsageError, open_collections

    try:
        engines = open_collections(args.data)
    except UsageError as error:
        parser.exit(1, f"{error}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = str(Path(__file__).with_name("app.py"))
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "GRADIO_TEMP_DIR": cache}
        command = [sys.executable, script, "--data", *engines, "--port", str(port)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                if server.stdout is None or not server.stdout.readline():
                    parser.exit(1, f"the server did not start over {COLLECTIONS}/\n")
                report = asyncio.run(
                    measure(
                        f"http://127.0.0.1:{port}/",
                        list(engines.values()),
                        args.sessions,
                        args.searches,
                        args.crops,
                        args.pause,
                        pid=server.pid,
                    )
                )
                report.cache = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()) / 1e6
            finally:
                server.terminate()
    sys.stdout.write(f"{report}\n")
    return 1 if report.mixed_up else 0


if __name__ == "__main__":
    sys.exit(main())
