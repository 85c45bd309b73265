"""data_download.sh against a local server that resumes, cuts connections, refuses ranges or serves rubbish."""

import hashlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from waiting import MINUTES, until

SCRIPT = Path(__file__).parent.parent / "data_download.sh"


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


NOISE = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(8000))  # does not compress
CALTECH_FILES = {f"101_ObjectCategories/{c}/image_{i:04}.jpg": NOISE + c.encode() for c in "abc" for i in (1, 2)}
CALTECH = _tar({**CALTECH_FILES, "101_ObjectCategories/a/tmp": b"stray"}, "w:gz")
VOC = _tar(
    {
        "VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg": b"pixels",
        "VOCdevkit/VOC2012/Annotations/2007_000001.xml": b"<annotation/>",
    },
    "w",
)


def _zipped(tar: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("101_ObjectCategories.tar.gz", tar), ("show_annotation.m", "% not needed")):
            archive.writestr(zipfile.ZipInfo(f"caltech-101/{name}"), content)  # of 1980: the same bytes at any time
    return out.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; the first `cuts` answers stop halfway; `ranges=False` ignores Range headers."""

    def __init__(self, files: dict[str, bytes], cuts: int = 0, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts, self.ranges = files, cuts, ranges
        self.wall = 0  # no byte from this one on is ever sent, unless 0
        self.asked: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.path not in self.server.files:
            self.send_error(404)
            return
        content, start = self.server.files[self.path], 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            rest = rest[: len(rest) // 2]
        if self.server.wall:
            rest = rest[: max(0, self.server.wall - start)]
        self.wfile.write(rest)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def serve():
    servers = []

    def start(files, **options):
        servers.append(Server(files, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


def start(place: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """The script, in a process group of its own."""
    clean = {
        k: v for k, v in os.environ.items() if k not in ("CALTECH101_URL", "VOC2012_URL") and "proxy" not in k.lower()
    }
    return subprocess.Popen(
        [str(place / SCRIPT.name), *arguments],
        env={**clean, **environment},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    process = start(place, *arguments, **environment)
    out, err = process.communicate(timeout=60 * MINUTES)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def failed_in_one_line(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("data_download.sh: ")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0]


def tools_without(tmp_path: Path, *missing: str) -> str:
    """A PATH with everything the script uses but the named programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    names = [
        "bash",
        "env",
        "awk",
        "cat",
        "cksum",
        "curl",
        "cut",
        "df",
        "dirname",
        "find",
        "gzip",
        "head",
        "ls",
        "md5sum",
    ]
    names += ["flock", "mkdir", "mv", "python3", "rm", "rmdir", "sleep", "tail", "tar", "tr", "unzip", "wc", "wget"]
    for name in names:
        found = os.path.realpath(sys.executable) if name == "python3" else shutil.which(name)
        if found and name not in missing:
            (folder / name).symlink_to(found)
    return str(folder)


CALTECH_RESULT = {name.removeprefix("101_ObjectCategories/") for name in CALTECH_FILES} | {"a/tmp"}


@pytest.mark.parametrize("archive", [CALTECH, _zipped(CALTECH)], ids=["tar.gz", "zip"])
def test_file_address_gives_the_official_layout_and_nothing_else(place, tmp_path, archive):
    source = tmp_path / "with space%.bin"
    source.write_bytes(archive)
    result = run(place, "caltech", CALTECH101_URL="file://" + str(source).replace("%", "%25").replace(" ", "%20"))
    assert result.returncode == 0, result.stderr
    assert files_in(place / "datasets") == {f"caltech101/{name}" for name in CALTECH_RESULT}
    assert "6 images in 3 folders" in result.stderr
    assert source.read_bytes() == archive


def test_zip_without_unzip_installed(place, tmp_path):
    source = tmp_path / "c.zip"
    source.write_bytes(_zipped(CALTECH))
    result = run(place, "caltech", CALTECH101_URL=source.as_uri(), PATH=tools_without(tmp_path, "unzip"))
    assert result.returncode == 0, result.stderr
    assert files_in(place / "datasets/caltech101") == CALTECH_RESULT


