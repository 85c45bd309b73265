"""The downloader against hosts of this machine, of which most misbehave. Nothing leaves it."""

import asyncio
import csv
import errno
import io
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from waiting import until

from benchmarks.download import run as survive
from benchmarks.web import LASTING, PASSING, SIDE, STEADY, Web, colour_of, picture
from features.addresses import is_public
from features.collection.lock import writing
from features.download import fetch, pictures, run
from features.download.__main__ import main
from features.download.errors import DownloadError, FetchError
from features.download.fetch import opts_out, retry_after
from features.download.hosts import Host, Hosts, wait_before_try
from features.download.lists import Entry, read_list, url_column
from features.download.options import DownloadOptions
from features.download.pictures import Kept, NotKept, keep_picture
from features.download.robots import Robots
from features.download.run import _Run, add_list, download, opened_state
from features.download.state import STATE, DownloadState, Outcome, Task
from features.images import decode_image

QUICK = DownloadOptions(
    rate=1000,
    max_bytes=10**6,
    allow_private=True,
    silence_seconds=1.0,
    total_seconds=2.0,
    wait_seconds=0.05,
    max_retry_after=0.1,
    break_seconds=0.05,
    processes=1,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


@pytest.fixture(scope="module")
def web():
    with Web(6).running() as web:
        yield web


def fetched(folder, urls, options=QUICK, *, retry=None, progress=None):
    """Download some addresses; returns each with what became of it."""
    with opened_state(folder) as state:
        state.add(Entry(url, "{}") for url in urls)
        state.begin(retry=retry, allow_private=options.allow_private)
        assert download(state, folder, options, progress=progress, seed=0)
    return ends(folder)


def ends(folder):
    with sqlite3.connect(folder / STATE) as state:
        found = state.execute("SELECT url, state, cause, is_permanent, file FROM url").fetchall()
    return {url: (state, cause, bool(permanent), file) for url, state, cause, permanent, file in found}


# Lists


URLS = ["http://a.example/1.jpg", "http://b.example/2.jpg", "http://a.example/3.jpg"]


def written(folder, name):
    path = folder / name
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"id": [1, 2, 3], "url": URLS}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": n, "url": url}) + "\n" for n, url in enumerate(URLS, 1)))
    elif path.suffix == ".txt":
        path.write_text("# mine\n\n" + "\r\n".join(URLS))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if ".tsv" in name else ",").writerows([["id", "url"], *enumerate(URLS, 1)])
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "photos.tsv000", "a.jsonl", "a.parquet", "a.txt"])
def test_lists_are_read_with_their_other_columns(tmp_path, name):
    entries = list(read_list(written(tmp_path, name), None, []))
    assert [entry.url for entry in entries] == URLS
    ids = [json.loads(entry.fields).get("id") for entry in entries]
    assert ids == {".txt": [None] * 3}.get(Path(name).suffix, [1, 2, 3]) or list(map(int, ids)) == [1, 2, 3]


def test_a_list_without_the_column_names_those_it_has(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,where\n1,http://a.example/\n")
    with pytest.raises(DownloadError, match=r"no column 'adress'; it has id, where\. Name one with --column"):
        url_column(path, "adress")
    with pytest.raises(DownloadError, match=r"no column of addresses .* it has id, where"):
        url_column(path, None)
    assert url_column(path, "WHERE") == "where"


def test_a_list_may_hold_anything(tmp_path):
    path = tmp_path / "a.csv"
    rows = [
        b"url,note",
        b"http://a.example/\x00,nul",
        b"http://a.example/2," + b"x" * 10_000_000,
        b"\xff\xfe\x81,odd",
        b",",
    ]
    path.write_bytes(b"\n".join(rows) + b"\n")
    notes = []
    entries = list(read_list(path, None, notes))
    assert len(entries) == 3 and len(json.loads(entries[1].fields)["note"]) == 10_000_000
    assert any("Latin-1" in note for note in notes)
    with opened_state(tmp_path / "out") as state:
        state.add(entries)
        state.add([Entry("", "{}"), Entry("http://a.example/" + "y" * 10_000, "{}"), Entry("http://\ud800.org/", "{}")])
        assert state.counts() == {"todo": 1, "refused": 5}


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,AAAA", "file:///etc/passwd", "ftp://a.example/x", "/etc/passwd"]
)
def test_what_is_no_web_address_is_refused_with_a_sentence(tmp_path, url):
    with opened_state(tmp_path) as state:
        state.add([Entry(url, "{}")])
        ((shown, message),) = state.examples("refused", "no web address", 9)
    assert shown == url and message == "Only addresses that begin with http:// or https:// can be opened."


