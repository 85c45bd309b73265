"""The page as a server gives it out: what all tabs share, how it looks, and what stands around it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from gradio_app import gradio_seam
from gradio_app.guard import ContentPolicy, Guard
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.markup import render, script
from gradio_app.routes.access import StartToken
from gradio_app.routes.annotations import annotation_routes
from gradio_app.routes.api.beside import JOBS_FILE, Beside
from gradio_app.routes.browse import browse_routes
from gradio_app.routes.details import detail_routes
from gradio_app.routes.duplicates import duplicate_routes
from gradio_app.routes.found import found_routes
from gradio_app.routes.learned import learned_routes
from gradio_app.routes.map import map_routes
from gradio_app.routes.pictures import icon_route, picture_routes
from gradio_app.routes.selection import selection_routes
from gradio_app.routes.suggestions import suggestion_routes
from gradio_app.routes.uploads import library_routes
from gradio_app.routes.words import word_routes
from gradio_app.session import Session
from gradio_app.tabs import tabs_of
from gradio_app.tabs.controls import UNQUEUED, PageParts, collection_chooser
from gradio_app.tabs.explain.state import ExplainState

TITLE = "Reverse image search"
CARD = render(
    "card.html", title=TITLE, description="Find pictures by a picture, a part of one, by words, or by any mix of them."
)
STYLES = ("page.css", "words.css", "said.css", "explain.css", "browse.css", "duplicates.css", "map.css")
UPLOAD_LIMIT = "25mb"
DAY = 24 * 60 * 60
SESSIONS = 500  # whose pictures are remembered at a time; Gradio's own limit is 10,000, some 0.5 MB each


class SearchPage(gr.Blocks):
    """The page, with all it needs to be served. `launch()` it, or mount it beside other routes::

    gr.mount_gradio_app(fastapi_app, page, path="/", **page.server_options)

    Parameters
    ----------
    folder : Path, optional
        Of the collections, with the keys of who may use the API beside what visitors may.

    Attributes
    ----------
    start_token : StartToken
        Tells who started the app from everyone else.
    allowed_hosts : set of str
        Names besides those of this computer under which it may be asked for over loopback, as by a reverse proxy that
        hands on the name.
    """

    def __init__(
        self,
        library: Library,
        jobs: CollectionJobs | None = None,
        *,
        allowed_hosts: Collection[str] = (),
        folder: Path | None = None,
    ) -> None:
        super().__init__(
            title=TITLE,
            analytics_enabled=False,
            fill_width=True,
            # Uploads older than a day are deleted; Gradio looks every hour.
            delete_cache=(60 * 60, DAY),
        )
        self.start_token = StartToken()
        self.allowed_hosts = {name.lower() for name in allowed_hosts}
        self.state_session_capacity = SESSIONS
        self._folder = folder
        self._beside = Beside(lambda: _make_api(library, folder, jobs))
        routes = [icon_route(), *picture_routes(library), *library_routes(library, jobs, self.start_token)]
        routes += word_routes(library, self.start_token, is_managed=jobs is not None)
        routes += learned_routes(library, self.start_token, is_managed=jobs is not None)
        routes += [*suggestion_routes(library), *browse_routes(library), *map_routes(library)]
        routes += found_routes(library, lambda: Path(self.GRADIO_CACHE))
        routes += selection_routes(library, self.start_token, is_managed=jobs is not None)
        routes += detail_routes(library, self.start_token, is_managed=jobs is not None)
        routes += annotation_routes(library, self.start_token, is_managed=jobs is not None)
        routes += duplicate_routes(library, self.start_token, jobs)
        if jobs is not None:
            routes += self.start_token.routes()
        self.server_options: dict[str, Any] = {
            # No list of all routes either: Gradio would give it to whoever asks, --auth or not.
            "app_kwargs": {
                "routes": routes,
                "middleware": [Middleware(self._guarded), Middleware(ContentPolicy, card=CARD)],
                "openapi_url": None,
            },
            "css": script(*STYLES),
            "theme": _theme(),
            "max_file_size": UPLOAD_LIMIT,
            "footer_links": [],
            "run_history": False,
            "show_error": False,
            "ssr_mode": False,
        }
        with self:
            self._head = _lay_out(library, jobs, self.start_token)
            # Searches of different visitors run side by side; the engines are safe for that.
            self.queue(default_concurrency_limit=16)

    @property
    def start_link(self) -> str:
        """Where who started the app goes first, once it is launched: the page, and with it the right to manage."""
        return f"{self.local_url}{self.start_token.path}"

    def resume_jobs(self) -> None:
        """Go on with the jobs of the API that a server before this one left, if there are any."""
        if self._folder is not None and (self._folder / JOBS_FILE).exists():
            self._beside.made()

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        own = self.server_options["app_kwargs"]
        theirs = kwargs.pop("app_kwargs", None) or {}
        both = {
            **own,
            **theirs,
            "routes": [*own["routes"], *theirs.get("routes", ())],
            "middleware": [*theirs.get("middleware", ()), Middleware(ContentPolicy, card=CARD)],
        }
        options = {"state_session_capacity": SESSIONS, **self.server_options, **kwargs, "app_kwargs": both}
        self._head.value = render("head.html", log_out=bool(options.get("auth")))
        with gradio_seam.patience():
            return super().launch(*args, _app=gradio_seam.GuardedApp(self._guarded, **both), **options)

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        return Guard(self._beside.around(app), hosts=self._hosts, events=lambda: self.fns)

    def _hosts(self) -> set[str]:
        shared = gradio_seam.share_host(self)
        return self.allowed_hosts | {shared} if shared else self.allowed_hosts

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        gradio_seam.check_event_data(kwargs.get("event_data"))
        with gradio_seam.refusals_in_words():
            return await super().process_api(block_fn, inputs, *args, **kwargs)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        if gradio_seam.names_remote_file(inputs):  # the page itself never sends one
            raise gradio_seam.sorry("Pictures from the web are opened through the address field only.")
        gradio_seam.check_values(block_fn.inputs, inputs)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> Any:
        outputs = await super().postprocess_data(block_fn, predictions, state)
        gradio_seam.keep_ids_of_updated(block_fn.outputs, state)
        return outputs


def _make_api(library: Library, folder: Path | None, jobs: CollectionJobs | None) -> ASGIApp:
    from gradio_app.routes.api.service import create_api  # what it is made of loads with the first request for it

    return create_api(library, folder=folder, jobs=jobs)


def _lay_out(library: Library, jobs: CollectionJobs | None, token: StartToken) -> gr.HTML:
    """What stands above the tabs, and the tabs; returns the title."""
    session, state = gr.State(Session()), gr.State(ExplainState())
    # What the box on the picture to search is, filled in by the browser as it sends an event (crop.READ_BOX).
    box = gr.Textbox(visible=False, elem_id="ris-box")
    with gr.Row(elem_id="ris-head"):
        head = gr.HTML(render("head.html", log_out=False), apply_default_css=False)
        collection = gr.Dropdown(
            **collection_chooser(library, ""),
            label="Collection",
            container=False,
            elem_id="ris-collection",
            scale=0,
            min_width=240,
        )
        watch = gr.HTML(
            render("watch.html", version=library.version),
            js_on_load=script("watch.js"),
            apply_default_css=False,
            elem_id="ris-watch",
        )
    with gr.Tabs(elem_id="ris-tabs") as tabs:
        parts = PageParts(library, jobs, token, collection, session, state, tabs, watch, box)
        connects = []
        for tab in tabs_of(parts):
            with gr.Tab(tab.title, id=tab.id) as shown:
                connects.append(tab.build(parts, shown))
        for connect in filter(None, connects):
            connect()

    def on_changed(name: str) -> dict[str, Any]:
        return gr.update(**collection_chooser(library, name))

    watch.changed(on_changed, collection, collection, **UNQUEUED)
    return head


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        # The semi-bold cut that Gradio bundles lacks most letters; the bold one is whole.
        font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"),
    )
    # Gradio's own colours are too faint to read comfortably. Contrasts: grey on white 2.6 to 1, here 4.8; white on the
    # accent 4.5, here 6.3; the edge of an unticked box in the dark 1.4, here 3.1.
    return theme.set(
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_500",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color_dark="*neutral_400",
    )
