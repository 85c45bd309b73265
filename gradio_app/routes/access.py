"""Who is let through: to the pictures, and to what changes collections."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

LOOPBACK = ("127.0.0.1", "localhost", "::1")


async def require_login(request: Request) -> None:
    """Let through who Gradio would let through: anyone without ``--auth``, else only who has logged in."""
    app = request.app
    if app.auth is None and app.auth_dependency is None:
        return
    if app.auth_dependency is not None:
        user = app.auth_dependency(request)
        user = await user if inspect.isawaitable(user) else user
    else:
        cookies = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
        user = next((app.tokens[t] for c in cookies if (t := request.cookies.get(c)) in app.tokens), None)
    if user is None:
        raise HTTPException(401, "Please log in.")


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
