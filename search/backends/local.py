"""Backends on this machine: our index and faiss's, in one file each of the collection's folder, and exact search."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.manifest import files_of, new_part
from ivfpq import IndexFlat, index_factory, load, save
from ivfpq.checks import IndexFileError, Metric
from ivfpq.faiss_compat import FaissIndex
from ivfpq.tuning import Reading, cheapest
from search.backends.base import Backend, EngineReport, IndexRecipe, SearchableIndex, UpdateError
from search.backends.trial import K, measure, split
from search.errors import EngineError
from search.space import VISUAL, Entry, Space

logger = logging.getLogger(__name__)

DEFAULT_NPROBE = 8
_AGAIN = "run create_index.py for this collection again"


class LocalBackend(Backend):
    """An index in one file of the collection's folder. What differs from one to the other is three functions."""

    @abstractmethod
    def create(self, d: int, recipe: IndexRecipe) -> Any:
        """An untrained index."""

    @abstractmethod
    def write(self, index: Any, path: Path, space: Space) -> None:
        """Save an index."""

    @abstractmethod
    def read(self, path: Path, metric: Metric) -> Any:
        """Load an index. Raises IndexFileError if the file is damaged."""

    @abstractmethod
    def lists_for(self, index: Any, queries: NDArray[np.float32], recall: float) -> int:
        """How many lists a search takes to find a share of the `K` that a search of all lists finds."""

    def build(self, space: Space, recipe: IndexRecipe) -> tuple[dict[str, Any], EngineReport]:
        """Index all vectors of a space. See `Backend.build`.

        Up to 500 vectors (a tenth of a small collection) are held out of training. They query the index before they are
        added to it, so that recall is measured on pictures that the index has never seen; the saved index holds all.
        """
        held_out, training = split(space, recipe.seed)
        kept = np.setdiff1d(space.ids, held_out)
        asked, recipe = recipe.factory, trainable(space, recipe)
        # An index of the same kind is used first, so that no time holds what is done once in a process: compiling.
        warm = self.create(space.dim, recipe)
        some = space.rows(training[: train_size_min(space, recipe)])
        warm.train(some)
        warm.add_with_ids(some, np.arange(len(some)))
        warm.search(some[:1], 1)

        index = self.create(space.dim, recipe)
        if getattr(index, "nlist", None):
            index.nprobe = min(DEFAULT_NPROBE, index.nlist)
        started = time.perf_counter()
        index.train(space.rows(training))
        trained = time.perf_counter()
        space.add_rows(index, kept)
        added = time.perf_counter()
        if recipe.target_recall is not None and getattr(index, "nlist", None) and held_out.size:
            index.nprobe = self.lists_for(index, space.rows(held_out), recipe.target_recall)
        recall, us_per_query = measure(index, space, kept, space.rows(held_out), recipe.metric)
        space.add_rows(index, held_out)

        entry = self._save(index, space, recipe, asked)
        return entry, EngineReport(
            engine=self.name,
            factory=recipe.factory,
            train_s=trained - started,
            add_s=added - trained,
            file_bytes=(space.folder / entry["file"]).stat().st_size,
            bytes_per_vector=index.bytes_per_vector,
            recall_at_10=recall,
            us_per_query=us_per_query,
        )

    def update(
        self, space: Space, entry: Entry, changed: NDArray[np.int64], gone: NDArray[np.int64]
    ) -> tuple[dict[str, Any], int]:
        try:
            check_entry(space, self.name, entry, ("factory", "seed"))
            index = self._read(space, entry)
            taken_out = int(index.remove_ids(np.concatenate([changed, gone])))
            space.add_rows(index, changed)
        except (EngineError, RuntimeError) as error:  # faiss cannot take vectors out of some kinds
            raise UpdateError(str(error)) from error
        if index.ntotal != space.ids.size:
            raise UpdateError(f"it did not hold what it should ({index.ntotal} vectors, not {space.ids.size})")
        if not np.array_equal(index.ids, space.ids):
            raise UpdateError("it did not hold what it should (vectors of other pictures)")
        recipe = IndexRecipe(entry["factory"], space.metric, entry["seed"], target_recall=entry.get("target_recall"))
        return self._save(index, space, recipe, entry.get("asked") or entry["factory"]), taken_out

    def open(self, space: Space, entry: Entry) -> SearchableIndex:
        path = self._path(space, entry)
        if any(ids.size for ids in space.store.changes_since(entry.get("generation") or 0)):
            raise EngineError(f"{path} is older than the vectors of its collection: run create_index.py --sync for it")
        index = self._read(space, entry)
        if index.ntotal != space.ids.size:
            raise EngineError(f"{path} holds {index.ntotal} vectors, the collection {space.ids.size}: {_AGAIN}")
        if not np.array_equal(index.ids, space.ids):
            raise EngineError(f"{path} holds vectors of other pictures than the collection: {_AGAIN}")
        return index

    def delete(self, space: Space, entry: Entry) -> None:
        file = entry.get("file")
        # One that was missing may have been written anew under its name.
        if file and file not in files_of(space.store.manifest):
            (space.folder / file).unlink(missing_ok=True)

    def _path(self, space: Space, entry: Entry) -> Path:
        check_entry(space, self.name, entry, ("file", "sha256"))
        path: Path = space.folder / entry["file"]
        return path

    def _read(self, space: Space, entry: Entry) -> Any:
        """Load the file of an entry, and make sure that it is the one that the entry speaks of."""
        path = self._path(space, entry)
        if not path.is_file():
            raise EngineError(f"{path} is missing though the manifest lists it: {_AGAIN}")
        found = sha256_of(path)
        if found != entry["sha256"]:
            raise EngineError(
                f"{path} (sha256 {found[:12]}) is not the index that {space.folder / 'manifest.json'} lists "
                f"(sha256 {entry['sha256'][:12]}): {_AGAIN}"
            )
        try:
            index = self.read(path, space.metric)
        except IndexFileError as error:
            raise EngineError(f"{error}: {_AGAIN}") from error
        if index.metric != space.metric:
            raise EngineError(f"{path} is made for {index.metric}, the collection for {space.metric}: {_AGAIN}")
        if index.d != space.dim:
            raise EngineError(f"{path} holds vectors of {index.d} dimensions, the collection of {space.dim}: {_AGAIN}")
        return index

    def _save(self, index: Any, space: Space, recipe: IndexRecipe, asked: str) -> dict[str, Any]:
        """Write an index of the store's generation under a new name; returns the manifest's entry."""
        store, stem = space.store, self.name if space.name == VISUAL else f"{space.name}-{self.name}"
        path = new_part(store.folder, f"{stem}.index", store.generation)
        self.write(index, path, space)
        return {
            "file": path.name,
            "sha256": sha256_of(path),
            "factory": recipe.factory,
            "asked": asked,  # differs where there were too few images to train it
            "seed": recipe.seed,
            "images": int(space.ids.size),
            "generation": store.generation,
            **({} if recipe.target_recall is None else {"target_recall": recipe.target_recall}),
        }


