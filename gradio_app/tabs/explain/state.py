"""What a visitor's session holds of the tabs that explain a search."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradio_app.session import QueryPicture, Result
from search.engine import SearchEngine
from search.filters import Filter
from search.options import SearchOptions


@dataclass(frozen=True)
class ExplainRequest:
    """A search to explain, among the pictures of a filter, and the picture in question: the best hit, if None.

    Of a search by words, or by several parts, `result` is what it gave.
    """

    engine: SearchEngine
    query: QueryPicture | None
    options: SearchOptions
    filter: Filter = field(default_factory=Filter)
    id: int | None = None
    result: Result | None = None


@dataclass
class ExplainState:
    """What a visitor looks at in the tabs beside search. As `session.Session`, it is changed in place.

    Attributes
    ----------
    compared : (SearchEngine, QueryPicture, Filter) or None
        What the Compare tab shows.
    asked : ExplainRequest or None
        What the Explain tab is to show when it is opened.
    shown : ExplainRequest or None
        What it shows.
    result : Result or None
        The search whose explanation was shown when the tab was last opened.
    """

    compared: tuple[SearchEngine, QueryPicture, Filter] | None = None
    asked: ExplainRequest | None = None
    shown: ExplainRequest | None = None
    result: Result | None = None
