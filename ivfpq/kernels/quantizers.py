"""What kernels need to know of a trained index, and the number that a stored vector carries beside its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ivfpq import kernels
from ivfpq.assign import finder
from ivfpq.checks import Doubles, Floats, Ids, Metric
from ivfpq.distances import SMALL_BLOCK
from ivfpq.pq import Codes, ProductQuantizer, Quantizer
from ivfpq.screening import Points
from ivfpq.threads import spread

Compiled = TypeVar("Compiled")

TERM_BYTES = 4  # of a term as it is, float32, behind a code of bytes in a row of its own
KEPT = 1 << 24  # bytes of centroids whose copy for finding the nearest is kept
TOP = 255  # a row of terms holds steps of 1 / 255, two hold steps of 1 / 65535, of what terms range over


def term_rows(pq: Quantizer, nlist: int, metric: Metric) -> int:
    """How many numbers behind a code hold the vector's term (see `Quantizers`)."""
    if metric == "ip":
        return 0
    if pq.in_rows:
        return TERM_BYTES
    if isinstance(pq, ProductQuantizer):
        return int(nlist > 1)  # a single list is its own centre, so its terms are 0
    return 2


def whole_terms(pq: Quantizer, codes: Codes, g: npt.NDArray[Any], y: npt.NDArray[Any]) -> Doubles:
    """|y_i|^2 + 2 <g_l, y_i> of codes (n, M) that decode to y (n, d), the first as the code keeps it if it does."""
    if pq.keeps_lengths:
        terms: Doubles = np.vecdot(2.0 * g, y) + pq.squared_lengths(codes)
    else:
        terms = np.vecdot(2 * g + y, y)
    return terms


def coarse_rows(centroids: Floats, metric: Metric) -> Points:
    """Centroids as `screening` wants them, for l2 around their mean."""
    return Points.of(centroids, None if metric == "ip" else centroids.mean(axis=0))