class Ivfpq(LocalBackend):
    """Our index."""

    name = "ivfpq"

    def create(self, d: int, recipe: IndexRecipe) -> Any:
        return index_factory(d, recipe.factory, metric=recipe.metric, seed=recipe.seed)

    def write(self, index: Any, path: Path, space: Space) -> None:
        encoder = space.store.manifest["encoder"]["name"]
        save(index, path, metadata={"collection": space.folder.name, "encoder": encoder})

    def read(self, path: Path, metric: Metric) -> Any:
        return load(path)

    def lists_for(self, index: Any, queries: NDArray[np.float32], recall: float) -> int:
        # What it learns stays with the index: whoever has it can search with that target.
        return int(index.tune(queries, min(K, index.ntotal), recall).nprobe)


class Faiss(LocalBackend):
    """The same method in C++."""

    name = "faiss"

    def create(self, d: int, recipe: IndexRecipe) -> Any:
        return FaissIndex(d, recipe.factory, metric=recipe.metric)

    def write(self, index: Any, path: Path, space: Space) -> None:
        index.save(path)

    def read(self, path: Path, metric: Metric) -> Any:
        return FaissIndex.load(path, metric=metric)  # a faiss file cannot say "cosine" by itself

    def lists_for(self, index: Any, queries: NDArray[np.float32], recall: float) -> int:
        k = min(K, index.ntotal)
        truth = index.search(queries, k, nprobe=index.nlist).ids
        reading = Reading(index.nlist, index.ntotal * index.code_size / index.nlist, 0, index.ntotal)
        return cheapest(lambda nprobe, _: index.search(queries, k, nprobe=nprobe).ids, truth, recall, k, reading).nprobe


class Exact(Backend):
    """Compares with every vector of the space, read into memory when it is first asked."""

    name = "exact"
    is_built = False

    def build(self, space: Space, recipe: IndexRecipe) -> tuple[dict[str, Any], EngineReport]:
        raise EngineError("exact search needs no index: every collection has it")

    def update(
        self, space: Space, entry: Entry, changed: NDArray[np.int64], gone: NDArray[np.int64]
    ) -> tuple[dict[str, Any], int]:
        raise EngineError("exact search needs no index: every collection has it")

    def open(self, space: Space, entry: Entry) -> SearchableIndex:
        index = IndexFlat(space.dim, metric=space.metric)
        space.add_rows(index, space.ids)
        return index

    def delete(self, space: Space, entry: Entry) -> None:
        """Nothing: there is nothing to delete."""


def check_entry(space: Space, name: str, entry: Entry, needed: tuple[str, ...]) -> None:
    """Raise EngineError where the manifest does not say of an index what is needed: its schema leaves that free."""
    lacking = [key for key in needed if entry.get(key) is None]
    if lacking:
        raise EngineError(
            f"{space.folder / 'manifest.json'} does not say the {' and the '.join(lacking)} of the {name} index: it "
            f"was made by an earlier version, or is damaged: {_AGAIN}"
        )


def trainable(space: Space, recipe: IndexRecipe) -> IndexRecipe:
    """The recipe, or one for a flat index where the space has too few vectors to train what is asked for."""
    needed, there = train_size_min(space, recipe), split(space, recipe.seed)[1].size
    if there >= needed:
        return recipe
    logger.warning("%s needs %d images to train, there are %d: building Flat", recipe.factory, needed, there)
    return IndexRecipe("Flat", recipe.metric, recipe.seed, target_recall=recipe.target_recall)


def train_size_min(space: Space, recipe: IndexRecipe) -> int:
    """Vectors that training needs."""
    return int(index_factory(space.dim, recipe.factory, metric=recipe.metric, seed=recipe.seed).train_size_min)
