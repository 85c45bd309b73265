"""Words from the encoder itself: the classes that it sees in a picture, and what they are kinds of.

The stored vector gives the probability of each class. That of "dog" is the sum of those of all classes below it in
WordNet's tree, so a picture whose breed is uncertain is still surely a dog. What is surer than `CERTAIN_ENOUGH` is a
tag. The bound gives nine right tags in ten, on held-out pictures of Caltech101: ``python -m benchmarks.tags``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.concepts import no_words, synsets_above
from features.encoders import Encoder, EncoderError, shared_encoder
from features.makers.base import MakerError, MakerOptions, WordMaker
from features.wordnet.hypernyms import hypernyms

CERTAIN_ENOUGH = 0.6

MIN_ABOVE = 7
"""Synsets with fewer than these above them, themselves counted, say nothing: entity, object, artifact, living thing."""


class ClassTags:
    """Tags from class probabilities.

    Attributes
    ----------
    names : tuple of str
        Of each tag: the classes, and what is above them in the tree.
    synsets : tuple of str
        Of each tag its synset in WordNet 3.0, "" for a class that the tree does not have.
    """

    def __init__(self, encoder: Encoder) -> None:
        tree = hypernyms()
        classes: defaultdict[str, set[int]] = defaultdict(set)
        for place, above in enumerate(synsets_above(encoder)):
            for synset in above:
                if len(tree.closure(synset)) >= MIN_ABOVE:
                    classes[synset].add(place)
        named: dict[str, tuple[str, set[int]]] = {}
        for place, name in enumerate(encoder.classes):
            named.setdefault(name, ("", set()))[1].add(place)
        for synset, places in sorted(classes.items()):
            # Of two meanings of one noun the second takes its next name, as the crane that is no bird.
            for name in tree.lemmas(synset):
                if name not in named or named[name][1] <= places:
                    named[name] = (synset, places)
                    break
        self.names = tuple(named)
        self.synsets = tuple(synset for synset, _ in named.values())
        self._members = np.zeros((len(encoder.classes), len(named)), np.float32)
        for column, (_, places) in enumerate(named.values()):
            self._members[sorted(places), column] = 1

    def certainties(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """How probable each tag is, float32 (n, tags), from class probabilities (n, classes)."""
        return np.minimum(probabilities @ self._members, 1)


class ClassMaker(WordMaker):
    """Tags a picture with what the collection's encoder sees in it. No picture is opened, nothing is downloaded."""

    batch_size = 1024

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        try:
            self._encoder = shared_encoder(store.manifest["encoder"])
        except EncoderError as error:
            raise MakerError(str(error)) from error
        if not self._encoder.classes:
            raise MakerError(no_words(self._encoder.name))
        self.maker = Maker("model", self._encoder.name)
        made_of = json.dumps(
            [self._encoder.spec.get("weights"), CERTAIN_ENOUGH, MIN_ABOVE], sort_keys=True, default=str
        )
        self.version = sha256_of(made_of.encode())[:16]
        self._tags = ClassTags(self._encoder)

    def words_of(self, records: Sequence[Record]) -> list[Words]:
        features = self.store.features[[record.id for record in records]]
        probabilities = np.asarray(self._encoder.classify(features), np.float32)
        usable = np.isin([record.id for record in records], self.store.ids)
        certain = self._tags.certainties(probabilities)
        return [
            Words(tags={self._tags.names[place]: round(float(row[place]), 3) for place in np.flatnonzero(told)})
            for row, told in zip(certain, (certain >= CERTAIN_ENOUGH) & usable[:, None], strict=True)
        ]
