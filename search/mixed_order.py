"""What neighbours add where pictures and words are searched together.

The query takes in the ten pictures that fit all of its parts best, each by its fused score s_j, the best being s_1:

    f = unit(a + sum_j s_j / s_1 e_j)

a is the mean of the query's pictures on the components of `neighbourhood`, e_j a stored vector of that space. So the
words say which of the neighbours of a picture tell what is meant. Of what a picture adds to the score of a hit the part
w is then the similarity of neighbourhoods, standardised as all scores are, as in the order of a picture alone
(`neighbour_order`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ivfpq.distances import normalised
from search import fusion
from search.neighbour_order import NeighbourOrder
from search.neighbourhood import NEIGHBOURS

Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.int64]


class Wanted(NamedTuple):
    """Pictures of a query.

    Attributes
    ----------
    rows : int64 (q,)
        Which of the parts they are.
    vectors : float32 (q, dim)
    weights : float64 (q,)
        Larger than 0.
    """

    rows: Ids
    vectors: NDArray[np.float32]
    weights: NDArray[np.float64]


class Fitting(NamedTuple):
    """Pictures of a collection.

    Attributes
    ----------
    ids : int64 (n,)
    totals : float64 (n,)
        How well they fit all parts of a query; larger is better.
    """

    ids: Ids
    totals: Floats


def with_neighbours(
    order: NeighbourOrder, wanted: Wanted, fitting: Fitting, ids: Ids, portions: Floats, weight: float
) -> Floats:
    """What each part adds to the score of each candidate, once neighbours count.

    Parameters
    ----------
    fitting : Fitting
        Among which the ten are, the query's own pictures left out, whatever a filter lets through.
    ids : int64 (n,)
        The candidates.
    portions : float64 (p, n)
        As `fusion.shares` gives them for weights whose sizes sum to 1.
    weight : float
        Of the neighbourhoods, from 0 to 1.
    """
    best = np.lexsort((fitting.ids, -fitting.totals))[:NEIGHBOURS]
    best = best[fitting.totals[best] > 0]
    taken_in = fitting.totals[best] / fitting.totals[best[:1]]
    own = wanted.weights / wanted.weights.sum() @ order.on_components(wanted.vectors)
    expanded = normalised((own + taken_in @ order.space.rows(fitting.ids[best]))[None].astype(np.float32))[0]
    sample = fusion.sample_of(order.space.ids)
    near, usual = order.nearness(ids, expanded), order.nearness(sample, expanded)
    standard = fusion.shares(near[None], usual[None], np.ones(1))
    mixed = portions.copy()
    mixed[wanted.rows] = (1 - weight) * portions[wanted.rows] + weight * wanted.weights[:, None] * standard
    return mixed
