"""A collection's vectors and what is known about its images.

One folder holds ``features.npy`` (row = id), ``catalog.sqlite`` (one row per image) and ``manifest.json``, which ties
them together: it names the encoder, the sizes and the checksum of the vectors. Parts that do not belong together are
refused.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.checksum import sha256_of
from features.datasets import Dataset, Item

if TYPE_CHECKING:
    from features.encoders import Encoder

__all__ = ["FeatureStore", "StoreError", "sha256_of"]

FORMAT = 1
MANIFEST, CATALOG, FEATURES = "manifest.json", "catalog.sqlite", "features.npy"

_SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,    -- 0..n-1, the row of the features
    path NOT NULL UNIQUE,      -- relative to the dataset's root, with "/"; bytes where a name is not valid UTF-8
    size INTEGER NOT NULL,     -- bytes
    mtime INTEGER NOT NULL,    -- nanoseconds since 1970
    sha256 TEXT,               -- of the file's content
    width INTEGER,             -- pixels, as seen (after the EXIF orientation)
    height INTEGER,
    error TEXT                 -- why the image was skipped; its row of the features is zero
);
CREATE INDEX images_sha256 ON images (sha256);
CREATE TABLE labels (
    image_id INTEGER NOT NULL REFERENCES images (id),
    label TEXT NOT NULL,
    PRIMARY KEY (label, image_id)
) WITHOUT ROWID;
CREATE INDEX labels_image ON labels (image_id);
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- JSON; see StoreWriter
"""
_DONE = "(sha256 IS NOT NULL OR error IS NOT NULL)"


class StoreError(ValueError):
    """A store is missing, damaged, incomplete, or its parts (or an encoder) do not belong together."""


class FeatureStore:
    """A finished store, open for reading. Safe to use from many threads.

    Attributes
    ----------
    folder : Path
        Absolute.
    manifest : dict
        ``format, dataset, root, count, damaged, dim, dtype, metric, encoder, features, versions``, and whatever
        `update_manifest` added.
    features : ndarray, shape (n, dim), float16 or float32
        Memory-mapped, read-only. The row of a damaged image is zero.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], features: np.ndarray) -> None:
        self.folder = folder
        self.manifest = manifest
        self.features = features
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> FeatureStore:
        """Open a folder and check, without reading the vectors, that its parts belong together.

        Raises
        ------
        StoreError
            A part is missing or does not fit the manifest; the message names both sides.
        """
        folder = Path(folder).expanduser().resolve()
        manifest = _read_manifest(folder)
        path = folder / FEATURES
        try:
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error
        wanted = (manifest["count"], manifest["dim"]), manifest["dtype"]
        if (features.shape, features.dtype.name) != wanted:
            raise StoreError(
                f"{path} holds {features.dtype.name} {features.shape}, "
                f"but {folder / MANIFEST} says {wanted[1]} {wanted[0]}"
            )
        store = cls(folder, manifest, features)
        with store._catalog() as catalog:
            count, damaged = catalog.execute("SELECT count(*), count(error) FROM images").fetchone()
            checksum = _about(catalog, "features_sha256")
        if (count, damaged) != (manifest["count"], manifest["damaged"]):
            raise StoreError(
                f"{folder / CATALOG} lists {count} images, {damaged} of them damaged, but {folder / MANIFEST} says "
                f"{manifest['count']} and {manifest['damaged']}"
            )
        if checksum != manifest["features"]["sha256"]:
            raise StoreError(
                f"{folder / CATALOG} belongs to features with SHA-256 {checksum}, but {folder / MANIFEST} to features "
                f"with {manifest['features']['sha256']}"
            )
        return store

    @property
    def metric(self) -> str:
        """How the vectors are compared: ``"cosine"`` unless the manifest was given another."""
        return str(self.manifest["metric"])

    @cached_property
    def items(self) -> list[Item]:
        """All images in the order of their ids; ``error`` is set for the damaged ones."""
        root = Path(self.manifest["root"])
        with self._catalog() as catalog:
            labels: dict[int, list[str]] = {}
            for id, label in catalog.execute("SELECT image_id, label FROM labels ORDER BY image_id, label"):
                labels.setdefault(id, []).append(label)
            rows = catalog.execute("SELECT id, path, error FROM images ORDER BY id").fetchall()
        return [Item(id, root / _path_from(path), tuple(labels.get(id, ())), error) for id, path, error in rows]

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the usable images, ascending int64: those whose row of the features means something."""
        with self._catalog() as catalog:
            return np.array([id for (id,) in catalog.execute("SELECT id FROM images WHERE error IS NULL")], np.int64)

    def labels(self) -> dict[str, int]:
        """Number of usable images of each label, in the order of the labels."""
        with self._catalog() as catalog:
            return dict(
                catalog.execute(
                    "SELECT label, count(*) FROM labels JOIN images ON id = image_id WHERE error IS NULL "
                    "GROUP BY label ORDER BY label"
                )
            )

    def hash_of(self, id: int) -> str | None:
        """SHA-256 of an image file when it was encoded; None if it could not even be read."""
        with self._catalog() as catalog:
            row = catalog.execute("SELECT sha256 FROM images WHERE id = ?", (int(id),)).fetchone()
        if row is None:
            raise KeyError(f"no image with id {id} in {self.folder}")
        return None if row[0] is None else str(row[0])

    def find_hash(self, sha256: str) -> int | None:
        """Smallest id of a usable image with this content, or None."""
        with self._catalog() as catalog:
            query = "SELECT min(id) FROM images WHERE sha256 = ? AND error IS NULL"
            (id,) = catalog.execute(query, (sha256,)).fetchone()
        return None if id is None else int(id)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise StoreError unless the encoder makes vectors like those in this store."""
        check_same_encoder(self.manifest["encoder"], encoder.spec, self.folder)

    def verify(self) -> None:
        """Read all vectors and raise StoreError if they are not, bit for bit, what was written."""
        found = sha256_of(self.folder / FEATURES)
        if found != self.manifest["features"]["sha256"]:
            raise StoreError(
                f"{self.folder / FEATURES} is damaged: its SHA-256 is {found}, but {self.folder / MANIFEST} says "
                f"{self.manifest['features']['sha256']}"
            )

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace entries of the manifest, atomically (``metric``, the indexes' files and checksums, ...)."""
        with self._lock:
            manifest = {**_read_manifest(self.folder), **entries}
            write_json(self.folder / MANIFEST, manifest)
            self.manifest = manifest
            self.__dict__.pop("items", None)  # their paths follow from the manifest's root

    @contextmanager
    def _catalog(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / CATALOG
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} cannot be read: {error}") from error


