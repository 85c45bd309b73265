"""A dataset becomes a searchable collection: its vectors, their indexes, and other spaces over its pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from features.collection.append import AppendReport, append
from features.collection.lock import writing
from features.collection.manifest import read_manifest
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import Progress, SyncReport, sync
from features.datasets import Dataset, reopen_dataset
from features.encoders import Encoder, encoder_for, share_encoder
from ivfpq.checks import Metric
from search.backends import backend_at, backend_names, get_backend
from search.backends.base import EngineReport, Entry, IndexRecipe, UnreachableError, UpdateError
from search.backends.local import train_size_min
from search.backends.trial import split
from search.databases import let_go
from search.duplicate_pairs import followed as followed_duplicates
from search.errors import EngineError
from search.searcher import candidates_of
from search.space import VISUAL, Candidates, Space, SpaceKind
from search.spaces import (
    default_spaces,
    earlier_space,
    grow_space,
    make_space,
    open_space,
    open_spaces,
    space_kind,
    space_names,
    visual_space,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

FACTORY = "IVF100,PQ8"
OWN_ENGINE = "ivfpq"
ENGINES = (OWN_ENGINE, "faiss")


@dataclass(frozen=True)
class IndexUpdate:
    """What `sync_collection` did to one index.

    Attributes
    ----------
    engine, space : str
    taken_out, put_in : int
        Vectors. An edited image counts in both.
    rebuilt : str or None
        Why it was trained and filled anew, if it was.
    seconds : float
        All of it, reading and writing included.
    """

    engine: str
    taken_out: int
    put_in: int
    rebuilt: str | None
    seconds: float
    space: str = VISUAL

    def __str__(self) -> str:
        done = (
            f"built anew, {self.rebuilt}"
            if self.rebuilt
            else f"{self.taken_out} vectors taken out and {self.put_in} put in, quantizers kept"
        )
        of = "" if self.space == VISUAL else f" of {self.space}"
        return f"{self.engine}{of}: {done} ({self.seconds:.2f} s)"


def create_index(
    store: FeatureStore,
    *,
    factory: str | None = None,
    engines: Sequence[str] | None = None,
    metric: Metric | None = None,
    seed: int | None = None,
    address: str | None = None,
    target_recall: float | None = None,
) -> list[EngineReport]:
    """Build, measure and save indexes over a collection's vectors, then list them in its manifest.

    What is not asked for is as the manifest says it already is; for a collection without an index it is ``IVF100,PQ8``
    by ours and by faiss, cosine, seed 0. Indexes that are there already stay in force until the new ones, all of them,
    take their place.

    Parameters
    ----------
    address : str, optional
        Of a database: its engine is built there, without `engines` that one alone where there are indexes already.
    target_recall : float, optional
        See `IndexRecipe`.

    Raises
    ------
    UnreachableError
        A database does not answer.
    ValueError
        If the store holds no usable vector, or the factory string, metric or engine is unknown.
    StoreError
        If the vectors are not, bit for bit, what was written, or another writer is at work.
    """
    if store.ids.size == 0:
        raise ValueError(f"{store.folder} holds no readable image, so there is nothing to index")
    with writing(store.folder, purpose="indexed"):
        manifest = _manifest_in_force(store)
        if address is not None:
            at = backend_at(address).name
            engines = tuple(dict.fromkeys((*(engines or (() if manifest.get("indexes") else ENGINES)), at)))
        return _create_index(store, manifest, factory, engines, metric, seed, address, target_recall)


def _create_index(
    store: FeatureStore,
    manifest: dict[str, Any],
    factory: str | None,
    engines: Sequence[str] | None,
    metric: Metric | None,
    seed: int | None,
    address: str | None,
    target_recall: float | None,
) -> list[EngineReport]:
    store.verify(derived=False)  # a damaged index is what this makes again
    recorded = manifest.get("indexes", {})
    metric = metric or manifest["metric"]
    space = visual_space(store)
    reports, entries = [], {}
    for engine in engines or tuple(recorded) or ENGINES:
        known: Entry = recorded.get(engine, next(iter(recorded.values()), {}))
        asked = factory or known.get("asked") or known.get("factory") or FACTORY
        backend = get_backend(engine)
        is_there = address is not None and address.startswith(backend.schemes)
        at = address if is_there else recorded.get(engine, {}).get("store")
        number = (known.get("seed") or 0) if seed is None else seed
        recipe = IndexRecipe(asked, metric, number, at, target_recall or known.get("target_recall"))
        entries[engine], report = backend.build(space, recipe)
        reports.append(report)
    # An engine that is not rebuilt keeps its index as long as that covers the same vectors by the same metric.
    kept = {
        name: entry
        for name, entry in recorded.items()
        if name not in entries and manifest["metric"] == metric and _is_current(store, entry)
    }
    store.update_manifest(metric=metric, indexes={**kept, **entries})
    let_go(space, recorded, {**kept, **entries})
    return reports


def create_space(
    store: FeatureStore,
    name: str,
    *,
    engines: Sequence[str] | None = (),
    factory: str = FACTORY,
    seed: int = 0,
    address: str | None = None,
) -> list[EngineReport]:
    """Make a space of a collection, or make it again, and list it in the manifest.

    Parameters
    ----------
    name : str
        One of `spaces.space_names`.
    engines : sequence of str or None
        Backends to build an index of it; without one it is searched exactly. None for the index that it needs, if any.
    address : str, optional
        Of the database, for those that keep vectors in one.

    Raises
    ------
    EngineError
        If there is no such kind of space, or it gave vectors that do not fit.
    """
    if name == VISUAL:
        raise EngineError(f"every collection has the space {VISUAL}: it is what it was made of")
    recipes = None if engines is None else dict.fromkeys(engines, (factory, seed, address))
    before = store.manifest.get("spaces", {})
    entry, reports = _make_space(store, space_kind(name), recipes, candidates=candidates_of(visual_space(store)))
    store.update_manifest(spaces={**before, name: entry})
    let_go(open_space(store, name, entry), before.get(name, {}).get("indexes", {}), entry["indexes"])
    return reports


def create_spaces(
    store: FeatureStore,
    names: Sequence[str] | None = None,
    *,
    encoder: Encoder | None = None,
    models: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Give a collection its spaces beside `VISUAL`; those that it has already and that are current stay.

    Parameters
    ----------
    names : sequence of str, optional
        Exactly these, `VISUAL` always among them. By default those that the manifest lists; where it lists none, as
        those of earlier versions, the default ones as far as the collection can have them.
    encoder : Encoder, optional
        That of the collection, where there is one at hand.
    models : mapping of str to str, optional
        By space, with which model it is made; one that was made with another is made again.

    Returns
    -------
    made : tuple of str

    Raises
    ------
    EngineError
        There is no such kind of space, or a named one cannot be made of this collection; the message says why.
    StoreError
        Another writer is at work.
    """
    if encoder is not None and encoder.classes:
        share_encoder(encoder)
    listed: dict[str, Entry] = store.manifest.get("spaces", {})
    wanted = [name for name in (default_spaces() if names is None else names) if name != VISUAL]
    if names is None and "spaces" in store.manifest:
        wanted = list(listed)
    reasons = {name: reason for name in wanted if name not in listed and (reason := space_kind(name).why_not(store))}
    for name, reason in reasons.items():
        if names is not None:
            raise EngineError(f"{store.folder.name} cannot have the space {name}: {reason}")
        logger.info("no space %s: %s", name, reason)
        wanted.remove(name)
    kinds = {name: space_kind(name) for name in wanted if name in space_names()}
    kinds.update((name, space_kind(name).made_with(model)) for name, model in (models or {}).items())
    kept = {
        name: dict(entry)
        for name, entry in listed.items()
        if name in wanted
        and (name not in kinds or (_is_current(store, entry) and kinds[name].is_made_so(entry.get("maker"))))
    }
    made = {}
    with writing(store.folder, purpose="indexed"):
        for name in wanted:
            if name not in kept:
                made[name], _ = _make_space(store, kinds[name], candidates=candidates_of(visual_space(store)))
        if {**kept, **made} != listed or (names is not None and "spaces" not in store.manifest):
            store.update_manifest(spaces={**kept, **made})
    return tuple(made)


