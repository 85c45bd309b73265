"""Leafing through a collection over HTTP: pages of pictures, and facets with counts, as pieces of the page.

What is wanted is the address that the page has, or would have: see `browse_address`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from starlette.routing import BaseRoute

from gradio_app.browse_address import BrowseAddress
from gradio_app.routes.access import require_login
from gradio_app.routes.per_collection import PerCollection
from gradio_app.routes.selection import PictureIds
from gradio_app.routes.words import NOW, in_words
from gradio_app.tabs.browse import views
from gradio_app.tabs.browse.views import Shelf
from search.engine import SearchEngine
from search.errors import QueryError

MAX_OPEN = 100
Fields = Annotated[list[str], Query(max_length=MAX_OPEN)]


def browse_routes(engines: Mapping[str, SearchEngine]) -> list[BaseRoute]:
    """Routes to leaf through the collections of `engines` (by collection name)."""
    router = APIRouter(prefix="/browse/{collection}", dependencies=[Depends(require_login)])
    shelves = PerCollection(engines, Shelf.of)

    def answer(collection: str, request: Request, draw: Callable[[Shelf, BrowseAddress], str]) -> Response:
        with in_words():
            try:
                page = draw(shelves.of(collection), BrowseAddress.read(request.url.query))
            except QueryError as error:
                text = str(error)
                raise HTTPException(409, f"{text[:1].upper()}{text[1:]}.") from error
        return HTMLResponse(page, headers=NOW)

    # Plain functions, not coroutines: sqlite is waited for in the server's thread pool.
    @router.get("")
    def leaf(request: Request, collection: str) -> Response:
        return answer(collection, request, views.leaf)

    @router.post("")
    def selected(request: Request, collection: str, shown: PictureIds) -> Response:
        """A page of those pictures alone that are selected."""
        return answer(collection, request, lambda shelf, address: views.leaf(shelf, address, shown.ids))

    @router.get("/facets")
    def facets(request: Request, collection: str, open: Fields = [], whole: Fields = []) -> Response:  # noqa: B006
        return answer(collection, request, lambda shelf, address: views.facets(shelf, address, open, whole))

    return list(router.routes)
