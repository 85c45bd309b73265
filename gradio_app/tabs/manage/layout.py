"""How the tab is laid out, and which listener answers what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gradio_app.markup import render, script
from gradio_app.recipe import INDEXES, encoder_choices, space_choices
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import UNQUEUED, PageParts
from gradio_app.tabs.manage.handlers import ManageHandlers
from gradio_app.tabs.manage.views import NEW, into_choices, send_field, shelf
from search.build import FACTORY
from search.spaces import default_spaces

SOURCES = [("A folder on the server", "folder"), ("Pictures, a folder or a zip file of mine", "sent")]
QUALITY = [
    ("Fast: looks where 90 of 100 neighbours are", "fast"),
    ("Balanced: where 99 of 100 are", "balanced"),
    ("Exact: compares with every picture", "exact"),
]
# What was sent goes by a token, which is in the page itself: it comes with the event that needs it, and not by another.
SEND_TOKEN = "(...values) => [...values.slice(0, -1), document.querySelector('.ris-send')?.dataset.token ?? '']"
LOCKED = (
    "To make, sync or delete collections, open the link that the app printed when it was started: "
    "“To manage collections, open …”."
)


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
            # Hidden, not left out: what is dropped finds its way here whichever source is chosen.
            sent = _scripted(send_field(), "send.js", visible="hidden", elem_id="ris-new-sent")
            into = gr.Dropdown(
                into_choices(jobs),
                value=NEW,
                label="They become",
                visible=False,
                filterable=False,
                elem_id="ris-new-into",
            )
            with gr.Accordion("How it is made", open=False, elem_id="ris-new-how") as how:
                encoder = gr.Dropdown(
                    [(title, key) for key, title in encoder_choices().items()],
                    value="auto",
                    label="Encoder",
                    info="What turns pictures into vectors",
                    filterable=False,
                    elem_id="ris-new-encoder",
                )
                quality = gr.Radio(QUALITY, value="balanced", label="Search", elem_id="ris-new-quality")
                index = gr.Dropdown(
                    [(title, key) for key, title in INDEXES.items()],
                    value=FACTORY,
                    label="Index",
                    info="Or a description of another, as faiss writes it",
                    allow_custom_value=True,
                    elem_id="ris-new-index",
                )
                with_faiss = gr.Checkbox(
                    True, label="Also the index of faiss", info="To compare ours with", elem_id="ris-new-faiss"
                )
                spaces = gr.CheckboxGroup(
                    [(title, key) for key, title in space_choices().items()],
                    value=[key for key in space_choices() if key in default_spaces()],
                    label="What else can be searched",
                    elem_id="ris-new-spaces",
                )
            token = gr.Textbox(visible=False, elem_id="ris-new-token")
            create = gr.Button("Make the collection", variant="primary", elem_id="ris-create")
        with gr.Column(scale=1, min_width=280, elem_id="ris-collections"):
            progress = _scripted("", "manage.js", elem_id="ris-job")
            gr.HTML("<h2>Collections</h2>", apply_default_css=False)
            collections = _scripted(shelf(library, jobs), "manage.js", elem_id="ris-shelf")

    # A queue of its own: visitors who watch a job take no place of those who search.
    managing: Any = {**UNQUEUED, "queue": True, "concurrency_id": "manage", "concurrency_limit": 64}
    shown = [progress, collections]
    tab.select(handlers.open, None, locked, **UNQUEUED)
    of_target = [name, how, create]
    source.input(handlers.choose_source, source, [folder, sent, into, *of_target], **UNQUEUED)
    into.input(handlers.choose_target, into, of_target, **UNQUEUED)
    quality.input(handlers.choose_quality, quality, index, **UNQUEUED)
    asked = [parts.session, name, source, into, folder, encoder, quality, index, with_faiss, spaces, token]
    creating = gr.on(
        [create.click, name.submit, folder.submit], handlers.create, asked, None, js=SEND_TOKEN, **managing
    )
    watching = creating.success(handlers.watch, None, shown, **managing)
    opened = [parts.collection, folder, sent, into, *of_target]
    made_of = [parts.session, name, source, folder, token]
    watching.success(handlers.open_made, made_of, opened, js=SEND_TOKEN, **managing)
    collections.sync(handlers.sync, None, None, **managing).success(handlers.watch, None, shown, **managing)
    collections.remove(handlers.delete, None, collections, **managing)
    progress.cancel(handlers.cancel, None, None, **managing)
    for part in shown:
        part.browse(handlers.browse, None, [parts.collection, parts.tabs], **managing)
    parts.watch.changed(handlers.watch, None, shown, **managing)


def _scripted(value: str, *names: str, **kwargs: Any) -> gr.HTML:
    # "${value}": see crop.crop_overlay. All that comes from outside is escaped in the templates.
    return gr.HTML(value, html_template="${value}", js_on_load=script(*names), apply_default_css=False, **kwargs)


TAB = Tab("manage", "Manage", build, is_offered=lambda parts: parts.jobs is not None)
