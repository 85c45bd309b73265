"""A collection's vectors and what is known about its images.

One folder holds ``features.npy`` (row = id), ``catalog.sqlite`` (one row per image) and ``manifest.json``, which ties
them together: it names the encoder, the sizes and the checksum of the vectors. Parts that do not belong together are
refused.

A store is never changed in place. `sync` writes the parts that change under new names (``features.3.npy``: that of the
third generation) and then replaces the manifest, which names the files in force. So there is one moment at which
everything becomes new, and who has the old parts open keeps them.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    error TEXT,                -- why the image was skipped; its row of the features is zero
    generation INTEGER NOT NULL DEFAULT 0  -- of the store when the row of the features was written
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
_REMOVED_SCHEMA = """
CREATE TABLE IF NOT EXISTS removed (
    id INTEGER PRIMARY KEY,    -- never given to another image; its row of the features is zero
    path NOT NULL,             -- where the image was
    generation INTEGER NOT NULL
);
"""
Facts = tuple[str | None, int | None, int | None, str | None]  # of an image file: sha256, width, height, error

REMOVED = "removed"  # what an item has for an error where its image left the collection
_DONE = "(sha256 IS NOT NULL OR error IS NOT NULL)"


class StoreError(ValueError):
    """A store is missing, damaged, incomplete, or its parts (or an encoder) do not belong together."""


class Record(NamedTuple):
    """An image file as it was when it was last looked at: path relative to the root, bytes, nanoseconds, SHA-256."""

    id: int
    path: Path
    size: int
    mtime: int
    sha256: str | None


class FeatureStore:
    """A finished store, open for reading. Safe to use from many threads.

    Attributes
    ----------
    folder : Path
        Absolute.
    manifest : dict
        ``format, generation, dataset, root, count, removed, damaged, dim, dtype, metric, encoder, features, catalog,
        versions``, and whatever `update_manifest` added.
    features : ndarray, shape (n, dim), float16 or float32
        Memory-mapped, read-only. The row of a damaged or removed image is zero.

    Notes
    -----
    What is open stays as it was, even when a sync replaces the files meanwhile: open the folder again to see the new
    state.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], features: np.ndarray) -> None:
        self.folder = folder
        self.manifest = manifest
        self.features = features
        self._lock = threading.Lock()
        # Opened once and kept: the file may be replaced and deleted while this store is in use.
        self._connection = sqlite3.connect(
            f"{(folder / catalog_file(manifest)).as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        self._catalog_lock = threading.Lock()
        weakref.finalize(self, self._connection.close)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> FeatureStore:
        """Open a folder and check, without reading the vectors, that its parts belong together.

        Raises
        ------
        StoreError
            A part is missing or does not fit the manifest; the message names both sides.
        """
        folder = Path(folder).expanduser().resolve()
        manifest = read_manifest(folder)
        path = folder / manifest["features"]["file"]
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
        catalog_path = folder / catalog_file(manifest)
        try:
            store = cls(folder, manifest, features)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{catalog_path} cannot be read: {error}") from error
        with store.catalog() as catalog:
            count, damaged = catalog.execute("SELECT count(*), count(error) FROM images").fetchone()
            checksum = _about(catalog, "features_sha256")
        if (count, damaged) != (store.image_count, manifest["damaged"]):
            raise StoreError(
                f"{catalog_path} lists {count} images, {damaged} of them damaged, but {folder / MANIFEST} says "
                f"{store.image_count} and {manifest['damaged']}"
            )
        if checksum != manifest["features"]["sha256"]:
            raise StoreError(
                f"{catalog_path} belongs to features with SHA-256 {checksum}, but {folder / MANIFEST} to features "
                f"with {manifest['features']['sha256']}"
            )
        return store

    @property
    def metric(self) -> str:
        """How the vectors are compared: ``"cosine"`` unless the manifest was given another."""
        return str(self.manifest["metric"])

    @cached_property
    def items(self) -> list[Item]:
        """One item for each row of the features; ``error`` is set for the damaged and, to "removed", the removed."""
        root = Path(self.manifest["root"])
        with self.catalog() as catalog:
            labels: dict[int, list[str]] = {}
            for id, label in catalog.execute("SELECT image_id, label FROM labels ORDER BY image_id, label"):
                labels.setdefault(id, []).append(label)
            rows = catalog.execute("SELECT id, path, error FROM images").fetchall()
            if self.manifest.get("removed"):
                rows += catalog.execute("SELECT id, path, ? FROM removed", (REMOVED,)).fetchall()
        return [Item(id, root / path_from(path), tuple(labels.get(id, ())), error) for id, path, error in sorted(rows)]

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the usable images, ascending int64: those whose row of the features means something."""
        with self.catalog() as catalog:
            return np.array([id for (id,) in catalog.execute("SELECT id FROM images WHERE error IS NULL")], np.int64)

    @property
    def image_count(self) -> int:
        """Images, damaged ones included and removed ones not."""
        return int(self.manifest["count"]) - int(self.manifest.get("removed", 0))

    @property
    def generation(self) -> int:
        """How often the store was brought up to date since it was made."""
        return int(self.manifest.get("generation", 0))

    def records(self) -> list[Record]:
        """What the catalog says of each image file, in the order of the ids; removed images have none."""
        with self.catalog() as catalog:
            rows = catalog.execute("SELECT id, path, size, mtime, sha256 FROM images ORDER BY id").fetchall()
        return [Record(id, path_from(path), size, mtime, sha256) for id, path, size, mtime, sha256 in rows]

    def changes_since(self, generation: int) -> tuple[np.ndarray, np.ndarray]:
        """What an index that was made of an earlier generation lacks.

        Returns
        -------
        changed : int64 (n,)
            Ids of usable images whose vector is of a later generation: new ones and edited ones.
        gone : int64 (m,)
            Ids that are no longer of use: of removed images, and of edited ones that cannot be read now.
        """
        if generation >= self.generation:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        with self.catalog() as catalog:
            changed, gone = (
                np.array([id for (id,) in catalog.execute(query, {"since": generation})], np.int64)
                for query in (
                    "SELECT id FROM images WHERE generation > :since AND error IS NULL ORDER BY id",
                    "SELECT id FROM images WHERE generation > :since AND error IS NOT NULL "
                    "UNION SELECT id FROM removed WHERE generation > :since",
                )
            )
        return changed, gone

    def labels(self) -> dict[str, int]:
        """Number of usable images of each label, in the order of the labels."""
        with self.catalog() as catalog:
            return dict(
                catalog.execute(
                    "SELECT label, count(*) FROM labels JOIN images ON id = image_id WHERE error IS NULL "
                    "GROUP BY label ORDER BY label"
                )
            )

    def damaged(self) -> list[tuple[Path, str]]:
        """Path of each image that cannot be used, and why. Unlike `items` it costs nothing for the others."""
        root = Path(self.manifest["root"])
        with self.catalog() as catalog:
            rows = catalog.execute("SELECT path, error FROM images WHERE error IS NOT NULL ORDER BY id").fetchall()
        return [(root / path_from(path), error) for path, error in rows]

    def hash_of(self, id: int) -> str | None:
        """SHA-256 of an image file when it was encoded; None if it could not even be read."""
        with self.catalog() as catalog:
            row = catalog.execute("SELECT sha256 FROM images WHERE id = ?", (int(id),)).fetchone()
        if row is None:
            raise KeyError(f"no image with id {id} in {self.folder}")
        return None if row[0] is None else str(row[0])

    def find_hash(self, sha256: str) -> int | None:
        """Smallest id of a usable image with this content, or None."""
        with self.catalog() as catalog:
            query = "SELECT min(id) FROM images WHERE sha256 = ? AND error IS NULL"
            (id,) = catalog.execute(query, (sha256,)).fetchone()
        return None if id is None else int(id)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise StoreError unless the encoder makes vectors like those in this store."""
        check_same_encoder(self.manifest["encoder"], encoder.spec, self.folder)

    def verify(self) -> None:
        """Read all vectors and raise StoreError if they are not, bit for bit, what was written."""
        path = self.folder / self.manifest["features"]["file"]
        found = sha256_of(path)
        if found != self.manifest["features"]["sha256"]:
            raise StoreError(
                f"{path} is damaged: its SHA-256 is {found}, but {self.folder / MANIFEST} says "
                f"{self.manifest['features']['sha256']}"
            )

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace entries of the manifest, atomically (``metric``, the indexes' files and checksums, ...).

        A file that the manifest spoke of before and does not any more is deleted.
        """
        with self._lock:
            before = read_manifest(self.folder)
            manifest = {**before, **entries}
            write_json(self.folder / MANIFEST, manifest)
            for file in files_of(before) - files_of(manifest):
                (self.folder / file).unlink(missing_ok=True)
            self.manifest = manifest
            self.__dict__.pop("items", None)  # their paths follow from the manifest's root

    @contextmanager
    def catalog(self) -> Iterator[sqlite3.Connection]:
        """The catalog, read-only, for one thread at a time. What sqlite cannot read is a StoreError."""
        try:
            with self._catalog_lock:
                yield self._connection
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.folder / catalog_file(self.manifest)} cannot be read: {error}") from error


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
            self._catalog.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} {_REMOVED_SCHEMA}")
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

    def append(self, features: np.ndarray, facts: Sequence[Facts]) -> None:
        """Write the next images.

        Parameters
        ----------
        features : float32 (b, dim)
            Rows of damaged images are zero.
        facts : b tuples (sha256, width, height, error)
        """
        rows = as_rows(features, self._dtype)
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
                "generation": 0,
                "dataset": self._dataset.name,
                "root": str(self._dataset.root),
                "count": self._count,
                "removed": 0,
                "damaged": damaged,
                "dim": self._dim,
                "dtype": self._dtype.name,
                "metric": "cosine",
                "encoder": self._spec,
                "features": {"file": FEATURES, "sha256": checksum},
                "catalog": {"file": CATALOG},
                "versions": versions(),
            },
        )
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self.folder.replace(self._target)
        return FeatureStore.open(self._target)

    def close(self) -> None:
        """Let go of the files; what was appended stays."""
        self._catalog.close()
        self._rows.close()


def as_rows(features: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Vectors as they are stored. Raises StoreError where they do not fit the type."""
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(features, dtype=dtype)
    if not np.isfinite(rows).all():
        raise StoreError(f"the encoder gave numbers that {dtype.name} cannot hold (NaN or infinity)")
    return rows


def versions() -> dict[str, str]:
    """What vectors may depend on besides the encoder."""
    return {name: metadata.version(name) for name in ("numpy", "pillow", "torch")}


def catalog_file(manifest: dict[str, Any]) -> str:
    """Name of the catalog that a manifest speaks of; early manifests did not say."""
    return str(manifest.get("catalog", {}).get("file", CATALOG))


def numbered(file: str, generation: int) -> str:
    """Name of a part of a collection in a generation: ``features.npy``, then ``features.1.npy``, ..."""
    stem, extension = file.split(".")
    return f"{stem}.{generation}.{extension}" if generation else file


def upgrade_catalog(catalog: sqlite3.Connection) -> None:
    """Add what a catalog lacks that was made before collections could be brought up to date."""
    catalog.executescript(_REMOVED_SCHEMA)
    if "generation" not in [column[1] for column in catalog.execute("PRAGMA table_info(images)")]:
        catalog.execute("ALTER TABLE images ADD COLUMN generation INTEGER NOT NULL DEFAULT 0")


def files_of(manifest: dict[str, Any]) -> set[str]:
    """Names of the files that a manifest speaks of."""
    indexes = manifest.get("indexes", {}).values()
    return {manifest["features"]["file"], catalog_file(manifest), *(index["file"] for index in indexes)}


def remove_leftovers(folder: Path) -> None:
    """Delete parts of a collection, by their names, that the manifest does not speak of: of earlier generations, or
    written by someone who was stopped.
    """
    manifest = read_manifest(folder)
    parts = "|".join(map(re.escape, {"features", "catalog", *manifest.get("indexes", {})}))
    named = re.compile(rf"\.?({parts})(\.\d+)?\.(npy|sqlite|index)([-.].*)?")
    kept = tuple(files_of(manifest))
    for path in folder.iterdir():
        if named.fullmatch(path.name) and not path.name.startswith(kept):  # nor a journal of the catalog
            with suppress(OSError):  # where open files cannot be deleted: the next time
                path.unlink()


def partial_folder(folder: Path) -> Path:
    """Where a store that will be `folder` is built: hidden, so that nobody takes it for a collection."""
    return folder.with_name(f".{folder.name}.partial")


def encoder_identity(spec: dict[str, Any]) -> dict[str, Any]:
    """What two encoders' specs have in common if, and only if, their vectors are interchangeable."""
    # Not where the same weights happen to lie, nor what ran them: every runtime gives the same but for rounding.
    return {**spec, "weights": spec["weights"]["sha256"], "runtime": None}


def check_same_encoder(made: dict[str, Any], now: dict[str, Any], where: object, hint: str = "") -> None:
    """Raise StoreError unless two encoder specs give interchangeable vectors."""

    def title(spec: dict[str, Any]) -> str:
        return f"{spec['name']} ({spec['dim']}-d, weights {spec['weights']['sha256'][:8]})"

    before, after = encoder_identity(made), encoder_identity(now)
    if before != after:
        differing = ", ".join(key for key in after if before.get(key) != after[key]) or "spec"
        raise StoreError(f"{where} is of encoder {title(made)}, not of {title(now)}: different {differing}{hint}")


def check_same_images(catalog: sqlite3.Connection, items: Sequence[Item], root: Path, where: object, hint: str) -> None:
    """Raise StoreError, naming the first difference, unless the catalog lists exactly these images, unchanged.

    A file whose time alone differs (a copy) is compared by its content.
    """
    rows = catalog.execute("SELECT path, size, mtime, sha256 FROM images ORDER BY id").fetchall()
    for (stored, size, mtime, sha256), item in zip(rows, items, strict=False):
        path = item.path.relative_to(root)
        if path_from(stored) != path:
            raise StoreError(f"{where} has {str(path_from(stored))!r} where {root} now has {str(path)!r}{hint}")
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


def path_from(stored: str | bytes) -> Path:
    """What `path_to` was given."""
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a collection. Raises StoreError if it is missing, damaged or of another format."""
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
    try:
        outside = [file for file in files_of(manifest) if Path(file).name != file]
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} does not say which files it speaks of ({type(error).__name__}: {error})") from error
    if outside:
        raise StoreError(f"{path} names {outside[0]!r}, which is not a file of its folder")
    return manifest


def _about(catalog: sqlite3.Connection, key: str) -> Any:
    row = catalog.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])
