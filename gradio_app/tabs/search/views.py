"""What the Search tab shows, as HTML, and which controls fit a collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from gradio_app.crop import render as render_crop
from gradio_app.grid import Tile, render_tiles, result_tiles
from gradio_app.markup import printable, render
from gradio_app.session import QueryPicture, Result, Session
from gradio_app.tabs.controls import ENGINE_NAMES
from search.engine import SearchEngine

MAX_RESULTS = 50  # a page
MAX_SHOWN = 500  # all pages together
RESULTS = 20
EXAMPLES = 12
SORTS = [("Most similar first", "score"), ("By file name", "name")]


def picture(query: QueryPicture | None, *, then: str = "") -> str:
    """The picture to search, with its box."""
    if query is None:
        return ""
    return render_crop(query.token, query.preview(), query.name, query.width, query.height, query.box, then=then)


def last_searched(query: QueryPicture | None) -> str:
    return render("search/last.html", query=query, part=None if query is None else part_of(query))


def part_of(query: QueryPicture) -> str:
    """Which part of a picture is searched, in words."""
    if query.box is None:
        return "whole picture"
    x0, y0, x1, y1 = query.box
    return f"{x1 - x0} × {y1 - y0} px of it"


def recent(session: Session) -> str:
    """A strip of what was searched before, newest first; nothing as long as there is only one."""
    if len(session.recent) < 2:
        return ""
    return render("search/recent.html", queries=[(query, part_of(query)) for query in session.recent])


def hint() -> str:
    return render("search/hint.html")


def results(result: Result, order: str) -> str:
    hits = sorted(result.hits, key=lambda hit: (hit.path.name, hit.rank)) if order == "name" else result.hits
    tiles = render_tiles(result.engine, result_tiles(hits), kind="results")
    more = min(result.request.page, MAX_SHOWN - result.request.k) if result.more else 0
    return render("search/results.html", tiles=Markup(tiles), more=more)


def status(result: Result) -> str:
    engine, hits, request = result.engine, result.hits, result.request
    how = ENGINE_NAMES.get(request.engine, request.engine)
    if request.nprobe is not None:
        how += f", {request.nprobe} of {engine.nlist} lists visited"
    times = [f"encode {_milliseconds(hits.encode_ms)}", f"search {_milliseconds(hits.search_ms)}"]
    if request.rerank:
        times.append(f"re-rank {_milliseconds(hits.rerank_ms)}")
    return render(
        "search/status.html",
        count=len(hits),
        of=len(engine.store.ids),
        name=engine.name,
        hint=not hits and (request.labels or request.cutoff is not None),
        own=hits.own_id is not None,
        how=how,
        times=times,
    )


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def examples(engine: SearchEngine | None) -> str:
    """A few pictures from all over the collection."""
    if engine is None:
        return ""
    ids = engine.store.ids
    picks = ids[np.unique(np.linspace(0, len(ids), EXAMPLES, endpoint=False).astype(int))] if len(ids) else ids
    return render_tiles(engine, [Tile(int(i)) for i in picks], kind="examples")


def nprobe_options(engine: SearchEngine | None) -> dict[str, Any]:
    nlist = engine.nlist if engine else None
    return {
        "minimum": 1,
        "maximum": max(nlist or 0, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist or 1) if engine else 1,
        "label": f"Lists to visit, of {nlist} (nprobe)",
        "info": "More find more, and take longer",
        "visible": engine is not None and (nlist or 1) > 1 and engine.engines[0] != "exact",
    }


def rerank_options(engine: SearchEngine | None) -> dict[str, Any]:
    return {"visible": engine is not None and engine.engines[0] != "exact"}


def cutoff_options(engine: SearchEngine | None) -> dict[str, Any]:
    measure = "Distance of at most" if engine and engine.metric == "l2" else "Similarity of at least"
    return {"value": "", "label": measure, "placeholder": "any"}


def label_options(engine: SearchEngine | None) -> dict[str, Any]:
    known = engine.labels if engine else {}
    return {
        "choices": [(f"{printable(label)} ({count})", printable(label)) for label, count in known.items()],
        "value": [],
        "visible": len(known) > 1,
    }


def labels_chosen(engine: SearchEngine, chosen: list[str] | None) -> tuple[str, ...]:
    """The collection's own labels for the printable ones that the page sent."""
    own: Mapping[str, str] = {printable(label): label for label in engine.labels}
    return tuple(own.get(label, label) for label in chosen or ())
