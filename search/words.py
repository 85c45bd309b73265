"""How well each picture of a collection answers a text, by what the encoder's classes mean: see `features.concepts`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from features.concepts import FEEDBACK_COUNT, FEEDBACK_WEIGHT, TREE_WEIGHT, WEAK, Concepts, standardized, unit
from features.wordnet.hypernyms import hypernyms
from search.errors import QueryError

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

SCORED_AT_MOST = 20_000
"""Pictures of a collection that are all scored; of more, only candidates are."""
CANDIDATES = 2_000
SAMPLE = 2_000
"""Pictures of a larger collection, always the same, by which scores are standardised."""

CLASSES_TOLD = 5

_BLOCK = 4096
_LATIN_ENDS = 0x250


@dataclass(frozen=True, eq=False)
class TextScores:
    """How well pictures answer a text.

    Attributes
    ----------
    ids : int64 (n,)
        Ascending: all usable pictures that the filter lets through, or of a large collection the candidates.
    scores : float32 (n,)
        What orders them; larger is better. tree and feedback are in it.
    similarity : float32 (n,)
        Cosine of picture and text in the space.
    tree : float32 (n,)
        What the classes below the named synset added to the similarity.
    feedback : float32 (n,)
        What likeness to the pictures found first added, in standard deviations.
    strength : float
        Mean of similarity and tree of the ten best: below `features.concepts.WEAK` the answer may be wrong.
    hints : tuple of str
        Sentences for who asked.
    """

    ids: Ids
    scores: Floats
    similarity: Floats
    tree: Floats
    feedback: Floats
    strength: float
    hints: tuple[str, ...] = ()

    def best(self, k: int) -> Ids:
        """Places of the k best, best first; of equal ones the smaller id."""
        return np.argsort(-self.scores, kind="stable")[:k]


class ClassReason(NamedTuple):
    """A class of the encoder, as a reason: how probable it is that the picture shows it, and what it adds."""

    name: str
    probability: float
    added: float


@dataclass(frozen=True)
class TextReason:
    """Why a picture answers a text as it does.

    Attributes
    ----------
    similarity, tree, feedback : float
        As in `TextScores`.
    strength : float
        Of the whole answer; see `TextScores`.
    classes : tuple of ClassReason
        Those that add most to the similarity, which is the sum over all classes.
    node : str
        The nouns of WordNet's tree that the text names; "" if it names none that classes lie below.
    below : tuple of ClassReason
        The likeliest of the classes that are what the text names, or a kind of it.
    hints : tuple of str
    """

    similarity: float
    tree: float
    feedback: float
    strength: float
    classes: tuple[ClassReason, ...]
    node: str
    below: tuple[ClassReason, ...]
    hints: tuple[str, ...]


class TextScorer(Protocol):
    """What a space that accepts text is asked. Safe to use from many threads."""

    def score(self, text: str, ids: Ids | None = None, *, k: int = 1) -> TextScores:
        """Score the pictures of a collection, at least the k best of them, among `ids` if they are given."""
        ...


class _Pictures:
    """Some pictures of a collection, ready to be scored.

    Attributes
    ----------
    ids : int64 (n,)
    vectors : float32 (n, dim)
        In the space of concepts.
    features : float32 (n, d)
        Their stored vectors, of unit length.
    """

    def __init__(self, concepts: Concepts, store: FeatureStore, vectors: NDArray[np.floating], ids: Ids) -> None:
        self._concepts = concepts
        self._stored = store.features
        self.ids = ids
        self.vectors = vectors[ids].astype(np.float32)
        self.features = np.empty((ids.size, store.features.shape[1]), np.float32)
        for start in range(0, ids.size, _BLOCK):
            block = store.features[ids[start : start + _BLOCK]]
            self.features[start : start + _BLOCK] = unit(block.astype(np.float32))

    @cached_property
    def _probabilities(self) -> Floats:
        """Class probabilities (n, classes)."""
        blocks = (self._stored[self.ids[start : start + _BLOCK]] for start in range(0, self.ids.size, _BLOCK))
        return np.concatenate([self._concepts.probabilities(block) for block in blocks])

    def below(self, classes: Ids) -> Floats:
        """How probable it is that each shows one of these classes, float32 (n,)."""
        if not classes.size or not self.ids.size:
            return np.zeros(self.ids.size, np.float32)
        probabilities = self._probabilities
        asked = np.zeros(probabilities.shape[1], np.float32)
        asked[classes] = 1
        return probabilities @ asked


class ConceptScorer:
    """Scores pictures by the concepts in them.

    Up to `SCORED_AT_MOST` pictures are all scored, and what that takes is held in memory from the first text on: their
    vectors and the probability of each class, as float32. Of a larger collection the nearest `CANDIDATES` are
    scored, by what is read from the files.

    Parameters
    ----------
    concepts : Concepts
    store : FeatureStore
    vectors : float16 or float32 (n, dim)
        Of the pictures in the space, row = id.
    nearest : callable
        ``nearest(vector, k, ids)``: ids (at most k,) of the nearest pictures in the space, among `ids` or all.
    """

    def __init__(
        self,
        concepts: Concepts,
        store: FeatureStore,
        vectors: NDArray[np.floating],
        nearest: Callable[[Floats, int, Ids | None], Ids],
    ) -> None:
        self._concepts = concepts
        self._store = store
        self._vectors = vectors
        self._nearest = nearest
        self._lock = threading.Lock()
        self._held: _Pictures | None = None
        self._last: tuple[str, TextScores] | None = None

    def score(self, text: str, ids: Ids | None = None, *, k: int = 1) -> TextScores:
        """How well pictures answer a text: see `TextScorer`.

        What is found first is looked for in the whole collection, so a filter changes no order.

        Raises
        ------
        QueryError
            The text has no word that the model knows.
        """
        last = self._last
        if last is not None and last[0] == text and ids is None and k <= CANDIDATES:
            return last[1]  # who asks for scores asks for hints and reasons next
        found = self._score(text, ids, k)
        if ids is None:
            self._last = text, found
        return found

    def reason(self, text: str, id: int) -> TextReason:
        """Why a picture answers a text as it does.

        Raises
        ------
        QueryError
            The text has no word that the model knows.
        """
        found = self.score(text)
        if id not in found.ids:  # of a large collection only candidates are scored
            found = self.score(text, np.array([id]))
        place = int(np.searchsorted(found.ids, id))
        concepts, stored = self._concepts, self._store.features[np.array([id])]
        likely = concepts.probabilities(stored)[0]
        added = concepts.contributions(stored, concepts.encode_text(text))
        below = concepts.classes_below(text)
        return TextReason(
            similarity=float(found.similarity[place]),
            tree=float(found.tree[place]),
            feedback=float(found.feedback[place]),
            strength=found.strength,
            classes=self._named(np.argsort(-added, kind="stable"), added, likely),
            node=", ".join(hypernyms().lemmas(hypernyms().synsets(text)[0])) if below.size else "",
            below=self._named(below[np.argsort(-likely[below], kind="stable")], added, likely),
            hints=found.hints,
        )

    def _named(self, classes: Ids, added: Floats, likely: Floats) -> tuple[ClassReason, ...]:
        names = self._concepts.classes
        return tuple(
            ClassReason(names[place], float(likely[place]), float(added[place]))
            for place in classes[:CLASSES_TOLD].tolist()
        )

    def _score(self, text: str, ids: Ids | None, k: int) -> TextScores:
        hints = self._hints(text)
        asked, classes = self._concepts.encode_text(text), self._concepts.classes_below(text)

        def first(pictures: _Pictures) -> tuple[Floats, Floats]:
            return pictures.vectors @ asked, TREE_WEIGHT * pictures.below(classes)

        if self._is_small:
            found = shown = standard = self._all
        else:
            found = shown = self._pictures(self._nearest(asked, max(k, CANDIDATES), None))
            standard = self._sample
            if ids is not None:
                shown = self._pictures(self._nearest(asked, max(k, CANDIDATES), ids))
        similarity, tree = first(found)
        scores = by = similarity + tree
        best = np.argsort(-scores, kind="stable")[:FEEDBACK_COUNT]
        meant = unit(found.features[best].mean(axis=0, keepdims=True))[0]
        strength = float(scores[best].mean())

        if shown is not found:
            similarity, tree = first(shown)
        if standard is not found:
            by = np.add(*first(standard))
        feedback = FEEDBACK_WEIGHT * standardized(shown.features @ meant, standard.features @ meant)
        scores = standardized(similarity + tree, by) + feedback
        if strength < WEAK:
            hints = (*hints, "This may be far from what this collection knows.")
        kept = np.isin(shown.ids, shown.ids if ids is None else ids)
        return TextScores(shown.ids[kept], scores[kept], similarity[kept], tree[kept], feedback[kept], strength, hints)

    def _hints(self, text: str) -> tuple[str, ...]:
        reading = self._concepts.read(text)
        if not any(character.isalnum() for character in text) or not reading.known:
            raise QueryError(f"there is no word in {text[:40]!r} that could be searched for")
        hints = []
        if reading.is_cut:
            hints.append("Only the beginning of the text was read: it is longer than the language model takes.")
        if not any(character.isalnum() and ord(character) < _LATIN_ENDS for character in text):
            hints.append("The language model knows English alone.")
        return tuple(hints)

    @property
    def _is_small(self) -> bool:
        return self._store.ids.size <= SCORED_AT_MOST

    def _pictures(self, ids: Ids) -> _Pictures:
        return _Pictures(self._concepts, self._store, self._vectors, np.sort(ids))

    @property
    def _all(self) -> _Pictures:
        """Those of a small collection."""
        with self._lock:
            if self._held is None:
                self._held = self._pictures(self._store.ids)
            return self._held

    @property
    def _sample(self) -> _Pictures:
        """Those by which the scores of a large collection are standardised."""
        with self._lock:
            if self._held is None:
                chosen = np.random.default_rng(0).choice(self._store.ids, SAMPLE, replace=False)
                self._held = self._pictures(chosen)
            return self._held
