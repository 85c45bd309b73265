"""What the tab is made of. Points and pictures come from `routes.map`; the search that is drawn in comes from here."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gradio_app.browse_address import NAMES
from gradio_app.grid import picture_grid
from gradio_app.markup import render
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import AFTER_ERROR, UNQUEUED, PageParts
from gradio_app.tabs.map.handlers import MapHandlers

# What comes before the script of the tab is there is kept for it.
SEARCHED = "(told) => { document.ris_map_search = told; document.dispatchEvent(new Event('ris-map')); }"
SCORED = "(told) => document.dispatchEvent(new CustomEvent('ris-map-scores', { detail: told }))"


def build(parts: PageParts, tab: gr.Tab) -> None:
    handlers = MapHandlers(parts.library)
    panel = picture_grid(
        "map.js", "map_points.js", value=render("map.html", names=" ".join(NAMES)), elem_id="ris-mapped"
    )
    parts.grids.append(panel)
    search, scores = gr.Textbox(visible=False), gr.Textbox(visible=False)
    asked = [parts.collection, parts.session]
    tab.select(handlers.search, asked, search, **UNQUEUED).then(None, search, None, js=SEARCHED)
    scoring = panel.score(handlers.scores, asked, scores, **UNQUEUED)
    scoring.success(None, scores, None, js=SCORED)
    scoring.failure(None, js=AFTER_ERROR)
    panel.browse(show_browse, None, parts.tabs, **UNQUEUED)


def show_browse() -> Any:
    return gr.update(selected="browse")


TAB = Tab("map", "Map", build)
