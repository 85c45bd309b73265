"""The open collections, by name: one for the whole server, while visitors come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from pathlib import Path

from gradio_app.markup import printable
from search.engine import SearchEngine

logger = logging.getLogger(__name__)


class LibraryError(ValueError):
    """Collections that are not there or cannot be opened; the message says which, and what helps."""


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


def open_collections(names: Sequence[str] | None, folder: Path) -> dict[str, SearchEngine]:
    """Open collections by name, or all there are; of all, those that cannot be opened are left out, and named.

    Raises
    ------
    LibraryError
        If one that was named does not exist or cannot be opened, or no collection is left.
    """
    there = sorted(manifest.parent.name for manifest in folder.glob("*/manifest.json"))
    make = "python gradio_app/create_index.py --data demo"
    if not there:
        raise LibraryError(f"there is no collection in {folder}/ yet; make one first: {make}")
    for name in names or ():
        if name not in there:
            raise LibraryError(
                f"there is no collection {name!r}; there are: {', '.join(map(printable, there))}. "
                f"Another is made with: {make.replace('demo', 'caltech|voc|demo|PATH')}"
            )
    engines: dict[str, SearchEngine] = {}
    wrong = []
    for name in dict.fromkeys(names or there):
        try:
            engine = SearchEngine.open(folder / name)
            _check_name(engine, engines)
        except Exception as error:
            # Whatever is wrong with one collection: damaged files raise what their readers stumble over, and the others
            # are opened all the same.
            said = str(error) or type(error).__name__
            wrong.append(f"collection {printable(name)!r} cannot be opened: {printable(said)}")
            logger.debug("%s", wrong[-1], exc_info=True)
        else:
            engines[name] = engine
    if wrong and (names or not engines):
        raise LibraryError("\n".join(wrong))
    for line in wrong:
        logger.warning("%s", line)
    return engines


def _check_name(engine: SearchEngine, others: Mapping[str, SearchEngine]) -> None:
    if printable(engine.name) != engine.name:
        raise LibraryError("its name is not UTF-8; rename its folder")
    for other in others.values():
        if other.name == engine.name:
            raise LibraryError(f"it is called {engine.name}, as is the one in {other.folder}")
