"""Duplicates over HTTP: seen by everyone, decided by who may manage collections.

The answer to all of these is the same piece of the page: the groups that are left to decide about, those put off, or
what was set aside. Decisions are edits as any others. Files are moved only to the trash folder and back, when a person
has confirmed it, and then the collection is brought up to date: see `features.collection.trash`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.routing import BaseRoute

from features.collection import duplicates as decisions
from features.collection import edits
from features.collection.annotations import Annotations
from features.collection.trash import move_to_trash, put_back, trash_folder, trashed, why_no_trash
from features.images.formats import FILE_ENDINGS
from gradio_app.grid import Tile, tile_values
from gradio_app.jobs import CollectionJobs, JobError
from gradio_app.markup import printable, render
from gradio_app.routes.access import REFUSED, EditPermission, StartToken, require_login
from gradio_app.routes.learned import ShownPicture
from gradio_app.routes.pictures import as_download, collection_in, folder_of
from gradio_app.routes.words import NOW, check_same_pictures, in_words
from search.duplicate_pairs import Level, Pairs
from search.duplicates import Group, groups_of
from search.engine import SearchEngine
from search.same_picture import INSTALL, can_prove

PAGE = 12
MAX_SHOWN = 600

Shelf = Literal["open", "later", "aside"]

_TOLD = {
    Level.SAME_BYTES: ("Same file", "The files are equal, byte for byte."),
    Level.SAME_PIXELS: ("Same pixels", "The pixels are equal; the files differ in format or in what else they say."),
    Level.PROVED: ("Same picture", "Geometry proves it: one is the other, smaller, cropped, turned or recompressed."),
    Level.LIKELY: ("Likely the same", "By hash and vector alone; nobody has looked closer yet."),
    Level.ALIKE: ("Alike", "They look alike, and it was not proved that they are the same."),
}


class DuplicateDecision(BaseModel):
    """What was decided, as the page sends it.

    Attributes
    ----------
    pictures : list of ShownPicture
        Of a group; the first is the one that is kept.
    edit : int
        Which edit is taken back: the number that the page showed.
    count : int
        How many files go to the trash, as the person has confirmed.
    show, shown, alike
        What the page wants to see: see `duplicate_routes`.
    """

    do: Literal["keep", "different", "later", "take_back", "undo", "closer", "trash", "put_back"]
    pictures: list[ShownPicture] = Field([], max_length=decisions.MAX_DECIDED)
    edit: int = 0
    count: int = 0
    show: Shelf = "open"
    shown: int = PAGE
    alike: bool = False


_DONE: dict[str, Callable[[Annotations, list[int], DuplicateDecision], object]] = {
    "keep": lambda said, ids, decision: decisions.keep(said, ids[0], ids[1:]),
    "different": lambda said, ids, decision: decisions.call_different(said, ids),
    "later": lambda said, ids, decision: decisions.postpone(said, ids),
    "take_back": lambda said, ids, decision: decisions.take_back(said, ids),
    "undo": lambda said, ids, decision: edits.undo(said, decision.edit),
}


def duplicate_routes(
    engines: Mapping[str, SearchEngine], token: StartToken, jobs: CollectionJobs | None
) -> list[BaseRoute]:
    """Routes of the duplicates in `engines` (by collection name).

    Parameters
    ----------
    jobs : CollectionJobs or None
        Where a closer look is done; None where collections cannot be changed on this page.
    """
    router = APIRouter(prefix="/duplicates/{collection}", dependencies=[Depends(require_login)])
    may_edit = EditPermission(token, is_managed=jobs is not None)

    def panel(request: Request, engine: SearchEngine, show: Shelf, shown: int, alike: bool) -> Response:
        page = duplicates_panel(engine, jobs, show, shown, alike=alike, editable=may_edit(request))
        return HTMLResponse(page, headers=NOW)

    # Plain functions, not coroutines: sqlite is waited for in the server's thread pool.
    @router.get("")
    def read(
        request: Request,
        collection: str,
        show: Shelf = "open",
        shown: Annotated[int, Query()] = PAGE,
        alike: bool = False,
    ) -> Response:
        with in_words():
            return panel(request, collection_in(engines, collection), show, shown, alike)

    @router.post("")
    def decide(request: Request, collection: str, decision: DuplicateDecision) -> Response:
        if jobs is None or not may_edit(request):
            raise HTTPException(403, REFUSED)
        engine = collection_in(engines, collection)
        with in_words():
            if decision.do in ("closer", "trash", "put_back"):
                try:
                    _work(decision, engine, jobs)
                except JobError as error:
                    raise HTTPException(409, str(error)) from error
            else:
                check_same_pictures(engine, [(picture.id, picture.content) for picture in decision.pictures])
                ids = [picture.id for picture in decision.pictures]
                _DONE[decision.do](engine.store.annotations, ids, decision)
            return panel(request, engine, decision.show, decision.shown, decision.alike)

    @router.get("/list")
    def export(request: Request, collection: str) -> Response:
        """The paths of what was set aside; whole ones for who may manage collections."""
        engine = collection_in(engines, collection)
        with in_words():
            away = decisions.set_aside(engine.store.annotations) if engine.store.has_annotations else {}
            root = folder_of(engine).root if may_edit(request) else PurePath()
            paths = [printable(os.fspath(root / record.path)) for record in engine.store.records(list(away))]
        headers = {"Content-Disposition": as_download(printable(f"{engine.name} set aside.txt")), **NOW}
        return PlainTextResponse("".join(f"{path}\n" for path in paths), headers=headers)

    return list(router.routes)


def _work(decision: DuplicateDecision, engine: SearchEngine, jobs: CollectionJobs) -> None:
    """What takes longer than a decision, or is to be followed by a sync."""
    if decision.do == "closer":
        jobs.look_for_duplicates(engine.name)
        return
    jobs.check_free(engine.name)  # before a file is moved
    moved = put_back(engine.store) if decision.do == "put_back" else move_to_trash(engine.store, decision.count)
    if moved.paths:
        try:
            jobs.sync(engine.name)
        except JobError as error:
            raise JobError(f"{len(moved.paths):,} files were moved. {error} Then sync {engine.name}.") from error
    if moved.left:
        path, reason = moved.left[0]
        raise JobError(
            f"{len(moved.paths):,} files were moved and {len(moved.left):,} stayed where they are, the first of them "
            f"{printable(os.fspath(path))}: {reason}."
        )


def duplicates_panel(
    engine: SearchEngine, jobs: CollectionJobs | None, show: Shelf, count: int, *, alike: bool, editable: bool
) -> str:
    """HTML of the duplicates of a collection: at most so many groups of a shelf, or pictures that were set aside."""
    store = engine.store
    pairs = Pairs.of(store)
    groups = groups_of(store, pairs, Level.ALIKE if alike else None)
    away = decisions.set_aside(store.annotations) if store.has_annotations else {}
    shelves = {
        "open": [group for group in groups if not group.is_later],
        "later": [group for group in groups if group.is_later],
    }
    count = min(max(count, PAGE), MAX_SHOWN)
    shown = shelves.get(show, [])[:count]
    job = jobs.job if jobs is not None else None
    is_working = job is not None and job.state == "running" and job.collection == engine.name
    aside = list(away)[:count] if show == "aside" else []
    total = len(away) if show == "aside" else len(shelves[show])
    last = next(iter(edits.edits(store.annotations, 1)), None) if editable and store.has_annotations else None
    return render(
        "duplicates.html",
        name=engine.name,
        show=show,
        counts={**{shelf: len(each) for shelf, each in shelves.items()}, "aside": len(away)},
        groups=[_shown(engine, group) for group in shown],
        aside=_facts(engine, aside),
        kept={id: _name_of(engine, away[id]) for id in aside},
        alike=alike,
        more=min(PAGE, total - count, MAX_SHOWN - count),
        shown=count,
        spare=sum(len(group.ids) - 1 for group in shelves["open"]),
        last=last,
        editable=editable,
        is_managed=jobs is not None,
        trash=printable(os.fspath(trash_folder(store))) if show == "aside" and why_no_trash(store) is None else "",
        trashed=len(trashed(store)) if show == "aside" and editable else 0,
        manages=jobs is not None and jobs.manages(engine.name),
        is_looked_for=pairs is not None,
        unseen=0 if pairs is None else pairs.unseen,
        unhashed=len(store.catalog.without_phash()),
        install="" if can_prove() else INSTALL,
        job=job if is_working else None,
    )


def _shown(engine: SearchEngine, group: Group) -> dict[str, Any]:
    title, meaning = _TOLD[group.level]
    pictures = _facts(engine, group.ids)
    differing = [name for name in ("pixels", "bytes", "date", "format") if len({each[name] for each in pictures}) > 1]
    return {"title": title, "meaning": meaning, "pictures": pictures, "differing": differing}


def _facts(engine: SearchEngine, ids: Sequence[int]) -> list[dict[str, Any]]:
    """What tells pictures apart, with what a tile of a grid needs."""
    sizes, paths = engine.store.catalog.sizes(ids), {each.id: each.path for each in engine.store.records(ids)}
    told = []
    for id in ids:
        width, height, size, mtime = sizes[id]
        told.append(
            {
                **tile_values(engine, Tile(id)),
                "path": paths[id].as_posix(),
                "pixels": f"{width:,} × {height:,}" if width and height else "",
                "bytes": f"{size:,} bytes",
                "date": datetime.fromtimestamp(mtime / 1e9, UTC).strftime("%Y-%m-%d %H:%M"),
                "format": _format_of(paths[id]),
            }
        )
    return told


def _format_of(path: PurePath) -> str:
    ending = path.suffix.lower()
    return next((name for name, known in FILE_ENDINGS.items() if known == ending), ending.lstrip(".").upper())


def _name_of(engine: SearchEngine, sha256: str) -> str:
    id = engine.store.find_hash(sha256)
    return "" if id is None else engine.store.items[id].path.name
