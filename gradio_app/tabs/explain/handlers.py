"""What happens on the Explain tab. Plain values in and HTML or updates out, so none of it needs a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from features.encoders import EncoderError
from gradio_app.gradio_seam import sorry
from gradio_app.library import Library
from gradio_app.session import Result, Session
from gradio_app.tabs.controls import (
    MAX_K,
    NO_PICTURE,
    about,
    encode,
    engine_of,
    engine_radio,
    is_image,
    nprobe_slider,
    whole,
)
from gradio_app.tabs.explain import views
from gradio_app.tabs.explain.state import ExplainRequest, ExplainState
from gradio_app.typed import filter_of, picture_of
from search.engine import SearchEngine
from search.errors import EngineError
from search.explain import cell_map, explain, map_methods
from search.hits import Hit
from search.options import SearchOptions
from search.reasons import explain_parts

ONLY_FILTERED = "The last search only filtered: nothing was compared. Choose a picture, or type words."


class ExplainHandlers:
    """The listeners of the tab."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def open(
        self,
        name: str,
        session: Session,
        state: ExplainState,
        key: str,
        k: float,
        nprobe: float,
        rerank: bool,
        drawn: str | None,
    ) -> Any:
        """What is asked for in another tab, else the last search, else what was shown, is explained next."""
        if state.asked is None and session.result is not None and session.result is not state.result:
            state.result = session.result
            state.asked = _request_of(session.result, nprobe)
        state.asked = state.asked or state.shown
        if state.asked is None and (query := session.crop_or_last(drawn)) is not None:
            engine = engine_of(self.library, name)
            state.asked = ExplainRequest(engine, query, _options(engine, key, k, nprobe, rerank))
        if state.asked is None:
            return about(None), key, k, nprobe, rerank
        options = state.asked.options
        return _subject(state.asked), options.engine, options.k, options.nprobe or nprobe, options.rerank

    def opened(self, name: str, state: ExplainState, method: str) -> Any:
        request, state.asked = state.asked or state.shown, None
        return self._respond(name, state, request, method)

    def change(
        self, name: str, state: ExplainState, method: str, key: str, k: float, nprobe: float, rerank: bool
    ) -> Any:
        shown = _shown(state)
        options = _options(shown.engine, key, k, nprobe, rerank)
        request = replace(shown, options=replace(options, neighbourhood=shown.options.neighbourhood))
        return self._respond(name, state, request, method)

    def explain(self, name: str, state: ExplainState, method: str, event: gr.EventData) -> Any:
        shown, id = _shown(state), getattr(event, "id", None)
        if not is_image(shown.engine, id):
            raise sorry(NO_PICTURE)
        return self._respond(name, state, replace(shown, id=id), method)

    def ask(self, session: Session, state: ExplainState, nprobe: float, event: gr.EventData) -> Any:
        """A result on another tab is to be explained."""
        id = getattr(event, "id", None)
        if session.result is None or not is_image(session.result.engine, id):
            raise sorry("This picture is no longer among the results. Search again.")
        state.result = session.result
        state.asked = replace(_request_of(session.result, nprobe), id=id)
        return gr.update(selected="explain")

    def choose_collection(self, name: str | None, state: ExplainState) -> Any:
        state.asked = state.result = None
        engine = self.library.get(name or "")
        return (
            gr.update(**engine_radio(engine)),
            gr.update(**nprobe_slider(engine)),
            *self._respond(name or "", state, None, "pca"),
        )

    def follow_library(self, name: str | None, state: ExplainState) -> Any:
        if state.shown is None or state.shown.engine is self.library.get(name or ""):
            return [gr.skip()] * 7
        return self.choose_collection(name, state)

    def _respond(self, name: str, state: ExplainState, request: ExplainRequest | None, method: str) -> Any:
        state.shown = None
        if request is None:
            return about(None), "", "", gr.update(visible=False), None
        engine, options = request.engine, request.options
        if engine is not self.library.get(name or ""):  # its ids may be other pictures by now
            raise sorry("The collection has changed. Search again.")
        if request.result is not None:
            return self._explain_parts(state, request, request.result)
        if request.query is None:
            return about(None, ONLY_FILTERED), "", "", gr.update(visible=False), None
        vector, own_id = encode(engine, request.query)
        try:
            hits, lost = _found_and_lost(request, vector, own_id)
            id = request.id if request.id is not None else next((hit.id for hit in (*hits, *lost)), None)
            state.shown = replace(request, id=id)
            if id is None:
                return about(request.query), views.nothing(), "", gr.update(visible=False), None
            explanation = explain(engine, vector, own_id, id, options, filter=request.filter)
            method = method if method in map_methods() else "pca"
            cells = cell_map(engine, vector, options, own_id=own_id, filter=request.filter, method=method)
        except EngineError as error:
            raise sorry(str(error)) from error
        return (
            about(request.query),
            views.strip(engine, hits, lost, id, request.filter),
            views.detail(engine, request.query, vector, explanation, options),
            gr.update(visible=cells is not None),
            None if cells is None else views.figure(cells, explanation),
        )

    def _explain_parts(self, state: ExplainState, request: ExplainRequest, result: Result) -> Any:
        """What each part of the query gave to one of the hits; no index is looked into."""
        hit = next((hit for hit in result.hits if hit.id == request.id), next(iter(result.hits), None))
        state.shown = replace(request, id=None if hit is None else hit.id)
        if hit is None:
            return _subject(request), views.nothing(), "", gr.update(visible=False), None
        try:
            reasons = explain_parts(request.engine, result.hits, hit)
        except (EngineError, EncoderError) as error:
            raise sorry(str(error)) from error
        return (
            _subject(request),
            views.strip(request.engine, result.hits.first(MAX_K), (), hit.id, request.filter),
            views.parts(request.engine, result, hit, reasons),
            gr.update(visible=False),
            None,
        )


def _shown(state: ExplainState) -> ExplainRequest:
    if state.shown is None:
        raise sorry(NO_PICTURE)
    return state.shown


def _options(engine: SearchEngine, key: str, k: float, nprobe: float, rerank: bool) -> SearchOptions:
    if key not in engine.engines:
        raise sorry(f"{engine.name} has no index called {key}.")
    return SearchOptions(key, whole(k, 1, MAX_K), whole(nprobe, 1, engine.nlist or 1), bool(rerank))


def _subject(request: ExplainRequest) -> str:
    """What is explained."""
    words = request.result.asked.words if request.result is not None else ""
    return about(request.query, f"The words “{words}”" if words else NO_PICTURE, note=f"and “{words}”" if words else "")


def _request_of(result: Result, nprobe: float) -> ExplainRequest:
    """What a search on the Search tab did, to be explained."""
    request, engine = result.request, result.engine
    lists = request.nprobe or whole(nprobe, 1, engine.nlist or 1)
    options = SearchOptions(
        request.engine, min(request.k, MAX_K), lists, request.rerank, neighbourhood=request.neighbourhood
    )
    by_parts = result if result.hits.parts else None
    return ExplainRequest(engine, picture_of(result), options, filter_of(result), result=by_parts)


def _found_and_lost(
    request: ExplainRequest, vector: np.ndarray, own_id: int | None
) -> tuple[tuple[Hit, ...], tuple[Hit, ...]]:
    """What the search finds, and what exact search finds besides."""
    engine, exactly = request.engine, replace(request.options, engine="exact", rerank=False)
    answer = engine.search_vector(vector, request.options, own_id=own_id, filter=request.filter)
    truth = engine.search_vector(vector, exactly, own_id=own_id, filter=request.filter)
    return answer.hits, tuple(hit for hit in truth if hit.id not in answer.ids)
