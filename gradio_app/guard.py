"""What every request passes before it reaches a route, and what every answer carries.

`Guard` lies around the whole application, the REST API included. In this order it refuses foreign hosts, slows wrong
passwords down, asks who is calling before a body is read, bounds the body, and has events that the page cannot have
sent answered in a sentence. Who may send the API what is for the API to say.
`ContentPolicy` lies around the routes alone, where answers are not compressed yet, and says which scripts may run.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradio_app.gradio_seam import Visitors, login_is_needed, too_large_an_upload, user_of, with_own_card
from gradio_app.routes.access import LOOPBACK, host_name, is_loopback
from gradio_app.routes.api.beside import is_for_api
from gradio_app.routes.api.problems import ProblemResponse

logger = logging.getLogger(__name__)

MAX_BODY = 2**20  # bytes of an event; what the page sends has some hundred
MAX_LOGIN = 2**14
MAX_UPLOAD_BODY = 32 * 2**20  # a picture (page.UPLOAD_LIMIT) and the form around it
FREE_TRIES = 5  # wrong passwords that nobody has to wait for
LONGEST_WAIT = 60.0  # seconds between two tries
# Addresses as a whole: a collection may be called as a part of one, and then stands in those of its pictures and words.
_EVENT = re.compile(r"^/gradio_api/((run|api|call)/|queue/join/?$)")
_UPLOAD = "/gradio_api/upload"
_SENT = re.compile(r"^/collections/(upload|uploads/[0-9a-f]{32}/\d+)/?$")  # zip files, and files of a folder
_ASSETS = re.compile(r"^/(assets|static|svelte|favicon\.ico|icon\.svg|robots\.txt|(gradio_api/)?theme\.css)")

# Gradio makes functions out of text to run a page's scripts ('unsafe-eval') and writes styles into elements. Scripts in
# the page itself are let through by their hashes, one by one; so nothing runs that is written into the page later.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'{hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "manifest-src 'self'; worker-src 'self' blob:; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY.format(hashes=""),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


class WrongPasswords:
    """How long a client has to wait before its next try to log in.

    A try counts as wrong until it proves right, so that many at once gain nothing.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    CLIENTS = 10_000  # remembered at a time

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # so many in a row, the next one not before

    def begin(self, client: str) -> float:
        """Note a try; the seconds that it comes too early, 0 where it may go on."""
        tries, not_before = self._tries.get(client, (0, 0.0))
        now = self._clock()
        if now < not_before:
            return not_before - now
        tries += 1
        wait = 0.0 if tries < FREE_TRIES else min(2.0 ** (tries - FREE_TRIES), LONGEST_WAIT)
        self._tries[client] = tries, now + wait
        self._tries.move_to_end(client)
        if len(self._tries) > self.CLIENTS:
            self._tries.popitem(last=False)
        return 0.0

    def count(self, client: str) -> int:
        return self._tries.get(client, (0, 0.0))[0]

    def forget(self, client: str) -> None:
        """The password was right."""
        self._tries.pop(client, None)


