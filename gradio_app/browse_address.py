"""What is leafed through, as the query of a URL: part of the page's address, beside that of a search.

The server writes each address that a click leads to, and `static/browse.js` only follows them. It may have been typed
by anyone: what makes no sense in it counts as not said.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from gradio_app.gradio_seam import MAX_TEXT
from search.errors import QueryError
from search.filters import Filter
from search.orders import MAX_SEED, ORDERS, RANDOM

NAMES = ("tab", "where", "order", "seed", "leaf", "tile")
"""Of its parts of an address."""

TAB = "browse"
TILES = {"small": "Small", "usual": "Medium", "large": "Large"}
MAX_ADDRESS = 16 * MAX_TEXT


@dataclass(frozen=True)
class BrowseAddress:
    """What an address says.

    Attributes
    ----------
    filter : Filter
        What is shown.
    order : str
        One of `search.orders.ORDERS`.
    seed : int
        Of the random order.
    leaf : int
        The page, from 1.
    tile : str
        One of `TILES`: how large the pictures are.
    """

    filter: Filter = field(default_factory=Filter)
    order: str = "collection"
    seed: int = 0
    leaf: int = 1
    tile: str = "usual"

    def written(self, **changes: Any) -> str:
        """The query of a URL, without its question mark, with some of it changed; what is as usual is left out."""
        new = replace(self, **changes)
        where = new.filter.to_json()
        said = {
            "tab": TAB,
            "where": json.dumps(where, ensure_ascii=False, separators=(",", ":")) if where else "",
            "order": "" if new.order == "collection" else new.order,
            "seed": new.seed if new.order == RANDOM else "",
            "leaf": "" if new.leaf == 1 else new.leaf,
            "tile": "" if new.tile == "usual" else new.tile,
        }
        return urlencode({name: value for name, value in said.items() if value != ""}, errors="replace")

    @classmethod
    def read(cls, query: object) -> BrowseAddress:
        """What the query of a URL says."""
        text = query.removeprefix("?") if isinstance(query, str) else ""
        try:
            values = parse_qs(text[:MAX_ADDRESS], max_num_fields=1000)
        except ValueError:  # too many fields
            values = {}
        said = {name: values[name][-1] for name in NAMES if name in values}
        order, tile = said.get("order", ""), said.get("tile", "")
        return cls(
            filter=_filter(said.get("where", "")),
            order=order if order in ORDERS else "collection",
            seed=min(_whole(said.get("seed")) or 0, MAX_SEED),
            leaf=max(_whole(said.get("leaf")) or 1, 1),
            tile=tile if tile in TILES else "usual",
        )


def _filter(text: str) -> Filter:
    try:
        return Filter.of(json.loads(text)) if text else Filter()
    except (ValueError, RecursionError, QueryError):
        return Filter()


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None
