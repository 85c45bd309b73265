"""Who asks the API: a visitor who would see the page, by what the page goes by."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from gradio_app.gradio_seam import login_is_needed, user_of
from gradio_app.routes.access import is_from_own_page
from gradio_app.routes.api.beside import PAGE
from gradio_app.routes.api.requests import Caller


async def caller_of(scope: Scope) -> Caller:
    """Who asks: whoever could see the page may read.

    Raises
    ------
    HTTPException
        401: visitors log in, and this one has not. 403: a page of another site had a browser send it.
    """
    if not is_from_own_page(Headers(scope=scope)):
        raise HTTPException(403, "Another site had your browser send this.")
    page = scope.get(PAGE)
    address = (scope.get("client") or ("nobody", 0))[0]
    if login_is_needed(page) and await user_of(HTTPConnection({**scope, "app": page})) is None:
        raise HTTPException(401, "Please log in.", headers={"WWW-Authenticate": "Bearer"})
    return Caller(address, frozenset({"read"}))
