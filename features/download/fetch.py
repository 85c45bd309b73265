"""One address to one file: what is asked, of whom, and which answers are taken."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from features.addresses import (
    Address,
    AddressError,
    PrivateAddressError,
    UnknownHostError,
    is_public,
    redirected,
    resolve,
    web_address,
)
from features.download.errors import FetchError, RefusedError
from features.download.options import MEGABYTE, DownloadOptions
from features.download.robots import MAX_BYTES as MAX_ROBOTS
from features.download.robots import Robots
from features.download.state import PRIVATE
from features.images.formats import BEGINNING, looks_like_image

AGENT = "reverse-image-search"
USER_AGENT = f"{AGENT} (bulk download of listed pictures; python -m features.download)"
MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)
_PERMANENT = {401: "not for everyone", 403: "forbidden", 404: "not found", 410: "gone"}
_PASSING = {408, 425, 429}
_OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_RULES_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_CHUNK = 1 << 16


class Fetcher:
    """Fetches addresses over one set of connections, all of them only to addresses that may be asked.

    Used as an asynchronous context manager, in one event loop.
    """

    def __init__(self, options: DownloadOptions) -> None:
        self._options = options
        self._robots = Robots(self._read_robots, AGENT) if options.robots else None
        self._is_allowed: Callable[[Address], bool] = _any_address if options.allow_private else is_public

    async def __aenter__(self) -> Fetcher:
        options = self._options
        connector = aiohttp.TCPConnector(
            limit=options.concurrency,
            limit_per_host=options.per_host,
            resolver=_GuardedResolver(self._is_allowed, options.concurrency),
            ttl_dns_cache=60,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a few compressed bytes can stand for gigabytes
            trust_env=False,  # a proxy would look names up again, behind our back
            headers={"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=options.connect_seconds, sock_read=options.silence_seconds
            ),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def fetch(self, url: str, file: BinaryIO) -> bool:
        """Write what lies at an address to a file.

        Returns
        -------
        bool
            Whether the server said where the content ends: if not, it may have broken off unnoticed.

        Raises
        ------
        FetchError
            It cannot be had, or not now, or begins like no picture.
        RefusedError
            It, or where it redirects to, is not an address that may be asked.
        OSError
            The file cannot be written.
        """
        try:
            async with asyncio.timeout(self._options.total_seconds):
                return await self._follow(web_address(url), file)
        except PrivateAddressError as error:
            raise RefusedError(PRIVATE, str(error)) from error
        except UnknownHostError as error:
            raise FetchError("unknown host", str(error), is_host=True) from error
        except AddressError as error:
            raise RefusedError("no web address", str(error)) from error
        except TimeoutError as error:  # also aiohttp's own
            raise FetchError("time-out", "The server takes too long.", is_host=True) from error
        except aiohttp.InvalidURL as error:
            raise RefusedError("no web address", "This is not a web address.") from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
            raise FetchError("no safe connection", _plain(error), is_host=True) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _PrivateSocketError):
                raise RefusedError(PRIVATE, str(error.os_error)) from error
            raise FetchError("cannot be reached", _plain(error), is_host=True) from error
        except aiohttp.ClientPayloadError as error:
            raise FetchError("broke off", "The server broke off before the end of the file.") from error
        except aiohttp.ClientError as error:  # hung up, or what came is no HTTP
            raise FetchError("broke off", f"The server broke off: {_plain(error)}", is_host=True) from error

    async def _follow(self, url: httpx.URL, file: BinaryIO) -> bool:
        for _ in range(MAX_REDIRECTS + 1):
            self._check_literal(url)
            if self._robots is not None and not await self._robots.allows(str(url.join("/")).rstrip("/"), str(url)):
                raise FetchError("robots.txt", "The robots.txt of the server asks not to fetch it.", True)
            # The parts are as they were checked: nothing is quoted or joined anew.
            target = yarl.URL(str(url.copy_with(fragment=None)), encoded=True)
            async with self._session.get(target, allow_redirects=False) as response:
                self._check_opt_out(response)
                if response.status not in _REDIRECTS:
                    return await self._read(response, file)
                location = response.headers.get("Location")
                if location is None:
                    raise FetchError("bad redirect", "The server redirects, but does not say where to.", True)
                url = redirected(url, location)
        raise FetchError("redirects", f"The address redirects more than {MAX_REDIRECTS} times.", True)

    async def _read_robots(self, address: str) -> str:
        """The text of a robots.txt; none where the server has none, or does not show it (RFC 9309, section 2.3.1)."""
        url = web_address(address)
        for _ in range(MAX_REDIRECTS + 1):
            self._check_literal(url)
            async with self._session.get(yarl.URL(str(url), encoded=True), allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = redirected(url, response.headers["Location"])
                    continue
                if response.status in _PASSING or response.status >= 500:
                    self._check_status(response)
                if response.status != 200:
                    return ""
                text = b""
                async for part in response.content.iter_chunked(_CHUNK):
                    text += part
                    if len(text) >= MAX_ROBOTS:
                        break
                encoding = response.headers.get("Content-Encoding", "identity").lower()
                return _unpacked(text, encoding)[:MAX_ROBOTS].decode("utf-8", "replace")
        return ""

    async def _read(self, response: aiohttp.ClientResponse, file: BinaryIO) -> bool:
        self._check_status(response)
        most = self._options.max_bytes
        too_large = FetchError("too large", f"The file is larger than {most / MEGABYTE:g} MB.", True)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("compressed", "The server sends the picture compressed, which was not asked for.", True)
        announced = response.content_length
        if announced is not None and announced > most:
            raise too_large
        count, beginning = 0, b""
        async for part in response.content.iter_chunked(_CHUNK):
            if len(beginning) < BEGINNING:
                beginning += part[:BEGINNING]
                if len(beginning) >= BEGINNING and not looks_like_image(beginning):
                    raise _not_an_image()  # the rest of a page need not come
            count += len(part)
            if count > most:
                raise too_large
            file.write(part)
        if not looks_like_image(beginning):
            raise _not_an_image()
        return announced is not None or "chunked" in response.headers.get("Transfer-Encoding", "").lower()

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 200:
            return
        message = f"The server answers with status {status}."
        if status in _PERMANENT:
            raise FetchError(f"{status} {_PERMANENT[status]}", message, True)
        if status in _PASSING or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"), time.time())
            wait = None if wait is None else min(wait, self._options.max_retry_after)
            cause = "429 too many requests" if status == 429 else f"status {status}"
            raise FetchError(cause, message, is_host=True, retry_after=wait)
        raise FetchError(f"status {status}", message, True)

    def _check_opt_out(self, response: aiohttp.ClientResponse) -> None:
        if any(opts_out(value) for value in response.headers.getall("X-Robots-Tag", ())):
            raise FetchError("opted out", "The server asks not to use it (X-Robots-Tag).", True)

    def _check_literal(self, url: httpx.URL) -> None:
        """Refuse an address that is no name before anything is sent: names are checked when they are resolved."""
        with suppress(ValueError):
            if not self._is_allowed(ipaddress.ip_address(url.host)):
                raise PrivateAddressError(f"{url.host} is not on the public internet, so it is not opened.") from None

    def _socket(self, info: Any) -> socket.socket:
        """A socket for an address that may be asked: whatever led here, this is where a connection begins."""
        family, kind, protocol, _, place = info
        if not self._is_allowed(ipaddress.ip_address(str(place[0]).partition("%")[0])):
            raise _PrivateSocketError(f"{place[0]} is not on the public internet, so it is not opened.")
        return socket.socket(family, kind, protocol)


class _PrivateSocketError(OSError):
    """A connection would have gone to an address that may not be asked."""


class _GuardedResolver(AbstractResolver):
    """Names to those of their addresses that may be asked; connections then go to these very addresses."""

    def __init__(self, is_allowed: Callable[[Address], bool], at_once: int) -> None:
        self._is_allowed = is_allowed
        self._turn = asyncio.Semaphore(min(at_once, 32))  # fewer than may be looked up at all

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        async with self._turn:
            addresses = await resolve(host, port, self._is_allowed)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


def opts_out(tag: str, agent: str = AGENT) -> bool:
    """Whether an ``X-Robots-Tag`` asks that a picture is not used: noai, noimageai, noindex, noimageindex or none.

    What it says to programs of another name is theirs.
    """
    spoken_to: str | None = None
    for part in tag.lower().split(","):
        name, colon, rule = part.partition(":")
        if colon and name.strip() not in _RULES_WITH_VALUES:
            spoken_to = name.strip()
        else:
            rule = name
        if rule.strip() in _OPT_OUT and spoken_to in (None, "*", agent):
            return True
    return False


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` asks for, as a number or as a date; None where it makes no sense.

    Parameters
    ----------
    now : float
        Seconds since 1970.
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _unpacked(text: bytes, encoding: str) -> bytes:
    """The beginning of a robots.txt, some servers of which pack it whatever they are asked for.

    Raises
    ------
    FetchError
        It cannot be unpacked: what it forbids is not known.
    """
    if encoding == "identity":
        return text
    try:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise zlib.error
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(text, MAX_ROBOTS)
    except zlib.error as error:
        raise FetchError("robots.txt", "The robots.txt of the server is packed in a way that is not read.") from error


def _any_address(address: Address) -> bool:
    return True


def _not_an_image() -> FetchError:
    return FetchError("not an image", "What lies at this address is no picture of a kind that can be read.", True)


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
