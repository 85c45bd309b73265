"""fetch_image against hostile servers and hostile names. Nothing leaves this machine."""

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from PIL import Image
from waiting import MINUTES

from features import addresses
from features.addresses import is_public
from gradio_app.remote_image import RemoteImageError, fetch_image

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def only_loopback(address) -> bool:
    return address == LOOPBACK


def picture(format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 60)).save(buffer, format)
    return buffer.getvalue()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def server(reply: bytes | Callable[[socket.socket, bytes], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server on 127.0.0.1 that answers every connection with `reply`; yields its address and what was asked of it."""
    asked: list[bytes] = []
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve_one(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096) or b"\r\n\r\n"
                asked.append(head)
                if callable(reply):
                    reply(connection, head)
                else:
                    connection.sendall(reply)
            except OSError:
                pass  # the client hung up, as it should on most of these

    def serve() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        stopped.set()
        thread.join()
        listener.close()


def fetch(url: str, **kwargs) -> bytes:
    return fetch_image(url, _is_allowed=only_loopback, **kwargs)


# What is public


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "172.32.0.1", "100.63.255.255", "2606:4700::1111", "2a00:1450::1"]
)
def test_public_addresses(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",  # shared address space, RFC 6598
        "100.127.255.254",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",  # the metadata service of many clouds
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",  # 6to4 relay
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",  # IPv4-compatible
        "::ffff:127.0.0.1",  # IPv4-mapped
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b:1::1",
        "100::1",
        "2001::1",  # Teredo
        "2001:db8::1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",  # site-local
        "ff02::1",
    ],
)
def test_other_addresses_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


# What is refused before anything is sent


@pytest.mark.parametrize(
    "url",
    [
        "http://{host}:{port}/",
        "http://localhost:{port}/",
        "http://2130706433:{port}/",  # 127.0.0.1 as one number
        "http://0x7f.1:{port}/",
        "http://127.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::1]:{port}/",
        "http://0.0.0.0:{port}/",
    ],
)
def test_this_machine_is_never_asked(url):
    with server(answer(picture())) as (address, asked):
        host, port = address.removeprefix("http://").split(":")
        with pytest.raises(RemoteImageError, match=r"not on the public internet|cannot be found"):
            fetch_image(url.format(host=host, port=port))
        assert asked == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "http:// or https://"),
        ("ftp://example.org/a.jpg", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("data:image/png;base64,AAAA", "http:// or https://"),
        ("/etc/passwd", "http:// or https://"),
        ("example.org/a.jpg", "http:// or https://"),
        ("", "http:// or https://"),
        ("http://", "names no server"),
        ("http://user:secret@example.org/", "user name or password"),
        ("http://exa mple.org/", "not a web address"),
        ("http://example.org:99999999/", "not a web address"),
        ("http://example.org/\x00", "not a web address"),
        ("http://" + "a" * 300 + ".org/", "cannot be found|not a web address"),
        ("http://xn--a/", "not a web address"),
        ("http://xn--/a.jpg", "not a web address"),
        ("https://xn--a.example.org/", "not a web address"),
        ("http://[::1", "not a web address"),
        ("http://\ud800.org/", "not a web address"),
        ("xn--a", "http:// or https://"),
    ],
)
def test_address_that_makes_no_sense(url, says):
    with pytest.raises(RemoteImageError, match=says):
        fetch_image(url)


def test_unknown_name(monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(RemoteImageError, match=r"nowhere\.example cannot be found"):
        fetch_image("http://nowhere.example/a.jpg")


# What is fetched


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_picture_arrives_byte_for_byte(format):
    with server(answer(picture(format))) as (address, _):
        assert fetch(f"  {address}/a?x=1#part ") == picture(format)


def test_request_is_what_the_person_asked_for():
    with server(answer(picture())) as (address, asked):
        fetch(f"{address}/folder/a%20b.png?x=1#part")
    (head,) = asked
    lines = head.decode().split("\r\n")
    assert lines[0] == "GET /folder/a%20b.png?x=1 HTTP/1.1"
    assert f"Host: {address.removeprefix('http://')}" in lines
    assert not any(line.lower().startswith(("cookie", "authorization", "referer")) for line in lines)


def test_name_is_resolved_once_and_that_address_contacted(monkeypatch):
    """DNS rebinding: the first answer is harmless, every later one is not."""
    resolved = []
    real = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        resolved.append(host)
        ip = "127.0.0.1" if len(resolved) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with server(answer(picture())) as (address, asked):
        port = address.rpartition(":")[2]
        assert fetch(f"http://rebind.example:{port}/a.png") == picture()
    assert resolved == ["rebind.example"]
    assert f"Host: rebind.example:{port}".encode() in asked[0]


def test_private_address_beside_a_public_one_is_not_contacted(monkeypatch):
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *a, **k: [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("10.0.0.1", "127.0.0.1")
        ],
    )
    with server(answer(picture())) as (address, _):
        assert fetch(address.replace("127.0.0.1", "two.example")) == picture()


def test_certificate_is_checked_against_the_name(monkeypatch):
    """The pinned address must not end up in SNI: the server would not know which certificate is meant."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(
        name
    )  # no certificate: the handshake fails after

    def handshake(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: handshake(listener.accept()[0]), daemon=True)
    thread.start()
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *a, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))],
    )
    with pytest.raises(RemoteImageError, match="cannot be reached"):
        fetch(f"https://tls.example:{listener.getsockname()[1]}/a.png")
    thread.join(60 * MINUTES)
    listener.close()
    assert names == ["tls.example"]


