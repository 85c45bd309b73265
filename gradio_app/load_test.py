"""Many visitors at once: do they wait long, do they get each other's answers, does the server grow?

python -m gradio_app.load_test [--data NAME ...] [--sessions 50] [--searches 2000] [--pause 0]

It serves the collections on a free port of this machine in a process of its own, and sends what the page sends. Each
visitor goes on from picture to picture and from collection to collection. Every answer is compared with what the engine
says when it is asked directly.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from features.images import decode_image
from features.paths import expanded
from search.engine import SearchEngine
from search.hits import Hit

K = 20
NPROBE = 8
WARM_UP = 20  # searches of one visitor before anything is measured
DIFFERENT = 64  # questions for each collection
ALONE = 100  # searches of one visitor alone, to compare with
KEEP_ALIVE = 4.0  # seconds; after 5 the server closes a connection that nobody uses
TOKEN = re.compile(r'class="ris-crop[^"]*" data-token="(\w+)" data-width="(\d+)" data-height="(\d+)"')
FOUND = re.compile(r'<figure class="ris-tile" data-collection="([^"]*)" data-id="(\d+)"')


@dataclass
class Report:
    """What was measured; times in milliseconds, sizes in MB.

    Attributes
    ----------
    alone, together : list of float
        Times of whole requests, from asking to the last byte of the answer: of one visitor, and of all at once.
    alone_switches, switches : list of float
        Times until all of a page had followed its visitor to another collection.
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
    alone_switches: list[float] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    cache: float = 0.0

    def __str__(self) -> str:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        rate = len(self.together) / self.seconds
        lines = [
            f"{self.sessions} visitors on {cores} cores, {len(self.together):,} searches in {self.seconds:.0f} s: "
            f"{rate:.1f} a second",
            _compared("search", self.alone, self.together),
            _compared("another collection", self.alone_switches, self.switches),
            f"answers mixed up    {len(self.mixed_up)}",
            f"memory in MB        {' '.join(f'{size:.0f}' for size in self.memory) or 'not known here'}",
            f"cache folder in MB  {self.cache:.1f}",
        ]
        return "\n".join([line for line in lines if line] + self.mixed_up[:10])


def _compared(what: str, alone: Sequence[float], together: Sequence[float]) -> str:
    """A line that compares one visitor's times with those of all; empty where there are none."""
    if not alone or not together:
        return ""
    single, p95 = statistics.median(alone), _percentile(together, 95)
    return (
        f"{what:<20}one visitor alone: median {single:.1f} ms, p95 {_percentile(alone, 95):.1f} ms; "
        f"all: median {statistics.median(together):.1f} ms, p95 {p95:.1f} ms, {p95 / single:.1f} times the one's median"
    )


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


@dataclass(frozen=True)
class Question:
    """A picture of a collection, or a part of it, and the ids to be found."""

    collection: str
    image_id: int
    box: tuple[int, int, int, int] | None
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """A listener of the page: what it is sent, in this order, as (`elem_id`, value on the page as it was opened)."""

    index: int
    inputs: tuple[tuple[str, Any], ...]


class Visitor:
    """One session of the page, as a browser would have it: several requests at once go over connections of their own.

    With `http.client`, because the visitors share the cores with the server: httpx would take as many as the server.
    """

    def __init__(self, address: tuple[str, int], events: Mapping[str, Sequence[Event]], name: str) -> None:
        self.address = address
        self.events = events
        self.name = name
        self.fields: dict[str, Any] = {}  # what is on the page, where it is no longer as it was opened
        self._connections: list[HTTPConnection] = []
        self._asked: list[float] = []  # when each of them was last used

    def send(self, trigger: str, **extra: Any) -> tuple[float, list[list[Any]]]:
        """What the page sends when something happens, to all who listen at once.

        Returns
        -------
        took : float
            Milliseconds until the last byte of the last answer.
        answers : list of list
            What each listener answered.
        """
        bodies = []
        for event in self.events[trigger]:
            data = [self.fields.get(name, value) for name, value in event.inputs]
            body = {"fn_index": event.index, "data": data, "session_hash": self.name, **extra}
            bodies.append(json.dumps(body).encode())
        while len(self._connections) < len(bodies):
            self._connections.append(HTTPConnection(*self.address, timeout=120))
            self._asked.append(0.0)
        asked = self._connections[: len(bodies)]
        now = time.monotonic()
        for connection, at in zip(asked, self._asked, strict=False):
            if now - at > KEEP_ALIVE:
                connection.close()  # the request will open it again
        self._asked[: len(bodies)] = [now] * len(bodies)
        started = time.perf_counter()
        for connection, content in zip(asked, bodies, strict=True):
            connection.request("POST", "/gradio_api/run/predict", content, {"Content-Type": "application/json"})
        replies = [connection.getresponse() for connection in asked]
        contents = [reply.read() for reply in replies]
        took = (time.perf_counter() - started) * 1e3
        for reply, content in zip(replies, contents, strict=True):
            if reply.status != 200:
                raise RuntimeError(f"{trigger}: {reply.status} {content[:200]!r}")
        return took, [json.loads(content)["data"] for content in contents]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def switch(self, collection: str) -> float | None:
        """Choose a collection; the time in ms until all of the page has followed, None if it is there already."""
        if self.fields.get("ris-collection") == collection:
            return None
        self.fields["ris-collection"] = collection
        return self.send("ris-collection.change")[0]

    def search(self, question: Question) -> tuple[float, str | None]:
        """Choose a picture and search; the time of the search in ms, and what was wrong with the answer."""
        chosen = {"collection": question.collection, "id": question.image_id}
        _, ((picture,),) = self.send("ris-examples.pick", event_data=chosen)
        found = TOKEN.search(picture)
        if found is None:
            return 0.0, f"{self.name} chose {chosen} and was shown no picture"
        token, size = found[1], (int(found[2]), int(found[3]))
        self.fields["ris-box"] = f"{token}:{','.join(map(str, question.box or (0, 0, *size)))}"
        took, ((results, *_),) = self.send("ris-picture.go")
        got = tuple((name, int(i)) for name, i in FOUND.findall(results))
        right = tuple((question.collection, i) for i in question.answer)
        return took, None if got == right else f"{self.name} chose {chosen} and got {got[:3]}, not {right[:3]}"


