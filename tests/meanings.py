"""A classifier and a sentence model that are quick and say what they do, for tests of words."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image
from test_extract import FakeEncoder

from features.encoders.sentence import Reading


class ColourEncoder(FakeEncoder):
    """Tells by the mean colour whether a picture shows a crimson, a viridian or a cerulean thing."""

    name, classes = "colours", ("crimson thing", "viridian thing", "cerulean thing")

    def __init__(self) -> None:
        super().__init__()
        self.spec = {**self.spec, "name": self.name}

    def classify(self, features):
        colours = np.asarray(features, np.float32).reshape(len(features), 4, 3).mean(1)
        odds = np.exp(colours / 32)
        return odds / odds.sum(1, keepdims=True)


class WordSentences:
    """A text's vector is the sum of the vectors of its words."""

    dim, sha256 = 16, "5" * 64

    def encode(self, texts):
        sums = np.array(
            [sum((self.vector(word) for word in text.lower().split()), np.zeros(self.dim)) for text in texts]
        )
        lengths = np.linalg.norm(sums.reshape(-1, self.dim), axis=1, keepdims=True)
        return (sums.reshape(-1, self.dim) / np.maximum(lengths, 1e-12)).astype(np.float32)

    def vector(self, word):
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dim)

    def read(self, text):
        return Reading(len(text.split()), len(text) > 1000)


def paint_colours(root, seed=0, count=12, names=("a", "b", "c")):
    """Folders of red, green and blue pictures, called by any names; returns the paths, the red ones first."""
    generator, paths = np.random.default_rng(seed), []
    for colour, name in enumerate(names):
        for number in range(count):
            pixels = generator.integers(20, 80, (8, 8, 3))
            pixels[..., colour] += 140
            paths.append(root / name / f"{number:02}.png")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths
