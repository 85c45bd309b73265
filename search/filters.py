"""Which pictures a search may find: a filter gives their ids, by one SQL statement, and a sentence for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from search.errors import EngineError

FilterLike = Mapping[str, str | Collection[str]]
"""``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: only pictures that bear one of these labels."""


@dataclass(frozen=True)
class Filter:
    """Only pictures that bear one of these labels; all pictures if it is None.

    A filter never hides what it lets through: a search finds k of the pictures that it lets through, or all of them.
    """

    labels: tuple[str, ...] | None = None

    @classmethod
    def of(cls, filter: Filter | FilterLike | None) -> Filter:
        """A filter as it is, or as a mapping says it.

        Raises
        ------
        EngineError
            It asks for something other than labels.
        """
        if filter is None or isinstance(filter, Filter):
            return filter or cls()
        if unknown := filter.keys() - {"label"}:
            raise EngineError(f"cannot filter by {', '.join(sorted(unknown))}; known: label")
        if "label" not in filter:
            return cls()
        labels = filter["label"]
        return cls((labels,) if isinstance(labels, str) else tuple(dict.fromkeys(labels)))

    def ids(self, store: FeatureStore) -> NDArray[np.int64] | None:
        """Ids of the usable pictures that it lets through, ascending; None for all of them.

        Raises
        ------
        EngineError
            No picture bears one of the labels.
        """
        if self.labels is None:
            return None
        if missing := {label for label in self.labels if not store.ids_with({"label": label}).size}:
            named = ", ".join(map(repr, sorted(missing)))
            raise EngineError(f"no image of {store.folder.name} bears the label {named}")
        return store.ids_with({"label": self.labels})

    def __str__(self) -> str:
        if self.labels is None:
            return "all pictures"
        return f"pictures labelled {' or '.join(self.labels)}" if self.labels else "no pictures"
