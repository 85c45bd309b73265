"""The pictures of a collection as points, over HTTP: numbers in binary form, and pictures as pieces of the page.

Coordinates and lists are arrays in the order of the picture ids, little-endian, one behind the other. They follow from
the manifest of the collection, whose version their addresses carry, so a browser keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from numpy.typing import NDArray
from starlette.routing import BaseRoute

from features.collection.facet_columns import label_column
from gradio_app.browse_address import BrowseAddress
from gradio_app.grid import Tile, render_tiles
from gradio_app.markup import STATIC, printable
from gradio_app.routes.access import require_login
from gradio_app.routes.per_collection import PerCollection
from gradio_app.routes.pictures import KEEP, collection_in, contents_of, version_of
from gradio_app.routes.selection import PictureIds
from gradio_app.routes.words import NOW, in_words
from gradio_app.tabs.controls import engine_name, is_image
from search.engine import SearchEngine
from search.filters import Filter
from search.index_lists import FIELD, IndexLists, first_lists
from search.picture_map import PictureMap, map_of

COLOURED = 12
"""Labels that have a colour of their own: the most frequent ones."""
MAX_TILES = 60
SCRIPTS = ("regl.min.js", "pub-sub-es.js", "regl-scatterplot.min.js")

_ARRAYS = {**KEEP, "Content-Encoding": "identity"}  # numbers that hardly get smaller, at some 50 ms a megabyte


@dataclass(frozen=True, eq=False)
class DrawnMap:
    """What is sent of the map of a collection, made when it is first asked for."""

    engine: SearchEngine
    map: PictureMap

    @cached_property
    def first_lists(self) -> IndexLists | None:
        """Of the first engine that has lists."""
        return first_lists(self.engine.space())

    def lists(self, key: str) -> IndexLists | None:
        """Of an engine; of the first that has any where that one has none."""
        if self.first_lists is None or key in ("", self.first_lists.engine):
            return self.first_lists
        return IndexLists.of(self.engine.space(), key) or self.first_lists

    @cached_property
    def labels(self) -> list[tuple[str, int]]:
        """The most frequent labels, and how many pictures bear each."""
        return self._labels[0]

    @cached_property
    def points(self) -> bytes:
        """Ids (uint32), x and y (float32, from -1 to 1), and the place of the label in `labels`, from 1 (uint8)."""
        scaled = (self.map.points / self.map.reach).astype("<f4")
        arrays = (self.map.ids.astype("<u4"), scaled[:, 0], scaled[:, 1], self._labels[1])
        return b"".join(array.tobytes() for array in arrays)

    @cached_property
    def _labels(self) -> tuple[list[tuple[str, int]], NDArray[np.uint8]]:
        column, ids = label_column(self.engine.store.catalog), self.map.ids
        counts = np.bincount(column.codes, minlength=len(column.values))
        named = sorted(range(len(column.values)), key=lambda code: (-counts[code], str(column.values[code]).casefold()))
        colours = np.zeros(len(column.values) + 1, np.uint8)
        colours[named[:COLOURED]] = np.arange(1, len(named[:COLOURED]) + 1)
        of_picture = np.full(len(self.engine.store.features), len(column.values))
        of_picture[column.ids[::-1]] = column.codes[::-1]  # of several the first counts
        shown = [(printable(str(column.values[code])), int(counts[code])) for code in named[:COLOURED]]
        return shown, colours[of_picture[ids]]

    def centres(self, lists: IndexLists) -> list[list[float] | None]:
        """The middle of the points of each list; None of a list without pictures."""
        of = lists.of_pictures(self.map.ids)
        there, points = of >= 0, self.map.points / self.map.reach
        sums = [np.bincount(of[there], points[there, axis], lists.nlist) for axis in (0, 1)]
        counts = np.bincount(of[there], minlength=lists.nlist)
        middles = np.round(np.stack(sums, 1) / np.maximum(counts, 1)[:, None], 4)
        return [middle if count else None for middle, count in zip(middles.tolist(), counts.tolist(), strict=True)]


def map_routes(engines: Mapping[str, SearchEngine]) -> list[BaseRoute]:
    """Routes of the maps of `engines` (by collection name), and of the scripts that draw them."""
    router = APIRouter(dependencies=[Depends(require_login)])
    drawn = PerCollection(engines, lambda engine: DrawnMap(engine, map_of(engine.store)))

    # Plain functions, not coroutines: the map is computed in the server's thread pool.
    @router.get("/map/{collection}")
    def facts(collection: str, engine: str = "") -> Response:
        """What the page needs to know before it reads the numbers, and where these are."""
        with in_words():
            return JSONResponse(facts_of(drawn.of(collection), engine), headers=NOW)

    @router.get("/map/{collection}/points")
    def points(collection: str) -> Response:
        with in_words():
            return Response(drawn.of(collection).points, media_type="application/octet-stream", headers=_ARRAYS)

    @router.get("/map/{collection}/lists/{key}")
    def lists(collection: str, key: str) -> Response:
        """The list of each picture, int32; -1 of one that lies in none."""
        with in_words():
            shown = drawn.of(collection)
            found = shown.lists(key)
            if found is None or found.engine != key:
                raise HTTPException(404, "This index has no lists.")
            numbers = found.of_pictures(shown.map.ids).astype("<i4").tobytes()
        return Response(numbers, media_type="application/octet-stream", headers=_ARRAYS)

    @router.post("/map/{collection}/tiles")
    def tiles(collection: str, shown: PictureIds) -> Response:
        engine = collection_in(engines, collection)
        with in_words():
            ids = [id for id in shown.ids[:MAX_TILES] if is_image(engine, id)]
            return HTMLResponse(render_tiles(engine, map(Tile, ids), kind="points"), headers=NOW)

    @router.post("/map/{collection}/contents")
    def contents(collection: str, shown: PictureIds) -> Response:
        """What a selection of these pictures is: ids, each with `content_of`."""
        engine = collection_in(engines, collection)
        with in_words():
            return JSONResponse(list(contents_of(engine, shown.ids).items()), headers=NOW)

    @router.get("/vendored/{name}")
    def script(name: str) -> Response:
        if name not in SCRIPTS:
            raise HTTPException(404, "There is no such script.")
        return FileResponse(STATIC / "vendored" / name, media_type="text/javascript", headers=KEEP)

    return list(router.routes)


def facts_of(shown: DrawnMap, key: str = "") -> dict[str, Any]:
    """What the page draws a map with.

    Parameters
    ----------
    key : str, optional
        The engine whose lists are wanted. Where it has none, or none is named, those of the first that has.
    """
    engine, lists = shown.engine, shown.lists(key)
    place, version = f"map/{quote(engine.name, safe='')}", version_of(engine)
    has_index = any(name != "exact" for name in engine.engines)
    kind = engine_name(engine, engine.engines[0])
    told: dict[str, Any] = {
        "count": int(shown.map.ids.size),
        "points": f"{place}/points?v={version}",
        "labels": shown.labels,
        "lists": None,
        "without_lists": f"The index of this collection, {kind}, has no lists that could be shown here."
        if has_index
        else "This collection has no index with lists.",
    }
    if lists is not None:
        sizes = lists.sizes.tolist()
        before = "" if lists is shown.first_lists else f"{lists.engine}/"
        told["lists"] = {
            "engine": lists.engine,
            "title": engine_name(engine, lists.engine),
            "numbers": f"{place}/lists/{quote(lists.engine, safe='')}?v={version}",
            "sizes": sizes,
            "centres": shown.centres(lists),
            "addresses": [address_of(f"{before}{number}") for number in range(lists.nlist)],
        }
    return told


def address_of(index_list: str) -> str:
    """Where the Browse tab shows the pictures of a list."""
    return BrowseAddress(Filter.of({FIELD: index_list})).written()
