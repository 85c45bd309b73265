"""How a collection is to be made: by which encoder, with which index, and what can be searched in it besides."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from features.encoders import encoder_names
from ivfpq import index_factory
from search.build import ENGINES, FACTORY, OWN_ENGINE
from search.clip_space import CLIP
from search.neighbourhood import NEIGHBOURHOOD
from search.spaces import CONCEPTS

QUALITIES = {"fast": 0.9, "balanced": 0.99, "exact": None}
"""What share of what a search of all lists finds an index is tuned to find; exact has no lists."""
EXACT_FACTORY = "Flat"

ENCODERS = {
    "efficientnet-lite0": "EfficientNet-Lite0: comes with the program",
    "efficientnet-lite2": "EfficientNet-Lite2: more accurate, slower",
    "efficientnet-lite2+lite0": "Lite2 and Lite0 together: the most accurate without a download",
    "resnet50": "ResNet50: its weights are downloaded once",
}
INDEXES = {
    FACTORY: f"{FACTORY}: 8 bytes a picture",
    "IVF100,PQ64": "IVF100,PQ64: 64 bytes a picture, finer",
    "IVF100,SQ8": "IVF100,SQ8: a byte for each number of a vector",
}
SPACES = {
    CONCEPTS: "Words, through what the encoder knows (concepts)",
    NEIGHBOURHOOD: "The kind of thing that a picture shows (neighbourhood)",
    CLIP: "Words and pictures, by CLIP (its model is downloaded once)",
}


class RecipeError(ValueError):
    """A collection cannot be made so; the message is a sentence for the person who asked."""


@dataclass(frozen=True)
class Recipe:
    """How a collection is to be made.

    Attributes
    ----------
    encoder : str
    factory : str
        Of the index, as `ivfpq.index_factory` reads it.
    target_recall : float or None
        See `IndexRecipe`.
    engines : tuple of str
        That build an index.
    spaces : tuple of str or None
        Beside that of the encoder. None: those that every collection gets.
    """

    encoder: str = "auto"
    factory: str = FACTORY
    target_recall: float | None = None
    engines: tuple[str, ...] = ENGINES
    spaces: tuple[str, ...] | None = None

    @classmethod
    def chosen(cls, encoder: str, index: str, quality: str, with_faiss: bool, spaces: Sequence[str]) -> Recipe:
        """What the form of the page says. Raises RecipeError where that makes no sense."""
        if encoder not in encoder_names():
            raise RecipeError(f"There is no encoder {encoder}; there are {', '.join(encoder_names())}.")
        if quality not in QUALITIES:
            raise RecipeError(f"A search is one of {', '.join(QUALITIES)}, and {quality} is none of them.")
        if unknown := [name for name in spaces if name not in space_choices()]:
            raise RecipeError(f"There is no space {unknown[0]} that could be made here.")
        factory = EXACT_FACTORY if quality == "exact" else (index or "").strip()
        try:
            index_factory(2048, factory, metric="cosine")
        except ValueError as error:
            raise RecipeError(f"The index cannot be made: {error}.") from error
        engines = ENGINES if with_faiss else (OWN_ENGINE,)
        return cls(encoder, factory, QUALITIES[quality], engines, tuple(spaces))

    @classmethod
    def read(cls, written: dict[str, Any]) -> Recipe:
        """What `written` gave, as JSON brings it."""
        spaces = written["spaces"]
        return cls(**{**written, "engines": tuple(written["engines"]), "spaces": spaces and tuple(spaces)})

    def written(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def encoder_choices() -> dict[str, str]:
    """The encoders that can be chosen, each with what to say of it."""
    return {"auto": "Chosen for you: the best that is here", **ENCODERS}


def space_choices() -> dict[str, str]:
    """The spaces that can be chosen, each with what to say of it."""
    has_clip = importlib.util.find_spec("transformers") is not None
    return {name: title for name, title in SPACES.items() if name != CLIP or has_clip}
