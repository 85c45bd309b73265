"""The space `clip`: pictures and texts in one, by CLIP, SigLIP or SigLIP 2. See `features.encoders.clip`.

It is made of the picture files, which takes a while: what has been encoded is kept as it comes, so that a run that is
stopped goes on, and a sync encodes only what has changed.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from features.collection.manifest import encoder_identity
from features.collection.records import Record
from features.collection.stage import Stage
from features.collection.store import FeatureStore
from features.concepts import FEEDBACK_COUNT
from features.encoders import EncoderError, create_encoder, share_encoder, shared_encoder
from features.encoders.hub import is_here
from features.encoding import encode_items
from features.paths import expanded
from search.errors import EngineError, QueryError
from search.query import ImagePart, TextPart
from search.space import ADD_BLOCK, VISUAL, Candidates, Entry, Made, More, Nearest, OpenCollection, Space, SpaceKind
from search.words import CANDIDATES, SCORED_AT_MOST, TextScorer, TextScores

logger = logging.getLogger(__name__)

CLIP = "clip"

STAGE = ".clip.sqlite"
_BATCH = 32
_CUT_SHOWN = 60
"""Characters of what a model does not read that are shown."""


class ClipSpace(SpaceKind):
    """Made by the model that is named, or that it was made by before, or else by the encoder's default.

    Parameters
    ----------
    model : str, optional
        What `features.encoders.clip.Clip` takes as its weights.
    """

    name = CLIP
    accepts = (ImagePart, TextPart)

    def __init__(self, model: str | None = None) -> None:
        folder = None if model is None else expanded(model)  # what a manifest calls a folder is its absolute path
        self._model = str(folder.resolve()) if folder is not None and model and folder.is_dir() else model

    def made_with(self, model: str) -> ClipSpace:
        return ClipSpace(model)

    def make(self, store: FeatureStore) -> NDArray[Any]:
        return self.make_from(store, None, None).vectors

    def make_from(self, store: FeatureStore, before: Space | None, candidates: Candidates | None) -> Made:
        encoder = self._encoder(store)
        vectors = np.zeros((len(store.features), encoder.dim), np.float16)
        todo = store.ids
        if before is not None and _is_same(before.maker, encoder.spec):
            todo, gone = store.changes_since(before.generation)
            vectors[: len(before.vectors)] = before.vectors
            vectors[gone] = 0
            vectors[todo] = 0
        _encode(store, store.records(todo.tolist()), encoder, vectors)
        return Made(vectors)

    def make_more(self, before: Space, ids: NDArray[np.int64], candidates: Candidates | None) -> More | None:
        store, encoder = before.store, self._encoder(before.store)
        if not _is_same(before.maker, encoder.spec):
            return None
        vectors = np.zeros((len(store.features), encoder.dim), np.float16)  # only what is written takes memory
        _encode(store, store.records(ids.tolist()), encoder, vectors)
        return More(ids, vectors[ids])

    def is_made_so(self, maker: Entry | None) -> bool:
        argument = str((maker or {}).get("weights", {}).get("argument", ""))
        return self._model is None or self._model in (argument, argument.partition("@")[0])

    def encode_picture(self, pixels: NDArray[np.uint8], collection: OpenCollection) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = _asked_encoder(collection.store).encode([pixels])[0]
        return vector

    def score_text(self, part: TextPart, collection: OpenCollection) -> NDArray[np.float32]:
        scorer = collection.text_scorer(self.name)
        assert isinstance(scorer, ClipScorer)
        scores = super().score_text(part, collection)
        scores[scorer.unknown] = -np.inf
        return scores

    def text_hints(self, part: TextPart, collection: OpenCollection) -> tuple[str, ...]:
        return collection.text_scorer(self.name).score(part.text).hints

    def text_scorer(self, space: Space, collection: OpenCollection, nearest: Nearest) -> TextScorer:
        return ClipScorer(_asked_encoder(collection.store), space, nearest)

    def can_answer(self, store: FeatureStore) -> bool:
        try:
            return importlib.util.find_spec("transformers") is not None and is_here(_spec(store)["weights"]["argument"])
        except EncoderError:
            return False

    def why_not(self, store: FeatureStore) -> str | None:
        if importlib.util.find_spec("transformers") is None:
            return "it needs a package that is not installed: pip install transformers"
        return None

    def made_of(self, store: FeatureStore) -> dict[str, Any]:
        spec: dict[str, Any] = self._encoder(store).spec
        return spec

    def factory(self, count: int) -> str | None:
        return "IVF100,PQ64" if count > SCORED_AT_MOST else None

    def _encoder(self, store: FeatureStore) -> Any:
        """What makes it, loaded once for all who ask; downloaded if it is named and not here."""
        try:
            if self._model is None and _spec(store):
                return shared_encoder(_spec(store))
            encoder = create_encoder(CLIP, weights=self._model)
        except EncoderError as error:
            listed = [name for name in store.manifest.get("spaces", {}) if name != self.name]
            raise EngineError(
                f"{error}. To do without the space {self.name}: create_index.py --spaces {','.join([VISUAL, *listed])}"
            ) from error
        share_encoder(encoder)
        return encoder


class ClipScorer:
    """Scores pictures by the cosine of a text. Safe to use from many threads.

    Up to `SCORED_AT_MOST` pictures are all scored; of more, the nearest `CANDIDATES` by the index.

    Attributes
    ----------
    unknown : int64 (n,)
        Pictures of which the space knows nothing, as they could not be read.
    """

    def __init__(self, encoder: Any, space: Space, nearest: Nearest) -> None:
        self._encoder = encoder
        self._space = space
        self._nearest = nearest
        self._lock = threading.Lock()
        self._last: tuple[str, tuple[NDArray[np.float32], tuple[str, ...]]] | None = None
        ids = space.ids
        blocks = (ids[start : start + ADD_BLOCK] for start in range(0, ids.size, ADD_BLOCK))
        unknown = [block[~space.rows(block).any(axis=1)] for block in blocks]
        self.unknown: NDArray[np.int64] = np.concatenate([*unknown, np.empty(0, np.int64)])

    def score(self, text: str, ids: NDArray[np.int64] | None = None, *, k: int = 1) -> TextScores:
        """See `search.words.TextScorer`. Raises QueryError for a text without a word."""
        asked, hints = self._asked(text)
        shown = self._space.ids if ids is None else np.sort(ids)
        if shown.size > SCORED_AT_MOST:
            shown = np.sort(self._nearest(asked, max(CANDIDATES, k), ids))
        scores = np.empty(shown.size, np.float32)
        for start in range(0, shown.size, ADD_BLOCK):
            rows = self._space.rows(shown[start : start + ADD_BLOCK])
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            scores[start : start + ADD_BLOCK] = rows @ asked / np.where(lengths == 0, 1, lengths)
        nothing = np.zeros(shown.size, np.float32)
        best = -np.sort(-scores)[:FEEDBACK_COUNT]
        return TextScores(shown, scores, scores, nothing, nothing, float(best.mean()) if best.size else 0.0, hints)

    def _asked(self, text: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """The vector (dim,) of a text, as far as the model reads it, and what it does not read, as hints."""
        with self._lock:
            if self._last is not None and self._last[0] == text:
                return self._last[1]  # who asks for scores asks for hints next
        fitted = self._encoder.fitted([text])
        if not fitted.text.strip():
            raise QueryError("the text has no word")
        hints: tuple[str, ...] = ()
        if fitted.cut:
            cut = " ".join(fitted.cut[0].split())
            more = "…" if len(cut) > _CUT_SHOWN else ""
            hints = (f"the text is longer than the model reads; not looked at: {cut[:_CUT_SHOWN]}{more}",)
        found = self._encoder.encode_text([fitted.text])[0], hints
        with self._lock:
            self._last = text, found
        return found


def _encode(store: FeatureStore, records: Sequence[Record], encoder: Any, vectors: NDArray[np.float16]) -> None:
    """Put the vectors of some pictures into their rows, going on where a run before this one was stopped."""
    source = store.manifest.get("source") or {}
    megapixels = source.get("max_megapixels")
    reading = {
        "root": store.manifest["root"],
        "follow_links": source.get("follow_links") is True,
        "max_pixels": None if megapixels is None else round(megapixels * 1e6),
    }
    in_use = f"the space {CLIP} of {store.folder} is being made by another process"
    with closing(Stage(store.folder / STAGE, in_use)) as stage:
        stage.begin(encoder.spec, vectors.dtype)
        todo = [record for record in records if not stage.has(record.path, (record.size, record.mtime))]
        items = [store.items[record.id] for record in todo]
        if todo and len(todo) < len(records):
            logger.info("going on after %d of %d images", len(records) - len(todo), len(records))
        bar = tqdm(total=len(records), initial=len(records) - len(todo), unit="image", desc=CLIP, disable=None)
        place = 0
        with bar, closing(encode_items(items, encoder, _BATCH, **reading)) as batches:
            for features, facts in batches:
                files = [(record.path, (record.size, record.mtime)) for record in todo[place : place + len(facts)]]
                stage.put(files, features.astype(vectors.dtype), facts)
                place += len(facts)
                bar.update(len(facts))
                for (path, _), fact in zip(files, facts, strict=True):
                    if fact[3] is not None:
                        logger.warning("%s has no place in the space %s: %s", path, CLIP, fact[3])
        for record in records:
            vectors[record.id] = stage.vector(record.path, vectors.dtype)
        stage.remove()


def _asked_encoder(store: FeatureStore) -> Any:
    """The encoder that a collection's space was made by. Raises QueryError if it is not on this machine."""
    spec = _spec(store)
    argument = spec["weights"]["argument"]
    try:
        if not is_here(argument):
            name, _, commit = argument.partition("@")
            raise QueryError(
                f"the space {CLIP} was made by {name}, which is not on this machine: "
                f"hf download {name} --revision {commit}"
            )
        encoder = shared_encoder(spec)
    except EncoderError as error:
        raise QueryError(f"the space {CLIP} cannot be asked: {error}") from error
    if not _is_same(spec, encoder.spec):
        raise QueryError(f"the space {CLIP} was made by another model than {argument} is now: make it again")
    return encoder


def _spec(store: FeatureStore) -> dict[str, Any]:
    """That of the encoder that a collection's space was made by; empty where there is none."""
    return dict(store.manifest.get("spaces", {}).get(CLIP, {}).get("maker") or {})


def _is_same(made: Any, now: dict[str, Any]) -> bool:
    """Whether vectors of two encoders can be compared."""
    return bool(made) and encoder_identity(dict(made)) == encoder_identity(now)
