"""The Compare tab: every engine's answer to the same query, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from gradio_app.library import Library
from gradio_app.page import AFTER_ERROR, STATIC, UNQUEUED, Shared, engine_of, sorry
from gradio_app.routes.pictures import picture_url
from gradio_app.session import Session
from gradio_app.tabs.controls import NO_PICTURE, QUEUED, SEND_BOX, ExplainRequest, ExplainState, about, encode, is_image
from gradio_app.tabs.search import ENGINE_NAMES
from search.compare import Compared, compare
from search.engine import SearchEngine
from search.options import SearchOptions

SCRIPT = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("ask.js", "explain.js"))
MAX_K = 50
RERANK = "Rank the 10 k best again by their stored vectors"

_INTRO = (
    "The same picture, searched in every way. <b>Exact</b> search compares it with every picture, so it is the truth. "
    "<b>IVFPQ (ours)</b> and <b>faiss</b> look only into the nearest lists and compare codes of a few bytes: much "
    "faster, but some true neighbours are missed. <b>Recall</b> is the share of them that was found. "
    "Click a picture to see why it is there, or is not."
)


def compare_tab(library: Library, shared: Shared, tab: gr.Tab, box: gr.Textbox, state: gr.State) -> None:
    """Build the tab's content and wire it.

    Parameters
    ----------
    tab : gr.Tab
        The comparison is made when it is opened.
    box : gr.Textbox
        `SearchTab.box`.
    state : gr.State
        Holds a `ExplainState`.
    """
    collection, session, first = shared.collection, shared.session, library.first()
    gr.HTML(f'<p class="ris-intro">{_INTRO}</p>', apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        subject = gr.HTML(about(None), apply_default_css=False, elem_id="ris-compare-about")
        k = gr.Slider(1, MAX_K, 10, step=1, label="Results (k)", elem_id="ris-compare-k", min_width=180)
        nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-compare-nprobe", min_width=180)
        rerank = gr.Checkbox(False, label="Re-rank", info=RERANK, elem_id="ris-compare-rerank", min_width=180)
    answers = clickable(elem_id="ris-compare")

    def on_open(session: Session, drawn: str) -> str:
        return about(session.crop(drawn) or session.last)

    def on_compare(
        name: str, session: Session, state: ExplainState, k: float, nprobe: float, rerank: bool, drawn: str
    ) -> tuple[str, str]:
        engine, query = engine_of(library, name), session.crop(drawn) or session.last
        if query is None:
            return about(None), ""
        state.compared = engine, query
        vector, own_id = encode(engine, query)
        options = SearchOptions(k=int(k), nprobe=int(nprobe), rerank=bool(rerank))
        found = compare(engine, vector, own_id, options)
        return about(query), _render(engine, found, int(k))

    def on_explain(name: str, state: ExplainState, k: float, nprobe: float, rerank: bool, event: gr.EventData) -> Any:
        key, id = getattr(event, "engine", None), getattr(event, "id", None)
        if state.compared is None:
            raise sorry(NO_PICTURE)
        engine, query = state.compared
        if engine is not library.get(name) or key not in engine.engines or not is_image(engine, id):
            raise sorry("The collection has changed. Compare again.")
        state.asked = ExplainRequest(engine, query, SearchOptions(key, int(k), int(nprobe), bool(rerank)), id=id)
        return gr.update(selected="explain")

    def on_collection(name: str, state: ExplainState) -> Any:
        state.compared = None
        return gr.update(**nprobe_slider(library.get(name))), about(None), ""

    def on_changed(name: str, state: ExplainState) -> Any:
        if state.compared is None or state.compared[0] is library.get(name):
            return gr.skip(), gr.skip(), gr.skip()
        return on_collection(name, state)

    # In two steps: the first comparison takes a second, and meanwhile the tab should say what of.
    opening = tab.select(on_open, [session, box], subject, js=SEND_BOX, **UNQUEUED)
    comparing: dict[str, Any] = {
        "fn": on_compare,
        "inputs": [collection, session, state, k, nprobe, rerank, box],
        "outputs": [subject, answers],
        "js": SEND_BOX,
        **QUEUED,
        "show_progress_on": answers,
    }
    opening.success(**comparing)
    gr.on([k.release, nprobe.release, rerank.input], **comparing)
    explaining = answers.explain(on_explain, [collection, state, k, nprobe, rerank], shared.tabs, **UNQUEUED)
    explaining.failure(None, js=AFTER_ERROR)
    collection.change(on_collection, [collection, state], [nprobe, subject, answers], **UNQUEUED)
    shared.watch.changed(on_changed, [collection, state], [nprobe, subject, answers], **UNQUEUED)


def clickable(**kwargs: Any) -> gr.HTML:
    """HTML whose pictures with ``data-explain`` can be clicked: it triggers `explain` (``{id, engine}``)."""
    # "${value}": see crop.crop_overlay.
    return gr.HTML("", html_template="${value}", js_on_load=SCRIPT, apply_default_css=False, **kwargs)


def nprobe_slider(engine: SearchEngine | None) -> dict[str, Any]:
    """Arguments of a slider for the number of lists to probe; hidden where there are none."""
    nlist = engine.nlist or 1 if engine else 1
    return {
        "minimum": 1,
        "maximum": max(nlist, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist) if engine else 1,
        "step": 1,
        "label": f"Lists probed, of {nlist} (nprobe)",
        "visible": nlist > 1,
    }


def _render(engine: SearchEngine, answers: Mapping[str, Compared], k: int) -> str:
    truth = answers["exact"].ids
    rows = "".join(_row(name, answer, len(truth), k) for name, answer in answers.items())
    head = f"<tr><th>Engine</th><th>Recall@{k}</th><th>True neighbours</th><th>Search</th><th>Re-rank</th></tr>"
    columns = "".join(_column(engine, name, answer, answers) for name, answer in answers.items())
    return (
        f'<div class="ris-scroll"><table class="ris-table"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        f'<p class="ris-note">{_overlap(answers)} Times are those of one query, encoding not counted.</p>'
        f'<div class="ris-columns">{columns}</div>'
    )


def _row(name: str, compared: Compared, true: int, k: int) -> str:
    answer, found = compared.answer, round(compared.recall * true)
    again = f"{answer.rerank_ms:.2f} ms, {answer.reranked} pictures" if answer.reranked else "–"
    return (
        f'<tr data-engine="{name}"><th>{ENGINE_NAMES[name]}</th><td>'
        f'<meter min="0" max="1" value="{compared.recall:.3f}" aria-hidden="true"></meter> {compared.recall:.2f}</td>'
        f"<td>{found} of {true}</td><td>{answer.search_ms:.2f} ms</td><td>{again}</td></tr>"
    )


def _overlap(answers: Mapping[str, Compared]) -> str:
    if not {"ivfpq", "faiss"} <= answers.keys():
        return ""
    ours, theirs = answers["ivfpq"].ids, answers["faiss"].ids
    return (
        f'<span class="ris-overlap">Found by ours and by faiss: {len(ours & theirs)}; '
        f"by ours alone: {len(ours - theirs)}; by faiss alone: {len(theirs - ours)}.</span>"
    )


def _column(engine: SearchEngine, name: str, compared: Compared, answers: Mapping[str, Compared]) -> str:
    truth = answers["exact"].ids
    tiles = []
    for hit in compared.answer:
        label = escape(", ".join(hit.labels) or hit.path.name)
        asked = name
        if name == "exact":
            missed = [other for other in answers if hit.id not in answers[other].ids]
            named = " and ".join(ENGINE_NAMES[other] for other in missed)
            kind, said = ("missed", f"missed by {named}") if missed else ("true", "found by all")
            asked = next(iter(missed or answers))  # what is to be explained is why it was missed
        elif hit.id in truth:
            kind, said = "true", "a true neighbour"
        else:
            kind, said = "false", "not among the true neighbours"
        title = f"{hit.rank}. {label}, {hit.score:.3f}: {said}"
        tiles.append(
            f'<li class="ris-mini ris-is-{kind}"><button type="button" data-explain="{hit.id}" data-engine="{asked}" '
            f'title="{title}. Explain it" aria-label="{title}. Explain it">'
            f'<img src="{escape(picture_url(engine, hit.id, "thumb"))}" alt="" loading="lazy">'
            f'</button><span class="ris-rank">{hit.rank}</span></li>'
        )
    legend = "the truth; dashed: missed by another" if name == "exact" else "green: a true neighbour"
    shown = "".join(tiles) or '<li class="ris-note">Nothing found.</li>'
    return (
        f'<section data-engine="{name}"><h3>{ENGINE_NAMES[name]} <small>{legend}</small></h3>'
        f'<ol class="ris-minis">{shown}</ol></section>'
    )
