"""The manifest of a collection: what belongs together, which files are in force, and how vectors were made.

It is written last and replaced as a whole, so there is one moment at which everything that it names becomes new.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from features.collection.errors import StoreError

FORMAT = 1
MANIFEST, CATALOG, FEATURES = "manifest.json", "catalog.sqlite", "features.npy"
_ANNOUNCED = ".announced"  # names of files, one a line

T = TypeVar("T")


def absolute(folder: str | os.PathLike[str]) -> Path:
    """An absolute path that keeps the name that a link to a folder has; "~" is the home where there is one."""
    path = Path(folder)
    with suppress(RuntimeError):  # "~old pictures" is nobody's home
        path = path.expanduser()
    return Path(os.path.abspath(path))  # noqa: PTH100  # Path.absolute keeps ".."


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
    spaces = manifest.get("spaces", {}).values()
    indexes = [index for owner in (manifest, *spaces) for index in owner.get("indexes", {}).values()]
    own = {part["file"] for part in (manifest["features"], *spaces)}
    return {*own, catalog_file(manifest), *(index["file"] for index in indexes if "file" in index)}


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


def remove_leftovers(folder: Path) -> None:
    """Delete what a writer who was stopped has left: announced files that the manifest does not speak of.

    Everything else in the folder is someone else's and stays, whatever it is called.
    """
    try:
        announced = (folder / _ANNOUNCED).read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    except FileNotFoundError:
        announced = []
    names = {name for name in announced if _is_plain(name)} - files_of(read_manifest(folder)) - {MANIFEST}
    parts = "|".join(map(re.escape, {MANIFEST, *announced}))
    temporary = re.compile(rf"\.({parts})\.[0-9a-f]{{12}}\.tmp")  # as `write_json` and the indexes name theirs
    with os.scandir(folder) as entries:
        temporaries = {entry.name for entry in entries if temporary.fullmatch(entry.name)}
    all_gone = True
    for name in (*names, *(f"{name}-journal" for name in names), *temporaries):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError:  # where open files cannot be deleted: the next time
            all_gone = False
    if all_gone:
        (folder / _ANNOUNCED).unlink(missing_ok=True)


def _is_plain(name: str) -> bool:
    return Path(name).name == name


def unchanged_while(folder: Path, read: Callable[[], T]) -> T:
    """What `read` returns. It is called once more if it fails while a writer replaces the manifest."""
    before = _manifest_bytes(folder)
    try:
        return read()
    except (OSError, ValueError):
        if _manifest_bytes(folder) == before:
            raise
    return read()


def _manifest_bytes(folder: Path) -> bytes | None:
    try:
        return (folder / MANIFEST).read_bytes()
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
        differing = ", ".join(key for key in after if before.get(key) != after[key]) or "spec"
        raise StoreError(f"{where} is of encoder {title(made)}, not of {title(now)}: different {differing}{hint}")