def test_a_list_that_is_known_is_not_read_again(tmp_path):
    path = written(tmp_path, "a.csv")
    with opened_state(tmp_path / "out") as state:
        read = []
        add_list(state, path, "url", read.append)
        add_list(state, path, "url", read.append)
        assert len(read) == 3
        with path.open("a") as file:
            file.write("4,http://c.example/4.jpg\n")
        add_list(state, path, "url", read.append)
        assert len(read) == 7 and state.counts() == {"todo": 4}


# What becomes of addresses


def test_each_address_comes_to_the_end_that_its_host_gives_it(web, tmp_path):
    kinds = [*STEADY, *PASSING, *LASTING, "unended"]
    urls = {web.url(place % 6, kind, 1000 + place): (kind, 1000 + place) for place, kind in enumerate(kinds * 2)}
    found = fetched(tmp_path, [*urls, *urls])  # duplicates are fetched once
    assert len(found) == len(urls)
    for url, (kind, number) in urls.items():
        state, cause, is_permanent, file = found[url]
        if kind in LASTING:
            assert (state, cause, is_permanent) == ("failed", LASTING[kind], True), url
        else:
            assert state == "done", (url, cause)
            assert decode_image(tmp_path / file)[0, 0].tolist() == list(colour_of(number))
            assert (tmp_path / file).read_bytes() == picture(number)  # as it came
        assert web.asked[url] == {"loop": 6}.get(kind, 2 if kind in (*PASSING, "unended") else 1), url
    assert not (tmp_path / ".partial").exists()


def test_names_of_files_come_from_no_wire(web, tmp_path):
    url = web.url(0, "good", 5)
    file = fetched(tmp_path, [url])[url][3]
    assert (
        len(file) == len("ab/") + 32 + len(".png")
        and file[:2] == file[3:5]
        and set(file) <= set("0123456789abcdef/.png")
    )


@pytest.mark.parametrize("kind", ["slow", "silent", "down"])
def test_what_does_not_pass_within_the_tries_has_failed_for_now(web, tmp_path, kind):
    options = DownloadOptions(**{**vars(QUICK), "tries": 2, "total_seconds": 0.5, "break_after": 99})
    url = web.url(0, kind, 7)
    before = web.asked[url]
    state, cause, is_permanent, _ = fetched(tmp_path, [url], options)[url]
    assert (state, cause, is_permanent) == ("failed", "status 503" if kind == "down" else "time-out", False)
    assert web.asked[url] - before == 2


def test_only_failures_are_tried_again(web, tmp_path):
    options = DownloadOptions(**{**vars(QUICK), "tries": 1})
    passing, missing, good, new = (web.url(1, kind, 31) for kind in ("flaky", "missing", "good", "untyped"))
    assert fetched(tmp_path, [passing, missing, good], options)[passing][:3] == ("failed", "status 500", False)
    with opened_state(tmp_path) as state:
        state.add([Entry(new, "{}")])
    found = fetched(tmp_path, [], options, retry="transient")
    assert found[passing][0] == "done" and found[missing][0] == "failed" and found[new][0] == "aside"
    assert (web.asked[passing], web.asked[missing], web.asked[good], web.asked[new]) == (2, 1, 1, 0)
    fetched(tmp_path, [], options, retry="all")
    assert (web.asked[passing], web.asked[missing], web.asked[good], web.asked[new]) == (2, 2, 1, 0)
    assert fetched(tmp_path, [], options)[new][0] == "done"
    assert (web.asked[passing], web.asked[missing], web.asked[good], web.asked[new]) == (2, 2, 1, 1)


