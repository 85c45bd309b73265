"""How the Explain tab is laid out, and which listener answers what."""

from __future__ import annotations

import gradio as gr

from gradio_app.markup import render
from gradio_app.tabs import Connect, Tab
from gradio_app.tabs.controls import (
    AFTER_ERROR,
    MAX_K,
    QUEUED,
    RERANK,
    SEND_BOX,
    UNQUEUED,
    PageParts,
    about,
    clickable,
    engine_radio,
    nprobe_slider,
)
from gradio_app.tabs.explain.handlers import ExplainHandlers
from search.explain import map_methods

METHODS = {"pca": "PCA", "umap": "UMAP"}


def build(parts: PageParts, tab: gr.Tab) -> Connect:
    handlers, first = ExplainHandlers(parts.library), parts.library.first()
    collection, session, state = parts.collection, parts.session, parts.explain_state
    gr.HTML(render("explain/intro.html"), apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        subject = gr.HTML(about(None), apply_default_css=False, elem_id="ris-explain-about")
        engine_choice = gr.Radio(**engine_radio(first), label="Index", elem_id="ris-explain-engine", min_width=220)
        k = gr.Slider(1, MAX_K, 10, step=1, label="Results (k)", elem_id="ris-explain-k", min_width=160)
        nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-explain-nprobe", min_width=160)
        rerank = gr.Checkbox(True, label="Re-rank", info=RERANK, elem_id="ris-explain-rerank", min_width=160)
    strip = clickable(elem_id="ris-strip")
    detail = gr.HTML("", apply_default_css=False, elem_id="ris-explain")
    with gr.Column(visible=False, elem_id="ris-map") as map_column:
        gr.HTML(render("explain/map.html"), apply_default_css=False)
        method = gr.Radio(
            [(METHODS.get(key, key), key) for key in map_methods()],
            value="pca",
            label="Projection",
            visible=len(map_methods()) > 1,
            elem_id="ris-map-method",
        )
        plot = gr.Plot(show_label=False, container=False, elem_id="ris-map-plot")

    controls = [engine_choice, k, nprobe, rerank]
    outputs = [subject, strip, detail, map_column, plot]
    # In two steps: the first explanation takes seconds, and meanwhile the tab should say what of.
    asked = [collection, session, state, *controls, parts.box]
    opening = tab.select(handlers.open, asked, [subject, *controls], js=SEND_BOX, **UNQUEUED)
    opening.success(handlers.opened, [collection, state, method], outputs, **QUEUED, show_progress_on=strip)
    gr.on(
        [engine_choice.input, k.release, nprobe.release, rerank.input, method.input],
        handlers.change,
        [collection, state, method, *controls],
        outputs,
        **QUEUED,
        show_progress_on=strip,
    )
    explaining = strip.explain(handlers.explain, [collection, state, method], outputs, **QUEUED, show_progress_on=strip)
    explaining.failure(None, js=AFTER_ERROR)
    followed = [engine_choice, nprobe, *outputs]
    collection.change(handlers.choose_collection, [collection, state], followed, **UNQUEUED)
    parts.watch.changed(handlers.follow_library, [collection, state], followed, **UNQUEUED)

    def connect() -> None:
        """A result in any grid can be explained."""
        for grid in parts.grids:
            asking = grid.explain(handlers.ask, [session, state, nprobe], parts.tabs, **UNQUEUED)
            asking.failure(None, js=AFTER_ERROR)

    return connect


TAB = Tab("explain", "Explain", build)
