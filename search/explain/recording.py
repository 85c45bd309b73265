"""A search, written down number by number: what `ivfpq` computes for one query, for a page that shows it.

Distances are those of the cells: squared, and of vectors of length 1 where the metric is cosine. Nothing here is an
estimate of what a search does: the tables are those of `kernels.reference`, and the screening is that of
`kernels.avx2`, by the formulas that stand above its functions, with the limit that a search ends with.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivfpq import IndexIVFPQ
from ivfpq.distances import normalised, ordered_sum
from ivfpq.kernels.quantizers import Quantizers, coarse_rows
from ivfpq.pq import ProductQuantizer
from search.errors import EngineError

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

GROUP = 16  # codewords that share one entry of the screening table: numbers j with the same j % 16
MOST_STEPS, FEWEST_STEPS = 253.0, 126.0  # as `kernels.avx2` has them
TERM_UNITS = 256


class UnexplainableError(EngineError):
    """An index whose searches the page has no pictures for."""


@dataclass(frozen=True)
class Screening:
    """The first look at codes, when the k-th smallest distance is known.

    Attributes
    ----------
    limit : float
        The k-th smallest distance among the scanned codes.
    bounds : float array (n,)
        What the distance of each scanned code cannot be below.
    survives : bool array (n,)
        Whether the first look lets it pass.
    """

    limit: float
    bounds: NDArray[np.float64]
    survives: NDArray[np.bool_]


class CellSearch:
    """One query against the cells of an index.

    Parameters
    ----------
    cells : IndexIVFPQ
        For l2 or cosine, of product-quantized residuals.
    query : float32 array (d,)
        As the cells are asked for it.

    Raises
    ------
    UnexplainableError
        If the cells are compared in another way.
    """

    def __init__(self, cells: IndexIVFPQ, query: Floats) -> None:
        if not self.can_follow(cells):
            raise UnexplainableError(
                "the page explains inverted lists of product-quantized residuals, compared by distance or cosine; "
                f"this is {cells!r}"
            )
        self.cells = cells
        self.query: Floats = normalised(query[None])[0] if cells.metric == "cosine" else query
        self.order: Ids = cells.probe(query[None], cells.nlist).ids[0]
        self.to_centroids = np.square(cells.centroids - self.query).sum(axis=1)  # type: ignore[operator]

    @staticmethod
    def can_follow(cells: IndexIVFPQ) -> bool:
        """Whether these cells are compared as the page shows it."""
        return isinstance(cells.pq, ProductQuantizer) and cells.metric != "ip" and cells.is_trained

    def table(self, number: int) -> Floats:
        """What each codeword of each part costs in a list: T[m, j] = |(q - c)_m - y_m[j]|^2, float32 (M, ksub)."""
        pq = self.cells.pq
        residual = (self.query - self.cells.centroids[number]).reshape(pq.M, 1, pq.dsub)  # type: ignore[index]
        parts: Floats = ordered_sum(np.square(residual - pq.codebooks))
        return parts

    def distances(self, ids: Ids) -> tuple[Floats, Floats]:
        """The M look-ups of each stored vector, float32 (n, M), and their sums, added in this order, (n,)."""
        numbers, codes = self.cells.codes_of(ids)
        parts = np.empty((len(ids), self.cells.M), np.float32)
        for number in np.unique(numbers):
            inside = numbers == number
            parts[inside] = self.table(int(number))[np.arange(self.cells.M), codes[inside]]
        total = np.zeros(len(ids), np.float32)
        for m in range(parts.shape[1]):
            total = total + parts[:, m]
        return parts, total

    def scanned(self, nprobe: int) -> Ids:
        """The vectors in the nearest lists, list after list, as they are met."""
        lists = self.cells.lists.view
        return np.concatenate([np.empty(0, np.int64), *(lists.list_ids(int(n)) for n in self.order[:nprobe])])

    def nearest_list(self, own_id: int | None = None) -> tuple[int, Ids]:
        """The place in `order` of the first list that holds a vector other than `own_id`, and those that it holds.

        Raises
        ------
        UnexplainableError
            If no list holds one.
        """
        lists = self.cells.lists.view
        for place, number in enumerate(self.order.tolist()):
            ids = lists.list_ids(number)
            if len(others := ids[ids != own_id]):
                return place, others
        raise UnexplainableError("the page explains how pictures are compared with a query; there is none to compare")

    def minima(self) -> Floats:
        """The smallest entry of each group of codewords in the one table that serves all lists, float32 (M, 16).

        That table is |y_m|^2 - 2 <a_m, y_m>: what `table` says of a codeword, less what depends on the list, which is
        added to a whole list at once (see `kernels.bounds`).
        """
        trained, pq = self._quantizers(), self.cells.pq
        books: Floats = pq.codebooks  # type: ignore[assignment]
        a = (self.query - np.asarray(trained.coarse.centre)).reshape(pq.M, 1, pq.dsub)
        table = np.square(books).sum(axis=2) - 2 * (a * books).sum(axis=2)
        groups = min(GROUP, pq.ksub)
        minima: Floats = table.reshape(pq.M, -1, groups).min(axis=1)
        return minima

    def screening(self, ids: Ids, k: int) -> Screening:
        """The first look at some vectors when their k-th smallest distance is known."""
        distances = self.distances(ids)[1].astype(np.float64)
        limit = float(np.sort(distances)[min(k, len(ids)) - 1])
        numbers, codes = self.cells.codes_of(ids)
        low_terms, term_steps, terms = self._terms(numbers, codes)
        minima = self.minima()
        low = float(minima.min(axis=1).astype(np.float64).sum())
        above = minima - minima.min(axis=1, keepdims=True)
        step, steps = 0.0, np.zeros(above.shape, np.uint8)
        bounds, survives = np.empty(len(ids)), np.empty(len(ids), np.bool_)
        slack = 1e-6 * (limit + float(self.to_centroids.max()))  # for the roundings of the sums below
        for number in dict.fromkeys(numbers.tolist()):
            inside = numbers == number
            offset = float(self.to_centroids[number]) + low + low_terms[number] - slack
            room = limit - offset
            if room >= 0 and not (step * FEWEST_STEPS < room <= step * MOST_STEPS):
                step = max(room / MOST_STEPS, 1e-30)
                steps = np.minimum(above / np.float32(step), 255).astype(np.uint8)
            scale = min(term_steps[number] / step * TERM_UNITS, 65535) if step else 0
            sums = steps[np.arange(above.shape[0]), codes[inside] % above.shape[1]].sum(axis=1, dtype=np.int64)
            sums = np.minimum(sums + (terms[inside] * int(scale) // TERM_UNITS), 255)
            bounds[inside] = offset + step * sums
            survives[inside] = (room >= 0) & (sums <= int(room / step) + 1) if room >= 0 else False
        return Screening(limit, bounds, survives)

    def _quantizers(self) -> Quantizers:
        cells = self.cells
        return Quantizers(coarse_rows(cells.centroids, "l2"), cells.pq, "l2")  # type: ignore[arg-type]

    def _terms(self, numbers: Ids, codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """low and step of each list's terms, and the byte that each stored vector keeps of its own."""
        trained = self._quantizers()
        low, step = trained.terms()
        if not trained.term_rows:
            return low, step, np.zeros(len(numbers), np.int64)
        return low, step, trained.with_terms(numbers, codes)[:, -1].astype(np.int64)


