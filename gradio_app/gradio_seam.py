"""Every touch of Gradio's inside, each with the version it was seen in.

Gradio's public interface is used wherever there is one. What is here reaches past it, and `tests/test_gradio_seam.py`
says of each piece when it may go: it tries plain Gradio, and fails once Gradio does by itself what is done here.
(`quick_start` is one more piece; it has to come before any import of Gradio. `static/watch.js` is another.)
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import inspect
import math
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import httpx
from gradio import http_server, networking
from gradio.exceptions import ServerFailedToStartError
from gradio.processing_utils import save_bytes_to_cache
from gradio.routes import App, ORJSONResponse
from gradio.state_holder import SessionState, StateHolder
from gradio_client.utils import is_http_url_like
from starlette.formparsers import MultiPartException
from starlette.requests import HTTPConnection, Request, cookie_parser
from starlette.types import ASGIApp, Scope

from gradio_app.markup import printable

# What Gradio reads from the environment. It asks matplotlib for its backend at every event: finding out which there are
# would import all of it. And after every event of its queue it would compute statistics of the last 10,000, with
# pandas. (6.31)
ENVIRONMENT = {"MPLBACKEND": "agg", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}

START_WITHIN = 600.0  # seconds; on a busy machine a server may take more than Gradio's five
MAX_TEXT = 10_000  # characters of a field
MAX_CHOICES = 1_000
MAX_DEPTH = 20


def sorry(sentence: str) -> gr.Error:
    """What a visitor is told. Gradio shows it as HTML (6.31), and it may quote a file name or a web address."""
    return gr.Error(escape(printable(sentence)), print_exception=False)


# What the page is


def with_own_card(page: bytes, card: str) -> bytes:
    """A page of Gradio's with our title, icon and description in place of its own.

    Its template says "Gradio" in them, and names addresses of its own. (6.31) Any other page is left as it is.
    """
    if not card or b"window.gradio_config" not in page:
        return page
    return _CARD.sub(b"", page).replace(b"<head>", b"<head>" + card.encode(), 1)


_CARD = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*|<link rel="manifest"[^>]*>\s*')


# What the page sends


def names_remote_file(data: Any) -> bool:
    """Whether there is a file with a web address among the values of an event.

    Gradio would fetch it for the caller, with none of the checks and limits of `remote_image`. (6.31)
    """
    if isinstance(data, Mapping):
        path = data.get("path")
        return (isinstance(path, str) and is_http_url_like(path.strip())) or any(map(names_remote_file, data.values()))
    return isinstance(data, list | tuple) and any(map(names_remote_file, data))


def check_values(components: list[Any], values: list[Any]) -> None:
    """Refuse values that the components of a listener never have.

    Listeners skip Gradio's preprocessing, and what that raises on odd values it logs with a traceback. (6.31) Whether a
    number is in range, or a choice among those offered, is for the handler to say: both change with the collection.

    Raises
    ------
    gr.Error
        In a sentence, without a traceback in the log.
    """
    if len(values) != len(components):
        raise sorry("The page and the server do not agree on what is sent. Reload the page.")
    for component, value in zip(components, values, strict=True):
        if not isinstance(component, gr.State) and not _fits(component, value):
            label = getattr(component, "label", None) or type(component).__name__.lower()
            raise sorry(f"The value of {label!r} is none that the page could send. Reload the page.")


def _fits(component: Any, value: Any) -> bool:
    if value is None:
        return not isinstance(component, gr.Checkbox)
    if isinstance(component, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(component, gr.Slider | gr.Number):
        return isinstance(value, int | float) and not isinstance(value, bool) and is_plain(value)
    if isinstance(component, gr.CheckboxGroup) or (isinstance(component, gr.Dropdown) and component.multiselect):
        return (
            isinstance(value, list)
            and len(value) <= MAX_CHOICES
            and all(isinstance(v, str) and is_text(v) for v in value)
        )
    if isinstance(component, gr.Textbox | gr.Dropdown | gr.Radio):
        return isinstance(value, str) and is_text(value)
    if isinstance(component, gr.Image | gr.File):
        return isinstance(value, Mapping) and isinstance(value.get("path"), str) and is_plain(value)
    return is_plain(value)


def is_text(value: str) -> bool:
    """Whether a string is one that a person could have typed."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half a character
        return False
    return len(value) <= MAX_TEXT and "\0" not in value


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a value from JSON holds only text, finite numbers and not too deep a nest of them."""
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, Mapping):
        return depth > 0 and all(is_plain(k, depth - 1) and is_plain(v, depth - 1) for k, v in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_plain(v, depth - 1) for v in value)
    return value is None


def check_event_data(event: gr.EventData | None) -> None:
    """Refuse what a component's own event never carries.

    A slider sends its number with the event, others nothing; Gradio looks names up in it whatever it is. (6.31)
    """
    if event is None:
        return
    if not is_plain(event._data):
        raise sorry("This is nothing that the page could send. Reload it.")
    if not isinstance(event._data, Mapping):
        event._data = {}


@contextlib.contextmanager
def refusals_in_words() -> Iterator[None]:
    """Where Gradio itself refuses values, such as files outside its cache, it logs a traceback. (6.31)"""
    try:
        yield
    except gr.Error as error:
        if error.print_exception:
            raise sorry(error.message) from error
        raise


def keep_picture(content: bytes, upload: gr.Image) -> str:
    """Keep a picture beside the uploads, to be deleted after a day like them; its path. (6.31)"""
    path = save_bytes_to_cache(content, "picture.img", upload.GRADIO_CACHE)
    upload.temp_files.add(path)
    return path


# Who is calling


def too_large_an_upload(limit: int) -> Exception:
    """The exception at which Gradio deletes what has come of an upload, and answers 413 with its words.

    Gradio bounds each file, not all of them together, and tells the status by its own words for that (6.31).
    """
    return MultiPartException(f"More than {limit:,} bytes are not taken here: the maximum allowed size of an upload.")


def login_is_needed(application: Any) -> bool:
    """Whether Gradio's application asks visitors to log in; False of other applications. (6.31)"""
    return getattr(application, "auth", None) is not None or getattr(application, "auth_dependency", None) is not None


