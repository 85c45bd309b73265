"""Whether the terms beside stored codes are theirs: kernels that trust a wrong one would answer differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Doubles, Floats, Ids
from ivfpq.distances import SMALL_BLOCK
from ivfpq.kernels.quantizers import TERM_BYTES, TOP, Quantizers, whole_terms
from ivfpq.list_layout import Lists, ranges, whole_blocks
from ivfpq.threads import spread

_Terms = tuple[Ids, Ids, Doubles, Doubles, npt.NDArray[Any]]

LISTS = 32  # whose tables are made together: at 8 x 256 codewords they take 256 KiB
BLOCKS = 64  # of codes looked at together
SMALLEST = 2.0**-149  # float32 above 0: what terms below it are rounded to, or 0
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
                slack = 4 * 2.0**-24 * reach + SMALLEST
                # Not "> slack": what is stored may be no number.
                wrong = ~(np.abs(told - term) <= slack) & (reach < TRUSTED)
            if wrong.any():
                raise ValueError(f"the term of the vector in row {rows[wrong][0]} is not that of its code")
        return
    low, step = quantizers.terms()
    units = 256 if quantizers.term_rows == 2 else 1
    top = units * TOP + units - 1
    of_terms = _terms_of_parts if units == 1 else _terms_of_sums

    def work(first: int, last: int) -> int | None:
        for rows, number, term, reach, told in of_terms(quantizers, lists, first, last):
            with np.errstate(over="ignore", invalid="ignore"):
                slack = quantizers.pq.d * 2.0**-24 * reach
                least = low[number] + told * (step[number] / units)
                wrong = (term < least - slack) & (told > 0)
                wrong |= (term > least + (step[number] / units + slack)) & (told < top)
            wrong &= rows < (lists.starts + lists.sizes)[number]  # what a last block has to spare means nothing
            wrong &= reach < TRUSTED
            if wrong.any():
                return int(rows[wrong][0])
        return None

    for row in spread(work, len(lists.sizes), lists.ntotal >> 16):
        if row is not None:
            raise ValueError(f"the term of the vector in row {row} is not that of its code")


def _terms_of_parts(quantizers: Quantizers, lists: Lists, first: int, last: int) -> Iterator[_Terms]:
    """Of a product quantizer's vectors, in blocks: rows, lists, terms, squares of their reaches, what is stored.

    Looking each codeword's product up takes a tenth of the time of putting the codewords together.
    """
    pq, lanes = quantizers.pq, lists.lanes
    codebooks: Floats = pq.codebooks  # type: ignore[assignment]
    with np.errstate(over="ignore", invalid="ignore"):
        longest = np.sqrt(np.vecdot(codebooks, codebooks, dtype=np.float64).max(axis=1).sum())
    held = whole_blocks(lists.sizes, lanes) // lanes
    for start in range(first, last, LISTS):
        its = slice(start, min(start + LISTS, last))
        with np.errstate(over="ignore", invalid="ignore"):
            g = quantizers.coarse.shifted(its)
            reach = (np.sqrt(np.vecdot(g, g, dtype=np.float64)) + longest) ** 2
            parts = g.reshape(len(g), pq.M, -1).transpose(1, 0, 2)
            tables = (2 * parts @ codebooks.transpose(0, 2, 1)).astype(np.float64)
        firsts = np.arange(pq.M)[:, None] * (len(g) * pq.ksub)
        numbers = np.repeat(np.arange(len(g)), held[its])[:, None]
        begun = lists.starts[start] // lanes
        for block in range(0, len(numbers), BLOCKS):
            number = numbers[block : block + BLOCKS]
            blocks = lists.blocks[begun + block : begun + block + len(number)]
            rows = (begun + block) * lanes + np.arange(len(number) * lanes).reshape(-1, lanes)
            places = pq.from_rows(blocks).astype(np.intp)
            places += firsts + (number * pq.ksub)[:, None]
            yield rows, number + start, tables.take(places).sum(axis=1), reach[number], blocks[:, pq.code_rows]


def _terms_of_sums(quantizers: Quantizers, lists: Lists, first: int, last: int) -> Iterator[_Terms]:
    """The same of a residual quantizer's vectors, whose terms are no sums over codewords."""
    pq, width, size = quantizers.pq, quantizers.pq.code_rows, max(1, SMALL_BLOCK // quantizers.pq.d)
    rows = ranges(lists.starts[first:last], lists.sizes[first:last])
    numbers = np.repeat(np.arange(first, last), lists.sizes[first:last])
    for start in range(0, len(rows), size):
        stored, number = lists.codes(rows[start : start + size]), numbers[start : start + size]
        term, reach = _of_sums(quantizers, number, pq.from_rows(stored))
        told = stored[:, width].astype(np.int64) * 256 + stored[:, width + 1]
        yield rows[start : start + size], number, term, reach, told


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
        reach = (np.sqrt(np.vecdot(g, g)) + np.sqrt(np.vecdot(y, y))) ** 2
        if quantizers.pq.keeps_lengths:
            reach += quantizers.pq.squared_lengths(codes)
        return whole_terms(quantizers.pq, codes, g, y), reach
