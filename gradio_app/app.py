"""The search page: choose a picture or a part of one, see the pictures of a collection that look most like it.

python gradio_app/app.py [--data NAME ...] [--host 127.0.0.1] [--port 7860] [--share] [--auth USER:PASS]
"""

from __future__ import annotations

import argparse
import base64
import logging
import math
import secrets
import socket
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script: Python put this folder on the path, the packages lie beside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio_client.utils import is_http_url_like
from PIL import Image

from features.encoders import EncoderError
from features.images import ImageError, decode_image
from features.store import StoreError
from gradio_app.crop import READ_BOX, Box, crop_overlay, parse_box, render
from gradio_app.engine import EngineError, Hits, SearchEngine
from gradio_app.explain import Settings
from gradio_app.grid import Tile, picture_grid, render_pager, render_tiles, result_tiles
from gradio_app.remote_image import RemoteImageError, fetch_image
from gradio_app.tabs.compare import compare_tab
from gradio_app.tabs.evaluate import evaluate_tab
from gradio_app.tabs.explain import Question, explain_tab
from gradio_app.thumbs import picture_routes, to_jpeg

logger = logging.getLogger(__name__)

COLLECTIONS = Path("collections")
STATIC = Path(__file__).parent / "static"
ENGINE_NAMES = {"ivfpq": "IVFPQ (ours)", "faiss": "faiss", "exact": "exact"}
MAX_RESULTS = 50
RESULTS = 20
EXAMPLES = 12
PAGE_SIZE = 60
PREVIEW_SIDE = 800  # pixels; what the browser shows of the query, while the search reads the picture itself
UPLOAD_LIMIT = "25mb"
DAY = 24 * 60 * 60

# On a small screen the results lie below the controls, and after "Search with this" they may lie above.
SHOW_RESULTS = """() => {
  const found = document.querySelector('#ris-found'), top = found.getBoundingClientRect().top;
  if (top < 0 || top > 0.6 * innerHeight) found.scrollIntoView({ behavior: 'smooth', block: 'start' });
}"""

Engines = Mapping[str, SearchEngine] | Iterable[SearchEngine]


@dataclass(frozen=True)
class Query:
    """A picture to search with, as one visitor's session keeps it."""

    token: str  # tells this choice of a picture from any other, so that a crop box cannot land on the wrong one
    path: Path
    name: str
    width: int
    height: int
    preview: str  # data URI
    box: Box | None = None

    @classmethod
    def open(cls, path: Path, name: str) -> Query:
        pixels = _decode(path, name)
        height, width = pixels.shape[:2]
        return cls(secrets.token_hex(8), path, name, width, height, _data_uri(pixels, PREVIEW_SIDE))

    def pixels(self) -> np.ndarray:
        """The part to search, uint8 (h, w, 3), at full resolution."""
        x0, y0, x1, y1 = self.box or (0, 0, self.width, self.height)
        return _decode(self.path, self.name)[y0:y1, x0:x1]


