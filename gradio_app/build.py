"""The process beside the page in which collections are made and brought up to date (see `jobs`).

It reads one job as JSON from stdin and writes JSON lines to stdout: ``{"stage", "done", "total"}`` while it works, at
the end ``{"report": {...}}`` or ``{"error": sentence}``. It ends by itself when the server does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from features.collection.manifest import read_manifest
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import SyncReport
from features.datasets import DatasetError, ImageFolder, reopen_dataset
from features.datasets.walk import LeftOut
from features.encoders import Encoder, EncoderError, create_encoder
from features.extract import extract
from gradio_app.adding import put_in
from gradio_app.ingest_report import Note, notes_of_making, notes_of_sync, shown, write_table
from gradio_app.recipe import Recipe
from gradio_app.zips import ZipError, unpack
from ivfpq import index_factory
from search.build import append_collection, create_index, create_spaces, sync_collection
from search.duplicate_pairs import Pairs, find_duplicates, look_closer
from search.duplicates import duplicates_of
from search.same_picture import can_prove
from search.spaces import space_kind

EVERY = 0.2  # seconds between two lines of progress

Say = Callable[[str, int, int], None]


def create(order: dict[str, Any], say: Say) -> dict[str, Any]:
    """Make a collection.

    Parameters
    ----------
    order : dict
        ``folder`` and ``final``: where to make it, and where it will be; ``pictures``: a folder of images, or if
        ``sent`` is true a zip file or a folder that was sent, whose pictures go into the collection's own folder;
        ``left_out``: what of that was not even sent, pairs of a path and the reason; ``recipe``: see `Recipe.written`;
        ``table``: a file for the whole report.
    """
    folder, pictures, recipe = Path(order["folder"]), Path(order["pictures"]), Recipe.read(order["recipe"])
    left_out = [LeftOut(*each) for each in order["left_out"]]
    if order["sent"]:
        if pictures.is_file():
            say("Unpacking", 0, 0)
            unpacked = folder.with_name(f"{folder.name}.images")
            left_out += unpack(pictures, unpacked, progress=lambda done, total: say("Unpacking", done, total))
            pictures = unpacked
        else:
            pictures = only_folder(pictures)
    say("Looking for pictures", 0, 0)
    dataset = ImageFolder(pictures)
    dataset.name = "folder"
    total = len(dataset.items)
    say("Loading the encoder", 0, 0)
    encoder = create_encoder(recipe.encoder)
    index_factory(encoder.dim, recipe.factory, metric="cosine")  # refused before hours of work
    say("Encoding pictures", 0, total)
    store = extract(dataset, encoder, folder, progress=lambda done, total: say("Encoding pictures", done, total))
    say("Building the index", 0, 0)
    create_index(store, factory=recipe.factory, engines=recipe.engines, target_recall=recipe.target_recall)
    say("Learning its words", 0, 0)
    without = _make_spaces(store, recipe, encoder)
    say("Looking for duplicates", 0, 0)
    find_duplicates(store)
    store = FeatureStore.open(folder)
    notes = notes_of_making(store, [*left_out, *dataset.left_out])
    summary = f"{store.ids.size:,} pictures{_duplicates_in(folder)}{without}"
    report = _report(summary, notes, order, dataset.left_out_count - len(dataset.left_out))
    if order["sent"]:  # last: whatever ends the job before leaves them where they were sent to
        pictures.rename(folder / "images")
        store.update_manifest(root=str(Path(order["final"]) / "images"))
    return report


def add_new(order: dict[str, Any], say: Say) -> dict[str, Any]:
    """Take into a collection the pictures that have come into the folder of its images; `order` as of `add`."""
    folder = Path(order["folder"])
    say("Looking for new pictures", 0, 0)
    report, _ = append_collection(folder, progress=lambda done, total: say("Encoding new pictures", done, total))
    changes = SyncReport(report.added, (), (), (), report.before, report.damaged)
    notes = notes_of_sync(FeatureStore.open(folder), changes, ())
    return _report(f"{len(report.added):,} added to {report.before:,}{_duplicates_in(folder)}", notes, order, 0)


def only_folder(folder: Path) -> Path:
    """A folder, or the one in it where there is nothing else: its name would be part of every label."""
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return there[0] if len(there) == 1 and there[0].is_dir() else folder


def _make_spaces(store: FeatureStore, recipe: Recipe, encoder: Encoder) -> str:
    """Make the spaces that are wanted, as far as the collection can have them; says which it cannot, and why."""
    without = {name: reason for name in recipe.spaces or () if (reason := space_kind(name).why_not(store)) is not None}
    names = None if recipe.spaces is None else [name for name in recipe.spaces if name not in without]
    create_spaces(store, names, encoder=encoder)
    return "".join(f"; no space {name}: {reason}" for name, reason in without.items())


def add(order: dict[str, Any], say: Say) -> dict[str, Any]:
    """Put pictures that were sent into a collection whose pictures lie in its own folder.

    Parameters
    ----------
    order : dict
        ``folder``, ``left_out`` and ``table`` as in `create`; ``add``: the zip file or folder that was sent; ``place``:
        where `adding.take_back` finds what to undo.
    """
    source, place = Path(order["add"]), Path(order["place"])
    left_out = [LeftOut(*each) for each in order["left_out"]]
    if source.is_file():
        say("Unpacking", 0, 0)
        left_out += unpack(source, place / "sent", progress=lambda done, total: say("Unpacking", done, total))
        source = place / "sent"
    say("Looking for pictures", 0, 0)
    sent = ImageFolder(source)
    paths = [PurePosixPath(item.path.relative_to(sent.root)) for item in sent.items]
    same = put_in(
        sent.root, paths, Path(order["folder"]), place, progress=lambda done, total: say("Putting them in", done, total)
    )
    notes = [Note("duplicate", path.as_posix(), "it is there already, under this name") for path in same]
    return bring_up_to_date(order, say, [*left_out, *sent.left_out], notes)


def bring_up_to_date(
    order: dict[str, Any], say: Say, left_out: Sequence[LeftOut] = (), known: Sequence[Note] = ()
) -> dict[str, Any]:
    """Take into a collection what has changed in the folder of its images.

    Parameters
    ----------
    order : dict
        ``folder`` and ``table`` as in `create`.
    left_out, known : optional
        What else belongs into the report.
    """
    folder = Path(order["folder"])
    say("Looking for changes", 0, 0)
    made = read_manifest(folder)
    dataset = reopen_dataset(made["dataset"], made["root"], made.get("source"))
    changes, _ = sync_collection(
        folder, dataset=dataset, progress=lambda done, total: say("Encoding new pictures", done, total)
    )
    named: list[LeftOut] = getattr(dataset, "left_out", [])
    notes = [*known, *notes_of_sync(FeatureStore.open(folder), changes, [*left_out, *named])]
    counts = {kind: sum(note.what == kind for note in notes) for kind in ("added", "updated", "renamed", "removed")}
    summary = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    summary += f"; {changes.unchanged:,} as they were{_duplicates_in(folder)}"
    return _report(summary, notes, order, getattr(dataset, "left_out_count", 0) - len(named))


def look_for_duplicates(folder: Path, say: Say) -> dict[str, Any]:
    """Look for near duplicates where nobody has, and closer at the pairs that were found, where OpenCV is installed."""
    say("Looking for duplicates", 0, 0)
    store = FeatureStore.open(folder)
    if Pairs.of(store) is None:
        find_duplicates(store)
    if can_prove():
        look_closer(store, progress=lambda done, total: say("Looking closer at pairs", done, total))
    return {"summary": duplicates_of(folder) or "no duplicates", "kinds": []}


def _duplicates_in(folder: Path) -> str:
    told = duplicates_of(folder)
    return f"; {told}" if told else ""


def _report(summary: str, notes: list[Note], order: dict[str, Any], unnamed: int) -> dict[str, Any]:
    write_table(notes, Path(order["table"]))
    return {"summary": summary, "kinds": shown(notes, unnamed=unnamed)}


def main() -> int:
    line = sys.stdin.readline()
    job = json.loads(line)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    os.nice(5)  # searches come first, but on a busy machine a job must end, too

    last = ("", 0.0)

    def say(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage != last[0] or time.monotonic() - last[1] >= EVERY:
            last = (stage, time.monotonic())
            _write({"stage": stage, "done": done, "total": total})

    try:
        if "pictures" in job:
            report = create(job, say)
        elif "add" in job:
            report = add(job, say)
        elif job.get("only_new"):
            report = add_new(job, say)
        elif "duplicates" in job:
            report = look_for_duplicates(Path(job["folder"]), say)
        else:
            report = bring_up_to_date(job, say)
    except (DatasetError, EncoderError, StoreError, ZipError, ValueError, OSError) as error:
        _write({"error": str(error)})
        return 1
    except MemoryError:
        _write({"error": "There is not enough memory."})
        return 1
    _write({"report": report})
    return 0


def _write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_the_server() -> None:
    sys.stdin.read()  # nothing more is sent: it returns when the server closes the pipe, or is no more
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
