"""The page as a server gives it out: how it looks, what it refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like

from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.routes.pictures import picture_routes
from gradio_app.routes.uploads import library_routes
from search.engine import SearchEngine

STATIC = Path(__file__).parent / "static"
UPLOAD_LIMIT = "25mb"
DAY = 24 * 60 * 60
SESSIONS = 500  # visitors whose pictures are remembered at a time; Gradio's own limit is 10,000, some 0.5 MB each

# How a listener without a progress bar is bound. Private: callable from the page only, and not listed in an API.
# always_last: of clicks that come faster than answers the last one counts. By default it would be dropped.
# No queue: the answer comes with the request itself. Through Gradio's queue it would take a second request that waits
# for it and a round of bookkeeping, several times the work of a search.
# No pre- and postprocessing: the values of our components are what the page sends and what it shows, and Gradio would
# send each of them to another thread and back to find that out. So handlers cannot rely on a value being one of the
# choices that the page offers.
# What a handler changes of a component it says by `gr.update`: of a component that it made itself Gradio would take the
# arguments only, and make it once more.
UNQUEUED: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "queue": False,
    "preprocess": False,
    "postprocess": False,
}

# What follows an error: whatever the visitor clicked in the meantime; see static/ask.js.
AFTER_ERROR = "() => document.dispatchEvent(new Event('ris-failed'))"


@dataclass(frozen=True)
class Shared:
    """The components that every tab reads.

    Attributes
    ----------
    collection : gr.Dropdown
        Its value is the name of the chosen collection; `engine_of` gives the engine.
    session : gr.State
        Holds a `session.Session`. It is an input only, and changed in place: see there.
    tabs : gr.Tabs
    watch : gr.HTML
        Triggers `changed` when a collection was made, brought up to date or deleted, by whomever.
    """

    collection: gr.Dropdown
    session: gr.State
    tabs: gr.Tabs
    watch: gr.HTML


class SearchPage(gr.Blocks):
    """The page, with all it needs to be served. `launch()` it, or mount it beside other routes::

    gr.mount_gradio_app(fastapi_app, page, path="/", **page.server_options)
    """

    def __init__(self, library: Library, jobs: CollectionJobs | None = None) -> None:
        super().__init__(
            title="Reverse image search",
            analytics_enabled=False,
            fill_width=True,
            # Uploads older than a day are deleted; Gradio looks every hour.
            delete_cache=(60 * 60, DAY),
        )
        self.state_session_capacity = SESSIONS
        self.server_options: dict[str, Any] = {
            # No list of all routes either: Gradio would give it to whoever asks, --auth or not.
            "app_kwargs": {
                "routes": [*picture_routes(library), *library_routes(library, jobs)],
                "openapi_url": None,
            },
            "css": "".join((STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "explain.css")),
            "theme": _theme(),
            "max_file_size": UPLOAD_LIMIT,
            "footer_links": [],
            "run_history": False,
            "show_error": False,
            "ssr_mode": False,
        }

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        own = self.server_options["app_kwargs"]
        theirs = kwargs.pop("app_kwargs", None) or {}
        both = {**own, **theirs, "routes": [*own["routes"], *theirs.get("routes", ())]}
        options = {"state_session_capacity": SESSIONS, **self.server_options, **kwargs, "app_kwargs": both}
        return super().launch(*args, **options)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        # Whatever is shaped like a file with a web address Gradio would fetch for the caller, with none of the checks
        # and limits of remote_image.py. The page itself never sends one.
        if _names_remote_file(inputs):
            raise sorry("Pictures from the web are opened through the address field only.")
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> Any:
        outputs = await super().postprocess_data(block_fn, predictions, state)
        # An update replaces the component in the visitor's session by one of a new id, and under that it would be kept
        # as well when it is next an input: the session would grow with every change of the collection.
        for block in block_fn.outputs if state else ():
            state.blocks_config.blocks[block._id]._id = block._id
        return outputs


def sorry(sentence: str) -> gr.Error:
    """What a visitor is told. Gradio shows the message as HTML, and it may quote a file name or a web address."""
    return gr.Error(escape(sentence), print_exception=False)


def engine_of(library: Library, name: str) -> SearchEngine:
    """The engine of the chosen collection, or a sentence to the visitor where it has been deleted meanwhile."""
    engine = library.get(name)
    if engine is None:
        raise sorry(f"The collection {name} is no longer there. Choose another.")
    return engine


def _names_remote_file(data: Any) -> bool:
    if isinstance(data, Mapping):
        path = data.get("path")
        return (isinstance(path, str) and is_http_url_like(path.strip())) or any(map(_names_remote_file, data.values()))
    return isinstance(data, list | tuple) and any(map(_names_remote_file, data))


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        # The semi-bold cut that Gradio bundles lacks most letters; the bold one is whole.
        font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"),
    )
    # Gradio's own grey is too faint to read comfortably (contrast 2.6 to 1 on white; this is 4.8).
    return theme.set(
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color_dark="*neutral_400",
    )
