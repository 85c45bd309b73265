"""The tabs of the page: each is one module or package, found through a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import gradio as gr

from gradio_app.tabs.controls import PageParts

Connect = Callable[[], None]


@dataclass(frozen=True)
class Tab:
    """A tab of the page.

    Attributes
    ----------
    id : str
        What events that open it call it.
    title : str
    build : callable
        Builds the content of the `gr.Tab` it is given, and binds its listeners. What it returns, if anything, is called
        once all tabs are built: to bind what is in other tabs, such as every grid of pictures (`PageParts.grids`).
    is_offered : callable
        Whether the page has this tab.
    """

    id: str
    title: str
    build: Callable[[PageParts, gr.Tab], Connect | None]
    is_offered: Callable[[PageParts], bool] = lambda parts: True


# In the order of the page. A module's tab is called TAB.
_TABS: dict[str, str | Tab] = {
    "search": "gradio_app.tabs.search",
    "browse": "gradio_app.tabs.browse",
    "map": "gradio_app.tabs.map",
    "duplicates": "gradio_app.tabs.duplicates",
    "learned": "gradio_app.tabs.learned",
    "compare": "gradio_app.tabs.compare",
    "explain": "gradio_app.tabs.explain",
    "evaluate": "gradio_app.tabs.evaluate",
    "manage": "gradio_app.tabs.manage",
}


def register_tab(tab: Tab) -> None:
    """Add a tab, after those that there are, or replace the one of its id; pages that are built afterwards have it."""
    _TABS[tab.id] = tab


def tabs_of(parts: PageParts) -> list[Tab]:
    """The tabs that a page with these parts has."""
    found = [import_module(tab).TAB if isinstance(tab, str) else tab for tab in _TABS.values()]
    return [tab for tab in found if tab.is_offered(parts)]
