"""A query becomes hits. The page, the command line and the REST API sit on this; it knows nothing of Gradio."""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import absolute, unchanged_while
from features.collection.store import FeatureStore, StoreError
from features.encoders import Encoder, shared_encoder
from features.images import ImageError, decode_image
from features.picture_files import read_picture
from ivfpq import SearchResult
from ivfpq.checks import Metric
from search.backends.base import SearchableIndex
from search.errors import EngineError, QueryError
from search.filters import Filter, FilterLike
from search.hits import Answer, Hit
from search.index_lists import FIELD, list_field
from search.neighbour_order import CANDIDATES, NeighbourOrder, Ranked
from search.neighbourhood import NEIGHBOURHOOD as NEIGHBOURHOOD_SPACE
from search.options import NEIGHBOURHOOD, SearchOptions
from search.parts import EncodedQuery, search_parts, space_of
from search.picture_parts import encode_part
from search.query import ImagePart, Part, Picture, Query
from search.searcher import RERANK_FACTOR, SpaceSearcher
from search.space import VISUAL
from search.spaces import (
    default_spaces,
    live_spaces,
    open_spaces,
    space_kind,
    temporary_space,
    text_spaces,
    visual_space,
)
from search.strength import StrengthOfHits
from search.words import TextScorer, TextScores

