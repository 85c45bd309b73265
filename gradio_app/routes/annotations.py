"""All that is said of the pictures of a collection, as a whole.

As a table it is given out to who sees them, and taken in by who may manage (`features.collection.exchange`). Who may
manage makes and drops fields, and resets what is said. Each is one edit, which can be taken back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.routing import BaseRoute

from features.collection import edits
from features.collection.annotations import Annotations
from features.collection.errors import StoreError
from features.collection.exchange import TakenIn, read_said, take_in, write_said
from features.collection.resets import drop_field, field_counts, reset_said, said_counts
from features.collection.said import MAX_TAG
from features.collection.typed_fields import KINDS, make_field
from gradio_app.markup import printable, render
from gradio_app.routes.access import REFUSED, EditPermission, StartToken, is_from_own_page, require_login
from gradio_app.routes.pictures import as_download, collection_in
from gradio_app.routes.words import NOW, in_words
from search.engine import SearchEngine

MAX_TABLE = 256 * 2**20
_PIECE = 2**16
Kind = Annotated[Literal["jsonl", "csv"], Query()]


class KeptChange(BaseModel):
    """A change of the fields of a collection, or of all that is said in it, as the page sends it.

    Attributes
    ----------
    name : str
        Of the field; to reset what is said, that of the collection, as who asked has typed it.
    kind : str
        What a new field holds.
    edit : int
        Which edit is taken back: the number that the page showed.
    """

    do: Literal["make", "drop", "reset", "undo"]
    name: str = Field("", max_length=10 * MAX_TAG)
    kind: str = "text"
    edit: int = 0


def annotation_routes(engines: Mapping[str, SearchEngine], token: StartToken, *, is_managed: bool) -> list[BaseRoute]:
    """Routes of what is said in `engines` (by collection name); `is_managed` as `word_routes`."""
    router = APIRouter(prefix="/annotations/{collection}", dependencies=[Depends(require_login)])
    may_edit = EditPermission(token, is_managed=is_managed)

    # A plain function, not a coroutine: sqlite is waited for in the server's thread pool.
    @router.get("")
    def export(request: Request, collection: str, kind: Kind = "jsonl") -> Response:
        if not is_from_own_page(request.headers):
            raise HTTPException(403, "This is for the page itself.")
        engine = collection_in(engines, collection)
        folder = tempfile.TemporaryDirectory()
        file = Path(folder.name) / f"said.{kind}"
        with in_words():
            if engine.store.has_annotations:
                write_said(engine.store.annotations, file)
            else:
                file.touch()
        headers = {"Content-Disposition": as_download(printable(f"{engine.name} words.{kind}")), **NOW}
        media = "text/csv" if kind == "csv" else "application/jsonl"
        return StreamingResponse(_pieces(file, folder), media_type=media, headers=headers)

    def kept(request: Request, engine: SearchEngine) -> Response:
        return HTMLResponse(_kept(engine, editable=may_edit(request)), headers=NOW)

    @router.get("/kept")
    def read_kept(request: Request, collection: str) -> Response:
        with in_words():
            return kept(request, collection_in(engines, collection))

    @router.post("/kept")
    def change_kept(request: Request, collection: str, change: KeptChange) -> Response:
        if not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_in(engines, collection)
        if change.do == "reset" and change.name != engine.name:
            raise HTTPException(409, f"To reset what is said in {engine.name}, its name is needed, not {change.name}.")
        with in_words():
            _change(engine.store.annotations, change)
            return kept(request, engine)

    @router.put("")
    async def take(request: Request, collection: str, kind: Kind = "jsonl") -> Response:
        if not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_in(engines, collection)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"table.{kind}"
            size = 0
            with file.open("xb") as out:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_TABLE:
                        raise HTTPException(413, f"A table has at most {MAX_TABLE // 2**20} MB here.")
                    out.write(chunk)
            with in_words():
                found = await anyio.to_thread.run_sync(_taken, engine, file)
        return JSONResponse({"told": _in_a_sentence(found)}, headers=NOW)

    return list(router.routes)


def _change(said: Annotations, change: KeptChange) -> None:
    if change.do == "make":
        make_field(said, change.name, change.kind)
    elif change.do == "drop":
        drop_field(said, change.name)
    elif change.do == "reset":
        reset_said(said)
    else:
        edits.undo(said, change.edit)


def _kept(engine: SearchEngine, *, editable: bool) -> str:
    """HTML of the fields of a collection, and of how much is said in it."""
    said = engine.store.annotations if engine.store.has_annotations else None
    counts = {} if said is None else field_counts(said)
    kinds = {} if said is None else said.fields()
    return render(
        "manage/kept.html",
        fields=[{"name": name, "kind": kinds.get(name, ""), "count": count} for name, count in counts.items()],
        said=[] if said is None else [_counted(count, name) for name, count in said_counts(said).items()],
        last=None if said is None else next(iter(edits.edits(said, 1)), None),
        kinds=KINDS,
        longest=MAX_TAG,
        editable=editable,
    )


def _counted(count: int, name: str) -> str:
    first, *rest = name.split(" ", 1)
    return " ".join([f"{count:,} {first}{'' if count == 1 else 's'}", *rest])


def _taken(engine: SearchEngine, file: Path) -> TakenIn:
    store = engine.store
    try:
        return take_in(store.annotations, store.records(), read_said(file))
    except UnicodeDecodeError as error:
        raise StoreError("the table is no text in UTF-8") from error
    except StoreError as error:  # where the server keeps it is nobody's business
        raise StoreError(str(error).replace(f"{file}, ", "")) from error


def _in_a_sentence(found: TakenIn) -> str:
    told = f"{found.rows:,} rows of {found.pictures:,} pictures taken in."
    return f"{told} {found.lost:,} rows are of no picture here, or of more than one." if found.lost else told


def _pieces(file: Path, folder: tempfile.TemporaryDirectory[str]) -> Iterator[bytes]:
    """The file, and then the folder that it is in goes."""
    with folder, file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece
