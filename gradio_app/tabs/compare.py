"""The Compare tab: every engine's answer to the same query, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from gradio_app.gradio_seam import sorry
from gradio_app.library import Library
from gradio_app.markup import render
from gradio_app.routes.pictures import picture_url
from gradio_app.session import QueryPicture, Session
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import (
    AFTER_ERROR,
    MAX_K,
    NO_PICTURE,
    QUEUED,
    RERANK,
    SEND_BOX,
    UNQUEUED,
    PageParts,
    about,
    clickable,
    encode,
    engine_name,
    engine_of,
    is_image,
    nprobe_slider,
    whole,
)
from gradio_app.tabs.explain.state import ExplainRequest, ExplainState
from gradio_app.typed import filter_of
from search.compare import Compared, compare
from search.engine import SearchEngine
from search.errors import QueryError
from search.filters import Filter
from search.options import SearchOptions

WORDS_ALONE = (
    "The last search was by words, which are answered the same way whichever index is chosen: there is nothing to "
    "compare. Choose a picture on the Search tab."
)
WORDS_LEFT_OUT = "without the words, which are answered the same way whichever index is chosen"


class CompareHandlers:
    """What happens on the tab: a comparison is made when it is opened, and again when a control is moved."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def open(self, session: Session, drawn: str) -> str:
        return _subject(session, session.crop_or_last(drawn))

    def compare(
        self, name: str, session: Session, state: ExplainState, k: float, nprobe: float, rerank: bool, drawn: str
    ) -> tuple[str, str]:
        engine, query = engine_of(self.library, name), session.crop_or_last(drawn)
        if query is None:
            state.compared = None
            return _subject(session, None), ""
        last = session.result
        filter = filter_of(last) if last is not None and last.engine is engine else Filter()
        state.compared = engine, query, filter
        vector, own_id = encode(engine, query)
        options = _options(engine, "ivfpq", k, nprobe, rerank)
        try:
            compared = compare(engine, vector, own_id, options, filter=filter)
        except QueryError as error:
            raise sorry(str(error)) from error
        return _subject(session, query, filter), answers(engine, compared, options.k)

    def explain(
        self, name: str, state: ExplainState, k: float, nprobe: float, rerank: bool, event: gr.EventData
    ) -> Any:
        key, id = getattr(event, "engine", None), getattr(event, "id", None)
        if state.compared is None:
            raise sorry(NO_PICTURE)
        engine, query, filter = state.compared
        if engine is not self.library.get(name) or key not in engine.engines or not is_image(engine, id):
            raise sorry("The collection has changed. Compare again.")
        state.asked = ExplainRequest(engine, query, _options(engine, key, k, nprobe, rerank), filter, id)
        return gr.update(selected="explain")

    def choose_collection(self, name: str | None, state: ExplainState) -> Any:
        state.compared = None
        return gr.update(**nprobe_slider(self.library.get(name or ""))), about(None), ""

    def follow_library(self, name: str | None, state: ExplainState) -> Any:
        if state.compared is None or state.compared[0] is self.library.get(name or ""):
            return gr.skip(), gr.skip(), gr.skip()
        return self.choose_collection(name, state)


def build(parts: PageParts, tab: gr.Tab) -> None:
    handlers = CompareHandlers(parts.library)
    collection, session, state = parts.collection, parts.session, parts.explain_state
    gr.HTML(render("compare/intro.html"), apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        subject = gr.HTML(about(None), apply_default_css=False, elem_id="ris-compare-about")
        k = gr.Slider(1, MAX_K, 10, step=1, label="Results (k)", elem_id="ris-compare-k", min_width=180)
        nprobe = gr.Slider(**nprobe_slider(parts.library.first()), elem_id="ris-compare-nprobe", min_width=180)
        rerank = gr.Checkbox(True, label="Re-rank", info=RERANK, elem_id="ris-compare-rerank", min_width=180)
    shown = clickable(elem_id="ris-compare")

    # In two steps: the first comparison takes a second, and meanwhile the tab should say what of.
    opening = tab.select(handlers.open, [session, parts.box], subject, js=SEND_BOX, **UNQUEUED)
    comparing: dict[str, Any] = {
        "fn": handlers.compare,
        "inputs": [collection, session, state, k, nprobe, rerank, parts.box],
        "outputs": [subject, shown],
        "js": SEND_BOX,
        **QUEUED,
        "show_progress_on": shown,
    }
    opening.success(**comparing)
    gr.on([k.release, nprobe.release, rerank.input], **comparing)
    explaining = shown.explain(handlers.explain, [collection, state, k, nprobe, rerank], parts.tabs, **UNQUEUED)
    explaining.failure(None, js=AFTER_ERROR)
    outputs = [nprobe, subject, shown]
    collection.change(handlers.choose_collection, [collection, state], outputs, **UNQUEUED)
    parts.watch.changed(handlers.follow_library, [collection, state], outputs, **UNQUEUED)


def _subject(session: Session, query: QueryPicture | None, filter: Filter | None = None) -> str:
    """What is compared, among which pictures, and what is not: words do not depend on the engine."""
    has_words = session.last is not None and bool(session.last.words)
    if query is None:
        return about(None, WORDS_ALONE if has_words else NO_PICTURE)
    among = "" if filter is None or filter.where is None else f"among {filter}"
    notes = [note for note in (among, WORDS_LEFT_OUT if has_words else "") if note]
    return about(query, note=", ".join(notes))


def _options(engine: SearchEngine, key: str, k: float, nprobe: float, rerank: bool) -> SearchOptions:
    # What an index finds is compared, and the order of neighbours would be the same for all of them.
    return SearchOptions(key, whole(k, 1, MAX_K), whole(nprobe, 1, engine.nlist or 1), bool(rerank), neighbourhood=0)


def answers(engine: SearchEngine, compared: Mapping[str, Compared], k: int) -> str:
    """HTML of what every engine found."""
    truth = compared["exact"].ids
    return render(
        "compare/answers.html",
        k=k,
        rows=[_row(engine, name, one, len(truth)) for name, one in compared.items()],
        overlap=_overlap(compared),
        columns=[_column(engine, name, compared) for name in compared],
    )


def _row(engine: SearchEngine, name: str, compared: Compared, true: int) -> dict[str, Any]:
    answer = compared.answer
    return {
        "engine": name,
        "name": engine_name(engine, name),
        "recall": compared.recall,
        "found": round(compared.recall * true),
        "true": true,
        "search_ms": answer.search_ms,
        "again": f"{answer.rerank_ms:.2f} ms, {answer.reranked} pictures" if answer.reranked else "–",
    }


def _overlap(compared: Mapping[str, Compared]) -> dict[str, int] | None:
    if not {"ivfpq", "faiss"} <= compared.keys():
        return None
    ours, theirs = compared["ivfpq"].ids, compared["faiss"].ids
    return {"both": len(ours & theirs), "ours": len(ours - theirs), "theirs": len(theirs - ours)}


def _column(engine: SearchEngine, name: str, compared: Mapping[str, Compared]) -> dict[str, Any]:
    truth = compared["exact"].ids
    tiles = []
    for hit in compared[name].answer:
        asked = name
        if name == "exact":
            missed = [other for other in compared if hit.id not in compared[other].ids]
            named = " and ".join(engine_name(engine, other) for other in missed)
            kind, said = ("missed", f"missed by {named}") if missed else ("true", "found by all")
            asked = next(iter(missed or compared))  # what is to be explained is why it was missed
        elif hit.id in truth:
            kind, said = "true", "a true neighbour"
        else:
            kind, said = "false", "not among the true neighbours"
        label = ", ".join(hit.labels) or hit.path.name
        tiles.append(
            {
                "id": hit.id,
                "rank": hit.rank,
                "kind": kind,
                "asked": asked,
                "title": f"{hit.rank}. {label}, {hit.score:.3f}: {said}",
                "thumb": picture_url(engine, hit.id, "thumb"),
            }
        )
    legend = "the truth; dashed: missed by another" if name == "exact" else "green: a true neighbour"
    return {"engine": name, "name": engine_name(engine, name), "legend": legend, "tiles": tiles}


TAB = Tab("compare", "Compare", build)
