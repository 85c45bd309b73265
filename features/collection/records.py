"""What a catalog holds of each image, and what becomes new in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Facts(NamedTuple):
    """What reading an image file told; `phash` as `features.phash` makes it, of what could be decoded, and `camera` as
    `features.images.exif.camera_of` tells it.
    """

    sha256: str | None
    width: int | None
    height: int | None
    error: str | None
    phash: bytes | None = None
    camera: str | None = None


class Record(NamedTuple):
    """An image file as it was when it was last looked at: path relative to the root, bytes, nanoseconds, SHA-256."""

    id: int
    path: Path
    size: int
    mtime: int
    sha256: str | None


class Row(NamedTuple):
    """A row of the table of images, without its generation."""

    id: int
    path: Path
    size: int
    mtime: int
    sha256: str | None
    width: int | None
    height: int | None
    error: str | None
    phash: bytes | None = None
    camera: str | None = None


@dataclass
class CatalogChanges:
    """What becomes new in the catalog with a generation of the store.

    Attributes
    ----------
    removed : list of (id, path)
    encoded : list of Row
        Images that the catalog knows and whose row of the features is written anew.
    moved : list of (id, path, size, mtime)
        The same content under another path, or with another time.
    added : list of Row
    hashed : list of (id, phash)
    cameras : list of (id, camera)
        Images that a catalog of an earlier version has without.
    labels : dict of int to tuple of str
        All labels of the images whose labels have changed.
    """

    removed: list[tuple[int, Path]] = field(default_factory=list)
    encoded: list[Row] = field(default_factory=list)
    moved: list[tuple[int, Path, int, int]] = field(default_factory=list)
    added: list[Row] = field(default_factory=list)
    hashed: list[tuple[int, bytes]] = field(default_factory=list)
    cameras: list[tuple[int, str]] = field(default_factory=list)
    labels: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.removed, self.encoded, self.moved, self.added, self.hashed, self.cameras, self.labels))
