"""Our indexes as ann-benchmarks and VIBE run them.

In a checkout of either suite, where `ivfpq` is installed (`pip install 'PATH[numba]'`): make the folder
`ann_benchmarks/algorithms/ivfpq` (`vibe/algorithms/ivfpq`) with an empty `__init__.py`, this file, and the `config.yml`
of the folder of that name beside it. Both suites find what they need by the names of methods.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np

from ivfpq import index_factory
from ivfpq.checks import Floats, Ids, Metric

METRICS: dict[str, Metric] = {
    "euclidean": "l2",
    "angular": "cosine",
    "cosine": "cosine",
    "normalized": "cosine",
    "ip": "ip",
}


class Ivfpq:
    """An index of `ivfpq`.

    Parameters
    ----------
    metric : str
        As the suites call it.
    spec : str
        What `index_factory` takes.

    Raises
    ------
    ValueError
        If the metric is another than those of METRICS.
    """

    def __init__(self, metric: str, spec: str) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        self.metric, self.spec = METRICS[metric], spec
        self.arguments: dict[str, int] = {}
        self.found: Ids = np.empty((0, 0), np.int64)

    def __str__(self) -> str:
        return f"ivfpq({', '.join([self.spec, *(f'{name}={value}' for name, value in self.arguments.items())])})"

    def fit(self, X: Floats) -> None:
        """Build the index of vectors (n, d), which are ids 0 to n - 1."""
        self.index = index_factory(X.shape[1], self.spec, metric=self.metric)
        self.index.train(X)
        self.index.add(X)

    def set_query_arguments(self, nprobe: int, k_factor: int | None = None) -> None:
        """What the searches to come look at."""
        self.arguments = {"nprobe": nprobe} | ({} if k_factor is None else {"k_factor": k_factor})

    def query(self, q: Floats, n: int) -> Ids:
        """The ids of the n nearest of one vector (d,), best first, without the missing ones."""
        ids: Ids = self.index.search(q[None], n, **self.arguments).ids[0]
        return ids[ids >= 0]

    def batch_query(self, X: Floats, n: int) -> None:
        """The same for vectors (nq, d), for `get_batch_results`."""
        self.found = self.index.search(X, n, **self.arguments).ids

    def get_batch_results(self) -> list[Ids]:
        """The ids of each vector of `batch_query`."""
        return [ids[ids >= 0] for ids in self.found]

    def get_memory_usage(self) -> float:
        """Kilobytes of the process: the suites take what it is more than before `fit`."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
        except OSError:  # not Linux: the most there ever was
            return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def get_additional(self) -> dict[str, Any]:
        """More about an answer: nothing."""
        return {}

    def done(self) -> None:
        """Let go of the index."""
        del self.index
