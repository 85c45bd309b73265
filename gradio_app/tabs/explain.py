"""The Explain tab: why a picture was found, or was not, and the way the search took through the index."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from features.encoders import EncoderError
from features.images import ImageError, decode_image
from gradio_app.library import Library
from gradio_app.page import AFTER_ERROR, UNQUEUED, Shared, engine_of, sorry
from gradio_app.routes.pictures import picture_url, to_jpeg
from gradio_app.session import Query, Result, Session
from gradio_app.tabs.compare import MAX_K, RERANK, clickable, nprobe_slider
from gradio_app.tabs.controls import NO_PICTURE, QUEUED, SEND_BOX, ExplainRequest, ExplainState, about, encode, is_image
from gradio_app.tabs.search import ENGINE_NAMES
from search.engine import SearchEngine
from search.explain import (
    CellMap,
    Explanation,
    cell_map,
    explain,
    heat_map,
    map_methods,
    top_classes,
)
from search.hits import Hit
from search.options import SearchOptions

SIDE = 640  # pixels of a picture under its heat map
LIST_SHOWN = 24  # pictures of a list
METHODS = {"pca": "PCA", "umap": "UMAP"}

_INTRO = (
    "Choose a result to see why it was found: where it is like the query, what the network takes it for, and which way "
    "the search took through the index. Pictures that the search <b>lost</b> can be chosen too."
)
_MAP_NOTE = (
    "Each circle is a list of the index, at the place of its centroid; its area is the number of pictures in it. "
    "A search looks only into the <b>probed</b> lists, those nearest to the query. The map has 2 dimensions and the "
    "vectors have many, so what looks far apart here may be near."
)


def explain_tab(
    library: Library, shared: Shared, tab: gr.Tab, box: gr.Textbox, state: gr.State, results: gr.HTML
) -> None:
    """Build the tab's content and wire it.

    Parameters
    ----------
    tab : gr.Tab
        What is asked on the state, or else the last search, is explained when it is opened.
    box : gr.Textbox
        `SearchTab.box`.
    state : gr.State
        Holds a `ExplainState`.
    results : gr.HTML
        `SearchTab.results`; a picture there triggers `explain` (``{collection, id}``).
    """
    collection, session, first = shared.collection, shared.session, library.first()
    gr.HTML(f'<p class="ris-intro">{_INTRO}</p>', apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        subject = gr.HTML(about(None), apply_default_css=False, elem_id="ris-explain-about")
        engine_choice = gr.Radio(**_engine_radio(first), label="Index", elem_id="ris-explain-engine", min_width=220)
        k = gr.Slider(1, MAX_K, 10, step=1, label="Results (k)", elem_id="ris-explain-k", min_width=160)
        nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-explain-nprobe", min_width=160)
        rerank = gr.Checkbox(False, label="Re-rank", info=RERANK, elem_id="ris-explain-rerank", min_width=160)
    strip = clickable(elem_id="ris-strip")
    detail = gr.HTML("", apply_default_css=False, elem_id="ris-explain")
    with gr.Column(visible=False, elem_id="ris-map") as map_column:
        gr.HTML(f"<h3>The index as a map</h3><p class='ris-note'>{_MAP_NOTE}</p>", apply_default_css=False)
        method = gr.Radio(
            [(METHODS[key], key) for key in map_methods()],
            value="pca",
            label="Projection",
            visible=len(map_methods()) > 1,
            elem_id="ris-map-method",
        )
        plot = gr.Plot(show_label=False, container=False, elem_id="ris-map-plot")

    def respond(name: str, state: ExplainState, question: ExplainRequest | None, method: str) -> Any:
        state.shown = None
        if question is None:
            return about(None), "", "", gr.update(visible=False), None
        engine, options = question.engine, question.options
        if engine is not library.get(name):  # its ids may be other pictures by now
            raise sorry("The collection has changed. Search again.")
        vector, own_id = encode(engine, question.query)
        hits, lost = _found_and_lost(question, vector, own_id)
        id = question.id if question.id is not None else next((hit.id for hit in (*hits, *lost)), None)
        state.shown = replace(question, id=id)
        if id is None:
            return about(question.query), _nothing(), "", gr.update(visible=False), None
        explanation = explain(engine, vector, own_id, id, options, filter=question.filter)
        cells = cell_map(engine, vector, options, method=method)
        return (
            about(question.query),
            _strip(engine, hits, lost, id, question.labels),
            _detail(engine, question.query, vector, explanation),
            gr.update(visible=cells is not None),
            None if cells is None else _figure(cells, explanation),
        )

    def on_open(
        name: str, session: Session, state: ExplainState, key: str, k: float, nprobe: float, rerank: bool, drawn: str
    ) -> Any:
        if state.asked is None and session.result is not None and session.result is not state.result:
            state.result = session.result
            state.asked = _asked(session.result, int(nprobe))
        state.asked = state.asked or state.shown
        if state.asked is None and (query := session.crop(drawn) or session.last) is not None:
            options = SearchOptions(key, int(k), int(nprobe), bool(rerank))
            state.asked = ExplainRequest(engine_of(library, name), query, options)
        if state.asked is None:
            return about(None), key, k, nprobe, rerank
        options = state.asked.options
        return about(state.asked.query), options.engine, options.k, options.nprobe or nprobe, options.rerank

    def on_opened(name: str, state: ExplainState, method: str) -> Any:
        question, state.asked = state.asked or state.shown, None
        return respond(name, state, question, method)

    def on_change(name: str, state: ExplainState, method: str, key: str, k: float, nprobe: float, rerank: bool) -> Any:
        options = SearchOptions(key, int(k), int(nprobe), bool(rerank))
        return respond(name, state, replace(_shown(state), options=options), method)

    def on_explain(name: str, state: ExplainState, method: str, event: gr.EventData) -> Any:
        shown, id = _shown(state), getattr(event, "id", None)
        if not is_image(shown.engine, id):
            raise sorry(NO_PICTURE)
        return respond(name, state, replace(shown, id=id), method)

    def on_result(session: Session, state: ExplainState, nprobe: float, event: gr.EventData) -> Any:
        id = getattr(event, "id", None)
        if session.result is None or not is_image(session.result.engine, id):
            raise sorry("This picture is no longer among the results. Search again.")
        state.result = session.result
        state.asked = replace(_asked(session.result, int(nprobe)), id=id)
        return gr.update(selected="explain")

    def on_collection(name: str, state: ExplainState) -> Any:
        state.asked = state.result = None
        engine = library.get(name)
        return (
            gr.update(**_engine_radio(engine)),
            gr.update(**nprobe_slider(engine)),
            *respond(name, state, None, "pca"),
        )

    def on_changed(name: str, state: ExplainState) -> Any:
        if state.shown is None or state.shown.engine is library.get(name):
            return [gr.skip()] * 7
        return on_collection(name, state)

    controls = [engine_choice, k, nprobe, rerank]
    outputs = [subject, strip, detail, map_column, plot]
    # In two steps: the first explanation takes seconds, and meanwhile the tab should say what of.
    opening = tab.select(
        on_open, [collection, session, state, *controls, box], [subject, *controls], js=SEND_BOX, **UNQUEUED
    )
    opening.success(on_opened, [collection, state, method], outputs, **QUEUED, show_progress_on=strip)
    gr.on(
        [engine_choice.input, k.release, nprobe.release, rerank.input, method.input],
        on_change,
        [collection, state, method, *controls],
        outputs,
        **QUEUED,
        show_progress_on=strip,
    )
    explaining = strip.explain(on_explain, [collection, state, method], outputs, **QUEUED, show_progress_on=strip)
    asking = results.explain(on_result, [session, state, nprobe], shared.tabs, **UNQUEUED)
    for asked in (explaining, asking):
        asked.failure(None, js=AFTER_ERROR)
    collection.change(on_collection, [collection, state], [engine_choice, nprobe, *outputs], **UNQUEUED)
    shared.watch.changed(on_changed, [collection, state], [engine_choice, nprobe, *outputs], **UNQUEUED)


def _shown(state: ExplainState) -> ExplainRequest:
    if state.shown is None:
        raise sorry(NO_PICTURE)
    return state.shown


def _asked(result: Result, nprobe: int) -> ExplainRequest:
    """The question of what a search on the Search tab did."""
    request = result.request
    options = SearchOptions(request.engine, min(request.k, MAX_K), request.nprobe or nprobe, request.rerank)
    return ExplainRequest(result.engine, result.query, options, request.labels)


def _engine_radio(engine: SearchEngine | None) -> dict[str, Any]:
    keys = engine.engines if engine else ("exact",)
    return {"choices": [(ENGINE_NAMES[key], key) for key in keys], "value": keys[0]}


def _found_and_lost(
    question: ExplainRequest, vector: np.ndarray, own_id: int | None
) -> tuple[tuple[Hit, ...], tuple[Hit, ...]]:
    """What the search finds, and what exact search finds besides."""
    engine, exactly = question.engine, replace(question.options, engine="exact", rerank=False)
    answer = engine.search_vector(vector, question.options, own_id=own_id, filter=question.filter)
    truth = engine.search_vector(vector, exactly, own_id=own_id, filter=question.filter)
    return answer.hits, tuple(hit for hit in truth if hit.id not in answer.ids)


def _nothing() -> str:
    return '<p class="ris-note">The search found nothing.</p>'


def _strip(engine: SearchEngine, hits: Iterable[Hit], lost: Iterable[Hit], chosen: int, labels: Sequence[str]) -> str:
    def tiles(hits: Iterable[Hit], kind: str) -> str:
        made = []
        for hit in hits:
            title = escape(f"{hit.rank}. {', '.join(hit.labels) or hit.path.name}, {hit.score:.3f}")
            current = ' aria-current="true"' if hit.id == chosen else ""
            made.append(
                f'<li class="ris-mini ris-is-{kind}"><button type="button" data-explain="{hit.id}"{current} '
                f'title="{title}" aria-label="Explain {title}">'
                f'<img src="{escape(picture_url(engine, hit.id, "thumb"))}" alt=""></button>'
                f'<span class="ris-rank">{hit.rank}</span></li>'
            )
        return f'<ol class="ris-minis">{"".join(made)}</ol>'

    hits, lost = list(hits), list(lost)
    among = f" <small>among pictures labelled {escape(' or '.join(labels))}</small>" if labels else ""
    found = f"<section><h3>Found{among}</h3>{tiles(hits, 'found') if hits else _nothing()}</section>"
    if not lost:
        return f'<div class="ris-strip">{found}</div>'
    return (
        f'<div class="ris-strip">{found}<section><h3>Lost <small>exact search shows them, at these ranks</small></h3>'
        f"{tiles(lost, 'missed')}</section></div>"
    )


def _detail(engine: SearchEngine, query: Query, vector: np.ndarray, explanation: Explanation) -> str:
    kind = "lost" if explanation.lost else "found"
    return (
        f'<div class="ris-verdict ris-is-{kind}" role="status"><p>{escape(explanation.verdict)}</p>'
        f"<p>{_path_title(explanation)} {escape(str(explanation.path))}</p></div>"
        f"{_pictures(engine, query, vector, explanation)}{_index_facts(engine, explanation)}"
    )


def _path_title(explanation: Explanation) -> str:
    return "<b>The way through the index:</b>" if explanation.path.probed else "<b>No index:</b>"


def _pictures(engine: SearchEngine, query: Query, vector: np.ndarray, explanation: Explanation) -> str:
    """Query and hit, with where they match and what the classifier sees in them."""
    item = engine.store.items[explanation.id]
    stored = np.asarray(engine.store.features[explanation.id], dtype=np.float32)
    try:
        asked, hit = query.pixels(), decode_image(item.path, min_side=SIDE // 2)
        encoder = engine.encoder
    except (ImageError, EncoderError) as error:
        return f'<p class="ris-note">{escape(str(error))}</p>'
    label = ", ".join(item.labels) or item.path.name
    cards = []
    for title, pixels, own, other in (
        ("The query", asked, vector, stored),
        (f"{'The hit' if explanation.rank else 'The picture'}: {label}", hit, stored, vector),
    ):
        heat, box = heat_map(encoder, pixels, other)
        cards.append(
            f'<figure class="ris-card"><figcaption>{escape(title)}</figcaption>{_heated(pixels, heat, box)}'
            f"{_classes(top_classes(encoder, own))}</figure>"
        )
    return (
        '<h3>Where they match</h3><p class="ris-note">Bright places of one picture are those most like the other '
        "picture as a whole, as the network's last layer sees them. It looks at the square in the middle only; what is "
        "shaded it never sees.</p>"
        '<label class="ris-toggle"><input type="checkbox" class="ris-heat-on" checked> Show the heat</label>'
        f'<div class="ris-cards">{"".join(cards)}</div>'
    )


def _heated(pixels: np.ndarray, heat: np.ndarray, box: tuple[float, float, float, float]) -> str:
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    place = (
        f"left:{100 * left / width:.3f}%;top:{100 * top / height:.3f}%;"
        f"width:{100 * (right - left) / width:.3f}%;height:{100 * (bottom - top) / height:.3f}%"
    )
    return (
        f'<div class="ris-heated"><img src="{_data_uri(pixels)}" alt="">'
        f'<div class="ris-seen" style="{place}"><img src="{_heat_uri(heat)}" alt="Heat map of where it matches"></div>'
        "</div>"
    )


def _data_uri(pixels: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(Image.fromarray(pixels), SIDE)).decode()


def _heat_uri(heat: np.ndarray) -> str:
    """A heat map (h, w) of numbers from 0 to 1 as a picture that lets through what is under its cold places."""
    from matplotlib import colormaps

    smooth = np.asarray(Image.fromarray(heat).resize((224, 224), Image.Resampling.BICUBIC)).clip(0, 1)
    pixels = colormaps["inferno"](smooth)
    pixels[..., 3] = 0.35 + 0.35 * smooth
    buffer = io.BytesIO()
    Image.fromarray((255 * pixels).round().astype(np.uint8)).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _classes(classes: Iterable[tuple[str, float]]) -> str:
    rows = "".join(
        f'<li><span>{escape(name)}</span><meter min="0" max="1" value="{p:.4f}" aria-hidden="true"></meter>'
        f"<b>{100 * p:.1f} %</b></li>"
        for name, p in classes
    )
    return f'<p class="ris-note">The network\'s classifier sees</p><ul class="ris-classes">{rows}</ul>' if rows else ""


def _index_facts(engine: SearchEngine, explanation: Explanation) -> str:
    measure = "Similarity" if engine.metric != "l2" else "Distance"
    place = explanation.place
    exact = f"<dd>{explanation.exact_score:.4f} <small>rank {explanation.exact_rank}</small></dd>"
    if place is None:
        return f'<h3>In the index</h3><dl class="ris-facts"><dt>{measure}, exact</dt>{exact}</dl>'
    probed = "probed" if place.list_number in explanation.path.probed else "not probed"
    others = place.list_ids[place.list_ids != explanation.id]
    code = "".join(f'<span title="{byte}">{byte:02x}</span>' for byte in place.code)
    first = f": the first {LIST_SHOWN}" if len(others) > LIST_SHOWN else ""
    tiles = "".join(
        f'<li class="ris-mini"><img src="{escape(picture_url(engine, int(id), "thumb"))}" loading="lazy" '
        f'alt="{escape(", ".join(engine.store.items[id].labels))}"></li>'
        for id in others[:LIST_SHOWN]
    )
    return (
        '<h3>In the index</h3><dl class="ris-facts">'
        f"<dt>Inverted list</dt><dd>no. {place.list_number} <small>{_counted(len(place.list_ids))}</small></dd>"
        f"<dt>Its centroid</dt><dd>{_nearest(place.list_rank)} to the query <small>{probed}</small></dd>"
        f'<dt>Its code</dt><dd class="ris-code">{code} <small>{len(place.code)} bytes, in hexadecimal</small></dd>'
        f"<dt>{measure} by the code</dt><dd>{place.score:.4f} <small>rank {place.rank}</small></dd>"
        f"<dt>{measure}, exact</dt>{exact}</dl>"
        f'<p class="ris-note">The code and the centroid are all that the index keeps of a picture; re-ranking replaces '
        f"the estimate by the exact {measure.lower()}.</p>"
        f"<h3>Others in list {place.list_number} <small>{_counted(len(others))}{first}</small></h3>"
        f'<ol class="ris-minis ris-list">{tiles}</ol>'
    )


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures:,} pictures"


def _nearest(rank: int) -> str:
    return "the nearest" if rank == 1 else f"no. {rank} in nearness"


def _figure(cells: CellMap, explanation: Explanation) -> Any:
    """The map as a plotly figure; its colours show on light and on dark."""
    import plotly.graph_objects as go

    numbers = np.arange(len(cells.sizes))
    own = -1 if explanation.place is None else explanation.place.list_number
    probed = np.isin(numbers, cells.probed)
    scale = 2 * float(cells.sizes.max(initial=1)) / 34**2  # the largest list is 34 pixels wide
    figure = go.Figure()
    for title, chosen, colour in (("Lists", ~probed, "#94a3b8"), ("Probed lists", probed, "#6366f1")):
        figure.add_scatter(
            x=cells.points[chosen, 0].tolist(),
            y=cells.points[chosen, 1].tolist(),
            text=[f"List {n}: {_counted(cells.sizes[n])}" for n in numbers[chosen]],
            hoverinfo="text",
            mode="markers",
            name=title,
            marker={
                "size": cells.sizes[chosen].tolist(),
                "sizemode": "area",
                "sizeref": scale,
                "sizemin": 2,
                "color": colour,
                "opacity": 0.65,
                "line": {"width": 0},
            },
        )
    if own >= 0:
        figure.add_scatter(
            x=[float(cells.points[own, 0])],
            y=[float(cells.points[own, 1])],
            text=[f"List {own}, of the chosen picture"],
            hoverinfo="text",
            mode="markers",
            name="The picture's list",
            marker={"size": 30, "symbol": "circle-open", "color": "#f97316", "line": {"width": 3}},
        )
    figure.add_scatter(
        x=[float(cells.query[0])],
        y=[float(cells.query[1])],
        text=["The query"],
        hoverinfo="text",
        mode="markers",
        name="The query",
        marker={"size": 14, "symbol": "x", "color": "#f97316"},
    )
    hidden = {"visible": False, "zeroline": False}
    return figure.update_layout(
        height=440,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#808ba0", "size": 13},
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "itemsizing": "constant"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "remove": ["pan", "select", "lasso", "autoScale", "toImage"]},
        xaxis=hidden,
        yaxis=hidden,
        dragmode=False,  # a finger on it scrolls the page
    )
