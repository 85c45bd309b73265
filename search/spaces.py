"""Spaces: sets of vectors over the pictures of a collection, and the kinds of spaces there are.

A new kind of search is a new kind of space: one class, and one line in `_KINDS` or one call of `register_space`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import new_part
from features.collection.store import FeatureStore
from features.collection.vector_file import can_grow, grow_vectors, map_vectors
from features.concepts import Concepts, no_words
from features.encoders import Encoder, EncoderError, shared_encoder
from features.encoders.sentence import sentence_encoder
from ivfpq.checks import Metric
from search.captions import MEANING, MEANING_WEIGHT, WORDS, WORDS_WEIGHT, CaptionScorer, caption_vectors
from search.clip_space import ClipSpace
from search.errors import EngineError, QueryError
from search.neighbourhood import NeighbourhoodSpace
from search.query import ImagePart, TagPart, TextPart
from search.space import (
    ADD_BLOCK,
    IDS,
    PLACES,
    VISUAL,
    Candidates,
    Entry,
    Made,
    More,
    Nearest,
    OpenCollection,
    Placed,
    Space,
    SpaceKind,
)
from search.words import SCORED_AT_MOST, ConceptScorer, TextScorer

CONCEPTS = "concepts"
CAPTIONS = "captions"

TEXT_FACTORY = "IVF100,PQ48"
"""The index over sentence vectors of more than `SCORED_AT_MOST` pictures."""


MAX_VERSIONS = 3
"""Rows for each picture that a file of vectors may have, those that have changed among them; then it is made again."""


class Visual(SpaceKind):
    """The encoder's vectors. Every collection has them: they are what it was made of."""

    name = VISUAL
    accepts = (ImagePart,)

    def make(self, store: FeatureStore) -> NDArray[Any]:
        return store.features

    def encode_picture(self, pixels: NDArray[np.uint8], collection: OpenCollection) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = collection.encoder.encode([pixels])[0]
        return vector


class ConceptSpace(SpaceKind):
    """What the encoder's classes mean: words find pictures that nobody captioned. See `features.concepts`."""

    name = CONCEPTS
    accepts = (TextPart,)
    is_default = True

    def make(self, store: FeatureStore) -> NDArray[Any]:
        concepts = _concepts_of(shared_encoder(store.manifest["encoder"]))
        vectors = np.zeros((len(store.features), concepts.dim), np.float16)
        for start in range(0, store.ids.size, ADD_BLOCK):
            block = store.ids[start : start + ADD_BLOCK]
            vectors[block] = concepts.encode_features(store.features[block])
        return vectors

    def make_more(self, before: Space, ids: NDArray[np.int64], candidates: Candidates | None) -> More | None:
        if before.maker != self.maker():
            return None
        concepts = _concepts_of(shared_encoder(before.store.manifest["encoder"]))
        return More(ids, concepts.encode_features(before.store.features[ids]))

    def text_hints(self, part: TextPart, collection: OpenCollection) -> tuple[str, ...]:
        return collection.text_scorer(self.name).score(part.text).hints

    def text_scorer(self, space: Space, collection: OpenCollection, nearest: Nearest) -> TextScorer:
        if reason := self.why_not(collection.store):
            raise QueryError(f"{space.folder.name} cannot be asked by words: {reason}")
        if space.maker not in (None, self.maker()):
            raise QueryError(
                f"the space {self.name} of {space.folder.name} was made with another sentence model: make it again, "
                f"create_index.py --spaces {VISUAL},{self.name}"
            )
        return ConceptScorer(_concepts_of(collection.encoder), collection.store, space.vectors, nearest)

    def why_not(self, store: FeatureStore) -> str | None:
        spec = store.manifest["encoder"]
        try:
            return None if shared_encoder(spec).classes and sentence_encoder() else no_words(spec["name"])
        except EncoderError as error:
            return str(error)

    def maker(self) -> dict[str, Any]:
        return {"sentences": sentence_encoder().sha256}

    def factory(self, count: int) -> str | None:
        return TEXT_FACTORY if count > SCORED_AT_MOST else None


