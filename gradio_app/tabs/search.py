"""The tab to search in: a picture comes in and is cropped, the most similar ones of the collection come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.crop import CHANGED, GO, OPEN, OPENED, READ_BOX, crop_overlay, render
from gradio_app.grid import Tile, picture_grid, render_tiles, result_tiles
from gradio_app.library import Library
from gradio_app.page import AFTER_ERROR, UNQUEUED, Shared, engine_of, sorry
from gradio_app.remote_image import RemoteImageError, fetch_image
from gradio_app.session import Query, Request, Result, Session, gone
from search.engine import SearchEngine
from search.errors import EngineError
from search.hits import Answer

ENGINE_NAMES = {"ivfpq": "IVFPQ (ours)", "faiss": "faiss", "exact": "exact"}
MAX_RESULTS = 50  # a page
MAX_SHOWN = 500  # all pages together
RESULTS = 20
EXAMPLES = 12
SORTS = [("Most similar first", "score"), ("By file name", "name")]

# On a small screen the results lie below the controls, and after "Search with this" they may lie above.
SHOW_RESULTS = """() => {
  const found = document.querySelector('#ris-found'), top = found.getBoundingClientRect().top;
  if (top < 0 || top > 0.6 * innerHeight) found.scrollIntoView({ behavior: 'smooth', block: 'start' });
}"""
SHOW_PICTURE = "() => document.querySelector('#ris-query').scrollIntoView({ behavior: 'smooth', block: 'start' })"


@dataclass(frozen=True)
class SearchTab:
    """What other tabs may need of this one.

    Attributes
    ----------
    results : gr.HTML
        The grid of what was found.
    take : callable
        Binds a grid to the search: a picture picked there becomes the query and is searched.
    box : gr.Textbox
        An input for listeners whose `js` puts `crop.READ_BOX` in its place.
    """

    results: gr.HTML
    take: Callable[[gr.HTML], None]
    box: gr.Textbox


def search_tab(library: Library, shared: Shared) -> SearchTab:
    """Build the tab's content and wire it."""
    first = library.first()
    collection, session = shared.collection, shared.session
    # What the box on the page is, filled in by the browser as it sends an event (READ_BOX).
    box = gr.Textbox(visible=False, elem_id="ris-box")

    with gr.Row(elem_id="ris-search"):
        with gr.Column(elem_id="ris-query", scale=0, min_width=340):
            gr.HTML("<h2>To search</h2>", apply_default_css=False)
            picture = crop_overlay(value="", elem_id="ris-picture")
            with gr.Row(elem_id="ris-go"):
                start = gr.Button("Search", variant="primary", size="lg", elem_id="ris-start")
                auto = gr.Checkbox(False, label="Search as you go", container=False, elem_id="ris-auto", min_width=0)
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
            with gr.Accordion("How to search", open=False, elem_id="ris-settings"):
                count = gr.Slider(1, MAX_RESULTS, RESULTS, step=1, label="Number of results", elem_id="ris-count")
                cutoff = gr.Textbox(**_cutoff_options(first), max_lines=1, elem_id="ris-cutoff")
                engine_choice = gr.Radio(**_engine_options(first), label="Index", elem_id="ris-engine")
                nprobe = gr.Slider(**_nprobe_options(first), step=1, elem_id="ris-nprobe")
                rerank = gr.Checkbox(
                    False,
                    **_rerank_options(first),
                    label="Re-rank",
                    info="Order the best again by their stored vectors",
                    elem_id="ris-rerank",
                )
        with gr.Column(elem_id="ris-found", scale=1, min_width=280):
            with gr.Row(elem_id="ris-last-row"):
                last_view = gr.HTML(_last_view(None), apply_default_css=False, elem_id="ris-last")
                with gr.Row(elem_id="ris-copies"):
                    again = gr.Button("← Copy to search", size="sm", elem_id="ris-again", scale=0, min_width=0)
                    keep = gr.Button("→ Copy from search", size="sm", elem_id="ris-keep", scale=0, min_width=0)
                    swap = gr.Button("⇄ Swap", size="sm", elem_id="ris-swap", scale=0, min_width=0)
                recent = picture_grid(value="", elem_id="ris-recent")
            with gr.Row(elem_id="ris-refine"):
                status = gr.HTML(_hint(), apply_default_css=False, elem_id="ris-status")
                labels = gr.Dropdown(
                    **_label_options(first),
                    multiselect=True,
                    label="Only with these labels",
                    show_label=False,
                    container=False,
                    elem_id="ris-labels",
                    min_width=180,
                )
                sort = gr.Dropdown(
                    SORTS,
                    value="score",
                    label="Order of the results",
                    show_label=False,
                    container=False,
                    filterable=False,
                    elem_id="ris-sort",
                    min_width=120,
                )
            results = picture_grid(value="", elem_id="ris-results")

    def on_upload(session: Session, uploaded: Mapping[str, Any] | None) -> Any:
        if not uploaded or not uploaded.get("path"):  # the source was switched
            return gr.skip(), gr.skip()
        path = Path(uploaded["path"]).resolve()
        if not path.is_relative_to(Path(upload.GRADIO_CACHE).resolve()):
            raise sorry("This is not an uploaded picture.")
        query = session.query = Query.open(path, uploaded.get("orig_name") or "picture")
        return _picture(query), None

    def on_address(session: Session, event: gr.EventData) -> str:
        url = str(getattr(event, "url", None) or "")
        if not url.strip():
            raise sorry("Type the address of a picture first, such as https://example.org/picture.jpg.")
        try:
            content = fetch_image(url)
        except RemoteImageError as error:
            raise sorry(str(error)) from error
        name = Path(url.split("?")[0].split("#")[0]).name or "picture"
        path = save_bytes_to_cache(content, "picture.img", upload.GRADIO_CACHE)
        upload.temp_files.add(path)  # so that it is deleted after a day, like an upload
        query = session.query = Query.open(Path(path), name)
        return _picture(query)

    def on_example(session: Session, event: gr.EventData) -> str:
        query = session.query = _picked(library, event)
        return _picture(query)

    def on_pick(session: Session, event: gr.EventData) -> Any:
        query = session.query = _picked(library, event)
        return _picture(query, then="go"), gr.update(selected="search")

    def on_inside(session: Session, event: gr.EventData) -> Any:
        query = session.query = _picked(library, event).inside()
        return _picture(query, then="wait"), gr.update(selected="search")

    def on_recall(session: Session, event: gr.EventData) -> str:
        found = [query for query in session.recent if query.token == getattr(event, "token", None)]
        if not found:
            raise sorry("This query is no longer remembered.")
        query = session.query = found[0].again()
        return _picture(query)

    def on_remove(session: Session) -> str:
        session.query = None
        return ""

    def on_search(
        session: Session,
        drawn: str,
        name: str,
        k: float,
        engine_key: str,
        lists: float | None,
        again: bool,
        wanted: list[str] | None,
        worst: str,
        order: str,
    ) -> Any:
        query = session.crop(drawn)
        if query is None:
            raise sorry("Choose a picture to search with first.")
        engine = engine_of(library, name)
        approximate = engine_key != "exact"
        shown = min(max(int(k), 1), MAX_RESULTS)
        request = Request(
            collection=name,
            engine=engine_key,
            k=shown,
            page=shown,
            nprobe=max(int(lists), 1) if lists is not None and approximate and engine.nlist is not None else None,
            rerank=bool(again) and approximate,
            labels=tuple(wanted or ()),
            cutoff=_number(worst),
        )
        return respond(session, query, request, order)

    def on_refine(session: Session, wanted: list[str] | None, order: str) -> Any:
        if session.result is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        request = session.result.request
        return respond(
            session, session.result.query, replace(request, k=request.page, labels=tuple(wanted or ())), order
        )

    def on_more(session: Session, order: str) -> Any:
        if session.result is None:
            raise sorry("Nothing has been searched yet.")
        request = session.result.request
        return respond(
            session, session.result.query, replace(request, k=min(request.k + request.page, MAX_SHOWN)), order
        )

    def respond(session: Session, query: Query, request: Request, order: str) -> Any:
        turn = session.next_turn()
        engine = engine_of(library, request.collection)
        hits = _search(engine, query, request)
        more = len(hits) > request.k and request.k < MAX_SHOWN
        found = Result(engine, query, request, hits.first(request.k), more)
        if not session.keep(found, turn):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        return _results(found, order), _status(found), _last_view(query), _recent(session)

    def on_sort(session: Session, order: str) -> Any:
        return gr.skip() if session.result is None else _results(session.result, order)

    def on_again(session: Session) -> str:
        if session.last is None:
            raise sorry("Nothing has been searched yet.")
        query = session.query = session.last.again()
        return _picture(query)

    def on_keep(session: Session, drawn: str) -> str:
        query = session.crop(drawn)
        if query is None:
            raise sorry("There is no picture to search yet.")
        session.last = query
        return _last_view(query)

    def on_swap(session: Session, drawn: str) -> Any:
        last = session.crop(drawn)
        query = None if session.last is None else session.last.again()
        session.query, session.last = query, last
        return _picture(query), _last_view(last)

    def on_collection(session: Session, name: str) -> Any:
        session.next_turn()  # a search still under way belongs to the collection that was left
        session.result = None
        engine = library.get(name)
        return (
            _examples(engine),
            gr.update(**_engine_options(engine)),
            gr.update(**_nprobe_options(engine)),
            gr.update(**_rerank_options(engine)),
            gr.update(**_cutoff_options(engine)),
            gr.update(**_label_options(engine)),
            "",
            _hint(),
        )

    def on_changed(session: Session, name: str) -> Any:
        """Of a collection that was made anew under the same name, nothing may stay: the same id is another picture."""
        if session.result is None or session.result.engine is library.get(name):
            return (_examples(library.get(name)), *[gr.skip()] * 7)
        return on_collection(session, name)

    def on_engine(name: str, engine_key: str) -> Any:
        approximate = engine_key != "exact"
        has_lists = (engine_of(library, name).nlist or 1) > 1
        return gr.update(visible=has_lists and approximate), gr.update(visible=approximate)

    # UNQUEUED leaves the file as it is, same bytes and same content hash. Preprocessed, gr.Image would re-encode it.
    upload.input(on_upload, [session, upload], [picture, upload], **UNQUEUED)
    gr.on([address.submit, fetch.click], None, address, js=OPEN)
    opening = picture.open(
        on_address,
        session,
        picture,
        **{**UNQUEUED, "queue": True, "show_progress": "minimal", "show_progress_on": picture},
    )
    opening.success(None, address, address, js=OPENED)
    picked = examples.pick(on_example, session, picture, **UNQUEUED)
    recalled = recent.recall(on_recall, session, picture, **UNQUEUED)
    picture.remove(on_remove, session, picture, **UNQUEUED)

    # One listener for every way to ask for a search; static/crop.js knows them.
    searching: Any = {**UNQUEUED, "show_progress": "minimal", "show_progress_on": status}
    found = [results, status, last_view, recent]
    going = picture.go(
        on_search,
        [session, box, collection, count, engine_choice, nprobe, rerank, labels, cutoff, sort],
        found,
        js=f"(session, box, ...rest) => [session, {READ_BOX}, ...rest]",
        **searching,
    )
    going.success(None, js=SHOW_RESULTS)
    for asked in (opening, picked, recalled, going):
        asked.failure(None, js=AFTER_ERROR)
    start.click(None, js=GO)
    gr.on(
        [auto.input, count.release, nprobe.release, engine_choice.input, rerank.input, cutoff.submit, cutoff.blur],
        None,
        js=CHANGED,
    )
    labels.input(on_refine, [session, labels, sort], found, **searching)
    results.more(on_more, [session, sort], found, **searching)
    sort.input(on_sort, [session, sort], results, **UNQUEUED)

    def take(grid: gr.HTML) -> None:
        picked = grid.pick(on_pick, session, [picture, shared.tabs], **UNQUEUED)
        inside = grid.inside(on_inside, session, [picture, shared.tabs], **UNQUEUED)
        inside.success(None, js=SHOW_PICTURE)
        for asked in (picked, inside):
            asked.failure(None, js=AFTER_ERROR)

    take(results)
    again.click(on_again, session, picture, **UNQUEUED)
    keep.click(on_keep, [session, box], last_view, js=f"(session, box) => [session, {READ_BOX}]", **UNQUEUED)
    swap.click(on_swap, [session, box], [picture, last_view], js=f"(session, box) => [session, {READ_BOX}]", **UNQUEUED)
    of_collection = [examples, engine_choice, nprobe, rerank, cutoff, labels, results, status]
    collection.change(on_collection, [session, collection], of_collection, **UNQUEUED).success(None, js=CHANGED)
    shared.watch.changed(on_changed, [session, collection], of_collection, **UNQUEUED)
    # input, not change: that is sent when the accordion is opened too, and its answer would take back what is typed.
    engine_choice.input(on_engine, [collection, engine_choice], [nprobe, rerank], **UNQUEUED)
    return SearchTab(results, take, box)