def test_all_fetches_both_and_a_second_run_does_nothing(place, serve):
    server = serve({"/c.zip": _zipped(CALTECH), "/v.tar": VOC})
    addresses = {"CALTECH101_URL": server.url("/c.zip"), "VOC2012_URL": server.url("/v.tar")}
    first = run(place, "all", **addresses)
    assert first.returncode == 0, first.stderr
    voc = {"VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg", "VOCdevkit/VOC2012/Annotations/2007_000001.xml"}
    everything = {f"caltech101/{name}" for name in CALTECH_RESULT} | voc
    assert files_in(place / "datasets") == everything
    assert not (place / "datasets/.download").exists()
    asked = len(server.asked)
    second = run(place, "all", **addresses)
    assert second.returncode == 0
    assert second.stderr.count("already in") == 2
    assert len(server.asked) == asked
    assert files_in(place / "datasets") == everything


def test_all_goes_on_to_the_second_dataset_when_the_first_fails(place, serve):
    server = serve({"/c": b"rubbish", "/v.tar": VOC})
    result = run(place, "all", CALTECH101_URL=server.url("/c"), VOC2012_URL=server.url("/v.tar"))
    failed_in_one_line(result, "caltech")
    assert (place / "datasets/VOCdevkit/VOC2012/JPEGImages").is_dir()


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_cut_connection_is_resumed_where_it_stopped(place, serve, tmp_path, tool):
    server = serve({"/c.tar.gz": CALTECH}, cuts=2)
    path = tools_without(tmp_path, "wget" if tool == "curl" else "curl")
    result = run(place, "caltech", CALTECH101_URL=server.url("/c.tar.gz"), PATH=path)
    assert result.returncode == 0, result.stderr
    assert files_in(place / "datasets/caltech101") == CALTECH_RESULT
    half = len(CALTECH) // 2
    three_quarters = half + (len(CALTECH) - half) // 2
    assert [asked for _, asked in server.asked] == [None, f"bytes={half}-", f"bytes={three_quarters}-"]


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_server_that_cannot_resume_is_asked_from_the_start(place, serve, tmp_path, tool):
    server = serve({"/c.tar.gz": CALTECH}, cuts=1, ranges=False)
    path = tools_without(tmp_path, "wget" if tool == "curl" else "curl")
    result = run(place, "caltech", CALTECH101_URL=server.url("/c.tar.gz"), PATH=path)
    assert result.returncode == 0, result.stderr
    assert files_in(place / "datasets/caltech101") == CALTECH_RESULT


def test_next_run_resumes_what_a_failed_run_left(place, serve):
    server = serve({"/c.tar.gz": CALTECH})
    server.wall = 1000
    address = server.url("/c.tar.gz")
    failed_in_one_line(run(place, "caltech", CALTECH101_URL=address), address)
    (part,) = (place / "datasets/.download").glob("*.part")
    assert part.read_bytes() == CALTECH[:1000]
    assert not (place / "datasets/caltech101").exists()
    server.wall = 0
    server.asked.clear()
    assert run(place, "caltech", CALTECH101_URL=address).returncode == 0
    assert server.asked == [("/c.tar.gz", "bytes=1000-")]


