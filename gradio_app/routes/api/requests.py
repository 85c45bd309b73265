"""What every request to the API passes: who asks, how often, how much is sent; what is counted and logged of it."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradio_app.guard import up_to
from gradio_app.routes.api.metrics import Metrics
from gradio_app.routes.api.problems import ProblemResponse

logger = logging.getLogger(__name__)

MAX_JSON = 4 * 2**20  # bytes; larger pictures go as a form
MAX_FORM = 32 * 2**20
MAX_UPLOAD = 256 * 2**20
RATE, BURST = 20.0, 60  # requests a second of one who asks, in the long run and at once
OPEN = frozenset({"/healthz", "/readyz"})  # they say nothing, and whoever watches over the server has no key
CALLER, REQUEST_ID = "ris.caller", "ris.request_id"
"""Keys of a scope: who asks, and the id of the request."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes
    ----------
    name : str
        Of the key, or the address.
    scopes : frozenset of str
        "read", "write".
    is_key : bool
    """

    name: str
    scopes: frozenset[str]
    is_key: bool = False


class RateLimit:
    """A bucket of tokens for each who asks: full it holds `burst`, and `rate` come in a second.

    Parameters
    ----------
    rate : float
        0: no limit.
    """

    CLIENTS = 10_000  # remembered at a time

    def __init__(self, rate: float = RATE, burst: int = BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, as of when

    def wait(self, name: str) -> float:
        """Take a token; the seconds until there is one, 0 where it was taken."""
        if not self._rate:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.get(name, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        enough = tokens >= 1
        self._buckets[name] = (tokens - enough, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self.CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self._rate


class Requests:
    """ASGI middleware around the API; see the module.

    Parameters
    ----------
    caller_of : callable
        Tells who asks, or raises HTTPException.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, caller_of: Callable[[Scope], Awaitable[Caller]], limit: RateLimit
    ) -> None:
        self.app = app
        self._metrics, self._caller_of, self._limit = metrics, caller_of, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        scope[REQUEST_ID] = id = offered if _ID.fullmatch(offered) else secrets.token_hex(8)
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = id
            await send(message)

        try:
            refusal, receive = await self._look_at(scope, receive)
            await (refusal or self.app)(scope, receive, send_noted)
        except Exception:  # the application has answered it, and it goes no further than the log
            logger.exception("request %s", id)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    async def _look_at(self, scope: Scope, receive: Receive) -> tuple[ProblemResponse | None, Receive]:
        """An answer to what goes no further, and where the body of what does comes from."""
        if scope["path"].removeprefix(scope.get("root_path", "")) in OPEN:
            return None, receive
        try:
            scope[CALLER] = caller = await self._caller_of(scope)
        except HTTPException as error:
            return ProblemResponse(error.status_code, error.detail, headers=error.headers), receive
        if (wait := self._limit.wait(caller.name)) > 0:
            return ProblemResponse(429, "Too many requests.", headers={"Retry-After": str(int(wait) + 1)}), receive
        limit = limit_of(scope)
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            return ProblemResponse(413, _too_large(limit), headers={"Connection": "close"}), receive
        too_large = HTTPException(413, _too_large(limit), headers={"Connection": "close"})
        return None, up_to(limit, receive, too_large)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.request(scope["method"] if route != "none" else "any", route, status, seconds)
        caller = scope.get(CALLER)
        said = {
            "request_id": scope[REQUEST_ID],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1e3, 1),
            "caller": caller.name if caller is not None else None,
        }
        # Whoever watches over the server asks every few seconds.
        logger.log(logging.DEBUG if route in (*OPEN, "/metrics") else logging.INFO, "%s", json.dumps(said))


def limit_of(scope: Scope) -> int:
    """How many bytes the body of a request may have."""
    kind = Headers(scope=scope).get("content-type", "").lower()
    if scope["method"] == "POST" and scope["path"].endswith("/images"):
        return MAX_UPLOAD
    return MAX_FORM if kind.startswith("multipart/form-data") else MAX_JSON


def _too_large(limit: int) -> str:
    return f"More than {limit:,} bytes are not taken here."
