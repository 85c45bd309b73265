"""The manifest of a collection: what belongs together, which files are in force, and how vectors were made.

It is written last and replaced as a whole, so there is one moment at which everything that it names becomes new.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import stat
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from features.collection.errors import StoreError
from features.collection.schema import MANIFEST, fault_of
from features.paths import expanded

FORMAT = 1
CATALOG, FEATURES = "catalog.sqlite", "features.npy"
VISUAL = "visual"
_MAX_BYTES = 1 << 24
_MAX_CHANGES = 100  # that one reader lives through: no writers make so many while a collection is opened
_ANNOUNCED = ".announced"  # names of files, one a line

T = TypeVar("T")


def absolute(folder: str | os.PathLike[str]) -> Path:
    """An absolute path that keeps the name that a link to a folder has; "~" is the home where there is one."""
    return Path(os.path.abspath(expanded(folder)))  # noqa: PTH100  # Path.absolute keeps ".."


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a collection. Raises StoreError if it is missing, damaged or of another format.

    One of an earlier version is returned as it would be written now.
    """
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{folder} is not a collection: its {MANIFEST} is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        begun = f" (an extraction was begun in {partial_folder(folder)})" if partial_folder(folder).exists() else ""
        raise StoreError(f"{folder} is not a collection: it has no {MANIFEST}{begun}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_BYTES:
        raise StoreError(f"{path} cannot be read: it has more than {_MAX_BYTES} bytes")
    try:
        manifest = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except ValueError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    except RecursionError as error:
        raise StoreError(f"{path} cannot be read: it is nested too deeply") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise StoreError(f"{path} has format {found!r:.80}; this version reads {FORMAT}")
    if fault := fault_of(manifest):
        raise StoreError(f"{path} {fault}")
    if "follow_links" in manifest:  # earlier versions said it here, later ones here and in the source
        manifest["source"] = {"follow_links": manifest.pop("follow_links"), **manifest.get("source", {})}
    return manifest


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    # A file name that is not UTF-8 has lone surrogates for its bytes, which JSON writes as escapes.
    text = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
    try:
        with temporary.open("xb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say which file it is about
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def put_in_force(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest, and delete the files that only the old one spoke of. For who holds the lock."""
    announce(folder, *(files_of(read_manifest(folder)) - files_of(manifest)))
    write_json(folder / MANIFEST, manifest)
    remove_leftovers(folder)


def catalog_file(manifest: dict[str, Any]) -> str:
    """Name of the catalog that a manifest speaks of; early manifests did not say."""
    return str(manifest.get("catalog", {}).get("file", CATALOG))


def files_of(manifest: dict[str, Any]) -> set[str]:
    """Names of the files that a manifest speaks of."""
    return {entry["file"] for entry in (manifest["features"], *derived_files(manifest))} | {catalog_file(manifest)}


def derived_files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of files that can be made again from the vectors: those of other spaces, of indexes, of pairs of
    duplicates, and of the map.
    """
    spaces = list(manifest.get("spaces", {}).values())
    beside = [entry for space in spaces for entry in space.get("beside", {}).values()]
    indexes = [entry for owner in (manifest, *spaces) for entry in owner.get("indexes", {}).values()]
    pairs, points = (manifest.get(name) or {} for name in ("duplicates", "map"))
    return [entry for entry in (*spaces, *beside, *indexes, pairs, points) if entry.get("file")]


def vector_files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the files of vectors, row = id, that can grow: see `features.collection.vector_file`."""
    spaces = list(manifest.get("spaces", {}).values())
    return [manifest["features"], *spaces, *(entry for space in spaces for entry in space.get("beside", {}).values())]


def spaces_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All spaces of a collection by name, in the form of the manifest's `spaces`.

    The first, "visual", is what the manifest's own keys speak of: the encoder's vectors. The manifests of the first
    collections know no other.
    """
    visual = {
        **manifest["features"],
        "dim": manifest["dim"],
        "dtype": manifest["dtype"],
        "metric": manifest["metric"],
        "maker": manifest["encoder"],
        "accepts": ["ImagePart"],
        "generation": manifest.get("generation", 0),
        "indexes": manifest.get("indexes", {}),
    }
    others = {name: entry for name, entry in manifest.get("spaces", {}).items() if name != VISUAL}
    return {VISUAL: visual, **others}


def numbered(file: str, generation: int) -> str:
    """Name of a part of a collection in a generation: ``features.npy``, then ``features.1.npy``, ..."""
    stem, extension = file.split(".")
    return f"{stem}.{generation}.{extension}" if generation else file


def partial_folder(folder: Path) -> Path:
    """Where a store that will be `folder` is built: hidden, so that nobody takes it for a collection."""
    return folder.with_name(f".{folder.name}.partial")


def new_part(folder: Path, file: str, generation: int) -> Path:
    """A free name for a part of the next state of a collection, announced, so that it goes if that never comes."""
    names = (numbered(file, number) for number in itertools.count(generation))
    path = next(folder / name for name in names if not os.path.lexists(folder / name))
    announce(folder, path.name)
    return path


def announce(folder: Path, *names: str) -> None:
    """Note, durably, which files are about to be written or deleted: see `remove_leftovers`."""
    if names:
        with (folder / _ANNOUNCED).open("ab") as file:
            file.writelines(f"{name}\n".encode() for name in sorted(names))
            file.flush()
            os.fsync(file.fileno())


def leftovers(folder: Path) -> set[str]:
    """Names of files that a writer who was stopped has left: announced ones that the manifest does not speak of, and
    temporary ones. For who holds the lock.

    Everything else in the folder is someone else's, whatever it is called.
    """
    try:
        announced = (folder / _ANNOUNCED).read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    except FileNotFoundError:
        announced = []
    names = {name for name in announced if _is_plain(name)} - files_of(read_manifest(folder)) - {MANIFEST}
    names |= {f"{name}-journal" for name in names}
    parts = "|".join(map(re.escape, {MANIFEST, *announced}))
    temporary = re.compile(rf"\.({parts})\.[0-9a-f]{{12}}\.tmp")  # as `write_json` and the indexes name theirs
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name in names or temporary.fullmatch(entry.name)}


def remove_leftovers(folder: Path) -> None:
    """Delete what a writer who was stopped has left: see `leftovers`."""
    all_gone = True
    for name in leftovers(folder):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError:  # where open files cannot be deleted: the next time
            all_gone = False
    if all_gone:
        (folder / _ANNOUNCED).unlink(missing_ok=True)


def _is_plain(name: str) -> bool:
    return Path(name).name == name


def unchanged_while(folder: Path, read: Callable[[], T]) -> T:
    """What `read` returns. It is called again as long as it fails while writers replace the manifest."""
    for _ in range(_MAX_CHANGES):
        before = _manifest_now(folder)
        try:
            return read()
        except (OSError, ValueError):
            if _manifest_now(folder) == before:
                raise
    return read()


def _manifest_now(folder: Path) -> tuple[bytes, int, int] | None:
    """What tells two states apart: builds in turn come back to the names, and so to the bytes, of an earlier one."""
    path = folder / MANIFEST
    try:
        status = path.stat()
        return path.read_bytes(), status.st_ino, status.st_mtime_ns
    except OSError:
        return None


def library_versions() -> dict[str, str]:
    """What vectors may depend on besides the encoder."""
    return {name: metadata.version(name) for name in ("numpy", "pillow", "torch")}


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
        differing = ", ".join(key for key in {**before, **after} if before.get(key) != after.get(key)) or "spec"
        raise StoreError(f"{where} is of encoder {title(made)}, not of {title(now)}: different {differing}{hint}")
