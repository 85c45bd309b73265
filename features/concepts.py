"""Text finds pictures that nobody captioned: pictures and words as vectors of sentences.

An encoder with a classifier knows of each picture x how probable each of its classes c is, and what a class means can
be said in a sentence, whose vector is e_c. A picture then lies where the classes that it shows lie, and words lie near
what they mean (ConSE: Norouzi et al. 2014, "Zero-shot learning by convex combination of semantic embeddings"):

    e_c = unit vector of "lemmas: definition" of class c,   m = mean of all e_c
    picture x  ->  unit(sum_c p'_c(x) e_c - m)      p' = softmax(logits / 2) over all classes
    text q     ->  unit(v(q) - m)                   v = the mean of what q says and of the definitions of what it names

Without subtracting m all pictures would be alike, since they have most of their small probabilities in common. At
temperature 2 the classes that a picture nearly shows speak, too: they tell what else it is like.

A text that names a synset of WordNet is also answered by the probability that the picture shows one of the classes
below it ("bird": 59 of them), with weight 1/4. The pictures that are found first then say what else is meant: half the
cosine to their mean vector is added, both standardised (pseudo-relevance feedback: Rocchio 1971).

No label, file name or caption of a picture is read. What is far from all classes cannot be found, nor can colours,
scenes, counts or relations. docs/WORDS.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.encoders.base import Encoder, EncoderError
from features.encoders.sentence import Reading, SentenceEncoder
from features.kept import kept
from features.wordnet.definitions import definitions
from features.wordnet.hypernyms import hypernyms

Vectors = NDArray[np.float32]

TEMPERATURE = 2.0
TREE_WEIGHT = 0.25
FEEDBACK_WEIGHT = 0.5
FEEDBACK_COUNT = 10
"""Pictures found first that say what else is meant."""

WEAK = 0.4
"""Mean score of the ten best below which an answer may be wrong: so are a third of the wrong ones, an eighth of the
right ones."""

_BLOCK = 4096  # pictures at a time: 32 MiB of their vectors as float32


def no_words(encoder_name: str) -> str:
    """What is said of a collection whose encoder has no classes."""
    return (
        f"its encoder {encoder_name} has no classes, so words have no meaning there; an encoder with a classifier "
        "gives it words: efficientnet-lite0, resnet50, or a file of python -m features.train"
    )


class Concepts:
    """Pictures, by their stored vectors, and texts in one space.

    Parameters
    ----------
    encoder : Encoder
        With a classifier. ImageNet's 1,000 classes are known by their synsets, others by their names: a name that is a
        noun of ImageNet-22k brings its definitions, and one that WordNet's tree has, its place there.
    sentences : SentenceEncoder

    Attributes
    ----------
    dim : int
        Length of a vector.

    Raises
    ------
    EncoderError
        The encoder has no classes.
    """

    def __init__(self, encoder: Encoder, sentences: SentenceEncoder) -> None:
        if not encoder.classes:
            raise EncoderError(no_words(encoder.name))
        self._encoder = encoder
        self._sentences = sentences
        self.dim = sentences.dim

    @cached_property
    def class_vectors(self) -> Vectors:
        """Unit vectors of the classes, float32 (classes, dim). Making them takes seconds, so they are kept."""
        texts = definitions().imagenet if self._is_imagenet else self._encoder.classes
        encode: Callable[[Sequence[str]], Vectors] = self._sentences.encode if self._is_imagenet else self._meanings
        named = sha256_of("\0".join((self._sentences.sha256, encode.__name__, *texts)).encode())
        return kept(f"classes-{named}", (len(texts), self.dim), lambda: encode(texts))

    @cached_property
    def mean(self) -> Vectors:
        """The mean class vector, float32 (dim,)."""
        mean: Vectors = self.class_vectors.mean(axis=0)
        return mean

    def probabilities(self, features: NDArray[np.floating]) -> Vectors:
        """Class probabilities, float32 (n, classes) with sums of 1, from stored vectors (n, d) of any float type."""
        likely = self._encoder.classify(features)
        return _normalized(likely, likely.sum(axis=1, keepdims=True))

    def encode_features(self, features: NDArray[np.floating]) -> Vectors:
        """Where pictures lie, unit float32 (n, dim), from their stored vectors (n, d) of any float type."""
        vectors = np.empty((len(features), self.dim), np.float32)
        for start in range(0, len(features), _BLOCK):
            tempered = self.probabilities(features[start : start + _BLOCK]) ** (1 / TEMPERATURE)
            seen = _normalized(tempered, tempered.sum(axis=1, keepdims=True))
            vectors[start : start + _BLOCK] = unit(seen @ self.class_vectors - self.mean)
        return vectors

    def contributions(self, features: NDArray[np.floating], asked: Vectors) -> Vectors:
        """What each class adds to the cosine of a picture and a text: float32 (classes,), which sums to it.

        Parameters
        ----------
        features : float (1, d)
            Stored vector of the picture.
        asked : float32 (dim,)
            As `encode_text` gives it.
        """
        tempered = self.probabilities(features) ** (1 / TEMPERATURE)
        seen = tempered / tempered.sum()
        length = np.linalg.norm(seen @ self.class_vectors - self.mean)
        added: Vectors = seen[0] * ((self.class_vectors - self.mean) @ asked) / max(float(length), 1e-12)
        return added

    def encode_text(self, text: str) -> Vectors:
        """Where a text lies, unit float32 (dim,)."""
        return unit(self._meanings([text]) - self.mean)[0]

    def read(self, text: str) -> Reading:
        """What the sentence model makes of a text."""
        return self._sentences.read(text)

    def classes_below(self, text: str) -> NDArray[np.int64]:
        """Classes that are what a text names, or a kind of it; none where WordNet's tree has no such noun."""
        named = set(hypernyms().synsets(text))
        return np.array([place for place, above in enumerate(self._above) if named & above], dtype=np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._encoder.classes

    @cached_property
    def _is_imagenet(self) -> bool:
        return _has_imagenet_classes(self._encoder)

    @cached_property
    def _above(self) -> list[frozenset[str]]:
        return synsets_above(self._encoder)

    def _meanings(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, dim) of texts: of each the mean of its own and of the definitions of what it names."""
        defined = [definitions().of(text) for text in texts]
        vectors = self._sentences.encode([*texts, *(line for lines in defined for line in lines)])
        said, meant = vectors[: len(texts)].copy(), vectors[len(texts) :]
        start = 0
        for row, lines in enumerate(defined):
            if lines:
                said[row] += unit(meant[start : start + len(lines)].mean(axis=0, keepdims=True))[0]
            start += len(lines)
        return unit(said)


def synsets_above(encoder: Encoder) -> list[frozenset[str]]:
    """Of each class of an encoder, itself and all that it is a kind of, as synsets of WordNet's tree."""
    tree = hypernyms()
    if _has_imagenet_classes(encoder):
        return [tree.closure(synset.removeprefix("n")) for synset in definitions().imagenet_synsets]
    return [frozenset().union(*map(tree.closure, tree.synsets(name))) for name in encoder.classes]


def _has_imagenet_classes(encoder: Encoder) -> bool:
    from features.encoders.weights import imagenet_classes

    return encoder.classes == imagenet_classes()


def standardized(scores: Vectors, among: Vectors | None = None) -> Vectors:
    """Scores (n,) less their mean, by their standard deviation: of `among`, by default of themselves."""
    among = scores if among is None else among
    deviation = among.std()
    zero: Vectors = np.zeros_like(scores)
    return (scores - among.mean()) / deviation if deviation > 0 else zero


def unit(vectors: Vectors) -> Vectors:
    """Vectors (n, d) with a length of 1; zero stays zero."""
    return _normalized(vectors, np.linalg.norm(vectors, axis=1, keepdims=True))


def _normalized(rows: Vectors, by: Vectors) -> Vectors:
    quotient: Vectors = np.divide(rows, by, out=np.zeros_like(rows), where=by > 0)
    return quotient
