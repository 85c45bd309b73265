"""A web of made-up hosts on this machine, of which some misbehave: slow, lying, redirecting, throttling, dying.

All of them are addresses of 127.0.0.0/8, so nothing leaves the machine. What an address ``/kind/number`` gives depends
on its kind alone; the picture of each number is its own, so a mix-up shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import threading
from collections import Counter
from collections.abc import Iterator

from PIL import Image

SIDE = (32, 24)

STEADY = ("good", "untyped", "redirect")
"""Kinds that give their picture at once."""

PASSING = ("flaky", "throttled", "closing", "cut")
"""Kinds that give it at the second or third time."""

LASTING = {
    "missing": "404 not found",
    "gone": "410 gone",
    "forbidden": "403 forbidden",
    "page": "not an image",
    "short": "damaged",
    "loop": "redirects",
    "huge": "too large",
    "endless": "too large",
    "noai": "opted out",
    "zipped": "compressed",
}
"""Kinds that never give one, and the cause that is to be told."""


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of the picture of a number."""
    return number >> 16 & 255, number >> 8 & 255, number & 255


def picture(number: int) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", SIDE, colour_of(number)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Web:
    """Hosts that answer in a thread of their own, each on an address and a port of its own.

    Attributes
    ----------
    asked : Counter
        How often each address, with its host, was asked for.
    away : set of str
        Hosts that hang up on everyone now.
    with_rules : set of str
        Hosts whose robots.txt forbids ``/good/13`` and what begins so.
    held : threading.Event
        Set, pictures of the kind "held" are given; until then who asks waits.
    packing : str or None
        The encoding of contents that a robots.txt is said to have; "gzip" it then has.
    """

    def __init__(self, hosts: int) -> None:
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.away: set[str] = set()
        self.with_rules: set[str] = set()
        self.packing: str | None = None
        self.held = threading.Event()
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._names = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(hosts)]
        self._ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()

    def url(self, host: int, kind: str, number: int) -> str:
        """An address."""
        name = self._names[host]
        return f"http://{name}:{self._ports[name]}/{kind}/{number}"

    def name(self, host: int) -> str:
        return self._names[host]

    @contextlib.contextmanager
    def running(self) -> Iterator[Web]:
        """Answer, for the time of a ``with`` block."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _listen(self) -> None:
        self._servers = []
        for name in self._names:
            server = await asyncio.start_server(lambda r, w, name=name: self._serve(name, r, w), name, 0)  # type: ignore[misc]
            self._ports[name] = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _hang_up(self) -> None:
        for server in self._servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while name not in self.away:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if name in self.away:
                    break
                path = head.split(" ", 2)[1]
                self.agents.update(line[12:] for line in head.split("\r\n") if line.lower().startswith("user-agent: "))
                self.asked[f"http://{name}:{self._ports[name]}{path}"] += 1
                self._at_once[name] += 1
                self.most_at_once[name] = max(self.most_at_once[name], self._at_once[name])
                try:
                    stays = await self._answer(name, path, writer)
                finally:
                    self._at_once[name] -= 1
                if not stays:
                    break
        writer.close()

    async def _answer(self, name: str, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection may be used again."""
        if path == "/robots.txt":
            rules = b"User-agent: *\nDisallow: /good/13\n" if name in self.with_rules else b""
            packed = b"" if self.packing is None else f"Content-Encoding: {self.packing}\r\n".encode()
            rules = gzip.compress(rules) if rules and self.packing == "gzip" else rules
            lines = f"HTTP/1.1 {'200 OK' if rules else '404 Not Found'}\r\nContent-Length: {len(rules)}\r\n"
            writer.write(lines.encode() + packed + b"\r\n" + rules)
            return True
        _, kind, number = path.split("/")
        body = picture(int(number))
        times = self.asked[f"http://{name}:{self._ports[name]}{path}"]
        is_first = times == 1

        async def send(status: str, content: bytes = b"", *headers: str, length: int | None = None) -> bool:
            size = len(content) if length is None else length
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
            await writer.drain()
            return True

        match kind:
            case "good":
                return await send("200 OK", body, "Content-Type: image/png")
            case "untyped":  # the type lies
                return await send("200 OK", body, "Content-Type: text/html")
            case "redirect":
                return await send("302 Found", b"", f"Location: /good/{number}")
            case "loop":
                return await send("302 Found", b"", f"Location: /loop/{number}")
            case "abroad":
                return await send("302 Found", b"", "Location: http://169.254.169.254/latest/meta-data/")
            case "flaky" if is_first:
                return await send("500 Oops")
            case "throttled" if is_first:
                return await send("429 Slow Down", b"", "Retry-After: 1")
            case "closing" if is_first:
                return False
            case "cut" if is_first:  # the length lies: more is promised than comes
                await send("200 OK", body[:-10], length=len(body))
                return False
            case "flaky" | "throttled" | "closing" | "cut":
                return await send("200 OK", body, "Content-Type: image/png")
            case "short":  # the length lies: less is promised than there is
                await send("200 OK", body[: len(body) // 2], "Content-Type: image/png")
                return False
            case "unended":  # nobody says where it ends, and it ends too early at first
                writer.write(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + (body[: len(body) // 2] if is_first else body)
                )
                return False
            case "page":
                return await send("200 OK", b"<html>" + b" " * 5000, "Content-Type: image/jpeg")
            case "huge":
                await send("200 OK", body, length=10**11)
                return False
            case "endless":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
            case "slow":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body[:40])
                while True:
                    writer.write(b"\0")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "silent":
                await asyncio.sleep(3600)
            case "held":
                while not self.held.is_set():
                    await asyncio.sleep(0.01)
                return await send("200 OK", body)
            case "zipped":
                return await send("200 OK", body, "Content-Encoding: gzip")
            case "noai":
                return await send("200 OK", body, "X-Robots-Tag: noimageai")
            case "down":
                return await send("503 Down")
            case "missing":
                return await send("404 Not Found")
            case "gone":
                return await send("410 Gone")
            case "forbidden":
                return await send("403 Forbidden")
        return await send("400 Bad Request")
