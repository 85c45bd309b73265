"""What is done with the pictures that were selected: downloaded and exported by who sees them, edited by who may.

A selection is what the page shows: ids, each with `content_of` the picture, so that nothing hits another picture that
has taken the id meanwhile. Each edit of a selection is one, and is taken back as one.
"""

from __future__ import annotations

import csv
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.routing import BaseRoute

from features.collection import edits
from features.collection.annotations import Annotations
from features.collection.said import MAX_TAG, Said
from features.images import ImageError
from gradio_app.browse_address import BrowseAddress
from gradio_app.gradio_seam import MAX_TEXT
from gradio_app.markup import printable, render
from gradio_app.routes.access import REFUSED, EditPermission, StartToken, is_from_own_page, require_login
from gradio_app.routes.pictures import as_download, collection_in, contents_of, folder_of, open_item
from gradio_app.routes.words import NOW, check_same_pictures, in_words
from search.engine import SearchEngine
from search.errors import QueryError

MAX_SELECTED = 10_000
_PIECE = 2**18  # bytes of a file that are sent at a time

Selected = list[tuple[int, str]]
_SELECTED: TypeAdapter[Selected] = TypeAdapter(Annotated[Selected, Field(max_length=MAX_SELECTED)])


class PictureIds(BaseModel):
    """Ids of pictures, as the page sends them."""

    ids: list[Annotated[int, Field(ge=-(2**63), lt=2**63)]] = Field(max_length=MAX_SELECTED)


class SelectionEdit(BaseModel):
    """An edit of selected pictures, as the page sends it.

    Attributes
    ----------
    text : str
        The tag, caption or album, or the value of the field.
    name : str
        Of the field.
    edit : int
        Which edit is taken back: the number that the page showed.
    pictures : list of (id, content)
    """

    do: Literal["tag", "untag", "caption", "favourite", "no_favourite", "album", "no_album", "field", "undo"]
    text: str = Field("", max_length=MAX_TEXT)
    name: str = Field("", max_length=MAX_TAG)
    edit: int = 0
    pictures: Selected = Field([], max_length=MAX_SELECTED)


_DONE: dict[str, Callable[[Annotations, list[int], SelectionEdit], object]] = {
    "tag": lambda said, ids, edit: edits.add_tag(said, ids, edit.text),
    "untag": lambda said, ids, edit: edits.remove_tag(said, ids, edit.text),
    "caption": lambda said, ids, edit: edits.add_caption(said, ids, edit.text),
    "favourite": lambda said, ids, edit: edits.set_favourite(said, ids, True),
    "no_favourite": lambda said, ids, edit: edits.set_favourite(said, ids, False),
    "album": lambda said, ids, edit: edits.put_in_album(said, ids, edit.text),
    "no_album": lambda said, ids, edit: edits.take_out_of_album(said, ids, edit.text),
    "field": lambda said, ids, edit: edits.set_field(said, ids, edit.name, edit.text.strip() or None),
    "undo": lambda said, ids, edit: edits.undo(said, edit.edit),
}


