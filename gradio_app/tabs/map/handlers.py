"""What of the current search is drawn into the map. Plain values in and JSON out, so none of it needs a page."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from gradio_app.gradio_seam import sorry
from gradio_app.library import Library
from gradio_app.session import Result, Session
from gradio_app.tabs.controls import encode
from gradio_app.typed import filter_of, picture_of
from search.errors import EngineError
from search.explain import search_path
from search.options import SearchOptions
from search.picture_map import map_of

NO_SEARCH = "Search for a picture first: then the points can be coloured by how much they are like it."
SHADES = 255
NEAREST_SHARE = 0.99  # of the others lie below the top of the scale, or a copy or two would take most of it


class Asked(NamedTuple):
    """The picture that was searched with: its vector, and its id where it is one of the collection."""

    vector: NDArray[np.float32]
    own_id: int | None


class MapHandlers:
    """The listeners of the tab."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def search(self, name: str | None, session: Session) -> str:
        """The last search in a collection as JSON: the place of its query, its hits and probed lists; "" for none."""
        result = self._result(name, session)
        return "" if result is None else json.dumps(drawn_search(result))

    def scores(self, name: str | None, session: Session) -> str:
        """How near each point is to the last query, as JSON: the ends of the scale, and a byte for each."""
        result = self._result(name, session)
        asked = None if result is None else _asked(result)
        if result is None or asked is None:
            raise sorry(NO_SEARCH)
        try:
            searcher, ids = result.engine.space(), map_of(result.engine.store).ids
            (near,) = searcher.scores(asked.vector[None], ids)
        except EngineError as error:
            raise sorry(str(error)) from error
        others = near[ids != asked.own_id] if asked.own_id is not None and ids.size > 1 else near
        low, high = float(others.min()), float(np.quantile(others, NEAREST_SHARE))
        scaled = (near - low) * (SHADES / (high - low or 1.0))
        shades = np.rint(np.clip(scaled, 0, SHADES)).astype(np.uint8)
        told = base64.b64encode(shades.tobytes()).decode()
        measure = "minus the squared distance" if searcher.space.metric == "l2" else "similarity"
        return json.dumps({"low": low, "high": high, "measure": measure, "shades": told})

    def _result(self, name: str | None, session: Session) -> Result | None:
        result = session.result
        return result if result is not None and result.engine is self.library.get(name or "") else None


def drawn_search(result: Result) -> dict[str, Any]:
    """What is drawn of a search."""
    engine, request = result.engine, result.request
    asked = _asked(result)
    probed: list[int] = []
    if asked is not None and not result.hits.parts:
        lists = request.nprobe or min(engine.nprobe, engine.nlist or 1)
        options = SearchOptions(request.engine, request.k, lists, request.rerank, neighbourhood=request.neighbourhood)
        with suppress(EngineError):  # such as a database that does not answer now
            path = search_path(engine, asked.vector, result.hits, options, filter=filter_of(result))
            probed = list(path.probed)
    points = map_of(engine.store)
    place = None if asked is None else (points.places(asked.vector[None])[0] / points.reach).tolist()
    return {
        "engine": request.engine,
        "place": place,
        "id": None if asked is None else asked.own_id,
        "hits": [[hit.id, hit.rank] for hit in result.hits],
        "probed": probed,
        "compares_all": request.engine == "exact",
        "can_score": asked is not None,
    }


def _asked(result: Result) -> Asked | None:
    """The picture that was searched with; None of a search by words alone, or of a picture that is no longer there."""
    try:
        picture = picture_of(result)
        return None if picture is None else Asked(*encode(result.engine, picture))
    except gr.Error:
        return None