__all__ = ["Answer", "EncodedQuery", "EngineError", "Hit", "SearchEngine"]


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
    fetch : callable, optional
        Gives the picture file, bytes, at an address of the web; a `ValueError` of its says why it cannot. Without it no
        address is opened.
    """

    def __init__(
        self,
        store: FeatureStore,
        indexes: Mapping[str, SearchableIndex],
        *,
        encoder: Encoder | None = None,
        spaces: Mapping[str, SpaceSearcher] | None = None,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        self.store = store
        self.folder = store.folder
        self.name = store.folder.name
        self.metric: Metric = store.manifest["metric"]
        self._spaces = {VISUAL: SpaceSearcher(visual_space(store), indexes), **(spaces or {})}
        if NEIGHBOURHOOD_SPACE in self._spaces and self.metric == "cosine":
            neighbourhood = self._spaces[NEIGHBOURHOOD_SPACE].space
            self._spaces[VISUAL].order = NeighbourOrder(neighbourhood)
            self._spaces[VISUAL].strength = StrengthOfHits(neighbourhood, self._spaces[VISUAL].space)
        store.told[FIELD] = list_field(self._spaces[VISUAL])
        self._encoder = encoder
        self._fetch = fetch
        self._scorers: dict[str, TextScorer] = {}
        self._lock = threading.Lock()
        self._making = threading.RLock()  # of spaces and scorers; a search by a picture does not wait for it
        if encoder is not None:
            store.check_encoder(encoder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, fetch: Callable[[str], bytes] | None = None) -> SearchEngine:
        """Open a collection folder (`collections/<name>`). `fetch` is as above.

        Raises
        ------
        EngineError
            If an index is missing, or was not made from this collection's vectors.
        features.collection.store.StoreError
            If the stored vectors cannot be read or do not fit their manifest.
        """
        return unchanged_while(absolute(folder), lambda: cls._open(folder, fetch))

    @classmethod
    def _open(cls, folder: str | os.PathLike[str], fetch: Callable[[str], bytes] | None) -> SearchEngine:
        try:
            store = FeatureStore.open(folder)
            if not store.manifest.get("indexes"):
                raise EngineError(f"{store.folder} has vectors but no index yet: run create_index.py for it")
            spaces = {name: SpaceSearcher.open(space) for name, space in open_spaces(store).items()}
            return cls(store, {}, spaces=spaces, fetch=fetch)
        except (EngineError, StoreError):
            raise
        except Exception as error:  # whatever is wrong with the files of one collection is that collection's error
            raise EngineError(f"{Path(folder)} cannot be opened: {type(error).__name__}: {error}") from error

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that can be asked."""
        asked = [name for name, searcher in self._spaces.items() if searcher.space.kind.accepts]
        return (*asked, *(name for name in live_spaces(self.store) if name not in self._spaces))

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
                encoder = shared_encoder(self.store.manifest["encoder"])
                self.store.check_encoder(encoder)
                self._encoder = encoder
            return self._encoder

    def space(self, name: str = VISUAL) -> SpaceSearcher:
        """One of `spaces`, or a default one that the collection does not have yet: it is made in memory.

        Raises
        ------
        EngineError
            The collection does not have it, nor can it.
        """
        if name not in self._spaces:
            makeable = name in (*default_spaces(), *live_spaces(self.store))
            if not makeable or not space_kind(name).accepts:  # what cannot be asked is not made for who asks
                raise QueryError(f"{self.name} has no space {name!r}; it has {', '.join(self._spaces)}")
            with self._making:
                if name not in self._spaces:
                    self._spaces = {**self._spaces, name: SpaceSearcher(temporary_space(self.store, name), {})}
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

    def encode_part(self, part: ImagePart, searcher: SpaceSearcher) -> EncodedQuery:
        """The vector of a part that is a picture: see `picture_parts.encode_part`."""
        return encode_part(part, searcher, self, self._fetched)

    def search(
        self,
        query: Query | Part | Picture,
        k: int = 10,
        *,
        nprobe: int | None = None,
        engine: str = "ivfpq",
        rerank: bool = True,
        filter: Filter | FilterLike | None = None,
        cutoff: float | None = None,
        neighbourhood: float = NEIGHBOURHOOD,
    ) -> Answer:
        """The k images that fit a query best.

        Parameters
        ----------
        query : path, bytes, uint8 (H, W, 3), str, or Query
            An image file, its content, or decoded RGB pixels. A file or content that the collection holds itself
            (equal bytes) is left out of its own hits; pixels always count as an outside picture. A str that names no
            file is read as `search.grammar` says. What a query says itself of k and options goes before the arguments.
        k, nprobe, engine, rerank, cutoff, neighbourhood
            See `SearchOptions`.
        filter : mapping or Filter, optional
            ``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: only images that bear one of these labels; see
            `FilterLike`. A filter of the query itself holds besides.

        Returns
        -------
        Answer
            Hits, best first, with the times it took. It says which parts of the query could not be answered here.

        Raises
        ------
        EngineError
            For an unknown engine or space, or options out of range.
        QueryError
            For a filter the collection does not know, or a query that cannot be asked here.
        features.images.ImageError
            If a picture of the query is not a readable image.
        """
        if isinstance(query, str) and not os.path.isfile(query):  # noqa: PTH113 (a NUL or a long text is no file)
            query = _typed(query)
        query = Query.of(query)
        query.check()
        if query.collection not in (None, self.name):
            raise QueryError(f"the query is for the collection {query.collection}, and this is {self.name}")
        options = query.options or SearchOptions(engine, k, nprobe, rerank, cutoff, neighbourhood)
        options = replace(options, k=query.k or k)
        allowed = (Filter.of(filter) & query.filter).ids(self.store)
        if not query.parts:
            return self._first(allowed, options)
        (part, *others) = query.parts
        if others or not isinstance(part, ImagePart) or part.weight <= 0:
            return search_parts(self, query.parts, options, allowed)
        searcher = self.space(space_of(part, self))
        searcher.check(options.engine)  # before the picture is encoded, which takes a while
        started = time.perf_counter()
        encoded = self.encode_part(part, searcher)
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

    def neighbours(
        self, vectors: NDArray[np.float32], options: SearchOptions, own_ids: Sequence[int] | None = None
    ) -> SearchResult:
        """The k best images of each vector (nq, dim), an image of the collection itself, if its id is given, too."""
        return self._spaces[VISUAL].neighbours(vectors, options, own_ids)

    @property
    def neighbour_order(self) -> NeighbourOrder | None:
        """What lets neighbours count in the order of hits, if the collection has it: see `SearchOptions`."""
        return self._spaces[VISUAL].order

    def score_text(
        self, text: str, *, space: str | None = None, ids: NDArray[np.int64] | None = None, k: int = 1
    ) -> TextScores:
        """How well the pictures of the collection answer a text, and why.

        Parameters
        ----------
        space : str, optional
            By default the first of the collection that accepts text.
        ids : int64 array, optional
            Only of these pictures.
        k : int
            At least so many best ones are scored; of up to `words.SCORED_AT_MOST` pictures all are.

        Raises
        ------
        EngineError
            The collection has no words, or the text has none; the message says why.
        """
        kinds = [name for name in text_spaces() if not space_kind(name).is_live]
        here = [name for name in kinds if name in self._spaces and space_kind(name).can_answer(self.store)]
        (name, *_) = [space] if space else [*here, *(name for name in kinds if name in default_spaces())]
        return self.text_scorer(name).score(text, ids, k=k)

    def text_scorer(self, space: str) -> TextScorer:
        """What scores the pictures for a text in a space: see `score_text`."""
        searcher = self.space(space)
        with self._making:
            if space not in self._scorers:
                self._scorers[space] = searcher.space.kind.text_scorer(searcher.space, self, searcher.nearest)
            return self._scorers[space]

    def _fetched(self, address: str) -> bytes:
        if self._fetch is None:
            raise QueryError(f"nothing is fetched from the web here: give the file instead of {address}")
        try:
            return self._fetch(address)
        except ValueError as error:
            raise QueryError(f"{address} cannot be searched with: {error}") from error

    def _first(self, ids: NDArray[np.int64] | None, options: SearchOptions) -> Answer:
        """The pictures that a filter lets through, where nothing else is asked: in the order of their ids."""
        found = self.store.ids if ids is None else ids
        items = [self.store.items[id] for id in found[: options.k].tolist()]
        return Answer(
            tuple(
                Hit(rank, item.id, 0.0, None, None, item.labels, item.path) for rank, item in enumerate(items, start=1)
            )
        )

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
        many = RERANK_FACTOR * wanted if rerank else wanted
        if options.cutoff is not None and searcher.orders(options):
            # Where similarity alone does not order them, the k best would hide others that the cutoff lets through.
            many = wanted = max(many, CANDIDATES)
        started = time.perf_counter()
        (found,) = searcher.first(query.vector[None], many, options, allowed, [query.own_id])
        searched = time.perf_counter()
        ranked, reranked = found.ranked, 0
        if rerank:
            reranked = int(np.count_nonzero(ranked.ids >= 0))
            ranked = searcher.again(query.vector, found, wanted, options)
        finished = time.perf_counter()
        return Answer(
            hits=self._hits(ranked, searcher.space.metric, query.own_id, options),
            own_id=query.own_id,
            search_ms=(searched - started) * 1e3,
            rerank_ms=(finished - searched) * 1e3 if rerank else 0.0,
            reranked=reranked,
            expansion=found.expansion,
            strength=searcher.strength.of(query.vector, found.ranked, query.own_id) if searcher.strength else None,
        )

    def _hits(self, ranked: Ranked, metric: Metric, own_id: int | None, options: SearchOptions) -> tuple[Hit, ...]:
        """What was found as hits: without padding, the query itself and what the cutoff leaves out."""
        nearer_is_larger = metric != "l2"
        worse = operator.lt if nearer_is_larger else operator.gt
        hits: list[Hit] = []
        for id, near, score in zip(*(array.tolist() for array in ranked), strict=True):
            if id in (-1, own_id) or (options.cutoff is not None and worse(near, options.cutoff)):
                continue
            if len(hits) == options.k:
                break
            item = self.store.items[id]
            hits.append(
                Hit(
                    rank=len(hits) + 1,
                    id=id,
                    score=score,
                    similarity=near if nearer_is_larger else None,
                    distance=None if nearer_is_larger else near,
                    labels=item.labels,
                    path=item.path,
                )
            )
        return tuple(hits)


def _typed(text: str) -> Query:
    from search.grammar import parse  # its parser takes a while to load, and whoever searches by pictures needs none

    return parse(text)


def _check_pixels(pixels: NDArray[Any]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise EngineError(f"a query array must be uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