def _picked(library: Library, event: gr.EventData) -> Query:
    engine = library.get(str(getattr(event, "collection", None)))
    image_id = getattr(event, "id", None)
    if (
        engine is None
        or type(image_id) is not int
        or not 0 <= image_id < len(engine.store.items)
        or engine.store.items[image_id].error is not None
    ):
        raise sorry("This picture is no longer in the collection. Reload the page.")
    path = engine.store.items[image_id].path
    return Query.open(path, path.name)


def _search(engine: SearchEngine, query: Query, request: Request) -> Answer:
    # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
    source = query.path if query.box is None else query.pixels()
    try:
        return engine.search(
            source,
            request.k + 1,  # to know whether there are more
            nprobe=request.nprobe,
            engine=request.engine,
            rerank=request.rerank,
            filter={"label": request.labels} if request.labels else None,
            cutoff=request.cutoff,
        )
    except FileNotFoundError as error:
        raise gone(query.name) from error
    except (EngineError, EncoderError, ImageError) as error:
        raise sorry(str(error)) from error


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text.replace(",", "."))
    except ValueError as error:
        raise sorry(f"The limit must be a number, such as 0.5, or empty; it is {text.strip()!r}.") from error
    return None if math.isnan(number) else number


def _picture(query: Query | None, *, then: str = "") -> str:
    if query is None:
        return ""
    return render(query.token, query.preview(), query.name, query.width, query.height, query.box, then=then)


