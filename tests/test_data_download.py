"""data_download.sh against a local server that resumes, cuts connections, refuses ranges or serves rubbish."""

import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

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
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", tar)
        archive.writestr("caltech-101/show_annotation.m", "% not needed")
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


def run(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {
        k: v for k, v in os.environ.items() if k not in ("CALTECH101_URL", "VOC2012_URL") and "proxy" not in k.lower()
    }
    return subprocess.run(
        [str(place / SCRIPT.name), *arguments],
        env={**clean, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


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
    names += ["mkdir", "mv", "python3", "rm", "rmdir", "sleep", "tail", "tar", "tr", "unzip", "wc", "wget"]
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
