"""How well what is said of pictures answers a text: by meaning, by its very words, and by tags.

By meaning each picture has one vector, the mean of the sentence vectors of its captions and of its tags together. By
words it has the rank that sqlite's full text gives it. A text is answered by both and by what the encoder sees
(`search.words`); a picture of which nothing is said neither wins nor loses by that. What was measured: docs/WORDS.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.fulltext import FREQUENT, has_words
from features.collection.said import Said
from features.collection.store import FeatureStore
from features.concepts import FEEDBACK_COUNT, unit
from features.encoders.sentence import SentenceEncoder
from search.fusion import deviations, sample_of, standardized_over
from search.words import CANDIDATES, TextScores

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

MEANING_WEIGHT = 0.5
WORDS_WEIGHT = 2.0
"""Of what is said, by meaning (standardised) and by words (1 for the best), beside 1 for what the encoder sees."""

MEANING, WORDS = "meaning", "words"
"""What the two are called."""

MAX_TOLD = 32
"""Captions, and tags, of a picture that are looked at for why it was found."""
MAX_TOLD_OF = 5

MAX_READ = 1_000
"""Pictures whose words have changed since the space was made that a search itself reads; more are for the command."""

_BLOCK = 16_384


class SaidReason(NamedTuple):
    """What is said of a picture, as a reason: a caption or a tag, whether it has words of the text, and its cosine."""

    text: str
    kind: str
    has_words: bool
    likeness: float


def texts_of(said: Said) -> tuple[str, ...]:
    """The texts of a picture whose mean meaning is its place: each caption, and all tags as one."""
    captions = dict.fromkeys(caption.text for caption in said.captions)
    tags = dict.fromkeys(tag.tag.replace("_", " ") for tag in said.tags)
    return (*captions, ", ".join(tags)) if tags else tuple(captions)


def caption_vectors(said: Mapping[int, Said], sentences: SentenceEncoder) -> dict[int, Floats]:
    """Unit vectors (dim,) of the pictures of which something is said, by id. Each text is encoded once."""
    texts = {id: found for id, each in said.items() if (found := texts_of(each))}
    places = {text: place for place, text in enumerate(dict.fromkeys(text for each in texts.values() for text in each))}
    encoded = sentences.encode(list(places))
    rows = {id: [places[text] for text in each] for id, each in texts.items()}
    return {id: unit(encoded[each].mean(axis=0, keepdims=True))[0] for id, each in rows.items()}


class CaptionScorer:
    """Scores the pictures of a collection by what is said of them, as it is now. Safe to use from many threads.

    Parameters
    ----------
    store : FeatureStore
    sentences : SentenceEncoder
    vectors : float16 (n, dim)
        Of all pictures, row = id, zero where nothing is said.
    changes : int
        How often words had changed when they were made: see `Annotations.changes`.
    nearest : callable, optional
        ``nearest(vector, k, ids)``: ids (at most k,) of the pictures whose vectors are nearest. With it the meaning of
        the nearest `CANDIDATES` is compared, and that of the pictures whose words are new; without it, of all.
    said : int64 (m,), optional
        With `nearest`: ids of the pictures that have a vector.
    """

    def __init__(
        self,
        store: FeatureStore,
        sentences: SentenceEncoder,
        vectors: NDArray[np.floating],
        changes: int,
        nearest: Callable[[Floats, int, Ids | None], Ids] | None = None,
        said: Ids | None = None,
    ) -> None:
        self._store = store
        self._sentences = sentences
        self._vectors = vectors
        self._changes = changes
        self._nearest = nearest
        self._sample = None if said is None else np.asarray(vectors[sample_of(said)], np.float32)
        store.annotations.word_scores(FREQUENT)  # what is read for the first search is read now
        self._lock = threading.Lock()
        self._newer: dict[int, Floats | None] = {}
        self.hints: tuple[str, ...] = ()

    def meaning(self, text: str) -> Floats:
        """Cosine of the text and of what is said of each picture, float32 (n,); -inf where it was not compared."""
        return self._meaning(self._sentences.encode([text])[0])

    def _meaning(self, asked: Floats) -> Floats:
        if self._nearest is not None:
            scores = np.full(len(self._vectors), -np.inf, np.float32)
            ids = np.sort(self._nearest(asked, CANDIDATES, None))
            scores[ids] = np.asarray(self._vectors[ids], np.float32) @ asked
        else:
            scores = np.empty(len(self._vectors), np.float32)
            for start in range(0, len(scores), _BLOCK):
                block = np.asarray(self._vectors[start : start + _BLOCK], np.float32)
                near = block @ asked
                scores[start : start + _BLOCK] = np.where(block.any(axis=1), near, -np.inf)
        for id, vector in self._current().items():
            scores[id] = -np.inf if vector is None else vector @ asked
        return scores

    def words(self, text: str, match: str) -> Floats:
        """How well the words of each picture fit those of the text, float32 (n,): 1 for the best, 0 for no word."""
        ids, scores = self._store.annotations.word_scores(text, match=match)
        found = np.zeros(len(self._vectors), np.float32)
        is_here = ids < len(found)  # others came with a later sync than this open collection knows of
        found[ids[is_here]] = scores[is_here] / scores.max(initial=0)
        return found

    def tag(self, tag: str) -> Floats:
        """How certain it is that each picture bears a tag, float32 (n,)."""
        found = np.zeros(len(self._vectors), np.float32)
        for id, certainty in self._store.annotations.tagged(tag).items():
            if id < len(found):
                found[id] = certainty
        return found

    def score(self, text: str, ids: Ids | None = None, *, k: int = 1) -> TextScores:
        """See `search.words.TextScorer`."""
        shown = self._store.ids if ids is None else np.sort(ids)
        asked = self._sentences.encode([text])[0]
        meaning = self._meaning(asked)
        voices = self._weighed(meaning, asked, text, "words")
        scores, meaning = (voices[MEANING] + voices[WORDS])[shown], meaning[shown]
        nothing = np.zeros(shown.size, np.float32)
        similarity = np.where(np.isfinite(meaning), meaning, 0).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:FEEDBACK_COUNT]
        strength = float(similarity[best].mean()) if best.size else 0.0
        return TextScores(shown, scores, similarity, nothing, nothing, strength, self.hints)

    def voices(self, text: str, match: str) -> dict[str, Floats]:
        """By `MEANING` and by `WORDS`, float32 (n,) each, to be added: of a picture that they say nothing of, 0."""
        asked = self._sentences.encode([text])[0]
        return self._weighed(self._meaning(asked), asked, text, match)

    def _weighed(self, meaning: Floats, asked: Floats, text: str, match: str) -> dict[str, Floats]:
        if self._sample is None:
            usual = standardized_over(meaning, self._store.ids)
        else:  # the nearest alone say nothing of what is usual
            by = self._sample @ asked
            standard = (meaning - by.mean()) / deviations(by[None])[0]
            usual = np.where(np.isfinite(meaning), standard, 0).astype(np.float32)
        return {MEANING: MEANING_WEIGHT * usual, WORDS: WORDS_WEIGHT * self.words(text, match)}

    def reasons(self, text: str, match: str, id: int) -> tuple[SaidReason, ...]:
        """Which captions and tags of a picture speak for a text, by their words or by their meaning, the best first."""
        said = self._store.annotations.of([id]).get(id, Said())
        texts: dict[str, str] = {caption.text: "caption" for caption in said.captions[:MAX_TOLD]}
        texts |= {tag.tag: "tag" for tag in said.tags[:MAX_TOLD]}
        if not texts:
            return ()
        (asked, *meant) = self._sentences.encode([text, *(each.replace("_", " ") for each in texts)])
        found = [
            SaidReason(each, kind, has_words(each, text, match), float(vector @ asked))
            for (each, kind), vector in zip(texts.items(), meant, strict=True)
        ]
        return tuple(sorted(found, key=lambda each: (-each.has_words, -each.likeness))[:MAX_TOLD_OF])

    def _current(self) -> dict[int, Floats | None]:
        """The vectors of the pictures whose words have changed since; None where nothing is said any more."""
        annotations = self._store.annotations
        with self._lock:
            now = annotations.changes
            if now != self._changes:
                changed = annotations.changed_since(self._changes)
                if changed.size > MAX_READ:
                    self.hints = (
                        f"{changed.size:,} pictures have new words whose meaning is not known yet: "
                        f"run python -m search.annotate {self._store.folder.name}",
                    )
                    return self._newer
                vectors = caption_vectors(annotations.of(changed.tolist()), self._sentences)
                known = changed[changed < len(self._vectors)].tolist()
                self._newer = {**self._newer, **{id: vectors.get(id) for id in known}}
                self._changes, self.hints = now, ()
            return self._newer
