"""HTML of the tab: a leaf of pictures with what is shown and in which order, and the facets beside it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from features.collection.conditions import Tree
from gradio_app.browse_address import TILES, BrowseAddress
from gradio_app.grid import Tile, render_tiles
from gradio_app.markup import render
from search.engine import SearchEngine
from search.facets import Choice, Facets, FacetValue, choose, without
from search.filters import Filter
from search.orders import MAX_SEED, ORDERS, RANDOM, PictureOrders

LEAF = 60
"""Pictures of a page."""

OPEN_AT_FIRST = ("label", "album", "tag")


@dataclass(frozen=True)
class Shelf:
    """What is kept of a collection that is leafed through."""

    engine: SearchEngine
    facets: Facets
    orders: PictureOrders

    @classmethod
    def of(cls, engine: SearchEngine) -> Shelf:
        return cls(engine, Facets(engine.store), PictureOrders(engine.store))


def leaf(shelf: Shelf, address: BrowseAddress, only: Sequence[int] | None = None) -> str:
    """A page of the pictures that an address asks for, or of the nearest one there is.

    Parameters
    ----------
    only : sequence of int, optional
        Ids of the pictures that are selected, where no others are to be shown.

    Raises
    ------
    QueryError
        The filter asks for what there is not.
    """
    engine = shelf.engine
    ids = address.filter.ids(engine.store)
    ids = engine.store.ids if ids is None else ids
    if only is not None:
        ids = np.intersect1d(ids, np.array(only, np.int64))
    pages = max(1, math.ceil(ids.size / LEAF))
    page = min(address.leaf, pages)
    begin = (page - 1) * LEAF
    shown = shelf.orders.ordered(ids, address.order, address.seed)[begin : begin + LEAF]
    tiles = render_tiles(engine, [Tile(id) for id in shown.tolist()], kind="leaf")
    first = {"leaf": 1}
    return render(
        "browse/leaf.html",
        name=engine.name,
        address=address.written(leaf=page),
        count=ids.size,
        total=len(engine.store.ids),
        sentence=str(address.filter).removeprefix("pictures "),
        is_filtered=address.filter.where is not None,
        is_selected=only is not None,
        everything=address.written(filter=Filter(), leaf=1),
        chips=[
            (_sentence(tree), address.written(filter=without(address.filter, tree), leaf=1))
            for tree in address.filter.conditions
        ],
        orders=[
            (title, address.written(order=order, **first), order == address.order) for order, title in ORDERS.items()
        ],
        shuffled=address.written(seed=(address.seed + 1) % MAX_SEED, **first) if address.order == RANDOM else "",
        sizes=[(title, address.written(tile=tile), tile == address.tile) for tile, title in TILES.items()],
        tile=address.tile,
        page=page,
        pages=pages,
        before=address.written(leaf=page - 1) if page > 1 else "",
        behind=address.written(leaf=page + 1) if page < pages else "",
        to_page=address.written(**first),
        tiles=Markup(tiles),
    )


def facets(shelf: Shelf, address: BrowseAddress, opened: Collection[str], whole: Collection[str]) -> str:
    """The facets of what an address asks for, opened ones with their counts. Raises QueryError as `leaf`."""
    found = shelf.facets.of(address.filter, opened, whole)
    return render(
        "browse/facets.html",
        facets=[
            {
                "field": facet.field,
                "title": facet.title,
                "is_open": facet.field in opened,
                "values": [_value(address, value) for value in facet.values],
                "more": facet.more,
                "is_whole": facet.field in whole,
            }
            for facet in found
        ],
    )


def _value(address: BrowseAddress, value: FacetValue) -> dict[str, object]:
    def chosen(choice: Choice) -> str:
        again = "" if value.choice == choice else choice
        return address.written(filter=choose(address.filter, value.tree, again), leaf=1)

    return {
        "text": value.text,
        "count": value.count,
        "choice": value.choice,
        "only": chosen("only"),
        "no": chosen("not"),
    }


def _sentence(tree: Tree) -> str:
    return str(Filter(where=tree)).removeprefix("pictures ")
