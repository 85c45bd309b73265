"""Re-ranking by vectors of a byte a component, in compiled code.

The candidates are rows from all over one list of scalar-quantized vectors, whose centroid is the origin. What
`integers` says of its estimates, and of what they can be off by, holds for them: integer products of all candidates'
bytes leave the k best and a few more, whose defined distances are computed.
"""

from __future__ import annotations

import numpy as np

from ivfpq.checks import Floats, Ids
from ivfpq.kernels.compiled import of_thread, writeable
from ivfpq.kernels.integers import cut, distance_to_list, furnished, look_at, put_answer
from ivfpq.kernels.intrinsics import sum_of_squares
from ivfpq.kernels.jit import jit_entry
from ivfpq.kernels.layout import list_size, list_start
from ivfpq.kernels.memory import address, free, int32_at, int64_at, prefetch
from ivfpq.kernels.products import byte_products_of_one
from ivfpq.kernels.quantizers import Quantizers
from ivfpq.kernels.scalar import CompiledScalar
from ivfpq.list_layout import Lists, in_order
from ivfpq.results import SearchResult
from ivfpq.threads import spread

WORTH_A_THREAD = 1 << 23  # bytes multiplied: about half a millisecond
AHEAD = 4  # candidates whose bytes are on their way while one is looked at


# distance = reference.adc(x[q], origin, codes[rows[q]], pq, metric)
# best = np.lexsort((ids, distance))[:k]
@jit_entry
def rank(quantizers, codec, lists, x, rows, scratch, distances, ids):
    """Fill distances float32 (nq, k) and ids int64 (nq, k) with the best of rows int64 (nq, width), -1 for none.

    Quantizers, codec, lists and scratch are as for `integers.search`. Returns False, and nothing more, if there is no
    such row.
    """
    quantizers_, codec_, lists_, scratch_ = quantizers[0], codec[0], lists[0], scratch[0]
    (nq, width), d, size = rows.shape, quantizers_.d, lists_.width
    most = ids.shape[1] if ids.shape[1] < width else width
    work = furnished(quantizers_, scratch_, np.int64(1), np.int64(1), most)
    end, there = list_start(lists_, 0) + list_size(lists_, 0), True
    for q in range(nq):
        vector, numbers = address(x) + 4 * q * d, address(rows) + 8 * q * width
        cut(quantizers_, codec_, work, vector, sum_of_squares(vector, quantizers_.centre, d))
        work.n, work.held, work.limit = 0, 0, np.inf
        base = distance_to_list(quantizers_, vector, np.int64(0)) + work.shift
        for c in range(width):
            if c + AHEAD < width:
                prefetch(lists_.blocks + size * int64_at(numbers, c + AHEAD), size)
            row = int64_at(numbers, c)
            if row >= end:
                there = False
                break
            if row >= 0:
                code = lists_.blocks + size * row
                byte_products_of_one(code, size, (work.w,), d, work.sums)
                look_at(codec_, work, (code, d, base), int32_at(work.sums, 0), row, (q, np.int64(0)))
        if not there:
            break
        put_answer(quantizers_, codec_, lists_, scratch_, work, (q, vector, most), distances, ids)
    free(work.found)
    free(scratch_.queries)
    return there


class Store:
    """The vectors of an `IndexRefine` at one moment, a byte a component.

    Parameters
    ----------
    lists : Lists
        One list whose codes are the vectors.
    quantizers : Quantizers
        The codec, around the origin.

    Attributes
    ----------
    lists : Lists
    in_order : bool
        Whether the vector with the id i is row i.
    """

    __slots__ = ("_compiled", "in_order", "lists")

    def __init__(self, lists: Lists, quantizers: Quantizers) -> None:
        self.lists = lists
        self.in_order = in_order(lists)
        self._compiled = quantizers.compiled_by(CompiledScalar)

    def rerank(self, x: Floats, rows: Ids, ids: Ids, k: int) -> SearchResult | None:
        """As `rerank.Store.rerank`; the ids are the store's own."""
        x, rows = writeable(np.ascontiguousarray(x)), np.ascontiguousarray(rows)
        distances, found = np.empty((len(x), k), np.float32), np.empty((len(x), k), np.int64)
        records = self._compiled.quantizers, self._compiled.codec, self.lists.addresses

        def work(first: int, last: int) -> bool:
            part = slice(first, last)
            there: bool = rank(*records, x[part], rows[part], of_thread.scratch, distances[part], found[part])
            return there

        there = spread(work, len(x), rows.size * x.shape[1] // WORTH_A_THREAD)
        return SearchResult(distances, found) if all(there) else None
