"""In which inverted list of an index each picture lies, and the pictures of a list as a filter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from features.collection.conditions import FilterError, Scalar
from features.collection.fields import Field, ToldField
from search.backends import backend_names
from search.inverted_file import InvertedFile
from search.searcher import SpaceSearcher

FIELD = "index_list"
"""What a filter calls the list that a picture lies in: ``index_list:12``, or ``index_list:faiss/12``."""


@dataclass(frozen=True, eq=False)
class IndexLists:
    """The inverted lists of an index.

    Attributes
    ----------
    engine : str
    nlist : int
    ids : int64 (n,)
        Of all pictures that lie in a list, ascending.
    numbers : int64 (n,)
        The list of each.
    """

    engine: str
    nlist: int
    ids: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, searcher: SpaceSearcher, engine: str) -> IndexLists | None:
        """Those of the index behind an engine; None if it has none that can be looked into from here."""
        file = _file(searcher, engine)
        if file is None:
            return None
        lists = file.cells.lists.view.leading(file.cells.nlist)
        ids = lists.ids(lists.rows())
        order = np.argsort(ids, kind="stable")
        return cls(engine, file.cells.nlist, ids[order], lists.list_numbers()[order])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many pictures each list has, int64 (nlist,)."""
        return np.bincount(self.numbers, minlength=self.nlist)

    def of_pictures(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The list of each of some pictures, int64 (len(ids),); -1 of one that lies in none."""
        if not self.ids.size:
            return np.full(ids.size, -1)
        place = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        return np.where(self.ids[place] == ids, self.numbers[place], -1)


def engines_with_index(searcher: SpaceSearcher) -> list[str]:
    """Those engines of a space that have built an index, the first first."""
    return [engine for engine in searcher.engines if engine in backend_names(built=True)]


def first_lists(searcher: SpaceSearcher) -> IndexLists | None:
    """The lists of the first engine whose index has any; None where no index has."""
    found = (IndexLists.of(searcher, engine) for engine in engines_with_index(searcher))
    return next((lists for lists in found if lists is not None), None)


def _file(searcher: SpaceSearcher, engine: str) -> InvertedFile | None:
    return InvertedFile.of(searcher.index(engine)) if engine in engines_with_index(searcher) else None


def list_field(searcher: SpaceSearcher) -> Field:
    """What lets pictures be filtered by the list that they lie in."""
    held = ref(searcher)  # the collection keeps this field, which must not keep what has the collection open

    def ids_of(value: Scalar) -> list[int]:
        searcher = held()
        if searcher is None:
            raise FilterError("the indexes of this collection have been closed")
        engine, number = _read(value)
        asked = [engine] if engine else engines_with_index(searcher)
        found = ((each, file) for each in asked if (file := _file(searcher, each)) is not None)
        engine_of, file = next(found, (engine, None))
        if file is None:
            none = f"the index {engine} has no" if engine else "no index of this collection has"
            raise FilterError(f"{none} lists that can be looked into from here")
        if number >= file.cells.nlist:
            raise FilterError(f"the lists of the index {engine_of} are 0 to {file.cells.nlist - 1}, got {number}")
        return file.cells.lists.view.list_ids(number).tolist()

    return ToldField(FIELD, ids_of)


def _read(value: Scalar) -> tuple[str, int]:
    """The engine, "" for the first that has lists, and the number of a list."""
    whole = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    match = re.fullmatch(r"(?:([a-z0-9_]+)/)?([0-9]{1,9})", whole.strip().lower(), re.ASCII)
    if match is None:
        raise FilterError(f"{FIELD} is the number of a list, or an engine and a number as faiss/12; got {value!r}")
    return match[1] or "", int(match[2])
