"""Pictures that were sent go into the folder of a collection, and out of it again where nothing comes of that.

Before a file is moved, a line of a journal says so. So whatever stops a job, `take_back` finds what to undo: new files
go back to where they were sent to, and files that they took the place of come back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from features.checksum import sha256_of
from features.collection.manifest import read_manifest
from features.collection.store import StoreError

_JOURNAL, _REPLACED = "adding.jsonl", "replaced"


def put_in(
    source: Path,
    paths: Sequence[PurePosixPath],
    folder: Path,
    place: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PurePosixPath]:
    """Move files into the folder of a collection's pictures.

    Parameters
    ----------
    source : Path
        Where they are.
    paths : sequence of PurePosixPath
        Theirs, below the source, and below the folder of the pictures.
    folder : Path
        Of the collection.
    place : Path
        For the journal, and what they take the place of, on the same disk; is made.

    Returns
    -------
    list of PurePosixPath
        Files that are there already, with the same content: they stay in the source.

    Raises
    ------
    StoreError
        A path leads out of the folder of the pictures.
    """
    manifest = read_manifest(folder)
    root = Path(manifest["root"])
    place.mkdir(parents=True, exist_ok=True)
    same = []
    with (place / _JOURNAL).open("x", encoding="utf-8") as journal:

        def note(what: object) -> None:
            journal.write(json.dumps(what) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

        note([str(source), str(folder), manifest.get("generation", 0)])
        for count, path in enumerate(paths, 1):
            target = root / path
            if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(root)):
                raise StoreError(f"{path} leads out of the folder of the collection's pictures")
            if target.is_file() and sha256_of(target) == sha256_of(source / path):
                same.append(path)
                continue
            note(str(path))
            if target.exists():
                replaced = place / _REPLACED / path
                replaced.parent.mkdir(parents=True, exist_ok=True)
                target.replace(replaced)
            target.parent.mkdir(parents=True, exist_ok=True)
            (source / path).replace(target)
            progress(count, len(paths))
    return same


def take_back(place: Path) -> None:
    """Undo what `put_in` did, if it did anything, unless a sync has taken it into the collection since."""
    try:
        # What follows the last line break was being written when all ended: nothing had come of it yet.
        lines = (place / _JOURNAL).read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        return
    if not lines:
        return
    source, folder, generation = json.loads(lines[0])
    manifest = read_manifest(Path(folder))
    if manifest.get("generation", 0) > generation:
        return
    for path in map(json.loads, reversed(lines[1:])):
        sent, target, replaced = Path(source) / path, Path(manifest["root"]) / path, place / _REPLACED / path
        if not sent.exists() and target.exists():
            sent.parent.mkdir(parents=True, exist_ok=True)
            target.replace(sent)
        if replaced.exists():
            replaced.replace(target)
