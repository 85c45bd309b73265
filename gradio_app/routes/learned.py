"""Learned tags over HTTP: what they suggest is seen by everyone, and decided by who may manage collections.

The answer to all of these is the same piece of the page: the learned tags of the collection, and the pictures that the
chosen one may fit. Decisions are edits as any others: confirmed is a tag of a person, refused is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.routing import BaseRoute

from features.collection import edits
from features.collection.errors import StoreError
from features.collection.learned_tags import drop_learned, learned_tags
from features.collection.said import MAX_TAG
from gradio_app.grid import Tile, render_tiles
from gradio_app.markup import render
from gradio_app.routes.access import REFUSED, EditPermission, StartToken, require_login
from gradio_app.routes.pictures import collection_in
from gradio_app.routes.words import NOW, check_same_pictures, in_words
from gradio_app.typed import learned_tag_term
from search.engine import SearchEngine
from search.errors import QueryError
from search.learned import Suggestions, TagSuggester, usable_tag

PAGE = 48
MAX_SHOWN = 480


class ShownPicture(BaseModel):
    """A picture that the page shows: which, and `content_of` it."""

    id: int
    content: str


class Decision(BaseModel):
    """What was decided of a learned tag, as the page sends it.

    Attributes
    ----------
    tag : str
    pictures : list of ShownPicture
        Those that it is confirmed or refused of, all at once.
    edit : int
        Which edit is taken back: the number that the page showed.
    shown : int
        How many pictures the page wants to see.
    """

    do: Literal["confirm", "refuse", "drop", "undo"]
    tag: str = ""
    pictures: list[ShownPicture] = Field([], max_length=MAX_SHOWN)
    edit: int = 0
    shown: int = PAGE


def learned_routes(engines: Mapping[str, SearchEngine], token: StartToken, *, is_managed: bool) -> list[BaseRoute]:
    """Routes of the learned tags of `engines` (by collection name).

    Parameters
    ----------
    is_managed : bool
        Whether collections can be changed at all on this page.
    """
    router = APIRouter(prefix="/learned/{collection}", dependencies=[Depends(require_login)])
    suggesters: WeakKeyDictionary[SearchEngine, TagSuggester] = WeakKeyDictionary()

    may_edit = EditPermission(token, is_managed=is_managed)

    def shown(request: Request, engine: SearchEngine, tag: str, count: int) -> Response:
        suggester = suggesters.get(engine) or suggesters.setdefault(engine, TagSuggester(engine.store))
        page = learned_panel(engine, suggester, tag, count, editable=may_edit(request), is_managed=is_managed)
        return HTMLResponse(page, headers=NOW)

    # Plain functions, not coroutines: sqlite and vectors are waited for in the server's thread pool.
    @router.get("")
    def read(
        request: Request,
        collection: str,
        tag: Annotated[str, Query(max_length=10 * MAX_TAG)] = "",
        shown_: Annotated[int, Query(alias="shown")] = PAGE,
    ) -> Response:
        with in_words():
            return shown(request, collection_in(engines, collection), tag, shown_)

    @router.post("")
    def decide(request: Request, collection: str, decision: Decision) -> Response:
        if not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_in(engines, collection)
        with in_words():
            _decide(engine, decision)
            return shown(request, engine, decision.tag, decision.shown)

    return list(router.routes)


def _decide(engine: SearchEngine, decision: Decision) -> None:
    annotations = engine.store.annotations
    if decision.do == "undo":
        edits.undo(annotations, decision.edit)
    elif decision.do == "drop":
        drop_learned(annotations, decision.tag)
    else:
        check_same_pictures(engine, [(picture.id, picture.content) for picture in decision.pictures])
        try:
            tag = usable_tag(decision.tag, engine.store).tag  # a tag in the letters that it was named with
        except QueryError as error:
            raise StoreError(str(error)) from error
        change = edits.add_tag if decision.do == "confirm" else edits.remove_tag
        change(annotations, [picture.id for picture in decision.pictures], tag)


def learned_panel(
    engine: SearchEngine, suggester: TagSuggester, tag: str, count: int, *, editable: bool, is_managed: bool
) -> str:
    """HTML of the learned tags of a collection, and of the pictures that one of them may fit, at most so many.

    Where there is no tag of this name, the first is shown.
    """
    store = engine.store
    known = learned_tags(store.annotations) if store.has_annotations else {}
    chosen = next((name for name in known if name.casefold() == tag.casefold()), next(iter(known), ""))
    found, why_not = None, ""
    if chosen:
        try:
            found = suggester.suggest(chosen)
        except QueryError as error:
            why_not = f"{str(error)[:1].upper()}{str(error)[1:]}."
    count = min(max(count, PAGE), MAX_SHOWN)
    tiles = [] if found is None else _tiles(found, known[chosen].more, count)
    last = next(iter(edits.edits(store.annotations, 1)), None) if editable and store.has_annotations else None
    return render(
        "learned.html",
        name=engine.name,
        tags=[(name, len(each.more)) for name, each in known.items()],
        chosen=chosen,
        why_not=why_not,
        asked_by=learned_tag_term(chosen) if chosen else "",
        shown=len(tiles),
        more=0 if found is None else min(PAGE, MAX_SHOWN - count, found.ids.size - count),
        last=last,
        editable=editable,
        is_managed=is_managed,
        total=0 if found is None else found.ids.size,
        tiles=Markup(render_tiles(engine, tiles, kind="suggested" if editable else "gallery")) if tiles else "",
    )


def _tiles(found: Suggestions, examples: tuple[int, ...], count: int) -> list[Tile]:
    return [
        Tile(id, score=f"{certainty:.0%}{' · your example' if id in examples else ''}", measure="certainty")
        for id, certainty in zip(found.ids[:count].tolist(), found.certainties[:count].tolist(), strict=True)
    ]
