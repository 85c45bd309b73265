"""Zip files on their way to becoming collections, and who may send them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from gradio_app.library import Library
from gradio_app.thumbs import require_login
from gradio_app.workshop import Workshop

MAX_UPLOAD = 4 * 2**30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_trusted(headers: Mapping[str, str], logged_in: bool) -> bool:
    """Whether a request may change collections: it comes from our own page, and from this computer or a known visitor.

    That the server listens on the loopback interface does not settle it. A page of someone else in the same browser
    can send requests there, under a name of its own that it lets point to 127.0.0.1 (DNS rebinding), and a proxy may
    pass on what comes from anywhere.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    if logged_in:
        return True
    forwarded = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"))
    return not forwarded and urlsplit(f"//{host}").hostname in LOOPBACK


def library_routes(library: Library, workshop: Workshop | None) -> list[BaseRoute]:
    """Routes beside the pictures: which state the collections are in, and where a zip file is sent to."""
    router = APIRouter(prefix="/collections", dependencies=[Depends(require_login)])

    @router.get("/version")
    def version() -> Response:
        return Response(str(library.version), media_type="text/plain", headers={"Cache-Control": "no-store"})

    if workshop is None:
        return list(router.routes)

    @router.put("/upload")
    async def upload(request: Request) -> Response:
        if not is_trusted(request.headers, request.app.auth is not None or request.app.auth_dependency is not None):
            raise HTTPException(403, "Collections are managed from this computer only, or after logging in (--auth).")
        length = request.headers.get("content-length", "")
        too_large = HTTPException(413, f"The file is larger than {MAX_UPLOAD / 2**30:g} GB.")
        if length.isdecimal() and int(length) > MAX_UPLOAD:
            raise too_large
        token, path = workshop.new_upload()
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
        return Response(token, media_type="text/plain")

    return list(router.routes)
