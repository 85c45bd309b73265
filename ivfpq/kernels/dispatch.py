"""A search goes to the kernel in use."""

from __future__ import annotations

from ivfpq import kernels
from ivfpq.assign import choose
from ivfpq.checks import Floats, Ids
from ivfpq.kernels import reference
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.list_layout import Lists
from ivfpq.results import RangeResult, SearchResult


def search(x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, k: int) -> SearchResult:
    """The k best of each query (nq, d) in the `nprobe` lists nearest to it, as `reference` defines them."""
    name = kernels.active()
    if name == "reference":
        probes = choose(x, quantizers.coarse, nprobe, quantizers.space)
        return reference.search(x, probes, quantizers.coarse.y, quantizers.pq, lists, k, quantizers.metric)
    compiled = kernels.compiled_module(quantizers.pq.kernel_module)
    result: SearchResult = compiled.search(x, nprobe, quantizers, lists, k, kernel=name)
    return result


def candidates(x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, k: int, kernel: str) -> Ids:
    """The ids that `search` gives, int64 (nq, k), in no order: less work for who wants no distances."""
    if kernel == "reference":
        return search(x, nprobe, quantizers, lists, k).ids
    compiled = kernels.compiled_module(quantizers.pq.kernel_module)
    result: SearchResult = compiled.search(x, nprobe, quantizers, lists, k, kernel=kernel, ordered=False)
    return result.ids


def range_search(x: Floats, nprobe: int, quantizers: Quantizers, lists: Lists, radius: float) -> RangeResult:
    """All in the `nprobe` lists nearest to each query that `reference` puts strictly inside the radius."""
    name = kernels.active()
    if name == "reference":
        probes = choose(x, quantizers.coarse, nprobe, quantizers.space)
        centroids = quantizers.coarse.y
        return reference.range_search(x, probes, centroids, quantizers.pq, lists, radius, quantizers.metric)
    compiled = kernels.compiled_module(quantizers.pq.kernel_module)
    result: RangeResult = compiled.range_search(x, nprobe, quantizers, lists, radius, kernel=name)
    return result
