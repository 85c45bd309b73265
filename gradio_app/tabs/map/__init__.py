"""The tab that shows all pictures of a collection at once, as points: the more alike, the nearer to each other."""

from gradio_app.tabs.map.layout import TAB

__all__ = ["TAB"]