class CaptionSpace(SpaceKind):
    """What people and models say of the pictures: see `search.captions`."""

    name = CAPTIONS
    accepts = (TextPart, TagPart)
    is_live = True
    voice_weights: ClassVar[Mapping[str, float]] = {MEANING: MEANING_WEIGHT, WORDS: WORDS_WEIGHT}

    def make_from(self, store: FeatureStore, before: Space | None, candidates: Candidates | None) -> Made:
        vectors = self.make(store)
        return Made(vectors, {IDS: np.flatnonzero(vectors.any(axis=1))})

    def make(self, store: FeatureStore) -> NDArray[Any]:
        vectors = self.make_temporary(store)
        for start in range(0, store.ids.size, ADD_BLOCK):
            block = store.annotations.of(store.ids[start : start + ADD_BLOCK].tolist())
            for id, vector in caption_vectors(block, sentence_encoder()).items():
                vectors[id] = vector
        return vectors

    def make_more(self, before: Space, ids: NDArray[np.int64], candidates: Candidates | None) -> More | None:
        return More(ids, np.zeros((ids.size, before.dim), np.float16))  # what may be said of them is newer than it

    def make_temporary(self, store: FeatureStore) -> NDArray[Any]:
        return np.zeros((len(store.features), sentence_encoder().dim), np.float16)

    def score_text(self, part: TextPart, collection: OpenCollection) -> NDArray[np.float32]:
        return sum(self.text_voices(part, collection).values(), np.zeros((), np.float32))

    def text_voices(self, part: TextPart, collection: OpenCollection) -> dict[str, NDArray[np.float32]]:
        return _captions_of(collection).voices(part.text, part.match)

    def score_tag(self, part: TagPart, collection: OpenCollection) -> NDArray[np.float32]:
        return _captions_of(collection).tag(part.tag)

    def text_hints(self, part: TextPart, collection: OpenCollection) -> tuple[str, ...]:
        return _captions_of(collection).hints

    def text_scorer(self, space: Space, collection: OpenCollection, nearest: Nearest) -> TextScorer:
        maker, vectors, changes, has_index = space.maker or {}, space.vectors, 0, bool(space.indexes)
        if maker.get("sentences") == sentence_encoder().sha256:
            changes = int(maker.get("changes", 0))
        else:  # of another model: read again, as far as a search may
            vectors, has_index = self.make_temporary(space.store), False
        if not has_index:
            return CaptionScorer(space.store, sentence_encoder(), vectors, changes)
        return CaptionScorer(space.store, sentence_encoder(), vectors, changes, nearest, space.ids)

    def why_not(self, store: FeatureStore) -> str | None:
        return None if store.has_annotations else "nothing is said of its pictures yet: see python -m search.annotate"

    def maker(self) -> dict[str, Any]:
        return {"sentences": sentence_encoder().sha256}

    def made_of(self, store: FeatureStore) -> dict[str, Any]:
        return {**self.maker(), "changes": store.annotations.changes}

    def factory(self, count: int) -> str | None:
        return TEXT_FACTORY if count > SCORED_AT_MOST else None


def _captions_of(collection: OpenCollection) -> CaptionScorer:
    scorer = collection.text_scorer(CAPTIONS)
    assert isinstance(scorer, CaptionScorer)
    return scorer


def _concepts_of(encoder: Encoder) -> Concepts:
    """Collections of the same encoder share the vectors of its classes."""
    shared: Any = encoder  # one object is itself alone, and so can be a key, which its protocol does not say
    return _made_concepts(shared)


@lru_cache(maxsize=4)
def _made_concepts(encoder: Any) -> Concepts:
    return Concepts(encoder, sentence_encoder())


_KINDS: dict[str, SpaceKind] = {
    kind.name: kind for kind in (Visual(), NeighbourhoodSpace(), ClipSpace(), ConceptSpace(), CaptionSpace())
}


def register_space(kind: SpaceKind) -> None:
    """Let collections have spaces of this kind. A kind of the same name is replaced."""
    if not kind.name.isidentifier() or kind.name != kind.name.lower():
        raise ValueError(f"the name of a space is of lower-case letters, digits and underscores, got {kind.name!r}")
    _KINDS[kind.name] = kind


def space_names() -> tuple[str, ...]:
    """The kinds of spaces there are."""
    return tuple(_KINDS)


def default_spaces() -> tuple[str, ...]:
    """The kinds that every collection gets that can have them."""
    return tuple(kind.name for kind in _KINDS.values() if kind.is_default)