def _last_view(query: Query | None) -> str:
    if query is None:
        return '<div class="ris-last"><span class="ris-none"></span><p><b>Last searched</b>Nothing yet</p></div>'
    return (
        f'<div class="ris-last"><img src="{query.thumbnail()}" alt="Last searched: {escape(query.name)}">'
        f"<p><b>Last searched</b><span>{escape(query.name)}</span>{_part(query)}</p></div>"
    )


def _part(query: Query) -> str:
    if query.box is None:
        return "whole picture"
    x0, y0, x1, y1 = query.box
    return f"{x1 - x0} × {y1 - y0} px of it"


def _recent(session: Session) -> str:
    """A strip of what was searched before, newest first; nothing as long as there is only one."""
    if len(session.recent) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" data-recent="{query.token}" title="{escape(query.name)}, {_part(query)}"'
        f' aria-label="Search again: {escape(query.name)}, {_part(query)}">'
        f'<img src="{query.thumbnail()}" alt=""></button>'
        for query in session.recent
    )
    return f'<div class="ris-recent" role="group" aria-label="Recent queries"><span>Recent</span>{buttons}</div>'


def _hint() -> str:
    return (
        '<div class="ris-hint"><p>Results appear here.</p><ol><li>Choose a picture, or click an example.</li>'
        "<li>To search with a part of it, drag a box on it.</li><li>Press Search.</li></ol></div>"
    )


