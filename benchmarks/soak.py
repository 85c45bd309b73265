"""A day of use in minutes: ``python -m benchmarks.soak --seconds 600``.

One visitor loads the page, searches, edits, takes edits back, decides about duplicates, adds and removes pictures and
syncs, over REST on the page's port, and the server is killed (kill -9) again and again. After each kill the collection
must be whole: the doctor finds nothing but what a stopped writer leaves, every index holds every picture, and all that
was answered to be done is there. How much memory each server took by then is told, to see whether it grows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from features.collection.duplicates import DIFFERENT, verdicts
from features.collection.store import FeatureStore
from gradio_app.load_test import memory_of
from gradio_app.routes.api.keys import KeyStore
from search.doctor import examine
from search.engine import SearchEngine

NAME = "soak"
LEFT_BEHIND = "left by a writer that was stopped"
_STARTED_WITHIN = 300.0  # seconds
_TOO_MANY = 429

Start = Callable[[Path], tuple[subprocess.Popen[bytes], str]]
"""Starts a server over a folder of collections; returns it, and its address without a slash at the end."""


@dataclass
class Ledger:
    """What must be so: what a server answered to be done. What was under way at a kill may be so or not."""

    tags: dict[str, set[str]] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    unsure_tags: set[str] = field(default_factory=set)
    different: set[tuple[str, str]] = field(default_factory=set)
    is_removing: bool = False
    """Whether a file may be gone whose picture is still in the catalog, until the next server has ended that job."""


class Visitor:
    """Does what visitors do, as chance has it, and notes what was answered."""

    def __init__(self, folder: Path, key: str, seed: int, has_page: bool) -> None:
        self.folder = folder / NAME
        self.ledger, self.done = Ledger(), Counter[str]()
        self._random = random.Random(seed)
        self._key = key
        self._has_page = has_page
        self._count = 0
        self.url = ""

    def step(self) -> None:
        """One action. Raises httpx.TransportError if the server is gone."""
        often: dict[Callable[[], None], int] = {
            self.search: 8,
            self.leaf: 4,
            self.tag: 6,
            self.take_back: 2,
            self.decide: 2,
            self.add: 2,
            self.remove: 1,
            self.sync: 1,
            self.load_page: 2 if self._has_page else 0,
        }
        (action,) = self._random.choices(list(often), list(often.values()))
        action()
        self.done[action.__name__] += 1

    def search(self) -> None:
        asked: dict[str, Any] = {"collection": NAME, "k": 5}
        if self._random.random() < 0.3:
            asked["filter"] = {"tag": "t0"}
        else:
            asked["parts"] = [{"image": {"id": self._any_id()}}]
            asked["options"] = {"engine": self._random.choice(("ivfpq", "faiss", "exact"))}
        self._count += 1
        reply = self._ask("POST", "/search", json=asked)
        assert reply.status_code in (200, 422), reply.text  # a picture may have gone between the two

    def leaf(self) -> None:
        assert httpx.get(f"{self.url}/healthz", trust_env=False, timeout=60).status_code == 200
        reply = self._ask("GET", f"/collections/{NAME}/images?limit=50")
        assert reply.status_code == 200, reply.text

    def tag(self) -> None:
        id = self._any_id()
        content = self._ask("GET", f"/collections/{NAME}/images/{id}").json().get("content")
        if content is None:
            return
        self._count += 1
        tag = f"t{self._count}"
        self.ledger.unsure_tags.add(tag)
        reply = self._ask("PATCH", f"/collections/{NAME}/images/{id}", json={"content": content, "add_tags": [tag]})
        if reply.status_code == 200:
            self.ledger.tags.setdefault(content, set()).add(tag)
        assert reply.status_code in (200, 404, 409), reply.text
        self.ledger.unsure_tags.discard(tag)
        self._last = (content, tag, reply.json().get("undo")) if reply.status_code == 200 else None

    _last: tuple[str, str, int] | None = None

    def take_back(self) -> None:
        if self._last is None:
            return
        (content, tag, number), self._last = self._last, None
        self.ledger.tags[content].discard(tag)
        self.ledger.unsure_tags.add(tag)
        reply = self._ask("POST", f"/collections/{NAME}/undo", json={"undo": number})
        assert reply.status_code in (200, 409), reply.text
        self.ledger.unsure_tags.discard(tag)
        if reply.status_code == 409:  # a sync has edited meanwhile
            self.ledger.tags[content].add(tag)

    def decide(self) -> None:
        reply = self._ask("GET", f"/collections/{NAME}/duplicates")
        assert reply.status_code == 200, reply.text
        ids = {self._any_id(), self._any_id()}
        told = [self._ask("GET", f"/collections/{NAME}/images/{id}").json() for id in ids]
        contents = sorted({each["sha256"] for each in told})
        if len(contents) < 2:
            return
        reply = self._ask("POST", f"/collections/{NAME}/duplicates", json={"do": "different", "images": list(ids)})
        assert reply.status_code == 200, reply.text
        self.ledger.different.add((contents[0], contents[1]))

    def load_page(self) -> None:
        reply = httpx.get(self.url, trust_env=False, timeout=60)
        assert reply.status_code == 200, reply.text
        assert NAME in reply.text

    def add(self) -> None:
        self._count += 1
        pixels = np.random.default_rng(self._count).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        content = hashlib.sha256(file.getvalue()).hexdigest()
        self.ledger.unsure.add(content)
        reply = self._ask("POST", f"/collections/{NAME}/images", files={"image": ("new.png", file.getvalue())})
        assert reply.status_code == 202, reply.text
        self._until_done(reply.json())
        self.ledger.unsure.discard(content)
        self.ledger.present.add(content)

    def remove(self) -> None:
        if not self.ledger.present:
            return
        content = self._random.choice(sorted(self.ledger.present))
        ids = FeatureStore.open(self.folder).find_copies(content)
        self.ledger.present.discard(content)
        self.ledger.unsure.add(content)
        self.ledger.is_removing = True
        reply = self._ask("DELETE", f"/collections/{NAME}/images/{ids[0]}")
        assert reply.status_code == 202, reply.text
        self._until_done(reply.json())
        self.ledger.unsure.discard(content)
        self.ledger.is_removing = False
        self.ledger.removed.add(content)
        self.ledger.tags.pop(content, None)

    def sync(self) -> None:
        reply = self._ask("POST", f"/collections/{NAME}/sync")
        assert reply.status_code == 202, reply.text
        self._until_done(reply.json())

    def settle(self) -> None:
        """Wait until the jobs that a killed server left are over."""
        while any(job["state"] in ("queued", "running") for job in self._ask("GET", "/jobs").json()["jobs"]):
            time.sleep(0.2)
        self.ledger.is_removing = False

    def discrepancies(self) -> list[str]:
        """What is not as it must be, of a server that does not run."""
        root = FeatureStore.open(self.folder).manifest["root"]
        faults = [
            str(each)
            for each in examine(self.folder)
            if each.fault != LEFT_BEHIND and not (self.ledger.is_removing and each.part == root)
        ]
        examine(self.folder, repair=True)
        engine = SearchEngine.open(self.folder)
        store = engine.store
        for name in engine.engines:
            if engine.index(name).ntotal != store.ids.size:
                faults.append(f"{name} holds {engine.index(name).ntotal} vectors, the catalog {store.ids.size}")
        for content in sorted(self.ledger.present - self.ledger.unsure):
            if len(copies := store.find_copies(content)) != 1:
                faults.append(f"the picture {content[:8]} is there {len(copies)} times")
        faults += [f"{content[:8]} is back" for content in self.ledger.removed if store.find_copies(content)]
        for content, tags in self.ledger.tags.items():
            for id in store.find_copies(content):
                said = store.annotations.of([id]).get(id)
                has = set() if said is None else {each.tag for each in said.tags}
                if not tags <= has:
                    faults.append(f"the picture {content[:8]} lost the tags {', '.join(sorted(tags - has))}")
                if more := has - tags - self.ledger.unsure_tags:
                    faults.append(f"the picture {content[:8]} has the tags {', '.join(sorted(more))}")
        if self.ledger.different:
            decided = verdicts(store.annotations)
            lost = [pair for pair in self.ledger.different if decided.get(pair) != DIFFERENT]
            faults += [f"that {first[:8]} and {second[:8]} are different is lost" for first, second in lost]
        return faults

    def _any_id(self) -> int:
        images = self._ask("GET", f"/collections/{NAME}/images?limit=100").json()["images"]
        return int(self._random.choice(images)["id"])

    def _until_done(self, job: dict[str, Any]) -> None:
        while (now := self._ask("GET", f"/jobs/{job['id']}").json())["state"] in ("queued", "running"):
            time.sleep(0.05)
        assert now["state"] == "done", now

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._key}"}
        while True:
            reply = httpx.request(
                method, f"{self.url}/api/v1{path}", headers=headers, timeout=300, trust_env=False, **body
            )
            if reply.status_code != _TOO_MANY:
                return reply
            time.sleep(float(reply.headers.get("retry-after", 1)))


@dataclass
class Soaked:
    """What came of it.

    Attributes
    ----------
    done : Counter
        Actions by name, ``kills`` among them.
    faults : list of str
        Empty where nothing was lost.
    memory : list of (int, float)
        Of each server, the actions that it did and its `memory_of` then; none where the system does not tell it.
    """

    done: Counter[str]
    faults: list[str]
    memory: list[tuple[int, float]]


def soak(
    folder: Path,
    start: Start,
    *,
    enough: Callable[[Counter[str]], bool],
    actions: int,
    seed: int = 0,
    has_page: bool = False,
) -> Soaked:
    """Use the collection `NAME` in a folder until it is enough; every so many actions its server is killed."""
    visitor = Visitor(folder, KeyStore(folder).make("soak", ("read", "write")), seed, has_page)
    chance, faults, memory = random.Random(seed), list[str](), list[tuple[int, float]]()
    while not faults and not enough(visitor.done):
        server, visitor.url = start(folder)
        killer = threading.Timer(chance.uniform(0, 1), os.killpg, [server.pid, signal.SIGKILL])
        try:
            visitor.settle()
            count = chance.randint(1, 2 * actions)
            for _ in range(count):
                visitor.step()
            memory += [(count, taken) for taken in memory_of(server.pid)]
            killer.start()
            with suppress(httpx.TransportError):
                while True:
                    visitor.step()
        finally:
            killer.cancel()
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        visitor.done["kills"] += 1
        faults = visitor.discrepancies()
    return Soaked(visitor.done, faults, memory)


def told_memory(memory: Sequence[tuple[int, float]]) -> list[str]:
    """The median over servers that lived short, longer and longest, a third of them each."""
    order = sorted(memory)
    thirds = [order[len(order) * part // 3 : len(order) * (part + 1) // 3] for part in range(3)]
    return [
        f"memory after {third[0][0]:,} to {third[-1][0]:,} actions: "
        f"{np.median([taken for _, taken in third]):,.0f} MiB (median of {len(third):,} servers)"
        for third in thirds
        if third
    ]


def serve(command: Sequence[str], environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server in a process group of its own; ``{port}`` in its command is a free one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    filled = [word.format(port=port) for word in command]
    server = subprocess.Popen(filled, env={**os.environ, **environment}, start_new_session=True)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + _STARTED_WITHIN
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}")
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return server, url
        time.sleep(0.1)
    raise RuntimeError("the server did not answer")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="of use (%(default)s)")
    parser.add_argument("--actions", type=int, default=60, help="between two kills, on average (%(default)s)")
    parser.add_argument("--pictures", type=int, default=300, help="made ones, to begin with (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generator = np.random.default_rng(options.seed)
        for number in range(options.pictures):
            path = folder / "images" / f"l{number % 5}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
        command = [sys.executable, "-m", "gradio_app.create_index", "--name", NAME, "--factory", "IVF4,PQ8"]
        command += ["--data", str(folder / "images"), "--collections", str(folder / "collections")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # Only pictures in the collection's own folder, as those of a zip file are, can be removed over REST.
        store = FeatureStore.open(folder / "collections" / NAME)
        (folder / "images").rename(store.folder / "images")
        store.update_manifest(root=str(store.folder / "images"))

        def start(collections: Path) -> tuple[subprocess.Popen[bytes], str]:
            page = [sys.executable, "-m", "gradio_app.app", "--collections", str(collections), "--port", "{port}"]
            return serve(page, {"GRADIO_TEMP_DIR": str(folder / "cache")})

        end = time.monotonic() + options.seconds
        soaked = soak(
            folder / "collections",
            start,
            enough=lambda done: time.monotonic() > end,
            actions=options.actions,
            seed=options.seed,
            has_page=True,
        )
    told = [f"{name}: {count:,}" for name, count in soaked.done.most_common()]
    told += told_memory(soaked.memory)
    told += soaked.faults or ["no discrepancy"]
    sys.stdout.write("\n".join(told) + "\n")
    return 1 if soaked.faults else 0


if __name__ == "__main__":
    sys.exit(main())
