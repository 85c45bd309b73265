"""HTML of the tab: work under way and its report, and the collections there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio_app.jobs import CollectionJobs, Job
from gradio_app.library import Library
from gradio_app.markup import render
from gradio_app.routes.uploads import MAX_UPLOAD
from search.engine import SearchEngine

NEW = "*"  # which is no name of a collection


def into_choices(jobs: CollectionJobs) -> list[tuple[str, str]]:
    """What pictures that were sent can become part of, by what people read."""
    return [("a new collection", NEW), *((name, name) for name in jobs.with_own_pictures())]


def send_field(after: str = "") -> str:
    """HTML of where files, a folder or a zip file are dropped or chosen.

    Parameters
    ----------
    after : str
        Token of what was sent last: Gradio shows only what differs from what it showed before.
    """
    return render("manage/send.html", max_upload=MAX_UPLOAD, after=after)


def job_view(job: Job | None, library: Library) -> str:
    """HTML of work under way, or of what became of it."""
    if job is None:
        return ""
    return render("manage/job.html", job=job, is_open=job.state == "done" and job.collection in library)


def shelf(library: Library, jobs: CollectionJobs) -> str:
    """HTML of the list of collections."""
    return render("manage/shelf.html", collections=[_on_shelf(engine, jobs) for engine in library.values()])


def _on_shelf(engine: SearchEngine, jobs: CollectionJobs) -> dict[str, Any]:
    manifest = engine.store.manifest
    root = Path(manifest["root"])
    own = root.is_relative_to(engine.folder)
    pictures = len(engine.store.ids)
    count = f"{pictures:,} picture{'' if pictures == 1 else 's'}"
    indexes = manifest.get("indexes", {}).values()
    recalls = {entry.get("target_recall") for entry in indexes} - {None}
    loss = f"Its vectors and its index of {count} are deleted"
    loss += ", and the uploaded pictures with them." if own else f". The pictures themselves stay in {root}."
    if engine.store.has_annotations:
        loss += f" What is said of them is first written into the folder of the collections ({jobs.folder}), as JSONL."
    return {
        "name": engine.name,
        "count": count,
        "damaged": manifest.get("damaged"),
        "encoder": manifest["encoder"]["name"],
        "factories": ", ".join(sorted({entry["factory"] for entry in indexes})),
        "recall": max(recalls) if recalls else None,
        "where": "uploaded" if own else str(root),
        "loss": loss,
        "managed": jobs.manages(engine.name),
    }
