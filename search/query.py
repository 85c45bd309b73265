"""A query: typed, weighted parts. Which part can be asked where is said by the kinds of `spaces`."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.errors import QueryError
from search.filters import Filter
from search.options import SearchOptions

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8] | int
"""An image file, its web address, its content, decoded RGB pixels, uint8 (H, W, 3), or the id of a picture of the
collection."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels; right and bottom are outside."""

MAX_PARTS = 100
MAX_JUDGED = 1_000
"""Judged pictures of a query: a person's patience ends long before."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Text without what no file or model can hold, control characters and halves of characters, nor spare spaces."""
    return " ".join(_SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", text)).split())


def is_address(picture: object) -> bool:
    """Whether a picture is named by an address of the web."""
    return isinstance(picture, str) and picture.startswith(("http://", "https://"))


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
    foreground : bool
        Whether its object counts more than what is behind it: the vector is half-way between that of the picture as it
        is and that of the object on white. See `features.background`.
    """

    picture: Picture
    crop: Box | None = None
    foreground: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        picture = self.picture
        if isinstance(picture, bool) or not isinstance(picture, str | os.PathLike | bytes | np.ndarray | Integral):
            raise QueryError(
                f"a query is a path, bytes, an address, an id or a uint8 (H, W, 3) array, got {type(picture).__name__}"
            )
        if isinstance(picture, Integral):
            object.__setattr__(self, "picture", int(picture))
        elif isinstance(picture, str) and picture.startswith("data:"):
            object.__setattr__(self, "picture", _content_of(picture))
        if self.crop is not None:
            object.__setattr__(self, "crop", _checked_box(self.crop))
        if not isinstance(self.foreground, bool):
            raise QueryError(f"foreground is true or false, got {self.foreground!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagePart):
            return NotImplemented
        mine, theirs = self.picture, other.picture
        if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
            same = isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray) and np.array_equal(mine, theirs)
        else:
            same = _named(mine) == _named(theirs)
        return same and self._how() == other._how()

    def __hash__(self) -> int:
        picture = self.picture.tobytes() if isinstance(self.picture, np.ndarray) else _named(self.picture)
        return hash((picture, *self._how()))

    def _how(self) -> tuple[object, ...]:
        return self.crop, self.foreground, self.space, self.weight


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
        if not self.text:
            raise QueryError("a text has at least one word")


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
        if not self.tag:
            raise QueryError("a tag has at least one character")


@dataclass(frozen=True)
class FeedbackPart(Part):
    """What a person has judged of the hits: these are meant, those are not. `search.feedback` learns from it.

    It is no list of wanted and unwanted `ImagePart`: those are compared one by one and left out of the hits, as the
    pictures that someone searches with. Judgements are learnt from together, and with the rest of the query, and say of
    the hits themselves which stay: what is in `more` stays where its score puts it, what is in `less` leaves. A query
    has one of it; several are made one. A negative weight is the opposite of all judgements.

    Attributes
    ----------
    more, less : tuple of int
        Ids of pictures of the collection, in the order in which they were judged.

    Raises
    ------
    QueryError
        There are none or too many, one is both, or one is no whole number.
    """

    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        more, less = _checked_ids(self.more), _checked_ids(self.less)
        if self.weight < 0:
            more, less = less, more
            object.__setattr__(self, "weight", -self.weight)
        object.__setattr__(self, "more", more)
        object.__setattr__(self, "less", less)
        if not more and not less:
            raise QueryError("feedback has at least one picture that is judged")
        if len(more) + len(less) > MAX_JUDGED:
            raise QueryError(f"a query has at most {MAX_JUDGED:,} judged pictures, got {len(more) + len(less):,}")
        if both := sorted(set(more) & set(less)):
            raise QueryError(f"picture {both[0]} is judged both ways: as more like it and as less like it")


@dataclass(frozen=True)
class Query:
    """What is searched for. `search.grammar` reads it from what a person types, `from_json` from the wire.

    Attributes
    ----------
    parts : tuple of Part
    filter : Filter
        Only these pictures may be found; or whatever `Filter.of` takes.
    k : int or None
        Most hits wanted; None to leave that to the search.
    options : SearchOptions or None
        How to search; its k does not count.
    collection : str or None
        Which collection is meant.
    faults : tuple of str
        Sentences: what of the text that it was read from cannot be searched.

    Raises
    ------
    QueryError
        k is no whole number of at least 1, or the filter makes no sense.
    """

    parts: tuple[Part, ...] = ()
    filter: Filter = field(default_factory=Filter)
    k: int | None = None
    options: SearchOptions | None = None
    collection: str | None = None
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "filter", Filter.of(self.filter))
        if not all(isinstance(part, Part) for part in self.parts):
            raise QueryError("the parts of a query are ImagePart, TextPart or TagPart")
        object.__setattr__(self, "parts", _with_one_feedback(self.parts))
        if self.k is not None and (not isinstance(self.k, Integral) or isinstance(self.k, bool) or self.k < 1):
            raise QueryError(f"k must be a whole number of at least 1, got {self.k!r}")

    @classmethod
    def of(cls, query: Query | Part | Picture) -> Query:
        """A query as it is, or the query of one part or one picture."""
        if isinstance(query, Query):
            return query
        if isinstance(query, Integral):  # an id is asked for by its name: an int alone is more often a mistake
            raise QueryError(f"a query is a path, bytes or a uint8 (H, W, 3) array, got {type(query).__name__}")
        return cls((query if isinstance(query, Part) else ImagePart(query),))

    @property
    def feedback(self) -> FeedbackPart | None:
        """What is judged of the hits."""
        return next((part for part in self.parts if isinstance(part, FeedbackPart)), None)

    def judged(self, id: int, verdict: Literal["more", "less"] | None) -> Query:
        """The same query with a picture of the collection judged so, or not at all."""
        known = self.feedback
        more, less = (known.more, known.less) if known is not None else ((), ())
        more, less = (tuple(each for each in ids if each != id) for ids in (more, less))
        more += (id,) * (verdict == "more")
        less += (id,) * (verdict == "less")
        others = tuple(part for part in self.parts if part is not known)
        if not more and not less:
            return replace(self, parts=others)
        made = FeedbackPart(more, less) if known is None else replace(known, more=more, less=less)
        return replace(self, parts=(*others, made))

    def check(self) -> None:
        """Raise QueryError with a sentence where it cannot be searched, whatever the collection."""
        if self.faults:
            raise QueryError("; ".join(self.faults))
        if len(self.parts) > MAX_PARTS:
            raise QueryError(f"a query has at most {MAX_PARTS} parts, got {len(self.parts):,}")
        if self.parts and not any(part.weight for part in self.parts):
            raise QueryError("there is nothing to search for: every part has the weight 0")
        if not self.parts and self.filter.where is None:
            raise QueryError("there is nothing to search for: there are no words, no picture and no filter")


def _with_one_feedback(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts with all judgements in the place of the first."""
    judged = [part for part in parts if isinstance(part, FeedbackPart)]
    if len(judged) < 2:
        return parts
    more = tuple(id for part in judged for id in part.more)
    less = tuple(id for part in judged for id in part.less)
    place = parts.index(judged[0])
    others = [part for part in parts if not isinstance(part, FeedbackPart)]
    return (*others[:place], replace(judged[0], more=more, less=less), *others[place:])


def _checked_ids(ids: Iterable[int]) -> tuple[int, ...]:
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise QueryError(f"judged pictures are named by a list of ids, got {ids!r}")
    listed = tuple(ids)
    for id in listed:
        if not isinstance(id, Integral) or isinstance(id, bool) or id < 0:
            raise QueryError(f"a judged picture is named by its id, a whole number of at least 0, got {id!r}")
    return tuple(dict.fromkeys(int(id) for id in listed))


def _named(picture: object) -> object:
    return os.fsdecode(picture) if isinstance(picture, os.PathLike) else picture


def _content_of(address: str) -> bytes:
    """The content that an address of RFC 2397 carries in itself."""
    kind, comma, encoded = address.partition(",")
    try:
        if not comma or not kind.endswith(";base64"):
            raise ValueError
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise QueryError("a picture that begins with data: goes on with its content in base64") from None


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
