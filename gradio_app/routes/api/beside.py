"""The API beside the page: which requests are its own, without anything of it loaded before the first of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

_PATHS = re.compile(r"^/(api(/|$)|(healthz|readyz|metrics)$)")
JOBS_FILE = "api_jobs.sqlite"
"""In the folder of the collections: the jobs of the API."""
PAGE = "ris.page"
"""Key of a scope: the application that the API lies beside."""


def is_for_api(path: str) -> bool:
    """Whether an address, below the page's own, is one of the API."""
    return _PATHS.match(path) is not None


class Beside:
    """ASGI application: the API's requests go to the API, all others to the page.

    It lies outside of the page's own middleware, which lets other sites ask (CORS), packs answers and rewrites pages.

    Parameters
    ----------
    make : callable
        Makes the API. Called with the first request for it, so that whoever uses the page alone waits for nothing.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._api: ASGIApp | None = None
        self._making = threading.Lock()

    def around(self, page: ASGIApp) -> ASGIApp:
        """The application with the page that the API lies beside."""

        async def beside(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
            if scope["type"] != "http" or not is_for_api(path):
                await page(scope, receive, send)
                return
            api = self._api
            if api is None:
                api = await anyio.to_thread.run_sync(self.made)
            await api({**scope, PAGE: scope.get("app")}, receive, send)

        return beside

    def made(self) -> ASGIApp:
        """The API, made if it is not yet."""
        with self._making:
            if self._api is None:
                self._api = self._make()
            return self._api