def test_a_host_that_stays_away_is_given_up_and_holds_up_no_other(web, tmp_path):
    options = DownloadOptions(**{**vars(QUICK), "break_after": 3, "breaks": 1, "wait_seconds": 0.01})
    dead = [web.url(2, "good", 5000 + n) for n in range(100)]
    alive = [web.url(3, "good", 6000 + n) for n in range(30)]
    web.away.add(web.name(2))
    try:
        found = fetched(tmp_path, [*dead, *alive], options)
    finally:
        web.away.clear()
    assert {found[url][0] for url in alive} == {"done"}
    causes = Counter(found[url][1] for url in dead)
    assert {found[url][:1] + found[url][2:3] for url in dead} == {("failed", False)}
    assert causes["host is down"] > 50 and set(causes) <= {"host is down", "broke off", "cannot be reached"}
    found = fetched(tmp_path, [], retry="transient")  # it is back
    assert {found[url][0] for url in dead} == {"done"}


def test_no_host_is_asked_by_more_than_its_connections(tmp_path):
    options = DownloadOptions(**{**vars(QUICK), "per_host": 2})
    with Web(2).running() as web:
        fetched(tmp_path, [web.url(n % 2, "good", 7000 + n) for n in range(60)], options)
        assert 1 <= max(web.most_at_once.values()) <= 2


def test_the_agent_says_who_asks(web, tmp_path):
    fetched(tmp_path, [web.url(0, "good", 8)])
    assert all("reverse-image-search" in agent and "Mozilla" not in agent for agent in web.agents)


def test_robots_txt_is_gone_by_if_asked_for(tmp_path):
    with Web(2).running() as web:
        web.with_rules.add(web.name(0))
        urls = [web.url(host, "good", number) for host in (0, 1) for number in (13, 14)]
        found = fetched(tmp_path / "with", urls, DownloadOptions(**{**vars(QUICK), "robots": True}))
        assert found[urls[0]][:3] == ("failed", "robots.txt", True)
        assert [found[url][0] for url in urls[1:]] == ["done"] * 3
        assert web.asked[urls[0]] == 0
        rules = {address: count for address, count in web.asked.items() if address.endswith("robots.txt")}
        assert list(rules.values()) == [1, 1]
        assert {end[0] for end in fetched(tmp_path / "without", urls).values()} == {"done"}


@pytest.mark.parametrize("packing", ["gzip", "identity", "br"])
def test_a_packed_robots_txt_is_gone_by_too(tmp_path, packing):
    with Web(1).running() as web:
        web.with_rules.add(web.name(0))
        web.packing = packing
        urls = [web.url(0, "good", number) for number in (13, 14)]
        options = DownloadOptions(**{**vars(QUICK), "robots": True, "tries": 1})
        found = fetched(tmp_path, urls, options)
        assert found[urls[0]][:2] == ("failed", "robots.txt") and web.asked[urls[0]] == 0
        assert found[urls[1]][0] == ("failed" if packing == "br" else "done")  # what cannot be read may forbid all


def test_rules_that_cannot_be_read_are_everybodys_failure_and_read_again():
    asked = []

    async def read(address):
        asked.append(address)
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise FetchError("status 503", "")
        return "User-agent: *\nDisallow: /x\n" + "# " + "long " * 50_000

    async def ask():
        robots = Robots(read, "me")
        urls = ["https://a.example/x/1", "https://a.example/y"]
        first = await asyncio.gather(*(robots.allows("https://a.example", url) for url in urls), return_exceptions=True)
        return first, [await robots.allows("https://a.example", url) for url in urls]

    first, second = asyncio.run(ask())
    assert [each.cause for each in first] == ["status 503"] * 2 and second == [False, True]
    assert asked == ["https://a.example/robots.txt"] * 2


# Addresses that may not be asked


