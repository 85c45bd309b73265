"""What the tabs beside search are about: a query of the visitor's, and a search with it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.crop import READ_BOX
from gradio_app.page import UNQUEUED, sorry
from gradio_app.session import Query, Result
from search.engine import SearchEngine
from search.errors import EngineError
from search.options import SearchOptions

NO_PICTURE = "Choose a picture on the Search tab first, then come back."
# Sent with every event whose last input is `SearchTab.box`.
SEND_BOX = f"(...values) => [...values.slice(0, -1), {READ_BOX}]"

# How a listener that takes a moment is bound; see `page.UNQUEUED`. These may wait for one another.
QUEUED: dict[str, Any] = {**UNQUEUED, "show_progress": "minimal", "queue": True, "postprocess": True}


@dataclass(frozen=True)
class ExplainRequest:
    """A search to explain, among pictures with these labels, and the picture in question: the best hit, if None."""

    engine: SearchEngine
    query: Query
    options: SearchOptions
    labels: tuple[str, ...] = ()
    id: int | None = None

    @property
    def filter(self) -> dict[str, tuple[str, ...]] | None:
        """As `SearchEngine.search` takes it."""
        return {"label": self.labels} if self.labels else None


@dataclass
class ExplainState:
    """What a visitor looks at in the tabs beside search. As `session.Session`, it is changed in place.

    Attributes
    ----------
    compared : (SearchEngine, Query) or None
        What the Compare tab shows.
    asked : ExplainRequest or None
        What the Explain tab is to show when it is opened.
    shown : ExplainRequest or None
        What it shows.
    result : Result or None
        The search whose explanation was shown when the tab was last opened.
    """

    compared: tuple[SearchEngine, Query] | None = None
    asked: ExplainRequest | None = None
    shown: ExplainRequest | None = None
    result: Result | None = None


def encode(engine: SearchEngine, query: Query) -> tuple[np.ndarray, int | None]:
    """Vector and own id of a query, as `SearchEngine.encode`; what goes wrong is told in a sentence."""
    try:
        # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
        return engine.encode(query.path if query.box is None else query.pixels())
    except (EngineError, EncoderError, ImageError) as error:
        raise sorry(str(error)) from error


def about(query: Query | None) -> str:
    """HTML that says which picture a tab is about."""
    if query is None:
        return f'<div class="ris-about"><span class="ris-none"></span><p>{NO_PICTURE}</p></div>'
    part = "" if query.box is None else ", the part in the box"
    return (
        f'<div class="ris-about"><img src="{query.thumbnail()}" alt=""><p><b>{escape(query.name)}</b>{part}</p></div>'
    )


def is_image(engine: SearchEngine, id: object) -> bool:
    """Whether a page may name this as a picture of the collection."""
    items = engine.store.items
    return type(id) is int and 0 <= id < len(items) and items[id].error is None