def _results(result: Result, order: str) -> str:
    request = result.request
    hits = sorted(result.hits, key=lambda hit: (hit.path.name, hit.rank)) if order == "name" else result.hits
    more = (
        f'<button type="button" class="ris-more">Show {min(request.page, MAX_SHOWN - request.k)} more</button>'
        if result.more
        else ""
    )
    return render_tiles(result.engine, result_tiles(hits), kind="results") + more


def _status(result: Result) -> str:
    engine, hits, request = result.engine, result.hits, result.request
    of = f"{len(engine.store.ids):,} pictures in {escape(engine.name)}"
    found = f"<b>{len(hits)} nearest</b> of {of}" if hits else f"<b>Nothing found</b> in {of}"
    if not hits and (request.labels or request.cutoff is not None):
        found += ": fewer labels or a lower limit would show more"
    how = ENGINE_NAMES[request.engine]
    if request.nprobe is not None:
        how += f", {request.nprobe} of {engine.nlist} lists visited"
    times = [f"encode {_ms(hits.encode_ms)}", f"search {_ms(hits.search_ms)}"]
    if request.rerank:
        times.append(f"re-rank {_ms(hits.rerank_ms)}")
    itself = "" if hits.own_id is None else " · the picture itself is one of them and left out"
    return (
        f'<p class="ris-status" role="status">{found}{itself}'
        f'<span class="ris-how">{how} · {" · ".join(times)}</span></p>'
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def _examples(engine: SearchEngine | None) -> str:
    """A few pictures from all over the collection."""
    if engine is None:
        return ""
    ids = engine.store.ids
    picks = ids[np.unique(np.linspace(0, len(ids), EXAMPLES, endpoint=False).astype(int))] if len(ids) else ids
    return render_tiles(engine, [Tile(int(i)) for i in picks], kind="examples")


def _engine_options(engine: SearchEngine | None) -> dict[str, Any]:
    keys = engine.engines if engine else ("exact",)
    return {"choices": [(ENGINE_NAMES[key], key) for key in keys], "value": keys[0]}


def _nprobe_options(engine: SearchEngine | None) -> dict[str, Any]:
    nlist = engine.nlist if engine else None
    return {
        "minimum": 1,
        "maximum": max(nlist or 0, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist or 1) if engine else 1,
        "label": f"Lists to session, of {nlist} (nprobe)",
        "info": "More find more, and take longer",
        "visible": engine is not None and (nlist or 1) > 1 and engine.engines[0] != "exact",
    }


def _rerank_options(engine: SearchEngine | None) -> dict[str, Any]:
    return {"visible": engine is not None and engine.engines[0] != "exact"}


def _cutoff_options(engine: SearchEngine | None) -> dict[str, Any]:
    measure = "Distance of at most" if engine and engine.metric == "l2" else "Similarity of at least"
    return {"value": "", "label": measure, "placeholder": "any"}


def _label_options(engine: SearchEngine | None) -> dict[str, Any]:
    known = engine.labels if engine else {}
    return {
        "choices": [(f"{label} ({count})", label) for label, count in known.items()],
        "value": [],
        "visible": len(known) > 1,
    }
