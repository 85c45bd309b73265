"""Bring a collection up to date with images that were added, edited, renamed or removed since it was made.

Only new and edited images are encoded; what becomes of them is said in `features.collection.generation`. `append` looks
at nothing but what is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from features.collection.changes import Changes, check_same_collection, find_changes
from features.collection.generation import NextGeneration, SyncReport, encode_changes
from features.collection.lock import writing
from features.collection.manifest import absolute, read_manifest, remove_leftovers
from features.collection.stage import STAGE, Stage
from features.collection.store import FeatureStore
from features.datasets import Dataset, reading_options
from features.encoding import Progress, cameras_of, check_counts, hash_items

if TYPE_CHECKING:
    from features.encoders import Encoder

__all__ = ["SyncReport", "sync"]

T = TypeVar("T")


def sync(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    batch_size: int = 32,
    progress: bool | Progress = True,
    with_store: Callable[[FeatureStore], dict[str, Any]] | None = None,
) -> SyncReport:
    """Bring the collection in `folder` up to date with a dataset.

    Parameters
    ----------
    folder : path
        A complete collection of this dataset, made by this encoder. The dataset may have moved as a whole.
    limit : int, optional
        Add only images that are among the first so many of the dataset. What is in the collection already stays.
    batch_size : int
        Images encoded and made durable at a time.
    progress : bool or callable
        True: a progress bar on stderr. A function is called after each batch with the number of encoded images and of
        all to encode; what it raises stops the sync, and the next one goes on from there.
    with_store : callable, optional
        Called with the new store before it is in force; returns entries for the manifest. So what follows from the
        vectors (indexes) becomes new in the same moment as they do. It may write files, under new names.

    Raises
    ------
    StoreError
        The collection is of another encoder or dataset, damaged, being synced by another process, or nothing usable
        would be left of it. The collection is as it was.
    """
    check_counts(batch_size, limit)
    folder = absolute(folder)
    read_manifest(folder)  # nothing is written where there is no collection
    with (
        writing(folder, purpose="brought up to date"),
        closing(Stage(folder / STAGE, f"{folder} is being brought up to date by another process")) as stage,
    ):
        store = FeatureStore.open(folder)
        store.check_encoder(encoder)
        store.verify(derived=False)  # what is damaged must not be copied under a new sum
        dtype = np.dtype(store.manifest["dtype"])
        stage.begin(encoder.spec, dtype)
        remove_leftovers(folder)
        changes = find_changes(store, dataset, dataset.items[:limit])
        check_same_collection(store, dataset, changes)
        stats = encode_changes(stage, changes, dataset, encoder, dtype, batch_size, progress)
        hashed = _of_kept(store.catalog.without_phash(), changes, dataset, hash_items)
        cameras = _of_kept(store.catalog.without_camera(), changes, dataset, cameras_of)
        report = NextGeneration(store, stage, changes, dataset, stats, hashed, cameras).put_in_force(with_store)
        stage.remove()
    return report


def _of_kept(
    lacking: set[int], changes: Changes, dataset: Dataset, look: Callable[..., list[T | None]]
) -> list[tuple[int, T]]:
    """What is told of unchanged images that are without, as in the collections of earlier versions."""
    files = [file for file in (*changes.kept, *changes.renamed) if file.record.id in lacking]
    found = zip(files, look([file.item for file in files], **reading_options(dataset)), strict=True)
    return [(file.record.id, told) for file, told in found if told is not None]