class Quantizers:
    """The quantizers of a trained index.

    With a = x - centre and g_l = c_l - centre, what `reference` defines for l2 is, but for roundings,

        |x - c_l - y_i|^2  =  |x - c_l|^2  +  sum over m of (|y_m|^2 - 2 <a_m, y_m>)  +  2 <g_l, y_i>

    (faiss calls these terms 1 to 3). The second part asks for one table a query, whatever the list, and the third, the
    *term* t_i, does not depend on the query: it is computed once, when the vector is stored. One byte holds it roughly,

        low_l + step_l * u_i  <=  t_i  <  low_l + step_l * (u_i + 1),       u_i = 0, ..., 255

    where low_l and step_l follow from the quantizers alone, so that adding never changes what is stored already. The
    byte stands behind the M numbers of the code.

    A residual quantizer's y_i = w_1[j_1] + ... + w_M[j_M] is a sum of whole vectors, so its |y_i|^2 is no sum over m:

        |x - c_l - y_i|^2  =  |x - c_l|^2  +  sum over m of -2 <a, w_m[j_m]>  +  (|y_i|^2 + 2 <g_l, y_i>)

    That term is |g_l + y_i|^2 - |g_l|^2, so that low_l = -|g_l|^2, and the range is wide: (|g_l| + W)^2, W being the
    sum over m of the longest |w_m|. So it takes two bytes, the second of which counts in steps of step_l / 256.

    A scalar quantizer's codes take a byte a component, beside which the four bytes of a float32 are few: they hold
    |y_i|^2 + 2 <g_l, y_i> itself. So do those behind the code of RaBitQ, whose |y_i|^2 is that of the vector: see
    `rabitq`.

    Parameters
    ----------
    coarse : Points
        The centroids, as `coarse_rows` makes them.
    pq : Quantizer
        Trained.
    metric : str

    Attributes
    ----------
    space : {"l2", "ip"}
        How lists and codewords are chosen.
    compiled : object
        What compiled kernels have made of them, kept here; None before.
    """

    __slots__ = ("_finders", "_terms", "coarse", "compiled", "metric", "pq", "space")

    def __init__(self, coarse: Points, pq: Quantizer, metric: Metric) -> None:
        self.coarse = coarse
        self.pq = pq
        self.metric: Metric = metric
        self.space: Metric = "ip" if metric == "ip" else "l2"
        self._terms: tuple[Doubles, Doubles] | None = None
        self.compiled: Any = None
        self._finders: tuple[str, Callable[[Floats], Ids], Callable[[Floats], Codes]] | None = None

    @property
    def term_rows(self) -> int:
        """How many numbers behind a code hold the vector's term: 0, 1, 2 or TERM_BYTES."""
        return term_rows(self.pq, len(self.coarse.y), self.metric)

    def terms(self) -> tuple[Doubles, Doubles]:
        """low and step of each list, float64 (nlist,), of which terms are steps; zeros where they are not.

        Computed anew elsewhere they may differ in the last place, which the kernels' error bound covers.
        """
        if self._terms is None:
            codebooks = self.pq.codebooks.astype(np.float64)  # type: ignore[union-attr]
            g = self.coarse.shifted().astype(np.float64)
            low, high = np.zeros(len(g)), np.zeros(len(g))
            if self.term_rows == 1:
                for first in range(0, len(g), 64):  # at a time, so that the products stay in the cache
                    its = slice(first, first + 64)
                    for part, words in zip(np.split(2 * g[its], self.pq.M, axis=1), codebooks, strict=True):
                        products = part @ words.T
                        low[its] += products.min(axis=1)
                        high[its] += products.max(axis=1)
            elif self.term_rows == 2:
                length = np.sqrt(np.vecdot(g, g))
                longest = np.sqrt(np.vecdot(codebooks, codebooks).max(axis=1)).sum() * (1 + 1e-6)  # y_i is rounded
                low, high = -(length**2), (length + longest) ** 2 - length**2
            self._terms = low, np.maximum((high - low) / TOP, 1e-30 * (self.term_rows in (1, 2)))
        return self._terms

    def compiled_by(self, make: Callable[[Quantizers], Compiled]) -> Compiled:
        """What compiled kernels make of them, made when it is first asked for."""
        if self.compiled is None:
            self.compiled = make(self)  # two threads may both make it, which costs time only
        compiled: Compiled = self.compiled
        return compiled

    def finders(self) -> tuple[Callable[[Floats], Ids], Callable[[Floats], Codes]]:
        """Vectors (n, d) -> the list of each (n, 1), and residuals (n, d) -> codes (n, M), by the active kernel.

        They are kept, for small adds; large ones copy little beside what they store.
        """
        kernel, known = kernels.active(), self._finders
        if known is None or known[0] != kernel:
            known = kernel, finder([self.coarse], self.space), self.pq.encoder()
            if self.coarse.y.nbytes <= KEPT:
                self._finders = known
        return known[1:]

    def with_terms(self, list_numbers: Ids, codes: Codes) -> npt.NDArray[Any]:
        """Codes (n, M) of vectors in the given lists as these hold them, each followed by its term if it has one."""
        rows, width = self.term_rows, self.pq.code_rows
        if not rows:
            return self.pq.to_rows(codes)
        low, step = self.terms()
        stored = np.empty((len(codes), width + rows), codes.dtype)
        stored[:, :width] = self.pq.to_rows(codes)
        size = max(1, SMALL_BLOCK // self.pq.d)

        def work(first: int, last: int) -> None:
            for start in range(first, last, size):
                part = slice(start, min(start + size, last))
                number = list_numbers[part]
                with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 the kernels do not trust the term
                    g, y = self.coarse.shifted(number), self.pq.decode(codes[part])
                    if rows == 1:
                        steps = (2 * np.vecdot(g, y) - low[number]) / step[number]
                        stored[part, width] = np.clip(np.nan_to_num(np.floor(steps)), 0, TOP)
                        continue
                    y = y.astype(np.float64)
                    if rows == TERM_BYTES:
                        term = whole_terms(self.pq, codes[part], g, y).astype("<f4")
                        stored[part, width:] = term[:, None].view(np.uint8)
                        continue
                    steps = (np.vecdot(2 * g + y, y) - low[number]) / step[number] * 256
                    whole = np.clip(np.nan_to_num(np.floor(steps)), 0, 256 * TOP + 255).astype(np.int64)
                    stored[part, width], stored[part, width + 1] = whole >> 8, whole & 255

        spread(work, len(codes), len(codes) // 16 // size)
        return stored
