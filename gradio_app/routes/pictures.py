"""The pictures of the collections over HTTP: thumbnails, a large view, and the original file to download.

A client names a collection and an image id; what it may read follows from the open collections alone, and no path
ever comes from outside. Under ``--auth`` every route asks who is calling, as Gradio's own routes do.
"""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import FileResponse, StreamingResponse
from PIL import Image
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from features.datasets import Item
from features.images import ImageError, decode_image
from features.picture_files import open_picture, read_picture
from gradio_app.markup import STATIC, printable
from gradio_app.routes.access import require_login
from search.engine import SearchEngine

THUMB_SIDE = 256  # pixels, the longer side
VIEW_SIDE = 1600
CONTENT_DIGITS = 16
CACHED_THUMBS = 4096  # some 15 kB each, so about 60 MB at most
# The address carries the collection's version, so a picture may be kept for a week and is never out of date.
# "private": under --auth no shared cache may hand it to someone else.
KEEP = {"Cache-Control": "private, max-age=604800", "X-Content-Type-Options": "nosniff"}
_UNREADABLE = "This picture cannot be read, or is no longer where it was when the collection was made."
_PIECE = 2**16  # bytes of a file that are sent at a time


def picture_url(engine: SearchEngine, image_id: int, size: str) -> str:
    """Address of a picture of a collection, relative to the page so that it holds under any mount point or proxy.

    Parameters
    ----------
    size : str
        "thumb" (JPEG, at most 256 px), "view" (JPEG, at most 1600 px) or "original" (the file itself, as a download).
    """
    return f"pictures/{quote(engine.name, safe='')}/{int(image_id)}/{size}?v={version_of(engine)}"


class PictureFolder(NamedTuple):
    """What the pictures of a collection are read from and below, whether links may lead out of it, and how many pixels
    one may have (None: as many as any other).
    """

    root: Path
    follow_links: bool = False
    max_pixels: int | None = None


def folder_of(engine: SearchEngine) -> PictureFolder:
    """The folder that all pictures of a collection are in."""
    manifest = engine.store.manifest
    source = manifest.get("source", {})
    megapixels = source.get("max_megapixels")
    max_pixels = None if megapixels is None else round(megapixels * 1e6)
    return PictureFolder(Path(manifest["root"]), source.get("follow_links") is True, max_pixels)


def read_item(engine: SearchEngine, image_id: int) -> bytes:
    """The file of a picture of a collection.

    Raises
    ------
    ImageError
        As `features.picture_files.read_picture`; also of one that is marked damaged.
    """
    item = _undamaged(engine, image_id)
    folder = folder_of(engine)
    return read_picture(folder.root, item.path, follow_links=folder.follow_links)


def content_of(engine: SearchEngine, image_id: int) -> str:
    """The first digits of the hash of a picture's file, by which a page names what it shows; "" where there is none."""
    return (engine.store.hash_of(image_id) or "")[:CONTENT_DIGITS]


def contents_of(engine: SearchEngine, image_ids: Sequence[int]) -> dict[int, str]:
    """`content_of` many pictures, read at once; of ids that are no picture's there is none."""
    return {record.id: (record.sha256 or "")[:CONTENT_DIGITS] for record in engine.store.records(image_ids)}


def collection_in(engines: Mapping[str, SearchEngine], name: str) -> SearchEngine:
    """An open collection by its name. Raises HTTPException 404 where there is none."""
    engine = engines.get(name)
    if engine is None:
        raise HTTPException(404, "There is no such collection.")
    return engine


def icon_route() -> BaseRoute:
    """The icon of the page; whoever may see the form to log in may see it."""

    async def icon(request: Request) -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    return Route("/icon.svg", icon)


def picture_routes(engines: Mapping[str, SearchEngine]) -> list[BaseRoute]:
    """Routes that serve the pictures of `engines` (by collection name); they belong on Gradio's own app."""
    router = APIRouter(prefix="/pictures/{collection}/{image_id}", dependencies=[Depends(require_login)])

    def find(collection: str, image_id: int) -> SearchEngine:
        engine = engines.get(collection)
        if engine is None or not 0 <= image_id < len(engine.store.items):
            raise HTTPException(404, "There is no such picture.")
        return engine

    # Plain functions, not coroutines: decoding runs in the server's thread pool and leaves the event loop free.
    @router.get("/thumb")
    def thumb(collection: str, image_id: int) -> Response:
        return thumbnail(find(collection, image_id), image_id)

    @router.get("/view")
    def view(collection: str, image_id: int) -> Response:
        return view_of(find(collection, image_id), image_id)

    @router.get("/original")
    def original(collection: str, image_id: int) -> Response:
        return original_file(find(collection, image_id), image_id)

    return list(router.routes)


