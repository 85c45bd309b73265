"""Datasets by name: what a command line calls each, and the class that opens it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from features.datasets.base import Dataset, DatasetError, Meanwhile
from features.datasets.folder import ImageFolder
from features.images import MAX_PIXELS
from features.paths import expanded


class PathDataset(Protocol):
    """A dataset class for what lies at a path: made from that.

    Attributes
    ----------
    kind : str
        What a manifest calls it, as it is registered.
    """

    kind: str

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        datasets_dir: str | os.PathLike[str] = "datasets",
        meanwhile: Meanwhile | None = None,
    ) -> Dataset:
        """Open it; what it has to bring here goes to `datasets_dir`, and `meanwhile` is told of it."""
        ...

    def is_at(self, path: Path) -> bool:
        """Whether it is what lies there."""
        ...


class NamedDataset(Protocol):
    """A dataset class with a name of its own: made from the folder where it is.

    Attributes
    ----------
    name : str
        What the manifest of a collection calls it.
    kind : str
        What a person calls it, as it is registered.
    location : str
        Its folder below that of all downloaded datasets.
    """

    name: str
    kind: str
    location: str

    def __call__(self, root: str | os.PathLike[str]) -> Dataset:
        """Open it."""
        ...

    def is_at(self, root: Path) -> bool:
        """Whether it is in this folder: a folder of one's own may bear its name."""
        ...


_CLASSES: dict[str, str | Any] = {
    "caltech": "features.datasets.caltech:Caltech101",
    "voc": "features.datasets.voc:VOC2012",
    "demo": "features.datasets.demo:Demo",
}
_OF_PATHS = {"urls": "features.datasets.url_csv:UrlCsv"}  # kinds of what lies at a path beside folders of images
_FOLDER_OPTIONS = ("exclude", "follow_links", "max_megapixels")


def register_dataset(spec: str, target: str | type) -> None:
    """Let `open_dataset` open a dataset by name.

    Parameters
    ----------
    spec : str
        What a person calls it on a command line.
    target : str or class
        A class like `NamedDataset`, or ``"package.module:Class"``, which is imported when the dataset is asked for.
    """
    _CLASSES[spec] = target


def dataset_names() -> tuple[str, ...]:
    """What `open_dataset` knows by name."""
    return tuple(_CLASSES)


def open_dataset(
    spec: str,
    *,
    datasets_dir: str | os.PathLike[str] = "datasets",
    exclude: Sequence[str] = (),
    follow_links: bool = False,
    max_megapixels: float | None = None,
    meanwhile: Meanwhile | None = None,
) -> Dataset:
    """Open a dataset by name or by path.

    Parameters
    ----------
    spec : str
        ``"caltech"``, ``"voc"``, ``"demo"`` (made on first use), or the path of a folder of images, of a list of their
        addresses (downloaded on first use), or of the folder of a download.
    datasets_dir : path
        Where ``data_download.sh`` puts the named ones, and where the pictures of a list go.
    exclude, follow_links, max_megapixels
        See `ImageFolder`; only for a folder.
    meanwhile : Meanwhile, optional
        Makes use of the pictures of a list while others are still being fetched.

    Raises
    ------
    DatasetError
        Unknown name, dataset not downloaded yet, no images, or an option that it does not take.
    """
    dataset: Dataset
    of_path = _class_at(expanded(spec)) if spec and spec not in _CLASSES else None
    is_folder = spec not in _CLASSES and of_path is None
    if not is_folder and (exclude or follow_links or max_megapixels is not None):
        raise DatasetError(
            f"what to exclude, which links to follow and how large images may be is for folders of images, not for "
            f"{spec}"
        )
    if of_path is not None:
        dataset = of_path(expanded(spec), datasets_dir=datasets_dir, meanwhile=meanwhile)
    elif spec in _CLASSES:
        kind = _class_of(spec)
        dataset = kind(Path(datasets_dir) / kind.location)
    elif spec and expanded(spec).is_dir():
        dataset = ImageFolder(spec, exclude=exclude, follow_links=follow_links, max_megapixels=max_megapixels)
    else:
        *others, last = dataset_names()
        raise DatasetError(
            f"unknown dataset {spec!r}: it is none of {', '.join(others)} and {last}, and no such folder exists"
        )
    dataset.items  # noqa: B018  # an empty dataset is refused here, not somewhere later
    return dataset


def reopen_dataset(name: str, root: str | os.PathLike[str], source: Mapping[str, Any] | None = None) -> Dataset:
    """Open the dataset that a collection was made of, by the entries of its manifest.

    Parameters
    ----------
    name, root : str
        The ``dataset`` and the ``root``.
    source : mapping, optional
        The ``source``, which `source_of` gave. Older manifests have none; then the name and what is in the folder tell.

    Raises
    ------
    DatasetError
        It is not there any more, or has no images.
    """
    root = Path(root)
    kind = (source or {}).get("kind")
    if kind in _OF_PATHS:
        of_path: PathDataset = _imported(_OF_PATHS[kind])
        dataset = of_path(root)
        dataset.items  # noqa: B018
        return dataset
    named: NamedDataset | None = None
    if kind in _CLASSES:
        named = _class_of(kind)
    elif kind != ImageFolder.kind:
        named = next((found for found in map(_class_of, _CLASSES) if found.name == name and found.is_at(root)), None)
    dataset = ImageFolder(root, **_folder_options(source)) if named is None else named(root)
    dataset.items  # noqa: B018
    return dataset


def as_recorded(dataset: Dataset, source: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Dataset:
    """The dataset with the options that a collection was made with, but for those that are given now.

    Parameters
    ----------
    source : mapping, optional
        The ``source`` of the collection's manifest.
    given : mapping
        What `folder_options` gives.
    """
    if not isinstance(dataset, ImageFolder):
        return dataset
    options = {**dataset.options, **_folder_options(source), **given}
    return dataset if options == dataset.options else ImageFolder(dataset.root, **options)


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line choose the files of a folder; see `folder_options`."""
    parser.add_argument(
        "--exclude",
        action="append",
        metavar="PATTERN",
        help='leave out files and folders of this name or relative path ("*.gif", "2019/*"); may be repeated',
    )
    parser.add_argument(
        "--follow-links",
        action=argparse.BooleanOptionalAction,
        help="take what links lead to outside the folder (not followed; a collection keeps what it was made with)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help=f"decode images of up to N megapixels ({MAX_PIXELS / 1e6:g}; a collection keeps what it was made with)",
    )


def folder_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the options that `add_folder_options` added, by their names."""
    named = {name: getattr(args, name) for name in _FOLDER_OPTIONS}
    return {name: value for name, value in named.items() if value is not None}


def _folder_options(source: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `ImageFolder` is given besides the root."""
    return {key: value for key, value in (source or {}).items() if key in _FOLDER_OPTIONS}


def spec_of(name: str, root: str | os.PathLike[str], source: Mapping[str, Any] | None = None) -> str:
    """What a person gives `open_dataset` for the dataset of a collection, by the entries of its manifest."""
    kind = (source or {}).get("kind")
    if kind is not None:
        return kind if kind in _CLASSES else str(root)
    return next((spec for spec in _CLASSES if _class_of(spec).name == name), str(root))


def _class_of(spec: str) -> NamedDataset:
    target = _CLASSES[spec]
    found: NamedDataset = _imported(target) if isinstance(target, str) else target
    return found


def _class_at(path: Path) -> PathDataset | None:
    """What kind of dataset lies at a path, but for a folder of images."""
    return next((found for found in map(_imported, _OF_PATHS.values()) if found.is_at(path)), None)


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
