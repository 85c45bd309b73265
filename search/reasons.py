"""Why a picture was found by a query of several parts, or by words: what each part gave, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from search import fusion
from search.captions import CaptionScorer, SaidReason
from search.engine import SearchEngine
from search.hits import Answer, Hit, PartAnswer
from search.query import TextPart
from search.spaces import CAPTIONS
from search.voices import summed, voices_of
from search.words import ConceptScorer, TextReason


class VoiceReason(NamedTuple):
    """What one way of asking a text gave to a hit.

    Attributes
    ----------
    space, way, weight
        As of a `search.voices.Voice`.
    added : float
        By how much it lifts the hit above what it gives on average, in standard deviations of the text's scores.
    """

    space: str
    way: str
    weight: float
    added: float


@dataclass(frozen=True)
class PartReason:
    """What a part of a query gave to a hit.

    Attributes
    ----------
    answer : PartAnswer
        The part, and where it was asked.
    share : float
        What it added to the hit's score; below 0 where it spoke against it.
    text : TextReason or None
        Of words: what they were compared with.
    voices : tuple of VoiceReason
        Of words: what the encoder sees, and what is said of the pictures, by meaning and by words. The share is the sum
        of what they added times the weight of the part.
    said : tuple of SaidReason
        Of words: the captions and tags of the hit that speak for them.
    """

    answer: PartAnswer
    share: float
    text: TextReason | None = None
    voices: tuple[VoiceReason, ...] = ()
    said: tuple[SaidReason, ...] = ()


def explain_parts(engine: SearchEngine, answer: Answer, hit: Hit) -> tuple[PartReason, ...]:
    """What each part of the query that gave this answer did for one of its hits, in the order of `Answer.parts`.

    Raises
    ------
    EngineError
        The collection can no longer be asked.
    """
    return tuple(
        _of_text(engine, part, part.part, part.space, share, hit.id)
        if isinstance(part.part, TextPart) and part.space is not None
        else PartReason(part, share)
        for part, share in zip(answer.parts, hit.shares, strict=True)
    )


def _of_text(engine: SearchEngine, answer: PartAnswer, part: TextPart, space: str, share: float, id: int) -> PartReason:
    voices = voices_of(part, engine, space)
    sample = fusion.sample_of(engine.store.ids)
    deviation = float(fusion.deviations(summed(voices)[sample][None])[0])
    added = [float(voice.scores[id] - voice.scores[sample].mean(dtype=np.float64)) / deviation for voice in voices]
    return PartReason(
        answer,
        share,
        _text_reason(engine, part, space, id),
        tuple(VoiceReason(*voice[:3], each) for voice, each in zip(voices, added, strict=True)),
        _said_reasons(engine, part, id) if any(voice.space == CAPTIONS for voice in voices) else (),
    )


def _text_reason(engine: SearchEngine, part: TextPart, space: str, id: int) -> TextReason | None:
    scorer = engine.text_scorer(space)
    return scorer.reason(part.text, id) if isinstance(scorer, ConceptScorer) else None


def _said_reasons(engine: SearchEngine, part: TextPart, id: int) -> tuple[SaidReason, ...]:
    scorer = engine.text_scorer(CAPTIONS)
    return scorer.reasons(part.text, part.match, id) if isinstance(scorer, CaptionScorer) else ()
