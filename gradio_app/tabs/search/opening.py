"""What happens as an address of the page is opened, by a reload, by Back, or by someone who was sent it."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from gradio_app.page_address import SORT, PageAddress
from gradio_app.session import RESULTS, Asked, Request, Session
from gradio_app.tabs.controls import engine_of, is_image, whole
from gradio_app.tabs.search import views
from gradio_app.tabs.search.handlers import SearchHandlers, request_of, weight_of
from gradio_app.tabs.search.views import MAX_SHOWN
from search.engine import SearchEngine
from search.hits import PartAnswer


class OpeningHandlers:
    """The listeners of an address. The collection comes first: controls have its choices.

    Parameters
    ----------
    search : SearchHandlers
        Who searches what the address asks for.
    """

    def __init__(self, search: SearchHandlers) -> None:
        self.search = search
        self.library = search.library

    def choose_collection(self, event: gr.EventData) -> Any:
        """The collection that the address names, or else the one that is chosen."""
        name = getattr(event, "collection", None)
        if not isinstance(name, str) or not name:
            return gr.skip()
        engine_of(self.library, name)
        return gr.update(value=name)

    def restore(
        self, session: Session, name: str | None, event: gr.EventData, sent_by: gr.Request | None = None
    ) -> Any:
        """Everything as the address says: controls, picture, words, and what is found with them.

        Where the picture is gone, or the words cannot be searched, a sentence says so in place of the results.
        """
        address, engine = PageAddress.read(getattr(event, "address", None)), engine_of(self.library, name)
        order = address.sort if address.sort in [sort for _, sort in views.SORTS] else SORT
        request, picture, fault = _request(address, engine), None, ""
        try:
            picture = address.open_picture(self.library, Path(self.search.upload.GRADIO_CACHE))
        except gr.Error as error:
            fault = unescape(error.message)
        session.query, session.fold = picture, address.fold
        session.may_keep = self.search.may_keep(sent_by)
        asked = Asked(picture, address.words, address.weight)
        answers: tuple[PartAnswer, ...] = ()
        results, status, last, recent = "", views.hint(), gr.skip(), gr.skip()
        if asked.picture is not None or asked.words:
            try:
                results, status, last, recent, _ = self.search.respond(session, asked, request, order)
                answers = session.result.hits.parts if session.result is not None else ()
            except gr.Error as error:
                fault = unescape(error.message)
        if not results:  # what was shown before is no longer
            session.next_turn()
            session.result = None
        return (
            views.picture(picture, then="found", weight=address.weight),
            views.reading(asked, engine, answers, fill=True, may_keep=session.may_keep),
            results,
            f"{status if results else ''}{views.not_found(fault)}" if fault else status,
            last,
            recent,
            views.enlarged(engine, view) if (view := address.view) is not None and is_image(engine, view) else "",
            *_controls(request, address, engine, order),
        )


def _request(address: PageAddress, engine: SearchEngine) -> Request:
    key = address.engine if address.engine in engine.engines else engine.engines[0]
    request = request_of(
        engine,
        address.n or RESULTS,
        key,
        address.nprobe or engine.nprobe,
        address.rerank is not False,
        list(address.labels),
        address.cutoff,
        weight_of(address.kind),
    )
    return replace(request, k=whole(address.shown or 0, request.page, MAX_SHOWN))


def _controls(request: Request, address: PageAddress, engine: SearchEngine, order: str) -> tuple[dict[str, Any], ...]:
    """Number of results, engine, lists, re-ranking, labels, limit, order, neighbours, folding, as the address has."""
    approximate = request.engine != "exact"
    known = {value for _, value in views.label_options(engine)["choices"]}
    return (
        gr.update(value=request.page),
        gr.update(value=request.engine),
        gr.update(
            value=request.nprobe or views.nprobe_options(engine)["value"],
            visible=approximate and (engine.nlist or 1) > 1,
        ),
        gr.update(value=address.rerank is not False, visible=approximate),
        gr.update(value=[label for label in address.labels if label in known]),
        gr.update(value=address.cutoff),
        gr.update(value=order),
        gr.update(value=request.neighbourhood),
        gr.update(value=address.fold),
    )
