"""What is said of the pictures, over HTTP: read by who sees them, edited by who may manage collections.

Edits go through `features.collection.edits`, which keeps with each what takes it back. The answer to all of these is
the same piece of the page: what is said of the picture now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.routing import BaseRoute

from features.collection import edits
from features.collection.annotations import Annotations
from features.collection.errors import StoreError
from features.collection.said import MAX_TAG, PERSON, Maker, Said, Value, as_text, field_name, kind_of, stored
from features.collection.typed_fields import KINDS, make_field
from gradio_app.gradio_seam import MAX_TEXT
from gradio_app.markup import render
from gradio_app.routes.access import REFUSED, EditPermission, StartToken, require_login
from gradio_app.routes.pictures import contents_of
from search.engine import SearchEngine
from search.learned import TagSuggester

CHANGED = "This picture is no longer the one that the page shows: search again, or reload the page."
NOW = {"Cache-Control": "no-store"}  # what is said changes while the page is open


class Change(BaseModel):
    """An edit of what is said of a picture, as the page sends it.

    Attributes
    ----------
    text : str
        The caption or tag.
    old : str
        The caption in whose place it is put.
    name, kind : str
        Of the field; the kind counts where there is no such field yet.
    edit : int
        Which edit is taken back: the number that the page showed.
    content : str
        Of the picture that the page shows, as `content_of`; not compared where it is empty.
    """

    do: Literal[
        "add_tag",
        "remove_tag",
        "add_caption",
        "change_caption",
        "remove_caption",
        "like",
        "unlike",
        "set_field",
        "empty_field",
        "undo",
    ]
    text: str = ""
    old: str = ""
    name: str = ""
    kind: str = "text"
    edit: int = 0
    content: str = ""


_DONE: dict[str, Callable[[Annotations, int, Change], object]] = {
    "add_tag": lambda annotations, id, change: edits.add_tag(annotations, [id], change.text),
    "remove_tag": lambda annotations, id, change: edits.remove_tag(annotations, [id], change.text),
    "add_caption": lambda annotations, id, change: edits.add_caption(annotations, [id], change.text),
    "change_caption": lambda annotations, id, change: edits.change_caption(annotations, [id], change.old, change.text),
    "remove_caption": lambda annotations, id, change: edits.remove_caption(annotations, [id], change.text),
    "like": lambda annotations, id, change: edits.set_favourite(annotations, [id], True),
    "unlike": lambda annotations, id, change: edits.set_favourite(annotations, [id], False),
    "set_field": lambda annotations, id, change: _set_field(annotations, id, change),
    "empty_field": lambda annotations, id, change: edits.set_field(annotations, [id], change.text, None),
    "undo": lambda annotations, id, change: edits.undo(annotations, change.edit),
}


def _set_field(annotations: Annotations, id: int, change: Change) -> None:
    """Give a picture a value of a field, which is made where there is none of this name."""
    name = field_name(change.name)
    if name not in annotations.fields():
        name = make_field(annotations, name, change.kind)
    edits.set_field(annotations, [id], name, change.text.strip() or None)


def word_routes(engines: Mapping[str, SearchEngine], token: StartToken, *, is_managed: bool) -> list[BaseRoute]:
    """Routes of what is said of the pictures of `engines` (by collection name).

    Parameters
    ----------
    is_managed : bool
        Whether collections can be changed at all on this page.
    """
    router = APIRouter(prefix="/words/{collection}/{image_id}", dependencies=[Depends(require_login)])

    may_edit = EditPermission(token, is_managed=is_managed)

    def shown(request: Request, engine: SearchEngine, image_id: int) -> Response:
        page = said_of(engine, image_id, editable=may_edit(request), is_managed=is_managed)
        return HTMLResponse(page, headers=NOW)

    # Plain functions, not coroutines: sqlite is waited for in the server's thread pool.
    @router.get("")
    def read(request: Request, collection: str, image_id: int, content: str = "") -> Response:
        with in_words():
            return shown(request, collection_of_picture(engines, collection, image_id, content), image_id)

    @router.post("")
    def edit(request: Request, collection: str, image_id: int, change: Change) -> Response:
        if not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_of_picture(engines, collection, image_id, change.content)
        with in_words():
            _DONE[change.do](engine.store.annotations, image_id, change)
            return shown(request, engine, image_id)

    return list(router.routes)


def collection_of_picture(
    engines: Mapping[str, SearchEngine], collection: str, image_id: int, content: str
) -> SearchEngine:
    """The collection of a picture that a page shows; see `check_same_pictures`."""
    engine = engines.get(collection)
    if engine is None:
        raise HTTPException(404, "There is no such picture.")
    check_same_pictures(engine, [(image_id, content)])
    return engine


def check_same_pictures(engine: SearchEngine, shown: Sequence[tuple[int, str]]) -> None:
    """Refuse what is meant for other pictures than those that have these ids now.

    A collection may have been made anew, or a file replaced, since a page showed it.

    Parameters
    ----------
    shown : sequence of (id, content)
        `content_of` each picture as it was shown; not compared where it is empty.
    """
    items = engine.store.items
    named = [id for id, content in shown if content and 0 <= id < len(items)]
    now = contents_of(engine, named) if named else {}
    for id, content in shown:
        if not 0 <= id < len(items) or items[id].error:
            raise HTTPException(404, "There is no such picture.")
        if content and content != now[id]:
            raise HTTPException(409, CHANGED)


@contextmanager
def in_words() -> Iterator[None]:
    """What cannot be done is told in the words of its reason."""
    try:
        yield
    except StoreError as error:
        text = str(error)
        raise HTTPException(409, f"{text[:1].upper()}{text[1:]}.") from error


def said_of(engine: SearchEngine, image_id: int, *, editable: bool, is_managed: bool) -> str:
    """HTML of what is said of a picture, each word with its makers; "" where nothing is and nothing can be."""
    store, said, last = engine.store, Said(), None
    if store.has_annotations:
        said = store.annotations.of([image_id]).get(image_id, Said())
        last = next(iter(edits.edits(store.annotations, 1)), None) if editable else None
    captions: dict[str, list[tuple[Maker, float | None]]] = {}
    for caption in said.captions:
        captions.setdefault(caption.text, []).append((caption.maker, caption.certainty))
    tags: dict[str, list[tuple[Maker, float | None]]] = {}
    shown: dict[str, str] = {}
    for tag in said.tags:
        tags.setdefault(shown.setdefault(tag.tag.casefold(), tag.tag), []).append((tag.maker, tag.certainty))
    labels = store.items[image_id].labels
    borne = {tag.tag.casefold() for tag in said.tags}
    suggested = TagSuggester(store).suggestions_of(image_id) if store.has_annotations else {}
    suggested = {tag: certainty for tag, certainty in suggested.items() if tag.casefold() not in borne}
    if not (
        editable
        or is_managed
        or labels
        or suggested
        or said.captions
        or said.tags
        or said.fields
        or said.is_favourite
        or said.albums
    ):
        return ""
    return render(
        "said.html",
        labels=labels,
        captions=[_with_makers(text, makers) for text, makers in captions.items()],
        tags=[_with_makers(tag, makers) for tag, makers in tags.items()],
        suggested=list(suggested.items()),
        fields=[(field.name, _written(field.value), _maker(field.maker, None)) for field in said.fields],
        known_fields=store.annotations.fields() if editable and store.has_annotations else {},
        kinds=KINDS,
        is_favourite=said.is_favourite,
        albums=said.albums,
        editable=editable,
        is_managed=is_managed,
        last=last,
        longest_caption=MAX_TEXT,
        longest_tag=MAX_TAG,
    )


def _written(value: Value) -> str:
    held = stored(value)
    return "" if held is None else as_text(held, kind_of(value))


def _with_makers(text: str, makers: list[tuple[Maker, float | None]]) -> dict[str, Any]:
    return {
        "text": text,
        "by": ", ".join(dict.fromkeys(_maker(*each) for each in makers)),
        "is_persons": any(maker.source == PERSON for maker, _ in makers),
    }


def _maker(maker: Maker, certainty: float | None) -> str:
    """Who says it, in words: the source, which of them, and how sure it is."""
    sure = "" if certainty is None else f" {certainty:.0%}"
    return f"a {PERSON}" if maker.source == PERSON else f"{maker.source} {maker.name}".rstrip() + sure
