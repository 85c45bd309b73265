"""Pictures that are the same, told, and decided about: what is decided is kept, and no file is touched."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from features.collection import duplicates as decisions
from gradio_app.routes.api import models
from gradio_app.routes.api.callers import may_write
from gradio_app.routes.api.context import Context, check_picture, place_of, short
from gradio_app.routes.api.problems import documented
from gradio_app.routes.api.words import SECURITY, StrictRoute
from gradio_app.routes.pictures import contents_of
from search.duplicate_pairs import Pairs
from search.duplicates import Group, groups_of
from search.engine import SearchEngine

Offset = Annotated[int, Query(ge=0, lt=2**31, description="Groups to pass over")]
Limit = Annotated[int, Query(ge=1, le=models.MAX_PAGE, description="Groups of one page")]


def duplicate_routes(context: Context) -> APIRouter:
    """Plain functions, not coroutines: sqlite is waited for in the server's thread pool."""
    router = APIRouter(prefix="/collections/{name}", tags=["duplicates"])

    @router.get("/duplicates", responses=documented(404, 409))
    def list_duplicates(
        request: Request, name: str, offset: Offset = 0, limit: Limit = models.PAGE
    ) -> models.DuplicateGroups:
        """Groups of pictures that are the same and of which nobody has decided yet, the surest first."""
        engine = context.collection(name)
        store = engine.store
        pairs = Pairs.of(store)
        groups = groups_of(store, pairs)
        place = place_of(request, engine.name)
        away = decisions.set_aside(store.annotations) if store.has_annotations else {}
        return models.DuplicateGroups(
            groups=[_told(engine, place, group) for group in groups[offset : offset + limit]],
            total=len(groups),
            set_aside=list(away),
            unseen=None if pairs is None else pairs.unseen,
        )

    return router


def decision_routes(context: Context) -> APIRouter:
    router = APIRouter(
        prefix="/collections/{name}", tags=["duplicates"], route_class=StrictRoute, dependencies=[Depends(may_write)]
    )

    @router.post("/duplicates", responses=documented(404, 409), openapi_extra=SECURITY)
    def decide_duplicates(name: str, decision: models.DuplicateDecision) -> models.DuplicatesDecided:
        """Decide about pictures that are the same, or are not: for good, and to be taken back by `undo`."""
        engine = context.collection(name)
        for id in decision.images:
            check_picture(engine, id)
        said, ids = engine.store.annotations, decision.images
        if decision.do == "keep":
            return models.DuplicatesDecided(undo=decisions.keep(said, ids[0], ids[1:]))
        done = {
            "different": decisions.call_different,
            "later": decisions.postpone,
            "take_back": decisions.take_back,
        }
        return models.DuplicatesDecided(undo=done[decision.do](said, ids))

    return router


def _told(engine: SearchEngine, place: str, group: Group) -> models.DuplicateGroup:
    sizes, contents = engine.store.catalog.sizes(group.ids), contents_of(engine, group.ids)
    images = [
        models.DuplicateImage(
            **dict(short(engine, place, id)),
            content=contents[id],
            width=sizes[id][0],
            height=sizes[id][1],
            bytes=sizes[id][2],
        )
        for id in group.ids
    ]
    return models.DuplicateGroup(level=group.level.words, later=group.is_later, images=images)  # type: ignore[arg-type]
