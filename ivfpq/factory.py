"""index_factory: an index from its description, in faiss's grammar."""

from __future__ import annotations

import re

from ivfpq.checks import Metric
from ivfpq.flat import IndexFlat
from ivfpq.index import IndexIVFPQ

Index = IndexFlat | IndexIVFPQ

_GRAMMAR = "Flat, or IVFn,PQm or IVFn,PQmxb (n lists, m numbers of b bits a code, 8 if not said), e.g. IVF100,PQ8"
_IVF = re.compile(r"IVF(\d+)")
_PQ = re.compile(r"PQ(\d+)(?:x(\d+))?")


def index_factory(d: int, spec: str, *, metric: Metric = "l2", seed: int = 0) -> Index:
    """An empty index.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    spec : str
        Parts with commas between them: "Flat", "IVF100,PQ8", "IVF1024,PQ16x4".
    metric : {"l2", "ip", "cosine"}
    seed : int
        Of the training, where there is one.

    Raises
    ------
    ValueError
        If `spec` is not understood; the message gives the grammar.
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec must be a string, got {spec!r}")
    match [part.strip() for part in spec.split(",")]:
        case ["Flat"]:
            return IndexFlat(d, metric=metric)
        case [cells, codec] if (ivf := _IVF.fullmatch(cells)) and (pq := _PQ.fullmatch(codec)):
            return IndexIVFPQ(d, int(ivf[1]), int(pq[1]), int(pq[2] or 8), metric=metric, seed=seed)
    raise ValueError(f"cannot read the index description {spec!r}; known are: {_GRAMMAR}")