def exact(values: Any) -> Any:
    """float32 as the shortest decimals that read back as the same float32."""
    if np.ndim(values):
        return [exact(value) for value in np.asarray(values, np.float32)]
    return float(str(np.float32(values)))


def packed(array: NDArray[Any]) -> str:
    """The bytes of an array, little-endian, as base64."""
    return base64.b64encode(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def unpacked(text: str, dtype: Any, shape: tuple[int, ...] = (-1,)) -> NDArray[Any]:
    """What `packed` was given."""
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)


def packed_steps(array: NDArray[Any]) -> dict[str, Any]:
    """Numbers to four digits in two bytes each: `low + step * data`, of which `data` is uint16."""
    low = float(array.min(initial=np.inf)) if array.size else 0.0
    step = float(np.float32((float(array.max()) - low) / 65535)) if array.size else 0.0
    data = np.zeros(array.shape) if step == 0 else np.clip(np.floor((array - low) / step), 0, 65535)
    return {"low": low, "step": step, "data": packed(data.astype(np.uint16))}


def recorded_query(
    search: CellSearch,
    true_distances: Callable[[Ids], tuple[Floats, Floats]],
    *,
    nprobe: int,
    k: int,
    rows: int = 10,
    own_id: int | None = None,
) -> dict[str, Any]:
    """What the page shows of one query.

    Parameters
    ----------
    true_distances : function
        From ids to the squared distances of the vectors as the cells were given them, and of the whole vectors.
    nprobe : int
        Lists looked into.
    k : int
        The screening is written down for 1 to k neighbours.
    rows : int
        Vectors of the nearest list that is not empty, the nearest first, whose look-ups are written down.
    own_id : int, optional
        The query's own, which is left out.
    """
    cells = search.cells
    place, near = search.nearest_list(own_id)
    first = int(search.order[place])
    nearest = near[np.lexsort((near, search.distances(near)[1]))[:rows]]
    parts, sums = search.distances(nearest)
    codes, (kept, true) = cells.codes_of(nearest)[1], true_distances(nearest)
    scanned = search.scanned(max(nprobe, place + 1))  # there is nothing to screen in empty lists
    scanned = scanned[scanned != own_id]
    looks = [search.screening(scanned, n) for n in range(1, min(k, len(scanned)) + 1)]
    minima = search.minima()
    return {
        "order": search.order.tolist(),
        "to_centroids": exact(search.to_centroids[search.order]),
        "lookup": {
            "list": first,
            "table": packed_steps(search.table(first)),
            "rows": [
                {
                    "id": int(id),
                    "code": codes[i].tolist(),
                    "parts": exact(parts[i]),
                    "sum": exact(sums[i]),
                    "kept": exact(kept[i]),
                    "true": exact(true[i]),
                }
                for i, id in enumerate(nearest)
            ],
        },
        "screening": {
            "ids": scanned.tolist(),
            "sums": exact(search.distances(scanned)[1]),
            "minima": packed_steps(minima - minima.min(axis=1, keepdims=True)),
            "looks": [
                {
                    "limit": exact(look.limit),
                    "bounds": packed_steps(look.bounds),
                    "survives": "".join("01"[int(one)] for one in look.survives),
                }
                for look in looks
            ],
        },
    }