class StoreWriter:
    """A store in the making, in a hidden folder beside the place where it will be.

    Each `append` is durable when it returns: vectors first, then the catalog in one transaction. Whatever happens in
    between is lost with that batch and nothing else, and the next writer goes on from there. `finish` renames the
    folder, so a store either is complete or does not exist.

    Parameters
    ----------
    folder : Path
        Where the finished store will be.
    dataset, items : Dataset, list of Item
        What goes in; `items` may be the beginning of the dataset only.
    spec : dict
        The encoder's.
    dtype : str
        ``"float16"`` or ``"float32"``.

    Raises
    ------
    StoreError
        Another process is writing here, or what was begun here is of another encoder, dtype or dataset.
    """

    def __init__(self, folder: Path, dataset: Dataset, items: Sequence[Item], spec: dict[str, Any], dtype: str) -> None:
        self._target = folder
        self.folder = partial_folder(folder)
        self._dataset = dataset
        self._count = len(items)
        self._dim = spec["dim"]
        self._dtype = np.dtype(dtype)
        self._spec = spec
        if folder.exists() and any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no {MANIFEST}: choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._catalog = sqlite3.connect(self.folder / CATALOG, timeout=0, isolation_level=None)
        try:
            self._begin(items)
        except BaseException:
            self._catalog.close()
            raise

    def _begin(self, items: Sequence[Item]) -> None:
        try:
            self._catalog.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until close: one writer at a time
            self._catalog.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.folder} is in use by another extraction ({error})") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.folder / CATALOG} is damaged ({error}): remove {self.folder}") from error
        if self._catalog.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._catalog.execute("ROLLBACK")
            self._check_resumable(items)
        else:
            self._catalog.execute("ROLLBACK")  # executescript commits what is open, so it opens its own
            self._catalog.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA}")
            self._catalog.executemany(
                "INSERT INTO images (id, path, size, mtime) VALUES (?, ?, ?, ?)",
                ((item.id, path_to(item.path.relative_to(self._dataset.root)), *stat_of(item.path)) for item in items),
            )
            self._catalog.executemany(
                "INSERT INTO labels VALUES (?, ?)", ((item.id, label) for item in items for label in set(item.labels))
            )
            self._catalog.executemany(
                "INSERT INTO about VALUES (?, ?)",
                [("encoder", json.dumps(self._spec)), ("dtype", json.dumps(self._dtype.name))],
            )
            self._catalog.execute("COMMIT")
        self._rows = self._open_rows()
        self.done: int = self._catalog.execute(f"SELECT count(*) FROM images WHERE {_DONE}").fetchone()[0]

    def _check_resumable(self, items: Sequence[Item]) -> None:
        where = f"the extraction begun in {self.folder}"
        hint = f"; remove {self.folder} to start over"
        check_same_encoder(_about(self._catalog, "encoder"), self._spec, where, hint)
        begun = _about(self._catalog, "dtype")
        if begun != self._dtype.name:
            raise StoreError(f"{where} writes {begun}, now {self._dtype.name} is asked for{hint}")
        check_same_images(self._catalog, items, self._dataset.root, where, hint)

    def _open_rows(self) -> Any:
        path = self.folder / FEATURES
        file = open(path, "r+b" if path.exists() else "x+b")  # noqa: PTH123, SIM115  # closed by close()
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count, self._dim)}
        np.lib.format.write_array_header_1_0(file, header)
        self._offset = file.tell()
        return file

    def append(
        self, features: np.ndarray, facts: Sequence[tuple[str | None, int | None, int | None, str | None]]
    ) -> None:
        """Write the next images.

        Parameters
        ----------
        features : float32 (b, dim)
            Rows of damaged images are zero.
        facts : b tuples (sha256, width, height, error)
        """
        rows = np.ascontiguousarray(features, dtype=self._dtype)
        if not np.isfinite(rows).all():
            raise StoreError(f"the encoder gave numbers that {self._dtype.name} cannot hold (NaN or infinity)")
        self._rows.seek(self._offset + self.done * self._dim * self._dtype.itemsize)
        self._rows.write(rows.tobytes())
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._catalog.execute("BEGIN")
        self._catalog.executemany(
            "UPDATE images SET sha256 = ?, width = ?, height = ?, error = ? WHERE id = ?",
            [(*fact, self.done + place) for place, fact in enumerate(facts)],
        )
        self._catalog.execute("COMMIT")
        self.done += len(rows)

    def finish(self) -> FeatureStore:
        """Complete the store, move it to its place and open it."""
        damaged, reason = self._catalog.execute("SELECT count(error), min(error) FROM images").fetchone()
        if damaged == self._count:
            raise StoreError(
                f"none of the {self._count} images in {self._dataset.root} can be read (the first: {reason})"
            )
        self._rows.close()
        checksum = sha256_of(self.folder / FEATURES)
        self._catalog.execute("INSERT OR REPLACE INTO about VALUES ('features_sha256', ?)", (json.dumps(checksum),))
        self.close()
        write_json(
            self.folder / MANIFEST,
            {
                "format": FORMAT,
                "dataset": self._dataset.name,
                "root": str(self._dataset.root),
                "count": self._count,
                "damaged": damaged,
                "dim": self._dim,
                "dtype": self._dtype.name,
                "metric": "cosine",
                "encoder": self._spec,
                "features": {"file": FEATURES, "sha256": checksum},
                "versions": {name: metadata.version(name) for name in ("numpy", "pillow", "torch")},
            },
        )
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self.folder.replace(self._target)
        return FeatureStore.open(self._target)

    def close(self) -> None:
        """Let go of the files; what was appended stays."""
        self._catalog.close()
        self._rows.close()


