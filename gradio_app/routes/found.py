"""How a search found its pictures: the page of docs/explainer over the search that an address names.

An address holds what was asked, as the page's own does, so that it can be reloaded and sent on; the numbers are
computed when they are asked for, and those of the last few searches are kept.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import gradio as gr
from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import FileResponse
from PIL import Image
from starlette.routing import BaseRoute

from gradio_app.library import Library
from gradio_app.page_address import PageAddress
from gradio_app.routes.access import require_login
from gradio_app.session import QueryPicture
from gradio_app.tabs.controls import encode
from search.engine import SearchEngine
from search.errors import EngineError
from search.explain.export import SearchRecord
from search.explain.page import FILES, PAGE, script, sprite
from search.options import SearchOptions

KEPT = 8  # searches, some 2 MB each
NO_STORE = {"Cache-Control": "no-store"}
GONE = "The search of this address cannot be shown any more: its picture or its collection is no longer there."


def found_url(engine: SearchEngine, query: QueryPicture, options: SearchOptions) -> str:
    """Where the page of a search is, relative to the app's."""
    upload = "" if query.source else f"{query.path.parent.name}/{query.path.name}"
    asked = PageAddress(
        collection=engine.name,
        picture=query.source,
        upload=upload,
        box=query.box,
        engine=options.engine,
        nprobe=options.nprobe,
    )
    named = base64.urlsafe_b64encode(asked.written().encode()).decode("ascii").rstrip("=")
    return f"found/{named}/index.html"


def found_routes(library: Library, uploads: Callable[[], Path]) -> list[BaseRoute]:
    """Routes of the pages of searches; `uploads` tells where pictures lie that visitors brought along."""
    router = APIRouter(prefix="/found/{asked}", dependencies=[Depends(require_login)])

    @lru_cache(maxsize=KEPT)
    def recorded(asked: str, engine: SearchEngine) -> tuple[str, bytes]:
        """`data.js` and the pictures. By the engine, too: a collection that changed has another."""
        address = _read(asked)
        picture = address.open_picture(library, uploads())
        if picture is None:
            raise EngineError(GONE)
        vector, own_id = encode(engine, picture)
        options = SearchOptions(address.engine or "ivfpq", nprobe=address.nprobe)
        shown = Image.fromarray(picture.pixels())
        record = SearchRecord(engine, vector, own_id, options, picture=shown, label=picture.name)
        sheet = io.BytesIO()
        sprite(record.thumbnails()).save(sheet, "WEBP", quality=74)
        return script(record.numbers), sheet.getvalue()

    def found(asked: str) -> tuple[str, bytes]:
        engine = library.get(_read(asked).collection)
        if engine is None:
            raise HTTPException(404, GONE)
        try:
            return recorded(asked, engine)
        except gr.Error as error:
            raise HTTPException(404, GONE) from error
        except EngineError as error:
            raise HTTPException(404, str(error)) from error

    # Plain functions, not coroutines: a search is recorded in the server's thread pool.
    @router.get("/data.js")
    def data(asked: str) -> Response:
        try:
            text = found(asked)[0]
        except HTTPException as error:  # a script, for the page to say it
            text = f"window.EXPLAINER={{problem:{json.dumps(str(error.detail)).replace('<', '')}}};\n"
        return Response(text, media_type="text/javascript", headers=NO_STORE)

    @router.get("/pictures.webp")
    def pictures(asked: str) -> Response:
        return Response(found(asked)[1], media_type="image/webp", headers=NO_STORE)

    @router.get("/{name}")
    def file(asked: str, name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(PAGE / name)

    return list(router.routes)


def _read(asked: str) -> PageAddress:
    try:
        text = base64.urlsafe_b64decode(asked + "=" * (-len(asked) % 4)).decode("utf-8")
    except (binascii.Error, ValueError):
        text = ""
    return PageAddress.read(text)
