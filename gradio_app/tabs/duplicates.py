"""The tab of duplicates: pictures that are the same, side by side, to be decided about. See `routes.duplicates`."""

from __future__ import annotations

import gradio as gr

from gradio_app.grid import picture_grid
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import PageParts

SHOWN = "() => document.dispatchEvent(new Event('ris-duplicates'))"


def build(parts: PageParts, tab: gr.Tab) -> None:
    panel = picture_grid("duplicates.js", value='<div class="ris-duplicates"></div>', elem_id="ris-duplicates")
    parts.grids.append(panel)
    tab.select(None, js=SHOWN)


TAB = Tab("duplicates", "Duplicates", build)
