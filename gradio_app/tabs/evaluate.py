"""The Evaluate tab: how well each engine searches the collection, judged by its labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import gradio as gr

from gradio_app.library import Library
from gradio_app.page import UNQUEUED, Shared, engine_of, sorry
from gradio_app.routes.pictures import picture_url
from gradio_app.tabs.compare import MAX_K, RERANK, nprobe_slider
from gradio_app.tabs.controls import QUEUED
from gradio_app.tabs.search import ENGINE_NAMES
from search.engine import SearchEngine
from search.errors import EngineError
from search.evaluate import DEPTH, Confusion, Evaluation, evaluate
from search.options import SearchOptions

REFRESH = 0.5  # seconds between two updates of the page

_INTRO = (
    "Every picture of the collection is searched with, in random order, and left out of its own results. A hit is "
    "right if it bears a label of the query's. So the figures tell how well the vectors and the index bring together "
    "what people gave the same name."
)
_MEASURES = (
    "<b>Precision@k</b> is the share of right hits among the first k. <b>mAP@100</b> looks at the first 100 hits and "
    "rewards right ones that come early. <b>1-NN accuracy</b> is how often the very first hit is right."
)


def evaluate_tab(library: Library, shared: Shared) -> None:
    """Build the tab's content and wire it."""
    collection, first = shared.collection, library.first()
    gr.HTML(f'<p class="ris-intro">{_INTRO}</p>', apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        names = gr.CheckboxGroup(**_engine_boxes(first), label="Engines", elem_id="ris-evaluate-engines")
        k = gr.Slider(1, MAX_K, 10, step=1, label="k of precision@k", elem_id="ris-evaluate-k", min_width=160)
        nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-evaluate-nprobe", min_width=160)
        rerank = gr.Checkbox(
            False,
            label="Re-rank",
            info=f"{RERANK}; takes longer",
            elem_id="ris-evaluate-rerank",
            min_width=160,
        )
    with gr.Row(elem_classes="ris-run"):
        start = gr.Button("Evaluate", variant="primary", elem_id="ris-evaluate-start", scale=0, min_width=140)
        stop = gr.Button("Stop", elem_id="ris-evaluate-stop", scale=0, min_width=100, interactive=False)
    report = gr.HTML(f'<p class="ris-note">{_MEASURES}</p>', apply_default_css=False, elem_id="ris-evaluate")

    def on_start(name: str, chosen: list[str], k: float, nprobe: float, rerank: bool) -> Iterator[Any]:
        engine = engine_of(library, name)
        chosen = [key for key in engine.engines if key in chosen]
        if not chosen:
            raise sorry("Choose at least one engine to evaluate.")
        made: dict[str, tuple[Evaluation, float]] = {}
        yield gr.update(interactive=False), gr.update(interactive=True), _report(engine, chosen, made)
        told = time.perf_counter()
        try:
            for key in chosen:
                started = time.perf_counter()
                options = SearchOptions(key, int(k), int(nprobe), bool(rerank))
                for evaluation in evaluate(engine, options):
                    now = time.perf_counter()
                    made[key] = evaluation, now - started
                    if now - told > REFRESH:
                        told = now
                        yield gr.skip(), gr.skip(), _report(engine, chosen, made)
        except EngineError as error:
            yield (
                gr.update(interactive=True),
                gr.update(interactive=False),
                f'<p class="ris-note">{escape(str(error))}</p>',
            )
            return
        yield gr.update(interactive=True), gr.update(interactive=False), _report(engine, chosen, made)

    def on_stop() -> Any:
        return gr.update(interactive=True), gr.update(interactive=False)

    def on_collection(name: str) -> Any:
        engine = library.get(name)
        return (
            gr.update(**_engine_boxes(engine)),
            gr.update(**nprobe_slider(engine)),
            *on_stop(),
            f'<p class="ris-note">{_MEASURES}</p>',
        )

    # One evaluation at a time, in a queue of its own: searches do not wait for it.
    running = start.click(
        on_start,
        [collection, names, k, nprobe, rerank],
        [start, stop, report],
        concurrency_id="evaluate",
        concurrency_limit=1,
        show_progress_on=report,  # tells who has to wait how many are before them
        **QUEUED,
    )
    stop.click(on_stop, None, [start, stop], cancels=[running], **UNQUEUED)
    collection.change(
        on_collection,
        collection,
        [names, nprobe, start, stop, report],
        cancels=[running],
        **UNQUEUED,
    )


def _engine_boxes(engine: SearchEngine | None) -> dict[str, Any]:
    keys = engine.engines if engine else ()
    return {"choices": [(ENGINE_NAMES[key], key) for key in keys], "value": list(keys)}


def _report(engine: SearchEngine, chosen: list[str], made: Mapping[str, tuple[Evaluation, float]]) -> str:
    share = sum(evaluation.done / evaluation.total for evaluation, _ in made.values()) / len(chosen)
    done = share == 1
    k = next((evaluation.k for evaluation, _ in made.values()), None)
    rows = "".join(_row(key, made.get(key)) for key in chosen)
    precision = "Precision@k" if k is None else f"Precision@{k}"
    bar = f'<progress max="1" value="{share:.4f}" aria-label="Progress of the evaluation"></progress>'
    return (
        f'<div class="ris-progress" data-done="{str(done).lower()}">{bar}<span>{100 * share:.0f} %</span></div>'
        f'<div class="ris-scroll"><table class="ris-table"><thead><tr><th>Engine</th><th>{precision}</th>'
        f"<th>mAP@{DEPTH}</th><th>1-NN accuracy</th><th>Pictures asked</th><th>Time</th></tr></thead>"
        f'<tbody>{rows}</tbody></table></div><p class="ris-note">{_MEASURES}</p>'
        + "".join(_worst(engine, evaluation, at == 0) for at, (evaluation, _) in enumerate(made.values()))
    )


def _row(key: str, made: tuple[Evaluation, float] | None) -> str:
    if made is None:
        return f'<tr data-engine="{key}"><th>{ENGINE_NAMES[key]}</th><td colspan="5">waiting</td></tr>'
    e, seconds = made
    asked = f"{e.done:,}" if e.done == e.total else f"{e.done:,} of {e.total:,}"
    return (
        f'<tr data-engine="{key}"><th>{ENGINE_NAMES[key]}</th><td>{e.precision:.3f}</td>'
        f"<td>{e.mean_average_precision:.3f}</td><td>{e.accuracy:.3f}</td><td>{asked}</td><td>{seconds:.1f} s</td></tr>"
    )


def _worst(engine: SearchEngine, evaluation: Evaluation, open_: bool) -> str:
    rows = "".join(_confusion(engine, confusion) for confusion in evaluation.worst)
    if not rows:
        return ""
    return (
        f'<details class="ris-worst" data-engine="{evaluation.engine}"{" open" if open_ else ""}>'
        f"<summary>{ENGINE_NAMES[evaluation.engine]}: the labels most often mistaken</summary>"
        '<div class="ris-scroll"><table class="ris-table"><thead><tr><th>Label</th><th>First hit right</th>'
        "<th>Mistaken for</th><th>A picture, and its wrong first hit</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _confusion(engine: SearchEngine, confusion: Confusion) -> str:
    others = ", ".join(f"{escape(label)} ({count})" for label, count in confusion.mistaken_for)
    pictures = " → ".join(
        f'<img src="{escape(picture_url(engine, id, "thumb"))}" loading="lazy" '
        f'alt="{escape(", ".join(engine.store.items[id].labels))}" title="{escape(engine.store.items[id].path.name)}">'
        for id in confusion.example
    )
    return (
        f"<tr><th>{escape(confusion.label)}</th><td>{confusion.right} of {confusion.asked}</td>"
        f'<td>{others}</td><td class="ris-pair">{pictures}</td></tr>'
    )
