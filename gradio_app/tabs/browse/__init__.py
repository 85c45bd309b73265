"""The tab to leaf through a collection: chosen by facets, in any order, a page at a time."""

from gradio_app.tabs.browse.layout import TAB

__all__ = ["TAB"]
