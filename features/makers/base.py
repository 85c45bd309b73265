"""What every maker of words is, and makers by name. A new one is a module and one line in `_CLASSES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.images import ImageError
from features.picture_files import read_picture, stored_pixels


class MakerError(ValueError):
    """A maker cannot be made, or cannot say anything; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class MakerOptions:
    """What makers may be told.

    Attributes
    ----------
    file : Path or None
        The table that captions, tags and fields are read from.
    model : str or None
        A folder of a model, or its name on the Hugging Face hub: which one writes captions, or tags.
    vocabulary : Path or None
        A text file of the tags that there are, one a line.
    """

    file: Path | None = None
    model: str | None = None
    vocabulary: Path | None = None


class WordMaker(ABC):
    """Says words of the pictures of a collection.

    Attributes
    ----------
    maker : Maker
        Under which name: it replaces its own words and nobody else's.
    version : str
        Of all that the words depend on beside the pictures. Pictures that were done in another version are done again.
    reads_content : bool
        Whether the words depend on the content of a picture file; they go when that changes.
    batch_size : int
        Pictures whose words are kept at a time: a run that is stopped goes on after the last whole batch.
    notes : list of str
        Sentences for who asked, as they come up: what could not be read, or not be placed.
    """

    maker: Maker
    version: str
    reads_content: bool = True
    batch_size: int = 256

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        self.store = store
        self.notes: list[str] = []

    @abstractmethod
    def words_of(self, records: Sequence[Record]) -> Sequence[Words | None]:
        """The words of each of some pictures: empty ones where it has nothing to say, None where it could not look.

        A picture that it could not look at, as its drive is away, is looked at again the next time.
        """

    def read(self, path: Path) -> bytes:
        """The content of a file below the collection's root. Raises ImageError if it cannot be read."""
        source = self.store.manifest.get("source") or {}
        return read_picture(self.store.manifest["root"], path, follow_links=source.get("follow_links") is True)

    def pictures(self, records: Sequence[Record]) -> tuple[dict[int, NDArray[np.uint8]], list[Words | None]]:
        """Those of some pictures that can be read, by their place, and what is said of all that cannot: see `words_of`.

        What cannot be read is a sentence in `notes`.
        """
        read: dict[int, NDArray[np.uint8]] = {}
        said: list[Words | None] = [Words()] * len(records)
        for place, record in enumerate(records):
            try:
                read[place] = self.pixels(record)
            except ImageError as error:
                self.notes.append(str(error))
                said[place] = Words() if error.errno is None else None  # it may be there the next time
        return read, said

    def pixels(self, record: Record) -> NDArray[np.uint8]:
        """A picture of the collection, uint8 (H, W, 3). Raises ImageError if it cannot be read."""
        return stored_pixels(self.store.manifest, record.path)


_CLASSES: dict[str, str | Callable[[FeatureStore, MakerOptions], WordMaker]] = {
    "label": "features.makers.labels:LabelMaker",
    "file": "features.makers.files:file_maker",
    "model": "features.makers.model:ClassMaker",
    "learned": "features.makers.learned:LearnedMaker",
    "ocr": "features.makers.ocr:TextMaker",
    "blip": "features.makers.captioner:Blip",
    "caption": "features.makers.captioner:Captioner",
    "moondream": "features.makers.captioner:Moondream",
    "clip": "features.makers.vocabulary:VocabularyMaker",
}


def register_maker(name: str, target: str | Callable[[FeatureStore, MakerOptions], WordMaker]) -> None:
    """Let `create_maker` make a maker of this name; one that is known by it already is replaced.

    Parameters
    ----------
    target : str or callable
        ``"package.module:Class"``, imported when the maker is made, or the class: ``Class(store, options)``.
    """
    if isinstance(target, str) and not all(target.partition(":")):
        raise ValueError(f'target must be "package.module:Class", got {target!r}')
    _CLASSES[name] = target


def maker_names() -> tuple[str, ...]:
    """What `create_maker` takes."""
    return tuple(_CLASSES)


def create_maker(name: str, store: FeatureStore, options: MakerOptions | None = None) -> WordMaker:
    """Make a maker by name.

    Raises
    ------
    MakerError
        There is none of this name, or it lacks what it needs; the message says what.
    """
    if name not in _CLASSES:
        raise MakerError(f"unknown maker {name!r}; there are {', '.join(_CLASSES)}")
    target = _CLASSES[name]
    if isinstance(target, str):
        module, _, attribute = target.partition(":")
        target = getattr(import_module(module), attribute)
        assert callable(target)
    return target(store, options or MakerOptions())