# Redirects


def test_redirect_is_followed():
    with (
        server(answer(picture())) as (last, _),
        server(answer(b"", f"Location: {last}/b.png", status="302 Found")) as (first, _),
    ):
        assert fetch(first) == picture()


def test_relative_redirect_is_followed():
    def reply(connection, head):
        there = head.startswith(b"GET /there")
        connection.sendall(answer(picture()) if there else answer(b"", "Location: /there", status="301 Moved"))

    with server(reply) as (address, _):
        assert fetch(f"{address}/here") == picture()


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://10.0.0.1/", "not on the public internet"),
        ("http://169.254.169.254/latest/meta-data/", "not on the public internet"),
        ("http://[::1]/", "not on the public internet"),
        ("//10.0.0.1/a.png", "not on the public internet"),
        ("file:///etc/passwd", "http:// or https://"),
        ("http://u:p@127.0.0.1/", "user name or password"),
        ("http://[bad/", "not a web address"),
        ("javascript:alert(1)", "makes no sense"),
        ("data:image/png,x", "makes no sense"),
        ("mailto:someone@example.org", "makes no sense"),
        ("http://xn--a/", "makes no sense|not a web address"),
        ("//xn--a/x.png", "makes no sense|not a web address"),
        ("http://example.org:port/", "makes no sense|broke off"),
    ],
)
def test_redirect_is_checked_like_the_first_address(location, says):
    with (
        server(answer(b"", f"Location: {location}", status="302 Found")) as (address, _),
        pytest.raises(RemoteImageError, match=says),
    ):
        fetch(address)


@pytest.mark.parametrize("status", ["300 Choose", "301 Moved", "302 Found", "303 See", "304 Same", "307 Go", "308 Go"])
def test_redirect_to_nowhere_is_told_in_a_sentence(status):
    with server(answer(b"", status=status)) as (address, _), pytest.raises(RemoteImageError, match="not say where to"):
        fetch(address)


def test_endless_redirect_ends():
    with server(answer(b"", "Location: /again", status="302 Found")) as (address, asked):
        with pytest.raises(RemoteImageError, match="redirects more than 5 times"):
            fetch(address)
        assert len(asked) == 6


# Servers that misbehave


def test_announced_size_is_refused_before_the_content():
    def reply(connection, head):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        refused.wait(60 * MINUTES)  # longer than anyone waits for content

    refused = threading.Event()
    with server(reply) as (address, _):
        with pytest.raises(RemoteImageError, match="larger than 20 MB"):
            fetch(address)
        refused.set()


