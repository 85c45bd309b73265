"""Only regular files below the root are opened, whatever a name in the folder leads to."""

import errno
import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from features.images import ImageError
from features.picture_files import file_kind, open_picture, read_picture

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a.jpg").write_bytes(CONTENT)
    (tmp_path / "secret.txt").write_bytes(b"not yours")
    return root


def test_relative_and_absolute_paths_and_links_within_the_root(root, tmp_path):
    (root / "link.jpg").symlink_to("sub/a.jpg")
    (root / "again").symlink_to(root / "sub", target_is_directory=True)
    (tmp_path / "root-link").symlink_to(root)
    for path in ("sub/a.jpg", Path("sub/a.jpg"), root / "sub/a.jpg", "link.jpg", "again/a.jpg", "sub/../sub/a.jpg"):
        assert read_picture(root, path) == CONTENT
        assert read_picture(tmp_path / "root-link", path) == CONTENT
    with open_picture(root, "sub/a.jpg") as file:
        assert file.read(10) == CONTENT[:10]
        assert os.fstat(file.fileno()).st_size == len(CONTENT)


def test_nothing_outside_the_root(root, tmp_path):
    (root / "secret.jpg").symlink_to(tmp_path / "secret.txt")
    (root / "chain.jpg").symlink_to("secret.jpg")
    (root / "out").symlink_to(tmp_path)
    sibling = tmp_path / "pictures-of-another"  # its name begins as the root's does
    sibling.mkdir()
    (sibling / "b.jpg").write_bytes(b"b")
    (root / "sibling.jpg").symlink_to(sibling / "b.jpg")
    outside = ("secret.jpg", "chain.jpg", "out/secret.txt", "../secret.txt", tmp_path / "secret.txt", "sibling.jpg")
    for path in outside:
        with pytest.raises(ImageError, match="outside") as caught:
            read_picture(root, path)
        assert (caught.value.name, caught.value.reason.split(" /")[0]) == (os.fspath(path), "a link to")
        assert caught.value.errno is None
    for path in outside:
        assert read_picture(root, path, follow_links=True) in (b"not yours", b"b")


@pytest.mark.parametrize("swapped", ["sub", "sub/a.jpg"])
def test_a_link_that_takes_a_place_after_it_was_looked_at_is_refused(root, tmp_path, monkeypatch, swapped):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.jpg").write_bytes(b"not yours")
    look = os.path.realpath

    def look_and_swap(path, **options):
        seen = look(path, **options)
        if seen == os.fspath(root / "sub/a.jpg"):
            (root / swapped).rename(tmp_path / "taken away")
            (root / swapped).symlink_to(tmp_path / "elsewhere" / Path(swapped).relative_to("sub"))
        return seen

    monkeypatch.setattr(os.path, "realpath", look_and_swap)
    with pytest.raises(ImageError) as caught:
        read_picture(root, "sub/a.jpg")
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert (root / "sub/a.jpg").read_bytes() == b"not yours"  # so the path alone would have led there


@pytest.mark.parametrize("follow_links", [False, True])
def test_what_is_no_file_is_named_and_never_waited_for(root, follow_links):
    os.mkfifo(root / "cam.jpg")
    (root / "zero.jpg").symlink_to("/dev/zero")
    for path, kind in {"cam.jpg": "named pipe", "sub": "folder", ".": "folder"}.items():
        with pytest.raises(ImageError, match=f"a {kind}, not a file"):
            read_picture(root, path, follow_links=follow_links)
    with pytest.raises(ImageError, match="a device, not a file" if follow_links else "outside"):
        read_picture(root, "zero.jpg", follow_links=follow_links)


def test_a_socket_is_no_file():
    # A socket's path may have some 100 bytes only.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/s.jpg")
        with pytest.raises(ImageError):
            read_picture(folder, "s.jpg")
        assert file_kind(Path(folder, "s.jpg").stat().st_mode) == "socket"


def test_what_the_system_says_comes_with_its_number(root):
    (root / "away.jpg").symlink_to("/nowhere/at/all.jpg")
    (root / "circle.jpg").symlink_to("circle.jpg")
    for path, number in {"missing.jpg": errno.ENOENT, "away.jpg": errno.ENOENT, "circle.jpg": errno.ELOOP}.items():
        with pytest.raises(ImageError) as caught:
            read_picture(root, path)
        assert caught.value.errno == number
        assert caught.value.name == path
    with pytest.raises(ImageError, match="null"):
        read_picture(root, "a\0.jpg")


def test_size_is_limited_before_and_while_reading(root):
    assert read_picture(root, "sub/a.jpg", max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(ImageError, match=f"too large: {len(CONTENT)} bytes; at most 2999999 are read"):
        read_picture(root, "sub/a.jpg", max_bytes=len(CONTENT) - 1)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="a regular file that announces 0 bytes")
def test_a_file_longer_than_announced(tmp_path):
    assert Path("/proc/self/smaps").stat().st_size == 0
    assert len(read_picture("/proc", "self/smaps")) > 1000
    with pytest.raises(ImageError, match="too large"):
        read_picture("/proc", "self/smaps", max_bytes=500)


def test_no_descriptor_is_left_open(root):
    def held():
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    os.mkfifo(root / "pipe")
    before = held()
    for path in ("pipe", "sub", "sub/a.jpg") * 20:
        try:
            read_picture(root, path)
        except ImageError:
            continue
    # What other tests left behind may be closed meanwhile: 60 readings that leaked would add 60.
    assert all(after <= once for after, once in zip(held(), before, strict=True))
