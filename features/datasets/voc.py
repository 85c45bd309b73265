"""PASCAL VOC 2012."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import cached_property
from pathlib import Path

from features.datasets.base import DatasetError, Item, existing_folder

logger = logging.getLogger(__name__)


class VOC2012:
    """PASCAL VOC 2012, training and validation: 17,125 images; the labels are the classes of the annotated objects."""

    name = "voc2012"
    kind = "voc"
    location = "VOCdevkit/VOC2012"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = existing_folder(root, "VOC2012", "voc")

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether a folder holds the images of PASCAL VOC where PASCAL VOC has them."""
        return (root / "JPEGImages").is_dir()

    @cached_property
    def items(self) -> list[Item]:
        paths = sorted((self.root / "JPEGImages").glob("*.jpg"))
        if not paths:
            raise DatasetError(f"no JPEGImages/*.jpg in {self.root}: remove the folder and run ./data_download.sh voc")
        return [Item(id, path, self._labels(path)) for id, path in enumerate(paths)]

    def _labels(self, image: Path) -> tuple[str, ...]:
        annotation = self.root / "Annotations" / f"{image.stem}.xml"
        try:
            return tuple(sorted(object_counts(annotation)))
        except (OSError, ElementTree.ParseError) as error:
            logger.warning("%s is taken without labels: %s", image.name, error)
            return ()


def object_counts(annotation: Path) -> Counter[str]:
    """How many objects of each class an annotation names.

    Raises
    ------
    OSError, xml.etree.ElementTree.ParseError
        It cannot be read.
    """
    # object/name only: an object's parts (head, hand, foot) have names of their own, one level below.
    return Counter(name.text for name in ElementTree.parse(annotation).iterfind("object/name") if name.text)