def thumbnail(engine: SearchEngine, image_id: int) -> Response:
    """A small view of a picture, kept in memory. Raises HTTPException 404 where it cannot be read."""
    try:
        with open_item(engine, image_id) as file:
            status = os.fstat(file.fileno())
        path = engine.store.items[image_id].path
        jpeg = _thumbnail(path, folder_of(engine), status.st_mtime_ns, status.st_size)
    except ImageError as error:
        raise HTTPException(404, _UNREADABLE) from error
    return Response(jpeg, media_type="image/jpeg", headers=KEEP)


def view_of(engine: SearchEngine, image_id: int) -> Response:
    """A large view of a picture. Raises HTTPException 404 where it cannot be read."""
    try:
        jpeg = shrink(read_item(engine, image_id), VIEW_SIDE, folder_of(engine).max_pixels)
    except ImageError as error:
        raise HTTPException(404, _UNREADABLE) from error
    return Response(jpeg, media_type="image/jpeg", headers=KEEP)


def original_file(engine: SearchEngine, image_id: int) -> Response:
    """The file of a picture as a download. Raises HTTPException 404 where it cannot be read."""
    try:
        file = open_item(engine, image_id)
    except ImageError as error:
        raise HTTPException(404, _UNREADABLE) from error
    name = printable(engine.store.items[image_id].path.name)
    size = os.fstat(file.fileno()).st_size
    headers = {**KEEP, "Content-Length": str(size), "Content-Disposition": as_download(name)}
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(_pieces(file, size), media_type=kind, headers=headers)


def _undamaged(engine: SearchEngine, image_id: int) -> Item:
    item = engine.store.items[image_id]
    if item.error is not None:
        raise ImageError(os.fspath(item.path), item.error)
    return item


def open_item(engine: SearchEngine, image_id: int) -> BinaryIO:
    """The file of a picture of a collection, to be read and closed. Raises ImageError as `read_item`."""
    item = _undamaged(engine, image_id)
    folder = folder_of(engine)
    return open_picture(folder.root, item.path, follow_links=folder.follow_links)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """What was there when the file was opened; it may have grown since."""
    with file:
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            size -= len(piece)
            yield piece


def as_download(name: str) -> str:
    """A Content-Disposition header (RFC 6266) that has the browser keep a file under its name."""
    quoted = quote(name, safe="")
    return f'attachment; filename="{name}"' if quoted == name else f"attachment; filename*=utf-8''{quoted}"


def shrink(source: Path | bytes, side: int, max_pixels: int | None = None) -> bytes:
    """A picture as JPEG whose longer side is at most `side` pixels, upright whatever its EXIF says."""
    return to_jpeg(Image.fromarray(decode_image(source, min_side=side, max_pixels=max_pixels)), side)


def to_jpeg(picture: Image.Image, side: int) -> bytes:
    """JPEG bytes of a decoded picture, shrunk to `side` pixels on its longer side where it is larger."""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


@lru_cache(maxsize=CACHED_THUMBS)
def _thumbnail(path: Path, folder: PictureFolder, mtime_ns: int, size: int) -> bytes:
    """The file's time and size are part of the key: a picture that was replaced is not shown as it used to be."""
    content = read_picture(folder.root, path, follow_links=folder.follow_links)
    return shrink(content, THUMB_SIDE, folder.max_pixels)


def version_of(engine: SearchEngine) -> str:
    """Eight hex digits that change when the collection is built anew: the same id may then be another picture."""
    manifest = engine.store.manifest
    known, version = _versions.get(engine.name, (None, ""))
    if known is not manifest:  # a change of the manifest replaces it
        version = hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()[:8]
        _versions[engine.name] = (manifest, version)
    return version


_versions: dict[str, tuple[object, str]] = {}  # by collection; a grid asks for each of its pictures
