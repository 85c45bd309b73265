"""The tab to manage collections in: make one of a folder or a zip file, bring it up to date, delete it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from gradio_app.jobs import CollectionJobs, Job, JobError
from gradio_app.library import Library
from gradio_app.page import UNQUEUED, Shared, sorry
from gradio_app.routes.access import is_trusted
from gradio_app.routes.uploads import MAX_UPLOAD
from gradio_app.session import Session
from search.engine import SearchEngine

SOURCES = [("A folder on the server", "folder"), ("A zip file of mine", "zip")]
EVERY = 0.5  # seconds between two looks at a job

_SCRIPT = (Path(__file__).parents[1] / "static" / "manage.js").read_text(encoding="utf-8")


def manage_tab(library: Library, shared: Shared, jobs: CollectionJobs) -> None:
    """Build the tab's content and wire it."""
    page = gr.context.Context.root_block

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
            packed = _part(_zip_field(), visible=False, elem_id="ris-new-zip")
            create = gr.Button("Make the collection", variant="primary", elem_id="ris-create")
        with gr.Column(scale=1, min_width=280, elem_id="ris-collections"):
            job_view = _part("", elem_id="ris-job")
            gr.HTML("<h2>Collections</h2>", apply_default_css=False)
            shelf = _part(_shelf(library, jobs), elem_id="ris-shelf")

    def check(request: gr.Request) -> None:
        if not is_trusted(request.headers, bool(getattr(page, "auth", None))):
            raise sorry("Collections are managed from this computer only, or after logging in (--auth).")

    def on_source(kind: str) -> Any:
        return gr.update(visible=kind == "folder"), gr.update(visible=kind == "zip")

    def on_sent(session: Session, event: gr.EventData) -> None:
        session.upload = str(getattr(event, "token", ""))

    def on_create(session: Session, name: str, kind: str, typed: str, request: gr.Request) -> Any:
        check(request)
        try:
            if kind == "zip":
                if not session.upload:
                    raise JobError("Choose a zip file first.")
                jobs.create(name, jobs.uploaded(session.upload), packed=True)
                session.upload = ""
            else:
                if not typed.strip():
                    raise JobError("Name the folder that the pictures are in first.")
                jobs.create(name, typed.strip())
        except JobError as error:
            raise sorry(str(error)) from error
        return "", ""

    def on_sync(event: gr.EventData, request: gr.Request) -> None:
        check(request)
        try:
            jobs.sync(str(getattr(event, "name", "")))
        except JobError as error:
            raise sorry(str(error)) from error

    def on_cancel(request: gr.Request) -> None:
        check(request)
        jobs.cancel()

    def on_remove(event: gr.EventData, request: gr.Request) -> str:
        check(request)
        try:
            jobs.delete(str(getattr(event, "name", "")))
        except JobError as error:
            raise sorry(str(error)) from error
        return _shelf(library, jobs)

    async def watch() -> AsyncIterator[Any]:
        """What becomes of the job under way, until it is over. Sleeping here keeps no thread busy."""
        while True:
            job = jobs.job
            yield _job(job), gr.skip()
            if job is None or job.state != "running":
                break
            await asyncio.sleep(EVERY)
        yield _job(jobs.job), _shelf(library, jobs)

    # A queue of its own: visitors who watch a job take no place of those who search.
    managing: Any = {**UNQUEUED, "queue": True, "concurrency_id": "manage", "concurrency_limit": 64}
    shown = [job_view, shelf]
    source.input(on_source, source, [folder, packed], **UNQUEUED)
    packed.sent(on_sent, shared.session, None, **managing)
    gr.on(
        [create.click, name.submit, folder.submit],
        on_create,
        [shared.session, name, source, folder],
        packed,
        **managing,
    ).success(watch, None, shown, **managing)
    shelf.sync(on_sync, None, None, **managing).success(watch, None, shown, **managing)
    shelf.remove(on_remove, None, shelf, **managing)
    job_view.cancel(on_cancel, None, None, **managing)
    shared.watch.changed(watch, None, shown, **managing)


