"""An engine in a process of its own, and the clock beside it."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Data
from benchmarks.engines import ENGINES, Arguments, EngineError, Subject
from ivfpq import kernels
from ivfpq.checks import Floats

logger = logging.getLogger("benchmarks")

BATCH_SECONDS = 0.2  # a batch is repeated within its turn until it took so long
SINGLES = 200  # queries asked one at a time in a turn ...
SINGLE_SECONDS = 1.0  # ... fewer where those take longer
WARM = 3  # queries before them fetch into the caches what the engine before had put out
SETTLE_SECONDS = 0.03  # before a turn: idle threads of the one before (OpenMP's, BLAS's) spin a while before they sleep


class Worker:
    """What runs in an engine's own process: each public method is a request, answered in JSON."""

    def start(self, subject: list[str], d: int, seed: int, queries: str, warm_up: bool) -> Arguments:
        """Import the library and warm it up. Memory is counted from here."""
        self.subject, self.d, self.seed = Subject(*subject), d, seed
        self.queries: Floats = np.load(queries)
        self.engine: Any = ENGINES[self.subject.engine](d, self.subject, seed)
        kernel = kernels.active() if self.subject.engine == "ivfpq" else ""
        seconds = _seconds(self.engine.warm_up) if warm_up else 0.0
        self.before = resident_bytes()
        return {"warm_up_s": seconds, "kernel": kernel}

    def train(self, path: str, threads: int) -> float:
        """Begin anew with an untrained index and train it on the vectors of the file; seconds."""
        self.engine = None  # let go of the old one first
        self.engine = ENGINES[self.subject.engine](self.d, self.subject, self.seed)
        self._use(threads, {})
        x = np.load(path)
        return _seconds(lambda: self.engine.train(x))

    def add(self, path: str, threads: int, first: int = 0, last: int | None = None) -> float:
        """Add rows first ... last - 1 of the file; seconds."""
        self._use(threads, {})
        x = np.array(np.load(path, mmap_mode="r")[first:last])
        return _seconds(lambda: self.engine.add(x))

    def first_search(self, k: int, arguments: Arguments, threads: int) -> float:
        """Seconds of one query, if it is the first after building."""
        self._use(threads, arguments)
        return _seconds(lambda: self.engine.search_one(self.queries[:1], k))

    def memory(self) -> int | None:
        """Bytes resident now that were not before anything was built; what was indexed is not among them."""
        now = resident_bytes()
        return None if now is None or self.before is None else now - self.before

    def save(self, path: str) -> int | None:
        """Write the index; the size of the file or folder, None if the engine does not write any."""
        try:
            self.engine.save(Path(path))
        except NotImplementedError:
            return None
        return sum(file.stat().st_size for file in [Path(path), *Path(path).rglob("*")] if file.is_file())

    def load(self, path: str, mmap: bool) -> float:
        """Read an index instead of building one; seconds."""
        return _seconds(lambda: self.engine.load(Path(path), mmap))

    def answers(self, k: int, arguments: Arguments, threads: int) -> Any:
        """Ids for all queries. Untimed: this is the warm-up of these arguments, single queries included."""
        self._use(threads, arguments)
        self.engine.search_one(self.queries[:1], k)
        return np.asarray(self.engine.search(self.queries, k)).tolist()

    def scanned(self, k: int, arguments: Arguments, threads: int) -> float | None:
        """How many vectors a query is compared with, in the mean."""
        self._use(threads, arguments)
        answer: float | None = self.engine.scanned(self.queries, k)
        return answer

    def batch(self, k: int, arguments: Arguments, threads: int) -> tuple[float, float]:
        """All queries in one call, repeated for BATCH_SECONDS: microseconds a query, and the cores busy meanwhile."""
        self._use(threads, arguments)
        time.sleep(SETTLE_SECONDS)
        cpu = time.process_time()
        seconds, calls = _seconds(lambda: self.engine.search(self.queries, k)), 1
        if seconds < BATCH_SECONDS:  # short enough for cold caches to show in it: that was the warm-up
            calls = math.ceil(BATCH_SECONDS / seconds)
            cpu = time.process_time()
            seconds = _seconds(lambda: [self.engine.search(self.queries, k) for _ in range(calls)])
        return seconds / calls / len(self.queries) * 1e6, (time.process_time() - cpu) / seconds

    def single(self, k: int, arguments: Arguments, threads: int, first: int) -> list[float]:
        """Queries one at a time, the `first` and those after it: microseconds of each."""
        self._use(threads, arguments)
        time.sleep(SETTLE_SECONDS)
        times: list[float] = []
        for i in (np.arange(first - WARM, first + SINGLES) % len(self.queries)).tolist():
            query = self.queries[i : i + 1]
            times.append(_seconds(partial(self.engine.search_one, query, k)) * 1e6)
            if len(times) > 2 * WARM and sum(times) > SINGLE_SECONDS * 1e6:
                break
        return times[WARM:]

    def errors(self, path: str) -> tuple[float, float]:
        """What training made small: the mean squared distance of the file's vectors to their coarse centroid, and to
        what their code stands for. One evaluator for both sides: faiss's.
        """
        import faiss

        from ivfpq.faiss_compat import to_faiss

        x: Floats = np.load(path)
        index: Any = to_faiss(self.engine.index) if self.subject.engine == "ivfpq" else self.engine.index
        lists: Any = faiss.downcast_index(index)
        coarse = lists.quantizer.search(x, 1)[0]
        return float(coarse.mean()), float(np.square(x - lists.sa_decode(lists.sa_encode(x))).sum(axis=1).mean())

    def _use(self, threads: int, arguments: Arguments) -> None:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # our compiled kernels read it at every search
        self.engine.threads, self.engine.query = threads, arguments
        self.engine.prepare()


