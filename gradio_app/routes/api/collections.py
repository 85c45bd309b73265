"""GET: the collections, their pictures page by page, each picture with all that is said of it, and its bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from features.collection.said import Maker, Said, Value
from gradio_app.markup import printable
from gradio_app.routes.api import cursors, models
from gradio_app.routes.api.context import Context, check_picture, place_of, short
from gradio_app.routes.api.problems import Responses, documented
from gradio_app.routes.api.search import canonical, filter_of
from gradio_app.routes.pictures import content_of, original_file, thumbnail, version_of, view_of
from search.engine import SearchEngine

Limit = Annotated[int, Query(ge=1, le=models.MAX_PAGE, description="Pictures of one page")]
Cursor = Annotated[str | None, Query(max_length=cursors.MAX_CURSOR, description="Of the page before")]
FilterText = Annotated[
    str | None,
    Query(max_length=100_000, description="A filter as in a search, as JSON", examples=['{"label": ["cup", "chair"]}']),
]
Version = Annotated[str | None, Query(description="Of the collection, so that another version has another address")]
ImageId = Annotated[int, models.Field(ge=0, lt=2**53)]
PICTURE: Responses = {
    200: {"description": "The picture", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


def collection_routes(context: Context) -> APIRouter:
    """Plain functions, not coroutines: sqlite and pictures are waited for in the server's thread pool."""
    router = APIRouter(prefix="/collections", tags=["collections"])

    @router.get("", responses=documented())
    def list_collections(request: Request) -> models.CollectionList:
        """The collections that are open."""
        found = [_short(engine, request) for engine in context.library.values()]
        return models.CollectionList(collections=found)

    @router.get("/{name}", responses=documented(404))
    def get_collection(request: Request, name: str) -> models.Collection:
        """A collection: what it can be asked, its labels and fields."""
        engine = context.collection(name)
        store = engine.store
        return models.Collection(
            **dict(_short(engine, request)),
            metric=engine.metric,
            encoder=str(store.manifest["encoder"].get("name", "")),
            nlist=engine.nlist,
            nprobe=engine.nprobe,
            labels={printable(label): count for label, count in engine.labels.items()},
            fields=store.annotations.fields() if store.has_annotations else {},
            images=f"{place_of(request, engine.name)}/images",
        )

    @router.get("/{name}/images", tags=["images"], responses=documented(404))
    def list_images(
        request: Request, name: str, filter: FilterText = None, limit: Limit = models.PAGE, cursor: Cursor = None
    ) -> models.ImagePage:
        """The pictures of a collection in the order of their ids, page by page.

        A cursor says after which id to go on: pictures that come and go meanwhile bring nothing twice.
        """
        engine = context.collection(name)
        wanted = filter_of(filter)
        question = cursors.fingerprint([engine.name, canonical(wanted)])
        ids = wanted.ids(engine.store)
        ids = engine.store.ids if ids is None else ids
        after = -1 if cursor is None else cursors.id_of(cursors.read(cursor, question), "after")
        start = int(np.searchsorted(ids, after, side="right"))
        page = ids[start : start + limit].tolist()
        is_more = start + limit < ids.size
        place = place_of(request, engine.name)
        return models.ImagePage(
            images=[short(engine, place, id) for id in page],
            matching=int(ids.size),
            cursor=cursors.written(question=question, after=page[-1]) if is_more else None,
        )

    @router.get("/{name}/images/{id}", tags=["images"], responses=documented(404))
    def get_image(request: Request, name: str, id: ImageId) -> models.Image:
        """A picture: its file, and all that is said of it, with who says it."""
        engine = context.collection(name)
        check_picture(engine, id)
        return image_of(engine, place_of(request, engine.name), id)

    @router.get(
        "/{name}/images/{id}/thumbnail",
        tags=["images"],
        response_class=Response,
        responses={**documented(404), **PICTURE},
    )
    def get_thumbnail(name: str, id: ImageId, v: Version = None) -> Response:
        """JPEG, at most 256 pixels on its longer side."""
        engine = context.collection(name)
        check_picture(engine, id)
        return thumbnail(engine, id)

    @router.get(
        "/{name}/images/{id}/view", tags=["images"], response_class=Response, responses={**documented(404), **PICTURE}
    )
    def get_view(name: str, id: ImageId, v: Version = None) -> Response:
        """JPEG, at most 1600 pixels on its longer side."""
        engine = context.collection(name)
        check_picture(engine, id)
        return view_of(engine, id)

    @router.get(
        "/{name}/images/{id}/original",
        tags=["images"],
        response_class=Response,
        responses={**documented(404), **PICTURE},
    )
    def get_original(name: str, id: ImageId, v: Version = None) -> Response:
        """The file itself."""
        engine = context.collection(name)
        check_picture(engine, id)
        return original_file(engine, id)

    return router


def _short(engine: SearchEngine, request: Request) -> models.CollectionShort:
    return models.CollectionShort(
        name=engine.name,
        version=version_of(engine),
        pictures=int(engine.store.ids.size),
        engines=list(engine.engines),
        spaces=list(engine.spaces),
        link=place_of(request, engine.name),
    )


def image_of(engine: SearchEngine, place: str, id: int) -> models.Image:
    """All that is known of a picture of the collection at `place`."""
    store = engine.store
    (record,) = store.records([id])
    said = store.annotations.of([id]).get(id, Said()) if store.has_annotations else Said()
    width, height, *_ = store.catalog.sizes([id])[id]
    return models.Image(
        **dict(short(engine, place, id)),
        collection=engine.name,
        content=content_of(engine, id),
        sha256=record.sha256,
        bytes=record.size,
        width=width,
        height=height,
        modified=datetime.fromtimestamp(record.mtime / 1e9, UTC).isoformat(),
        captions=[models.CaptionSaid(text=each.text, **_by(each.maker, each.certainty)) for each in said.captions],
        tags=[models.TagSaid(tag=each.tag, **_by(each.maker, each.certainty)) for each in said.tags],
        fields=[models.FieldSaid(name=each.name, value=_value(each.value), **_by(each.maker)) for each in said.fields],
        favourite=said.is_favourite,
    )


def _by(maker: Maker, certainty: float | None = None) -> dict[str, Any]:
    return {"source": maker.source, "maker": printable(maker.name), "certainty": certainty}


def _value(value: Value) -> float | int | str:
    return value.isoformat() if isinstance(value, date) else value
