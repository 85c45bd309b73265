"""Search by several parts: who answers which, the candidates, and how their scores become one order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection.learned_tags import LearnedTag
from features.collection.store import FeatureStore
from features.concepts import FEEDBACK_COUNT
from features.encoders import Encoder
from search import feedback, fusion
from search.errors import EngineError, QueryError
from search.hits import Answer, AskedVoice, Hit, PartAnswer
from search.learned import keep_as_tag, usable_tag
from search.mixed_order import Fitting, Wanted, with_neighbours
from search.options import SearchOptions
from search.query import FeedbackPart, ImagePart, Part, Query, TagPart, TextPart
from search.searcher import RERANK_FACTOR, SpaceSearcher
from search.space import VISUAL, SpaceKind
from search.spaces import default_spaces, space_kind, space_names
from search.voices import Voice, summed, voices_of
from search.words import TextScorer

CANDIDATES_MIN = 1_000


class EncodedQuery(NamedTuple):
    """A query picture as a vector.

    Attributes
    ----------
    vector : float32 (dim,)
    own_id : int or None
        The id of this very picture where the collection holds it (equal bytes).
    """

    vector: NDArray[np.float32]
    own_id: int | None


class AskedCollection(Protocol):
    """What is asked: a `SearchEngine`."""

    @property
    def name(self) -> str: ...

    @property
    def store(self) -> FeatureStore: ...

    @property
    def encoder(self) -> Encoder: ...

    @property
    def spaces(self) -> tuple[str, ...]: ...

    def space(self, name: str = ...) -> SpaceSearcher: ...

    def text_scorer(self, space: str) -> TextScorer: ...

    def encode_part(self, part: ImagePart, searcher: SpaceSearcher) -> EncodedQuery: ...


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a collection can say of the parts of a query.

    Attributes
    ----------
    answers : tuple of PartAnswer
        Of every part.
    places : int (p,)
        Which of them are answered; scores below are of these.
    searchers : dict of str to SpaceSearcher
    vectors : dict of str to (rows, float32 (q, dim))
        By space: which of the scores are those of pictures, and their vectors.
    texts : dict of int to float32 (n,)
        By row of the scores: what a text gives to every picture of the collection, finite.
    own_ids : tuple of int
        Pictures of the collection that the query consists of.
    crossed : tuple of int
        Pictures that are judged not to be meant.
    learnt : float32 (dim,) or None
        What was learnt from judgements.
    neighbourhood : LearntNeighbourhood or None
        What was learnt from neighbourhoods besides.
    """

    answers: tuple[PartAnswer, ...]
    places: NDArray[np.int64]
    searchers: Mapping[str, SpaceSearcher]
    vectors: Mapping[str, tuple[list[int], NDArray[np.float32]]]
    texts: Mapping[int, NDArray[np.float32]]
    own_ids: tuple[int, ...]
    crossed: tuple[int, ...]
    learnt: NDArray[np.float32] | None
    neighbourhood: feedback.LearntNeighbourhood | None

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of the answered parts. What was learnt from judgements turns the whole query, however many parts that has."""
        parts = [self.answers[place].part for place in self.places.tolist()]
        weights = np.array([part.weight for part in parts])
        if self.pictures.size:
            weights[[row for row in self.texts if not isinstance(parts[row], FeedbackPart)]] *= (
                fusion.WORDS_BESIDE_PICTURE
            )
        learnt = np.array([isinstance(part, FeedbackPart) for part in parts])
        others = np.abs(weights[~learnt]).sum()
        share = feedback.SHARE if self.neighbourhood is None else feedback.SHARE_WITH_NEIGHBOURS
        return np.where(learnt, weights * share * others, weights) if others else weights

    @property
    def pictures(self) -> NDArray[np.int64]:
        """Rows of the wanted pictures that are compared by the encoder's vectors."""
        answers = [self.answers[place] for place in self.places.tolist()]
        wanted = [isinstance(of.part, ImagePart) and of.part.weight > 0 and of.space == VISUAL for of in answers]
        return np.flatnonzero(wanted)

    def knows_neighbours(self, options: SearchOptions) -> bool:
        """Whether neighbours count: where pictures and words are asked for, and nothing is judged."""
        searcher = self.searchers.get(VISUAL)
        if searcher is None or not searcher.orders(options) or options.fusion != "scores":
            return False
        return self.pictures.size > 0 and bool(self.texts) and self.learnt is None

    def with_neighbours(
        self, fitting: Fitting, ids: NDArray[np.int64], portions: NDArray[np.floating[Any]], weight: float
    ) -> NDArray[np.floating[Any]]:
        """What the parts add to the scores of candidates once neighbours count: see `mixed_order`."""
        searcher = self.searchers[VISUAL]
        assert searcher.order is not None
        rows, vectors = self.vectors[VISUAL]
        wanted = np.isin(rows, self.pictures)
        shares = self.weights / np.abs(self.weights).sum()
        pictures = Wanted(self.pictures, searcher.comparable(vectors[wanted]), shares[self.pictures])
        return with_neighbours(searcher.order, pictures, fitting, ids, portions, weight)

    @property
    def left_out(self) -> tuple[int, ...]:
        """What is no hit, however well it fits."""
        return tuple(sorted({*self.own_ids, *self.crossed}))

    def scores(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of each answered part for each of these pictures, (p, len(ids)); larger is better."""
        return self._filled(ids, lambda searcher, vectors: searcher.scores(vectors, ids))

    def sample_scores(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """`scores` for the pictures of `sample_of`, which are these."""
        return self._filled(ids, SpaceSearcher.sample_scores)

    @property
    def _learnt_row(self) -> int:
        parts = [self.answers[place].part for place in self.places.tolist()]
        return next(row for row, part in enumerate(parts) if isinstance(part, FeedbackPart))

    def _filled(
        self,
        ids: NDArray[np.int64],
        of_pictures: Callable[[SpaceSearcher, NDArray[np.float32]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        scores = np.empty((self.places.size, ids.size), np.float32)
        for name, (rows, vectors) in self.vectors.items():
            scores[rows] = of_pictures(self.searchers[name], vectors)
        for row, of_all in self.texts.items():
            scores[row] = of_all[ids]
        if self.neighbourhood is not None:
            scores[self._learnt_row] = self.neighbourhood.mixed(scores[self._learnt_row], ids)
        return scores

    def likeness(self, scores: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """How near each picture is to the nearest of the wanted pictures by the encoder's vectors, (n,), if any."""
        return scores[self.pictures].max(axis=0) if self.pictures.size else None


def space_of(part: Part, collection: AskedCollection) -> str:
    """The space of a collection that a part is asked in: its own, or the first kind that accepts such parts.

    Raises
    ------
    QueryError
        There is none.
    """
    known = [name for name in space_names() if name in collection.spaces]
    kinds = [space_kind(name) for name in (known if part.space is None else ())]
    names = [kind.name for kind in kinds if not kind.is_live and kind.can_answer(collection.store)]
    if part.space is not None:
        names = [part.space]
    for name in names:
        if _accepts(collection.space(name).space.kind, part):
            return name
    why_not = ""
    for name in default_spaces() if part.space is None else ():
        if _accepts(space_kind(name), part):
            try:
                collection.space(name)
            except EngineError as error:
                why_not = f" ({error})"
            else:
                return name
    for name in known if part.space is None else ():
        if space_kind(name).is_live and _accepts(space_kind(name), part):
            return name
    what = {ImagePart: "a picture", FeedbackPart: "pictures", TextPart: "words"}.get(type(part), "a tag")
    raise QueryError(
        f"{collection.name} cannot be asked by {what}: its spaces are {', '.join(collection.spaces)}{why_not}"
        if part.space is None
        else f"the space {part.space} cannot be asked by a {type(part).__name__}"
    )


def _accepts(kind: SpaceKind, part: Part) -> bool:
    """Whether a part can be asked in spaces of a kind. What was learnt from pictures is asked where these are."""
    if isinstance(part, TagPart) and part.learned:
        return kind.name == VISUAL  # of whose vectors its own is one
    if isinstance(part, FeedbackPart):
        return ImagePart in kind.accepts
    return isinstance(part, kind.accepts)


def search_parts(
    collection: AskedCollection,
    parts: Sequence[Part],
    options: SearchOptions,
    allowed: NDArray[np.int64] | None,
) -> Answer:
    """The k pictures that are best by all parts together.

    Raises
    ------
    QueryError
        The collection can answer none of the parts.
    """
    started = time.perf_counter()
    asked = _ask(collection, parts, options)
    encoded = time.perf_counter()
    usable, weights = collection.store.ids, asked.weights
    sample = asked.sample_scores(fusion.sample_of(usable))
    ids = _candidates(asked, sample, options, usable, allowed)
    searched = time.perf_counter()
    scores = asked.scores(ids)
    portions = fusion.shares(scores, sample, weights, fusion=options.fusion)
    if asked.knows_neighbours(options):
        fitting = Fitting(ids, portions.sum(axis=0))
        if allowed is not None:
            anywhere = _candidates(asked, sample, options, usable, None)
            fitting = Fitting(anywhere, fusion.shares(asked.scores(anywhere), sample, weights).sum(axis=0))
        portions = asked.with_neighbours(fitting, ids, portions, options.neighbourhood)
    hits = _hits(collection, asked, ids, scores, portions, options)
    return Answer(
        hits=hits,
        own_id=asked.own_ids[0] if len(asked.own_ids) == 1 else None,
        encode_ms=(encoded - started) * 1e3,
        search_ms=(searched - encoded) * 1e3,
        rerank_ms=(time.perf_counter() - searched) * 1e3,
        reranked=int(ids.size),
        parts=asked.answers,
    )


def learn_tag(collection: AskedCollection, tag: str, query: Query, options: SearchOptions | None = None) -> LearnedTag:
    """Keep what the judgements of a query say under a name: ``tag:~name`` asks for it. See `search.learned`.

    Raises
    ------
    QueryError
        Nothing is judged, the collection cannot answer it, or the tag has no name.
    features.collection.errors.StoreError
        It cannot be written.
    """
    query.check()
    judged = query.feedback
    if judged is None:
        raise QueryError("there is nothing to learn from: no picture is judged")
    plain = replace(options or SearchOptions("exact"), neighbourhood=0)  # a tag is one vector, of the stored ones
    learnt = _ask(collection, query.parts, plain).learnt
    if learnt is None:
        feedback.check_judged(judged, collection.store)
        raise QueryError(f"nothing can be learnt from pictures in {collection.name}")
    return keep_as_tag(tag, learnt, judged.more, judged.less, collection.space(space_of(judged, collection)))


def _ask(collection: AskedCollection, parts: Sequence[Part], options: SearchOptions) -> _Asked:
    answers: list[PartAnswer] = []
    places: list[int] = []
    pictures: dict[str, list[tuple[int, EncodedQuery]]] = {}
    texts: dict[int, NDArray[np.float32]] = {}
    judged: tuple[int, str, FeedbackPart] | None = None
    voices: list[Voice]
    for part in parts:
        row, voices = len(places), []
        try:
            name = space_of(part, collection)
            searcher = collection.space(name)
            if isinstance(part, ImagePart):
                searcher.check(options.engine)
                pictures.setdefault(name, []).append((row, collection.encode_part(part, searcher)))
            elif isinstance(part, FeedbackPart):
                searcher.check(options.engine)
                feedback.check_judged(part, collection.store)
                judged = row, name, part  # it is learnt with what the other parts ask
            elif isinstance(part, TagPart) and part.learned:
                searcher.check(options.engine)
                vector = usable_tag(part.tag, collection.store).vector
                if searcher.space.metric == "l2":
                    texts[row] = feedback.cosines(vector, searcher)
                else:
                    pictures.setdefault(name, []).append((row, EncodedQuery(vector, None)))
            elif isinstance(part, TagPart):
                texts[row] = searcher.space.kind.score_tag(part, collection)
            else:
                assert isinstance(part, TextPart)
                voices = voices_of(part, collection, name)
                texts[row] = summed(voices)
        except QueryError as error:
            answers.append(PartAnswer(part, None, str(error)))
        else:
            places.append(len(answers))
            kind = searcher.space.kind
            hints = kind.text_hints(part, collection) if isinstance(part, TextPart) else ()
            told = tuple(AskedVoice(voice.space, voice.way, voice.weight) for voice in voices)
            answers.append(PartAnswer(part, name, hints=hints, voices=told))
    if not any(answers[place].part.weight for place in places):
        raise QueryError("; ".join(dict.fromkeys(answer.unanswered for answer in answers if answer.unanswered)))
    own_ids = {query.own_id for queries in pictures.values() for _, query in queries if query.own_id is not None}
    learnt: NDArray[np.float32] | None = None
    neighbourhood: feedback.LearntNeighbourhood | None = None
    if judged is not None:
        row, name, part = judged
        weights = [answers[place].part.weight for place in places]
        searcher = collection.space(name)
        asked = _asked_for(searcher, pictures.get(name, []), texts, weights)
        if name == VISUAL and set(pictures) <= {VISUAL} and not texts:
            own = [query.own_id for other, query in pictures.get(name, []) if weights[other] > 0]
            neighbourhood = feedback.learnt_neighbourhood(part, asked, own, searcher, options)
        learnt = feedback.learnt_from(part, asked, searcher, options, widen=neighbourhood is None)
        if searcher.space.metric == "l2":  # no point is as near to pictures as their cosine to a vector says
            texts[row] = feedback.cosines(learnt, searcher)
        else:
            pictures.setdefault(name, []).append((row, EncodedQuery(learnt, None)))
    return _Asked(
        answers=tuple(answers),
        places=np.array(places),
        searchers={name: collection.space(name) for name in pictures},
        vectors={
            name: ([row for row, _ in queries], np.stack([query.vector for _, query in queries]))
            for name, queries in pictures.items()
        },
        texts=texts,
        own_ids=tuple(sorted(own_ids)),
        crossed=() if judged is None else judged[2].less,
        learnt=learnt,
        neighbourhood=neighbourhood,
    )


def _asked_for(
    searcher: SpaceSearcher,
    pictures: Sequence[tuple[int, EncodedQuery]],
    texts: Mapping[int, NDArray[np.float32]],
    weights: Sequence[float],
) -> NDArray[np.float32]:
    """Vectors (q, dim) of what a query asks for: of its pictures, and the mean of what its words find first."""
    vectors = [query.vector for row, query in pictures if weights[row] > 0]
    if any(weights[row] > 0 for row in texts):
        ids = searcher.space.ids
        total = sum(weights[row] * fusion.standardized_over(of_all, ids) for row, of_all in texts.items())
        best = ids[np.argsort(-total[ids], kind="stable")[:FEEDBACK_COUNT]]  # type: ignore[index]
        vectors.append(searcher.comparable(searcher.space.rows(best)).mean(axis=0))
    return np.stack(vectors) if vectors else np.empty((0, searcher.space.dim), np.float32)


def _hits(
    collection: AskedCollection,
    asked: _Asked,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    portions: NDArray[np.floating[Any]],
    options: SearchOptions,
) -> tuple[Hit, ...]:
    """The k best of some pictures, as far as the cutoff lets them through."""
    total = portions.sum(axis=0)
    order = np.lexsort((ids, -total))
    likeness = asked.likeness(scores)
    is_distance = collection.space(VISUAL).space.metric == "l2"
    if options.cutoff is not None:
        if likeness is None:
            raise QueryError("a cutoff is how like a picture the hits must be, and there is no picture to be like")
        order = order[likeness[order] >= (-options.cutoff if is_distance else options.cutoff)]
    hits = []
    for rank, column in enumerate(order[: int(options.k)].tolist(), start=1):
        item = collection.store.items[int(ids[column])]
        shares = np.zeros(len(asked.answers))  # what was not answered adds nothing
        shares[asked.places] = portions[:, column]
        like = None if likeness is None else float(likeness[column])
        hits.append(
            Hit(
                rank=rank,
                id=item.id,
                score=float(total[column]),
                similarity=None if is_distance else like,
                distance=-like if is_distance and like is not None else None,
                labels=item.labels,
                path=item.path,
                shares=tuple(shares.tolist()),
            )
        )
    return tuple(hits)


def _candidates(
    asked: _Asked,
    sample: NDArray[np.float32],
    options: SearchOptions,
    usable: NDArray[np.int64],
    allowed: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Ids, ascending, of the pictures among the allowed that may be among the best; the query's own are none."""
    left_out, weights = asked.left_out, asked.weights
    is_mixed = len(asked.vectors) + bool(asked.texts) > 1
    # What is best by all parts together may be far from the first of any, and codes tell it less well than one picture.
    wanted = max(CANDIDATES_MIN, RERANK_FACTOR * (int(options.k) + len(left_out)))
    others = usable if allowed is None else allowed
    others = others[~np.isin(others, left_out)] if left_out else others
    if others.size <= wanted or (options.engine == "exact" and is_mixed):
        return others
    found = []
    for name, (rows, vectors) in asked.vectors.items():
        searcher = asked.searchers[name]
        metric = searcher.space.metric
        vector = fusion.fused_vector(searcher.comparable(vectors), sample[rows], weights[rows], metric)
        if vector is None:
            return others
        if options.nprobe is None and weights[rows].sum() <= 0:  # what is unlike a picture lies in lists everywhere
            options = replace(options, nprobe=searcher.nlist)
        ids = searcher.candidates(vector[None], wanted + len(left_out), options, allowed).ids[0]
        found.append(ids[(ids >= 0) & ~np.isin(ids, left_out)])
    if asked.texts:
        rows = list(asked.texts)
        scores = np.stack([asked.texts[row][others] for row in rows])
        total = fusion.shares(scores, sample[rows], weights[rows]).sum(axis=0)
        found.append(others[np.argpartition(-total, wanted - 1)[:wanted]])
    return np.unique(np.concatenate(found))