def test_unannounced_size_is_cut_off():
    sent = []

    def reply(connection, head):
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    with server(reply) as (address, _), pytest.raises(RemoteImageError, match="larger than 1 MB"):
        fetch(address, max_bytes=2**20)
    assert sum(sent) < 16 * 2**20  # what the sockets' buffers hold, not what the server would have sent


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "], ids=["body", "head"]
)
def test_slow_server_gets_no_longer_for_sending_a_little(drip):
    def reply(connection, head):
        connection.sendall(drip)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with server(reply) as (address, _), pytest.raises(RemoteImageError, match=r"longer than 0\.4 seconds"):
        fetch(address, max_seconds=0.4)


def test_slow_name_server_gets_no_longer_either(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(60 * MINUTES) and [])
    with pytest.raises(RemoteImageError, match=r"longer than 0\.3 seconds"):
        fetch_image("http://slow.example/", max_seconds=0.3)
    release.set()


@pytest.fixture
def hanging(monkeypatch):
    """Names that begin with "slow" are looked up until the test is over; others are this machine."""
    release, real = threading.Event(), socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if host.startswith("slow"):
            release.wait(60 * MINUTES)
            raise socket.gaierror(socket.EAI_AGAIN, "timed out")
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    release.set()
    while addresses._lookups:
        time.sleep(0.01)


def test_a_name_that_is_not_found_in_time_is_told_in_a_sentence(monkeypatch, hanging):
    monkeypatch.setattr(addresses, "MAX_LOOKUP_SECONDS", 0.1)
    with pytest.raises(RemoteImageError, match=r"Nobody says in time where the server slow\.example is"):
        fetch("http://slow.example/")


def test_names_that_hang_hold_up_no_other_and_are_bounded_in_number(monkeypatch, hanging):
    monkeypatch.setattr(addresses, "MAX_LOOKUP_SECONDS", 0.01)
    for number in [*range(addresses.MAX_LOOKUPS - 1), 0]:  # the one that is asked for twice is looked up once
        with pytest.raises(RemoteImageError, match="Nobody says in time"):
            fetch(f"http://slow{number}.example/")
    monkeypatch.setattr(addresses, "MAX_LOOKUP_SECONDS", 60)
    with server(answer(picture())) as (address, _):
        assert fetch(address.replace("127.0.0.1", "quick.example")) == picture()
        monkeypatch.setattr(addresses, "MAX_LOOKUP_SECONDS", 0.01)
        with pytest.raises(RemoteImageError, match="Nobody says in time"):
            fetch("http://slow.example/")
        with pytest.raises(RemoteImageError, match="Too many names"):
            fetch("http://slow-too.example/")


def test_compressed_content_is_refused():
    with (
        server(answer(picture(), "Content-Encoding: gzip")) as (address, _),
        pytest.raises(RemoteImageError, match="compressed"),
    ):
        fetch(address)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content"])
def test_failed_request(status):
    with (
        server(answer(picture(), status=status)) as (address, _),
        pytest.raises(RemoteImageError, match=f"status {status[:3]}|broke off"),
    ):
        fetch(address)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><img src=x></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        picture()[:40],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    ],
    ids=["empty", "html", "svg", "truncated", "header"],
)
def test_what_is_no_picture_is_refused_whatever_its_type_says(body):
    with (
        server(answer(body, "Content-Type: image/png")) as (address, _),
        pytest.raises(RemoteImageError, match="not a picture"),
    ):
        fetch(address)


@pytest.mark.parametrize(
    "reply",
    [b"", b"garbage\r\n\r\n", answer(picture())[:-20], b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000],
    ids=["closes", "no http", "breaks off", "endless headers"],
)
def test_broken_server(reply):
    with server(reply) as (address, _), pytest.raises(RemoteImageError, match="cannot be reached, or broke off"):
        fetch(address)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RemoteImageError, match="cannot be reached"):
        fetch(f"http://127.0.0.1:{port}/")


def test_proxy_of_the_environment_is_not_used(monkeypatch):
    with server(answer(picture())) as (address, _), server(answer(b"proxied")) as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
        assert fetch(address) == picture()
        assert asked == []