def selection_routes(engines: Mapping[str, SearchEngine], token: StartToken, *, is_managed: bool) -> list[BaseRoute]:
    """Routes of selections of the pictures of `engines` (by collection name).

    Parameters
    ----------
    is_managed : bool
        Whether collections can be changed at all on this page.
    """
    router = APIRouter(prefix="/selection/{collection}", dependencies=[Depends(require_login)])

    may_edit = EditPermission(token, is_managed=is_managed)

    def sent(request: Request, engine: SearchEngine, pictures: str) -> list[int]:
        """Ids of a selection that a form holds."""
        if not is_from_own_page(request.headers):
            raise HTTPException(403, "This is for the page itself.")
        try:
            return _checked(engine, _SELECTED.validate_json(pictures))
        except ValidationError as error:
            raise HTTPException(422, f"At most {MAX_SELECTED:,} pictures are selected at a time.") from error

    def tools(request: Request, engine: SearchEngine) -> Response:
        page = _tools(engine, editable=may_edit(request), is_managed=is_managed)
        return HTMLResponse(page, headers=NOW)

    # Plain functions, not coroutines: files and sqlite are waited for in the server's thread pool.
    @router.get("")
    def read(request: Request, collection: str) -> Response:
        with in_words():
            return tools(request, collection_in(engines, collection))

    @router.get("/all")
    def select_all(request: Request, collection: str) -> Response:
        engine = collection_in(engines, collection)
        try:
            ids = BrowseAddress.read(request.url.query).filter.ids(engine.store)
        except QueryError as error:
            raise HTTPException(409, str(error)) from error
        chosen = (engine.store.ids if ids is None else ids)[:MAX_SELECTED].tolist()
        return JSONResponse(list(contents_of(engine, chosen).items()), headers=NOW)

    @router.post("")
    def edit(request: Request, collection: str, edit: SelectionEdit) -> Response:
        if not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_in(engines, collection)
        with in_words():
            _DONE[edit.do](engine.store.annotations, _checked(engine, edit.pictures), edit)
            return tools(request, engine)

    @router.post("/zip")
    def as_zip(request: Request, collection: str, pictures: Annotated[str, Form()]) -> Response:
        engine = collection_in(engines, collection)
        ids = sent(request, engine, pictures)
        headers = {"Content-Disposition": as_download(printable(f"{engine.name}.zip")), **NOW}
        return StreamingResponse(zipped(engine, ids), media_type="application/zip", headers=headers)

    @router.post("/export")
    def export(
        request: Request,
        collection: str,
        pictures: Annotated[str, Form()],
        kind: Annotated[Literal["paths", "csv", "jsonl"], Form()],
    ) -> Response:
        engine = collection_in(engines, collection)
        ids = sent(request, engine, pictures)
        ending = "txt" if kind == "paths" else kind
        headers = {"Content-Disposition": as_download(printable(f"{engine.name}.{ending}")), **NOW}
        if kind == "paths":  # where files lie on the server is for who may manage it
            root = "" if not may_edit(request) else folder_of(engine).root
            lines = "".join(f"{printable(str(root / path if root else path))}\n" for path in _paths(engine, ids))
            return PlainTextResponse(lines, headers=headers)
        text = written(engine, ids, kind)
        return Response(text, media_type="text/csv" if kind == "csv" else "application/jsonl", headers=headers)

    return list(router.routes)


def _checked(engine: SearchEngine, pictures: Selected) -> list[int]:
    check_same_pictures(engine, pictures)
    return list(dict.fromkeys(id for id, _ in pictures))


def _paths(engine: SearchEngine, ids: list[int]) -> list[Path]:
    """Below the collection's root."""
    root = folder_of(engine).root
    return [engine.store.items[id].path.relative_to(root) for id in ids]


def _tools(engine: SearchEngine, *, editable: bool, is_managed: bool) -> str:
    store = engine.store
    said = store.annotations if editable else None
    albums = [] if said is None else [name for (name,) in said.rows("SELECT DISTINCT album FROM albums ORDER BY album")]
    return render(
        "browse/selection.html",
        editable=editable,
        is_managed=is_managed,
        albums=albums,
        fields=[] if said is None else list(said.fields()),
        last=None if said is None else next(iter(edits.edits(said, 1)), None),
        longest_caption=MAX_TEXT,
        longest_tag=MAX_TAG,
        most=MAX_SELECTED,
    )


def written(engine: SearchEngine, ids: list[int], kind: str) -> str:
    """What is said of pictures, a row of CSV or an object of JSONL each."""
    said = engine.store.annotations.of(ids) if engine.store.has_annotations else {}
    rows = [
        _row(path, engine.store.items[id].labels, said.get(id, Said()))
        for id, path in zip(ids, _paths(engine, ids), strict=True)
    ]
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    table = csv.DictWriter(out, names)
    table.writeheader()
    for row in rows:
        table.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _row(path: Path, labels: Iterable[str], said: Said) -> dict[str, Any]:
    return {
        "path": printable(path.as_posix()),
        "labels": [printable(label) for label in labels],
        "captions": list(dict.fromkeys(caption.text for caption in said.captions)),
        "tags": list({tag.tag.casefold(): tag.tag for tag in reversed(said.tags)}.values())[::-1],
        "favourite": said.is_favourite,
        "albums": list(said.albums),
        **{name: value if isinstance(value, int | float) else str(value) for name, value, _ in said.fields},
    }


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


class _Sink(io.RawIOBase):
    """Where a zip file is written to, piece by piece, and taken from as it comes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def zipped(engine: SearchEngine, ids: list[int]) -> Iterator[bytes]:
    """A zip file of the originals under their paths; what cannot be read is named in a file of its own."""
    sink = _Sink()
    missing: list[str] = []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for id, path in zip(ids, _paths(engine, ids), strict=True):
            name = printable(path.as_posix())
            try:
                file = open_item(engine, id)
            except ImageError as error:
                missing.append(f"{name}: {printable(error.reason)}\n")
                continue
            with file, archive.open(zipfile.ZipInfo(name, time.localtime()[:6]), "w", force_zip64=True) as entry:
                while piece := file.read(_PIECE):
                    entry.write(piece)
                    yield sink.taken()
        if missing:
            archive.writestr("not readable.txt", "".join(missing))
    yield sink.taken()
