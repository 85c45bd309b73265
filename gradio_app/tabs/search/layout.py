"""How the Search tab is laid out, and which listener answers what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gradio_app.crop import CHANGED, GO, KEEP, MISREAD, OPEN, OPENED, READ_BOX, SWAP, crop_overlay
from gradio_app.grid import picture_grid
from gradio_app.markup import render, script
from gradio_app.session import RESULTS
from gradio_app.tabs import Connect, Tab
from gradio_app.tabs.controls import AFTER_ERROR, UNQUEUED, PageParts, engine_radio
from gradio_app.tabs.search import views
from gradio_app.tabs.search.handlers import SearchHandlers
from gradio_app.tabs.search.opening import OpeningHandlers
from gradio_app.tabs.search.views import MAX_RESULTS, SORTS
from search.options import NEIGHBOURHOOD

# On a small screen the results lie below the controls, and after "Search with this" they may lie above.
SHOW_RESULTS = """() => {
  document.dispatchEvent(new Event('ris-searched'));
  if (document.ris_cropping) return; // whoever moves a box goes on looking at it
  const found = document.querySelector('#ris-found'), top = found.getBoundingClientRect().top;
  if (top < 0 || top > 0.6 * innerHeight) found.scrollIntoView({ behavior: 'smooth', block: 'start' });
}"""
ADJUSTED = "() => document.dispatchEvent(new Event('ris-adjusted'))"
CONTINUED = "() => document.dispatchEvent(new Event('ris-continued'))"
RESTORED = "() => document.dispatchEvent(new Event('ris-restored'))"
ADDRESS_OPENED = "() => document.dispatchEvent(new Event('ris-opened'))"
# The switch is where it was, as nothing has come of it.
UNLOOKED = "() => { document.querySelector('.ris-foreground input').checked = false; }"
SHOW_PICTURE = "() => document.querySelector('#ris-query').scrollIntoView({ behavior: 'smooth', block: 'start' })"


def build(parts: PageParts, tab: gr.Tab) -> Connect:
    first = parts.library.first()
    collection, session, box = parts.collection, parts.session, parts.box
    with gr.Row(elem_id="ris-search"):
        with gr.Column(elem_id="ris-query", scale=0, min_width=340):
            # "${value}": see crop.crop_overlay.
            words = gr.HTML(
                views.words_field(),
                html_template="${value}",
                js_on_load=script("words.js", "suggest.js"),
                apply_default_css=False,
                elem_id="ris-words",
            )
            about_words = gr.HTML(views.about_words(), apply_default_css=False, elem_id="ris-words-note")
            reading = gr.HTML(
                "",
                html_template="${value}",
                js_on_load=script("reading.js"),
                apply_default_css=False,
                elem_id="ris-reading",
            )
            picture = crop_overlay(value="", elem_id="ris-picture")
            with gr.Row(elem_id="ris-go"):
                start = gr.Button("Search", variant="primary", size="lg", elem_id="ris-start")
            upload = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                show_label=False,
                height="auto",
                elem_id="ris-upload",
                placeholder="Drop a picture here, paste one, or click to choose",
            )
            # What is dropped or pasted anywhere comes through it: the field above has one for files in one mode only.
            dropped = gr.Image(type="filepath", sources=["upload"], show_label=False, elem_id="ris-dropped")
            with gr.Row(elem_id="ris-address"):
                address = gr.Textbox(
                    placeholder="or paste a web address: https://…",
                    label="Address of a picture on the web",
                    show_label=False,
                    container=False,
                    max_lines=1,
                    scale=1,
                    min_width=120,
                    elem_id="ris-url",
                )
                fetch = gr.Button("Open", scale=0, min_width=72, elem_id="ris-fetch")
            gr.HTML("<h3>Or try one of these</h3>", apply_default_css=False)
            examples = picture_grid(value=views.examples(first), elem_id="ris-examples")
            gr.HTML(
                render("search/history.html"),
                js_on_load=script("history.js"),
                apply_default_css=False,
                elem_id="ris-history",
            )
            with gr.Accordion("How to search", open=False, elem_id="ris-settings"):
                kind = gr.Slider(
                    0,
                    1,
                    NEIGHBOURHOOD,
                    step=0.05,
                    **views.neighbourhood_options(first),
                    label="This very picture … this kind of thing",
                    info="How much the nearest of each picture count in the order, beside how alike two pictures look",
                    elem_id="ris-neighbourhood",
                )
                count = gr.Slider(1, MAX_RESULTS, RESULTS, step=1, label="Number of results", elem_id="ris-count")
                cutoff = gr.Textbox(**views.cutoff_options(first), max_lines=1, elem_id="ris-cutoff")
                engine_choice = gr.Radio(**engine_radio(first), label="Index", elem_id="ris-engine")
                nprobe = gr.Slider(**views.nprobe_options(first), step=1, elem_id="ris-nprobe")
                rerank = gr.Checkbox(
                    True,
                    **views.rerank_options(first),
                    label="Re-rank",
                    info="Order the best again by their stored vectors",
                    elem_id="ris-rerank",
                )
        with gr.Column(elem_id="ris-found", scale=1, min_width=280):
            with gr.Row(elem_id="ris-last-row"):
                last_view = gr.HTML(views.last_searched(None), apply_default_css=False, elem_id="ris-last")
                with gr.Row(elem_id="ris-copies"):
                    again = gr.Button("← Copy to search", size="sm", elem_id="ris-again", scale=0, min_width=0)
                    keep = gr.Button("→ Copy from search", size="sm", elem_id="ris-keep", scale=0, min_width=0)
                    swap = gr.Button("⇄ Swap", size="sm", elem_id="ris-swap", scale=0, min_width=0)
                recent = picture_grid(value="", elem_id="ris-recent")
            with gr.Row(elem_id="ris-refine"):
                status = gr.HTML(views.hint(), apply_default_css=False, elem_id="ris-status")
                labels = gr.Dropdown(
                    **views.label_options(first),
                    multiselect=True,
                    label="Only with these labels",
                    show_label=False,
                    container=False,
                    elem_id="ris-labels",
                    min_width=180,
                )
                sort = gr.Dropdown(
                    SORTS,
                    value="score",
                    label="Order of the results",
                    show_label=False,
                    container=False,
                    filterable=False,
                    elem_id="ris-sort",
                    min_width=120,
                )
                fold = gr.Checkbox(False, label="Fold near-equal", container=False, elem_id="ris-fold", min_width=0)
            results = picture_grid(value="", elem_id="ris-results")
            enlarged = picture_grid(value="", elem_id="ris-enlarged")  # which the viewer opens with, out of sight
    parts.grids.extend([results, enlarged])
    handlers = SearchHandlers(parts.library, upload, parts.token if parts.jobs is not None else None)

    # UNQUEUED leaves the file as it is, same bytes and same content hash. Preprocessed, gr.Image would re-encode it.
    taking = upload.input(handlers.take_upload, [session, upload], [picture, upload], **UNQUEUED)
    taking.failure(None, None, upload, js="() => null")  # or what is no picture would lie there, broken
    dropping = dropped.input(handlers.take_upload, [session, dropped], [picture, dropped], **UNQUEUED)
    dropping.failure(None, None, dropped, js="() => null")
    gr.on([address.submit, fetch.click], None, address, js=OPEN)
    opening = picture.open(
        handlers.open_address,
        session,
        picture,
        **{**UNQUEUED, "queue": True, "show_progress": "minimal", "show_progress_on": picture},
    )
    opening.success(None, address, address, js=OPENED)
    for shown in (dropping, opening):  # they may come while another tab is open
        shown.success(lambda: gr.update(selected="search"), None, parts.tabs, **UNQUEUED)
    picked = examples.pick(handlers.take_example, session, picture, **UNQUEUED)
    recalled = recent.recall(handlers.recall, [session, collection], [picture, reading], **UNQUEUED)
    words.warm(handlers.warm_up, collection, about_words, **UNQUEUED)
    picture.remove(handlers.remove, session, picture, **UNQUEUED)

    # One listener for every way to ask for a search; static/crop.js knows them.
    read_box = f"(session, box, ...rest) => [session, {READ_BOX}, ...rest]"
    searching: Any = {**UNQUEUED, "show_progress": "minimal", "show_progress_on": status}
    found = [results, status, last_view, recent, reading]
    controls = [collection, count, engine_choice, nprobe, rerank, labels, cutoff, sort, kind]
    going = picture.go(
        handlers.search,
        [session, box, *controls],
        found,
        js=read_box,
        **searching,
    )
    going.success(None, js=SHOW_RESULTS)
    picture.beside(handlers.set_beside, [session, box, collection], [picture, reading], js=read_box, **UNQUEUED)
    looking = picture.foreground(handlers.look_at_object, [session, box], picture, js=read_box, **UNQUEUED)
    looking.failure(None, js=UNLOOKED)
    picture.misread(handlers.show_reading, [session, box, collection], reading, js=read_box, **UNQUEUED)
    going.failure(None, js=MISREAD)  # what could not be searched is shown as it was understood
    reading.keep(handlers.keep_tag, session, reading, **UNQUEUED)
    reading.learned(handlers.show_learned, None, parts.tabs, **UNQUEUED)
    for asked in (opening, picked, recalled, going):
        asked.failure(None, js=AFTER_ERROR)
    start.click(None, js=GO)
    adjusting = gr.on(
        [count.release, nprobe.release, engine_choice.input, rerank.input, cutoff.submit, cutoff.blur],
        handlers.adjust,
        [session, *controls],
        found,
        **searching,
    )
    reordering = kind.release(handlers.reorder, [session, kind, sort], found, **searching)
    refining = labels.input(handlers.refine, [session, labels, sort], found, **searching)
    going_on = results.more(handlers.show_more, [session, sort], found, **searching)
    sorting = sort.input(handlers.sort, [session, sort], results, **UNQUEUED)
    folding = fold.input(handlers.fold, [session, fold, sort], results, **UNQUEUED)
    for changed in (adjusting, reordering, refining, sorting, folding):
        changed.success(None, js=ADJUSTED)
    going_on.success(None, js=CONTINUED)
    going_on.failure(None, js=AFTER_ERROR)

    opened = OpeningHandlers(handlers)
    words.opened(opened.choose_collection, None, collection, **UNQUEUED).success(None, js=ADDRESS_OPENED)
    shown = [picture, reading, results, status, last_view, recent, enlarged]
    settings = [count, engine_choice, nprobe, rerank, labels, cutoff, sort, kind, fold]
    restoring = words.restore(opened.restore, [session, collection], [*shown, *settings], **searching)
    restoring.success(None, js=RESTORED)
    words.browse(lambda: gr.update(selected="browse"), None, parts.tabs, **UNQUEUED)

    again.click(handlers.copy_to_search, [session, collection], [picture, reading], **UNQUEUED)
    keep.click(None, js=KEEP)
    swap.click(None, js=SWAP)
    picture.keep(handlers.copy_from_search, [session, box], last_view, js=read_box, **UNQUEUED)
    picture.swap(handlers.swap, [session, box, collection], [picture, last_view, reading], js=read_box, **UNQUEUED)
    of_collection = [
        examples,
        engine_choice,
        nprobe,
        rerank,
        cutoff,
        kind,
        labels,
        results,
        status,
        reading,
        about_words,
    ]
    collection.change(handlers.choose_collection, [session, collection], of_collection, **UNQUEUED).success(
        None, js=CHANGED
    )
    parts.watch.changed(handlers.follow_library, [session, collection], of_collection, **UNQUEUED)
    # input, not change: that is sent when the accordion is opened too, and its answer would take back what is typed.
    engine_choice.input(handlers.choose_engine, [collection, engine_choice], [nprobe, rerank], **UNQUEUED)

    def connect() -> None:
        """A picture that is picked in any grid becomes the query."""
        for grid in parts.grids:
            picked = grid.pick(handlers.pick, session, [picture, parts.tabs], **UNQUEUED)
            inside = grid.inside(handlers.look_inside, session, [picture, parts.tabs], **UNQUEUED)
            inside.success(None, js=SHOW_PICTURE)
            for asked in (picked, inside):
                asked.failure(None, js=AFTER_ERROR)

    return connect


TAB = Tab("search", "Search", build)
