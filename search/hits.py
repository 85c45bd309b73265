"""What a search gives: hits in order, and how they came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, overload

from search.neighbour_order import Expansion
from search.query import Part
from search.strength import Strength


@dataclass(frozen=True)
class Hit:
    """One found image.

    Attributes
    ----------
    rank : int
        1 for the nearest.
    id : int
        Row of the image in the collection.
    score : float
        What the hits are ordered by: cosine similarity or inner product (larger is nearer), or squared L2 distance;
        where neighbours count, what `neighbour_order` makes of the similarity. Of a query of several parts the sum of
        the shares (larger is better).
    similarity, distance : float or None
        How near the stored vectors are; the one that does not apply to the collection's metric is None. Of several
        pictures that were searched for the nearest counts; without one, both are None.
    labels : tuple of str
    path : Path
        The original image file, absolute.
    shares : tuple of float
        What each part of the query adds to the score, in the order of `Answer.parts`; 0 of one that was not answered.
        Empty where the query is one picture.
    """

    rank: int
    id: int
    score: float
    similarity: float | None
    distance: float | None
    labels: tuple[str, ...]
    path: Path
    shares: tuple[float, ...] = ()


class AskedVoice(NamedTuple):
    """One way in which a part of a query was asked, where the answers of several are added.

    Attributes
    ----------
    space : str
    way : str
        The name of the space, or where that answers in several ways, of one of them.
    weight : float
        How much it counts in the part.
    """

    space: str
    way: str
    weight: float


@dataclass(frozen=True)
class PartAnswer:
    """Where a part of a query was asked.

    Attributes
    ----------
    part : Part
    space : str or None
        The first that answered, by whose kind the part was given to it; None if the collection cannot answer it.
    unanswered : str
        Why not, in a sentence.
    hints : tuple of str
        Sentences: what of it was not understood, or why the answer may be wrong.
    voices : tuple of AskedVoice
        Of words: all that answered, that of `space` first.
    """

    part: Part
    space: str | None
    unanswered: str = ""
    hints: tuple[str, ...] = ()
    voices: tuple[AskedVoice, ...] = ()

    @property
    def spaces(self) -> tuple[str, ...]:
        """All spaces that answered, `space` first."""
        own = () if self.space is None else (self.space,)
        return tuple(dict.fromkeys((*own, *(voice.space for voice in self.voices))))


@dataclass(frozen=True)
class Answer(Sequence[Hit]):
    """The hits of a search, best first: a sequence of `Hit`. Two answers are equal if their hits are.

    Attributes
    ----------
    hits : tuple of Hit
    own_id : int or None
        The query's own id, where it is a picture of the collection and so left itself out.
    encode_ms, search_ms, rerank_ms : float
        How long it took from image to vector, from vector to candidates, and to rank these again (0 if that was not
        asked for).
    reranked : int
        Candidates ranked again.
    parts : tuple of PartAnswer
        Of each part of the query; empty where it is one picture.
    expansion : Expansion or None
        How the query took in its neighbours, where these counted in the order.
    strength : Strength or None
        How strong the hits of one picture are, in a collection where that can be told.
    """

    hits: tuple[Hit, ...]
    own_id: int | None = field(default=None, compare=False)
    encode_ms: float = field(default=0.0, compare=False)
    search_ms: float = field(default=0.0, compare=False)
    rerank_ms: float = field(default=0.0, compare=False)
    reranked: int = field(default=0, compare=False)
    parts: tuple[PartAnswer, ...] = field(default=(), compare=False)
    expansion: Expansion | None = field(default=None, compare=False)
    strength: Strength | None = field(default=None, compare=False)

    @property
    def is_weak(self) -> bool | None:
        """Whether the best hits are hardly nearer than pictures of other things; None where that cannot be told."""
        return None if self.strength is None else self.strength.is_weak

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Sentences: what of the query the collection could not answer."""
        return tuple(part.unanswered for part in self.parts if part.unanswered)

    @property
    def hints(self) -> tuple[str, ...]:
        """Sentences: what of the query was not understood, or why the answer may be wrong."""
        return tuple(dict.fromkeys(hint for part in self.parts for hint in part.hints))

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the images found, best first."""
        return tuple(hit.id for hit in self.hits)

    def first(self, n: int) -> Answer:
        """The same answer with its n best hits only."""
        return replace(self, hits=self.hits[:n])

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]
