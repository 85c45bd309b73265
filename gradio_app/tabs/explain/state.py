"""What a visitor's session holds of the tabs that explain a search."""

from __future__ import annotations

from dataclasses import dataclass

from gradio_app.session import QueryPicture, Result
from search.engine import SearchEngine
from search.options import SearchOptions


@dataclass(frozen=True)
class ExplainRequest:
    """A search to explain, among pictures with these labels, and the picture in question: the best hit, if None.

    Of a search by words, or by several parts, `result` is what it gave.
    """

    engine: SearchEngine
    query: QueryPicture | None
    options: SearchOptions
    labels: tuple[str, ...] = ()
    id: int | None = None
    result: Result | None = None

    @property
    def filter(self) -> dict[str, tuple[str, ...]] | None:
        """As `SearchEngine.search` takes it."""
        return {"label": self.labels} if self.labels else None


@dataclass
class ExplainState:
    """What a visitor looks at in the tabs beside search. As `session.Session`, it is changed in place.

    Attributes
    ----------
    compared : (SearchEngine, QueryPicture) or None
        What the Compare tab shows.
    asked : ExplainRequest or None
        What the Explain tab is to show when it is opened.
    shown : ExplainRequest or None
        What it shows.
    result : Result or None
        The search whose explanation was shown when the tab was last opened.
    """

    compared: tuple[SearchEngine, QueryPicture] | None = None
    asked: ExplainRequest | None = None
    shown: ExplainRequest | None = None
    result: Result | None = None
