"""Pictures come into collections and leave them: jobs, each with an address of its own to look how far it is."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from PIL import Image
from starlette.datastructures import UploadFile

from features.checksum import sha256_of
from features.images import STRANGERS_PICTURES, ImageError, decode_image
from features.images.formats import FILE_ENDINGS
from gradio_app.jobs import CollectionJobs
from gradio_app.routes.api import models
from gradio_app.routes.api.callers import may_write
from gradio_app.routes.api.collections import ImageId
from gradio_app.routes.api.context import PREFIX, Context, check_picture
from gradio_app.routes.api.cursors import fingerprint
from gradio_app.routes.api.job_store import OVER, JobStore, OtherRequestError, StoredJob
from gradio_app.routes.api.job_worker import JobWorker
from gradio_app.routes.api.problems import documented
from gradio_app.routes.api.requests import Caller
from gradio_app.routes.api.words import SECURITY
from gradio_app.routes.pictures import folder_of
from search.engine import SearchEngine

MAX_FILES = 100  # of one upload
MAX_FILE = 32 * 2**20
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="Of a request that is sent again: the job is that of the first"),
]
_UPLOAD = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
        "folder": {"type": "string", "description": "Of the collection, where they go; its name becomes their label"},
    },
    "required": ["image"],
}


def write_routes(context: Context, store: JobStore, worker: JobWorker, jobs: CollectionJobs) -> APIRouter:
    router = APIRouter(tags=["jobs"], dependencies=[Depends(may_write)])

    def asked_for(
        request: Request,
        response: Response,
        kind: str,
        collection: str,
        task: dict[str, Any],
        *,
        caller: Caller,
        key: str | None,
        question: Any,
        id: str | None = None,
    ) -> models.Job:
        try:
            job = store.add(
                id or secrets.token_hex(8),
                kind,
                collection,
                task,
                caller=caller.name,
                key=key,
                fingerprint=fingerprint([kind, collection, question]),
            )
        except OtherRequestError as error:
            raise HTTPException(422, str(error)) from error
        worker.start()
        shown = _shown(job, request)
        response.headers["Location"] = shown.link
        return shown

    @router.post(
        "/collections/{name}/images",
        status_code=202,
        responses=documented(404, 409, 415),
        openapi_extra={
            **SECURITY,
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}},
        },
    )
    async def add_images(
        request: Request,
        response: Response,
        name: str,
        caller: Annotated[Caller, Depends(may_write)],
        idempotency_key: IdempotencyKey = None,
    ) -> models.Job:
        """Put pictures into a collection that was made of a folder or an upload; `image` may be there several times."""
        engine = _writable(context, jobs, name)
        id = secrets.token_hex(8)
        place = worker.place_of(id)
        try:
            files, folder = await _received(request, place)
            root = folder_of(engine).root
            task = await anyio.to_thread.run_sync(partial(_checked, files, folder, root))
            question = [folder, [file["sha256"] for file in task["files"]]]
            job = await anyio.to_thread.run_sync(
                partial(
                    asked_for, request, response, "upload", name, task,
                    caller=caller, key=idempotency_key, question=question, id=id,
                )
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        if job.id != id:  # it was sent again
            shutil.rmtree(place, ignore_errors=True)
        return job

    @router.delete(
        "/collections/{name}/images/{id}", status_code=202, responses=documented(404, 409), openapi_extra=SECURITY
    )
    def remove_image(
        request: Request,
        response: Response,
        name: str,
        id: ImageId,
        caller: Annotated[Caller, Depends(may_write)],
        idempotency_key: IdempotencyKey = None,
    ) -> models.Job:
        """Delete a picture that was uploaded, and take it from its collection. Files of your own folders stay."""
        engine = _writable(context, jobs, name)
        check_picture(engine, id)
        root = folder_of(engine).root
        if not root.resolve().is_relative_to(Path(engine.folder).resolve()):
            raise HTTPException(
                409,
                f"The pictures of {name} lie in a folder of their owner: remove it there, then sync the collection.",
            )
        (record,) = engine.store.records([id])
        task = {"files": [{"path": record.path.as_posix(), "sha256": record.sha256}]}
        return asked_for(request, response, "remove", name, task, caller=caller, key=idempotency_key, question=task)

    @router.post("/collections/{name}/sync", status_code=202, responses=documented(404, 409), openapi_extra=SECURITY)
    def sync_collection(
        request: Request,
        response: Response,
        name: str,
        caller: Annotated[Caller, Depends(may_write)],
        idempotency_key: IdempotencyKey = None,
    ) -> models.Job:
        """Take into a collection what has changed in the folder of its pictures."""
        if not jobs.manages(context.collection(name).name):
            raise HTTPException(409, f"{name} is no collection that could be changed here.")
        return asked_for(request, response, "sync", name, {}, caller=caller, key=idempotency_key, question=None)

    @router.get("/jobs", responses=documented(), openapi_extra=SECURITY)
    def list_jobs(request: Request, limit: Annotated[int, Query(ge=1, le=models.MAX_PAGE)] = 50) -> models.JobList:
        """What was asked for, the latest first."""
        return models.JobList(jobs=[_shown(job, request) for job in store.listed(limit)])

    @router.get("/jobs/{id}", responses=documented(404), openapi_extra=SECURITY)
    def get_job(request: Request, id: str) -> models.Job:
        """How far a job is, or what became of it."""
        return _shown(_found(store, id), request)

    @router.delete("/jobs/{id}", status_code=202, responses=documented(404, 409), openapi_extra=SECURITY)
    def cancel_job(request: Request, id: str) -> models.Job:
        """Stop a job; nothing of it stays."""
        if _found(store, id).state in OVER:
            raise HTTPException(409, "This job is over.")
        job = store.cancel(id)
        if job.state == "cancelled":
            shutil.rmtree(worker.place_of(id), ignore_errors=True)
        return _shown(job, request)

    return router


def _writable(context: Context, jobs: CollectionJobs, name: str) -> SearchEngine:
    """A collection whose pictures are the files of a folder. Raises HTTPException 404 or 409."""
    engine = context.collection(name)
    kind = engine.store.manifest.get("source", {}).get("kind", "folder")
    if not jobs.manages(name) or kind != "folder":
        raise HTTPException(409, f"{name} is no collection that pictures could be put into or taken from here.")
    return engine


async def _received(request: Request, place: Path) -> tuple[list[tuple[str, Path]], str]:
    """The pictures of a form, each with its name and where it lies now, and the folder that they are for."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, "Pictures are sent as multipart/form-data.")
    async with request.form(max_files=MAX_FILES, max_fields=5) as form:
        folder = ""
        files: list[tuple[str, Path]] = []
        for name, value in form.multi_items():
            if name == "image" and isinstance(value, UploadFile):
                if (value.size or 0) > MAX_FILE:
                    raise HTTPException(413, f"A picture has at most {MAX_FILE:,} bytes here.")
                content = await value.read()
                path = place / str(len(files))
                await anyio.to_thread.run_sync(partial(_keep, path, content))
                files.append((value.filename or "picture", path))
            elif name == "folder" and isinstance(value, str):
                folder = value
            else:
                raise HTTPException(422, f"A form of pictures has `image` and `folder`, and no {name[:80]}.")
    if not files:
        raise HTTPException(422, "A form of pictures brings at least one, as the file `image`.")
    return files, folder


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _checked(files: list[tuple[str, Path]], folder: str, root: Path) -> dict[str, Any]:
    """What an upload job needs to know. Raises HTTPException 422 where one is no picture."""
    below = _clean_folder(folder)
    read = []
    for name, path in files:
        content = path.read_bytes()
        try:
            decode_image(content, limits=STRANGERS_PICTURES)
        except ImageError as error:
            raise HTTPException(422, f"{name[:80]} cannot be read as a picture: {error.reason}") from error
        sha256 = sha256_of(content)
        kept = str(below / f"{_clean(PurePosixPath(name).stem) or 'picture'}-{sha256[:12]}{_ending(content)}")
        was_there = (root / kept).exists()
        read.append({"name": name[:255], "staged": path.name, "path": kept, "sha256": sha256, "was_there": was_there})
    return {"files": read}


