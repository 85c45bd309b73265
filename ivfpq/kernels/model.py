"""What kernels need to know of a trained index, and the one number a stored vector carries beside its code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Floats, Ids, Metric
from ivfpq.distances import SMALL_BLOCK, Doubles, Rows
from ivfpq.pq import Codes, ProductQuantizer, Quantizer
from ivfpq.threads import spread

TOP = 255  # terms are kept in steps of 1 / 255 of what they range over


def has_terms(pq: Quantizer, nlist: int, metric: Metric) -> bool:
    """Whether stored vectors have terms (see `Model`). A single list is its own centre, so its terms are 0."""
    return isinstance(pq, ProductQuantizer) and metric != "ip" and nlist > 1


def coarse_rows(centroids: Floats, metric: Metric) -> Rows:
    """Centroids as `distances` wants them, for l2 around their mean."""
    return Rows.of(centroids, None if metric == "ip" else centroids.mean(axis=0))


class Model:
    """The quantizers of a trained index.

    With a = x - centre and g_l = c_l - centre, what `reference` defines for l2 is, but for roundings,

        |x - c_l - y_i|^2  =  |x - c_l|^2  +  sum over m of (|y_m|^2 - 2 <a_m, y_m>)  +  2 <g_l, y_i>

    (faiss calls these terms 1 to 3). The second part asks for one table a query, whatever the list, and the third, the
    *term* t_i, does not depend on the query: it is computed once, when the vector is stored. One byte holds it roughly,

        low_l + step_l * u_i  <=  t_i  <  low_l + step_l * (u_i + 1),       u_i = 0, ..., 255

    where low_l and step_l follow from the quantizers alone, so that adding never changes what is stored already. The
    byte stands behind the M numbers of the code.

    Parameters
    ----------
    coarse : Rows
        The centroids, as `coarse_rows` makes them.
    pq : Quantizer
        Trained; only those of a product quantizer have terms.
    metric : str

    Attributes
    ----------
    space : {"l2", "ip"}
        How lists and codewords are chosen.
    ready : object
        What compiled kernels have made of the model, kept here; None before.
    """

    __slots__ = ("_terms", "coarse", "metric", "pq", "ready", "space")

    def __init__(self, coarse: Rows, pq: Quantizer, metric: Metric) -> None:
        self.coarse = coarse
        self.pq = pq
        self.metric: Metric = metric
        self.space: Metric = "ip" if metric == "ip" else "l2"
        self._terms: tuple[Doubles, Doubles] | None = None
        self.ready: Any = None

    @property
    def has_terms(self) -> bool:
        """Whether stored vectors have terms."""
        return has_terms(self.pq, len(self.coarse.y), self.metric)

    def terms(self) -> tuple[Doubles, Doubles]:
        """low and step of each list, float64 (nlist,); zeros where there are no terms.

        Computed anew elsewhere they may differ in the last place, which the kernels' error bound covers.
        """
        if self._terms is None:
            codebooks: Floats = self.pq.codebooks  # type: ignore[assignment]
            low, high = np.zeros(len(self.coarse.y)), np.zeros(len(self.coarse.y))
            if self.has_terms:
                for m, part in enumerate(np.split(self.coarse.shifted().astype(np.float64), self.pq.M, axis=1)):
                    products = 2 * part @ codebooks[m].T.astype(np.float64)
                    low += products.min(axis=1)
                    high += products.max(axis=1)
            self._terms = low, np.maximum((high - low) / TOP, 1e-30 * self.has_terms)
        return self._terms

    def with_terms(self, list_numbers: Ids, codes: Codes) -> npt.NDArray[Any]:
        """Codes (n, M) of vectors in the given lists, each followed by its term if it has one."""
        if not self.has_terms:
            return codes
        low, step = self.terms()
        stored = np.empty((len(codes), self.pq.M + 1), codes.dtype)
        stored[:, :-1] = codes
        size = max(1, SMALL_BLOCK // self.pq.d)

        def work(first: int, last: int) -> None:
            for start in range(first, last, size):
                part = slice(start, min(start + size, last))
                number = list_numbers[part]
                with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 the kernels do not trust the term
                    term = 2 * np.vecdot(self.coarse.shifted(number), self.pq.decode(codes[part]))
                    steps = np.floor((term - low[number]) / step[number])
                stored[part, -1] = np.clip(np.nan_to_num(steps), 0, TOP)

        spread(work, len(codes), len(codes) // 16 // size)
        return stored
