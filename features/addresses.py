"""Which addresses of the web may be asked: the rules for whoever fetches what somebody else named.

A program that fetches on behalf of whoever typed an address, or wrote a list of them, is at the mercy of that address
until it is shown otherwise (server-side request forgery). Names are resolved once, by us; only a public address is
contacted, and the connection goes to that very address, so a name that answers differently the second time (DNS
rebinding) gains nothing. Every redirect starts over from the beginning.
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

MAX_LOOKUP_SECONDS = 5.0  # for a name; what a server's resolver takes for those that answer is far less
MAX_LOOKUPS = 64  # names looked up at a time

SENSELESS_REDIRECT = "The server redirects to an address that makes no sense."

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


class AddressError(ValueError):
    """An address is not one that may be asked; the message is a sentence for the person who gave it."""


class PrivateAddressError(AddressError):
    """It leads to a network that is not the public internet."""


class UnknownHostError(AddressError):
    """Nobody says where its server is, at least not now."""


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


def web_address(url: str) -> httpx.URL:
    """The parts of an ``http://`` or ``https://`` address.

    Raises
    ------
    AddressError
        It is none, or has a user name or a password in it.
    """
    malformed = "This is not a web address; one looks like https://example.org/picture.jpg."
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # decodes an international name, which may be malformed
    except (httpx.InvalidURL, ValueError) as error:
        raise AddressError(malformed) from error
    if parsed.scheme not in ("http", "https"):
        raise AddressError("Only addresses that begin with http:// or https:// can be opened.")
    if not host:
        raise AddressError("The address names no server; one looks like https://example.org/picture.jpg.")
    if parsed.userinfo:
        raise AddressError("Addresses with a user name or password in them are not opened.")
    # raw_host: international names in their ASCII form, IPv6 addresses without brackets.
    if not re.fullmatch(rb"[A-Za-z0-9._:-]+", parsed.raw_host) or not 0 < (parsed.port or 80) < 2**16:
        raise AddressError(malformed)
    return parsed


def redirected(url: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads from an address, checked like the first one.

    Raises
    ------
    AddressError
        To no web address.
    """
    try:
        joined = str(url.join(location))
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressError(SENSELESS_REDIRECT) from error
    return web_address(joined)


def port_of(url: httpx.URL) -> int:
    """The port that an address means."""
    return url.port or (443 if url.scheme == "https" else 80)


async def resolve(
    host: str, port: int, is_allowed: Callable[[Address], bool] = is_public, *, called: str | None = None
) -> list[Address]:
    """The IP addresses of a server that may be contacted, at least one.

    Parameters
    ----------
    host : str
        A name in its ASCII form, or an IP address without brackets.
    port : int
    is_allowed : callable
        Which addresses may be contacted.
    called : str, optional
        What the server is called in messages, where that is not `host`.

    Raises
    ------
    UnknownHostError
        The name cannot be found, or not in time, or too many names are being looked up.
    PrivateAddressError
        None of its addresses is allowed.
    """
    called = called or host
    lookup = _look_up(host, port)
    try:
        async with asyncio.timeout(MAX_LOOKUP_SECONDS):
            found = await asyncio.wrap_future(lookup)
    except TimeoutError as error:
        raise UnknownHostError(f"Nobody says in time where the server {called} is.") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a label longer than a name may have
        raise UnknownHostError(f"The server {called} cannot be found.") from error
    # An address scope ("fe80::1%eth0") only exists for link-local addresses, which are refused anyway.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    allowed = [address for address in addresses if is_allowed(address)]
    if not allowed:
        raise PrivateAddressError(f"{called} is not on the public internet, so it is not opened.")
    return allowed


def _look_up(host: str, port: int) -> Future[list[Any]]:
    """Begin to look a name up, or join who is doing so.

    Raises
    ------
    UnknownHostError
        Too many look-ups are under way.
    """
    with _lookups_lock:
        if (under_way := _lookups.get((host, port))) is not None:
            return under_way
        if len(_lookups) >= MAX_LOOKUPS:
            raise UnknownHostError("Too many names are being looked up just now. Try again in a minute.")
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
