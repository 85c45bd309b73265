"""Any folder of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from features.datasets.base import DatasetError, Item, label_text
from features.images import HEIC_EXTENSIONS, INSTALL_HEIC, extensions

logger = logging.getLogger(__name__)


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
        self.name = label_text(self.root.name) or "root"

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
        return () if parent == "." else (label_text(parent),)
