"""Look a collection over, and mend what can be made again: ``python -m search.doctor Pictures --repair``.

Indexes and other spaces are made again from the vectors, the index of words from what is said, vectors and catalog from
the image files. What people and models have said, and the image files, are only looked at: nothing could make them
again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from features.checksum import sha256_of
from features.collection.annotations_health import damage, make_words_again, stale_words
from features.collection.file_facts import stat_of
from features.collection.lock import writing
from features.collection.manifest import (
    MANIFEST,
    absolute,
    leftovers,
    new_part,
    put_in_force,
    read_manifest,
    remove_leftovers,
)
from features.collection.schema import ANNOTATIONS
from features.collection.store import FeatureStore, StoreError
from features.collection.vector_file import check_vectors, cut_surplus, surplus
from features.command_line import add_collections, collection_folder, set_up_streams
from features.datasets import DatasetError, reopen_dataset
from features.encoders import EncoderError, encoder_for
from features.encoding import extract
from search.backends import backend_names, get_backend
from search.build import create_index, create_space, create_spaces
from search.command_line import refused
from search.duplicate_pairs import find_duplicates
from search.errors import EngineError
from search.picture_map import PictureMap, map_of
from search.space import VISUAL, Entry, Space
from search.spaces import default_spaces, open_space, space_kind, space_names, visual_space

logger = logging.getLogger(__name__)

Mend = Callable[[], None]


@dataclass
class Finding:
    """Something that is not as it should be.

    Attributes
    ----------
    part : str
        The file, or what else it is about.
    fault : str
        A sentence.
    advice : str
        What a person can do, where no program can.
    mended : bool
        Whether it has been made again.
    """

    part: str
    fault: str
    advice: str = ""
    mended: bool = False

    def __str__(self) -> str:
        state = "made again" if self.mended else self.advice or "can be made again: --repair"
        return f"{self.part}: {self.fault} ({state})"


def examine(folder: Path, *, repair: bool = False) -> list[Finding]:
    """Look over a collection; every file of it is read.

    Parameters
    ----------
    folder : Path
        The collection's.
    repair : bool
        Make again what is damaged, as far as it can be.

    Returns
    -------
    list of Finding
        Empty for a collection that is as it should be.

    Raises
    ------
    StoreError
        Another writer is at work.
    """
    folder = absolute(folder)
    try:
        read_manifest(folder)
    except StoreError as error:
        kept = f"all but {ANNOTATIONS}" if (folder / ANNOTATIONS).exists() else "the folder"
        again = f"remove {kept} and make the collection again: create_index.py --data ... --name {folder.name}"
        return [Finding(MANIFEST, str(error), again if (folder / MANIFEST).exists() else "is this its name?")]
    findings = []
    with writing(folder, purpose="looked over"):
        for finding, mend in _faults(folder):
            findings.append(finding)
            if repair and mend is not None:
                try:
                    mend()
                except (StoreError, EngineError, DatasetError, EncoderError, OSError, ValueError) as error:
                    finding.advice = f"it could not be made again: {error}"
                else:
                    finding.mended = True
    return findings


def _faults(folder: Path) -> Iterator[tuple[Finding, Mend | None]]:
    """What is wrong, each with what mends it, in the order in which to mend: what later parts are made of first."""
    if names := leftovers(folder):
        yield Finding(", ".join(sorted(names)), "left by a writer that was stopped"), lambda: remove_leftovers(folder)
    for name, count in surplus(folder, read_manifest(folder)).items():
        what = f"{count:,} bytes at its end were left by a writer that was stopped"
        yield Finding(name, what), lambda: cut_surplus(folder, read_manifest(folder))
    said = folder / ANNOTATIONS
    harm = damage(said) if said.exists() else None
    if harm:
        yield Finding(ANNOTATIONS, harm, "nothing was changed: copy it, then see sqlite3's command .recover"), None
    try:
        store = _whole(folder)
    except (StoreError, OSError) as error:
        yield Finding("vectors and catalog", str(error)), lambda: _make_again(folder)
        try:
            store = _whole(folder)
        except (StoreError, OSError):
            return  # all else hangs on them
    yield from _indexes(visual_space(store), lambda engine: _index_again(folder, engine))
    if not store.manifest.get("indexes"):
        yield Finding("indexes", "there is none"), lambda: _index_again(folder, None)
    for name, entry in store.manifest.get("spaces", {}).items():
        yield from _space(store, name, entry)
    yield from _duplicates(store)
    yield from _map(store)
    if said.exists() and not harm:
        yield from _words(folder)
    yield from _originals(store)


def _whole(folder: Path) -> FeatureStore:
    """The collection; its vectors and catalog are, bit for bit, what was written. Raises StoreError if not."""
    store = FeatureStore.open(folder)
    store.verify(derived=False)
    return store


def _indexes(space: Space, again: Callable[[str], None]) -> Iterator[tuple[Finding, Mend | None]]:
    """What is wrong with the indexes of a space."""
    for engine, entry in space.indexes.items():
        part = f"index {engine}" if space.name == VISUAL else f"index {engine} of {space.name}"
        if engine not in backend_names():
            yield Finding(part, f"this program knows no engine {engine!r}", "a later one may"), None
            continue
        try:
            get_backend(engine).verify(space, entry)
        except (EngineError, StoreError, OSError, MemoryError) as error:
            yield Finding(part, str(error)), partial(again, engine)


def _space(store: FeatureStore, name: str, entry: Entry) -> Iterator[tuple[Finding, Mend | None]]:
    if name not in space_names():
        yield Finding(f"space {name}", "this program knows no such space", "a later one may"), None
        return
    reason = space_kind(name).why_not(store)

    def again(_: str = "") -> None:
        needed = space_kind(name).factory(store.ids.size)
        create_space(FeatureStore.open(store.folder), name, engines=None if needed else tuple(entry["indexes"]))

    try:
        for file in (entry, *entry.get("beside", {}).values()):
            check_vectors(store.folder, file)
        space = open_space(store, name, entry)
    except (EngineError, StoreError, OSError) as error:
        yield (
            Finding(f"space {name}", str(error), f"it cannot be made again: {reason}" if reason else ""),
            (None if reason else again),
        )
        return
    for finding, mend in _indexes(space, again):
        yield finding, None if reason else mend


def _duplicates(store: FeatureStore) -> Iterator[tuple[Finding, Mend]]:
    """Whether the pairs of duplicates are what was written; they are found again without what was looked at closer."""

    def again() -> None:
        find_duplicates(FeatureStore.open(store.folder))

    entry = store.manifest.get("duplicates")
    try:
        if entry and entry.get("sha256") != sha256_of(store.folder / entry["file"]):
            raise StoreError(f"{store.folder / entry['file']} is damaged: it is not what was written")
    except (StoreError, OSError) as error:
        yield Finding("duplicates", str(error)), again


def _map(store: FeatureStore) -> Iterator[tuple[Finding, Mend]]:
    """Whether the map is what was written."""

    def again() -> None:
        map_of(FeatureStore.open(store.folder))

    try:
        PictureMap.read(store)
    except StoreError as error:
        yield Finding("map", str(error)), again


def _words(folder: Path) -> Iterator[tuple[Finding, Mend]]:
    """The index of words, and which pictures are spoken of."""
    store = FeatureStore.open(folder)
    annotations = store.annotations  # opened first: that brings the tables of an earlier version to these
    if fault := stale_words(annotations.path):
        yield Finding(f"words in {ANNOTATIONS}", fault), lambda: make_words_again(annotations)
    there = {record.id for record in store.records()}
    strays = sum(id is not None and id not in there for id in annotations.image_ids().values())
    if strays:
        what = f"{strays:,} of its pictures are not in the collection"
        yield Finding(ANNOTATIONS, what), lambda: annotations.follow(store.records())


def _originals(store: FeatureStore) -> Iterator[tuple[Finding, None]]:
    root = Path(store.manifest["root"])
    now = [(record, stat_of(root / record.path)) for record in store.records()]
    gone = sum(size < 0 for _, (size, _) in now)
    changed = sum(size >= 0 and (size, mtime) != (record.size, record.mtime) for record, (size, mtime) in now)
    counts = [f"{count:,} {what}" for count, what in ((gone, "cannot be found"), (changed, "have changed")) if count]
    if counts:
        what = f"of {len(now):,} pictures {' and '.join(counts)} since the collection was made"
        yield Finding(str(root), what, "create_index.py --sync brings the collection up to date"), None


def _index_again(folder: Path, engine: str | None) -> None:
    create_index(FeatureStore.open(folder), engines=None if engine is None else [engine])


def _make_again(folder: Path) -> None:
    """Make the vectors, the catalog and all that follows from them again from the image files.

    It is made beside the collection, and takes its place in one moment. What is said finds its pictures again by path
    and content.
    """
    made = read_manifest(folder)
    dataset = reopen_dataset(made["dataset"], made["root"], made.get("source"))
    encoder = encoder_for(made["encoder"])
    limit = (
        None if made.get("generation") else made["count"]
    )  # a sync takes what has come since, a build took the first
    beside = folder.with_name(f".{folder.name}.again")  # what a stopped one has encoded is there for the next
    store = extract(dataset, encoder, beside / folder.name, dtype=made["dtype"], limit=limit)
    for engine, entry in made.get("indexes", {}).items():
        if engine in backend_names(built=True):
            factory, seed = entry.get("asked") or entry.get("factory"), entry.get("seed")
            at = entry.get("store")
            create_index(store, factory=factory, engines=[engine], metric=made["metric"], seed=seed, address=at)
    kinds = {name: space_kind(name) for name in made.get("spaces", default_spaces()) if name in space_names()}
    create_spaces(
        store,
        [VISUAL, *(name for name, kind in kinds.items() if not kind.is_live and kind.why_not(store) is None)],
        encoder=encoder,
    )
    if made.get("duplicates"):
        find_duplicates(store)
    _move_in(FeatureStore.open(store.folder), folder)
    shutil.rmtree(beside, ignore_errors=True)
    mended = FeatureStore.open(folder)
    for name, kind in kinds.items():
        if kind.is_live and kind.why_not(mended) is None and damage(folder / ANNOTATIONS) is None:
            create_space(mended, name, engines=None)


def _move_in(store: FeatureStore, folder: Path) -> None:
    """Let a collection that was made beside another take its place, under names that are free there."""

    def moved(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        new = {key: moved(value) for key, value in entry.items()}
        if isinstance(file := entry.get("file"), str):
            stem, extension = file.split(".")[0], file.rpartition(".")[2]
            path = new_part(folder, f"{stem}.{extension}", 0)
            shutil.move(store.folder / file, path)
            new["file"] = path.name
        return new

    put_in_force(folder, moved(store.manifest))


# Command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 where something is left that is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m search.doctor", description=__doc__.split("\n\n")[1])
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    parser.add_argument("--repair", action="store_true", help="make again what is damaged and can be made again")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_collections(parser)
    options = parser.parse_args(arguments)
    set_up_streams(logging.INFO)
    folder = collection_folder(options.collections, options.collection)
    try:
        findings = examine(folder, repair=options.repair)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command begins again\n")
        return 130
    except (StoreError, EngineError, OSError, sqlite3.Error, MemoryError) as error:
        return refused(error)
    if options.json:
        told = json.dumps({"collection": str(folder), "findings": [asdict(each) for each in findings]}, indent=2)
    else:
        told = "\n".join(map(str, findings)) or f"{folder}: everything is as it should be"
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{told}\n")
    return 0 if all(each.mended for each in findings) else 1


if __name__ == "__main__":
    raise SystemExit(main())
