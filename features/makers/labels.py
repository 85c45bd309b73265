"""Words from the labels of a dataset: each is a tag, and together they are a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.datasets.voc import VOC2012, object_counts
from features.makers.base import MakerOptions, WordMaker

_NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PLURALS = {"person": "people", "sheep": "sheep", "bus": "buses", "mouse": "mice", "knife": "knives", "man": "men"}
# As PASCAL VOC writes them.
_SPELLINGS = {
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "TV monitor",
}


class LabelMaker(WordMaker):
    """The labels of each picture, with how many of each thing are in it where the dataset says so."""

    maker = Maker("label", "labels")
    reads_content = False
    batch_size = 4096

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        self.version = f"1 generation {store.generation}"  # a sync may bring other labels
        self._labels = store.catalog.labels_by_image()
        self._is_voc = (store.manifest.get("source") or {}).get("kind") == VOC2012.kind

    def words_of(self, records: Sequence[Record]) -> list[Words]:
        return [self._words(record) for record in records]

    def _words(self, record: Record) -> Words:
        labels = self._labels.get(record.id, ())
        if not labels:
            return Words()
        counts = self._counts(record.path) if self._is_voc else {}
        sentence = composed(counts) if counts else " and ".join(map(readable, labels))
        return Words({sentence: None}, dict.fromkeys(labels))

    def _counts(self, picture: Path) -> Mapping[str, int]:
        annotation = Path(self.store.manifest["root"], "Annotations", f"{picture.stem}.xml")
        try:
            return object_counts(annotation)
        except (OSError, SyntaxError):  # of the parser, too: then the labels alone are known
            return {}


def readable(label: str) -> str:
    """A label as one reads it: "water_lilly" is "water lilly"."""
    return _SPELLINGS.get(label, label.replace("_", " ").strip())


def composed(counts: Mapping[str, int]) -> str:
    """A sentence of how many of each thing there are, the most frequent first: "two dogs and a person"."""
    said = [
        _counted(readable(name), count) for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    ]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _counted(name: str, count: int) -> str:
    if count == 1:
        return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    return f"{_NUMBERS[count] if count < len(_NUMBERS) else count} {_plural(name)}"


def _plural(name: str) -> str:
    first, space, last = name.rpartition(" ")
    plural = _PLURALS.get(last.lower())
    if plural is None:
        plural = f"{last}es" if last.endswith(("s", "x", "z", "ch", "sh")) else f"{last}s"
        if last.endswith("y") and last[-2:-1] not in "aeiou":
            plural = f"{last[:-1]}ies"
    return f"{first}{space}{plural}"
