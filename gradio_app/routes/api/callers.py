"""Who asks the API: a program with a key, or a visitor who would see the page, by what the page goes by."""

from __future__ import annotations

import anyio
from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from gradio_app.gradio_seam import login_is_needed, user_of
from gradio_app.routes.access import is_from_own_page
from gradio_app.routes.api.beside import PAGE
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.requests import CALLER, Caller

_ASK = {"WWW-Authenticate": "Bearer"}


class Callers:
    """Tells who asks.

    Parameters
    ----------
    keys : KeyStore or None
        None: there are no keys, and so nobody who may write.
    """

    def __init__(self, keys: KeyStore | None) -> None:
        self._keys = keys

    async def __call__(self, scope: Scope) -> Caller:
        """Who asks: the owner of a key, or else a visitor of the page, who reads.

        Raises
        ------
        HTTPException
            401: the key is none, or visitors log in, and this one has not. 403: a page of another site had a browser
            send it.
        """
        headers = Headers(scope=scope)
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            key = None if self._keys is None else await anyio.to_thread.run_sync(self._keys.find, text.strip())
            if key is None:
                raise HTTPException(401, "This key is none, or was revoked.", headers=_ASK)
            return Caller(f"key {key.id}", frozenset(key.scopes), is_key=True)
        if not is_from_own_page(headers):
            raise HTTPException(403, "Another site had your browser send this.")
        page = scope.get(PAGE)
        if login_is_needed(page) and await user_of(HTTPConnection({**scope, "app": page})) is None:
            raise HTTPException(401, "Please log in, or send a key (Authorization: Bearer).", headers=_ASK)
        return Caller((scope.get("client") or ("nobody", 0))[0], frozenset({"read"}))


def may_read(request: Request) -> None:
    """Raise HTTPException 403 unless who asks may read."""
    if "read" not in request.scope[CALLER].scopes:
        raise HTTPException(403, "This key does not open reading.")


def may_write(request: Request) -> Caller:
    """Who asks. Raises HTTPException 401 or 403 unless they may write: that takes a key, whoever sees the page."""
    caller: Caller = request.scope[CALLER]
    if "write" not in caller.scopes:
        if caller.is_key:
            raise HTTPException(403, "This key does not open writing.")
        raise HTTPException(401, "Writing takes a key of the scope write (Authorization: Bearer).", headers=_ASK)
    return caller
