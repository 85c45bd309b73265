"""A query becomes hits. The page, the command line and the REST API sit on this; it knows nothing of Gradio."""

from __future__ import annotations

import json
import operator
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import absolute, unchanged_while
from features.collection.store import FeatureStore, StoreError
from features.encoders import Encoder, encoder_for
from features.images import ImageError, decode_image
from features.picture_files import read_picture
from ivfpq import SearchResult
from ivfpq.checks import Metric
from search.backends.base import SearchableIndex
from search.errors import EngineError
from search.filters import Filter, FilterLike
from search.hits import Answer, Hit
from search.options import SearchOptions
from search.query import ImagePart, Part, Picture, Query
from search.searcher import RERANK_FACTOR, SpaceSearcher
from search.spaces import VISUAL, open_spaces, visual_space

__all__ = ["Answer", "EncodedQuery", "EngineError", "Hit", "SearchEngine"]


class EncodedQuery(NamedTuple):
    """A query picture as a vector.

    Attributes
    ----------
    vector : float32 (dim,)
    own_id : int or None
        The id of this very picture where the collection holds it (equal bytes).
    """

    vector: NDArray[np.float32]
    own_id: int | None


@lru_cache(maxsize=4)
def _shared_encoder(spec: str) -> Encoder:
    """Collections of the same encoder share one copy of its network. The spec comes as JSON so that it can be a key."""
    return encoder_for(json.loads(spec))


