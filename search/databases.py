"""What collections have in databases: their other spaces are indexed there too, and what is of no use goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from features.collection.lock import writing
from features.collection.store import FeatureStore, StoreError
from search.backends import backend_at, backend_names, get_backend
from search.backends.base import EngineReport, IndexRecipe, UnreachableError
from search.errors import EngineError
from search.space import VISUAL, Entry, Space
from search.spaces import open_spaces

logger = logging.getLogger(__name__)

_WHERE = ("file", "store", "table")  # keys of an entry that say where an index lies


def index_spaces(store: FeatureStore, address: str) -> list[EngineReport]:
    """Index what else can be asked of a collection beside `VISUAL` in the database in which that is, as that is.

    Raises
    ------
    EngineError
        `VISUAL` has no index there.
    UnreachableError
        The database does not answer.
    """
    backend = backend_at(address)
    made = store.manifest.get("indexes", {}).get(backend.name)
    if made is None:
        raise EngineError(f"{store.folder.name} has no index by {backend.name} yet")
    listed: dict[str, Entry] = store.manifest.get("spaces", {})
    reports, entries = [], {}
    with writing(store.folder, purpose="indexed"):
        for name, space in open_spaces(store).items():
            there = space.indexes.get(backend.name, {})
            if name == VISUAL or not space.kind.accepts or there.get("store") == made["store"] or not space.ids.size:
                continue
            index, report = backend.build(space, IndexRecipe(made["asked"], space.metric, made["seed"], address))
            entries[name] = {**listed[name], "indexes": {**space.indexes, backend.name: index}}
            reports.append(report)
        if entries:
            store.update_manifest(spaces={**listed, **entries})
    return reports


def drop_tables(folder: Path) -> None:
    """Delete what a collection that is about to be deleted has in databases; what does not answer is logged."""
    try:
        store = FeatureStore.open(folder)
        spaces = open_spaces(store)
    except (StoreError, EngineError) as error:
        logger.warning("%s: what it may have in databases stays there: %s", folder, error)
        return
    for space in spaces.values():
        let_go(space, {name: entry for name, entry in space.indexes.items() if entry.get("table")}, {})


def let_go(space: Space, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    """Delete the indexes of a space that the manifest lists no more, and what was kept until it listed the others."""
    for name in {*before, *after} & {*backend_names(built=True)}:
        old, new = before.get(name), after.get(name)
        backend = get_backend(name)
        try:
            if new is not None:
                backend.settle(space, new)
            if old is not None and (new is None or any(old.get(key) != new.get(key) for key in _WHERE)):
                backend.delete(space, old)
        except UnreachableError as error:
            logger.warning("an index by %s that is of no use stays: %s", name, error)
