"""The tab to leaf through a collection: all its pictures, a page at a time."""

from __future__ import annotations

import math

import gradio as gr
from markupsafe import Markup

from gradio_app.grid import Tile, picture_grid, render_pager, render_tiles
from gradio_app.library import Library
from gradio_app.markup import render
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import AFTER_ERROR, UNQUEUED, PageParts, engine_of
from search.engine import SearchEngine

PAGE_SIZE = 60


class BrowseHandlers:
    """What happens when a visitor leafs."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def choose(self, name: str | None) -> str:
        return gallery(self.library.get(name or ""), 1)

    def turn(self, name: str | None, event: gr.EventData) -> str:
        number = getattr(event, "page", 1)
        return gallery(engine_of(self.library, name), number if type(number) is int else 1)


def build(parts: PageParts, tab: gr.Tab) -> None:
    handlers = BrowseHandlers(parts.library)
    grid = picture_grid(value=gallery(parts.library.first(), 1), elem_id="ris-gallery")
    parts.grids.append(grid)
    parts.collection.change(handlers.choose, parts.collection, grid, **UNQUEUED)
    parts.watch.changed(handlers.choose, parts.collection, grid, **UNQUEUED)
    grid.turn(handlers.turn, parts.collection, grid, **UNQUEUED).failure(None, js=AFTER_ERROR)


def gallery(engine: SearchEngine | None, page: int) -> str:
    """HTML of a page of a collection; of the nearest one there is."""
    if engine is None:
        return ""
    ids = engine.store.ids
    pages = max(1, math.ceil(len(ids) / PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = ids[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    tiles = render_tiles(engine, [Tile(int(i)) for i in shown], kind="gallery")
    pager = render_pager(page, pages)
    return render("gallery.html", name=engine.name, count=len(ids), pager=Markup(pager), tiles=Markup(tiles))


TAB = Tab("browse", "Browse the collection", build)
