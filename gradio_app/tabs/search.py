"""The tab to search in: a picture comes in and is cropped, the most similar ones of the collection come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.crop import GO, READ_BOX, crop_overlay, render
from gradio_app.engine import EngineError, Hits, SearchEngine
from gradio_app.grid import Tile, picture_grid, render_tiles, result_tiles
from gradio_app.library import Library
from gradio_app.page import QUIET, Shared, engine_of, sorry
from gradio_app.remote_image import RemoteImageError, fetch_image
from gradio_app.visit import Query, Visit, gone

ENGINE_NAMES = {"ivfpq": "IVFPQ (ours)", "faiss": "faiss", "exact": "exact"}
MAX_RESULTS = 50
RESULTS = 20
EXAMPLES = 12

# On a small screen the results lie below the controls, and after "Search with this" they may lie above.
SHOW_RESULTS = """() => {
  const found = document.querySelector('#ris-found'), top = found.getBoundingClientRect().top;
  if (top < 0 || top > 0.6 * innerHeight) found.scrollIntoView({ behavior: 'smooth', block: 'start' });
}"""


@dataclass(frozen=True)
class SearchTab:
    """What other tabs may need of this one.

    Attributes
    ----------
    results : gr.HTML
        The grid of what was found.
    take : callable
        Binds a grid to the search: a picture picked there becomes the query and is searched.
    """

    results: gr.HTML
    take: Any


def search_tab(library: Library, shared: Shared) -> SearchTab:
    """Build the tab's content and wire it."""
    first = next(iter(library.values()))
    collection, visit = shared.collection, shared.visit
    # What the box on the page is, filled in by the browser as it sends an event (READ_BOX).
    box = gr.Textbox(visible=False)

    with gr.Row(elem_id="ris-search"):
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

    def on_upload(visit: Visit, uploaded: Mapping[str, Any] | None) -> Any:
        if not uploaded or not uploaded.get("path"):  # the source was switched
            return gr.skip(), gr.skip()
        path = Path(uploaded["path"]).resolve()
        if not path.is_relative_to(Path(upload.GRADIO_CACHE).resolve()):
            raise sorry("This is not an uploaded picture.")
        visit.query = Query.open(path, uploaded.get("orig_name") or "picture")
        return _picture(visit.query), None

    def on_address(visit: Visit, url: str) -> Any:
        if not url.strip():
            raise sorry("Type the address of a picture first, such as https://example.org/picture.jpg.")
        try:
            content = fetch_image(url)
        except RemoteImageError as error:
            raise sorry(str(error)) from error
        name = Path(url.split("?")[0].split("#")[0]).name or "picture"
        path = save_bytes_to_cache(content, "picture.img", upload.GRADIO_CACHE)
        upload.temp_files.add(path)  # so that it is deleted after a day, like an upload
        visit.query = Query.open(Path(path), name)
        return _picture(visit.query), ""

    def on_pick(visit: Visit, event: gr.EventData) -> Any:
        query = _picked(event)
        visit.query = query
        return _picture(query), gr.Tabs(selected="search")

    def on_take(visit: Visit, event: gr.EventData) -> Any:
        query = _picked(event)
        visit.query = query
        return _picture(query, go=True), gr.Tabs(selected="search")

    def _picked(event: gr.EventData) -> Query:
        engine = library.get(str(getattr(event, "collection", None)))
        image_id = getattr(event, "id", None)
        if engine is None or type(image_id) is not int or not 0 <= image_id < len(engine.store.items):
            raise sorry("This picture is no longer in the collection. Reload the page.")
        path = engine.store.items[image_id].path
        return Query.open(path, path.name)

    def on_search(visit: Visit, name: str, drawn: str, k: float, engine_key: str, lists: float | None) -> Any:
        query = visit.crop(drawn)
        if query is None:
            raise sorry("Choose a picture to search with first.")
        engine = engine_of(library, name)
        hits = _search(engine, query, int(k), engine_key, None if lists is None else int(lists))
        lists = None if engine_key == "exact" or engine.nlist is None else lists
        visit.last = query
        return (
            render_tiles(engine, result_tiles(hits), kind="results"),
            _status(engine, hits, engine_key, lists),
            _last_view(query),
        )

    def on_remove(visit: Visit) -> str:
        visit.query = None
        return ""

    def on_again(visit: Visit) -> str:
        if visit.last is None:
            raise sorry("Nothing has been searched yet.")
        visit.query = visit.last.again()
        return _picture(visit.query)

    def on_keep(visit: Visit, drawn: str) -> str:
        query = visit.crop(drawn)
        if query is None:
            raise sorry("There is no picture to search yet.")
        visit.last = query
        return _last_view(query)

    def on_swap(visit: Visit, drawn: str) -> Any:
        query = visit.crop(drawn)
        visit.query, visit.last = None if visit.last is None else visit.last.again(), query
        return _picture(visit.query), _last_view(query)

    def on_collection(name: str) -> Any:
        engine = engine_of(library, name)
        return (
            _examples(engine),
            gr.Radio(**_engine_options(engine)),
            gr.Slider(**_nprobe_options(engine)),
            "",
            _hint(),
        )

    def on_engine(name: str, engine_key: str) -> Any:
        return gr.Slider(visible=(engine_of(library, name).nlist or 1) > 1 and engine_key != "exact")

    # preprocess=False: the file as it is, same bytes and same content hash. gr.Image would decode and re-encode it.
    upload.input(on_upload, [visit, upload], [picture, upload], preprocess=False, **QUIET)
    gr.on(
        [address.submit, fetch.click],
        on_address,
        [visit, address],
        [picture, address],
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=picture,
    )
    picture.remove(on_remove, visit, picture, **QUIET)
    # The one listener that searches: two could run at once for the same visitor, and the older answer arrive last.
    searching = picture.go(
        on_search,
        [visit, collection, box, count, engine_choice, nprobe],
        [results, status, last_view],
        js=f"(visit, name, box, ...rest) => [visit, name, {READ_BOX}, ...rest]",
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=status,
        trigger_mode="always_last",
    )
    start.click(None, js=GO)
    searching.success(None, js=SHOW_RESULTS)

    def take(grid: gr.HTML) -> None:
        grid.pick(on_take, visit, [picture, shared.tabs], **QUIET)

    examples.pick(on_pick, visit, [picture, shared.tabs], **QUIET)
    take(results)
    again.click(on_again, visit, picture, **QUIET)
    keep.click(on_keep, [visit, box], last_view, js=f"(visit, box) => [visit, {READ_BOX}]", **QUIET)
    swap.click(on_swap, [visit, box], [picture, last_view], js=f"(visit, box) => [visit, {READ_BOX}]", **QUIET)
    # A search still under way belongs to the collection that was left: its results must not arrive.
    collection.change(
        on_collection,
        collection,
        [examples, engine_choice, nprobe, results, status],
        cancels=searching,
        **QUIET,
    )
    engine_choice.change(on_engine, [collection, engine_choice], nprobe, **QUIET)
    return SearchTab(results, take)


def _search(engine: SearchEngine, query: Query, k: int, engine_key: str, nprobe: int | None) -> Hits:
    # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
    source = query.path if query.box is None else query.pixels()
    try:
        return engine.search(source, k, nprobe=nprobe, engine=engine_key)
    except FileNotFoundError as error:
        raise gone(query.name) from error
    except (EngineError, EncoderError, ImageError) as error:
        raise sorry(str(error)) from error


def _count(engine: SearchEngine) -> str:
    return f"{len(engine.store.ids):,} pictures"


def _picture(query: Query | None, *, go: bool = False) -> str:
    if query is None:
        return ""
    return render(query.token, query.preview(), query.name, query.width, query.height, query.box, go=go)


def _last_view(query: Query | None) -> str:
    if query is None:
        return '<div class="ris-last"><span class="ris-none"></span><p><b>Last searched</b>Nothing yet</p></div>'
    part = (
        "whole picture"
        if query.box is None
        else f"{query.box[2] - query.box[0]} × {query.box[3] - query.box[1]} px of it"
    )
    return (
        f'<div class="ris-last"><img src="{query.thumbnail()}" alt="Last searched: {escape(query.name)}">'
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
