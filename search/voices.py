"""Who speaks for a picture where a text is asked: what the encoder sees in it, and what is said of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from search import fusion
from search.errors import QueryError
from search.query import TextPart
from search.searcher import SpaceSearcher
from search.space import OpenCollection, SpaceKind
from search.spaces import CAPTIONS, space_kind

# Words that no picture is of: a text of these alone asks for nothing.
_STOP_WORDS = frozenset(
    "a an and are as at be by for from in into is it its of on or that the their there these "  # noqa: SIM905
    "they this to was were with".split()
)


class TextCollection(OpenCollection, Protocol):
    """What is asked: a `SearchEngine`."""

    @property
    def store(self) -> FeatureStore: ...

    @property
    def spaces(self) -> tuple[str, ...]: ...

    def space(self, name: str = ...) -> SpaceSearcher: ...


class Voice(NamedTuple):
    """One way of asking a text.

    Attributes
    ----------
    space : str
    way : str
        The name of the space, or `captions.MEANING` or `captions.WORDS`.
    weight : float
        By which its scores were multiplied.
    scores : float32 (n,)
        Of every picture of the collection, finite. Those of all voices are added.
    """

    space: str
    way: str
    weight: float
    scores: NDArray[np.float32]


def voices_of(part: TextPart, collection: TextCollection, name: str) -> list[Voice]:
    """A text in a space and, unless that was asked for by name, in what is said of the pictures.

    What the space says is standardised where several speak.

    Raises
    ------
    QueryError
        The text says nothing that could be seen, or the space knows nothing of it.
    """
    if part.match == "words" and {word.strip(".,;:!?'").lower() for word in part.text.split()} <= _STOP_WORDS:
        raise QueryError(f"{part.text!r} says nothing that could be seen: add a word, or put it in quotes")
    own = [_finite(voice, part, collection) for voice in _voices(space_kind(name), part, collection)]
    if name == CAPTIONS or part.space is not None or CAPTIONS not in collection.spaces:
        return own
    said = _voices(space_kind(CAPTIONS), part, collection)
    if not any(voice.scores.any() for voice in said):
        return own
    return [
        *(voice._replace(scores=fusion.standardized_over(voice.scores, collection.store.ids)) for voice in own),
        *said,
    ]


def summed(voices: list[Voice]) -> NDArray[np.float32]:
    """What all of them give to every picture, float32 (n,)."""
    (first, *others) = voices
    return first.scores + sum(voice.scores for voice in others) if others else first.scores


def _voices(kind: SpaceKind, part: TextPart, collection: TextCollection) -> list[Voice]:
    found = kind.text_voices(part, collection)
    return [Voice(kind.name, way, kind.voice_weights.get(way, 1.0), scores) for way, scores in found.items()]


def _finite(voice: Voice, part: TextPart, collection: TextCollection) -> Voice:
    """A voice of which a picture that it knows nothing of has the least that any has."""
    found = voice.scores
    usable = np.asarray(found, np.float32)[collection.store.ids]
    known = usable[np.isfinite(usable)]
    if not known.size:
        raise QueryError(f"the space {voice.space} knows nothing of {part.text!r}")
    return voice._replace(scores=np.where(np.isfinite(found), found, known.min()).astype(np.float32))