def live_spaces(store: FeatureStore) -> tuple[str, ...]:
    """The kinds that a collection has whether or not its manifest lists them."""
    return tuple(name for name, kind in _KINDS.items() if kind.is_live and kind.why_not(store) is None)


def text_spaces() -> tuple[str, ...]:
    """The kinds that can be asked by a text."""
    return tuple(kind.name for kind in _KINDS.values() if TextPart in kind.accepts)


def space_kind(name: str) -> SpaceKind:
    """A kind by its name. Raises EngineError if there is none."""
    if name not in _KINDS:
        raise EngineError(f"unknown space {name!r}; there are {', '.join(_KINDS)}")
    return _KINDS[name]


def open_spaces(store: FeatureStore) -> dict[str, Space]:
    """The spaces of a collection whose kinds are known here, `VISUAL` first.

    Raises
    ------
    EngineError
        A file of vectors is missing, does not fit the manifest, or is older than the pictures.
    """
    visual = visual_space(store)
    listed: Mapping[str, Entry] = store.manifest.get("spaces", {})
    others = {
        name: open_space(store, name, entry) for name, entry in listed.items() if name in _KINDS and name != VISUAL
    }
    return {VISUAL: visual, **others}


def visual_space(store: FeatureStore) -> Space:
    """The space of the encoder's vectors."""
    metric: Metric = store.manifest["metric"]
    return Space(space_kind(VISUAL), store, store.features, metric, store.manifest.get("indexes", {}))


def temporary_space(store: FeatureStore, name: str) -> Space:
    """A space that a collection does not have, made in memory: for collections from before there were such.

    Raises
    ------
    EngineError
        The collection cannot have it; the message says why.
    """
    kind = space_kind(name)
    if reason := kind.why_not(store):
        raise EngineError(f"{store.folder.name} has no space {name}: {reason}")
    return Space(kind, store, _checked(kind, store, kind.make_temporary(store)), kind.metric, {}, kind.maker())


def earlier_space(store: FeatureStore, name: str, entry: Entry) -> Space | None:
    """A space as it was before pictures of its collection changed, without indexes; None if a file is damaged."""
    try:
        return _read(store, name, {**entry, "indexes": {}})
    except EngineError:
        return None


def make_space(
    store: FeatureStore, kind: SpaceKind, *, before: Space | None = None, candidates: Candidates | None = None
) -> tuple[Space, dict[str, Any]]:
    """Make the vectors of a space and write them to new files of the collection. For who holds its lock.

    Parameters
    ----------
    before, candidates
        See `SpaceKind.make_from`.

    Returns
    -------
    space : Space
        Without indexes.
    entry : dict
        For the manifest's `spaces`; see `features.collection.manifest`.
    """
    name, made_of = kind.name, kind.made_of(store)
    made = kind.make_from(store, before, candidates)
    vectors = _checked(kind, store, made.vectors)
    beside = {part: _written(store, f"{name}-{part}", array) for part, array in made.beside.items()}
    entry = {
        **_written(store, name, vectors),
        "dim": vectors.shape[1],
        "dtype": vectors.dtype.name,
        "metric": kind.metric,
        "accepts": [part.__name__ for part in kind.accepts],
        "maker": made_of,
        "generation": store.generation,
        "indexes": {},
        **({"beside": beside} if beside else {}),
    }
    return open_space(store, name, entry), entry


def grow_space(
    store: FeatureStore, kind: SpaceKind, entry: Entry, candidates: Candidates | None
) -> tuple[Space, dict[str, Any]] | None:
    """A space with vectors of the pictures that have come, written behind those that it has. For who holds the lock.

    Returns
    -------
    space, entry
        As `make_space` gives them, the indexes as they were; None where it has to be made again.
    """
    changed, gone = store.changes_since(entry.get("generation") or 0)
    before = earlier_space(store, kind.name, entry)
    if before is None or not can_grow(entry):
        return None
    count = len(before.vectors)
    if min(changed.min(initial=count), gone.min(initial=count)) < count:
        return None
    more = kind.make_more(before, changed, candidates)
    if more is None or more.vectors.shape != (more.ids.size, before.dim) or not np.isfinite(more.vectors).all():
        return None
    is_other, written = more.ids < count, len(map_vectors(store.folder, entry))
    others = more.ids[is_other]
    if written + others.size > MAX_VERSIONS * count:
        return None
    rows = np.where(is_other, np.cumsum(is_other) - 1, others.size + more.ids - count)

    def grown(part: Entry, made: NDArray[Any], blank: float = 0) -> dict[str, Any]:
        known = map_vectors(store.folder, part)
        new = np.full((others.size + len(store.features) - count, *made.shape[1:]), blank, known.dtype)
        new[rows] = made
        return grow_vectors(store.folder, part, [new])

    beside = dict(entry.get("beside", {}))
    if others.size or PLACES in beside:
        places = np.arange(written + others.size - count, written + others.size - count + len(store.features))
        places[:count] = map_vectors(store.folder, beside[PLACES]) if PLACES in beside else np.arange(count)
        places[others] = written + np.arange(others.size)
        beside[PLACES] = _written(store, f"{kind.name}-{PLACES}", places.astype(np.int32))
    for name, blank in kind.by_picture.items():
        beside[name] = grown(beside[name], more.beside[name], blank)
    new = {**grown(entry, more.vectors), "generation": store.generation}
    if beside:
        new["beside"] = beside
    return open_space(store, kind.name, new), new


