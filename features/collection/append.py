"""Add images to a collection without looking at those that it has.

What it costs follows the new images: the others are listed by their names, and neither read, nor encoded, nor are their
vectors copied. Edited, renamed and removed images are for `sync`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.collection.changes import Changes, too_large_before
from features.collection.errors import StoreError
from features.collection.file_facts import path_to
from features.collection.generation import NextGeneration, encode_changes
from features.collection.lock import writing
from features.collection.manifest import absolute, read_manifest, remove_leftovers
from features.collection.stage import STAGE, Stage
from features.collection.store import FeatureStore
from features.datasets import Dataset, Item
from features.encoding import Progress, check_counts

if TYPE_CHECKING:
    import numpy as np

    from features.encoders import Encoder


@dataclass(frozen=True)
class AppendReport:
    """What was added; paths are relative to the dataset's root.

    Attributes
    ----------
    added : tuple of Path
        Those among them that turned out to be damaged, too.
    damaged : tuple of (Path, str)
        Added images that cannot be read, and why.
    before : int
        How many images there were.
    """

    added: tuple[Path, ...]
    damaged: tuple[tuple[Path, str], ...]
    before: int

    def __str__(self) -> str:
        counts = f"{len(self.added)} added, {len(self.damaged)} of them damaged, to {self.before}"
        return "\n".join([counts, *(f"cannot be read: {path}: {why}" for path, why in self.damaged)])


def append(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    batch_size: int = 32,
    progress: bool | Progress = True,
    with_store: Callable[[FeatureStore], dict[str, Any]] | None = None,
) -> AppendReport:
    """Add to the collection in `folder` the images of a dataset whose paths it does not know.

    Parameters
    ----------
    folder, batch_size, progress, with_store
        See `features.collection.sync.sync`.
    limit : int, optional
        Add only images that are among the first so many of the dataset.

    Raises
    ------
    StoreError
        The collection is of another encoder or of another folder, damaged, or being written by another process; or
        images were too large for it, and the limit is higher now. The collection is as it was.
    """
    check_counts(batch_size, limit)
    folder = absolute(folder)
    read_manifest(folder)  # nothing is written where there is no collection
    with (
        writing(folder, purpose="added to"),
        closing(Stage(folder / STAGE, f"{folder} is being brought up to date by another process")) as stage,
    ):
        store = FeatureStore.open(folder)
        store.check_encoder(encoder)
        if os.path.realpath(store.manifest["root"]) != os.path.realpath(dataset.root):
            raise StoreError(
                f"{folder} is the collection of {store.manifest['root']}, and only what lies there can be added, not "
                f"what is in {dataset.root}"
            )
        if larger := too_large_before(store, dataset):
            raise StoreError(
                f"{min(larger)} was too large for the limit that {folder} has, and now a higher one is asked for: "
                "--sync brings in what was too large, too"
            )
        store.verify_catalog(structure=False)  # what is damaged must not be copied under a new sum
        dtype: np.dtype[Any] = store.features.dtype
        stage.begin(encoder.spec, dtype)
        remove_leftovers(folder)
        changes = Changes(added=_unknown(store, dataset, dataset.items[:limit]))
        stats = encode_changes(stage, changes, dataset, encoder, dtype, batch_size, progress)
        report = NextGeneration(store, stage, changes, dataset, stats).put_in_force(with_store)
        stage.remove()
    return AppendReport(report.added, report.damaged, store.image_count)


def _unknown(store: FeatureStore, dataset: Dataset, items: list[Item]) -> list[Item]:
    """The images whose paths the catalog does not have."""
    known = {path for (path,) in store.catalog.rows("SELECT path FROM images")}
    return [item for item in items if path_to(item.path.relative_to(dataset.root)) not in known]