def keep_spaces(folder: Path, names: Sequence[str]) -> None:
    """Take from a collection the spaces that are not among these. Raises StoreError while another writer is at work."""
    store = FeatureStore.open(folder)
    listed = store.manifest.get("spaces", {})
    if not listed.keys() <= set(names):
        store.update_manifest(spaces={name: entry for name, entry in listed.items() if name in names})


def append_collection(
    folder: Path,
    *,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    limit: int | None = None,
    progress: bool | Progress = True,
) -> tuple[AppendReport, list[IndexUpdate]]:
    """Add the images of its dataset that a collection does not have: see `features.collection.append.append`.

    What follows from the vectors, and what is refused, is as `sync_collection` has it.
    """
    return _brought(append, folder, dataset, encoder, limit, progress)


def sync_collection(
    folder: Path,
    *,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    limit: int | None = None,
    progress: bool | Progress = True,
) -> tuple[SyncReport, list[IndexUpdate]]:
    """Bring a collection, vectors and indexes, up to date with its images: see `features.collection.sync.sync`.

    Indexes keep their trained quantizers, and vectors are taken out and put in, unless more than half of them change or
    the collection has grown to what the factory string that was asked for needs. All becomes new in one moment; whoever
    has the collection open goes on with what it was and sees the new one when opening it again.

    Parameters
    ----------
    dataset, encoder : optional
        By default those that the collection was made with, as its manifest says.
    limit, progress : optional
        See `features.collection.sync.sync`.

    Raises
    ------
    StoreError
        See `features.collection.sync.sync`. The collection is as it was.
    DatasetError, EncoderError
        What the collection was made with is not here any more.
    """
    return _brought(sync, folder, dataset, encoder, limit, progress)