def _seconds(call: Callable[[], object]) -> float:
    """How long it takes; Python's garbage is collected another time."""
    gc.disable()
    try:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    finally:
        gc.enable()


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM: see `memory_of_this_process`."""
    return memory_of_this_process("Rss")


def memory_of_this_process(kind: str) -> int | None:
    """Bytes of a kind that smaps_rollup has, after giving back what is free; None where Linux does not tell.

    "Rss" is all that is in RAM, "Anonymous" what of it is no part of a file.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        text = Path("/proc/self/smaps_rollup").read_text()
    except (OSError, AttributeError):  # not glibc, not Linux
        return None
    match = re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def serve() -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library writes to standard output must not come between the replies
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": getattr(worker, request.pop("do"))(**request)}
        except ImportError as error:
            package = ENGINES[worker.subject.engine].package
            reply = {"error": f"not installed: {error} (the package is {package})"}
        except Exception as error:  # whatever a library raises: the benchmark names it and goes on without this engine
            logger.debug("request failed", exc_info=True)
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Process:
    """The other side of a `Worker`.

    Parameters
    ----------
    cold : bool
        Compile anew instead of reading what was compiled before, and leave out the warm-up.

    Raises
    ------
    EngineError
        From `ask`, if the engine cannot do it or the process is gone; and from the start.
    """

    def __init__(self, subject: Subject, data: Data, seed: int, *, cold: bool = False) -> None:
        self.subject = subject
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        if cold:
            environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=data.base.parent)
        root = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        if subject.engine == "ivfpq" and subject.variant:
            environment["IVFPQ_KERNEL"] = subject.variant
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.process import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self.started: Arguments = self.ask(
                "start", subject=list(subject), d=data.d, seed=seed, queries=str(data.queries), warm_up=not cold
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to one request."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise EngineError("the process has no pipes")
        try:
            pipe_in.write(json.dumps({"do": do, **arguments}) + "\n")
            pipe_in.flush()
            line = pipe_out.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"the process ended with exit status {self._process.wait()} while asked to {do}")
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
