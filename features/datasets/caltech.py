"""Caltech101."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from features.datasets.base import DatasetError, Item, existing_folder, label_text


class Caltech101:
    """Caltech101 (Fei-Fei, Fergus, Perona 2004): 9,144 images in 102 folders, the folder being the label."""

    name = "caltech101"
    kind = "caltech"
    location = "caltech101"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = existing_folder(root, "Caltech101", "caltech")

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether a folder holds class folders with JPEGs in them."""
        return any(root.glob("*/*.jpg"))

    @cached_property
    def items(self) -> list[Item]:
        paths = sorted(self.root.glob("*/*.jpg"), key=lambda path: path.relative_to(self.root).as_posix())
        if not paths:
            raise DatasetError(f"no <class>/*.jpg in {self.root}: remove the folder and run ./data_download.sh caltech")
        return [Item(id, path, (label_text(path.parent.name),)) for id, path in enumerate(paths)]
