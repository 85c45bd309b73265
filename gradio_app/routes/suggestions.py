"""What a person may be about to type, over HTTP: asked while they type, and so small and quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute

from features.collection.errors import StoreError
from gradio_app.gradio_seam import MAX_TEXT
from gradio_app.markup import printable
from gradio_app.routes.access import require_login
from gradio_app.routes.pictures import collection_in
from search.engine import SearchEngine
from search.suggest import Suggester


def suggestion_routes(engines: Mapping[str, SearchEngine]) -> list[BaseRoute]:
    """The route that suggests how to go on with what is typed, of `engines` by collection name."""
    router = APIRouter(dependencies=[Depends(require_login)])
    suggesters: WeakKeyDictionary[SearchEngine, Suggester] = WeakKeyDictionary()

    # A plain function, not a coroutine: sqlite is waited for in the server's thread pool.
    @router.get("/suggestions/{collection}")
    def suggest(collection: str, typed: Annotated[str, Query(max_length=MAX_TEXT)] = "") -> Response:
        engine = collection_in(engines, collection)
        suggester = suggesters.get(engine) or suggesters.setdefault(engine, Suggester(engine.store))
        try:
            found = suggester.suggest(typed)
        except StoreError:  # what is wrong with it shows where more than a suggestion is asked for
            found = []
        shown = [each for each in map(dataclasses.asdict, found) if printable(each["text"]) == each["text"]]
        return JSONResponse(shown, headers={"Cache-Control": "no-store"})

    return list(router.routes)
