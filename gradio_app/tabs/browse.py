"""The tab to leaf through a collection: all its pictures, a page at a time."""

from __future__ import annotations

import math
from html import escape

import gradio as gr

from gradio_app.grid import Tile, picture_grid, render_pager, render_tiles
from gradio_app.library import Library
from gradio_app.page import AFTER_ERROR, UNQUEUED, Shared, engine_of
from search.engine import SearchEngine

PAGE_SIZE = 60


def browse_tab(library: Library, shared: Shared) -> gr.HTML:
    """Build the tab's content and wire it; returns its grid, so that its pictures can be searched with."""
    gallery = picture_grid(value=_gallery(library.first(), 1), elem_id="ris-gallery")

    def on_collection(name: str | None) -> str:
        return _gallery(library.get(name or ""), 1)

    def on_turn(name: str, event: gr.EventData) -> str:
        number = getattr(event, "page", 1)
        return _gallery(engine_of(library, name), number if type(number) is int else 1)

    shared.collection.change(on_collection, shared.collection, gallery, **UNQUEUED)
    shared.watch.changed(on_collection, shared.collection, gallery, **UNQUEUED)
    gallery.turn(on_turn, shared.collection, gallery, **UNQUEUED).failure(None, js=AFTER_ERROR)
    return gallery


def _gallery(engine: SearchEngine | None, page: int) -> str:
    if engine is None:
        return ""
    ids = engine.store.ids
    pages = max(1, math.ceil(len(ids) / PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = ids[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    pager = render_pager(page, pages)
    return (
        f'<div class="ris-gallery-head"><p><b>{escape(engine.name)}</b> · {len(ids):,} pictures</p>{pager}</div>'
        f"{render_tiles(engine, [Tile(int(i)) for i in shown], kind='gallery')}"
    )
