"""What is known of a picture's file, over HTTP: where it lies, its size and dates, what its camera wrote, its list.

Where a file lies on the server is told to who may manage collections; others are told where in the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from starlette.routing import BaseRoute

from features.images import ImageError
from features.images.exif import Exif, read_exif
from gradio_app.markup import render
from gradio_app.routes.access import EditPermission, StartToken, require_login
from gradio_app.routes.pictures import folder_of, read_item
from gradio_app.routes.words import NOW, collection_of_picture, in_words
from search.engine import SearchEngine
from search.inverted_file import InvertedFile


def detail_routes(engines: Mapping[str, SearchEngine], token: StartToken, *, is_managed: bool) -> list[BaseRoute]:
    """Routes of the details of the pictures of `engines` (by collection name); `is_managed` as `word_routes`."""
    router = APIRouter(prefix="/details/{collection}/{image_id}", dependencies=[Depends(require_login)])

    manages = EditPermission(token, is_managed=is_managed)

    # A plain function, not a coroutine: the file is read in the server's thread pool.
    @router.get("")
    def read(request: Request, collection: str, image_id: int, content: str = "") -> Response:
        engine = collection_of_picture(engines, collection, image_id, content)
        with in_words():
            return HTMLResponse(details_of(engine, image_id, with_path=manages(request)), headers=NOW)

    return list(router.routes)


def details_of(engine: SearchEngine, image_id: int, *, with_path: bool) -> str:
    """HTML of the details of a picture."""
    store = engine.store
    (record,) = store.records([image_id])
    try:
        exif = read_exif(read_item(engine, image_id))
    except ImageError:  # its place says so
        exif = Exif({})
    return render(
        "details.html",
        path=str(folder_of(engine).root / record.path if with_path else record.path),
        is_whole=with_path,
        bytes=record.size,
        changed=datetime.fromtimestamp(record.mtime / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sha256=record.sha256,
        exif=exif,
        place=_place_in_index(engine, image_id),
    )


def _place_in_index(engine: SearchEngine, image_id: int) -> tuple[int, int, int] | None:
    """The number of a picture's list in the index, how many others are in it, and how many lists there are."""
    file = next((InvertedFile.of(engine.index(name)) for name in engine.engines[:1] if name != "exact"), None)
    if file is None:
        return None
    (number,), _ = file.cells.codes_of([image_id])
    return int(number), len(file.cells.lists.view.list_ids(int(number))) - 1, file.cells.nlist
