"""A query: typed, weighted parts. Which part can be asked where is said by the kinds of `spaces`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""An image file, its content, or decoded RGB pixels, uint8 (H, W, 3)."""


@dataclass(frozen=True, eq=False)
class Part:
    """What a query consists of.

    Attributes
    ----------
    space : str or None
        Where it is asked; None for the space that is meant for such parts.
    weight : float
        How much it counts beside the other parts.
    """

    space: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class ImagePart(Part):
    """A picture to find others like it."""

    picture: Picture = b""


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for.

    Attributes
    ----------
    parts : tuple of Part
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, query: Query | Part | Picture) -> Query:
        """A query as it is, or the query of one part or one picture."""
        if isinstance(query, Query):
            return query
        return cls((query if isinstance(query, Part) else ImagePart(picture=query),))
