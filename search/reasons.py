"""Why a picture was found by a query of several parts, or by words: what each part gave, and why."""

from __future__ import annotations

from dataclasses import dataclass

from search.engine import SearchEngine
from search.hits import Answer, Hit, PartAnswer
from search.query import TextPart
from search.words import ConceptScorer, TextReason


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
    """

    answer: PartAnswer
    share: float
    text: TextReason | None = None


def explain_parts(engine: SearchEngine, answer: Answer, hit: Hit) -> tuple[PartReason, ...]:
    """What each part of the query that gave this answer did for one of its hits, in the order of `Answer.parts`.

    Raises
    ------
    EngineError
        The collection can no longer be asked.
    """
    return tuple(
        PartReason(part, share, _text_reason(engine, part, hit.id))
        for part, share in zip(answer.parts, hit.shares, strict=True)
    )


def _text_reason(engine: SearchEngine, answer: PartAnswer, id: int) -> TextReason | None:
    if not isinstance(answer.part, TextPart) or answer.space is None:
        return None
    scorer = engine.text_scorer(answer.space)
    return scorer.reason(answer.part.text, id) if isinstance(scorer, ConceptScorer) else None
