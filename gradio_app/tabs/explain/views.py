"""What the Explain tab shows: HTML, and the map as a figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from features.encoders import EncoderError
from features.images import ImageError, decode_image
from gradio_app.grid import HUES
from gradio_app.markup import render
from gradio_app.routes.found import found_url
from gradio_app.routes.pictures import folder_of, picture_url, read_item, to_jpeg
from gradio_app.session import QueryPicture, Result
from gradio_app.typed import parts_of, way_called
from search.engine import SearchEngine
from search.explain import CellMap, Explanation, heat_map, top_classes
from search.explain.export import is_explainable
from search.filters import Filter
from search.hits import Hit
from search.neighbour_reasons import NeighbourReason
from search.options import SearchOptions
from search.reasons import PartReason
from search.words import ClassReason

SIDE = 640  # pixels of a picture under its heat map
LEAST_SHOWN = 0.0005  # probability of a class
LIST_SHOWN = 24  # pictures of a list


def nothing() -> str:
    return render("explain/nothing.html")


def strip(engine: SearchEngine, hits: Iterable[Hit], lost: Iterable[Hit], chosen: int, filter: Filter) -> str:
    """Small pictures of what was found and what was lost, of which one is chosen."""

    def tiles(hits: Iterable[Hit]) -> list[dict[str, Any]]:
        return [
            {
                "id": hit.id,
                "rank": hit.rank,
                "title": f"{hit.rank}. {', '.join(hit.labels) or hit.path.name}, {hit.score:.3f}",
                "thumb": picture_url(engine, hit.id, "thumb"),
            }
            for hit in hits
        ]

    only = "" if filter.where is None else str(filter)
    return render("explain/strip.html", found=tiles(hits), lost=tiles(lost), chosen=chosen, only=only)


def detail(
    engine: SearchEngine, query: QueryPicture, vector: np.ndarray, explanation: Explanation, options: SearchOptions
) -> str:
    """Why the chosen picture was found or lost: in words, in pictures, and in the figures of the index."""
    try:
        cards, problem = _cards(engine, query, vector, explanation), ""
    except (ImageError, EncoderError) as error:
        cards, problem = [], str(error)
    return render(
        "explain/detail.html",
        explanation=explanation,
        problem=problem,
        cards=cards,
        place=_place(engine, explanation),
        neighbours=_neighbours(engine, explanation.neighbours),
        measure="Similarity" if engine.metric != "l2" else "Distance",
        steps=found_url(engine, query, options) if is_explainable(engine, options) else "",
    )


def parts(engine: SearchEngine, result: Result, hit: Hit, reasons: Sequence[PartReason]) -> str:
    """What each part of a query gave to a hit, and of words why."""
    total = sum(max(reason.share, 0.0) for reason in reasons)
    names = parts_of(result)
    rows = [
        {
            "name": name,
            "hue": place % HUES,
            "share": reason.share,
            "portion": max(reason.share, 0.0) / total if total else 0.0,
            "unanswered": reason.answer.unanswered,
            "text": reason.text,
            "classes": _seen(reason.text.classes) if reason.text else (),
            "below": _seen(reason.text.below) if reason.text else (),
            "voices": _voices(reason),
            "said": reason.said,
        }
        for place, (name, reason) in enumerate(zip(names, reasons, strict=True))
    ]
    return render(
        "explain/parts.html",
        hit=hit,
        label=", ".join(hit.labels) or hit.path.name,
        view=picture_url(engine, hit.id, "view"),
        rows=rows,
        similarity=hit.similarity,
    )


def _voices(reason: PartReason) -> list[dict[str, Any]]:
    """Who speaks for a text, each with its share of what speaks for it; none where it is one alone."""
    if len(reason.voices) < 2:
        return []
    total = sum(max(voice.added, 0.0) for voice in reason.voices)
    return [
        {
            "name": way_called(voice.space, voice.way),
            "weight": voice.weight,
            "added": voice.added,
            "portion": max(voice.added, 0.0) / total if total else 0.0,
        }
        for voice in reason.voices
    ]


def _seen(classes: Iterable[ClassReason]) -> list[ClassReason]:
    """Those classes that are more than a rounding error."""
    return [one for one in classes if one.probability >= LEAST_SHOWN]


def _cards(
    engine: SearchEngine, query: QueryPicture, vector: np.ndarray, explanation: Explanation
) -> list[dict[str, Any]]:
    """Query and hit, with where they match and what the classifier sees in them."""
    item = engine.store.items[explanation.id]
    stored = np.asarray(engine.store.features[explanation.id], dtype=np.float32)
    content, max_pixels = read_item(engine, explanation.id), folder_of(engine).max_pixels
    asked, hit = query.pixels(), decode_image(content, min_side=SIDE // 2, max_pixels=max_pixels)
    encoder = engine.encoder
    label = ", ".join(item.labels) or item.path.name
    cards = []
    for title, pixels, own, other in (
        ("The query", asked, vector, stored),
        (f"{'The hit' if explanation.rank else 'The picture'}: {label}", hit, stored, vector),
    ):
        heat, box = heat_map(encoder, pixels, other)
        cards.append(
            {
                "title": title,
                "picture": _data_uri(pixels),
                "heat": _heat_uri(heat),
                "place": _place_of(box, pixels),
                "classes": list(top_classes(encoder, own)),
            }
        )
    return cards


def _place_of(box: tuple[float, float, float, float], pixels: np.ndarray) -> str:
    """Where a part of a picture lies on it, as a style."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    return (
        f"left:{100 * left / width:.3f}%;top:{100 * top / height:.3f}%;"
        f"width:{100 * (right - left) / width:.3f}%;height:{100 * (bottom - top) / height:.3f}%"
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


def _place(engine: SearchEngine, explanation: Explanation) -> dict[str, Any] | None:
    """Where the index keeps the chosen picture, and with which others."""
    place = explanation.place
    if place is None:
        return None
    others = place.list_ids[place.list_ids != explanation.id]
    first = f": the first {LIST_SHOWN}" if len(others) > LIST_SHOWN else ""
    return {
        "list_number": place.list_number,
        "counted": _counted(len(place.list_ids)),
        "nearness": "the nearest" if place.list_rank == 1 else f"no. {place.list_rank} in nearness",
        "probed": place.list_number in explanation.path.probed,
        "code": [int(byte) for byte in place.code],
        "score": place.score,
        "rank": place.rank,
        "others_counted": _counted(len(others)) + first,
        "others": [
            {"thumb": picture_url(engine, int(id), "thumb"), "labels": ", ".join(engine.store.items[id].labels)}
            for id in others[:LIST_SHOWN]
        ],
    }


def _neighbours(engine: SearchEngine, reason: NeighbourReason | None) -> dict[str, Any] | None:
    """What neighbours changed, with small pictures of those that did."""
    if reason is None:
        return None
    thumbs = {id: picture_url(engine, id, "thumb") for id in (*reason.query_neighbours, *dict(reason.shares))}
    return {
        "verdict": reason.verdict,
        "similarity": reason.similarity,
        "own_share": reason.own_share,
        "of_hit": [{"thumb": thumbs[id], "told": f"adds {share:.3f}"} for id, share in reason.shares],
        "of_query": [{"thumb": thumbs[id], "told": ""} for id in reason.query_neighbours],
    }


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures:,} pictures"


def figure(cells: CellMap, explanation: Explanation) -> Any:
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