def test_no_private_address_is_asked(web, tmp_path):
    options = DownloadOptions(**{**vars(QUICK), "allow_private": False})
    urls = [web.url(0, "good", 91), web.url(0, "good", 92).replace("127.0.1.1", "localhost")]
    before = web.asked.total()
    found = fetched(tmp_path, [*urls, "http://[::1]/", "http://169.254.169.254/latest/meta-data/"], options)
    assert {end[:2] for end in found.values()} == {("refused", "private address")}
    assert web.asked.total() == before
    with opened_state(tmp_path) as state:  # whoever then says that it is the network of one's own
        state.begin(allow_private=True)
        assert state.counts()["todo"] == 4


def test_a_redirect_is_checked_like_the_first_address(web, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "is_public", lambda address: is_public(address) or str(address).startswith("127.0.1."))
    options = DownloadOptions(**{**vars(QUICK), "allow_private": False})
    abroad, good = web.url(0, "abroad", 1), web.url(0, "good", 93)
    found = fetched(tmp_path, [abroad, good], options)
    assert found[abroad][:2] == ("refused", "private address") and found[good][0] == "done"


def test_where_a_connection_begins_the_address_is_checked_once_more():
    fetcher = fetch.Fetcher(DownloadOptions())
    with pytest.raises(OSError, match=r"127\.0\.0\.1 is not on the public internet"):
        fetcher._socket((2, 1, 6, "", ("127.0.0.1", 80)))


# The rules, one by one


