"""What a space is: one set of vectors over the pictures of a collection, of one of the kinds in `spaces`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from features.encoders import Encoder
from ivfpq.checks import Metric
from search.errors import EngineError
from search.query import Part, TagPart, TextPart
from search.words import TextScorer

VISUAL = "visual"
ADD_BLOCK = 16_384  # vectors handed to an index at once: 128 MiB of float32 at 2048-d

Entry = Mapping[str, Any]
"""What a manifest says of a space or of an index."""


class OpenCollection(Protocol):
    """What a kind of space may ask of the collection that a query is for: a `SearchEngine`."""

    @property
    def store(self) -> FeatureStore: ...

    @property
    def encoder(self) -> Encoder: ...

    def text_scorer(self, space: str) -> TextScorer: ...


Nearest = Callable[[NDArray[np.float32], int, NDArray[np.int64] | None], NDArray[np.int64]]
"""``nearest(vector, k, ids)``: ids (at most k,) of the nearest pictures in a space, among `ids` or all."""


Candidates = Callable[[NDArray[np.int64], int], NDArray[np.int64]]
"""``candidates(ids, k)``: of each of these pictures the k nearest by the index of the collection, int64 (n, k), -1 for
none; itself is among them."""


@dataclass(frozen=True, eq=False)
class Made:
    """What a kind of space has made of a collection.

    Attributes
    ----------
    vectors : float16 or float32 array, shape (n, dim)
    beside : mapping of str to array
        What it keeps beside them, to be searched or made again.
    """

    vectors: NDArray[Any]
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class More:
    """What the pictures that have come add to a space.

    Attributes
    ----------
    ids : int64 (m,)
        Of the pictures whose vectors were made: those that have come, and others whose vectors change with that.
    vectors : float16 or float32 array, shape (m, dim)
    beside : mapping of str to array, shape (m, ...)
        Their rows of what is kept beside the vectors by picture.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[Any]
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Placed:
    """Rows by id, where those that have changed stand again behind the others.

    Parameters
    ----------
    rows : array (r, ...)
    places : int (n,)
        Which row is that of each picture.
    """

    def __init__(self, rows: NDArray[Any], places: NDArray[np.int32]) -> None:
        self._rows, self._places = rows, places
        self.shape, self.dtype = (len(places), *rows.shape[1:]), rows.dtype

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        ids, *others = key if isinstance(key, tuple) else (key,)
        found: NDArray[Any] = self._rows[(self._places[ids], *others)]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._rows[self._places], dtype)


PLACES = "places"
"""Beside the vectors of a space in which some have changed: where each picture's stands, int32, see `Placed`."""

IDS = "ids"
"""Beside the vectors of a kind that has none for some usable pictures: the ids of the others, int64, ascending."""


