"""The Explain tab: why a picture was found, or was not, and the way the search took through the index."""

from gradio_app.tabs.explain.layout import TAB

__all__ = ["TAB"]
