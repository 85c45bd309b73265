"""Pictures of a collection that are the same, as ``python -m search.duplicates Pictures`` tells them.

Exact copies are told by the content of the files, near ones are the pairs of `duplicate_pairs`. People decide (see
`features.collection.duplicates`). What they set aside is a list, written by --export, or goes to a trash folder, after
a person has said yes, and comes back from it: see `features.collection.trash`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from features.collection.duplicates import DIFFERENT, LATER, set_aside, verdicts
from features.collection.store import FeatureStore, StoreError
from features.collection.trash import Moved, move_to_trash, put_back, trash_folder, why_no_trash
from features.command_line import add_collections, collection_folder, set_up_streams
from features.paths import expanded
from search.command_line import refused
from search.duplicate_pairs import Chains, Level, Pairs, find_duplicates, look_closer
from search.errors import EngineError
from search.same_picture import INSTALL, can_prove


@dataclass(frozen=True)
class Group:
    """Pictures that are the same.

    Attributes
    ----------
    ids : tuple of int
        The one to keep, if a program were to choose, first: of the most pixels, then bytes, then the oldest.
    level : Level
        Of the weakest link that holds them together.
    is_later : bool
        Whether the decision was put off.
    """

    ids: tuple[int, ...]
    level: Level
    is_later: bool


def groups_of(store: FeatureStore, pairs: Pairs | None, deepest: Level | None = None) -> list[Group]:
    """The groups of duplicates that are left to decide about, the surest first, then those of the most pictures.

    Equal files are groups of their own; in the others one of them stands for all. What people have called different
    holds nothing together, and who is set aside is in no group.

    Parameters
    ----------
    deepest : Level, optional
        The least sure level that holds pictures together. By default what is proved, and what is likely as long as
        nobody has looked closer.
    """
    said = verdicts(store.annotations) if store.has_annotations else {}
    away = set_aside(store.annotations) if store.has_annotations else {}
    links = [] if pairs is None else _links(pairs, deepest)
    copies = [[id for id in each if id not in away] for each in store.catalog.copies()]
    stands = {each[0]: (left or each)[0] for each, left in zip(store.catalog.copies(), copies, strict=True)}
    ids = sorted({id for link in links for id in link[:2]} | {each[0] for each in copies if each})
    content = {record.id: record.sha256 or "" for record in store.records(ids)}
    found = [
        (each, Level.SAME_BYTES, said.get((content[each[0]],) * 2) == LATER)
        for each in copies
        if len(each) > 1 and said.get((content[each[0]],) * 2) != DIFFERENT
    ]
    held = [
        (one, other, level)
        for one, other, level in links
        if one in content and other in content and said.get(_both(content[one], content[other])) != DIFFERENT
    ]
    chains, weakest, members = Chains(), dict[int, int](), dict[int, set[int]]()
    for one, other, _ in held:
        chains.join(one, other)
    for one, other, level in held:
        root = chains.root(one)
        weakest[root] = max(weakest.get(root, 0), level)
        members.setdefault(root, set()).update(stands.get(id, id) for id in (one, other))
    later = _put_off(said, content, chains)
    found += [(list(each - away.keys()), Level(weakest[root]), root in later) for root, each in members.items()]
    sizes = store.catalog.sizes([id for each, *_ in found for id in each])
    groups = [
        Group(tuple(sorted(each, key=lambda id: (*_worth(sizes[id]), id))), level, is_later)
        for each, level, is_later in found
        if len(each) > 1
    ]
    return sorted(groups, key=lambda group: (group.level, -len(group.ids), group.ids))


def _links(pairs: Pairs, deepest: Level | None) -> list[tuple[int, int, int]]:
    level, is_seen = pairs.rows[:, 2], pairs.rows[:, 3] == 1
    shown = (level <= Level.PROVED) | ((level == Level.LIKELY) & ~is_seen) if deepest is None else level <= deepest
    return [(one, other, level) for one, other, level in pairs.rows[shown, :3].tolist()]


def _both(one: str, other: str) -> tuple[str, str]:
    return min(one, other), max(one, other)


def _put_off(said: dict[tuple[str, str], str], content: dict[int, str], chains: Chains) -> set[int]:
    """The chains of which two pictures were put off."""
    by_content: dict[str, list[int]] = {}
    for id, sha256 in content.items():
        by_content.setdefault(sha256, []).append(id)
    later = set()
    for (first, second), verdict in said.items():
        if verdict == LATER:
            here, there = ({chains.root(id) for id in by_content.get(sha256, ())} for sha256 in (first, second))
            later |= here & there
    return later


def _worth(size: Sequence[int | None]) -> tuple[int, int, int]:
    width, height, size_bytes, mtime = size
    return -(width or 0) * (height or 0), -(size_bytes or 0), mtime or 0


def counts_of(groups: Iterable[Group]) -> dict[str, int]:
    """How many pictures could be set aside, by the level of their group."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.level.words] = counts.get(group.level.words, 0) + len(group.ids) - 1
    return counts


def in_words(counts: dict[str, int]) -> str:
    """What a report of a build or a sync says of duplicates; "" where there is none."""
    told = ", ".join(f"{count:,} {level}" for level, count in counts.items())
    return f"duplicates: {told}" if told else ""


