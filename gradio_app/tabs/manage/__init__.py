"""The tab to manage collections in: make one of a folder or of what is sent, bring it up to date, delete it."""

from gradio_app.tabs.manage.layout import TAB

__all__ = ["TAB"]
