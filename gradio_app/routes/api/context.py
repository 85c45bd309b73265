"""What the routes share: the open collections, who fetches pictures, what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import quote

import anyio
from fastapi import HTTPException, Request

from gradio_app.library import Library
from gradio_app.markup import printable
from gradio_app.routes.api.metrics import Metrics
from gradio_app.routes.api.models import ImageShort, Links
from gradio_app.routes.pictures import collection_in, folder_of, version_of
from search.engine import SearchEngine

PREFIX = "/api/v1"
SEARCHERS = 8  # threads: searches of the API leave most of the server's forty to the page


@dataclass
class Context:
    """What the routes share.

    Attributes
    ----------
    fetch : callable
        Gives the picture at an address of the web, or raises a ValueError that says why not.
    searchers : anyio.CapacityLimiter
        How many searches of the API run at a time.
    """

    library: Library
    fetch: Callable[[str], bytes]
    metrics: Metrics = field(default_factory=Metrics)
    searchers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(SEARCHERS))

    def collection(self, name: str) -> SearchEngine:
        """An open collection. Raises HTTPException 404."""
        return collection_in(self.library, name)

    def only_collection(self) -> SearchEngine:
        """The collection where there is one. Raises HTTPException 422 where there are others."""
        engines = list(self.library.values())
        if len(engines) != 1:
            raise HTTPException(422, f"Say which collection is meant: {', '.join(self.library) or 'there is none'}.")
        return engines[0]


def check_picture(engine: SearchEngine, id: int) -> None:
    """Raise HTTPException 404 unless a collection has such a picture, one that can be seen."""
    items = engine.store.items
    if not 0 <= id < len(items) or items[id].error is not None:
        raise HTTPException(404, "There is no such picture.")


def relative_path(engine: SearchEngine, path: PurePath) -> str:
    """The path of a picture below the collection's folder of pictures: no more of the server than that."""
    root = folder_of(engine).root
    return printable((path.relative_to(root) if path.is_relative_to(root) else PurePath(path.name)).as_posix())


def place_of(request: Request, name: str) -> str:
    """The address of a collection, from the root of the host as who asks sees it."""
    return f"{request.scope.get('root_path', '')}{PREFIX}/collections/{quote(name, safe='')}"


def links_of(engine: SearchEngine, place: str, id: int) -> Links:
    """The addresses of a picture of the collection at `place`; those of its bytes change with the collection."""
    image = f"{place}/images/{id}"
    thumbnail, view, original = (f"{image}/{size}?v={version_of(engine)}" for size in ("thumbnail", "view", "original"))
    return Links(image=image, thumbnail=thumbnail, view=view, original=original)


def short(engine: SearchEngine, place: str, id: int) -> ImageShort:
    """What every list says of a picture."""
    item = engine.store.items[id]
    labels = [printable(label) for label in item.labels]
    return ImageShort(id=id, path=relative_path(engine, item.path), labels=labels, links=links_of(engine, place, id))
