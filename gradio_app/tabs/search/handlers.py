"""What happens on the Search tab. Plain values in and HTML or updates out, so none of it needs a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app import gradio_seam
from gradio_app.gradio_seam import sorry
from gradio_app.library import Library
from gradio_app.remote_image import RemoteImageError, fetch_image
from gradio_app.session import QueryPicture, Request, Result, Session, gone
from gradio_app.tabs.controls import engine_of, engine_radio, is_image, whole
from gradio_app.tabs.search import views
from gradio_app.tabs.search.views import MAX_RESULTS, MAX_SHOWN
from search.engine import SearchEngine
from search.errors import EngineError
from search.hits import Answer


class SearchHandlers:
    """The listeners of the tab.

    Parameters
    ----------
    library : Library
    upload : gr.Image
        Whose cache pictures from outside are kept in.
    """

    def __init__(self, library: Library, upload: gr.Image) -> None:
        self.library = library
        self.upload = upload

    # A picture comes in

    def take_upload(self, session: Session, uploaded: Mapping[str, Any] | None) -> Any:
        if not uploaded or not uploaded.get("path"):  # the source was switched
            return gr.skip(), gr.skip()
        path = Path(uploaded["path"]).resolve()
        if not path.is_relative_to(Path(self.upload.GRADIO_CACHE).resolve()):
            raise sorry("This is not an uploaded picture.")
        query = session.query = QueryPicture.open(path, str(uploaded.get("orig_name") or "picture"))
        return views.picture(query), None

    def open_address(self, session: Session, event: gr.EventData) -> str:
        url = str(getattr(event, "url", None) or "")
        if not url.strip():
            raise sorry("Type the address of a picture first, such as https://example.org/picture.jpg.")
        try:
            content = fetch_image(url)
        except RemoteImageError as error:
            raise sorry(str(error)) from error
        name = Path(url.split("?")[0].split("#")[0]).name or "picture"
        query = session.query = QueryPicture.open(Path(gradio_seam.keep_picture(content, self.upload)), name)
        return views.picture(query)

    def take_example(self, session: Session, event: gr.EventData) -> str:
        query = session.query = self._picked(event)
        return views.picture(query)

    def pick(self, session: Session, event: gr.EventData) -> Any:
        query = session.query = self._picked(event)
        return views.picture(query, then="go"), gr.update(selected="search")

    def look_inside(self, session: Session, event: gr.EventData) -> Any:
        query = session.query = self._picked(event).inside()
        return views.picture(query, then="wait"), gr.update(selected="search")

    def recall(self, session: Session, event: gr.EventData) -> str:
        found = [query for query in session.recent if query.token == getattr(event, "token", None)]
        if not found:
            raise sorry("This query is no longer remembered.")
        query = session.query = found[0].again()
        return views.picture(query)

    def remove(self, session: Session) -> str:
        session.query = None
        return ""

    def _picked(self, event: gr.EventData) -> QueryPicture:
        engine = self.library.get(str(getattr(event, "collection", None)))
        image_id = getattr(event, "id", None)
        if engine is None or not is_image(engine, image_id):
            raise sorry("This picture is no longer in the collection. Reload the page.")
        return QueryPicture.of(engine, image_id)  # type: ignore[arg-type]

    # It is searched

    def search(
        self,
        session: Session,
        drawn: str | None,
        name: str | None,
        k: float | None,
        engine_key: str,
        lists: float | None,
        again: bool,
        wanted: list[str] | None,
        worst: str | None,
        order: str,
    ) -> Any:
        query = session.crop(drawn)
        if query is None:
            raise sorry("Choose a picture to search with first.")
        engine = engine_of(self.library, name)
        approximate = engine_key != "exact"
        shown = whole(k, 1, MAX_RESULTS)
        request = Request(
            collection=engine.name,
            engine=engine_key,
            k=shown,
            page=shown,
            nprobe=whole(lists, 1, engine.nlist) if lists is not None and approximate and engine.nlist else None,
            rerank=bool(again) and approximate,
            labels=views.labels_chosen(engine, wanted),
            cutoff=_number(worst or ""),
        )
        return self._respond(session, query, request, order)

    def refine(self, session: Session, wanted: list[str] | None, order: str) -> Any:
        before = session.result
        if before is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        labels = views.labels_chosen(before.engine, wanted)
        request = replace(before.request, k=before.request.page, labels=labels)
        return self._respond(session, before.query, request, order)

    def show_more(self, session: Session, order: str) -> Any:
        before = session.result
        if before is None:
            raise sorry("Nothing has been searched yet.")
        request = replace(before.request, k=min(before.request.k + before.request.page, MAX_SHOWN))
        return self._respond(session, before.query, request, order)

    def sort(self, session: Session, order: str) -> Any:
        return gr.skip() if session.result is None else views.results(session.result, order)

    def _respond(self, session: Session, query: QueryPicture, request: Request, order: str) -> Any:
        turn = session.next_turn()
        engine = engine_of(self.library, request.collection)
        hits = _search(engine, query, request)
        more = len(hits) > request.k and request.k < MAX_SHOWN
        result = Result(engine, query, request, hits.first(request.k), more)
        if not session.keep(result, turn):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        return views.results(result, order), views.status(result), views.last_searched(query), views.recent(session)

    # "Last searched"

    def copy_to_search(self, session: Session) -> str:
        if session.last is None:
            raise sorry("Nothing has been searched yet.")
        query = session.query = session.last.again()
        return views.picture(query)

    def copy_from_search(self, session: Session, drawn: str | None) -> str:
        query = session.crop(drawn)
        if query is None:
            raise sorry("There is no picture to search yet.")
        session.last = query
        return views.last_searched(query)

    def swap(self, session: Session, drawn: str | None) -> Any:
        last = session.crop(drawn)
        query = None if session.last is None else session.last.again()
        session.query, session.last = query, last
        return views.picture(query), views.last_searched(last)

    # The collection

    def choose_collection(self, session: Session, name: str | None) -> Any:
        session.next_turn()  # a search still under way belongs to the collection that was left
        session.result = None
        engine = self.library.get(name or "")
        return (
            views.examples(engine),
            gr.update(**engine_radio(engine)),
            gr.update(**views.nprobe_options(engine)),
            gr.update(**views.rerank_options(engine)),
            gr.update(**views.cutoff_options(engine)),
            gr.update(**views.label_options(engine)),
            "",
            views.hint(),
        )

    def follow_library(self, session: Session, name: str | None) -> Any:
        """Of a collection that was made anew under the same name, nothing may stay: the same id is another picture."""
        engine = self.library.get(name or "")
        if session.result is None or session.result.engine is engine:
            return (views.examples(engine), *[gr.skip()] * 7)
        return self.choose_collection(session, name)

    def choose_engine(self, name: str | None, engine_key: str) -> Any:
        approximate = engine_key != "exact"
        has_lists = (engine_of(self.library, name).nlist or 1) > 1
        return gr.update(visible=has_lists and approximate), gr.update(visible=approximate)


def _search(engine: SearchEngine, query: QueryPicture, request: Request) -> Answer:
    # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
    try:
        return engine.search(
            query.path if query.box is None else query.pixels(),
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
