"""Fetch a picture from the web, and nothing but a picture, and from nowhere but the public web.

The server makes this request on behalf of whoever types an address, so it is hostile until shown otherwise. Which may
be asked is for `features.addresses` to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from features.addresses import (
    SENSELESS_REDIRECT,
    Address,
    AddressError,
    is_public,
    port_of,
    redirected,
    resolve,
    web_address,
)
from features.images import STRANGERS_PICTURES, ImageError, decode_image

MAX_BYTES = 20 * 2**20
MAX_SECONDS = 15.0  # for everything together: a server that sends one byte a second gets no longer
MAX_REDIRECTS = 5


class RemoteImageError(ValueError):
    """The picture cannot be had; the message is a sentence for the person who typed the address."""


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
    except AddressError as error:
        raise RemoteImageError(str(error)) from error
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
            target = web_address(url.strip())
            for _ in range(MAX_REDIRECTS + 1):
                redirect, content = await _get(client, target, max_bytes, is_allowed)
                if redirect is None:
                    return content
                target = redirected(target, redirect)
    raise RemoteImageError(f"The address redirects more than {MAX_REDIRECTS} times.")


async def _get(
    client: httpx.AsyncClient, url: httpx.URL, max_bytes: int, is_allowed: Callable[[Address], bool]
) -> tuple[str | None, bytes]:
    """One request. Returns where it redirects to, or None and the content."""
    address = (await resolve(url.raw_host.decode("ascii"), port_of(url), is_allowed, called=url.host))[0]
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
        raise RemoteImageError(SENSELESS_REDIRECT) from error
