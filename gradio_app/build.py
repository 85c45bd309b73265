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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from features.collection.store import FeatureStore, StoreError
from features.datasets import DatasetError, ImageFolder
from features.encoders import EncoderError, create_encoder
from features.extract import extract
from gradio_app.zips import ZipError, unpack
from search.build import append_collection, create_index, create_spaces, sync_collection
from search.duplicate_pairs import Pairs, find_duplicates, look_closer
from search.duplicates import duplicates_of
from search.same_picture import can_prove

MAX_SKIPPED = 200  # files named in a report
EVERY = 0.2  # seconds between two lines of progress

Say = Callable[[str, int, int], None]


def create(folder: Path, final: Path, pictures: Path, packed: bool, say: Say) -> dict[str, Any]:
    """Make a collection.

    Parameters
    ----------
    folder, final : Path
        Where to make it, and where it will be.
    pictures : Path
        A folder of images, or a zip file of them if `packed`: these go into the collection's own folder.
    """
    passed_over = 0
    if packed:
        say("Unpacking", 0, 0)
        unpacked = folder.with_name(f"{folder.name}.images")
        passed_over = unpack(pictures, unpacked, progress=lambda done, total: say("Unpacking", done, total))
        pictures = unpacked
    say("Looking for pictures", 0, 0)
    dataset = ImageFolder(pictures)
    dataset.name = "folder"
    total = len(dataset.items)
    say("Loading the encoder", 0, 0)
    encoder = create_encoder("auto")
    say("Encoding pictures", 0, total)
    store = extract(dataset, encoder, folder, progress=lambda done, total: say("Encoding pictures", done, total))
    say("Building the index", 0, 0)
    create_index(store)
    say("Learning its words", 0, 0)
    create_spaces(store, encoder=encoder)
    say("Looking for duplicates", 0, 0)
    find_duplicates(store)
    if packed:
        pictures.rename(folder / "images")
        store.update_manifest(root=str(final / "images"))
    return _report(FeatureStore.open(folder), passed_over)


def add_new(folder: Path, say: Say) -> dict[str, Any]:
    """Take into a collection the pictures that have come into the folder of its images."""
    say("Looking for new pictures", 0, 0)
    report, _ = append_collection(folder, progress=lambda done, total: say("Encoding new pictures", done, total))
    return {
        "summary": f"{len(report.added):,} added to {report.before:,}{_duplicates_in(folder)}",
        "skipped": len(report.damaged),
        "files": [[os.fspath(path), reason] for path, reason in report.damaged[:MAX_SKIPPED]],
    }


def bring_up_to_date(folder: Path, say: Say) -> dict[str, Any]:
    """Take into a collection what has changed in the folder of its images."""
    say("Looking for changes", 0, 0)
    changes, _ = sync_collection(folder, progress=lambda done, total: say("Encoding new pictures", done, total))
    counts = {name: len(getattr(changes, name)) for name in ("added", "edited", "renamed", "removed")}
    return {
        "summary": ", ".join(f"{count:,} {name}" for name, count in counts.items())
        + f"; {changes.unchanged:,} as they were{_duplicates_in(folder)}",
        "skipped": len(changes.damaged),
        "files": [[os.fspath(path), reason] for path, reason in changes.damaged[:MAX_SKIPPED]],
    }


def look_for_duplicates(folder: Path, say: Say) -> dict[str, Any]:
    """Look for near duplicates where nobody has, and closer at the pairs that were found, where OpenCV is installed."""
    say("Looking for duplicates", 0, 0)
    store = FeatureStore.open(folder)
    if Pairs.of(store) is None:
        find_duplicates(store)
    if can_prove():
        look_closer(store, progress=lambda done, total: say("Looking closer at pairs", done, total))
    return {"summary": duplicates_of(folder) or "no duplicates", "skipped": 0, "files": []}


def _duplicates_in(folder: Path) -> str:
    told = duplicates_of(folder)
    return f"; {told}" if told else ""


def _report(store: FeatureStore, passed_over: int) -> dict[str, Any]:
    root = Path(store.manifest["root"])
    skipped = [(item.path, item.error) for item in store.items if item.error is not None]
    summary = f"{store.ids.size:,} pictures"
    if passed_over:
        summary += f"; other files in the zip file, {passed_over:,}, were left out"
    return {
        "summary": summary + _duplicates_in(store.folder),
        "skipped": len(skipped),
        "files": [
            [os.fspath(path.relative_to(root)) if path.is_relative_to(root) else path.name, reason]
            for path, reason in skipped[:MAX_SKIPPED]
        ],
    }


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
        folder = Path(job["folder"])
        if "pictures" in job:
            report = create(folder, Path(job["final"]), Path(job["pictures"]), job["packed"], say)
        elif job.get("only_new"):
            report = add_new(folder, say)
        elif "duplicates" in job:
            report = look_for_duplicates(folder, say)
        else:
            report = bring_up_to_date(folder, say)
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
