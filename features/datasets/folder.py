"""Any folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from features.datasets.base import DatasetError, Item, label_text
from features.datasets.walk import LeftOut, PictureWalk
from features.paths import expanded

MAX_MEGAPIXELS = 100_000
"""What a limit may be raised to; a picture of that many takes hundreds of gigabytes."""


class ImageFolder:
    """Any folder of images, searched recursively.

    An image in a subfolder is labelled with that folder's path relative to the root ("animals/cats"); one that lies in
    the root itself has no label. Hidden files and folders are passed over, and those that systems keep for themselves
    (trash, thumbnails). A file without an extension is taken if its content begins like an image. What is passed over
    and may be missed is logged: folders that cannot be listed, images of kinds that nothing here reads, links that lead
    out of the folder, pipes and devices.

    Parameters
    ----------
    root : path
    exclude : sequence of str
        Patterns, as a shell has them ("*.gif", "private", "2019/*"), of names or of paths relative to the root: what
        fits one is passed over.
    follow_links : bool
        Take what links lead to that lies outside the root.
    max_megapixels : float, optional
        The largest image that is decoded, in millions of pixels; by default `features.images.MAX_PIXELS`.

    Attributes
    ----------
    left_out : list of LeftOut
        What is passed over, once `items` has been asked for; the first `walk.MAX_NAMED`.
    left_out_count : int
        Of all that is.
    """

    kind = "folder"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        exclude: Sequence[str] = (),
        follow_links: bool = False,
        max_megapixels: float | None = None,
    ) -> None:
        self.root = expanded(root).resolve()
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder")
        self.name = label_text(self.root.name) or "root"
        self.exclude = tuple(exclude)
        self.follow_links = follow_links
        self.options: dict[str, Any] = {"exclude": list(self.exclude), "follow_links": follow_links}
        self.left_out: list[LeftOut] = []
        self.left_out_count = 0
        self.max_pixels: int | None = None
        if max_megapixels is not None:
            if not 0 < max_megapixels <= MAX_MEGAPIXELS:
                raise DatasetError(
                    f"max_megapixels must be more than 0 and at most {MAX_MEGAPIXELS}, got {max_megapixels}"
                )
            self.options["max_megapixels"] = max_megapixels
            self.max_pixels = max(1, round(max_megapixels * 1e6))

    @cached_property
    def items(self) -> list[Item]:
        walk = PictureWalk(self.root, self.exclude, follow_links=self.follow_links)
        paths = sorted(walk, key=lambda path: path.relative_to(self.root).as_posix())
        if not paths:
            raise DatasetError(f"no images in {self.root} (nor in its subfolders): {walk.summary()}")
        walk.report()
        self.left_out, self.left_out_count = walk.left_out, walk.passed_over.total()
        return [Item(id, path, self._labels(path)) for id, path in enumerate(paths)]

    def _labels(self, path: Path) -> tuple[str, ...]:
        parent = path.parent.relative_to(self.root).as_posix()
        return () if parent == "." else (label_text(parent),)