def _part(value: str, **kwargs: Any) -> gr.HTML:
    # "${value}": see crop.crop_overlay. All that comes from outside is escaped here.
    return gr.HTML(value, html_template="${value}", js_on_load=_SCRIPT, apply_default_css=False, **kwargs)


def _zip_field() -> str:
    return (
        f'<div class="ris-zip" data-max="{MAX_UPLOAD}"><label>Zip file<input type="file" accept=".zip,application/zip">'
        f'</label><progress max="1" hidden></progress><p role="status">Up to {MAX_UPLOAD / 2**30:g} GB. Names of '
        "folders in it become labels.</p></div>"
    )


def _job(job: Job | None) -> str:
    if job is None:
        return ""
    title = escape(job.title)
    if job.state == "running":
        count = f" · {job.done:,} of {job.total:,}" if job.total else ""
        share = f' value="{job.done}" max="{job.total}"' if job.total else ""
        return (
            f'<div class="ris-job" data-state="running"><h2>{title}</h2>'
            f'<progress{share} aria-label="{title}"></progress><p role="status">{escape(job.stage)}{count}</p>'
            '<button type="button" class="ris-cancel">Cancel</button></div>'
        )
    said = {
        "done": lambda: _report(job.report, job.seconds),
        "failed": lambda: f"<p>It failed: {escape(job.error)}</p>",
        "cancelled": lambda: "<p>Cancelled. Nothing of it was kept.</p>",
    }[job.state]()
    return f'<div class="ris-job" data-state="{job.state}" role="status"><h2>{title}</h2>{said}</div>'


def _report(report: Mapping[str, Any], seconds: float) -> str:
    lines = [f"<p><b>Done</b> in {seconds:.0f} s: {escape(report['summary'])}</p>"]
    if report["files"]:
        rows = "".join(f"<li><b>{escape(file)}</b> {escape(reason)}</li>" for file, reason in report["files"])
        rest = report["skipped"] - len(report["files"])
        more = f"<li>and {rest:,} more</li>" if rest > 0 else ""
        lines.append(
            f"<details><summary>{_count(report['skipped'], 'file')} skipped</summary><ul>{rows}{more}</ul></details>"
        )
    return "".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shelf(library: Library, jobs: CollectionJobs) -> str:
    if not library:
        return "<p>There is none yet.</p>"
    return f'<ul class="ris-shelf">{"".join(_shelf_item(engine, jobs) for engine in library.values())}</ul>'


def _shelf_item(engine: SearchEngine, jobs: CollectionJobs) -> str:
    manifest = engine.store.manifest
    root = Path(manifest["root"])
    own = root.is_relative_to(engine.folder)
    count = _count(len(engine.store.ids), "picture")
    damaged = f", {manifest['damaged']:,} unreadable" if manifest.get("damaged") else ""
    factories = {entry["factory"] for entry in manifest.get("indexes", {}).values()}
    where = "uploaded" if own else escape(str(root))
    loss = f"Its vectors and its index of {count} are deleted" + (
        ", and the uploaded pictures with them." if own else f". The pictures themselves stay in {root}."
    )
    buttons = (
        '<span><button type="button" class="ris-sync" title="Take in what was added, changed or removed in its folder">'
        'Sync</button><button type="button" class="ris-delete">Delete…</button></span>'
        if jobs.manages(engine.name)
        else ""
    )
    return (
        f'<li class="ris-shelf-item" data-name="{escape(engine.name)}" data-loss="{escape(loss)}"><div>'
        f"<b>{escape(engine.name)}</b><p>{count}{damaged} · {escape(manifest['encoder']['name'])} · "
        f"{escape(', '.join(sorted(factories)))}</p><p>{where}</p></div>{buttons}</li>"
    )
