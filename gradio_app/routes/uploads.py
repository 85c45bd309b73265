"""Zip files on their way to becoming collections."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from gradio_app.gradio_seam import login_is_needed
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.routes.access import REFUSED, StartToken, may_manage, require_login

MAX_UPLOAD = 4 * 2**30


def library_routes(library: Library, jobs: CollectionJobs | None, token: StartToken) -> list[BaseRoute]:
    """Routes beside the pictures: which state the collections are in, and where a zip file is sent to."""
    router = APIRouter(prefix="/collections", dependencies=[Depends(require_login)])

    @router.get("/version")
    def version() -> Response:
        return Response(str(library.version), media_type="text/plain", headers={"Cache-Control": "no-store"})

    if jobs is None:
        return list(router.routes)

    @router.put("/upload")
    async def upload(request: Request) -> Response:
        if not may_manage(request.headers, token, logged_in=login_is_needed(request.app)):
            raise HTTPException(403, REFUSED)
        length = request.headers.get("content-length", "")
        too_large = HTTPException(413, f"The file is larger than {MAX_UPLOAD / 2**30:g} GB.")
        if length.isdecimal() and int(length) > MAX_UPLOAD:
            raise too_large
        name, path = jobs.new_upload()
        size = 0
        try:
            with open(path, "xb") as file:  # noqa: PTH123
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_UPLOAD:
                        raise too_large
                    file.write(chunk)
        except (HTTPException, OSError, ClientDisconnect) as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise HTTPException(507, f"The file cannot be kept: {error.strerror}.") from error
            raise
        return Response(name, media_type="text/plain")

    return list(router.routes)
