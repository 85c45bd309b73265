"""Facets of what people and models say, kept and brought up to date with what changes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from features.collection.conditions import Condition
from features.collection.facet_columns import ValueColumn, said_kinds
from features.collection.said_columns import SaidColumns
from features.collection.store import FeatureStore
from search.facet_values import CountedValues, Values, own_values


class SaidFacets:
    """The facets of one collection. For one thread at a time."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._columns: SaidColumns | None = None
        self._made: dict[tuple[str, str], tuple[ValueColumn, Values]] = {}

    def now(self) -> dict[str, CountedValues]:
        """The facets by field; those that say nothing are left out."""
        if not self._store.has_annotations:
            return {}
        said = self._store.annotations
        columns = self._columns = self._columns or SaidColumns(said)
        there, kinds = said_kinds(said)
        plain: dict[str, tuple[str, Callable[[], ValueColumn], Condition | None]] = {
            "favourite": ("Favourite", columns.favourites, None),
            "album": ("Album", columns.albums, Condition("album", "empty")),
            "tag": ("Tag", columns.tags, Condition("tag", "empty")),
        }
        found = {
            name: CountedValues(title, partial(self._values, name, "text", read), none=none)
            for name, (title, read, none) in plain.items()
            if there[name]
        }
        for name, kind in sorted(kinds.items(), key=lambda each: (each[0] != "camera", each[0])):
            found[name] = CountedValues(
                name.replace("_", " ").capitalize(),
                partial(self._values, name, kind, partial(columns.field, name, kind)),
                none=Condition(name, "empty"),
                in_order=kind in ("number", "date"),
            )
        return found

    def _values(self, name: str, kind: str, read: Callable[[], ValueColumn]) -> Values:
        column = read()
        known = self._made.get((name, kind))
        if known is None or known[0] is not column:
            known = self._made[name, kind] = column, own_values(name, kind, column)
        return known[1]
