"""How candidates are scanned: one answer (`reference` defines it), several speeds.

`IVFPQ_KERNEL` in the environment names the kernel to use; otherwise the fastest is taken that this machine can run.
The compiled kernels (`portable`, `avx512`) are numba's work, which is imported by the first search and not before.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

from ivfpq.assign import choose
from ivfpq.checks import Floats, Ids
from ivfpq.invlists import Lists
from ivfpq.kernels import reference
from ivfpq.kernels.model import Model
from ivfpq.results import RangeResult, SearchResult

NAMES = ("reference", "portable", "avx512")  # fastest last


@functools.cache
def available() -> tuple[str, ...]:
    """The names of the kernels that this machine can run, fastest last.

    `portable` needs numba, `avx512` a processor with AVX-512 VBMI as well (Intel since Ice Lake, AMD since Zen 4).
    """
    if importlib.util.find_spec("numba") is None:
        return NAMES[:1]
    from llvmlite import binding  # asks the processor as numba will

    features = binding.get_host_cpu_features()
    needed = ("avx512f", "avx512bw", "avx512vbmi")
    return NAMES if all(features.get(name) for name in needed) else NAMES[:2]


def active() -> str:
    """The name of the kernel that searches use.

    Raises
    ------
    ValueError
        If `IVFPQ_KERNEL` names none, or one that this machine cannot run.
    """
    name = os.environ.get("IVFPQ_KERNEL")
    if not name:
        return available()[-1]
    if name not in available():
        raise ValueError(f"IVFPQ_KERNEL must be one of {', '.join(available())}, got {name!r}")
    return name


@functools.cache
def _compiled() -> Any:
    """The module, imported when it is first needed: numba takes its time."""
    return importlib.import_module("ivfpq.kernels.compiled")


def search(x: Floats, nprobe: int, model: Model, lists: Lists, k: int) -> SearchResult:
    """The k best of each query (nq, d) in the `nprobe` lists nearest to it, as `reference` defines them."""
    name = active()
    if name == "reference":
        probes = choose(x, model.coarse, nprobe, model.space)
        return reference.search(x, probes, model.coarse.y, model.pq, lists, k, model.metric)
    result: SearchResult = _compiled().search(x, nprobe, model, lists, k, vbmi=name == "avx512")
    return result


def candidates(x: Floats, nprobe: int, model: Model, lists: Lists, k: int, kernel: str) -> Ids:
    """The ids that `search` gives, int64 (nq, k), in no order: less work for who wants no distances."""
    if kernel == "reference":
        return search(x, nprobe, model, lists, k).ids
    result: SearchResult = _compiled().search(x, nprobe, model, lists, k, vbmi=kernel == "avx512", ordered=False)
    return result.ids


def range_search(x: Floats, nprobe: int, model: Model, lists: Lists, radius: float) -> RangeResult:
    """All in the `nprobe` lists nearest to each query that `reference` puts strictly inside the radius."""
    name = active()
    if name == "reference":
        probes = choose(x, model.coarse, nprobe, model.space)
        return reference.range_search(x, probes, model.coarse.y, model.pq, lists, radius, model.metric)
    result: RangeResult = _compiled().range_search(x, nprobe, model, lists, radius, vbmi=name == "avx512")
    return result
