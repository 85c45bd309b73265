"""Fetch a picture from the web, and nothing but a picture, and from nowhere but the public web.

The server makes this request on behalf of whoever types an address, so the address is hostile until shown otherwise
(server-side request forgery). Names are resolved once, by us; only a public address is contacted, and the connection
goes to that very address, so a name that answers differently the second time (DNS rebinding) gains nothing. Every
redirect starts over from the beginning.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx

from features.images import STRANGERS_PICTURES, ImageError, decode_image

MAX_BYTES = 20 * 2**20
MAX_SECONDS = 15.0  # for everything together: a server that sends one byte a second gets no longer
MAX_REDIRECTS = 5
MAX_LOOKUP_SECONDS = 5.0  # for a name; what a server's resolver takes for those that answer is far less
MAX_LOOKUPS = 64  # names looked up at a time

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Parts of 2000::/3, the only public unicast space of IPv6, that are not plain public addresses: protocol assignments
# with Teredo (RFC 2928, 4380), documentation (RFC 3849, 9637), 6to4 (RFC 3056: carries an IPv4 address of any kind).
# NAT64, unique-local, link-local, site-local, mapped and multicast addresses lie outside 2000::/3.
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# Beyond what every Python's `is_global` knows: protocol assignments (RFC 6890), the 6to4 relays' block (RFC 7526).
_NOT_PUBLIC_IPV4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))

# Looking a name up cannot be interrupted, so each has a thread of its own: one that hangs holds up no other, nor the
# end of the program. Who asks for a name that is being looked up waits for that same look-up.
_lookups: dict[tuple[str, int], Future[list[Any]]] = {}
_lookups_lock = threading.Lock()


_SENSELESS_REDIRECT = "The server redirects to an address that makes no sense."


class RemoteImageError(ValueError):
    """The picture cannot be had; the message is a sentence for the person who typed the address."""


def is_public(address: Address) -> bool:
    """Whether an IP address belongs to the public internet, told without asking anyone."""
    if isinstance(address, ipaddress.IPv6Address):
        return address in _PUBLIC_IPV6 and not any(address in network for network in _NOT_PUBLIC_IPV6)
    # is_global: not private, loopback, link-local, shared (100.64.0.0/10), documentation, benchmarking or reserved.
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC_IPV4)
    )


def fetch_image(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    _is_allowed: Callable[[Address], bool] = is_public,
) -> bytes:
    """Download the picture at `url`. Not to be called from a running event loop.

    Parameters
    ----------
    url : str
        An ``http://`` or ``https://`` address.
    max_bytes, max_seconds : int, float
        Most bytes accepted, and most time for everything from the name look-up to the last byte.

    Returns
    -------
    bytes
        The file as it was sent; it decodes as an image.

    Raises
    ------
    RemoteImageError
        If the address is malformed, not public, unreachable, too slow, too large, or not an image.
    """
    try:
        content = asyncio.run(_fetch(url, max_bytes, max_seconds, _is_allowed))
    except TimeoutError as error:
        raise RemoteImageError(f"The server took longer than {max_seconds:g} seconds.") from error
    try:
        decode_image(content, limits=STRANGERS_PICTURES)
    except ImageError as error:
        raise RemoteImageError("What lies at this address is not a picture that can be read.") from error
    return content


async def _fetch(url: str, max_bytes: int, max_seconds: float, is_allowed: Callable[[Address], bool]) -> bytes:
    async with asyncio.timeout(max_seconds):
        # trust_env=False: a proxy from the environment would look the name up again, behind our back.
        async with httpx.AsyncClient(trust_env=False, timeout=max_seconds, follow_redirects=False) as client:
            target = _parse(url.strip())
            for _ in range(MAX_REDIRECTS + 1):
                redirect, content = await _get(client, target, max_bytes, is_allowed)
                if redirect is None:
                    return content
                try:
                    joined = str(target.join(redirect))
                except (httpx.InvalidURL, UnicodeError) as error:
                    raise RemoteImageError(_SENSELESS_REDIRECT) from error
                target = _parse(joined)
    raise RemoteImageError(f"The address redirects more than {MAX_REDIRECTS} times.")


def _parse(url: str) -> httpx.URL:
    malformed = "This is not a web address; one looks like https://example.org/picture.jpg."
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # decodes an international name, which may be malformed
    except (httpx.InvalidURL, ValueError) as error:
        raise RemoteImageError(malformed) from error
    if parsed.scheme not in ("http", "https"):
        raise RemoteImageError("Only addresses that begin with http:// or https:// can be opened.")
    if not host:
        raise RemoteImageError("The address names no server; one looks like https://example.org/picture.jpg.")
    if parsed.userinfo:
        raise RemoteImageError("Addresses with a user name or password in them are not opened.")
    # raw_host: international names in their ASCII form, IPv6 addresses without brackets.
    if not re.fullmatch(rb"[A-Za-z0-9._:-]+", parsed.raw_host) or not 0 < (parsed.port or 80) < 2**16:
        raise RemoteImageError(malformed)
    return parsed


async def _resolve(url: httpx.URL, is_allowed: Callable[[Address], bool]) -> Address:
    """The one IP address that will be contacted."""
    port = url.port or (443 if url.scheme == "https" else 80)
    lookup = _look_up(url.raw_host.decode("ascii"), port)
    try:
        async with asyncio.timeout(MAX_LOOKUP_SECONDS):
            found = await asyncio.wrap_future(lookup)
    except TimeoutError as error:
        raise RemoteImageError(f"Nobody says in time where the server {url.host} is.") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a label longer than a name may have
        raise RemoteImageError(f"The server {url.host} cannot be found.") from error
    # An address scope ("fe80::1%eth0") only exists for link-local addresses, which are refused anyway.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    allowed = [address for address in addresses if is_allowed(address)]
    if not allowed:
        raise RemoteImageError(f"{url.host} is not on the public internet, so it is not opened.")
    return allowed[0]


def _look_up(host: str, port: int) -> Future[list[Any]]:
    """Begin to look a name up, or join who is doing so.

    Raises
    ------
    RemoteImageError
        Too many look-ups are under way.
    """
    with _lookups_lock:
        if (under_way := _lookups.get((host, port))) is not None:
            return under_way
        if len(_lookups) >= MAX_LOOKUPS:
            raise RemoteImageError("Too many names are being looked up just now. Try again in a minute.")
        lookup = _lookups[host, port] = Future()
        lookup.set_running_or_notify_cancel()  # who gives up waiting cancels it for nobody else

    def run() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            lookup.set_exception(error)
        else:
            lookup.set_result(found)
        finally:
            with _lookups_lock:
                del _lookups[host, port]

    threading.Thread(target=run, name=f"look up {host}", daemon=True).start()
    return lookup


async def _get(
    client: httpx.AsyncClient, url: httpx.URL, max_bytes: int, is_allowed: Callable[[Address], bool]
) -> tuple[str | None, bytes]:
    """One request. Returns where it redirects to, or None and the content."""
    address = await _resolve(url, is_allowed)
    # The connection goes to the address that was checked; the name still goes into the Host header and, for TLS,
    # into SNI, against which the certificate is verified.
    request = client.build_request(
        "GET",
        url.copy_with(host=str(address), fragment=None),
        headers={
            "Host": url.netloc.decode("ascii"),
            "Accept": "image/*",
            # As it is: a few compressed bytes can stand for gigabytes.
            "Accept-Encoding": "identity",
            "User-Agent": "reverse-image-search",
        },
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )
    too_large = RemoteImageError(f"The file is larger than {max_bytes / 2**20:g} MB.")
    try:
        response = await client.send(request, stream=True)
        try:
            if response.is_redirect:
                if "location" not in response.headers:
                    raise RemoteImageError(f"The server {url.host} redirects, but does not say where to.")
                return response.headers["location"], b""
            if response.status_code != 200:
                raise RemoteImageError(f"The server {url.host} answers with status {response.status_code}.")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise RemoteImageError("The server sends the picture compressed, which was not asked for.")
            length = response.headers.get("content-length", "")
            if length.isdecimal() and int(length) > max_bytes:
                raise too_large
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > max_bytes:
                    raise too_large
            return None, bytes(content)
        finally:
            await response.aclose()
    except httpx.TimeoutException as error:
        raise TimeoutError from error
    except httpx.HTTPError as error:
        raise RemoteImageError(f"The server {url.host} cannot be reached, or broke off.") from error
    except (httpx.InvalidURL, UnicodeError) as error:  # httpx looks at the address of a redirect, if only to offer it
        raise RemoteImageError(_SENSELESS_REDIRECT) from error
