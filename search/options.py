"""How a search is to be done: one object, handed from the page or the command line down to the index."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from search.errors import EngineError

NEIGHBOURHOOD = 0.5
"""Where nobody says otherwise: both similarities count the same (docs/PICTURES.md)."""


@dataclass(frozen=True)
class SearchOptions:
    """How a search is to be done.

    Attributes
    ----------
    engine : str
        One of `SearchEngine.engines`: "ivfpq" (ours), "faiss" (the same method in C++), "exact" (compares with every
        vector), or another backend that the collection has an index of.
    k : int
        Most hits wanted; fewer come back where the probed lists hold fewer. With a filter a search looks on, into more
        lists, until it has k, or all that the filter lets through.
    nprobe : int or None
        Inverted lists to visit, 1 to `SearchEngine.nlist`; None for the index's own number.
    rerank : bool
        Take the `RERANK_FACTOR` * k best by the index's codes and rank them again by the stored vectors, exactly.
    cutoff : float or None
        Leave out hits whose score is worse: a smaller similarity, or a larger distance.
    neighbourhood : float
        From 0 to 1, how much the kind of thing that a picture is of counts in the order of hits, beside how alike two
        pictures look: see `search.neighbour_order`. A query of one picture knows it, and one of pictures and words
        (`search.mixed_order`), in a collection that has the space `neighbourhood`; elsewhere, and with 0, the order is
        that of the similarity alone.
    fusion : str
        Whether the "scores" or the "ranks" of several parts of a query are combined; see `search.fusion`.

    Raises
    ------
    EngineError
        If k or nprobe is no whole number of at least 1, or the cutoff no number, or the neighbourhood none from 0 to 1,
        or there is no such fusion.
    """

    engine: str = "ivfpq"
    k: int = 10
    nprobe: int | None = None
    rerank: bool = True
    cutoff: float | None = None
    neighbourhood: float = NEIGHBOURHOOD
    fusion: Literal["scores", "ranks"] = "scores"

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("nprobe", 1 if self.nprobe is None else self.nprobe)):
            if not isinstance(value, Integral) or value < 1:
                raise EngineError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.cutoff is not None and not (isinstance(self.cutoff, Real) and self.cutoff == self.cutoff):
            raise EngineError(f"cutoff must be a number, got {self.cutoff!r}")
        weight = self.neighbourhood
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight <= 1:
            raise EngineError(f"neighbourhood must be a number from 0 to 1, got {weight!r}")
        if self.fusion not in ("scores", "ranks"):
            raise EngineError(f"fusion combines scores or ranks, got {self.fusion!r}")
