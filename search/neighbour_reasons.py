"""What neighbours changed in the order of hits: which hit moved from where to where, and whose neighbours did it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.engine import SearchEngine
from search.filters import Filter, FilterLike
from search.neighbour_order import CANDIDATES
from search.neighbourhood import POWER, project
from search.options import SearchOptions

TOLD = 5
"""Neighbours that are named."""


@dataclass(frozen=True)
class NeighbourReason:
    """What neighbours did for a picture in a search.

    Attributes
    ----------
    rank, plain_rank : int or None
        With neighbours and without them; None if it is not among the first that are reordered.
    similarity : float
        Of the neighbourhoods of picture and query: the sum of `own_share` and of all shares of its ten neighbours.
    own_share : float
        What the picture itself has in common with the query and its neighbours.
    shares : tuple of (int, float)
        Ids of the neighbours of the picture that add most to it, and what they add; largest first.
    query_neighbours : tuple of int
        Ids of the nearest of what the query has taken in.
    stands_out : bool
        Whether its lead over the next in similarity counted for it: see `search.neighbour_order`.
    """

    rank: int | None
    plain_rank: int | None
    similarity: float
    own_share: float
    shares: tuple[tuple[int, float], ...]
    query_neighbours: tuple[int, ...]
    stands_out: bool = False

    @property
    def verdict(self) -> str:
        """In a sentence, or two."""
        if self.rank is None or self.plain_rank is None:
            return f"Neighbours reorder the first {CANDIDATES:,} only, and it is not among them."
        moved = "up" if self.rank < self.plain_rank else "down"
        said = f"Neighbours moved it {moved}, from rank {self.plain_rank} to rank {self.rank}."
        if self.rank == self.plain_rank:
            said = f"Neighbours left it at rank {self.rank}."
        return f"{said} That it is well ahead of the next in similarity counted for it." if self.stands_out else said


def explain_neighbours(
    engine: SearchEngine,
    vector: NDArray[np.float32],
    own_id: int | None,
    id: int,
    options: SearchOptions,
    *,
    filter: Filter | FilterLike | None = None,
) -> NeighbourReason | None:
    """What neighbours did for a picture of the collection, found or not; None where they do not count.

    Parameters
    ----------
    vector, own_id
        The query, as `SearchEngine.encode` returns it.
    options, filter
        Of the search; its k and cutoff do not count.
    """
    order = engine.neighbour_order
    if order is None or not options.neighbourhood:
        return None
    all_first = replace(options, k=CANDIDATES, cutoff=None, rerank=False)
    with_them = engine.search_vector(vector, all_first, own_id=own_id, filter=filter)
    plain = engine.search_vector(vector, replace(all_first, neighbourhood=0), own_id=own_id, filter=filter)
    expansion = with_them.expansion
    assert expansion is not None
    listed, store = order.space.beside["neighbours"][id], engine.store
    neighbours = listed[listed >= 0].astype(np.int64)
    points = project(store.features[np.array([id, *neighbours.tolist()])], np.array(order.space.beside["components"]))
    weights = np.maximum(np.asarray(order.space.beside["similarities"][id][listed >= 0], np.float32), 0) ** POWER
    parts = np.concatenate([[1.0], weights])[:, None] * points
    shares = parts @ expansion.vector / max(float(np.linalg.norm(parts.sum(axis=0))), 1e-12)
    most = np.argsort(-shares[1:], kind="stable")[:TOLD]
    return NeighbourReason(
        rank=next((hit.rank for hit in with_them if hit.id == id), None),
        plain_rank=next((hit.rank for hit in plain if hit.id == id), None),
        similarity=float(order.similarities(expansion, np.array([id]))[0]),
        own_share=float(shares[0]),
        shares=tuple((int(neighbours[place]), float(shares[1 + place])) for place in most.tolist()),
        query_neighbours=tuple(expansion.ids[:TOLD].tolist()),
        stands_out=expansion.lead.id == id and expansion.lead.by > 0 and options.neighbourhood < 1,
    )
