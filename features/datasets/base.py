"""What every dataset is: a name, a root folder and a sorted list of image files, each with its labels.

The place in the list is the item's id, so an image that turns out to be damaged later never shifts the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from features.paths import expanded


class DatasetError(ValueError):
    """A dataset is unknown, missing or empty; the message says what to do."""


@dataclass(frozen=True)
class Item:
    """One image of a dataset.

    Attributes
    ----------
    id : int
        Place in the dataset, 0..n-1; also the row of the features.
    path : Path
        Absolute.
    labels : tuple of str
        What is known to be on it; empty if nothing is.
    error : str, optional
        Why the image cannot be used; None for a good one. Only a store knows this.
    """

    id: int
    path: Path
    labels: tuple[str, ...]
    error: str | None = None


class Dataset(Protocol):
    """Anything with a name, an absolute root folder and items whose ids are 0..n-1 in order."""

    name: str
    root: Path

    @property
    def items(self) -> list[Item]: ...


class Meanwhile(Protocol):
    """Makes use of the pictures of a dataset while others are still being brought here."""

    def begin(self, folder: Path) -> None:
        """Before any comes to this folder; what this raises ends the bringing before it begins."""
        ...

    def came(self, count: int) -> None:
        """So many more are there, or will be in a moment. It returns at once."""
        ...

    def end(self) -> None:
        """Nothing more comes: what is being done ends, and what went wrong is raised."""
        ...


def source_of(dataset: Dataset) -> dict[str, Any]:
    """What `reopen_dataset` needs besides name and root to find the same images again, ready for a manifest.

    Returns
    -------
    dict
        ``kind``, as `register_dataset` has it, or "folder", and the options the dataset was opened with. A dataset that
        is of no such kind gives an empty one.
    """
    kind = getattr(dataset, "kind", None)
    return {} if kind is None else {"kind": kind, **getattr(dataset, "options", {})}


def origin_of(dataset: Dataset) -> dict[str, Any]:
    """What a manifest says of where its images are: ``root`` and ``source`` (see `source_of`)."""
    return {"root": str(dataset.root), "source": source_of(dataset)}


def reading_options(dataset: Dataset) -> dict[str, Any]:
    """How the files of a dataset are read, as keyword arguments: ``root``, ``follow_links`` (see `read_picture`) and
    ``max_pixels`` (see `decode_image`).
    """
    return {
        "root": dataset.root,
        "follow_links": bool(getattr(dataset, "follow_links", False)),
        "max_pixels": getattr(dataset, "max_pixels", None),
    }


def common_folder(items: Sequence[Item]) -> Path:
    """The folder that the files of some items, at least one, have in common."""
    return Path(os.path.commonpath([item.path.parent for item in items]))


def existing_folder(root: str | os.PathLike[str], title: str, argument: str) -> Path:
    """The absolute path of a folder that ``data_download.sh`` makes, or a DatasetError that says how to call it."""
    path = expanded(root).resolve()
    if not path.is_dir():
        raise DatasetError(f"{title} is not at {path}: run ./data_download.sh {argument}")
    return path


def label_text(name: str) -> str:
    """A file name that is not valid UTF-8 is shown with replacement characters; labels must be writable text."""
    return os.fsencode(name).decode("utf-8", "replace")
