"""The values of each facet, as conditions and for people, with what counts them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.collection.conditions import Condition, Tree
from features.collection.facet_columns import (
    NumberColumn,
    ValueColumn,
    camera_column,
    date_column,
    label_column,
    path_column,
    size_column,
    years_of,
)
from features.collection.fields import FORMAT_ENDINGS
from features.collection.store import FeatureStore

Ids = NDArray[np.int64]

MAX_DISTINCT = 20
"""Numbers of a field that are values of their own; of more, spans are."""

_SIZES = (10**4, 10**5, 10**6, 10**7)
_FORMATS = {ending: endings[0] for endings in FORMAT_ENDINGS for ending in endings}


@dataclass(frozen=True)
class Values:
    """Entries of pictures and values; `ids` of which picture, `codes` of which value."""

    ids: Ids
    codes: Ids
    trees: tuple[Tree, ...]
    texts: tuple[str, ...]


class CountedValues:
    """The values of a facet, read when they are first asked for.

    Parameters
    ----------
    title : str
    read : callable
    none : Condition, optional
        What pictures without a value are like, where they can be chosen.
    in_order : bool
        Whether values stand in their own order, as years do, and not by how many pictures they have.
    """

    def __init__(
        self, title: str, read: Callable[[], Values], *, none: Condition | None = None, in_order: bool = False
    ) -> None:
        self.title = title
        self._read = read
        self._none = none
        self._in_order = in_order

    @cached_property
    def _values(self) -> Values:
        return self._read()

    def load(self) -> None:
        """Read the values."""
        _ = self._values

    @property
    def has_values(self) -> bool:
        """Whether any picture has a value."""
        return bool(self._values.trees)

    @cached_property
    def trees(self) -> tuple[Tree, ...]:
        return (*self._values.trees, *(() if self._none is None else (self._none,)))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return (*self._values.texts, *(() if self._none is None else ("none",)))

    def counts(self, mask: NDArray[np.bool_]) -> Ids:
        """How many of the masked pictures have each value, int64 (n,)."""
        values = self._values
        counts = np.bincount(values.codes[mask[values.ids]], minlength=len(values.trees))
        if self._none is None:
            return counts
        without = mask.copy()
        without[values.ids] = False
        return np.append(counts, np.count_nonzero(without))

    def first(self, counts: Ids, limit: int) -> list[int]:
        """Places of the values to show, at most so many, none without a picture."""
        some = np.flatnonzero(counts)
        if self._in_order:
            return [int(place) for place in some[:limit]]
        if some.size > 4 * limit:  # of thousands only the most frequent are looked at one by one
            least = np.partition(counts[some], some.size - limit)[some.size - limit]
            some = some[counts[some] >= least]
        texts = self.texts
        return sorted(map(int, some), key=lambda place: (-counts[place], texts[place].casefold()))[:limit]


def fixed_facets(store: FeatureStore) -> dict[str, CountedValues]:
    """Facets of what files say, by field; those without a value are left out."""
    catalog, no_label, no_camera = store.catalog, Condition("label", "empty"), Condition("camera", "empty")
    found = {
        "label": CountedValues("Label", lambda: plain_values("label", label_column(catalog)), none=no_label),
        "folder": CountedValues("Folder", lambda: _folders(path_column(catalog, "folder"))),
        "date": CountedValues("Year", lambda: _years("date", date_column(catalog)), in_order=True),
        "size": CountedValues("Size", lambda: _sizes(size_column(catalog)), in_order=True),
        "format": CountedValues("Format", lambda: _formats(path_column(catalog, "ending"))),
        "camera": CountedValues("Camera", lambda: plain_values("camera", camera_column(catalog)), none=no_camera),
    }
    return {field: each for field, each in found.items() if each.has_values}


def plain_values(field: str, column: ValueColumn) -> Values:
    """Each value is one that a picture is to have."""
    trees = tuple(Condition(field, "eq", value) for value in column.values)
    return Values(column.ids, column.codes, trees, tuple(map(str, column.values)))


def own_values(name: str, kind: str, column: ValueColumn) -> Values:
    """Those of a field of a kind that people and models fill."""
    if kind in ("text", "yes/no"):
        return plain_values(name, column)
    numbers = NumberColumn(column.ids, np.array(column.values)[column.codes])
    if kind == "date":
        return _years(name, numbers)
    if len(column.values) <= MAX_DISTINCT:
        ordered = np.argsort(np.array(column.values), kind="stable")
        ranks = np.argsort(ordered)
        values = tuple(column.values[place] for place in ordered)
        return plain_values(name, ValueColumn(column.ids, ranks[column.codes], values))
    return _spans(name, numbers)


def _folders(column: ValueColumn) -> Values:
    """A picture is in its folder and in all around it."""
    places: dict[str, int] = {}
    around: list[list[int]] = []
    for folder in map(str, column.values):
        parts = folder.split("/")
        names = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        around.append([places.setdefault(name, len(places)) for name in names])
    depths = np.array([len(each) for each in around], np.int64)
    begins = np.concatenate([[0], np.cumsum(depths)])
    flat = np.array([place for each in around for place in each], np.int64)
    times = depths[column.codes]
    steps = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    codes = flat[np.repeat(begins[column.codes], times) + steps] if times.size else flat
    return plain_values("folder", ValueColumn(np.repeat(column.ids, times), codes, tuple(places)))


def _formats(column: ValueColumn) -> Values:
    """Endings that mean the same format are one value."""
    names = [_FORMATS.get(str(ending), str(ending)) for ending in column.values]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    codes = np.array([places[name] for name in names], np.int64)
    return plain_values("format", ValueColumn(column.ids, codes[column.codes] if codes.size else codes, tuple(places)))


def _years(field: str, column: NumberColumn) -> Values:
    """Years, the latest first."""
    years, codes = np.unique(-years_of(column.numbers), return_inverse=True)
    texts = tuple(f"{-year:04d}" for year in years)
    return Values(column.ids, codes.reshape(-1), tuple(Condition(field, "eq", text) for text in texts), texts)


def _sizes(column: NumberColumn) -> Values:
    """Sizes of files, by powers of ten."""
    least, most = 0, 2**62
    bounds = (least, *_SIZES, most)
    trees = [Condition("size", "between", (low, high - 1)) for low, high in pairwise(bounds)]
    shown = [_bytes(size) for size in _SIZES]
    texts = [f"under {shown[0]}", *(f"{low} to {high}" for low, high in pairwise(shown)), f"over {shown[-1]}"]
    return _in_spans(column, bounds[1:-1], trees, texts)


def _spans(field: str, column: NumberColumn) -> Values:
    """Spans of a number that hold about as many pictures each, between numbers that are easily read."""
    cuts = np.quantile(column.numbers.astype(np.float64), np.arange(1, 8) / 8)
    bounds = sorted({_rounded(float(cut)) for cut in cuts})
    low, high = column.numbers.min().item(), column.numbers.max().item()
    bounds = [bound for bound in bounds if low < bound <= high]
    ends = [low, *bounds, high]
    whole = column.numbers.dtype.kind == "i" and all(bound.is_integer() for bound in bounds)
    lasts = [int(bound) - 1 if whole else math.nextafter(bound, -math.inf) for bound in bounds]
    trees = [Condition(field, "between", span) for span in zip(ends[:-1], [*lasts, high], strict=True)]
    texts = [f"{begin:g} to {end:g}" for begin, end in pairwise(ends)]
    return _in_spans(column, bounds, trees, texts)


def _in_spans(column: NumberColumn, bounds: Iterable[float], trees: Sequence[Tree], texts: Sequence[str]) -> Values:
    codes = np.searchsorted(np.array(list(bounds)), column.numbers, "right")
    return Values(column.ids, codes.astype(np.int64), tuple(trees), tuple(texts))


def _rounded(number: float) -> float:
    """To two digits."""
    return float(f"{number:.1e}")


def _bytes(size: int) -> str:
    return f"{size // 10**6} MB" if size >= 10**6 else f"{size // 1000} kB"