def _written(store: FeatureStore, stem: str, array: NDArray[Any]) -> dict[str, str]:
    """Write an array to a new file of the collection, durably; returns its entry for the manifest."""
    path = new_part(store.folder, f"{stem}.npy", store.generation)
    with path.open("wb") as out:
        np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
        out.flush()
        os.fsync(out.fileno())
    return {"file": path.name, "sha256": sha256_of(path)}


def _checked(kind: SpaceKind, store: FeatureStore, made: NDArray[Any]) -> NDArray[Any]:
    """What a kind has made of a collection. Raises EngineError if that cannot be its vectors."""
    name, made = kind.name, np.ascontiguousarray(made)
    if made.ndim != 2 or len(made) != len(store.features) or made.dtype not in (np.float16, np.float32):
        raise EngineError(
            f"space {name} must give float16 or float32 ({len(store.features)}, dim), got {made.dtype} {made.shape}"
        )
    if not np.isfinite(made).all():
        raise EngineError(f"space {name} gave NaN or infinity")
    return made


def open_space(store: FeatureStore, name: str, entry: Entry) -> Space:
    """A space by its entry in the manifest. Raises EngineError if a file is missing, does not fit or is out of date."""
    if any(ids.size for ids in store.changes_since(entry.get("generation") or 0)):
        path = store.folder / entry["file"]
        raise EngineError(f"{path} is older than the vectors of its collection: run create_index.py --sync for it")
    return _read(store, name, entry, len(store.features))


def _read(store: FeatureStore, name: str, entry: Entry, count: int | None = None) -> Space:
    """A space by its files. Raises EngineError if one cannot be read or has not as many vectors as it should."""
    vectors = _mapped(store, name, entry)
    beside = {part: _mapped(store, name, file) for part, file in entry.get("beside", {}).items()}
    if (places := beside.pop(PLACES, None)) is not None:
        vectors = _placed(vectors, places)
        placed = {part: _placed(beside[part], places) for part in space_kind(name).by_picture if part in beside}
        beside = {**beside, **placed}
    wanted = (len(vectors) if count is None else count, entry["dim"]), entry["dtype"]
    if (vectors.shape, vectors.dtype.name) != wanted:
        raise EngineError(
            f"{store.folder / entry['file']} holds {vectors.dtype.name} {vectors.shape}, the manifest says {wanted[1]} "
            f"{wanted[0]}: {_how_to_make_again(name)}"
        )
    kind, indexes, made = space_kind(name), entry.get("indexes", {}), entry.get("generation") or 0
    return Space(kind, store, vectors, entry["metric"], indexes, entry.get("maker"), beside, made)


def _placed(rows: NDArray[Any], places: NDArray[np.int32]) -> NDArray[Any]:
    # It can do what is asked of rows, and to be no array it need not say.
    return cast(NDArray[Any], Placed(rows, places))


def _mapped(store: FeatureStore, name: str, entry: Entry) -> NDArray[Any]:
    path = store.folder / entry["file"]
    try:
        array: NDArray[Any] = map_vectors(store.folder, entry)
    except (OSError, ValueError, EOFError) as error:
        raise EngineError(f"{path} cannot be read ({error}): {_how_to_make_again(name)}") from error
    return array


def _how_to_make_again(name: str) -> str:
    return f"make it again: search.build.create_space(store, {name!r})"