def _brought(
    bring: Callable[..., T],
    folder: Path,
    dataset: Dataset | None,
    encoder: Encoder | None,
    limit: int | None,
    progress: bool | Progress,
) -> tuple[T, list[IndexUpdate]]:
    """Let `sync` or `append` bring what is new into a collection, and what follows from the vectors with it."""
    made = read_manifest(folder)
    dataset = dataset or reopen_dataset(made["dataset"], made["root"], made.get("source"))
    encoder = encoder or encoder_for(made["encoder"])
    if made.get("spaces") and encoder.classes:
        share_encoder(encoder)
    updates: list[IndexUpdate] = []

    def follow(store: FeatureStore) -> dict[str, Any]:
        """What follows from the vectors, brought up to date with them: entries for the manifest."""
        space, entries, followed = visual_space(store), {}, {}
        for name, entry in space.indexes.items():
            entries[name], update = _update(space, name, entry)
            updates.extend([update] if update else [])
        listed = store.manifest.get("spaces")
        for name, entry in (listed or {}).items():
            if remade := _remade(store, name, entry, updates, candidates_of(replace(space, indexes=entries))):
                followed[name] = remade
        told = {"duplicates": followed_duplicates(store, candidates_of(replace(space, indexes=entries)))}
        if entries:
            told["indexes"] = entries
        return told if listed is None else {**told, "spaces": followed}

    report = bring(dataset, encoder, folder, limit=limit, progress=progress, with_store=follow)
    store = FeatureStore.open(folder)
    before = {VISUAL: made, **made.get("spaces", {})}
    for name, space in open_spaces(store).items():
        let_go(space, before.get(name, {}).get("indexes", {}), space.indexes)
    for name in made.get("spaces") or {}:
        if name in space_names() and space_kind(name).is_live and name not in store.manifest.get("spaces", {}):
            create_space(store, name, engines=None)
    return report, updates


