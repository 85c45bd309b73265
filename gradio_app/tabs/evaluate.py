"""The Evaluate tab: how well each engine searches the collection, judged by its labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from gradio_app.gradio_seam import sorry
from gradio_app.library import Library
from gradio_app.markup import render
from gradio_app.routes.pictures import picture_url
from gradio_app.tabs import Tab
from gradio_app.tabs.controls import (
    MAX_K,
    QUEUED,
    RERANK,
    UNQUEUED,
    PageParts,
    engine_choices,
    engine_name,
    engine_of,
    nprobe_slider,
    whole,
)
from search.engine import SearchEngine
from search.errors import EngineError
from search.evaluate import DEPTH, Confusion, Evaluation, evaluate
from search.options import SearchOptions

REFRESH = 0.5  # seconds between two updates of the page

Made = Mapping[str, tuple[Evaluation, float]]


@dataclass
class Run:
    """A visitor's evaluation under way. As `session.Session`, it is changed in place.

    Attributes
    ----------
    wanted : str
        "all" of it, "stop" after the queries under way, or "nothing": the page shows something else by now.
    """

    wanted: str = "all"


@dataclass
class EvaluateState:
    """What a visitor's session holds of the tab: the run that was started last."""

    run: Run = field(default_factory=Run)


class EvaluateHandlers:
    """What happens on the tab: an evaluation is started, and stopped."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def start(
        self, name: str, state: EvaluateState, chosen: list[str] | None, k: float, nprobe: float, rerank: bool
    ) -> Iterator[Any]:
        engine = engine_of(self.library, name)
        keys = [key for key in engine.engines if key in (chosen or ())]
        if not keys:
            raise sorry("Choose at least one engine to evaluate.")
        made: dict[str, tuple[Evaluation, float]] = {}
        state.run.wanted = "nothing"
        run = state.run = Run()
        yield gr.update(interactive=False), gr.update(interactive=True), report(engine, keys, made)
        told = time.perf_counter()
        try:
            for key in keys:
                started = time.perf_counter()
                options = SearchOptions(key, whole(k, 1, MAX_K), whole(nprobe, 1, engine.nlist or 1), bool(rerank))
                for evaluation in evaluate(engine, options):
                    now = time.perf_counter()
                    made[key] = evaluation, now - started
                    if run.wanted == "nothing":
                        return
                    if run.wanted == "stop":
                        yield *_ready(), report(engine, keys, made, stopped=True)
                        return
                    if now - told > REFRESH:
                        told = now
                        yield gr.skip(), gr.skip(), report(engine, keys, made)
        except EngineError as error:
            yield *_ready(), render("note.html", text=str(error))
            return
        yield *_ready(), report(engine, keys, made)

    def stop(self, state: EvaluateState) -> Any:
        """The run itself says how far it came: Gradio's cancelling would end it without a word, or in an error."""
        state.run.wanted = "stop"
        return gr.update(interactive=False)

    def choose_collection(self, name: str | None, state: EvaluateState) -> Any:
        state.run.wanted = "nothing"
        engine = self.library.get(name or "")
        return (
            gr.update(**_engine_boxes(engine)),
            gr.update(**nprobe_slider(engine)),
            *_ready(),
            render("evaluate/measures.html"),
        )


def build(parts: PageParts, tab: gr.Tab) -> None:
    handlers, collection, first = EvaluateHandlers(parts.library), parts.collection, parts.library.first()
    state = gr.State(EvaluateState())
    gr.HTML(render("evaluate/intro.html"), apply_default_css=False)
    with gr.Row(elem_classes="ris-controls"):
        names = gr.CheckboxGroup(**_engine_boxes(first), label="Engines", elem_id="ris-evaluate-engines")
        k = gr.Slider(1, MAX_K, 10, step=1, label="k of precision@k", elem_id="ris-evaluate-k", min_width=160)
        nprobe = gr.Slider(**nprobe_slider(first), elem_id="ris-evaluate-nprobe", min_width=160)
        rerank = gr.Checkbox(
            True,
            label="Re-rank",
            info=f"{RERANK}; takes longer",
            elem_id="ris-evaluate-rerank",
            min_width=160,
        )
    with gr.Row(elem_classes="ris-run"):
        start = gr.Button("Evaluate", variant="primary", elem_id="ris-evaluate-start", scale=0, min_width=140)
        stop = gr.Button("Stop", elem_id="ris-evaluate-stop", scale=0, min_width=100, interactive=False)
    shown = gr.HTML(render("evaluate/measures.html"), apply_default_css=False, elem_id="ris-evaluate")

    # One evaluation at a time, in a queue of its own: searches do not wait for it.
    start.click(
        handlers.start,
        [collection, state, names, k, nprobe, rerank],
        [start, stop, shown],
        concurrency_id="evaluate",
        concurrency_limit=1,
        show_progress_on=shown,  # tells who has to wait how many are before them
        **QUEUED,
    )
    stop.click(handlers.stop, state, stop, **UNQUEUED)
    outputs = [names, nprobe, start, stop, shown]
    collection.change(handlers.choose_collection, [collection, state], outputs, **UNQUEUED)


def _ready() -> tuple[Any, Any]:
    """Of the buttons Start and Stop."""
    return gr.update(interactive=True), gr.update(interactive=False)


def _engine_boxes(engine: SearchEngine | None) -> dict[str, Any]:
    choices = engine_choices(engine) if engine else []
    return {"choices": choices, "value": [key for _, key in choices]}


def report(engine: SearchEngine, chosen: list[str], made: Made, *, stopped: bool = False) -> str:
    """HTML of what is known so far, which is all there will be where the visitor stopped it."""
    evaluations = [evaluation for evaluation, _ in made.values()]
    return render(
        "evaluate/report.html",
        stopped=stopped,
        share=sum(e.done / e.total for e in evaluations) / len(chosen),
        k=next((e.k for e in evaluations), None),
        depth=DEPTH,
        rows=[_row(engine, key, made) for key in chosen],
        worst=[
            {
                "engine": e.engine,
                "name": engine_name(engine, e.engine),
                "first": at == 0,
                "confusions": [_confusion(engine, confusion) for confusion in e.worst],
            }
            for at, e in enumerate(evaluations)
            if e.worst
        ],
    )


def _row(engine: SearchEngine, key: str, made: Made) -> dict[str, Any]:
    result, seconds = made.get(key, (None, 0.0))
    return {"engine": key, "name": engine_name(engine, key), "result": result, "seconds": seconds}


def _confusion(engine: SearchEngine, confusion: Confusion) -> dict[str, Any]:
    items = engine.store.items
    return {
        "label": confusion.label,
        "right": confusion.right,
        "asked": confusion.asked,
        "others": ", ".join(f"{label} ({count})" for label, count in confusion.mistaken_for),
        "pictures": [
            {
                "thumb": picture_url(engine, id, "thumb"),
                "labels": ", ".join(items[id].labels),
                "name": items[id].path.name,
            }
            for id in confusion.example
        ],
    }


TAB = Tab("evaluate", "Evaluate", build)
