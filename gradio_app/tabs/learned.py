"""The tab of learned tags: what they suggest, to be confirmed or refused. All of it comes from `routes.learned`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gradio_app.crop import GO
from gradio_app.grid import picture_grid
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import AFTER_ERROR, UNQUEUED, PageParts

SHOWN = "() => document.dispatchEvent(new Event('ris-learned'))"


def build(parts: PageParts, tab: gr.Tab) -> None:
    panel = picture_grid("learned.js", value='<div class="ris-learned"></div>', elem_id="ris-learned")
    parts.grids.append(panel)
    tab.select(None, js=SHOWN)
    panel.find(show_search, None, parts.tabs, **UNQUEUED).success(None, js=GO).failure(None, js=AFTER_ERROR)


def show_search() -> Any:
    return gr.update(selected="search")


TAB = Tab("learned", "Learned tags", build)