async def user_of(request: HTTPConnection) -> str | None:
    """Who has logged in, as Gradio's own routes know it. (6.31: two cookies, the second for plain HTTP)"""
    app = request.scope["app"]
    if app.auth_dependency is not None:
        user = app.auth_dependency(Request(request.scope))
        return await user if inspect.isawaitable(user) else user
    cookies = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return next((app.tokens[t] for c in cookies if (t := request.cookies.get(c)) in app.tokens), None)


# Sessions


@dataclass(frozen=True)
class _Request:
    visitor: str
    id: object


_current: ContextVar[_Request | None] = ContextVar("request", default=None)


class Visitors:
    """Tells visitors apart: by a cookie that the page gives each browser, or else by their address."""

    COOKIE = "ris-visitor"

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def recognise(self, scope: Scope, address: str) -> bool:
        """Note for `FairSessions` whose request this is; whether by the cookie."""
        headers = dict(scope["headers"])
        name, _, proof = (
            cookie_parser(headers.get(b"cookie", b"").decode("latin-1")).get(self.COOKIE, "").partition(".")
        )
        known = bool(name) and hmac.compare_digest(self._proof(name).encode(), proof.encode("utf-8", "replace"))
        _current.set(_Request(name if known else address, object()))
        return known

    def enter(self, scope: Scope, address: str) -> str | None:
        """As `recognise`, for someone who opens the page: the cookie to be set, or None if it is there already."""
        if self.recognise(scope, address):
            return None
        name = secrets.token_hex(8)
        return f"{self.COOKIE}={name}.{self._proof(name)}; Path=/; HttpOnly; SameSite=Lax"

    def _proof(self, name: str) -> str:
        return hmac.new(self._secret, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


class FairSessions(StateHolder):
    """The states of all sessions, where room is made at the cost of who takes most of it.

    Gradio drops the session that was used least recently (6.31), so one visitor with many sessions pushes out everybody
    else's. Here it is one of the visitor who has most; of those first the ones that came once and never again, as in a
    segmented LRU cache (Karedla, Love, Wherry 1994).
    """

    def __init__(self) -> None:
        super().__init__()
        self.session_data: OrderedDict[str, SessionState] = OrderedDict()
        self._visitors: dict[str, str] = {}
        self._last: dict[str, object] = {}  # the last request of each session
        self._returned: set[str] = set()

    def update(self, session_id: str) -> None:
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
                self._note(session_id)
            while len(self.session_data) > self.capacity:
                self._forget(self._least_worth(session_id))

    def _note(self, session_id: str) -> None:
        request = _current.get()
        if request is None:
            return
        self._visitors.setdefault(session_id, request.visitor)
        if self._last.setdefault(session_id, request.id) is not request.id:
            self._returned.add(session_id)

    def _least_worth(self, but: str) -> str:
        others = [session for session in self.session_data if session != but]
        sizes = Counter(self._visitors.get(session, "") for session in self.session_data)
        return min(others, key=lambda s: (-sizes[self._visitors.get(s, "")], s in self._returned))

    def _forget(self, session_id: str) -> None:
        del self.session_data[session_id]
        self._returned.discard(session_id)
        for known in (self.time_last_used, self._visitors, self._last):
            known.pop(session_id, None)


def keep_ids_of_updated(blocks: list[Any], state: SessionState | None) -> None:
    """Undo what an update does to a session's components.

    It replaces the component in the visitor's session by one of a new id, and under that it would be kept as well when
    it is next an input: the session would grow with every change of the collection. (6.31)
    """
    for block in blocks if state else ():
        state.blocks_config.blocks[block._id]._id = block._id  # type: ignore[union-attr]


# The server


class GuardedApp(App):
    """Gradio's application with something around all of it, even around what answers CORS preflights and errors.

    Middleware that is handed to Gradio lies inside its own. (6.31)
    """

    def __init__(self, around: Callable[[ASGIApp], ASGIApp], **kwargs: Any) -> None:
        kwargs.setdefault("default_response_class", ORJSONResponse)
        super().__init__(**kwargs)
        self._around = around
        self.state_holder = FairSessions()

    def build_middleware_stack(self) -> ASGIApp:
        return self._around(super().build_middleware_stack())


class _PatientServer(http_server.Server):
    """Waits for the server as long as it is starting; Gradio itself gives up after five seconds. (6.31)"""

    def run_in_thread(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        give_up = time.monotonic() + START_WITHIN
        while not self.started:
            self.thread.join(0.005)
            if not self.thread.is_alive() or time.monotonic() > give_up:  # the port is taken
                raise ServerFailedToStartError("Server failed to start. Please check that the port is available.")


def _answers(url: str) -> bool:
    """Whether the server answers; Gradio asks with a time-out of three seconds, and once. (6.31)"""
    give_up = time.monotonic() + START_WITHIN
    while time.monotonic() < give_up:
        try:
            httpx.head(url, timeout=START_WITHIN, verify=False, trust_env=False)
        except httpx.ConnectError:
            return False
        except httpx.HTTPError:
            continue
        return True
    return False


_launching = threading.Lock()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """While this is entered, Gradio waits for the server that it starts until it listens."""
    with _launching:
        before = http_server.Server, networking.url_ok
        http_server.Server, networking.url_ok = _PatientServer, _answers  # type: ignore[misc]
        try:
            yield
        finally:
            http_server.Server, networking.url_ok = before  # type: ignore[misc]


def share_host(blocks: gr.Blocks) -> str:
    """The host name of the public link (``share=True``); "" where there is none. (6.31)"""
    url = getattr(blocks, "share_url", None)
    return (httpx.URL(url).host if url else "") or ""
