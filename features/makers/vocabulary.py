"""Tags from a vocabulary of one's own, by CLIP or SigLIP, which no one has trained for these words (zero-shot).

A picture is compared with "This is a photo of <tag>." for each tag. Kept is what is at least `CERTAIN_ENOUGH` probable:
by SigLIP, a tag that fits rather than not, each for itself; by CLIP, one that fits better than all others together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import encoder_identity
from features.collection.records import Record
from features.collection.said import Maker, Words, clean_tag
from features.collection.store import FeatureStore
from features.collection.vector_file import map_vectors
from features.encoders import EncoderError, create_encoder, shared_encoder
from features.makers.base import MakerError, MakerOptions, WordMaker
from features.makers.tables import check_file
from features.paths import expanded

CERTAIN_ENOUGH = 0.5
PROMPT = "This is a photo of {}."
MAX_TAGS = 100_000

SPACE = "clip"


class VocabularyMaker(WordMaker):
    """Tags a picture with what of a vocabulary is seen in it.

    The model is the one that is named, or that of the collection's space `clip`, or the default of
    `features.encoders.clip`. Pictures whose vectors that space holds are not opened.

    Raises
    ------
    MakerError
        There is no vocabulary, or the model cannot be had.
    """

    batch_size = 64

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        if options.vocabulary is None:
            raise MakerError("clip chooses from tags that you give it: --vocabulary FILE, with one tag a line")
        self._tags = _read(options)
        self._named = options.model
        self.maker = Maker("model", f"clip: {expanded(options.vocabulary).name}")

    @cached_property
    def version(self) -> str:  # type: ignore[override]  # asked late: what was said is taken back without the model
        made_of = [self._encoder.spec["weights"]["sha256"], str(CERTAIN_ENOUGH), PROMPT, *self._tags]
        return sha256_of("\n".join(made_of).encode())[:16]

    @cached_property
    def _encoder(self) -> Any:
        entry = self.store.manifest.get("spaces", {}).get(SPACE)
        try:
            if self._named is None and entry:
                return shared_encoder(entry["maker"])
            return create_encoder("clip", weights=self._named)
        except EncoderError as error:
            raise MakerError(str(error)) from error

    def words_of(self, records: Sequence[Record]) -> list[Words | None]:
        vectors = np.zeros((len(records), self._encoder.dim), np.float32)
        if self._stored is not None:
            vectors[:] = self._stored[[record.id for record in records]]
        unknown = np.flatnonzero(~vectors.any(axis=1))
        pictures, unread = self.pictures([records[place] for place in unknown.tolist()])
        if pictures:
            vectors[unknown[list(pictures)]] = self._encoder.encode(list(pictures.values()))
        said: list[Words | None] = [Words()] * len(records)
        for place, words in zip(unknown.tolist(), unread, strict=True):
            said[place] = words
        found = self._encoder.probabilities(vectors, self._texts)
        for place in np.flatnonzero(vectors.any(axis=1)).tolist():
            tags = np.flatnonzero(found[place] >= CERTAIN_ENOUGH)
            said[place] = Words(tags={self._tags[tag]: round(float(found[place, tag]), 3) for tag in tags.tolist()})
        return said

    @cached_property
    def _texts(self) -> NDArray[np.float32]:
        """Vectors of the tags, (tags, dim)."""
        vectors: NDArray[np.float32] = self._encoder.encode_text([PROMPT.format(tag) for tag in self._tags])
        return vectors

    @cached_property
    def _stored(self) -> NDArray[Any] | None:
        """The vectors of the collection's space, row = id; None where there is none of this model and of now."""
        entry = self.store.manifest.get("spaces", {}).get(SPACE)
        if not entry or encoder_identity(entry["maker"]) != encoder_identity(self._encoder.spec):
            return None
        if any(ids.size for ids in self.store.changes_since(entry.get("generation") or 0)):
            return None
        try:
            found: NDArray[Any] = map_vectors(self.store.folder, entry)
        except (OSError, ValueError, EOFError):  # it can be made again; the pictures are here
            return None
        return found if found.shape == (len(self.store.features), self._encoder.dim) else None


def _read(options: MakerOptions) -> tuple[str, ...]:
    """The tags of a vocabulary file, each once, in its order. Raises MakerError if there are none, or too many."""
    assert options.vocabulary is not None
    path = expanded(options.vocabulary)
    check_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MakerError(f"{path} is not in UTF-8 (byte {error.start:,})") from error
    except OSError as error:
        raise MakerError(f"{path} cannot be read: {error.strerror or error}") from error
    tags = tuple(dict.fromkeys(tag for line in text.splitlines() if (tag := clean_tag(line))))
    if not tags:
        raise MakerError(f"{path} has no tag: write one a line")
    if len(tags) > MAX_TAGS:
        raise MakerError(f"{path} has {len(tags):,} tags; at most {MAX_TAGS:,} are compared")
    return tags