@pytest.mark.parametrize(
    "archive",
    [CALTECH[: len(CALTECH) // 2], b"rubbish", b"", _tar({"other/file.jpg": b"x"}, "w:gz"), b"PK\x03\x04 broken"],
    ids=["truncated", "not-an-archive", "empty", "other-content", "broken-zip"],
)
def test_corrupt_archive_leaves_nothing_and_is_fetched_anew(place, serve, archive):
    server = serve({"/c": archive})
    failed_in_one_line(run(place, "caltech", CALTECH101_URL=server.url("/c")), server.url("/c"))
    assert files_in(place / "datasets") == set()
    server.files["/c"] = CALTECH
    assert run(place, "caltech", CALTECH101_URL=server.url("/c")).returncode == 0


def test_damaged_official_download_is_refused_by_its_checksum(place, serve):
    server = serve({"/c.zip": _zipped(CALTECH)})
    script = place / SCRIPT.name
    official = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
    text = script.read_text()
    assert official in text
    script.write_text(text.replace(official, server.url("/c.zip")))
    failed_in_one_line(run(place, "caltech"), "MD5", hashlib.md5(_zipped(CALTECH)).hexdigest())
    assert files_in(place / "datasets") == set()
    # With the sum of what is served, the same download passes.
    script.write_text(
        script.read_text().replace("3138e1922a9193bfa496528edbbc45d0", hashlib.md5(server.files["/c.zip"]).hexdigest())
    )
    assert run(place, "caltech").returncode == 0


def test_checksums_are_those_torchvision_carries():
    from features.torchvision_ops import declare_operators

    declare_operators()
    import inspect

    from torchvision.datasets import caltech, voc

    text = SCRIPT.read_text()
    official = voc.DATASET_YEAR_DICT["2012"]
    assert official["url"] in text
    assert official["md5"] in text
    source = inspect.getsource(caltech.Caltech101)
    for value in (
        "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
        "3138e1922a9193bfa496528edbbc45d0",
    ):
        assert value in text
        assert value in source


def test_too_little_disk_space(place, tmp_path):
    tools = Path(tools_without(tmp_path, "df"))
    (tools / "df").write_text("#!/bin/bash\necho header\necho disk 1000000 0 102400 50% /\n")
    (tools / "df").chmod(0o755)
    failed_in_one_line(run(place, "voc", PATH=str(tools)), "4500 MB", "there are 100 MB")


def test_remains_of_a_killed_run_are_cleared(place, tmp_path):
    stale = place / "datasets/.unpack-caltech/101_ObjectCategories/zzz"
    stale.mkdir(parents=True)
    (stale / "old.jpg").write_bytes(b"old")
    source = tmp_path / "c.tar.gz"
    source.write_bytes(CALTECH)
    assert run(place, "caltech", CALTECH101_URL=source.as_uri()).returncode == 0
    assert files_in(place / "datasets/caltech101") == CALTECH_RESULT


def test_an_archive_of_which_not_all_was_unpacked_is_refused(place, tmp_path):
    tools = Path(tools_without(tmp_path, "tar"))
    one = '"${@: -1}/101_ObjectCategories/b/image_0001.jpg"'
    (tools / "tar").write_text(f'#!/bin/bash\n{shutil.which("tar")} "$@"\n[ "$1" != -x ] || rm {one}\n')
    (tools / "tar").chmod(0o755)
    source = tmp_path / "c.tar.gz"
    source.write_bytes(CALTECH)
    result = run(place, "caltech", CALTECH101_URL=source.as_uri(), PATH=str(tools))
    failed_in_one_line(result, "lists 6 images, 5 of them")
    assert files_in(place / "datasets") == set()


def test_what_a_killed_run_of_old_left_behind_is_not_taken_for_the_dataset(place, tmp_path):
    folder = place / "datasets/caltech101/ant"
    folder.mkdir(parents=True)
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(b"image")
    source = tmp_path / "c.tar.gz"
    source.write_bytes(CALTECH)
    failed_in_one_line(run(place, "caltech", CALTECH101_URL=source.as_uri()), "4 of 9144 images", "remove it")
    assert len(files_in(place / "datasets")) == 4
    script = place / SCRIPT.name
    script.write_text(script.read_text().replace("CALTECH_IMAGES=9144", "CALTECH_IMAGES=4"))  # as if that were all
    whole = run(place, "caltech", CALTECH101_URL=source.as_uri())
    assert whole.returncode == 0
    assert "already in" in whole.stderr
    assert len(files_in(place / "datasets")) == 4


@pytest.mark.parametrize("missing", ["", "flock"])
def test_of_several_at_once_one_fetches_and_the_others_wait(place, serve, tmp_path, missing):
    server = serve({"/c.zip": _zipped(CALTECH)})
    tools = tools_without(tmp_path, missing)
    several = [start(place, "caltech", CALTECH101_URL=server.url("/c.zip"), PATH=tools) for _ in range(5)]
    said = [process.communicate(timeout=60 * MINUTES)[1] for process in several]
    assert [process.returncode for process in several] == [0] * 5, said
    assert [server.url("/c.zip") in text for text in said].count(True) == 1
    assert sum("already in" in text for text in said) == 4
    assert len(server.asked) == 1
    assert files_in(place / "datasets") == {f"caltech101/{name}" for name in CALTECH_RESULT}


def wrapped(tmp_path: Path, body: str, *names: str) -> str:
    """A PATH whose named programs (all, if none is) run a line of bash before they do their work."""
    folder, own = Path(tools_without(tmp_path)), tmp_path / "wrapped"
    own.mkdir()
    for tool in folder.iterdir():
        if tool.name in ("bash", "env") or (names and tool.name not in names):
            (own / tool.name).symlink_to(tool)
        else:
            (own / tool.name).write_text(f'#!{folder}/bash\n{body}\nexec "{tool.resolve()}" "$@"\n')
            (own / tool.name).chmod(0o755)
    return str(own)


@pytest.mark.slow
def test_killed_before_any_step_the_next_run_fetches_all(place, serve, tmp_path):
    """kill -9 of the script and all it has started, before each program that it calls in turn."""
    server = serve({"/c.zip": _zipped(CALTECH)})
    calls = tmp_path / "calls"
    kill = f'echo call >>"{calls}"; [ "$(wc -l <"{calls}")" -lt "$KILL_AT" ] || kill -9 0'
    tools = wrapped(tmp_path, kill.replace("wc -l", f"{shutil.which('wc')} -l"))
    address = {"CALTECH101_URL": server.url("/c.zip")}
    step, killed = 0, True
    while killed:
        step += 1
        calls.write_text("")
        first = run(place, "caltech", PATH=tools, KILL_AT=str(step), **address)
        killed = first.returncode == -signal.SIGKILL
        there = files_in(place / "datasets/caltech101")
        assert there in (set(), CALTECH_RESULT), f"killed at step {step}"
        second = run(place, "caltech", **address)
        assert second.returncode == 0, (step, second.stderr)
        assert files_in(place / "datasets/caltech101") == CALTECH_RESULT
        shutil.rmtree(place / "datasets")
    assert first.returncode == 0
    assert step > 10


def test_the_next_run_waits_for_what_a_killed_one_left_running(place, serve, tmp_path):
    """The script dies and its tar goes on: the next run may not unpack into its folder, nor move it."""
    server = serve({"/c.tar.gz": CALTECH})
    pids, go = tmp_path / "pids", tmp_path / "go"
    tell = f'echo $PPID >"{pids}.new"; mv "{pids}.new" "{pids}"'
    wait = f'[ "$1" != -x ] || {{ {tell}; until [ -e "{go}" ]; do sleep 0.05; done; }}'
    address = {"CALTECH101_URL": server.url("/c.tar.gz"), "PATH": wrapped(tmp_path, wait, "tar")}
    first = start(place, "caltech", **address)
    parent = int(until(lambda: pids.exists() and pids.read_text(), "tar's start"))
    for pid in (first.pid, parent):
        os.kill(pid, signal.SIGKILL)
    assert first.wait(60 * MINUTES) == -signal.SIGKILL
    second = start(place, "caltech", **address)
    waiting = second.stderr.readline()
    assert "waiting for another run" in waiting
    go.touch()
    said = second.communicate(timeout=60 * MINUTES)[1]
    assert second.returncode == 0, said
    assert files_in(place / "datasets") == {f"caltech101/{name}" for name in CALTECH_RESULT}


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        ([], {}, "usage"),
        (["imagenet"], {}, "usage"),
        (["caltech", "voc"], {}, "all"),
        (["caltech"], {"CALTECH101_URL": "ftp://example.org/x"}, "neither"),
        (["caltech"], {"CALTECH101_URL": "file:///nowhere/x.zip"}, "/nowhere/x.zip"),
    ],
)
def test_bad_use_fails_in_one_clear_line(place, arguments, environment, word):
    failed_in_one_line(run(place, *arguments, **environment), word)


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_missing_file_is_asked_for_once(place, serve, tmp_path, tool):
    server = serve({})
    path = tools_without(tmp_path, "wget" if tool == "curl" else "curl")
    failed_in_one_line(run(place, "voc", VOC2012_URL=server.url("/v.tar"), PATH=path), "404")
    assert len(server.asked) == 1


@pytest.mark.realdata
@pytest.mark.skipif("IVFPQ_TEST_DATA" not in os.environ, reason="IVFPQ_TEST_DATA is not set")
def test_real_caltech101(place):
    archive = Path(os.environ["IVFPQ_TEST_DATA"], "101_ObjectCategories.tar.gz").resolve()
    result = run(place, "caltech", CALTECH101_URL=archive.as_uri())
    assert result.returncode == 0, result.stderr
    assert "9144 images in 102 folders" in result.stderr
