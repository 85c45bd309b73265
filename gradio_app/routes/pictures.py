"""The pictures of the collections over HTTP: thumbnails, a large view, and the original file to download.

A client names a collection and an image id; what it may read follows from the open collections alone, and no path
ever comes from outside. Under ``--auth`` every route asks who is calling, as Gradio's own routes do.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import FileResponse
from PIL import Image
from starlette.routing import BaseRoute

from features.images import ImageError, decode_image
from gradio_app.routes.access import require_login
from search.engine import SearchEngine

THUMB_SIDE = 256  # pixels, the longer side
VIEW_SIDE = 1600
CACHED_THUMBS = 4096  # some 15 kB each, so about 60 MB at most
# The address carries the collection's version, so a picture may be kept for a week and is never out of date.
# "private": under --auth no shared cache may hand it to someone else.
KEEP = {"Cache-Control": "private, max-age=604800", "X-Content-Type-Options": "nosniff"}


def picture_url(engine: SearchEngine, image_id: int, size: str) -> str:
    """Address of a picture of a collection, relative to the page so that it holds under any mount point or proxy.

    Parameters
    ----------
    size : str
        "thumb" (JPEG, at most 256 px), "view" (JPEG, at most 1600 px) or "original" (the file itself, as a download).
    """
    return f"pictures/{quote(engine.name, safe='')}/{int(image_id)}/{size}?v={_version(engine)}"


def picture_routes(engines: Mapping[str, SearchEngine]) -> list[BaseRoute]:
    """Routes that serve the pictures of `engines` (by collection name); they belong on Gradio's own app."""
    router = APIRouter(prefix="/pictures/{collection}/{image_id}", dependencies=[Depends(require_login)])

    def find(collection: str, image_id: int) -> Path:
        engine = engines.get(collection)
        if engine is None or not 0 <= image_id < len(engine.store.items):
            raise HTTPException(404, "There is no such picture.")
        path = engine.store.items[image_id].path
        if not path.is_file():
            raise HTTPException(404, "The file of this picture is no longer where it was when the collection was made.")
        return path

    # Plain functions, not coroutines: decoding runs in the server's thread pool and leaves the event loop free.
    @router.get("/thumb")
    def thumb(collection: str, image_id: int) -> Response:
        path = find(collection, image_id)
        try:
            return Response(_thumbnail(path, path.stat().st_mtime_ns), media_type="image/jpeg", headers=KEEP)
        except ImageError as error:
            raise HTTPException(404, "This picture cannot be read.") from error

    @router.get("/view")
    def view(collection: str, image_id: int) -> Response:
        try:
            return Response(shrink(find(collection, image_id), VIEW_SIDE), media_type="image/jpeg", headers=KEEP)
        except ImageError as error:
            raise HTTPException(404, "This picture cannot be read.") from error

    @router.get("/original")
    def original(collection: str, image_id: int) -> Response:
        path = find(collection, image_id)
        return FileResponse(path, filename=path.name, content_disposition_type="attachment", headers=KEEP)

    return list(router.routes)


def shrink(path: Path, side: int) -> bytes:
    """A picture as JPEG whose longer side is at most `side` pixels, upright whatever its EXIF says."""
    return to_jpeg(Image.fromarray(decode_image(path, min_side=side)), side)


def to_jpeg(picture: Image.Image, side: int) -> bytes:
    """JPEG bytes of a decoded picture, shrunk to `side` pixels on its longer side where it is larger."""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


@lru_cache(maxsize=CACHED_THUMBS)
def _thumbnail(path: Path, mtime_ns: int) -> bytes:
    """The file's time is part of the key: a picture that was replaced is not shown as it used to be."""
    return shrink(path, THUMB_SIDE)


def _version(engine: SearchEngine) -> str:
    """Eight hex digits that change when the collection is built anew: the same id may then be another picture."""
    manifest = engine.store.manifest
    known, version = _versions.get(engine.name, (None, ""))
    if known is not manifest:  # a change of the manifest replaces it
        version = hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()[:8]
        _versions[engine.name] = (manifest, version)
    return version


_versions: dict[str, tuple[object, str]] = {}  # by collection; a grid asks for each of its pictures
