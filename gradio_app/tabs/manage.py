"""The tab to manage collections in: make one of a folder or a zip file, bring it up to date, delete it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from gradio_app.gradio_seam import login_is_needed, sorry
from gradio_app.jobs import CollectionJobs, Job, JobError
from gradio_app.library import Library
from gradio_app.markup import render, script
from gradio_app.routes.access import REFUSED, StartToken, may_manage
from gradio_app.routes.uploads import MAX_UPLOAD
from gradio_app.session import Session
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import UNQUEUED, PageParts
from search.engine import SearchEngine

SOURCES = [("A folder on the server", "folder"), ("A zip file of mine", "zip")]
LOCKED = (
    "To make, sync or delete collections, open the link that the app printed when it was started: "
    "“To manage collections, open …”."
)
ZIP_TAKEN = "() => document.dispatchEvent(new Event('ris-zip-taken'))"  # empties its field
EVERY = 0.5  # seconds between two looks at a job


class ManageHandlers:
    """What happens on the tab; whatever changes a collection asks first who wants it."""

    def __init__(self, library: Library, jobs: CollectionJobs, token: StartToken) -> None:
        self.library = library
        self.jobs = jobs
        self.token = token

    def open(self, request: gr.Request) -> Any:
        """Tell who may only look how to get further, before they fill anything in."""
        return gr.update(visible=not self._may_manage(request))

    def choose_source(self, kind: str) -> Any:
        return gr.update(visible=kind != "zip"), gr.update(visible=kind == "zip")

    def note_upload(self, session: Session, event: gr.EventData) -> None:
        session.upload = str(getattr(event, "token", ""))

    def create(self, session: Session, name: str | None, kind: str, typed: str | None, request: gr.Request) -> Any:
        self._check(request)
        with _in_words():
            if kind == "zip":
                if not session.upload:
                    raise JobError("Choose a zip file first.")
                self.jobs.create(name or "", self.jobs.uploaded(session.upload), packed=True)
                session.upload = ""
            else:
                folder = (typed or "").strip()
                if not folder:
                    raise JobError("Name the folder that the pictures are in first.")
                self.jobs.create(name or "", folder)
        return "", ""

    def sync(self, event: gr.EventData, request: gr.Request) -> None:
        self._check(request)
        with _in_words():
            self.jobs.sync(str(getattr(event, "name", "")))

    def cancel(self, request: gr.Request) -> None:
        self._check(request)
        self.jobs.cancel()

    def delete(self, event: gr.EventData, request: gr.Request) -> str:
        self._check(request)
        with _in_words():
            self.jobs.delete(str(getattr(event, "name", "")))
        return shelf(self.library, self.jobs)

    async def watch(self) -> AsyncIterator[Any]:
        """What becomes of the job under way, until it is over. Sleeping here keeps no thread busy."""
        while True:
            job = self.jobs.job
            yield job_view(job), gr.skip()
            if job is None or job.state != "running":
                break
            await asyncio.sleep(EVERY)
        yield job_view(self.jobs.job), shelf(self.library, self.jobs)

    def _may_manage(self, request: gr.Request) -> bool:
        return may_manage(request.headers, self.token, logged_in=login_is_needed(request.app))

    def _check(self, request: gr.Request) -> None:
        if not self._may_manage(request):
            raise sorry(REFUSED)


@contextmanager
def _in_words() -> Iterator[None]:
    """Turns what the jobs refuse into what the visitor is told."""
    try:
        yield
    except JobError as error:
        raise sorry(str(error)) from error


def build(parts: PageParts, tab: gr.Tab) -> None:
    library, jobs = parts.library, parts.jobs
    if jobs is None:
        raise ValueError("the Manage tab needs collection jobs, got None")
    handlers = ManageHandlers(library, jobs, parts.token)
    locked = gr.HTML(render("note.html", text=LOCKED), apply_default_css=False, visible=False, elem_id="ris-locked")
    with gr.Row(elem_id="ris-manage"):
        with gr.Column(scale=0, min_width=340, elem_id="ris-new"):
            gr.HTML("<h2>New collection</h2>", apply_default_css=False)
            name = gr.Textbox(label="Name", placeholder="holidays", max_lines=1, elem_id="ris-new-name")
            source = gr.Radio(SOURCES, value="folder", label="Pictures from", elem_id="ris-new-source")
            folder = gr.Textbox(
                label="Folder",
                placeholder="/home/me/Pictures",
                info="Names of subfolders become labels. The pictures stay where they are.",
                max_lines=1,
                elem_id="ris-new-folder",
            )
            field = render("manage/zip_field.html", max_upload=MAX_UPLOAD)
            packed = _scripted(field, visible=False, elem_id="ris-new-zip")
            create = gr.Button("Make the collection", variant="primary", elem_id="ris-create")
        with gr.Column(scale=1, min_width=280, elem_id="ris-collections"):
            progress = _scripted("", elem_id="ris-job")
            gr.HTML("<h2>Collections</h2>", apply_default_css=False)
            collections = _scripted(shelf(library, jobs), elem_id="ris-shelf")

    # A queue of its own: visitors who watch a job take no place of those who search.
    managing: Any = {**UNQUEUED, "queue": True, "concurrency_id": "manage", "concurrency_limit": 64}
    shown = [progress, collections]
    tab.select(handlers.open, None, locked, **UNQUEUED)
    source.input(handlers.choose_source, source, [folder, packed], **UNQUEUED)
    packed.sent(handlers.note_upload, parts.session, None, **managing)
    asked = [parts.session, name, source, folder]
    creating = gr.on([create.click, name.submit, folder.submit], handlers.create, asked, [name, folder], **managing)
    creating.success(handlers.watch, None, shown, **managing)
    creating.success(None, js=ZIP_TAKEN)
    collections.sync(handlers.sync, None, None, **managing).success(handlers.watch, None, shown, **managing)
    collections.remove(handlers.delete, None, collections, **managing)
    progress.cancel(handlers.cancel, None, None, **managing)
    parts.watch.changed(handlers.watch, None, shown, **managing)


def _scripted(value: str, **kwargs: Any) -> gr.HTML:
    # "${value}": see crop.crop_overlay. All that comes from outside is escaped in the templates.
    return gr.HTML(value, html_template="${value}", js_on_load=script("manage.js"), apply_default_css=False, **kwargs)


def job_view(job: Job | None) -> str:
    """HTML of work under way, or of what became of it."""
    return "" if job is None else render("manage/job.html", job=job)


def shelf(library: Library, jobs: CollectionJobs) -> str:
    """HTML of the list of collections."""
    return render("manage/shelf.html", collections=[_on_shelf(engine, jobs) for engine in library.values()])


def _on_shelf(engine: SearchEngine, jobs: CollectionJobs) -> dict[str, Any]:
    manifest = engine.store.manifest
    root = Path(manifest["root"])
    own = root.is_relative_to(engine.folder)
    pictures = len(engine.store.ids)
    count = f"{pictures:,} picture{'' if pictures == 1 else 's'}"
    factories = {entry["factory"] for entry in manifest.get("indexes", {}).values()}
    return {
        "name": engine.name,
        "count": count,
        "damaged": manifest.get("damaged"),
        "encoder": manifest["encoder"]["name"],
        "factories": ", ".join(sorted(factories)),
        "where": "uploaded" if own else str(root),
        "loss": f"Its vectors and its index of {count} are deleted"
        + (", and the uploaded pictures with them." if own else f". The pictures themselves stay in {root}."),
        "managed": jobs.manages(engine.name),
    }


TAB = Tab("manage", "Manage", build, is_offered=lambda parts: parts.jobs is not None)
