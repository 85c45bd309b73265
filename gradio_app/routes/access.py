"""Who is let through: to the pictures, and to what changes collections."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from starlette.requests import cookie_parser
from starlette.routing import BaseRoute

from gradio_app.gradio_seam import login_is_needed, user_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
REFUSED = (
    "Collections are managed by who started the app, through the link that it printed at its start, "
    "or by who logs in (--auth)."
)


class StartToken:
    """What tells who started the app from everyone else: a secret of this run, in a link that is printed once.

    Opening the link leaves the secret in a cookie of that browser. An address would prove nothing: a reverse proxy
    passes on strangers from this very computer, and a page of someone else in the same browser can send requests here.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(32)
        # Cookies know nothing of ports: two apps on one computer must not overwrite each other's.
        self.cookie = f"ris-start-{hashlib.sha256(self.secret.encode()).hexdigest()[:8]}"

    @property
    def path(self) -> str:
        """Of the link, relative to the page."""
        return f"start?token={self.secret}"

    def is_held(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a browser that has opened the link."""
        return self._is(cookie_parser(headers.get("cookie", "")).get(self.cookie, ""))

    def _is(self, offered: str) -> bool:
        return secrets.compare_digest(offered.encode("utf-8", "replace"), self.secret.encode())

    def routes(self) -> list[BaseRoute]:
        """Where the link leads to: the page, with the cookie set."""
        router = APIRouter()

        @router.get("/start")
        def start(request: Request, token: str = "") -> Response:
            if not self._is(token):
                raise HTTPException(403, "This link belongs to an earlier start of the app. Use the one printed last.")
            reply = RedirectResponse("./", 303, headers={"Cache-Control": "no-store"})
            scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
            reply.set_cookie(self.cookie, self.secret, httponly=True, samesite="strict", secure=scheme == "https")
            return reply

        return list(router.routes)


async def require_login(request: Request) -> None:
    """Let through who Gradio would let through: anyone without ``--auth``, else only who has logged in."""
    if login_is_needed(request.app) and await user_of(request) is None:
        raise HTTPException(401, "Please log in.")


def may_manage(headers: Mapping[str, str], token: StartToken, *, logged_in: bool) -> bool:
    """Whether a request may change collections: it comes from our own page, and from who started the app or logged in.

    Parameters
    ----------
    headers : mapping
        Of the request, with names in lower case.
    logged_in : bool
        The app asks visitors to log in, and this one has.
    """
    return is_from_own_page(headers) and (logged_in or token.is_held(headers))


class EditPermission:
    """Whether who asks may edit what is said of pictures: see `may_manage`.

    Parameters
    ----------
    is_managed : bool
        Whether collections can be changed at all on this page.
    """

    def __init__(self, token: StartToken, *, is_managed: bool) -> None:
        self._token, self._is_managed = token, is_managed

    def __call__(self, request: Request) -> bool:
        return self._is_managed and may_manage(request.headers, self._token, logged_in=login_is_needed(request.app))


def is_from_own_page(headers: Mapping[str, str]) -> bool:
    """Whether no other site had the browser send this."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # the browser's own word, which no page can forge and no proxy changes
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        sender = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(sender) and sender in (headers.get("host"), headers.get("x-forwarded-host"))


def host_name(host: str) -> str:
    """The name in a Host header, without the port; "" where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback(address: str | None) -> bool:
    """Whether an IP address is this computer's own."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return ip.is_loopback or bool(getattr(ip, "ipv4_mapped", None) and ip.ipv4_mapped.is_loopback)  # type: ignore[union-attr]
