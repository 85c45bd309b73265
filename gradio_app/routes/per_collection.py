"""What routes keep of the collections that are open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from gradio_app.routes.pictures import collection_in
from search.engine import SearchEngine

T = TypeVar("T")


class PerCollection(Generic[T]):
    """Something made of each open collection when it is first asked for, and anew when the collection is opened anew.

    Nothing stays of what is not open any more. As values of a weak dictionary, whose keys they hold, they all would.

    Parameters
    ----------
    engines : mapping of str to SearchEngine
        By collection name.
    make : callable
    """

    def __init__(self, engines: Mapping[str, SearchEngine], make: Callable[[SearchEngine], T]) -> None:
        self._engines, self._make = engines, make
        self._made: dict[str, tuple[SearchEngine, T]] = {}
        self._lock = threading.Lock()

    def of(self, collection: str) -> T:
        """That of a collection. Raises HTTPException 404 if there is none of that name."""
        engine = collection_in(self._engines, collection)
        known = self._made.get(collection)
        if known is None or known[0] is not engine:
            known = engine, self._make(engine)
            with self._lock:
                for closed in self._made.keys() - set(self._engines):
                    del self._made[closed]
                self._made[collection] = known
        return known[1]
