"""Pictures on their way to becoming collections: zip files and folders that are sent, folders of the server by name."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from features.paths import expanded
from gradio_app.gradio_seam import login_is_needed
from gradio_app.incoming import UploadError
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.markup import printable
from gradio_app.routes.access import REFUSED, StartToken, may_manage, require_login
from gradio_app.routes.pictures import as_download

MAX_UPLOAD = 4 * 2**30
MAX_ANNOUNCED = 5_000  # files at a time
SUGGESTED = 20
LOOKED_AT = 5_000  # entries of a folder: to list one of millions would take longer than the typing
NOW = {"Cache-Control": "no-store"}


class Announced(BaseModel):
    """Files of a folder that are to come: of each its path below it and its size in bytes."""

    files: Annotated[list[tuple[str, int]], Field(max_length=MAX_ANNOUNCED)]


def library_routes(library: Library, jobs: CollectionJobs | None, token: StartToken) -> list[BaseRoute]:
    """Routes beside the pictures: which state the collections are in, and what who may manage them sends and asks."""
    router = APIRouter(prefix="/collections", dependencies=[Depends(require_login)])

    @router.get("/version")
    def version() -> Response:
        return Response(str(library.version), media_type="text/plain", headers=NOW)

    if jobs is None:
        return list(router.routes)

    def managed(request: Request) -> None:
        if not may_manage(request.headers, token, logged_in=login_is_needed(request.app)):
            raise HTTPException(403, REFUSED)

    managing = APIRouter(dependencies=[Depends(managed)])

    @managing.put("/upload")
    async def upload(request: Request) -> Response:
        with _in_words():
            name, path = await anyio.to_thread.run_sync(jobs.uploads.new_zip)  # it may clear away much of before
        await _keep(request, path, MAX_UPLOAD, f"The file is larger than {MAX_UPLOAD / 2**30:g} GB.")
        return Response(name, media_type="text/plain")

    @managing.post("/uploads")
    def begin_folder() -> Response:
        with _in_words():
            return Response(jobs.uploads.new_folder(), media_type="text/plain")

    @managing.post("/uploads/{sent}")
    def announce(sent: str, announced: Announced) -> Response:
        with _in_words():
            return JSONResponse(jobs.uploads.folder(sent).announce(announced.files))

    @managing.put("/uploads/{sent}/{number}")
    async def receive(request: Request, sent: str, number: int) -> Response:
        with _in_words():
            folder = jobs.uploads.folder(sent)
            size, part = folder.size_of(number), folder.part_of(number)
            await _keep(request, part, size, "The file has changed while it was being sent.")
            try:
                folder.receive(number, part)
            finally:
                part.unlink(missing_ok=True)
        return Response(status_code=204)

    @managing.delete("/uploads/{sent}")
    def forget(sent: str) -> Response:
        jobs.forget(sent)
        return Response(status_code=204)

    # Plain functions, not coroutines: the disk is waited for in the server's thread pool.
    @managing.get("/folders")
    def folders(typed: Annotated[str, Query(max_length=4_000)] = "") -> Response:
        return JSONResponse(suggested_folders(typed), headers=NOW)

    @managing.get("/report")
    def report() -> Response:
        job = jobs.job
        if job is None or job.table is None or not job.table.is_file():
            raise HTTPException(404, "There is no report any more.")
        name = as_download(printable(f"{job.title}.csv"))
        return FileResponse(job.table, media_type="text/csv", headers={"Content-Disposition": name, **NOW})

    router.include_router(managing)
    return list(router.routes)


def suggested_folders(typed: str) -> list[str]:
    """Folders of the server whose path begins as what is typed does, whatever the case of its last part.

    At most `SUGGESTED`; those whose name begins with a dot only where that is typed. What cannot be listed has none.
    """
    above, slash, beginning = ("~/" if typed == "~" else typed).rpartition("/")
    if not slash or "\0" in typed:
        return []
    found = []
    try:
        folder = expanded(f"{above}/")
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, LOOKED_AT if folder.is_absolute() else 0):
                if _is_suggested(entry, beginning):
                    found.append(entry.name)
    except (OSError, ValueError):
        return []
    return [f"{above}/{name}/" for name in sorted(found, key=lambda name: (name.lower(), name))[:SUGGESTED]]


def _is_suggested(entry: os.DirEntry[str], beginning: str) -> bool:
    name = entry.name
    if not name.lower().startswith(beginning.lower()) or (name.startswith(".") and not beginning):
        return False
    try:
        return printable(name) == name and entry.is_dir()
    except OSError:
        return False


@contextmanager
def _in_words() -> Iterator[None]:
    """What is not taken is told in the words of its reason."""
    try:
        yield
    except UploadError as error:
        raise HTTPException(409, str(error)) from error
    except OSError as error:
        raise HTTPException(507, f"The file cannot be kept: {error.strerror}.") from error


async def _keep(request: Request, path: Path, most: int, otherwise: str) -> None:
    """Write the body of a request into a new file. Raises HTTPException 413 where it is longer than `most` bytes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise HTTPException(413, otherwise)
    size = 0
    try:
        with open(path, "xb") as file:  # noqa: PTH123
            chunks: AsyncIterator[bytes] = request.stream()
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise HTTPException(413, otherwise)
                file.write(chunk)
    except (HTTPException, OSError, ClientDisconnect) as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise HTTPException(507, f"The file cannot be kept: {error.strerror}.") from error
        raise
