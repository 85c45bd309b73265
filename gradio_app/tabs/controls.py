"""What the tabs share: the parts of the page that they read, how listeners are bound, and controls of the same kind."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.crop import READ_BOX
from gradio_app.gradio_seam import sorry
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.markup import render, script
from gradio_app.routes.access import StartToken
from gradio_app.session import QueryPicture
from search.engine import SearchEngine
from search.errors import EngineError

MAX_K = 50
RERANK = "Rank the 10 k best again by their stored vectors"
NO_PICTURE = "Choose a picture on the Search tab first, then come back."
# Sent with every event whose last input is `PageParts.box`.
SEND_BOX = f"(...values) => [...values.slice(0, -1), {READ_BOX}]"
# What follows an error: whatever the visitor clicked in the meantime; see static/ask.js.
AFTER_ERROR = "() => document.dispatchEvent(new Event('ris-failed'))"

# How a listener without a progress bar is bound. Private: callable from the page only, and not listed in an API.
# always_last: of clicks that come faster than answers the last one counts. By default it would be dropped.
# No queue: the answer comes with the request itself. Through Gradio's queue it would take a second request that waits
# for it and a round of bookkeeping, several times the work of a search.
# No pre- and postprocessing: the values of our components are what the page sends and what it shows, and Gradio would
# send each of them to another thread and back to find that out. `gradio_seam.check_values` says what their types are;
# handlers cannot rely on a value being one of the choices that the page offers.
# What a handler changes of a component it says by `gr.update`: of a component that it made itself Gradio would take the
# arguments only, and make it once more.
UNQUEUED: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "queue": False,
    "preprocess": False,
    "postprocess": False,
}
# How a listener that takes a moment is bound. These may wait for one another.
QUEUED: dict[str, Any] = {**UNQUEUED, "show_progress": "minimal", "queue": True, "postprocess": True}


@dataclass(frozen=True)
class PageParts:
    """What every tab is given.

    Attributes
    ----------
    library : Library
    jobs : CollectionJobs or None
        None where the page only searches.
    token : StartToken
    collection : gr.Dropdown
        Its value is the name of the chosen collection; `engine_of` gives the engine.
    session : gr.State
        Holds a `session.Session`. It is an input only, and changed in place: see there.
    explain_state : gr.State
        Holds an `explain.state.ExplainState`, likewise.
    tabs : gr.Tabs
    watch : gr.HTML
        Triggers `changed` when a collection was made, brought up to date or deleted, by whomever.
    box : gr.Textbox
        An input for listeners whose `js` puts `crop.READ_BOX` in its place.
    grids : list of gr.HTML
        Every `grid.picture_grid` whose pictures can be searched with and explained; a tab adds its own.
    """

    library: Library
    jobs: CollectionJobs | None
    token: StartToken
    collection: gr.Dropdown
    session: gr.State
    explain_state: gr.State
    tabs: gr.Tabs
    watch: gr.HTML
    box: gr.Textbox
    grids: list[gr.HTML] = field(default_factory=list)


def collection_chooser(library: Library, chosen: str) -> dict[str, Any]:
    """Arguments of the chooser of collections, with one chosen if it is there."""
    choices = [(f"{name} · {len(engine.store.ids):,} pictures", name) for name, engine in library.items()]
    names = [name for _, name in choices]
    return {
        "choices": choices,
        "value": chosen if chosen in names else next(iter(names), None),
        "filterable": len(names) > 8,
    }


def engine_of(library: Library, name: str | None) -> SearchEngine:
    """The engine of the chosen collection, or a sentence to the visitor where it has been deleted meanwhile."""
    engine = library.get(name or "")
    if engine is None:
        raise sorry(f"The collection {name} is no longer there. Choose another.")
    return engine


def whole(value: float | None, low: int, high: int) -> int:
    """A number of a slider as a whole one in its range; the lowest where there is none."""
    return low if value is None else int(min(max(value, low), high))


def encode(engine: SearchEngine, query: QueryPicture) -> tuple[np.ndarray, int | None]:
    """Vector and own id of a query, as `SearchEngine.encode`; what goes wrong is told in a sentence."""
    try:
        return engine.encode_part(query.part(), engine.space())
    except (EngineError, EncoderError, ImageError) as error:
        raise sorry(str(error)) from error


def about(query: QueryPicture | None, no_picture: str = NO_PICTURE, *, note: str = "") -> str:
    """HTML that says which picture a tab is about."""
    return render("about.html", query=query, no_picture=no_picture, note=note)


def is_image(engine: SearchEngine, id: object) -> bool:
    """Whether a page may name this as a picture of the collection."""
    items = engine.store.items
    return type(id) is int and 0 <= id < len(items) and items[id].error is None


def clickable(**kwargs: Any) -> gr.HTML:
    """HTML whose pictures with ``data-explain`` can be clicked: it triggers `explain` (``{id, engine}``)."""
    # "${value}": see crop.crop_overlay.
    return gr.HTML(
        "", html_template="${value}", js_on_load=script("ask.js", "explain.js"), apply_default_css=False, **kwargs
    )


def engine_name(engine: SearchEngine, key: str) -> str:
    """What an engine of a collection is, for people: "IVFPQ (ours)", "faiss", "Flat (ours)" where it has no lists."""
    made = engine.store.manifest.get("indexes", {}).get(key)
    if made is None:
        return key
    kind = "IVFPQ" if re.search(r"(^|,)IVF\d+,PQ\d", made["factory"]) else made["factory"]
    if key == "ivfpq":
        return f"{kind} (ours)"
    return key if kind == "IVFPQ" else f"{key} {kind}"


def engine_choices(engine: SearchEngine | None) -> list[tuple[str, str]]:
    """The engines of a collection, by their names for people."""
    return [(engine_name(engine, key), key) for key in engine.engines] if engine else [("exact", "exact")]


def engine_radio(engine: SearchEngine | None) -> dict[str, Any]:
    """Arguments of a radio button for the engine."""
    choices = engine_choices(engine)
    return {"choices": choices, "value": choices[0][1]}


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
