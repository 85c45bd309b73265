"""Tags that were learnt from examples suggest themselves for pictures: see `features.collection.learned_tags`.

A suggestion is a tag of this maker with its certainty. A person confirms it by giving the picture the tag, and refuses
it by taking the tag away; what was refused is not suggested again (`features.collection.edits`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.checksum import sha256_of
from features.collection.learned_tags import fingerprint, learned_tags
from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.makers.base import MakerError, MakerOptions, WordMaker

CERTAIN_ENOUGH = 0.9


class LearnedMaker(WordMaker):
    """Suggests the learned tags of a collection by its stored vectors. No picture is opened."""

    batch_size = 1024
    maker = Maker("model", "learned")

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        known = learned_tags(store.annotations) if store.has_annotations else {}
        suggests = store.has_annotations and self.maker in {each.maker for each in store.annotations.makers()}
        own = fingerprint(store.manifest["encoder"])
        self._tags = [each for each in known.values() if each.encoder == own]
        others = [name for name, each in known.items() if each.encoder != own]
        told = "learnt from vectors of another encoder than this collection's: learn it again"
        self.notes = [f"{name} was {told}" for name in others]
        if not self._tags and not suggests:  # else what it has suggested is taken back
            raise MakerError("; ".join(self.notes) or "no tag has been learnt here yet: see python -m search --keep")
        made_of = [(each.tag, each.vector.tobytes().hex(), each.middle, each.slope, each.less) for each in self._tags]
        self.version = sha256_of(repr((made_of, CERTAIN_ENOUGH)).encode())[:16]

    def words_of(self, records: Sequence[Record]) -> list[Words]:
        ids = [record.id for record in records]
        features = np.asarray(self.store.features[ids], np.float32)
        usable = np.isin(ids, self.store.ids)
        suggested: list[dict[str, float | None]] = [{} for _ in ids]
        for each in self._tags:
            certain = each.certainties(features)
            told = (certain >= CERTAIN_ENOUGH) & usable & ~np.isin(ids, each.less)
            for place in np.flatnonzero(told).tolist():
                suggested[place][each.tag] = round(float(certain[place]), 3)
        return [Words(tags=tags) for tags in suggested]
