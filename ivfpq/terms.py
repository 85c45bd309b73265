"""Whether the terms beside stored codes are theirs: kernels that trust a wrong one would answer differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ivfpq.checks import Doubles, Ids
from ivfpq.distances import SMALL_BLOCK
from ivfpq.kernels.quantizers import TERM_BYTES, TOP, Quantizers
from ivfpq.list_layout import Lists, whole_blocks

PRODUCTS = 1 << 20  # numbers of the tables made together: 8 MiB
BLOCKS = 1 << 10  # of codes looked at together
TRUSTED = 1e36  # squares of lengths up to which kernels trust terms


def check_terms(quantizers: Quantizers, lists: Lists) -> None:
    """Check lists as they are read from a file, one after the other. Terms are explained by `Quantizers`.

    A term may be off by what rounding makes of it on another machine, which the bounds of the kernels allow for.

    Raises
    ------
    ValueError
        If a term is not that of the code beside it.
    """
    if not quantizers.term_rows:
        return
    if quantizers.term_rows == TERM_BYTES:
        for rows, term, reach, told in _whole_terms(quantizers, lists):
            with np.errstate(invalid="ignore"):
                # Not "> slack": what is stored may be no number.
                wrong = ~(np.abs(told - term) <= 4 * 2.0**-24 * reach) & (reach < TRUSTED)
            if wrong.any():
                raise ValueError(f"the term of the vector in row {rows[wrong][0]} is not that of its code")
        return
    low, step = quantizers.terms()
    units = 256 if quantizers.term_rows == 2 else 1
    top = units * TOP + units - 1
    of_terms = _terms_of_parts(quantizers, lists) if units == 1 else _terms_of_sums(quantizers, lists)
    for rows, number, term, reach, told in of_terms:
        with np.errstate(over="ignore", invalid="ignore"):
            slack = quantizers.pq.d * 2.0**-24 * reach
            least = low[number] + told * (step[number] / units) - slack
            most = low[number] + (told + 1) * (step[number] / units) + slack
            wrong = (term < least) & (told > 0) | (term > most) & (told < top)
            known = reach < TRUSTED
        if (wrong & known).any():
            first = rows[wrong & known][0]
            raise ValueError(f"the term of the vector in row {first} is not that of its code")


def _terms_of_parts(quantizers: Quantizers, lists: Lists) -> Iterator[tuple[Ids, Ids, Doubles, Doubles, Any]]:
    """Of a product quantizer's vectors: rows, lists, terms, squares of the lengths they are made of, what is stored.

    Looking each codeword's product up takes a sixth of the time of putting the codewords together.
    """
    pq, lanes = quantizers.pq, lists.lanes
    codebooks = pq.codebooks.astype(np.float64)  # type: ignore[union-attr]
    g = quantizers.coarse.shifted().astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        longest = np.sqrt(np.vecdot(codebooks, codebooks).max(axis=1).sum())
        reach = (np.sqrt(np.vecdot(g, g)) + longest) ** 2
    held = whole_blocks(lists.sizes, lanes) // lanes
    together = max(1, PRODUCTS // (pq.M * pq.ksub))
    for first in range(0, len(lists.sizes), together):
        with np.errstate(over="ignore", invalid="ignore"):
            products = list(quantizers.list_products(slice(first, first + together)))
        number = np.repeat(np.arange(first, first + len(products[0])), held[first : first + together])
        start = lists.starts[first] // lanes
        for block in range(0, len(number), BLOCKS):
            its = number[block : block + BLOCKS, None]
            blocks = lists.blocks[start + block : start + block + len(its)]
            rows = (start + block) * lanes + np.arange(len(its) * lanes).reshape(-1, lanes)
            used = rows < (lists.starts + lists.sizes)[its]
            term = np.zeros(rows.shape)
            for m, table in enumerate(products):
                term += table.take((its - first) * pq.ksub + blocks[:, m])
            its = np.broadcast_to(its, rows.shape)[used]
            yield rows[used], its, term[used], reach[its], blocks[:, pq.M][used].astype(np.int64)


def _terms_of_sums(quantizers: Quantizers, lists: Lists) -> Iterator[tuple[Ids, Ids, Doubles, Doubles, Any]]:
    """The same of a residual quantizer's vectors, whose terms are no sums over codewords."""
    M, size = quantizers.pq.M, max(1, SMALL_BLOCK // quantizers.pq.d)
    rows, numbers = lists.rows(), lists.list_numbers()
    for start in range(0, len(rows), size):
        stored, number = lists.codes(rows[start : start + size]), numbers[start : start + size]
        term, reach = _of_sums(quantizers, number, stored[:, :M])
        yield rows[start : start + size], number, term, reach, stored[:, M].astype(np.int64) * 256 + stored[:, M + 1]


def _whole_terms(quantizers: Quantizers, lists: Lists) -> Iterator[tuple[Ids, Doubles, Doubles, Any]]:
    """Of a scalar quantizer's vectors: rows, terms, squares of the lengths they are made of, what is stored."""
    M, size = quantizers.pq.M, max(1, SMALL_BLOCK // quantizers.pq.d)
    rows, numbers = lists.rows(), lists.list_numbers()
    for start in range(0, len(rows), size):
        stored = lists.codes(rows[start : start + size])
        told = np.ascontiguousarray(stored[:, M:]).view("<f4")[:, 0].astype(np.float64)
        yield rows[start : start + size], *_of_sums(quantizers, numbers[start : start + size], stored[:, :M]), told


def _of_sums(quantizers: Quantizers, number: Ids, codes: Any) -> tuple[Doubles, Doubles]:
    """|y|^2 + 2 <g_l, y> of codes (n, M) in the given lists, and (|g_l| + |y|)^2."""
    with np.errstate(over="ignore", invalid="ignore"):
        g = quantizers.coarse.shifted(number).astype(np.float64)
        y = quantizers.pq.decode(codes).astype(np.float64)
        return np.vecdot(2 * g + y, y), (np.sqrt(np.vecdot(g, g)) + np.sqrt(np.vecdot(y, y))) ** 2