def _events(config: Mapping[str, Any]) -> dict[str, list[Event]]:
    """The page's listeners that the server answers at once, by ``elem_id.event``."""
    props = {component["id"]: component["props"] for component in config["components"]}
    events: dict[str, list[Event]] = {}
    for listener in config["dependencies"]:
        if not listener["backend_fn"] or listener["queue"] is not False:
            continue
        inputs = tuple((props[i].get("elem_id") or "", props[i].get("value")) for i in listener["inputs"])
        for target, event in listener["targets"]:
            name = f"{props.get(target, {}).get('elem_id')}.{event}"
            events.setdefault(name, []).append(Event(listener["id"], inputs))
    return events


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


def measure(
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
    where = urlsplit(url)
    address = where.hostname or "", where.port or 80
    with urlopen(f"{url}config") as reply:
        events = _events(json.load(reply))

    def visit(number: int, turns: int, wait: float, times: list[float], switches: list[float]) -> None:
        rng = random.Random(number)
        with closing(Visitor(address, events, f"visitor{number}")) as visitor:
            for _ in range(turns):
                time.sleep(rng.uniform(0, 2 * wait))
                question = rng.choice(questions)
                if (switching := visitor.switch(question.collection)) is not None:
                    switches.append(switching)
                took, wrong = visitor.search(question)
                times.append(took)
                if wrong:
                    report.mixed_up.append(wrong)

    visit(-1, WARM_UP, 0, [], [])
    visit(0, alone, 0, report.alone, report.alone_switches)
    turns = -(-searches // sessions)
    started = time.perf_counter()
    with ThreadPoolExecutor(sessions) as crowd:
        times = report.together, report.switches
        visits = [crowd.submit(visit, number + 1, turns, pause, *times) for number in range(sessions)]
        while pid is not None and not all(done.done() for done in visits):
            if len(report.together) >= len(report.memory) * searches / 10:
                report.memory.extend(memory_of(pid))
            time.sleep(0.05)
    report.seconds = time.perf_counter() - started
    for done in visits:
        done.result()
    return report


def memory_of(pid: int) -> list[float]:
    """Resident memory of a process in MB of 2**20 bytes, where the system tells; else nothing."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gradio_app.load_test", description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", metavar="NAME", help="collections to search (default: all)")
    parser.add_argument(
        "--collections", type=expanded, default=Path("collections"), metavar="FOLDER", help="(%(default)s)"
    )
    parser.add_argument("--sessions", type=int, default=50, metavar="N", help="visitors at once (%(default)s)")
    parser.add_argument("--searches", type=int, default=2000, metavar="N", help="of all together (%(default)s)")
    parser.add_argument("--crops", type=float, default=0.2, metavar="SHARE", help="of parts of pictures (%(default)s)")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="between two searches (%(default)s)")
    args = parser.parse_args(arguments)

    from gradio_app.app import UsageError, open_collections

    try:
        engines = open_collections(args.data, args.collections)
    except UsageError as error:
        parser.exit(1, f"{error}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "GRADIO_TEMP_DIR": cache}
        command = [sys.executable, "-m", "gradio_app.app", "--collections", str(args.collections)]
        command += ["--data", *engines, "--port", str(port)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                if server.stdout is None or not server.stdout.readline():
                    parser.exit(1, f"the server did not start over {args.collections}/\n")
                report = measure(
                    f"http://127.0.0.1:{port}/",
                    list(engines.values()),
                    args.sessions,
                    args.searches,
                    args.crops,
                    args.pause,
                    pid=server.pid,
                )
                report.cache = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()) / 1e6
            finally:
                server.terminate()
    sys.stdout.write(f"{report}\n")
    return 1 if report.mixed_up else 0


if __name__ == "__main__":
    sys.exit(main())