class SpaceKind(ABC):
    """How the vectors of a space are made, and what may be asked there.

    Attributes
    ----------
    name : str
        Lower-case letters, digits and underscores: the file of the vectors bears it too.
    accepts : tuple of types
        The parts of a query that may be asked in this space (see `query`); none where it serves another space.
    metric : str
        How its vectors are compared.
    is_default : bool
        Whether every collection that can have it gets it, unless it is asked for others.
    is_live : bool
        Whether it changes while the collection stays as it is: then a collection that can have it has it, whether or
        not its manifest lists vectors, and a sync leaves it to be made again afterwards.
    by_picture : mapping of str to number
        What is kept beside the vectors with a row for each picture, and what stands there where there is no picture.
    voice_weights : mapping of str to float
        By which each of `text_voices` was multiplied, where that is not 1.
    """

    name: ClassVar[str]
    accepts: ClassVar[tuple[type[Part], ...]]
    metric: ClassVar[Metric] = "cosine"
    is_default: ClassVar[bool] = False
    is_live: ClassVar[bool] = False
    by_picture: ClassVar[Mapping[str, float]] = {}
    voice_weights: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def make(self, store: FeatureStore) -> NDArray[Any]:
        """Vectors of all pictures, float16 or float32 (n, dim), row = id; zero where there is no usable picture."""

    def make_temporary(self, store: FeatureStore) -> NDArray[Any]:
        """Vectors as those of `make`, for a collection that has none of its own."""
        return self.make(store)

    def make_from(self, store: FeatureStore, before: Space | None, candidates: Candidates | None) -> Made:
        """What belongs to the space, of kinds that keep more than vectors, or need not make all of them again.

        Parameters
        ----------
        before : Space, optional
            As it was before pictures changed.
        candidates : callable, optional
            Asks the index of the encoder's vectors, where there is one.
        """
        return Made(self.make(store))

    def make_more(self, before: Space, ids: NDArray[np.int64], candidates: Candidates | None) -> More | None:
        """What pictures that have come add to a space, of kinds that need not make all vectors again for them.

        Parameters
        ----------
        before : Space
            As it was made before they came; its store has them.
        ids : int64 (m,)
            Of the usable ones among them.
        candidates : callable, optional
            See `make_from`.

        Returns
        -------
        More or None
            None where all vectors are to be made again.
        """
        return None

    def encode_picture(self, pixels: NDArray[np.uint8], collection: OpenCollection) -> NDArray[np.float32]:
        """The vector (dim,) of a decoded picture, uint8 (H, W, 3): of kinds that accept an `ImagePart`."""
        raise NotImplementedError(f"space {self.name} says that it accepts pictures, and cannot encode them")

    def score_text(self, part: TextPart, collection: OpenCollection) -> NDArray[np.float32]:
        """How well each picture answers a text, float32 (n,), row = id: of kinds that accept a `TextPart`.

        Larger is better, on any scale. A picture of which the space can say nothing, or which it did not look at
        because there are too many, has -inf. What cannot be answered at all is a QueryError with a sentence.
        """
        found = collection.text_scorer(self.name).score(part.text)
        scores = np.full(len(collection.store.features), -np.inf, np.float32)
        scores[found.ids] = found.scores
        return scores

    def text_voices(self, part: TextPart, collection: OpenCollection) -> dict[str, NDArray[np.float32]]:
        """What `score_text` is the sum of, by name: of kinds that look at a picture in several ways."""
        return {self.name: self.score_text(part, collection)}

    def score_tag(self, part: TagPart, collection: OpenCollection) -> NDArray[np.float32]:
        """How sure it is that each picture bears a tag, float32 (n,), row = id: of kinds that accept a `TagPart`."""
        raise NotImplementedError(f"space {self.name} says that it accepts tags, and cannot score them")

    def text_hints(self, part: TextPart, collection: OpenCollection) -> tuple[str, ...]:
        """Sentences for who asked by a text: what was not understood, or why the answer may be wrong."""
        return ()

    def text_scorer(self, space: Space, collection: OpenCollection, nearest: Nearest) -> TextScorer:
        """What scores the pictures of an open collection for a text, made once: of kinds that accept a `TextPart`."""
        raise NotImplementedError(f"space {self.name} says that it accepts text, and cannot score it")

    def made_with(self, model: str) -> SpaceKind:
        """The same kind, made with a model that is named: of kinds that take one."""
        raise EngineError(f"the space {self.name} is not made with a model that could be named")

    def is_made_so(self, maker: Entry | None) -> bool:
        """Whether vectors of which a manifest says this maker are what would be made now, or near enough to stay."""
        return True

    def can_answer(self, store: FeatureStore) -> bool:
        """Whether what encodes the queries of a collection that has this space is on this machine."""
        return True

    def why_not(self, store: FeatureStore) -> str | None:
        """Why a collection cannot have this space, the end of a sentence; None if it can."""
        return None

    def maker(self) -> dict[str, Any] | None:
        """What its vectors depend on beside those of the encoder: vectors of another maker are not compared."""
        return None

    def made_of(self, store: FeatureStore) -> dict[str, Any] | None:
        """`maker`, and what else of the collection the vectors are made of; asked before they are made."""
        return self.maker()

    def factory(self, count: int) -> str | None:
        """The index that it needs over so many pictures, by our own engine; None where all are compared."""
        return None


@dataclass(frozen=True, eq=False)
class Space:
    """A space of a collection, open for reading.

    Attributes
    ----------
    vectors : float16 or float32 array, shape (n, dim)
        Row = id; memory-mapped where they are a file.
    metric : str
    indexes : mapping
        What the manifest says of each index of it, by the backend's name.
    maker : mapping or None
        See `SpaceKind.maker`.
    beside : mapping of str to array
        See `Made`; memory-mapped where they are files.
    generation : int
        Of the collection, when it was made.
    """

    kind: SpaceKind
    store: FeatureStore
    vectors: NDArray[Any]
    metric: Metric
    indexes: Mapping[str, Entry]
    maker: Entry | None = None
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    generation: int = 0

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def folder(self) -> Path:
        return self.store.folder

    @property
    def ids(self) -> NDArray[np.int64]:
        """Of the pictures that have a place in it, ascending: all usable ones, or those that lie beside as `IDS`."""
        return self.beside.get(IDS, self.store.ids)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of some pictures, float32 (len(ids), dim)."""
        return np.asarray(self.vectors[ids], dtype=np.float32)

    def add_rows(self, index: Any, ids: NDArray[np.int64]) -> None:
        """Add vectors to an index under their ids, a block at a time so that memory stays flat."""
        for start in range(0, ids.size, ADD_BLOCK):
            block = ids[start : start + ADD_BLOCK]
            index.add_with_ids(self.rows(block), block)
