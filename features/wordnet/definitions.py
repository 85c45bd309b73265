"""The definitions of ImageNet-22k's synsets, of which timm carries the list."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from features.lazy_compiler import lazy_compiler
from features.torchvision_ops import declare_operators
from features.wordnet.nouns import forms


class Definitions:
    """Synsets by the nouns that name them.

    A synset is a meaning: ``n02084071``, named by "dog", "domestic dog" and "Canis familiaris".

    Attributes
    ----------
    imagenet : tuple of str
        ImageNet's 1,000 classes as "lemmas: definition", in the order that all networks use.
    """

    def __init__(self) -> None:
        declare_operators()  # before timm, which imports torchvision
        with lazy_compiler():
            from timm.data import ImageNetInfo

        self.imagenet = tuple(ImageNetInfo("imagenet-1k").label_descriptions(detailed=True))
        self.imagenet_synsets = tuple(ImageNetInfo("imagenet-1k").label_names())
        known = ImageNetInfo("imagenet-22k")
        synsets = known.label_names()
        self._described = dict(zip(synsets, known.label_descriptions(detailed=True), strict=True))
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        for synset, lemmas in zip(synsets, known.label_descriptions(), strict=True):
            for lemma in dict.fromkeys(lemmas.lower().split(", ")):
                self._named[lemma].append(synset)

    def of(self, text: str) -> tuple[str, ...]:
        """ "Lemmas: definition" of each synset that a text names; empty where it names none."""
        return tuple(self._described[synset] for synset in self.synsets(text))

    def synsets(self, text: str) -> tuple[str, ...]:
        """The synsets that a text names as it stands, or else in the singular."""
        return next((tuple(self._named[form]) for form in forms(text) if form in self._named), ())


@cache
def definitions() -> Definitions:
    """The definitions, read at the first call."""
    return Definitions()
