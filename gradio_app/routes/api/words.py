"""What is said of pictures, edited: the same edits as in the page, each taken back as it was made."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute

from features.collection import edits
from features.collection.said import Value
from gradio_app.routes.api import models, strict_json
from gradio_app.routes.api.callers import may_write
from gradio_app.routes.api.collections import ImageId, image_of
from gradio_app.routes.api.context import Context, check_picture, place_of
from gradio_app.routes.api.problems import documented
from gradio_app.routes.words import check_same_pictures

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
SECURITY: dict[str, Any] = {"security": [{"key": []}]}


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return strict_json.parse(await self.body())
        except strict_json.JsonError as error:
            raise HTTPException(400, str(error)) from error


class StrictRoute(APIRoute):
    """A route whose JSON is read by `strict_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


def word_routes(context: Context) -> APIRouter:
    """Plain functions, not coroutines: sqlite is waited for in the server's thread pool."""
    router = APIRouter(
        prefix="/collections/{name}", tags=["words"], route_class=StrictRoute, dependencies=[Depends(may_write)]
    )

    @router.patch("/images/{id}", responses=documented(404, 409), openapi_extra=SECURITY)
    def change_image(request: Request, name: str, id: ImageId, change: models.ImageChange) -> models.ImageChanged:
        """Say something of a picture, or take it back: captions, tags, fields, whether it is a favourite."""
        engine = context.collection(name)
        check_picture(engine, id)
        check_same_pictures(engine, [(id, change.content or "")])
        changes = edits.Changes(
            add_tags=tuple(change.add_tags),
            remove_tags=tuple(change.remove_tags),
            add_captions=tuple(change.add_captions),
            remove_captions=tuple(change.remove_captions),
            fields={field: _value(value) for field, value in change.fields.items()},
            is_favourite=change.favourite,
        )
        number = None
        if changes != edits.Changes():
            number = edits.change(engine.store.annotations, [id], changes)
        return models.ImageChanged(image=image_of(engine, place_of(request, engine.name), id), undo=number)

    @router.post("/undo", responses=documented(404, 409), openapi_extra=SECURITY)
    def undo_change(name: str, undo: models.UndoRequest) -> models.Undone:
        """Take back the change that was made last."""
        engine = context.collection(name)
        what = edits.undo(engine.store.annotations, undo.undo)
        return models.Undone(undone=what or "")

    return router


def _value(value: float | int | str | None) -> Value | None:
    """A field's value; a text that is a date in ISO 8601 is one."""
    if not isinstance(value, str) or not _DATE.match(value):
        return value
    try:
        found = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
    except ValueError:
        return value
    return found.replace(tzinfo=found.tzinfo or UTC) if isinstance(found, datetime) else found
