"""A query becomes hits. The page, the command line and the REST API sit on this; it knows nothing of Gradio."""

from __future__ import annotations

import json
import operator
import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.store import FeatureStore
from features.encoders import Encoder, encoder_for
from features.images import ImageError, decode_image
from ivfpq import IndexFlat, SearchResult, load
from ivfpq.checks import IndexFileError, Metric
from ivfpq.faiss_compat import FaissIndex
from search.errors import EngineError
from search.hits import Answer, Hit
from search.options import SearchOptions

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A query picture: an image file, its content, or decoded RGB pixels, uint8 (H, W, 3)."""

LabelFilter = Mapping[str, str | Collection[str]]

INDEX_FILES = {"ivfpq": "ivfpq.index", "faiss": "faiss.index"}
DEFAULT_NPROBE = 8
RERANK_FACTOR = 10  # candidates ranked again for each result wanted
ADD_BLOCK = 16_384  # vectors handed to an index at once: 128 MiB of float32 at 2048-d


class SearchableIndex(Protocol):
    """What the engine asks of an index; ours and the faiss adapter both have it."""

    @property
    def ntotal(self) -> int: ...

    def search(
        self, xq: NDArray[Any], k: int, *, nprobe: int | None = None, ids: NDArray[np.int64] | None = None
    ) -> SearchResult: ...


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
        Keys among `INDEX_FILES`. Exact search needs none: it reads the stored vectors.
    encoder : Encoder, optional
        Turns pictures into vectors; by default made at the first query that needs it, as the manifest says.
    """

    def __init__(
        self, store: FeatureStore, indexes: Mapping[str, SearchableIndex], *, encoder: Encoder | None = None
    ) -> None:
        self.store = store
        self.folder = store.folder
        self.name = store.folder.name
        self.metric: Metric = store.manifest["metric"]
        self._indexes = dict(indexes)
        self._encoder = encoder
        self._exact: IndexFlat | None = None
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
        store = FeatureStore.open(folder)
        recorded: Mapping[str, Mapping[str, Any]] = store.manifest.get("indexes", {})
        if not recorded:
            raise EngineError(f"{store.folder} has vectors but no index yet: run create_index.py for it")
        return cls(store, {name: _open_index(store, name, recorded[name]) for name in INDEX_FILES if name in recorded})

    @property
    def engines(self) -> tuple[str, ...]:
        """What `search` accepts as `engine`."""
        return (*self._indexes, "exact")

    @property
    def nlist(self) -> int | None:
        """Number of inverted lists, the upper end of nprobe; None where the indexes are flat."""
        return next((nlist for index in self._indexes.values() if (nlist := getattr(index, "nlist", None))), None)

    @property
    def nprobe(self) -> int:
        """Lists visited when a search does not say how many."""
        return next((nprobe for index in self._indexes.values() if (nprobe := getattr(index, "nprobe", None))), 1)

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

    def encode(self, query: Picture) -> tuple[NDArray[np.float32], int | None]:
        """Vector of a query.

        Returns
        -------
        vector : float32 (dim,)
        own_id : int or None
            The id of this very picture where the collection holds it (equal bytes); its stored vector is used then.
        """
        if isinstance(query, np.ndarray):
            _check_pixels(query)
            return self.encoder.encode([query])[0], None
        if not isinstance(query, str | os.PathLike | bytes):
            raise EngineError(f"a query is a path, bytes or a uint8 (H, W, 3) array, got {type(query).__name__}")
        content = query if isinstance(query, bytes) else _read(Path(query))
        own_id = self.store.find_hash(sha256_of(content))
        if own_id is not None:
            return np.asarray(self.store.features[own_id], dtype=np.float32), own_id
        try:
            pixels = decode_image(content)  # what was hashed, not what the file may hold by now
        except ImageError as error:
            raise error if isinstance(query, bytes) else ImageError(os.fspath(query), error.reason) from error
        return self.encoder.encode([pixels])[0], None

    def index(self, engine: str) -> SearchableIndex:
        """The index behind one of `engines`; that of "exact" is made at first use."""
        self._check_engine(engine)
        return self._exact_index() if engine == "exact" else self._indexes[engine]

    def search(
        self,
        query: Picture,
        k: int = 10,
        *,
        nprobe: int | None = None,
        engine: str = "ivfpq",
        rerank: bool = False,
        filter: LabelFilter | None = None,
        cutoff: float | None = None,
    ) -> Answer:
        """The k images nearest to a query.

        Parameters
        ----------
        query : path, bytes, or uint8 (H, W, 3)
            An image file, its content, or decoded RGB pixels. A file or content that the collection holds itself
            (equal bytes) is left out of its own hits; pixels always count as an outside picture.
        k, nprobe, engine, rerank, cutoff
            See `SearchOptions`.
        filter : mapping, optional
            ``{"label": "cup"}`` or ``{"label": ["cup", "chair"]}``: only images that bear one of these labels.

        Returns
        -------
        Answer
            Hits, best first, with the times it took.

        Raises
        ------
        EngineError
            For an unknown engine, options out of range, or a filter the collection does not know.
        features.images.ImageError
            If the query is not a readable image.
        """
        options = SearchOptions(engine, k, nprobe, rerank, cutoff)
        self._check_engine(engine)  # before the picture is encoded, which takes a while
        allowed = None if filter is None else self.matching_ids(filter)
        started = time.perf_counter()
        vector, own_id = self.encode(query)
        encode_ms = (time.perf_counter() - started) * 1e3
        return replace(self._search(vector, own_id, options, allowed), encode_ms=encode_ms)

    def search_vector(
        self,
        vector: NDArray[np.float32],
        options: SearchOptions,
        *,
        own_id: int | None = None,
        filter: LabelFilter | None = None,
    ) -> Answer:
        """`search` with what `encode` returned: one picture for several searches."""
        self._check_engine(options.engine)
        return self._search(vector, own_id, options, None if filter is None else self.matching_ids(filter))

    def neighbours(self, vectors: NDArray[np.float32], options: SearchOptions) -> SearchResult:
        """The k nearest images of each vector (nq, dim), an image of the collection itself among them."""
        self._check_engine(options.engine)
        if not options.rerank or options.engine == "exact":
            return self._candidates(vectors, options.k, options)
        found = self._candidates(vectors, RERANK_FACTOR * options.k, options)
        again = [self._reranked(vector, ids, options.k) for vector, ids in zip(vectors, found.ids, strict=True)]
        return SearchResult(np.concatenate([a.distances for a in again]), np.concatenate([a.ids for a in again]))

    def _search(
        self,
        vector: NDArray[np.float32],
        own_id: int | None,
        options: SearchOptions,
        allowed: NDArray[np.int64] | None,
    ) -> Answer:
        self.index(options.engine)  # exact search makes its index at first use, which is no part of the search
        rerank = options.rerank and options.engine != "exact"
        # A picture of the collection finds itself first, so one more is asked for and itself is dropped by id.
        wanted = int(options.k) + (own_id is not None)
        started = time.perf_counter()
        found = self._candidates(vector[None], RERANK_FACTOR * wanted if rerank else wanted, options, allowed)
        searched = time.perf_counter()
        reranked = int(np.count_nonzero(found.ids >= 0)) if rerank else 0
        if rerank:
            found = self._reranked(vector, found.ids[0], wanted)
        finished = time.perf_counter()
        return Answer(
            hits=self._hits(found, own_id, options),
            own_id=own_id,
            search_ms=(searched - started) * 1e3,
            rerank_ms=(finished - searched) * 1e3 if rerank else 0.0,
            reranked=reranked,
        )

    def _hits(self, found: SearchResult, own_id: int | None, options: SearchOptions) -> tuple[Hit, ...]:
        """One row of ids and scores as hits: without padding, the query itself and what the cutoff leaves out."""
        nearer_is_larger = self.metric != "l2"
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

    def _candidates(
        self,
        vectors: NDArray[np.float32],
        k: int,
        options: SearchOptions,
        allowed: NDArray[np.int64] | None = None,
    ) -> SearchResult:
        nprobe = None
        if self.nlist is not None and options.engine != "exact" and options.nprobe is not None:
            nprobe = min(int(options.nprobe), self.nlist)
        return self.index(options.engine).search(vectors, min(k, self.store.ids.size), nprobe=nprobe, ids=allowed)

    def _reranked(self, vector: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> SearchResult:
        """The k best of `ids` (-1 for none) by their stored vectors, read from the file: one row."""
        rows = np.sort(ids[ids >= 0])
        index = IndexFlat(len(vector), metric=self.metric)
        add_rows(index, self.store, rows)
        return index.search(vector[None], k)

    def _check_engine(self, engine: str) -> None:
        if engine not in self.engines:
            raise EngineError(f"unknown engine {engine!r}; {self.name} has {', '.join(self.engines)}")

    def matching_ids(self, filter: LabelFilter) -> NDArray[np.int64]:
        """Ids of the images that a filter (see `search`) lets through, ascending."""
        unknown = set(filter) - {"label"}
        if unknown:
            raise EngineError(f"cannot filter by {', '.join(sorted(unknown))}; known: label")
        wanted = filter.get("label", ())
        wanted = {wanted} if isinstance(wanted, str) else set(wanted)
        missing = wanted - self.labels.keys()
        if missing:
            raise EngineError(f"no image of {self.name} bears the label {', '.join(map(repr, sorted(missing)))}")
        items = self.store.items
        return np.array([i for i in self.store.ids if wanted.intersection(items[i].labels)], dtype=np.int64)

    def _exact_index(self) -> SearchableIndex:
        with self._lock:
            if self._exact is None:
                index = IndexFlat(self.store.features.shape[1], metric=self.metric)
                add_rows(index, self.store, self.store.ids)
                self._exact = index
            return self._exact


def add_rows(index: Any, store: FeatureStore, ids: NDArray[np.int64]) -> None:
    """Add rows of a store to an index under their ids, a block at a time so that memory stays flat."""
    for start in range(0, ids.size, ADD_BLOCK):
        block = ids[start : start + ADD_BLOCK]
        index.add_with_ids(np.asarray(store.features[block], dtype=np.float32), block)


def _open_index(store: FeatureStore, name: str, recorded: Mapping[str, Any]) -> SearchableIndex:
    """Load one index and make sure that it belongs to the vectors of the collection as they are now."""
    path = store.folder / recorded["file"]
    if any(ids.size for ids in store.changes_since(recorded.get("generation", 0))):
        raise EngineError(f"{path} is older than the vectors of its collection: run create_index.py --sync for it")
    index = read_index(store, name, recorded)
    if index.ntotal != store.ids.size:
        raise EngineError(
            f"{path} holds {index.ntotal} vectors, the collection {store.ids.size}: "
            f"run create_index.py for this collection again"
        )
    return index


def read_index(store: FeatureStore, name: str, recorded: Mapping[str, Any]) -> Any:
    """Load an index file and make sure that it is the one that the manifest records.

    Raises
    ------
    EngineError
        If it is not, cannot be read, or is of another metric or dimension.
    """
    path = store.folder / recorded["file"]
    again = "run create_index.py for this collection again"
    if not path.is_file():
        raise EngineError(f"{path} is missing though the manifest lists it: {again}")
    found = sha256_of(path)
    if found != recorded["sha256"]:
        raise EngineError(
            f"{path} (sha256 {found[:12]}) is not the index that {store.folder / 'manifest.json'} lists "
            f"(sha256 {recorded['sha256'][:12]}): {again}"
        )
    metric: Metric = store.manifest["metric"]
    # A faiss file cannot say "cosine": it knows inner products and distances.
    try:
        index = load(path) if name == "ivfpq" else FaissIndex.load(path, metric=metric)
    except IndexFileError as error:
        raise EngineError(f"{error}: {again}") from error
    if index.metric != metric:
        raise EngineError(f"{path} is made for {index.metric}, the collection for {metric}: {again}")
    if index.d != store.features.shape[1]:
        raise EngineError(
            f"{path} holds vectors of {index.d} dimensions, the collection of {store.features.shape[1]}: {again}"
        )
    return index


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), error.strerror or str(error)) from error


def _check_pixels(pixels: NDArray[Any]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise EngineError(f"a query array must be uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
