"""The tab to search in: a picture comes in and is cropped, the most similar ones of the collection come out."""

from gradio_app.tabs.search.layout import TAB

__all__ = ["TAB"]
