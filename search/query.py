"""A query: typed, weighted parts. Which part can be asked where is said by the kinds of `spaces`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.errors import QueryError

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8] | int
"""An image file, its web address, its content, decoded RGB pixels, uint8 (H, W, 3), or the id of a picture of the
collection."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels; right and bottom are outside."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Text without what no file or model can hold, control characters and halves of characters, nor spare spaces."""
    return " ".join(_SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", text)).split())


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a query consists of.

    Attributes
    ----------
    space : str or None
        Where it is asked; None for the space that is meant for such parts.
    weight : float
        How much it counts beside the other parts. What is like a part of negative weight comes last.

    Raises
    ------
    QueryError
        The weight is no finite number.
    """

    space: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Real) or isinstance(self.weight, bool) or not math.isfinite(self.weight):
            raise QueryError(f"the weight of a part must be a finite number, got {self.weight!r}")
        object.__setattr__(self, "weight", float(self.weight))


@dataclass(frozen=True, eq=False)
class ImagePart(Part):
    """A picture to find others like it.

    Attributes
    ----------
    picture : Picture
    crop : Box or None
        The piece of the picture that is meant; all of it if None.
    """

    picture: Picture
    crop: Box | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        picture = self.picture
        if isinstance(picture, bool) or not isinstance(picture, str | os.PathLike | bytes | np.ndarray | Integral):
            raise QueryError(
                f"a query is a path, bytes, an address, an id or a uint8 (H, W, 3) array, got {type(picture).__name__}"
            )
        if isinstance(picture, Integral):
            object.__setattr__(self, "picture", int(picture))
        if self.crop is not None:
            object.__setattr__(self, "crop", _checked_box(self.crop))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagePart):
            return NotImplemented
        mine, theirs = self.picture, other.picture
        if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
            same = isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray) and np.array_equal(mine, theirs)
        else:
            same = _named(mine) == _named(theirs)
        return same and (self.crop, self.space, self.weight) == (other.crop, other.space, other.weight)

    def __hash__(self) -> int:
        picture = self.picture.tobytes() if isinstance(self.picture, np.ndarray) else _named(self.picture)
        return hash((picture, self.crop, self.space, self.weight))


@dataclass(frozen=True)
class TextPart(Part):
    """Words to find pictures of what they mean.

    Attributes
    ----------
    text : str
        Without control characters and spare spaces.
    match : str
        How captions and other words of pictures are compared with it: "words" in any order, a "phrase" as it stands,
        or words of which the last is only the beginning ("prefix").
    """

    text: str
    match: Literal["words", "phrase", "prefix"] = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.text, str):
            raise QueryError(f"the text of a query must be a str, got {type(self.text).__name__}")
        if self.match not in ("words", "phrase", "prefix"):
            raise QueryError(f"a text matches as words, phrase or prefix, got {self.match!r}")
        object.__setattr__(self, "text", clean_text(self.text))


@dataclass(frozen=True)
class TagPart(Part):
    """A tag, scored: pictures that bear it come first, and none is left out.

    Attributes
    ----------
    tag : str
    learned : bool
        Whether it is a tag that was learnt from examples, and given to nobody.
    """

    tag: str
    learned: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tag, str):
            raise QueryError(f"a tag must be a str, got {type(self.tag).__name__}")
        object.__setattr__(self, "tag", clean_text(self.tag))


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes
    ----------
    parts : tuple of Part
    """

    parts: tuple[Part, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))

    @classmethod
    def of(cls, query: Query | Part | Picture) -> Query:
        """A query as it is, or the query of one part or one picture."""
        if isinstance(query, Query):
            return query
        if isinstance(query, Integral):  # an id is asked for by its name: an int alone is more often a mistake
            raise QueryError(f"a query is a path, bytes or a uint8 (H, W, 3) array, got {type(query).__name__}")
        return cls((query if isinstance(query, Part) else ImagePart(query),))


def _named(picture: object) -> object:
    return os.fspath(picture) if isinstance(picture, os.PathLike) else picture


def _checked_box(box: Sequence[int]) -> Box:
    try:
        left, top, right, bottom = box
    except (TypeError, ValueError):
        raise QueryError(f"a crop is (left, top, right, bottom) in pixels, got {box!r}") from None
    edges = (left, top, right, bottom)
    if not all(isinstance(edge, Integral) and not isinstance(edge, bool) and edge >= 0 for edge in edges):
        raise QueryError(f"the edges of a crop are whole numbers of at least 0, got {box!r}")
    if left >= right or top >= bottom:
        raise QueryError(f"a crop must be at least one pixel wide and high, got {box!r}")
    return int(left), int(top), int(right), int(bottom)