def partial_folder(folder: Path) -> Path:
    """Where a store that will be `folder` is built: hidden, so that nobody takes it for a collection."""
    return folder.with_name(f".{folder.name}.partial")


def check_same_encoder(made: dict[str, Any], now: dict[str, Any], where: object, hint: str = "") -> None:
    """Raise StoreError unless two encoder specs give interchangeable vectors."""

    def identity(spec: dict[str, Any]) -> dict[str, Any]:
        # Not where the same weights happen to lie, nor what ran them: every runtime gives the same but for rounding.
        return {**spec, "weights": spec["weights"]["sha256"], "runtime": None}

    def title(spec: dict[str, Any]) -> str:
        return f"{spec['name']} ({spec['dim']}-d, weights {spec['weights']['sha256'][:8]})"

    if identity(made) != identity(now):
        differing = ", ".join(key for key in now if identity(made).get(key) != identity(now)[key]) or "spec"
        raise StoreError(f"{where} is of encoder {title(made)}, not of {title(now)}: different {differing}{hint}")


def check_same_images(catalog: sqlite3.Connection, items: Sequence[Item], root: Path, where: object, hint: str) -> None:
    """Raise StoreError, naming the first difference, unless the catalog lists exactly these images, unchanged.

    A file whose time alone differs (a copy) is compared by its content.
    """
    rows = catalog.execute("SELECT path, size, mtime, sha256 FROM images ORDER BY id").fetchall()
    for (stored, size, mtime, sha256), item in zip(rows, items, strict=False):
        path = item.path.relative_to(root)
        if _path_from(stored) != path:
            raise StoreError(f"{where} has {str(_path_from(stored))!r} where {root} now has {str(path)!r}{hint}")
        size_now, mtime_now = stat_of(item.path)
        if size_now != size or (mtime_now != mtime and sha256 is not None and sha256_of(item.path) != sha256):
            raise StoreError(f"{item.path} has changed since {where} was made{hint}")
    if len(rows) != len(items):
        raise StoreError(f"{where} has {len(rows)} images, {root} now gives {len(items)}{hint}")


def path_to(path: Path) -> str | bytes:
    """A relative path as the catalog holds it: text, or bytes if it is not valid UTF-8."""
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _path_from(stored: str | bytes) -> Path:
    return Path(os.fsdecode(stored))


def stat_of(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; (-1, 0) for a file that cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        begun = f" (an extraction was begun in {partial_folder(folder)})" if partial_folder(folder).exists() else ""
        raise StoreError(f"{folder} is not a collection: it has no {MANIFEST}{begun}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise StoreError(f"{path} has format {found!r}; this version reads {FORMAT}")
    missing = {"root", "count", "damaged", "dim", "dtype", "metric", "encoder", "features"} - manifest.keys()
    if missing:
        raise StoreError(f"{path} lacks {', '.join(sorted(missing))}")
    return manifest


def _about(catalog: sqlite3.Connection, key: str) -> Any:
    row = catalog.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])
