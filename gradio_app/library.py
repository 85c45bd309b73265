"""The open collections, by name: one for the whole server, while visitors come and go."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

from search.engine import SearchEngine


class Library(Mapping[str, SearchEngine]):
    """A mapping from name to engine that may change while it is read. Safe to use from many threads.

    A reader sees it as it was before a change or as it is afterwards: changing it replaces the whole mapping.

    Attributes
    ----------
    version : int
        Grows with every change.
    """

    def __init__(self, engines: Iterable[SearchEngine] = ()) -> None:
        opened = list(engines)
        self._engines = {engine.name: engine for engine in opened}
        if len(self._engines) < len(opened):
            raise ValueError(f"collections need different names, got {', '.join(engine.name for engine in opened)}")
        self._lock = threading.Lock()
        self.version = 1

    def __getitem__(self, name: str) -> SearchEngine:
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)

    # Mapping would look each name up again as it goes, and one may be gone by then.
    def values(self) -> ValuesView[SearchEngine]:
        return self._engines.values()

    def items(self) -> ItemsView[str, SearchEngine]:
        return self._engines.items()

    def first(self) -> SearchEngine | None:
        """The collection to begin with; None where there is none."""
        return next(iter(self._engines.values()), None)

    def put(self, engine: SearchEngine) -> None:
        """Add a collection, or replace the one of this name."""
        with self._lock:
            self._engines = {**self._engines, engine.name: engine}
            self.version += 1

    def drop(self, name: str) -> None:
        """Take a collection away; searches under way in it come to their end."""
        with self._lock:
            self._engines = {other: engine for other, engine in self._engines.items() if other != name}
            self.version += 1