class SearchPage(gr.Blocks):
    """The page, with all it needs to be served. `launch()` it, or mount it beside other routes::

    gr.mount_gradio_app(fastapi_app, page, path="/", **page.server_options)
    """

    def __init__(self, engines: Mapping[str, SearchEngine]) -> None:
        super().__init__(
            title="Reverse image search",
            analytics_enabled=False,
            fill_width=True,
            # Uploads older than a day are deleted; Gradio looks every hour.
            delete_cache=(60 * 60, DAY),
        )
        self.server_options: dict[str, Any] = {
            "app_kwargs": {"routes": picture_routes(engines)},
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
        both = {**theirs, "routes": [*own["routes"], *theirs.get("routes", ())]}
        return super().launch(*args, **{**self.server_options, **kwargs, "app_kwargs": both})

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        # Whatever is shaped like a file with a web address Gradio would fetch for the caller, with none of the checks
        # and limits of remote_image.py. The page itself never sends one.
        if _names_remote_file(inputs):
            raise _sorry("Pictures from the web are opened through the address field only.")
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def build_app(engines: Engines) -> SearchPage:
    """The search page over one or more open collections.

    Parameters
    ----------
    engines : mapping of str to SearchEngine, or iterable of SearchEngine
        The first is shown first. Each goes by its own `name`.

    Returns
    -------
    gr.Blocks
        Call `launch()`.
    """
    opened = list(engines.values() if isinstance(engines, Mapping) else engines)
    by_name = {engine.name: engine for engine in opened}
    if not by_name:
        raise ValueError("build_app needs at least one collection, got none")
    if len(by_name) < len(opened):
        raise ValueError(f"collections need different names, got {', '.join(engine.name for engine in opened)}")
    first = next(iter(by_name.values()))

    page = SearchPage(by_name)
    with page:
        query, last = gr.State(None), gr.State(None)
        # What the box on the page is, filled in by the browser as it sends an event (READ_BOX).
        box = gr.Textbox(visible=False)

        with gr.Row(elem_id="ris-head"):
            gr.HTML(
                "<h1>Reverse image search</h1><p>Choose a picture, or drag a box around a part of it, "
                "and see what looks most like it.</p>",
                apply_default_css=False,
            )
            collection = gr.Dropdown(
                [(f"{name} · {_count(engine)}", name) for name, engine in by_name.items()],
                value=first.name,
                label="Collection",
                container=False,
                elem_id="ris-collection",
                scale=0,
                min_width=240,
                filterable=len(by_name) > 8,
            )

        with gr.Tabs(elem_id="ris-tabs") as tabs:
            with gr.Tab("Search", id="search"), gr.Row(elem_id="ris-search"):
                with gr.Column(elem_id="ris-query", scale=0, min_width=340):
                    gr.HTML("<h2>To search</h2>", apply_default_css=False)
                    picture = crop_overlay(value="", elem_id="ris-picture")
                    start = gr.Button("Search", variant="primary", size="lg", elem_id="ris-start")
                    upload = gr.Image(
                        type="filepath",
                        sources=["upload", "webcam", "clipboard"],
                        show_label=False,
                        height="auto",
                        elem_id="ris-upload",
                        placeholder="Drop a picture here, paste one, or click to choose",
                    )
                    with gr.Row(elem_id="ris-address"):
                        address = gr.Textbox(
                            placeholder="or paste a web address: https://…",
                            label="Address of a picture on the web",
                            show_label=False,
                            container=False,
                            max_lines=1,
                            scale=1,
                            min_width=120,
                            elem_id="ris-url",
                        )
                        fetch = gr.Button("Open", scale=0, min_width=72, elem_id="ris-fetch")
                    gr.HTML("<h3>Or try one of these</h3>", apply_default_css=False)
                    examples = picture_grid(value=_examples(first), elem_id="ris-examples")
                    gr.HTML("<h3>How to search</h3>", apply_default_css=False)
                    count = gr.Slider(1, MAX_RESULTS, RESULTS, step=1, label="Number of results", elem_id="ris-count")
                    engine_choice = gr.Radio(**_engine_options(first), label="Index", elem_id="ris-engine")
                    nprobe = gr.Slider(**_nprobe_options(first), step=1, elem_id="ris-nprobe")
                with gr.Column(elem_id="ris-found", scale=1, min_width=280):
                    with gr.Row(elem_id="ris-last-row"):
                        last_view = gr.HTML(_last_view(None), apply_default_css=False, elem_id="ris-last")
                        with gr.Row(elem_id="ris-copies"):
                            again = gr.Button("← Copy to search", size="sm", elem_id="ris-again", scale=0, min_width=0)
                            keep = gr.Button("→ Copy from search", size="sm", elem_id="ris-keep", scale=0, min_width=0)
                            swap = gr.Button("⇄ Swap", size="sm", elem_id="ris-swap", scale=0, min_width=0)
                    status = gr.HTML(_hint(), apply_default_css=False, elem_id="ris-status")
                    results = picture_grid(value="", elem_id="ris-results")
            with gr.Tab("Browse the collection", id="gallery"):
                gallery = picture_grid(value=_gallery(first, 1), elem_id="ris-gallery")
            compare_tab(by_name, collection, [query, last, box], _to_compare)
            explain_tab(by_name, collection, [query, last, count, engine_choice, nprobe, box], _to_explain)
            evaluate_tab(by_name, collection)

        def on_upload(uploaded: Mapping[str, Any] | None) -> Any:
            if not uploaded or not uploaded.get("path"):  # the source was switched
                return gr.skip(), gr.skip(), gr.skip()
            path = Path(uploaded["path"]).resolve()
            if not path.is_relative_to(Path(upload.GRADIO_CACHE).resolve()):
                raise _sorry("This is not an uploaded picture.")
            chosen = Query.open(path, uploaded.get("orig_name") or "picture")
            return chosen, _picture(chosen), None

        def on_address(url: str) -> Any:
            if not url.strip():
                raise _sorry("Type the address of a picture first, such as https://example.org/picture.jpg.")
            try:
                content = fetch_image(url)
            except RemoteImageError as error:
                raise _sorry(str(error)) from error
            name = Path(url.split("?")[0].split("#")[0]).name or "picture"
            path = save_bytes_to_cache(content, "picture.img", upload.GRADIO_CACHE)
            upload.temp_files.add(path)  # so that it is deleted after a day, like an upload
            chosen = Query.open(Path(path), name)
            return chosen, _picture(chosen), ""

        def on_pick(event: gr.EventData) -> Any:
            engine = by_name.get(str(getattr(event, "collection", None)))
            image_id = getattr(event, "id", None)
            if engine is None or type(image_id) is not int or not 0 <= image_id < len(engine.store.items):
                raise _sorry("This picture is no longer in the collection. Reload the page.")
            path = engine.store.items[image_id].path
            chosen = Query.open(path, path.name)
            return chosen, _picture(chosen), gr.Tabs(selected="search")

        def on_search(
            name: str, chosen: Query | None, drawn: str, k: float, engine_key: str, lists: float | None
        ) -> Any:
            if chosen is None:
                raise _sorry("Choose a picture to search with first.")
            chosen = _with_box(chosen, drawn)
            engine = by_name[name]
            hits = _search(engine, chosen, int(k), engine_key, None if lists is None else int(lists))
            lists = None if engine_key == "exact" or engine.nlist is None else lists
            return (
                render_tiles(engine, result_tiles(hits), kind="results"),
                _status(engine, hits, engine_key, lists),
                chosen,
                _last_view(chosen),
            )

        def on_again(kept: Query | None) -> Any:
            if kept is None:
                raise _sorry("Nothing has been searched yet.")
            kept = replace(kept, token=secrets.token_hex(8))
            return kept, _picture(kept)

        def on_keep(chosen: Query | None, drawn: str) -> Any:
            if chosen is None:
                raise _sorry("There is no picture to search yet.")
            chosen = _with_box(chosen, drawn)
            return chosen, _last_view(chosen)

        def on_swap(chosen: Query | None, drawn: str, kept: Query | None) -> Any:
            chosen = None if chosen is None else _with_box(chosen, drawn)
            kept = None if kept is None else replace(kept, token=secrets.token_hex(8))
            return kept, _picture(kept), chosen, _last_view(chosen)

        def on_collection(name: str) -> Any:
            engine = by_name[name]
            return (
                _examples(engine),
                _gallery(engine, 1),
                gr.Radio(**_engine_options(engine)),
                gr.Slider(**_nprobe_options(engine)),
                "",
                _hint(),
            )

        def on_engine(name: str, engine_key: str) -> Any:
            return gr.Slider(visible=(by_name[name].nlist or 1) > 1 and engine_key != "exact")

        def on_page(name: str, event: gr.EventData) -> str:
            number = getattr(event, "page", 1)
            return _gallery(by_name[name], number if type(number) is int else 1)

        # always_last: of clicks that come faster than answers the last one counts. By default it would be dropped.
        quiet: Any = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
        # preprocess=False: the file as it is, same bytes and same content hash. gr.Image would decode and re-encode it.
        upload.input(on_upload, upload, [query, picture, upload], preprocess=False, **quiet)
        gr.on(
            [address.submit, fetch.click],
            on_address,
            address,
            [query, picture, address],
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=picture,
        )
        picture.remove(lambda: (None, ""), None, [query, picture], **quiet)
        # Every search is sent like this: from the button, and after "Search with this" on a result or in the gallery.
        search: Any = {
            "fn": on_search,
            "inputs": [collection, query, box, count, engine_choice, nprobe],
            "outputs": [results, status, last, last_view],
            "js": f"(name, query, box, ...rest) => [name, query, {READ_BOX}, ...rest]",
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": status,
            "trigger_mode": "always_last",
        }
        examples.pick(on_pick, None, [query, picture, tabs], **quiet)
        searches: list[dict[str, Any]] = [start.click(**search)]
        for grid in (results, gallery):
            searches.append(grid.pick(on_pick, None, [query, picture, tabs], **quiet).success(**search))
        for searching in searches:
            searching.success(None, js=SHOW_RESULTS)  # type: ignore[attr-defined]
        again.click(on_again, last, [query, picture], **quiet)
        keep.click(on_keep, [query, box], [last, last_view], js=f"(query, box) => [query, {READ_BOX}]", **quiet)
        swap.click(
            on_swap,
            [query, box, last],
            [query, picture, last, last_view],
            js=f"(query, box, last) => [query, {READ_BOX}, last]",
            **quiet,
        )
        # A search still under way belongs to the collection that was left: its results must not arrive.
        collection.change(
            on_collection,
            collection,
            [examples, gallery, engine_choice, nprobe, results, status],
            cancels=searches,
            **quiet,
        )
        engine_choice.change(on_engine, [collection, engine_choice], nprobe, **quiet)
        gallery.turn(on_page, collection, gallery, **quiet)

        # Searches of different visitors run side by side; the engines are safe for that.
        page.queue(default_concurrency_limit=16)
    return page


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


def _search(engine: SearchEngine, query: Query, k: int, engine_key: str, nprobe: int | None) -> Hits:
    # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
    source = query.path if query.box is None else query.pixels()
    try:
        return engine.search(source, k, nprobe=nprobe, engine=engine_key)
    except FileNotFoundError as error:
        raise _gone(query.name) from error
    except (EngineError, EncoderError, ImageError) as error:
        raise _sorry(str(error)) from error


def _decode(path: Path, name: str) -> np.ndarray:
    if not path.is_file():
        raise _gone(name)
    try:
        return decode_image(path)
    except ImageError as error:
        raise _sorry(f"{name} cannot be read as a picture.") from error


def _sorry(sentence: str) -> gr.Error:
    """Gradio shows the message as HTML, and it may quote a file name or a web address."""
    return gr.Error(escape(sentence), print_exception=False)


def _gone(name: str) -> gr.Error:
    return _sorry(f"{name} is no longer on the server. Choose the picture again.")


def _names_remote_file(data: Any) -> bool:
    if isinstance(data, Mapping):
        path = data.get("path")
        return (isinstance(path, str) and is_http_url_like(path.strip())) or any(map(_names_remote_file, data.values()))
    return isinstance(data, list | tuple) and any(map(_names_remote_file, data))


def _with_box(query: Query, drawn: str | None) -> Query:
    return replace(query, box=parse_box(drawn or "", query.token, query.width, query.height))


def _to_compare(chosen: Query | None, last: Query | None, drawn: str | None) -> Query | None:
    """The picture to search, or else the last searched."""
    return last if chosen is None else _with_box(chosen, drawn)


def _to_explain(
    chosen: Query | None, last: Query | None, k: float, engine: str, nprobe: float | None, drawn: str | None
) -> Question | None:
    """The last search, or else one with the picture to search."""
    subject = last or _to_compare(chosen, last, drawn)
    return None if subject is None else Question(subject, Settings(engine, int(k), int(nprobe or 1)))


def _data_uri(pixels: np.ndarray, side: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(Image.fromarray(pixels), side)).decode()


def _count(engine: SearchEngine) -> str:
    return f"{len(engine.store.ids):,} pictures"


def _picture(query: Query | None) -> str:
    if query is None:
        return ""
    return render(query.token, query.preview, query.name, query.width, query.height, query.box)


def _last_view(query: Query | None) -> str:
    if query is None:
        return '<div class="ris-last"><span class="ris-none"></span><p><b>Last searched</b>Nothing yet</p></div>'
    src = query.preview if query.box is None else _data_uri(query.pixels(), PREVIEW_SIDE // 2)
    part = (
        "whole picture"
        if query.box is None
        else f"{query.box[2] - query.box[0]} × {query.box[3] - query.box[1]} px of it"
    )
    return (
        f'<div class="ris-last"><img src="{src}" alt="Last searched: {escape(query.name)}">'
        f"<p><b>Last searched</b><span>{escape(query.name)}</span>{part}</p></div>"
    )


def _hint() -> str:
    return (
        '<div class="ris-hint"><p>Results appear here.</p><ol><li>Choose a picture, or click an example.</li>'
        "<li>To search with a part of it, drag a box on it.</li><li>Press Search.</li></ol></div>"
    )


def _status(engine: SearchEngine, hits: Hits, engine_key: str, nprobe: float | None) -> str:
    found = f"{len(hits)} nearest of {_count(engine)}" if hits else "Nothing found"
    how = (
        ENGINE_NAMES[engine_key]
        if nprobe is None
        else (f"{ENGINE_NAMES[engine_key]}, {int(nprobe)} of {engine.nlist} lists visited")
    )
    itself = "" if hits.own_id is None else " · the picture itself is one of them and left out"
    return (
        f'<p class="ris-status" role="status"><b>{found}</b> in {escape(engine.name)} · {how} · '
        f"picture to vector {_ms(hits.encode_ms)}, search {_ms(hits.search_ms)}{itself}</p>"
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def _examples(engine: SearchEngine) -> str:
    """A few pictures from all over the collection."""
    ids = engine.store.ids
    picks = ids[np.unique(np.linspace(0, len(ids), EXAMPLES, endpoint=False).astype(int))] if len(ids) else ids
    return render_tiles(engine, [Tile(int(i)) for i in picks], kind="examples")


def _gallery(engine: SearchEngine, page: int) -> str:
    ids = engine.store.ids
    pages = max(1, math.ceil(len(ids) / PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = ids[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    pager = render_pager(page, pages)
    return (
        f'<div class="ris-gallery-head"><p><b>{escape(engine.name)}</b> · {_count(engine)}</p>{pager}</div>'
        f"{render_tiles(engine, [Tile(int(i)) for i in shown], kind='gallery')}"
    )


def _engine_options(engine: SearchEngine) -> dict[str, Any]:
    return {"choices": [(ENGINE_NAMES[key], key) for key in engine.engines], "value": engine.engines[0]}


def _nprobe_options(engine: SearchEngine) -> dict[str, Any]:
    nlist = engine.nlist
    return {
        "minimum": 1,
        "maximum": max(nlist or 0, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist or 1),
        "label": f"Lists to visit, of {nlist} (nprobe)",
        "info": "More find more, and take longer",
        "visible": (nlist or 1) > 1 and engine.engines[0] != "exact",
    }


class UsageError(Exception):
    """Something the person at the command line can put right; the message is all they see."""


def open_collections(names: Sequence[str] | None, folder: Path = COLLECTIONS) -> dict[str, SearchEngine]:
    """Open collections by name, or all there are.

    Raises
    ------
    UsageError
        If one does not exist or cannot be opened, or there are none.
    """
    there = sorted(manifest.parent.name for manifest in folder.glob("*/manifest.json"))
    make = "python gradio_app/create_index.py --data demo"
    if not there:
        raise UsageError(f"there is no collection in {folder}/ yet; make one first: {make}")
    for name in names or ():
        if name not in there:
            raise UsageError(
                f"there is no collection {name!r}; there are: {', '.join(there)}. "
                f"Another is made with: {make.replace('demo', 'caltech|voc|demo|PATH')}"
            )
    engines = {}
    for name in dict.fromkeys(names or there):
        try:
            engines[name] = SearchEngine.open(folder / name)
        except (EngineError, StoreError) as error:
            raise UsageError(f"collection {name!r} cannot be opened: {error}") from error
    return engines


def check_port(host: str, port: int) -> None:
    """Raise `UsageError` unless a server can listen there."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: no such address") from error
    except PermissionError as error:
        raise UsageError(f"port {port} may not be used by ordinary users; choose one above 1023 with --port") from error
    except OSError as error:
        raise UsageError(
            f"port {port} on {host} is in use; choose another with --port, e.g. --port {port + 1}"
        ) from error


def _credentials(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise argparse.ArgumentTypeError("wants USER:PASS, both not empty")
    return user.strip(), password


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"wants a port from 1 to 65535, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="app.py", description="Search collections of pictures in the browser.")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="collections to offer (default: all)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument("--auth", type=_credentials, metavar="USER:PASS", help="ask visitors to log in")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        check_port(args.host, args.port)
        engines = open_collections(args.data)
        page = build_app(engines)
    except UsageError as error:
        parser.exit(1, f"app.py: {error}\n")
    threading.Thread(target=_load_encoders, args=(list(engines.values()),), daemon=True).start()
    page.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        auth=args.auth,
        prevent_thread_lock=True,
        quiet=True,
    )
    sys.stdout.write(f"Searching {', '.join(engines)} at {page.local_url}  (Ctrl-C stops it)\n")
    if args.share:
        sys.stdout.write(f"Public link: {page.share_url}\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def _load_encoders(engines: Sequence[SearchEngine]) -> None:
    """Loading takes seconds; better while the page opens than at the first search."""
    for engine in engines:
        try:
            engine.encoder  # noqa: B018
        except EncoderError as error:
            logger.warning("%s can only be browsed: %s", engine.name, error)


if __name__ == "__main__":
    sys.exit(main())