def duplicates_of(folder: str | os.PathLike[str]) -> str:
    """`in_words` of a collection as it is."""
    store = FeatureStore.open(folder)
    return in_words(counts_of(groups_of(store, Pairs.of(store))))


def told_of(store: FeatureStore, groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Groups as JSON has them: each picture with its path below the root, its size and time."""
    groups = list(groups)
    ids = [id for group in groups for id in group.ids]
    sizes, paths = store.catalog.sizes(ids), {record.id: record.path for record in store.records(ids)}
    return [
        {
            "level": group.level.words,
            "later": group.is_later,
            "pictures": [
                {
                    "id": id,
                    "path": os.fsencode(paths[id]).decode("utf-8", "replace"),
                    **dict(zip(("width", "height", "bytes", "mtime_ns"), sizes[id], strict=True)),
                }
                for id in group.ids
            ],
        }
        for group in groups
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.duplicates",
        description="Tell which pictures of a collection are the same. --trash and --put-back alone touch files.",
    )
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    parser.add_argument("--quick", action="store_true", help="by hash and vector alone, without a closer look at each")
    parser.add_argument("--alike", action="store_true", help="also what only looks alike")
    parser.add_argument("--export", type=expanded, metavar="FILE", help="write the paths of what people have set aside")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--trash", action="store_true", help="ask, then move what people have set aside to a trash folder"
    )
    what.add_argument("--put-back", action="store_true", help="move what is in the trash folder back to where it was")
    parser.add_argument("--json", action="store_true", help="print the groups as JSON")
    add_collections(parser)
    options = parser.parse_args(arguments)
    set_up_streams(logging.INFO)
    try:
        return _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    except (EngineError, StoreError, OSError, sqlite3.Error, MemoryError) as error:
        return refused(error)


def _run(options: argparse.Namespace) -> int:
    store = FeatureStore.open(collection_folder(options.collections, options.collection))
    if lacking := len(store.catalog.without_phash()):
        sys.stderr.write(f"{lacking:,} pictures have no perceptual hash yet: create_index.py --sync makes them\n")
    if options.export is not None:
        count = export_set_aside(store, options.export)
        sys.stdout.write(f"{count:,} paths written to {options.export}\n")
        return 0
    if options.trash:
        return _ask_and_move(store)
    if options.put_back:
        return _told_moves(store, put_back(store), "back where they were")
    pairs = Pairs.of(store) or find_duplicates(store)
    if not options.quick and pairs.unseen:
        if can_prove():
            with tqdm(total=pairs.unseen, unit="pair", desc="looking closer") as bar:
                pairs = look_closer(store, progress=lambda done, _: bar.update(done - bar.n))
        else:
            sys.stderr.write(f"likely pairs are not looked at closer without OpenCV: {INSTALL}\n")
    store = FeatureStore.open(store.folder)
    groups = groups_of(store, pairs, Level.ALIKE if options.alike else None)
    told = told_of(store, groups)
    if options.json:
        sys.stdout.write(f"{json.dumps({'collection': str(store.folder), 'groups': told}, indent=2)}\n")
        return 0
    for group in told:
        sys.stdout.write(f"{group['level']}{', put off' if group['later'] else ''}\n")
        for each in group["pictures"]:
            size = f"{each['width']} x {each['height']}, {each['bytes']:,} bytes"
            sys.stdout.write(f"  {each['path']}  ({size})\n")
    sys.stdout.write(f"{len(told):,} groups; {in_words(counts_of(groups)) or 'no duplicates'}\n")
    return 0


def _ask_and_move(store: FeatureStore) -> int:
    """Move what is set aside to the trash folder if the person at the keyboard says yes."""
    if reason := why_no_trash(store):
        raise StoreError(reason)
    away = list(set_aside(store.annotations)) if store.has_annotations else []
    for record in store.records(away):
        sys.stdout.write(f"  {os.fsencode(record.path).decode('utf-8', 'replace')}\n")
    if not away:
        sys.stdout.write("nothing is set aside\n")
        return 0
    sys.stdout.write(f"Move these {len(away):,} files to {trash_folder(store)}? Type yes: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        sys.stdout.write("nothing was moved\n")
        return 1
    return _told_moves(store, move_to_trash(store, len(away)), f"in {trash_folder(store)}; --put-back brings them back")


def _told_moves(store: FeatureStore, moved: Moved, where: str) -> int:
    sys.stdout.write(f"{len(moved.paths):,} files are {where}\n")
    for path, reason in moved.left:
        sys.stdout.write(f"left where it is: {os.fsencode(path).decode('utf-8', 'replace')}: {reason}\n")
    if moved.paths:
        sys.stdout.write(f"bring {store.folder.name} up to date now: create_index.py --sync, or Manage on the page\n")
    return 0 if moved.paths or not moved.left else 1


def export_set_aside(store: FeatureStore, file: Path) -> int:
    """Write the whole paths of the pictures that are set aside, a line each; returns how many.

    The file is there as a whole, or as it was before.
    """
    ids = list(set_aside(store.annotations)) if store.has_annotations else []
    root, part = Path(store.manifest["root"]), file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as out:
            out.writelines(os.fsencode(root / record.path) + b"\n" for record in store.records(ids))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return len(ids)


if __name__ == "__main__":
    raise SystemExit(main())
