"""What the tab is made of. All that it shows comes from `routes.browse`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gradio_app.browse_address import NAMES
from gradio_app.grid import picture_grid
from gradio_app.markup import render
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import UNQUEUED, PageParts

SHOWN = "() => document.dispatchEvent(new Event('ris-browse'))"


def build(parts: PageParts, tab: gr.Tab) -> None:
    panel = picture_grid(
        "browse.js", "select.js", value=render("browse/panel.html", names=" ".join(NAMES)), elem_id="ris-gallery"
    )
    parts.grids.append(panel)
    tab.select(None, js=SHOWN)
    panel.leave(show_search, None, parts.tabs, **UNQUEUED)


def show_search() -> Any:
    return gr.update(selected="search")


TAB = Tab("browse", "Browse the collection", build)