class Guard:
    """ASGI middleware around the whole application; see the module.

    Parameters
    ----------
    hosts : callable
        Gives the host names, besides those of this computer, under which it may be asked for over loopback.
    events : callable
        Gives the numbers of the page's listeners.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Callable[[], Collection[str]], events: Callable[[], Collection[int]]
    ) -> None:
        self.app = app
        self._hosts = hosts
        self._events = events
        self._passwords = WrongPasswords()
        self._visitors = Visitors()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        application = scope.get("app")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        private = login_is_needed(application) and not _ASSETS.match(path)
        cookie = self._visitors.enter(scope, _client(scope)) if scope["method"] == "GET" and path == "/" else None
        if cookie is None:
            self._visitors.recognise(scope, _client(scope))
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if private:
                    headers["Cache-Control"] = "private, no-store"
                if path.rstrip("/") == "/logout":
                    headers["Clear-Site-Data"] = '"cache", "storage"'
                if message["status"] == 413:  # or the server would go on to receive what it does not take
                    headers["Connection"] = "close"
                if cookie is not None:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        try:
            refusal, receive = await self._look_at(scope, path, receive)
            if refusal is not None:
                await refusal(scope, receive, send_guarded)
            elif scope["method"] == "POST" and path.rstrip("/") == "/login" and login_is_needed(application):
                await self._log_in(scope, receive, send_guarded)
            else:
                await self.app(scope, receive, send_guarded)
        except Exception:
            if not started:
                await JSONResponse({"error": "That did not work."}, 500)(scope, receive, send_guarded)
            raise

    async def _look_at(self, scope: Scope, path: str, receive: Receive) -> tuple[JSONResponse | None, Receive]:
        """An answer to what goes no further, and where the body of what does comes from."""
        headers = Headers(scope=scope)
        is_api = is_for_api(path)
        if not self._is_for_us(scope, headers.get("host", "")):
            other_name = "This server goes by another name; who runs it can add names with --allow-host."
            return (ProblemResponse if is_api else _refuse)(403, other_name), receive
        if is_api:  # it knows who may send what, and counts for itself
            return None, receive
        length = headers.get("content-length")
        if not (headers.get("transfer-encoding") or (length or "0") != "0"):
            if scope["method"] == "POST" and _EVENT.search(path):
                return _refuse(422, "The page sent nothing. Reload it."), receive
            return None, receive
        logging_in = path.rstrip("/") == "/login"
        if login_is_needed(scope.get("app")) and not logging_in and await user_of(HTTPConnection(scope)) is None:
            return _refuse(401, "Please log in."), receive
        if scope["method"] == "PUT" and _SENT.match(path):  # counts for itself, and knows who may send how much
            return None, receive
        uploading = path.rstrip("/") == _UPLOAD
        limit = MAX_LOGIN if logging_in else MAX_UPLOAD_BODY if uploading else MAX_BODY
        too_large = _refuse(413, f"More than {limit:,} bytes are not taken here.")
        if length is not None and length.isdecimal() and int(length) > limit:
            return too_large, receive
        if uploading:
            return None, up_to(limit, receive, too_large_an_upload(limit))  # Gradio reads these piece by piece
        body = await _read(receive, limit)
        if body is None:
            return too_large, receive
        if scope["method"] == "POST" and _EVENT.search(path) and (wrong := self._wrong_event(body)):
            return _refuse(422, wrong), receive
        return None, _again(body, receive)

    def _is_for_us(self, scope: Scope, host: str) -> bool:
        """Whether the Host header names this server.

        A page of another site can have its own name point to 127.0.0.1 and then read what is served there (DNS
        rebinding). Where visitors log in that gains nothing, since the cookie belongs to the right name.
        """
        server = scope.get("server")
        if server is None or not is_loopback(server[0]) or login_is_needed(scope.get("app")):
            return True
        name = host_name(host)
        return name in LOOPBACK or is_loopback(name) or name in self._hosts()

    def _wrong_event(self, body: bytes) -> str:
        """What is wrong with an event that is none of the page's; "" for one that may be."""
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return "This is not JSON."
        if not isinstance(event, dict) or not isinstance(event.get("data"), list):
            return "An event is an object with a list of data."
        number, session = event.get("fn_index"), event.get("session_hash")
        if type(number) is not int or number not in self._events():
            return "The page has no such event. Reload it."
        if session is not None and not (isinstance(session, str) and re.fullmatch(r"[\w-]{1,64}", session, re.ASCII)):
            return "A session goes by letters and digits."
        return ""

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = _client(scope)
        wait = self._passwords.begin(client)
        if wait > 0:
            reply = JSONResponse(
                {"detail": f"Too many wrong passwords. Try again in {wait:.0f} seconds."},
                429,
                headers={"Retry-After": str(int(wait) + 1)},
            )
            await reply(scope, receive, send)
            return

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 200:
                    self._passwords.forget(client)
                elif message["status"] == 400:
                    logger.warning("wrong password from %s, %d in a row", client, self._passwords.count(client))
            await send(message)

        await self.app(scope, receive, send_noted)


class ContentPolicy:
    """ASGI middleware that lets the scripts run which the server wrote into a page, and no others.

    An inline script is named by its hash; Gradio writes the page's configuration into one, so each page has its own.

    Parameters
    ----------
    card : str
        HTML that says what the page is, in place of what Gradio says; see `gradio_seam.with_own_card`.
    """

    def __init__(self, app: ASGIApp, card: str = "") -> None:
        self.app = app
        self.card = card

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        parts: list[bytes] = []

        async def send_with_policy(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
            elif start is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    sent = b"".join(parts)
                    page = with_own_card(sent, self.card)
                    headers = MutableHeaders(scope=start)
                    headers["Content-Security-Policy"] = policy_of(page)
                    if page != sent:
                        headers["Content-Length"] = str(len(page))
                    await send(start)
                    await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, send_with_policy)


def _is_page(start: Message) -> bool:
    return Headers(scope=start).get("content-type", "").startswith("text/html")


def policy_of(page: bytes) -> str:
    """The content security policy of an HTML page."""
    digests = {hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page)}
    hashes = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in sorted(digests))
    return POLICY.format(hashes=hashes)


def _refuse(status: int, sentence: str) -> JSONResponse:
    # The connection is closed, or the server would go on to receive the body of what was refused.
    return JSONResponse({"error": sentence, "detail": sentence}, status, headers={"Connection": "close"})


def _client(scope: Scope) -> str:
    """The address that a request comes from; of IPv6 the network, as each customer has one."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


async def _read(receive: Receive, limit: int) -> bytes | None:
    """A body of at most `limit` bytes; None as soon as it is longer."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def up_to(limit: int, receive: Receive, too_large: Exception) -> Receive:
    """Give a body as it comes, whatever was said of its length, and raise `too_large` where it is longer than that."""
    count = 0

    async def receive_counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise too_large
        return message

    return receive_counted


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and what comes after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