class SearchEngine:
    """One collection, ready to be searched. Safe to use from many threads.

    Parameters
    ----------
    store : FeatureStore
    indexes : mapping of str to index
        Of the space `VISUAL`, by the names of their backends. Exact search needs none: it reads the stored vectors.
    encoder : Encoder, optional
        Turns pictures into vectors; by default made at the first query that needs it, as the manifest says.
    spaces : mapping of str to SpaceSearcher, optional
        The other spaces of the collection.
    """

    def __init__(
        self,
        store: FeatureStore,
        indexes: Mapping[str, SearchableIndex],
        *,
        encoder: Encoder | None = None,
        spaces: Mapping[str, SpaceSearcher] | None = None,
    ) -> None:
        self.store = store
        self.folder = store.folder
        self.name = store.folder.name
        self.metric: Metric = store.manifest["metric"]
        self._spaces = {VISUAL: SpaceSearcher(visual_space(store), indexes), **(spaces or {})}
        self._encoder = encoder
        self._lock = threading.Lock()
        if encoder is not None:
            store.check_encoder(encoder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> SearchEngine:
        """Open a collection folder (`collections/<name>`).

        Raises
        ------
        EngineError
            If an index is missing, or was not made from this collection's vectors.
        features.collection.store.StoreError
            If the stored vectors cannot be read or do not fit their manifest.
        """
        return unchanged_while(absolute(folder), lambda: cls._open(folder))

    @classmethod
    def _open(cls, folder: str | os.PathLike[str]) -> SearchEngine:
        try:
            store = FeatureStore.open(folder)
            if not store.manifest.get("indexes"):
                raise EngineError(f"{store.folder} has vectors but no index yet: run create_index.py for it")
            spaces = {name: SpaceSearcher.open(space) for name, space in open_spaces(store).items()}
            return cls(store, {}, spaces=spaces)
        except (EngineError, StoreError):
            raise
        except Exception as error:  # whatever is wrong with the files of one collection is that collection's error
            raise EngineError(f"{Path(folder)} cannot be opened: {type(error).__name__}: {error}") from error

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that can be asked."""
        return tuple(self._spaces)

    @property
    def engines(self) -> tuple[str, ...]:
        """What `search` accepts as `engine`."""
        return self._spaces[VISUAL].engines

    @property
    def nlist(self) -> int | None:
        """Number of inverted lists, the upper end of nprobe; None where the indexes are flat."""
        return self._spaces[VISUAL].nlist

    @property
    def nprobe(self) -> int:
        """Lists visited when a search does not say how many."""
        return self._spaces[VISUAL].nprobe

    @property
    def labels(self) -> dict[str, int]:
        """How many images bear each label, by label."""
        return self.store.labels()

    @property
    def encoder(self) -> Encoder:
        """The encoder the collection was made with, loaded at first use and checked against the manifest."""
        with self._lock:
            if self._encoder is None:
                encoder = _shared_encoder(json.dumps(self.store.manifest["encoder"], sort_keys=True))
                self.store.check_encoder(encoder)
                self._encoder = encoder
            return self._encoder

    def space(self, name: str = VISUAL) -> SpaceSearcher:
        """One of `spaces`. Raises EngineError if the collection does not have it."""
        if name not in self._spaces:
            raise EngineError(f"{self.name} has no space {name!r}; it has {', '.join(self._spaces)}")
        return self._spaces[name]

    def index(self, engine: str) -> SearchableIndex:
        """The index of the space `VISUAL` behind one of `engines`; that of "exact" is made at first use."""
        return self._spaces[VISUAL].index(engine)

    def matching_ids(self, filter: Filter | FilterLike) -> NDArray[np.int64]:
        """Ids of the images that a filter (see `search`) lets through, ascending."""
        ids = Filter.of(filter).ids(self.store)
        return self.store.ids if ids is None else ids

    def encode(self, picture: Picture, *, space: str = VISUAL) -> EncodedQuery:
        """The vector of a query picture. Of one that the collection holds (equal bytes), it is the stored vector.

        Of several copies in the collection the one at the query's own path is taken for itself, or else the first.
        """
        searcher = self.space(space)
        if isinstance(picture, np.ndarray):
            _check_pixels(picture)
            return EncodedQuery(searcher.space.kind.encode_picture(picture, self), None)
        if not isinstance(picture, str | os.PathLike | bytes):
            raise EngineError(f"a query is a path, bytes or a uint8 (H, W, 3) array, got {type(picture).__name__}")
        if isinstance(picture, bytes):
            path, content = None, picture
        else:
            path = Path(picture)  # wherever it is, but a regular file, and read up to a limit
            content = read_picture(path.parent, path.absolute(), follow_links=True)
        own_id = self._own_id(content, path)
        if own_id is not None:
            return EncodedQuery(searcher.space.rows(np.array([own_id]))[0], own_id)
        try:
            pixels = decode_image(content)  # what was hashed, not what the file may hold by now
        except ImageError as error:
            raise error if path is None else ImageError(os.fspath(path), error.reason) from error
        return EncodedQuery(searcher.space.kind.encode_picture(pixels, self), None)

    def search(
        self,
        query: Query | Part | Picture,
        k: int = 10,
        *,
        nprobe: int | None = None,
        engine: str = "ivfpq",
        rerank: bool = False,
        filter: Filter | FilterLike | None = None,
        cutoff: float | None = None,
    ) -> Answer:
        """The k images nearest to a query.

        Parameters
        ----------
        query : path, bytes, uint8 (H, W, 3), or Query
            An image file, its content, or decoded RGB pixels. A file or content that the collection holds itself
            (equal bytes) is left out of its own hits; pixels always count as an outside picture.
        k, nprobe, engine, rerank, cutoff
            See `SearchOptions`.
        filter : mapping or Filter, optional
            ``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: only images that bear one of these labels.

        Returns
        -------
        Answer
            Hits, best first, with the times it took.

        Raises
        ------
        EngineError
            For an unknown engine or space, options out of range, a filter the collection does not know, or a query
            that cannot be asked here.
        features.images.ImageError
            If the query is not a readable image.
        """
        options = SearchOptions(engine, k, nprobe, rerank, cutoff)
        part = self._single_part(Query.of(query))
        searcher = self.space(part.space or VISUAL)
        searcher.check(engine)  # before the picture is encoded, which takes a while
        allowed = Filter.of(filter).ids(self.store)
        started = time.perf_counter()
        encoded = self.encode(part.picture, space=searcher.space.name)
        encode_ms = (time.perf_counter() - started) * 1e3
        return replace(self._search(searcher, encoded, options, allowed), encode_ms=encode_ms)

    def search_vector(
        self,
        vector: NDArray[np.float32],
        options: SearchOptions,
        *,
        own_id: int | None = None,
        filter: Filter | FilterLike | None = None,
        space: str = VISUAL,
    ) -> Answer:
        """`search` with what `encode` returned: one picture for several searches."""
        searcher = self.space(space)
        searcher.check(options.engine)
        allowed = Filter.of(filter).ids(self.store)
        return self._search(searcher, EncodedQuery(vector, own_id), options, allowed)

    def neighbours(self, vectors: NDArray[np.float32], options: SearchOptions) -> SearchResult:
        """The k nearest images of each vector (nq, dim), an image of the collection itself among them."""
        return self._spaces[VISUAL].neighbours(vectors, options)

    def _single_part(self, query: Query) -> ImagePart:
        """The part of a query, where it is one that can be asked in its space."""
        if len(query.parts) != 1:
            raise EngineError(f"a query has one part, got {len(query.parts)}")
        (part,) = query.parts
        kind = self.space(part.space or VISUAL).space.kind
        if not isinstance(part, kind.accepts) or not isinstance(part, ImagePart):
            raise EngineError(f"the space {kind.name} cannot be asked by a {type(part).__name__}")
        return part

    def _own_id(self, content: bytes, path: Path | None) -> int | None:
        """The id of this very picture in the collection, or None."""
        same = self.store.find_copies(sha256_of(content))
        if len(same) > 1 and path is not None:
            paths = {Path(os.path.abspath(path)), path.parent.resolve() / path.name}  # noqa: PTH100
            same = [id for id in same if self.store.items[id].path in paths] or same
        return same[0] if same else None

    def _search(
        self,
        searcher: SpaceSearcher,
        query: EncodedQuery,
        options: SearchOptions,
        allowed: NDArray[np.int64] | None,
    ) -> Answer:
        searcher.index(options.engine)  # exact search makes its index at first use, which is no part of the search
        rerank = searcher.reranks(options)
        # A picture of the collection finds itself first, so one more is asked for and itself is dropped by id.
        wanted = int(options.k) + (query.own_id is not None)
        started = time.perf_counter()
        found = searcher.candidates(query.vector[None], RERANK_FACTOR * wanted if rerank else wanted, options, allowed)
        searched = time.perf_counter()
        reranked = int(np.count_nonzero(found.ids >= 0)) if rerank else 0
        if rerank:
            found = searcher.reranked(query.vector, found.ids[0], wanted)
        finished = time.perf_counter()
        return Answer(
            hits=self._hits(found, searcher.space.metric, query.own_id, options),
            own_id=query.own_id,
            search_ms=(searched - started) * 1e3,
            rerank_ms=(finished - searched) * 1e3 if rerank else 0.0,
            reranked=reranked,
        )

    def _hits(self, found: SearchResult, metric: Metric, own_id: int | None, options: SearchOptions) -> tuple[Hit, ...]:
        """One row of ids and scores as hits: without padding, the query itself and what the cutoff leaves out."""
        nearer_is_larger = metric != "l2"
        worse = operator.lt if nearer_is_larger else operator.gt
        hits: list[Hit] = []
        for id, score in zip(found.ids[0].tolist(), found.distances[0].tolist(), strict=True):
            if id in (-1, own_id):
                continue
            if len(hits) == options.k or (options.cutoff is not None and worse(score, options.cutoff)):
                break
            item = self.store.items[id]
            hits.append(
                Hit(
                    rank=len(hits) + 1,
                    id=id,
                    score=score,
                    similarity=score if nearer_is_larger else None,
                    distance=None if nearer_is_larger else score,
                    labels=item.labels,
                    path=item.path,
                )
            )
        return tuple(hits)


def _check_pixels(pixels: NDArray[Any]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise EngineError(f"a query array must be uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
