"""The Compare tab: every engine's answer to the same query, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from gradio_app.compare import Answer, compare
from gradio_app.engine import SearchEngine
from gradio_app.tabs.subject import SEND_BOX, Choose, Held, encode, subject_view
from gradio_app.thumbs import picture_url

NAMES = {"ivfpq": "IVFPQ (ours)", "faiss": "faiss", "exact": "Exact search"}
SCRIPT = (Path(__file__).parents[1] / "static" / "explain.js").read_text(encoding="utf-8")
MAX_K = 50

_INTRO = (
    "The same picture, searched three ways. <b>Exact search</b> compares it with every picture, so it is the truth. "
    "<b>IVFPQ (ours)</b> and <b>faiss</b> look only into the nearest lists and compare codes of a few bytes: much "
    "faster, but some true neighbours are missed. <b>Recall</b> is the share of them that was found."
)


def compare_tab(
    engines: Mapping[str, SearchEngine],
    collection: gr.Dropdown,
    held: Held,
    choose: Choose,
) -> gr.HTML:
    """Build the tab inside the page's `gr.Tabs`.

    Parameters
    ----------
    engines : mapping of str to SearchEngine
        By collection name.
    collection : gr.Dropdown
        The collection chosen.
    held, choose
        The page's state of a visitor's query, and what makes of its values the picture to compare on.

    Returns
    -------
    gr.HTML
        The answers; they trigger `explain` (``{engine, id}``) when one is to be explained.
    """
    first = engines[collection.value]
    with gr.Tab("Compare", id="compare") as tab:
        gr.HTML(f'<p class="ris-intro">{_INTRO}</p>', apply_default_css=False)
        with gr.Row(elem_classes="ris-controls"):
            about = gr.HTML(subject_view(None), apply_default_css=False, elem_id="ris-compare-about")
            k = gr.Slider(1, MAX_K, 10, step=1, label="Results (k)", elem_id="ris-compare-k", min_width=180)
            nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-compare-nprobe", min_width=180)
            rerank = gr.Checkbox(
                False,
                label="Re-rank",
                info="Rank the 10 k best again by their stored vectors",
                elem_id="ris-compare-rerank",
                min_width=180,
            )
        # "${value}": see crop.crop_overlay.
        answers = gr.HTML(
            "", html_template="${value}", js_on_load=SCRIPT, apply_default_css=False, elem_id="ris-compare"
        )

    def on_compare(name: str, k: float, nprobe: float, rerank: bool, *held: Any) -> tuple[str, str]:
        chosen = choose(*held)
        if chosen is None:
            return subject_view(None), ""
        engine = engines[name]
        vector, own_id = encode(engine, chosen)
        found = compare(engine, vector, own_id, int(k), nprobe=int(nprobe), rerank=bool(rerank))
        return subject_view(chosen), _render(engine, found, int(k))

    def on_collection(name: str) -> tuple[Any, str, str]:
        return gr.Slider(**nprobe_slider(engines[name])), subject_view(None), ""

    gr.on(
        [tab.select, k.release, nprobe.release, rerank.input],
        on_compare,
        [collection, k, nprobe, rerank, *held],
        [about, answers],
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=answers,
        trigger_mode="always_last",
        js=SEND_BOX,
    )
    collection.change(
        on_collection, collection, [nprobe, about, answers], api_visibility="private", show_progress="hidden"
    )
    return answers


def nprobe_slider(engine: SearchEngine) -> dict[str, Any]:
    """Arguments of a slider for the number of lists to probe; hidden where there are none."""
    nlist = engine.nlist or 1
    return {
        "minimum": 1,
        "maximum": max(nlist, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist),
        "step": 1,
        "label": f"Lists probed, of {nlist} (nprobe)",
        "visible": nlist > 1,
    }


def _render(engine: SearchEngine, answers: Mapping[str, Answer], k: int) -> str:
    truth = answers["exact"].ids
    rows = "".join(_row(name, answer, len(truth), k) for name, answer in answers.items())
    head = f"<tr><th>Engine</th><th>Recall@{k}</th><th>True neighbours</th><th>Search</th><th>Re-rank</th></tr>"
    columns = "".join(_column(engine, name, answer, answers) for name, answer in answers.items())
    return (
        f'<div class="ris-scroll"><table class="ris-table"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        f'<p class="ris-note">{_overlap(answers)} Times are those of one query, encoding not counted.</p>'
        f'<div class="ris-columns">{columns}</div>'
    )


def _row(name: str, answer: Answer, true: int, k: int) -> str:
    found = round(answer.recall * true)
    again = f"{answer.hits.rerank_ms:.2f} ms, {answer.hits.reranked} pictures" if answer.hits.reranked else "–"
    return (
        f'<tr data-engine="{name}"><th>{NAMES[name]}</th><td><meter min="0" max="1" value="{answer.recall:.3f}" '
        f'aria-hidden="true"></meter> {answer.recall:.2f}</td><td>{found} of {true}</td>'
        f"<td>{answer.hits.search_ms:.2f} ms</td><td>{again}</td></tr>"
    )


def _overlap(answers: Mapping[str, Answer]) -> str:
    if not {"ivfpq", "faiss"} <= answers.keys():
        return ""
    ours, theirs = answers["ivfpq"].ids, answers["faiss"].ids
    return (
        f'<span class="ris-overlap">Ours and faiss have {len(ours & theirs)} pictures in common; '
        f"{len(ours - theirs)} are only ours, {len(theirs - ours)} only faiss's.</span>"
    )


def _column(engine: SearchEngine, name: str, answer: Answer, answers: Mapping[str, Answer]) -> str:
    truth = answers["exact"].ids
    tiles = []
    for hit in answer.hits:
        label = escape(", ".join(hit.labels) or hit.path.name)
        if name == "exact":
            missed = [NAMES[other] for other in answers if hit.id not in answers[other].ids]
            kind, said = ("missed", f"missed by {' and '.join(missed)}") if missed else ("true", "found by all")
        elif hit.id in truth:
            kind, said = "true", "a true neighbour"
        else:
            kind, said = "false", "not among the true neighbours"
        title = f"{hit.rank}. {label}, {hit.score:.3f}: {said}"
        tiles.append(
            f'<li class="ris-mini ris-is-{kind}"><button type="button" data-explain="{hit.id}" data-engine="{name}" '
            f'title="{title}. Explain it" aria-label="{title}. Explain it">'
            f'<img src="{escape(picture_url(engine, hit.id, "thumb"))}" alt="" loading="lazy">'
            f'</button><span class="ris-rank">{hit.rank}</span></li>'
        )
    legend = {
        "exact": "dashed: missed by an engine",
    }.get(name, "green: a true neighbour")
    shown = "".join(tiles) or '<li class="ris-note">Nothing found.</li>'
    return (
        f'<section data-engine="{name}"><h3>{NAMES[name]} <small>{legend}</small></h3>'
        f'<ol class="ris-minis">{shown}</ol></section>'
    )
