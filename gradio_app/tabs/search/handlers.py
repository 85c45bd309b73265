"""What happens on the Search tab. Plain values in and HTML or updates out, so none of it needs a page."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from features.collection.errors import StoreError
from features.collection.learned_tags import learned_tag
from features.collection.said import clean_tag
from features.encoders import EncoderError
from features.images import ImageError
from gradio_app import gradio_seam, typed
from gradio_app.gradio_seam import login_is_needed, sorry
from gradio_app.library import Library
from gradio_app.page_address import brought_along
from gradio_app.remote_image import RemoteImageError, fetch_image
from gradio_app.routes.access import REFUSED, StartToken, may_manage
from gradio_app.session import MAX_WEIGHT, Asked, QueryPicture, Request, Result, Session, gone
from gradio_app.tabs.controls import engine_of, engine_radio, is_image, whole
from gradio_app.tabs.search import views
from gradio_app.tabs.search.views import MAX_RESULTS, MAX_SHOWN
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.hits import Answer
from search.options import NEIGHBOURHOOD
from search.parts import learn_tag
from search.query import Query


class SearchHandlers:
    """The listeners of the tab.

    Parameters
    ----------
    library : Library
    upload : gr.Image
        Whose cache pictures from outside are kept in.
    token : StartToken, optional
        Tells who may keep what was learnt; without it nobody may.
    """

    def __init__(self, library: Library, upload: gr.Image, token: StartToken | None = None) -> None:
        self.library = library
        self.upload = upload
        self.token = token
        self._warming: set[SearchEngine] = set()
        self._lock = threading.Lock()

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

    def recall(self, session: Session, name: str | None, event: gr.EventData) -> Any:
        found = [asked for asked in session.recent if asked.token == getattr(event, "token", None)]
        if not found:
            raise sorry("This query is no longer remembered.")
        return self._again(session, name, found[0])

    def set_beside(self, session: Session, drawn: str | None, name: str | None, event: gr.EventData) -> Any:
        """The picture becomes a part of what is typed, so that another can be chosen beside it."""
        asked, engine = _asked(session, drawn, event), engine_of(self.library, name)
        if asked.picture is None:
            raise sorry("Choose a picture first.")
        term = typed.picture_term(asked.picture, engine, asked.weight)
        session.query = None
        return "", views.reading(Asked(None, f"{asked.words} {term}".strip()), engine, fill=True)

    def look_at_object(self, session: Session, drawn: str | None, event: gr.EventData) -> str:
        """The picture comes back with its object told from what is behind it, or as it was."""
        query = session.crop(drawn)
        if query is None:
            return ""
        weight = _asked(session, drawn, event).weight
        wanted = session.query = replace(query.again(), foreground=getattr(event, "on", None) is True)
        try:
            if wanted.foreground:
                wanted.veil()
        except EncoderError as error:
            session.query = query
            raise sorry(_sentence(error)) from error
        return views.picture(wanted, weight=weight)

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
        neighbourhood: float | None,
        event: gr.EventData,
        sent_by: gr.Request | None = None,
    ) -> Any:
        asked = _asked(session, drawn, event)
        if asked.picture is None and not asked.words:
            raise sorry("Type some words or choose a picture first.")
        session.may_keep = self.may_keep(sent_by)
        engine = engine_of(self.library, name)
        request = request_of(engine, k, engine_key, lists, again, wanted, worst, neighbourhood)
        return self.respond(session, asked, request, order)

    def adjust(
        self,
        session: Session,
        name: str | None,
        k: float | None,
        engine_key: str,
        lists: float | None,
        again: bool,
        wanted: list[str] | None,
        worst: str | None,
        order: str,
        neighbourhood: float | None,
    ) -> Any:
        """What is shown, as the controls say by now; where they say the same, it stays as it is."""
        before = session.result
        if before is None or before.engine.name != name:
            return [gr.skip()] * 5
        engine = engine_of(self.library, name)
        request = request_of(engine, k, engine_key, lists, again, wanted, worst, neighbourhood)
        if request == replace(before.request, k=before.request.page):
            return [gr.skip()] * 5
        return self.respond(session, before.asked, request, order)

    def refine(self, session: Session, wanted: list[str] | None, order: str) -> Any:
        before = session.result
        if before is None:
            return [gr.skip()] * 5
        labels = views.labels_chosen(before.engine, wanted)
        request = replace(before.request, k=before.request.page, labels=labels)
        return self.respond(session, before.asked, request, order)

    def reorder(self, session: Session, neighbourhood: float | None, order: str) -> Any:
        """What is shown, with as much from the neighbours as is wanted now."""
        before = session.result
        if before is None:
            return [gr.skip()] * 5
        request = replace(before.request, neighbourhood=weight_of(neighbourhood))
        return self.respond(session, before.asked, request, order)

    def show_more(self, session: Session, order: str) -> Any:
        before = session.result
        if before is None:
            raise sorry("Nothing has been searched yet.")
        request = replace(before.request, k=min(before.request.k + before.request.page, MAX_SHOWN))
        return self.respond(session, before.asked, request, order)

    def sort(self, session: Session, order: str) -> Any:
        return gr.skip() if session.result is None else views.results(session.result, order, fold=session.fold)

    def fold(self, session: Session, fold: bool, order: str) -> Any:
        """What is shown, with or without what is nearly the same as a better hit."""
        session.fold = bool(fold)
        return self.sort(session, order)

    def respond(self, session: Session, asked: Asked, request: Request, order: str) -> Any:
        turn = session.next_turn()
        engine = engine_of(self.library, request.collection)
        try:
            query = self._query(session, asked)
            hits = _search(engine, query, request)
        except FileNotFoundError as error:
            raise gone("The picture" if asked.picture is None else asked.picture.name) from error
        except QueryError as error:
            raise sorry(_sentence(error)) from error
        except (EngineError, EncoderError, ImageError) as error:
            raise sorry(str(error)) from error
        more = len(hits) > request.k and request.k < MAX_SHOWN
        result = Result(engine, asked, request, hits.first(request.k), more)
        if not session.keep(result, turn):
            return [gr.skip()] * 5
        return (
            views.results(result, order, fold=session.fold),
            views.status(result),
            views.last_searched(asked),
            views.recent(session),
            views.reading(asked, engine, hits.parts, may_keep=session.may_keep),
        )

    def _query(self, session: Session, asked: Asked) -> Query | QueryPicture:
        """What an engine is asked. A picture alone goes the shortest way, which knows nothing of words."""
        if not asked.words and asked.picture is not None and asked.weight > 0:
            return asked.picture
        query = typed.parse(asked.words)
        own = () if asked.picture is None else (asked.picture.part(asked.weight),)
        replace(query, parts=(*query.parts, *own)).check()  # before anything is fetched
        query = typed.fetchable(query, session, fetch_image, self._brought_along)
        return replace(query, parts=(*query.parts, *own))

    def _brought_along(self, upload: str) -> QueryPicture:
        return brought_along(upload, Path(self.upload.GRADIO_CACHE))

    # What the checks and crosses say is kept

    def keep_tag(self, session: Session, event: gr.EventData, sent_by: gr.Request | None = None) -> str:
        """Keep what was learnt from the judged hits of the search that is shown, under the name that was typed."""
        if not self.may_keep(sent_by):
            raise sorry(REFUSED)
        result, name = session.result, getattr(event, "name", None)
        if result is None or self.library.get(result.engine.name) is not result.engine:
            raise sorry("Search again first: the collection has changed meanwhile.")
        if not isinstance(name, str) or not clean_tag(name):
            raise sorry("Give what you mean a name first.")
        engine, asked = result.engine, result.asked
        try:
            before = learned_tag(engine.store.annotations, name)
            query = self._query(session, asked)
            kept = learn_tag(engine, name, query if isinstance(query, Query) else Query())
        except (QueryError, StoreError) as error:
            raise sorry(_sentence(error)) from error
        except (EngineError, EncoderError, ImageError) as error:
            raise sorry(str(error)) from error
        told = views.kept_tag(kept, replaced=before is not None)
        return views.reading(asked, engine, result.hits.parts, may_keep=True, kept=told)

    def show_learned(self) -> Any:
        return gr.update(selected="learned")

    def may_keep(self, sent_by: gr.Request | None) -> bool:
        if self.token is None or sent_by is None:
            return False
        return may_manage(sent_by.headers, self.token, logged_in=login_is_needed(sent_by.app))

    # Words

    def show_reading(self, session: Session, drawn: str | None, name: str | None, event: gr.EventData) -> Any:
        """How the words were understood that could not be searched."""
        engine = self.library.get(name or "")
        return gr.skip() if engine is None else views.reading(_asked(session, drawn, event), engine)

    def warm_up(self, name: str | None) -> Any:
        """Get ready for words, as soon as someone is about to type some; what is said where there can be none."""
        engine = self.library.get(name or "")
        if engine is None or not self._begins_to_warm(engine):
            return gr.skip()
        try:
            engine.score_text("picture")
        except (EngineError, EncoderError) as error:
            return views.about_words(_sentence(error))
        finally:
            with self._lock:
                self._warming.discard(engine)
        return views.about_words()

    def _begins_to_warm(self, engine: SearchEngine) -> bool:
        with self._lock:
            begins = engine not in self._warming
            self._warming.add(engine)
        return begins

    # "Last searched"

    def copy_to_search(self, session: Session, name: str | None) -> Any:
        if session.last is None:
            raise sorry("Nothing has been searched yet.")
        return self._again(session, name, session.last)

    def copy_from_search(self, session: Session, drawn: str | None, event: gr.EventData) -> str:
        asked = _asked(session, drawn, event)
        if asked.picture is None and not asked.words:
            raise sorry("There is nothing to search yet.")
        session.last = asked
        return views.last_searched(asked, was_searched=_was_searched(session, asked))

    def swap(self, session: Session, drawn: str | None, name: str | None, event: gr.EventData) -> Any:
        last, before = _asked(session, drawn, event), session.last
        picture, reading = self._again(session, name, before or Asked())
        session.last = last if last.picture is not None or last.words else None
        return picture, views.last_searched(session.last, was_searched=_was_searched(session, session.last)), reading

    def _again(self, session: Session, name: str | None, asked: Asked) -> Any:
        """What was searched comes back to where it is typed and chosen."""
        picture = session.query = None if asked.picture is None else asked.picture.again()
        engine = self.library.get(name or "")
        reading = gr.skip() if engine is None else views.reading(replace(asked, picture=picture), engine, fill=True)
        return views.picture(picture, weight=asked.weight), reading

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
            gr.update(**views.neighbourhood_options(engine)),
            gr.update(**views.label_options(engine)),
            "",
            views.hint(),
            "",
            views.about_words(),
        )

    def follow_library(self, session: Session, name: str | None) -> Any:
        """Of a collection that was made anew under the same name, nothing may stay: the same id is another picture."""
        engine = self.library.get(name or "")
        if session.result is None or session.result.engine is engine:
            return (views.examples(engine), *[gr.skip()] * 10)
        return self.choose_collection(session, name)

    def choose_engine(self, name: str | None, engine_key: str) -> Any:
        approximate = engine_key != "exact"
        has_lists = (engine_of(self.library, name).nlist or 1) > 1
        return gr.update(visible=has_lists and approximate), gr.update(visible=approximate)


def _was_searched(session: Session, asked: Asked | None) -> bool:
    """Whether something is, or was since the page was opened, what was searched."""
    return asked is None or any(asked.identity == other.identity for other in session.recent)


def _asked(session: Session, drawn: str | None, event: gr.EventData) -> Asked:
    """What is on the page at this moment: the words that the event brings, and the picture in its box."""
    words, weight = getattr(event, "words", None), getattr(event, "weight", None)
    is_weight = isinstance(weight, int | float) and not isinstance(weight, bool) and abs(weight) <= MAX_WEIGHT
    return Asked(
        session.crop(drawn),
        words.strip() if isinstance(words, str) else "",
        float(weight) if is_weight else 1.0,  # type: ignore[arg-type]
    )


def _search(engine: SearchEngine, query: Query | QueryPicture, request: Request) -> Answer:
    return engine.search(
        query if isinstance(query, Query) else query.part(),
        request.k + 1,  # to know whether there are more
        nprobe=request.nprobe,
        engine=request.engine,
        rerank=request.rerank,
        filter={"label": request.labels} if request.labels else None,
        cutoff=request.cutoff,
        neighbourhood=request.neighbourhood,
    )


def _sentence(error: Exception) -> str:
    """As it is said to a person: messages begin with a small letter."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def weight_of(sent: object) -> float:
    """How much neighbours count; as usual where what was sent is no number from 0 to 1."""
    is_weight = isinstance(sent, int | float) and not isinstance(sent, bool) and 0 <= sent <= 1
    return float(sent) if is_weight else NEIGHBOURHOOD  # type: ignore[arg-type]


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text.replace(",", "."))
    except ValueError as error:
        raise sorry(f"The limit must be a number, such as 0.5, or empty; it is {text.strip()!r}.") from error
    return None if math.isnan(number) else number


def request_of(
    engine: SearchEngine,
    k: float | None,
    engine_key: str,
    lists: float | None,
    again: bool,
    wanted: list[str] | None,
    worst: str | None,
    neighbourhood: float | None,
) -> Request:
    """What the controls of the tab say."""
    approximate = engine_key != "exact"
    shown = whole(k, 1, MAX_RESULTS)
    return Request(
        collection=engine.name,
        engine=engine_key,
        k=shown,
        page=shown,
        nprobe=whole(lists, 1, engine.nlist) if lists is not None and approximate and engine.nlist else None,
        rerank=bool(again) and approximate,
        labels=views.labels_chosen(engine, wanted),
        cutoff=_number(worst or ""),
        neighbourhood=weight_of(neighbourhood),
    )