@pytest.mark.parametrize(
    ("tag", "is_out"),
    [
        ("noai", True),
        ("NoImageAI", True),
        ("noindex, nofollow", True),
        ("nofollow, noimageindex", True),
        ("none", True),
        ("reverse-image-search: noai", True),
        ("nofollow", False),
        ("googlebot: noindex", False),
        ("googlebot: nofollow, noindex", False),
        ("otherbot: noindex, *: noai", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", True),
        ("max-image-preview: large", False),
        ("", False),
    ],
)
def test_opt_out(tag, is_out):
    assert opts_out(tag) is is_out


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("soon", None),
        (None, None),
        ("-5", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(value, 10.0) == seconds


def test_waits_are_drawn_from_all_of_a_growing_range():
    options = DownloadOptions(wait_seconds=2, max_wait_seconds=10)
    for tries, most in [(1, 2), (2, 4), (3, 8), (4, 10), (9, 10)]:
        drawn = [wait_before_try(tries, options, random.Random(seed)) for seed in range(300)]
        assert 0 <= min(drawn) < 0.1 * most and 0.9 * most < max(drawn) <= most


def task(number, host="a"):
    return Task(number, f"{number:032x}", f"http://{host}/{number}", host, 0)


def test_a_host_is_asked_at_its_rate():
    host = Host("a", DownloadOptions(rate=2, per_host=4))
    host.queue.extend(map(task, range(6)))
    now, asked = 100.0, []
    while host.queue:
        now = max(now, host.ready_at(now))
        host.take(now)
        asked.append(round(now - 100, 3))
        host.answered(now, None, random.Random(0))
    assert asked == [0, 0, 0.5, 1, 1.5, 2]


def test_hosts_have_their_turns():
    hosts = Hosts(DownloadOptions(rate=1000, per_host=100))
    for name, count in [("large", 90), ("small", 3)]:
        hosts.enter(name).queue.extend(task(n, name) for n in range(count))
    order = []
    for _ in range(8):
        host, _ = hosts.next(5.0)
        order.append(host.take(5.0).host)
    assert order == ["large", "small"] * 3 + ["large"] * 2


def test_after_failures_a_host_is_left_alone_then_asked_once_then_given_up():
    options = DownloadOptions(rate=1000, per_host=4, break_after=2, break_seconds=10, breaks=2)
    host, draw, away = Host("a", options), random.Random(0), FetchError("time-out", "", is_host=True)
    host.queue.extend(map(task, range(9)))
    for _ in range(2):
        assert host.ready_at(0.0) == 0
        host.take(0.0)
    for _ in range(2):
        host.answered(0.0, away, draw)
    first = host.ready_at(0.0)
    assert 5 <= first <= 10 and not host.is_given_up
    host.take(first)
    assert host.ready_at(first) == float("inf")  # one shows whether it is back
    host.answered(first, away, draw)
    second = host.ready_at(first)
    assert 10 <= second - first <= 20 and not host.is_given_up
    host.take(second)
    host.answered(second, None, draw)
    assert host.ready_at(second) == second and host.breaks == 0
    for _ in range(6):
        host.answered(second, away, draw)
    now = second
    while not host.is_given_up:
        now = host.ready_at(now)
        host.take(now)
        host.answered(now, away, draw)


def test_what_a_server_wishes_is_granted_up_to_a_limit():
    host = Host("a", DownloadOptions())
    host.queue.append(task(1))
    host.answered(50.0, FetchError("429", "", is_host=True, retry_after=30.0), random.Random(0))
    assert host.ready_at(50.0) == 80.0


# Pictures


def test_a_larger_picture_is_reduced_and_keeps_its_aspect(tmp_path):
    part = tmp_path / "part"
    buffer = io.BytesIO()
    image = Image.new("RGB", (1600, 1000), (10, 200, 30))
    exif = image.getexif()
    exif[0x0112] = 6  # lies on its side
    image.save(buffer, "JPEG", exif=exif)
    part.write_bytes(buffer.getvalue())
    kept = keep_picture(str(part), str(tmp_path), "ab" * 16, 512)
    assert kept == Kept("ab/" + "ab" * 16 + ".jpg", kept.bytes, 320, 512)
    pixels = decode_image(tmp_path / kept.file)
    assert pixels.shape == (512, 320, 3) and abs(pixels.mean((0, 1)) - [10, 200, 30]).max() < 4
    assert (tmp_path / kept.file).stat().st_size == kept.bytes


def test_a_smaller_picture_stays_as_it_came(tmp_path):
    (tmp_path / "part").write_bytes(picture(77))
    kept = keep_picture(str(tmp_path / "part"), str(tmp_path), "cd" * 16, 512)
    assert (tmp_path / kept.file).read_bytes() == picture(77) and (kept.width, kept.height) == SIDE
    assert kept.file.endswith(".png")


def test_a_bomb_is_no_picture(tmp_path):
    bomb = bytearray(picture(1))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # what its header promises
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (tmp_path / "part").write_bytes(bomb)
    refused = keep_picture(str(tmp_path / "part"), str(tmp_path), "ef" * 16, 512)
    assert isinstance(refused, NotKept) and refused.cause == "too many pixels"


def chunk_of_png(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_a_picture_whose_words_are_a_bomb_is_kept_and_reduced(tmp_path):
    words = chunk_of_png(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))
    content = picture(5)[:33] + words + picture(5)[33:]
    (tmp_path / "part").write_bytes(content)
    kept = keep_picture(str(tmp_path / "part"), str(tmp_path), "ab" * 16, None)
    assert (tmp_path / kept.file).read_bytes() == content and kept.file.endswith(".png")
    (tmp_path / "part").write_bytes(content)
    kept = keep_picture(str(tmp_path / "part"), str(tmp_path), "cd" * 16, 16)
    assert (kept.width, kept.height) == (16, 12) and kept.file.endswith(".jpg")


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP", "GIF", "PNG", "AVIF"])
def test_a_picture_that_breaks_off_in_its_header_is_damaged_and_ends_nothing(tmp_path, format):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format)
    content = buffer.getvalue()
    for broken in (content[:33], content[:24] + b"\xff" * 100, content[:16] + bytes(100)):
        (tmp_path / "part").write_bytes(broken)
        refused = keep_picture(str(tmp_path / "part"), str(tmp_path), "ef" * 16, None)
        assert isinstance(refused, NotKept) and refused.cause in ("damaged", "too many pixels"), broken


# Ends


def test_a_full_disk_is_told_and_loses_nothing(web, tmp_path, monkeypatch):
    urls = [web.url(n % 6, "good", 9000 + n) for n in range(60)]
    real = fetch.Fetcher.fetch
    count = []

    async def full(self, url, file):
        count.append(url)
        if len(count) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await real(self, url, file)

    with monkeypatch.context() as patch:
        patch.setattr(fetch.Fetcher, "fetch", full)
        with pytest.raises(DownloadError, match=r"the disk of .* is full: make room"):
            fetched(tmp_path, urls)
    kept = [url for url, end in ends(tmp_path).items() if end[0] == "done"]
    assert {end[0] for end in ends(tmp_path).values()} <= {"done", "todo"}
    before = {url: web.asked[url] for url in kept}
    assert {end[0] for end in fetched(tmp_path, urls).values()} == {"done"}
    assert before == {url: web.asked[url] for url in kept}


def test_what_was_taken_when_the_run_was_stopped_is_given_back(web, tmp_path, monkeypatch):
    refill = run._Run._refill

    async def stopped_meanwhile(self):
        await refill(self)
        self._is_stopped = True

    monkeypatch.setattr(run._Run, "_refill", stopped_meanwhile)
    with opened_state(tmp_path) as state:
        state.add(Entry(web.url(0, "good", 9500 + n), "{}") for n in range(3))
        state.begin(allow_private=True)
        assert not download(state, tmp_path, QUICK, seed=0)
    assert [end[0] for end in ends(tmp_path).values()] == ["todo"] * 3


def test_a_process_that_ends_is_replaced(web, tmp_path, monkeypatch):
    started, real = [], pictures.PictureProcesses._started

    def dying(self):
        pool = real(self)
        if not started:
            pool.submit(os._exit, 3)  # as the system ends what takes too much memory
        started.append(pool)
        return pool

    monkeypatch.setattr(pictures.PictureProcesses, "_started", dying)
    found = fetched(tmp_path, [web.url(0, "good", 9500 + n) for n in range(10)])
    assert {end[0] for end in found.values()} == {"done"} and len(started) >= 1


def test_a_second_process_is_kept_out(web, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text(web.url(0, "good", 9600))
    held, release = threading.Event(), threading.Event()

    def hold():
        with writing(tmp_path / "out", purpose="downloaded to"):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert main([str(path), "--out", str(tmp_path / "out"), "--allow-private"]) == 2
    finally:
        release.set()
        thread.join()
    assert "is being downloaded to by another" in capsys.readouterr().err


def test_what_is_being_written_when_it_is_stopped_is_not_lost(tmp_path):
    with opened_state(tmp_path) as state:
        state.add([Entry("http://a.example/1.jpg", "{}")])
        ((task,),) = state.lease([("a.example", 1)], 0.0, 1.0).values()
        run, others_are_done = _Run(state, tmp_path, QUICK, lambda _: None, 0), threading.Event()

        async def stop():
            before = asyncio.create_task(run._in_database(others_are_done.wait))
            await asyncio.sleep(0)
            run._end(Outcome(task, "failed", "404", "", True))
            committing = asyncio.create_task(run._commit())
            for _ in range(3):
                await asyncio.sleep(0)  # it stands behind the other by now
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            others_are_done.set()
            await before
            await run._in_database(lambda: None)  # what stands behind it

        asyncio.run(stop())
        assert state.counts() == {"failed": 1}


def test_ctrl_c_ends_it_and_the_same_command_goes_on(web, tmp_path):
    urls = [web.url(n % 6, "good", 10_000 + n) for n in range(400)]
    (tmp_path / "a.txt").write_text("\n".join(urls))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "features.download", str(tmp_path / "a.txt"), "--out", str(out), "--allow-private"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [*command, "--rate", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    )
    until(lambda: list(out.glob("??/*")), "the first picture")
    until(lambda: [end[0] for end in ends(out).values()].count("done") > 20, "what is said of the first pictures")
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command goes on from here" in errors and "are still to do" in told and "Traceback" not in errors
    states = Counter(end[0] for end in ends(out).values())
    assert states["done"] > 20 and set(states) == {"done", "todo"} and not (out / ".partial").exists()
    kept = {url: web.asked[url] for url, end in ends(out).items() if end[0] == "done"}
    assert main([*command[3:], "--rate", "1000"]) == 0
    assert Counter(end[0] for end in ends(out).values()) == {"done": 400}
    assert kept == {url: web.asked[url] for url in kept}


@pytest.mark.slow
def test_kill_9_loses_and_doubles_nothing(tmp_path):
    survival = survive(600, 10, 2, 0.15, tmp_path)
    assert survival.faults == [] and survival.done > 450


# The command


def test_the_command_tells_what_became_of_a_list(web, tmp_path, capsys):
    out, path = tmp_path / "out", tmp_path / "a.csv"
    urls = [web.url(0, "good", 11_001), web.url(1, "missing", 11_002), "data:image/png;base64,AA"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["Link", "caption", "file"], *([url, f"picture {n}", "x"] for n, url in enumerate(urls))]
        )
    assert main([str(path), "--column", "link", "--out", str(out), "--allow-private", "--resize", "16"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 of 3 pictures are here\n") and "404 not found (for good)" in told and "(refused)" in told
    (row,) = map(json.loads, (out / "pictures.jsonl").read_text().splitlines())
    assert row == {"file": row["file"], "url": urls[0], "caption": "picture 0", "file_given": "x"}
    assert decode_image(out / row["file"]).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concurrency", "0"], "concurrency must be more than 0"),
        (["--column", "where"], "it has url"),
        (["--rate", "nan"], "rate must be"),
        (["--max-size", "nan"], "must be a size in megabytes, got nan"),
        (["--max-size", "inf"], "must be a size in megabytes, got inf"),
        (["--max-size", "-1"], "must be a size in megabytes, got -1"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, arguments, says):
    (tmp_path / "a.csv").write_text("url\nhttp://127.0.0.1/\n")
    try:
        assert main([str(tmp_path / "a.csv"), "--out", str(tmp_path / "out"), *arguments]) == 2
    except SystemExit as left:  # by the parser
        assert left.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_list_may_be_called_anything_and_lie_at_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"-\xe9.csv"))
    path.write_text("url\nhttp://127.0.0.1/\n")
    for _ in range(2):
        assert main([f"~/{path.name}", "--out=~/out"]) == 0
        assert capsys.readouterr().out.startswith("0 of 1 pictures are here\n")
    with opened_state(tmp_path / "out") as state:
        assert state.lists() == [str(tmp_path / "photos-\\xe9.csv")] and state.has_list(path, "url")


def test_what_is_no_file_is_no_list(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.csv")
    for place in (tmp_path / "a.csv", tmp_path, Path("/dev/zero")):
        assert main([str(place), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err == f"error: {place} is no file\n"


def test_the_cause_is_the_systems_own_where_sqlite_keeps_it_to_itself(tmp_path):
    """As CASES, files, 12: too large a file is no damaged one."""
    (tmp_path / "a.csv").write_text("url\nhttp://127.0.0.1/\n")
    command = f"ulimit -f 8; exec {sys.executable} -m features.download a.csv --out out"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"error: out/{STATE} cannot be used: File too large"


def test_a_state_of_another_version_is_refused(tmp_path):
    DownloadState(tmp_path / STATE).close()
    with sqlite3.connect(tmp_path / STATE) as state:
        state.execute("PRAGMA user_version = 99")
    with pytest.raises(DownloadError, match="is of version 99"), opened_state(tmp_path):
        pass


def test_outcomes_are_written_all_or_none(tmp_path):
    with opened_state(tmp_path) as state:
        state.add(Entry(url, "{}") for url in URLS)
        state.begin()
        leased = state.lease([("a.example", 9), ("b.example", 9)], 1.0, 2.0)
        assert [task.url for task in leased["a.example"]] == [URLS[0], URLS[2]]
        with pytest.raises(sqlite3.Error):
            state.record([Outcome(leased["b.example"][0], "done", file="x"), Outcome(leased["a.example"][0], object())])
        assert state.counts() == {"leased": 3}
        state.begin()
        assert state.counts() == {"todo": 3} and state.hosts_after("a.example", 1.0, 9) == ["b.example", "a.example"]
