"""Whether the terms beside stored codes are theirs: kernels that trust a wrong one would answer differently."""

from __future__ import annotations

import numpy as np

from ivfpq.distances import SMALL_BLOCK
from ivfpq.kernels.quantizers import TOP, Quantizers
from ivfpq.list_layout import Lists


def check_terms(quantizers: Quantizers, lists: Lists) -> None:
    """Check lists read from a file. Terms are explained by `Quantizers`, whose letters these are.

    A term may be off by what rounding makes of it on another machine, which the bounds of the kernels allow for.

    Raises
    ------
    ValueError
        If a term is not that of the code beside it.
    """
    count, M = quantizers.term_rows, quantizers.pq.M
    if not count:
        return
    low, step = quantizers.terms()
    rows, numbers = lists.rows(), lists.list_numbers()
    size = max(1, SMALL_BLOCK // quantizers.pq.d)
    for start in range(0, len(rows), size):
        stored = lists.codes(rows[start : start + size])
        number = numbers[start : start + size]
        with np.errstate(over="ignore", invalid="ignore"):
            g = quantizers.coarse.shifted(number).astype(np.float64)
            y = quantizers.pq.decode(stored[:, :M]).astype(np.float64)
            term = np.vecdot(2 * g + y if count == 2 else 2 * g, y)
            reach = (np.sqrt(np.vecdot(g, g)) + np.sqrt(np.vecdot(y, y))) ** 2
            slack = quantizers.pq.d * 2.0**-24 * reach
            fine = step[number] / (256 if count == 2 else 1)
            told = stored[:, M].astype(np.int64) * (256 if count == 2 else 1) + (stored[:, M + 1] if count == 2 else 0)
            top = 256 * TOP + 255 if count == 2 else TOP
            least, most = low[number] + told * fine - slack, low[number] + (told + 1) * fine + slack
            wrong = (term < least) & (told > 0) | (term > most) & (told < top)
            known = np.isfinite(reach) & (reach < 1e36)  # beyond, kernels do not trust terms
        if (wrong & known).any():
            first = int(np.argmax(wrong & known))
            raise ValueError(f"the term of the vector in row {rows[start + first]} is not that of its code")
