"""Hits that are one picture or nearly so, of which all but the best can be folded away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ivfpq.distances import normalised

ALIKE = 0.93
"""Cosine from which on pictures are taken for nearly the same: copies in another size, format or brightness."""


def behind(vectors: NDArray[np.float32], alike: float = ALIKE) -> NDArray[np.int64]:
    """Of each hit the place of the one that it is folded behind; its own where it stays.

    Parameters
    ----------
    vectors : float32 (n, dim)
        As they are stored, best hit first.
    alike : float
        Least cosine to the hit that stays.

    Returns
    -------
    int64 (n,)
        No larger than the place itself: a hit is folded behind the first that stays and is so like it.
    """
    unit = normalised(vectors)
    is_alike = unit @ unit.T >= alike
    places = np.arange(len(unit))
    for place in places:
        before = np.flatnonzero(is_alike[place, :place] & (places[:place] == np.arange(place)))
        if before.size:
            places[place] = before[0]
    return places
