"""What a person may be about to type in the search box: labels, tags and fields of a collection, and their values."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice, takewhile

from features.collection.conditions import Condition
from features.collection.fields import field_names, known_field
from features.collection.folding import folded
from features.collection.learned_tags import example_counts
from features.collection.store import FeatureStore
from search.filters import Filter
from search.grammar import MAX_TEXT, write_terms
from search.query import Query, TagPart

LIMIT = 8
MAX_WORDS = 4
"""Words without a field that may be the beginning of one label or tag."""

_MOST = 50_000  # values of a field that are known
_TERMS = re.compile(r'(?:\\.|"(?:\\.|[^"\\])*(?:"|\\?\Z)|[^\s()"\\])+', re.DOTALL)
_FIELD = re.compile(r"(?P<sign>-?)(?P<field>[^\W\d][\w.\-]*):(?P<others>(?:.*\|)?)(?P<value>.*)", re.DOTALL)
_WORDS = re.compile(rf'(?<![^\s(])-?(?:[^\s()"\\:|^~*]+ ){{0,{MAX_WORDS - 1}}}[^\s()"\\:|^~*]+\Z')


@dataclass(frozen=True)
class Suggestion:
    """What can be typed on.

    Attributes
    ----------
    text : str
        All that is typed up to the cursor, with this at its end.
    shown, kind : str
        What it is, for people: "sea lion", "label".
    count : int or None
        How many pictures it is said of, or a tag was learnt from, where that is counted.
    """

    text: str
    shown: str
    kind: str
    count: int | None = None


class Suggester:
    """Knows what can be asked for in a collection. Safe to use from many threads."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._changes = -1
        self._lists: dict[str, _Counted] = {}

    def suggest(self, typed: str, limit: int = LIMIT) -> list[Suggestion]:
        """What may be meant by the end of a text, the most frequent first.

        Parameters
        ----------
        typed : str
            What stands before the cursor.
        """
        if len(typed) > MAX_TEXT or not typed or typed[-1].isspace():
            return []
        with self._lock:
            self._follow()
            found = nsmallest(limit, self._found(typed), key=lambda each: (-(each.count or 0), each.kind, each.shown))
        return list({each.text: each for each in found}.values())

    def _follow(self) -> None:
        changes = self._store.annotations.changes if self._store.has_annotations else 0
        if changes != self._changes:
            self._lists.clear()
            self._changes = changes

    def _found(self, typed: str) -> Iterator[Suggestion]:
        term = next((each for each in _TERMS.finditer(typed) if each.end() == len(typed)), None)
        field = None if term is None else _FIELD.fullmatch(term[0])
        if term is not None and field is not None:
            name = field["field"].lower()
            before = typed[: term.start()] + field["sign"]
            learned = name in ("tag", "tags") and field["value"].startswith("~")
            beginning = re.sub(r'["\\~]', "", field["value"])
            for value, count in self._values("~" if learned else name, beginning):
                written = f"{field['field']}:{field['others']}{_written(name, value, learned=learned)}"
                yield Suggestion(f"{before}{written} ", value, "learned tag" if learned else name, count)
            return
        words = _WORDS.search(typed)
        if words is None or term is None or '"' in term[0]:
            return
        for start in _starts(words):
            beginning = typed[start:]
            for kind, name in (("label", "label"), ("tag", "tag"), ("learned tag", "~")):
                for value, count in self._values(name, beginning):
                    written = f"{kind.split()[-1]}:{_written(kind, value, learned=name == '~')} "
                    yield Suggestion(typed[:start] + written, value, kind, count)
        start = max(_starts(words))
        for name, _ in self._values("", typed[start:]):
            yield Suggestion(f"{typed[:start]}{name}:", f"{name}:", "field")

    def _values(self, name: str, beginning: str) -> list[tuple[str, int]]:
        """Values of a field that begin so, "" for names of fields and "~" for learned tags; the most frequent first."""
        known = self._lists.get(name)
        if known is None:
            known = _Counted(self._counts(name).items())
            if known and name != "~":  # what is no field is not kept; learning a tag is no change that `_follow` sees
                self._lists[name] = known
        return known.best(beginning)

    def _counts(self, name: str) -> Mapping[str, int]:
        store = self._store
        annotations = store.annotations if store.has_annotations else None
        if name == "~":
            return example_counts(annotations) if annotations else {}
        if not name:
            own = annotations.fields() if annotations else {}
            return dict.fromkeys((*field_names(), *own), 0)
        field = known_field(name)
        known = name if field is None else field.name
        if known == "label":
            return store.labels()
        if known in ("folder", "format"):
            return store.catalog.path_counts("ending" if known == "format" else known)
        if known == "favourite":
            return {"yes": 0, "no": 0}
        if annotations is None:
            return {}
        if known == "tag":
            return annotations.tag_counts(limit=_MOST)
        if known in ("source", "maker"):
            counts: dict[str, int] = {}
            for each in annotations.makers():
                said_by = each.maker.source if known == "source" else each.maker.name
                counts[said_by] = counts.get(said_by, 0) + each.pictures
            return {said_by: count for said_by, count in counts.items() if said_by}
        return annotations.value_counts(name, _MOST) if annotations.fields().get(name) == "text" else {}


class _Counted:
    """Texts and their counts, to be found by their beginnings without regard to case and diacritics."""

    def __init__(self, counts: Iterable[tuple[str, int]]) -> None:
        self._sorted = sorted((folded(text), text, count) for text, count in counts)

    def __len__(self) -> int:
        return len(self._sorted)

    def best(self, beginning: str) -> list[tuple[str, int]]:
        wanted = folded(beginning)
        first = bisect_left(self._sorted, (wanted, "", 0))
        here = takewhile(lambda each: each[0].startswith(wanted), islice(self._sorted, first, None))
        return [(text, count) for _, text, count in nsmallest(LIMIT, here, key=lambda each: (-each[2], each[0]))]


def _starts(words: re.Match[str]) -> list[int]:
    """Where the last word begins, the last two, ...; a minus before the first is none of it."""
    text, start = words[0], words.start()
    begins = [0, *(space.end() for space in re.finditer(" ", text))]
    return [start + begin + (text[begin] == "-" and begin == 0) for begin in begins]


def _written(field: str, value: str, *, learned: bool) -> str:
    """A value as it is typed after a field and a colon."""
    query = (
        Query((TagPart(value, learned=True),)) if learned else Query(filter=Filter(where=Condition(field, "eq", value)))
    )
    return write_terms(query)[0].partition(":")[2]
