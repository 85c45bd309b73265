"""The manifest of a collection: what belongs together, which files are in force, and how vectors were made.

It is written last and replaced as a whole, so there is one moment at which everything that it names becomes new.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from features.collection.errors import StoreError

FORMAT = 1
MANIFEST, CATALOG, FEATURES = "manifest.json", "catalog.sqlite", "features.npy"


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
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def catalog_file(manifest: dict[str, Any]) -> str:
    """Name of the catalog that a manifest speaks of; early manifests did not say."""
    return str(manifest.get("catalog", {}).get("file", CATALOG))


def files_of(manifest: dict[str, Any]) -> set[str]:
    """Names of the files that a manifest speaks of."""
    indexes = manifest.get("indexes", {}).values()
    return {manifest["features"]["file"], catalog_file(manifest), *(index["file"] for index in indexes)}


def numbered(file: str, generation: int) -> str:
    """Name of a part of a collection in a generation: ``features.npy``, then ``features.1.npy``, ..."""
    stem, extension = file.split(".")
    return f"{stem}.{generation}.{extension}" if generation else file


def partial_folder(folder: Path) -> Path:
    """Where a store that will be `folder` is built: hidden, so that nobody takes it for a collection."""
    return folder.with_name(f".{folder.name}.partial")


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
