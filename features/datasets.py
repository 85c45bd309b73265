"""What there is to search: named collections of image files, each with its labels.

A dataset is a name, a root folder and a sorted list of items. The place in the list is the item's id, so an image that
turns out to be damaged later never shifts the others.
"""

from __future__ import annotations

import json
import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from features.images import HEIC_EXTENSIONS, INSTALL_HEIC, extensions

logger = logging.getLogger(__name__)


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


class Caltech101:
    """Caltech101 (Fei-Fei, Fergus, Perona 2004): 9,144 images in 102 folders, the folder being the label."""

    name = "caltech101"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = _existing(root, "Caltech101", "caltech")

    @cached_property
    def items(self) -> list[Item]:
        paths = sorted(self.root.glob("*/*.jpg"), key=lambda path: path.relative_to(self.root).as_posix())
        if not paths:
            raise DatasetError(f"no <class>/*.jpg in {self.root}: remove the folder and run ./data_download.sh caltech")
        return [Item(id, path, (_text(path.parent.name),)) for id, path in enumerate(paths)]


class VOC2012:
    """PASCAL VOC 2012, training and validation: 17,125 images; the labels are the classes of the annotated objects."""

    name = "voc2012"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = _existing(root, "VOC2012", "voc")

    @cached_property
    def items(self) -> list[Item]:
        paths = sorted((self.root / "JPEGImages").glob("*.jpg"))
        if not paths:
            raise DatasetError(f"no JPEGImages/*.jpg in {self.root}: remove the folder and run ./data_download.sh voc")
        return [Item(id, path, self._labels(path)) for id, path in enumerate(paths)]

    def _labels(self, image: Path) -> tuple[str, ...]:
        annotation = self.root / "Annotations" / f"{image.stem}.xml"
        try:
            # object/name only: an object's parts (head, hand, foot) have names of their own, one level below.
            names = {name.text for name in ElementTree.parse(annotation).iterfind("object/name") if name.text}
        except (OSError, ElementTree.ParseError) as error:
            logger.warning("%s is taken without labels: %s", image.name, error)
            return ()
        return tuple(sorted(names))


class ImageFolder:
    """Any folder of images, searched recursively.

    An image in a subfolder is labelled with that folder's path relative to the root ("animals/cats"); one that lies in
    the root itself has no label. Hidden files and folders are passed over, and links to folders are not followed. A
    folder that cannot be listed, and HEIC images that nothing here can read, are passed over with a warning.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().resolve()
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder")
        self.name = _text(self.root.name) or "root"

    @cached_property
    def items(self) -> list[Item]:
        paths = sorted(self._walk(), key=lambda path: path.relative_to(self.root).as_posix())
        if not paths:
            raise DatasetError(f"no images in {self.root} (nor in its subfolders)")
        return [Item(id, path, self._labels(path)) for id, path in enumerate(paths)]

    def _walk(self) -> Iterator[Path]:
        wanted, unread = extensions(), 0

        def warn(error: OSError) -> None:
            logger.warning("%s is passed over: %s", error.filename, error.strerror)

        for folder, folders, files in os.walk(self.root, onerror=warn):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                extension = os.path.splitext(name)[1].lower()  # noqa: PTH122
                if not name.startswith(".") and extension in wanted:
                    yield Path(folder, name)
                unread += extension in HEIC_EXTENSIONS - wanted
        if unread:
            logger.warning("%d HEIC images are passed over: %s to read them", unread, INSTALL_HEIC)

    def _labels(self, path: Path) -> tuple[str, ...]:
        parent = path.parent.relative_to(self.root).as_posix()
        return () if parent == "." else (_text(parent),)


class Demo:
    """About 1,000 views of photographs that ship inside installed packages, made on first use, without a download.

    Every view is a crop of one photograph, perhaps flipped, rotated, blurred or in another light; ``views.json`` beside
    the images records how each was made. The photograph is the label, so the right answers of a search are known.
    """

    name = "demo"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        from features.demo import VIEWS, make_views

        self.root = Path(root).expanduser().resolve()
        if not (self.root / VIEWS).is_file():
            if self.root.exists() and any(self.root.iterdir()):
                raise DatasetError(f"{self.root} is not the demo dataset (it has no {VIEWS}): move it away")
            try:
                make_views(self.root)
            except FileNotFoundError as error:
                raise DatasetError(str(error)) from error
        try:
            views = json.loads((self.root / VIEWS).read_text(encoding="utf-8"))["views"]
            self.items = [Item(id, self.root / view["file"], (view["label"],)) for id, view in enumerate(views)]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{self.root / VIEWS} is damaged: remove {self.root} to make it anew") from error


# What people call each, and where data_download.sh puts it.
_NAMED: dict[str, tuple[type[Caltech101 | VOC2012 | Demo], str]] = {
    "caltech": (Caltech101, "caltech101"),
    "voc": (VOC2012, "VOCdevkit/VOC2012"),
    "demo": (Demo, "demo"),
}


def open_dataset(spec: str, *, datasets_dir: str | os.PathLike[str] = "datasets") -> Dataset:
    """Open a dataset by name or by folder.

    Parameters
    ----------
    spec : str
        ``"caltech"``, ``"voc"``, ``"demo"`` (made on first use), or the path of a folder of images.
    datasets_dir : path
        Where ``data_download.sh`` puts the named ones.

    Raises
    ------
    DatasetError
        Unknown name, dataset not downloaded yet, or no images.
    """
    dataset: Dataset
    if spec in _NAMED:
        kind, folder = _NAMED[spec]
        dataset = kind(Path(datasets_dir) / folder)
    elif spec and Path(spec).expanduser().is_dir():
        dataset = ImageFolder(spec)
    else:
        raise DatasetError(f"unknown dataset {spec!r}: it is none of caltech, voc and demo, and no such folder exists")
    dataset.items  # noqa: B018  # an empty dataset is refused here, not somewhere later
    return dataset


def reopen_dataset(name: str, root: str | os.PathLike[str]) -> Dataset:
    """Open the dataset that a collection was made of, by the ``dataset`` and the ``root`` of its manifest.

    Raises
    ------
    DatasetError
        It is not there any more, or has no images.
    """
    from features.demo import VIEWS

    root = Path(root)
    dataset: Dataset
    # A folder of one's own may bear any of these names, but hardly with the same content.
    if name == Caltech101.name:
        dataset = Caltech101(root)
    elif name == VOC2012.name and (root / "JPEGImages").is_dir():
        dataset = VOC2012(root)
    elif name == Demo.name and (root / VIEWS).is_file():
        dataset = Demo(root)
    else:
        dataset = ImageFolder(root)
    dataset.items  # noqa: B018
    return dataset


def spec_of(name: str, root: str | os.PathLike[str]) -> str:
    """What a person gives `open_dataset` for the dataset of a collection, by the entries of its manifest."""
    return next((spec for spec, (kind, _) in _NAMED.items() if kind.name == name), str(root))


def _existing(root: str | os.PathLike[str], title: str, argument: str) -> Path:
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        raise DatasetError(f"{title} is not at {path}: run ./data_download.sh {argument}")
    return path


def _text(name: str) -> str:
    """A file name that is not valid UTF-8 is shown with replacement characters; labels must be writable text."""
    return os.fsencode(name).decode("utf-8", "replace")