def _ending(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as picture:
        return FILE_ENDINGS.get(picture.format or "", ".heic")


def _clean_folder(folder: str) -> PurePosixPath:
    """A folder below that of the collection, of names that no system takes for anything else."""
    names = [_clean(name) for name in folder.split("/")]
    if len(names) > 8:
        raise HTTPException(422, "A folder is at most 8 levels deep.")
    return PurePosixPath(*(name for name in names if name))


def _clean(name: str) -> str:
    return re.sub(r"[^\w. -]+", "_", name).strip(" ._-")[:80].strip(" ._-")


def _found(store: JobStore, id: str) -> StoredJob:
    try:
        if store.path.exists():
            return store.get(id)
    except KeyError:
        pass
    raise HTTPException(404, "There is no such job.")


def _shown(job: StoredJob, request: Request) -> models.Job:
    return models.Job(
        id=job.id,
        kind=job.kind,  # type: ignore[arg-type]  # the routes above name no others
        collection=job.collection,
        state=job.state,
        stage=job.stage,
        done=job.done,
        total=job.total,
        error=job.error,
        result=job.result,
        created=datetime.fromtimestamp(job.created, UTC).isoformat(timespec="seconds"),
        changed=datetime.fromtimestamp(job.changed, UTC).isoformat(timespec="seconds"),
        link=f"{request.scope.get('root_path', '')}{PREFIX}/jobs/{job.id}",
    )