def _update(space: Space, name: str, entry: Entry) -> tuple[dict[str, Any], IndexUpdate | None]:
    """The manifest's entry of an index over the vectors as they are now, and what was done for it."""
    started = time.perf_counter()
    changed, gone = space.store.changes_since(entry.get("generation") or 0)
    if (not changed.size and not gone.size) or name not in backend_names(built=True):
        return dict(entry), None
    changed = np.intersect1d(changed, space.ids)  # a space may know nothing of a picture
    factory = entry.get("asked") or entry.get("factory") or FACTORY
    asked = IndexRecipe(factory, space.metric, entry.get("seed") or 0, entry.get("store"), entry.get("target_recall"))
    reason, taken_out, new = None, 0, dict(entry)
    try:
        if changed.size + gone.size > space.ids.size / 2:
            reason = "more than half of the collection has changed"
        elif entry.get("factory") not in (None, factory) and split(space, asked.seed)[1].size >= train_size_min(
            space, asked
        ):
            reason = f"there are enough images for {asked.factory} now"
        else:
            try:
                new, taken_out = get_backend(name).update(space, entry, changed, gone)
            except UpdateError as error:
                reason = str(error)
        if reason is not None:
            logger.info("%s is built anew: %s", name, reason)
            new, _ = get_backend(name).build(space, asked)
    except UnreachableError as error:  # the pictures are brought up to date all the same
        logger.warning("the %s index of %s stays as it was, and is out of date: %s", name, space.folder.name, error)
        return dict(entry), None
    seconds = time.perf_counter() - started
    return new, IndexUpdate(name, taken_out, int(changed.size), reason, seconds, space.name)


def _remade(
    store: FeatureStore, name: str, entry: Entry, updates: list[IndexUpdate], candidates: Candidates
) -> dict[str, Any] | None:
    """The manifest's entry of a space over the pictures as they are now; None if it cannot be made any more."""
    changed, gone = store.changes_since(entry.get("generation") or 0)
    if not changed.size and not gone.size:
        return dict(entry)
    try:
        kind = space_kind(name)
    except EngineError as error:  # it was made by a program that knows more kinds: what it made stays, out of date
        logger.warning("%s: %s", store.folder.name, error)
        return dict(entry)
    if kind.why_not(store) is None and (grown := grow_space(store, kind, entry, candidates)):
        space, new = grown
        followed = {engine: _update(space, engine, index) for engine, index in space.indexes.items()}
        updates.extend(update for _, update in followed.values() if update)
        return {**new, "indexes": {engine: index for engine, (index, _) in followed.items()}}
    if kind.is_live:  # it is made again when the sync is in force: what is said follows it then
        return None
    if reason := kind.why_not(store):  # a package may have gone; the pictures are brought up to date all the same
        logger.warning("%s has no space %s any more: %s", store.folder.name, name, reason)
        return None
    started = time.perf_counter()
    recipes = {
        engine: (index.get("asked") or FACTORY, index.get("seed") or 0, index.get("store"))
        for engine, index in entry.get("indexes", {}).items()
    }
    new, _ = _make_space(store, kind, recipes, before=earlier_space(store, name, entry), candidates=candidates)
    seconds = time.perf_counter() - started
    updates.extend(
        IndexUpdate(engine, 0, int(store.ids.size), "the space was made again", seconds, name) for engine in recipes
    )
    return new


def _make_space(
    store: FeatureStore,
    kind: SpaceKind,
    recipes: dict[str, tuple[str, int, str | None]] | None = None,
    *,
    before: Space | None = None,
    candidates: Candidates | None = None,
) -> tuple[dict[str, Any], list[EngineReport]]:
    """Vectors and indexes of a space, by default what it needs, in new files; returns the entry for the manifest."""
    space, entry = make_space(store, kind, before=before, candidates=candidates)
    if recipes is None:
        needed = kind.factory(space.ids.size)
        recipes = {OWN_ENGINE: (needed, 0, None)} if needed else {}
    reports = []
    for engine, (factory, seed, address) in recipes.items():
        recipe = IndexRecipe(factory, space.metric, seed, address)
        entry["indexes"][engine], report = get_backend(engine).build(space, recipe)
        reports.append(report)
    return entry, reports


def _manifest_in_force(store: FeatureStore) -> dict[str, Any]:
    """The manifest, now that nobody else can change it. Raises StoreError if the store is of an earlier one."""
    manifest = read_manifest(store.folder)
    if manifest["features"] != store.manifest["features"]:
        raise StoreError(f"{store.folder} has been brought up to date meanwhile: open it again")
    return manifest


def _is_current(store: FeatureStore, entry: Entry) -> bool:
    return not any(ids.size for ids in store.changes_since(entry.get("generation") or 0))
