"""What is sent to become a collection: names that lead nowhere else, limits that hold, nothing that stays for ever."""

import os
import time
from types import SimpleNamespace

import pytest

from gradio_app import incoming
from gradio_app.incoming import UploadError, Uploads


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path)


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def put(sent, number, content):
    part = sent.part_of(number)
    part.write_bytes(content)
    sent.receive(number, part)


def test_files_are_put_where_their_names_say_and_others_are_not_wanted(uploads):
    token = uploads.new_folder()
    sent = uploads.folder(token)
    numbers = sent.announce(
        [("a/b/1.jpg", 3), ("a/.DS_Store", 9), ("@eaDir/1.jpg", 3), ("a\\2.PNG", 2), ("film.mov", 9)]
    )
    assert numbers == [0, None, None, 1, None]
    assert sent.announce([("a/b/1.jpg", 1), ("scan", 1)]) == [2, 3]  # of two folders of this name; it may be a picture
    assert sent.left_out == uploads.left_out(token) == [
        ("a/.DS_Store", "hidden files and folders"),
        ("@eaDir/1.jpg", "system folders are passed over"),
        ("film.mov", "other files (.mov)"),
    ]  # fmt: skip
    put(sent, 1, b"22")
    put(sent, 0, b"111")
    with pytest.raises(UploadError, match="2 files are still being sent"):
        uploads.place(token)
    put(sent, 2, b"3")
    put(sent, 3, b"4")
    assert uploads.place(token) == sent.folder
    assert left(sent.folder) == ["a/2.PNG", "a/b/1-2.jpg", "a/b/1.jpg", "scan"]
    uploads.remove(token)
    assert not sent.folder.exists()
    with pytest.raises(UploadError, match="no longer on the server"):
        uploads.folder(token)


@pytest.mark.parametrize(
    "name", ["../1.jpg", "/etc/1.jpg", "a/../../1.jpg", "C:\\1.jpg", "", "a\0.jpg", "\ud800.jpg", "a" * 5000 + ".jpg"]
)
def test_a_name_that_is_no_path_below_is_refused(uploads, name):
    sent = uploads.folder(uploads.new_folder())
    with pytest.raises(UploadError, match="is no path of a file in a folder"):
        sent.announce([("1.jpg", 1), (name, 1)])


def test_limits_are_told_before_anything_is_sent(uploads, monkeypatch):
    monkeypatch.setattr(incoming, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(incoming, "MAX_BYTES", 25)
    monkeypatch.setattr(incoming, "MAX_FILES", 4)
    sent = uploads.folder(uploads.new_folder())
    assert sent.announce([("1.jpg", 10), ("2.jpg", 11)]) == [0, None]
    assert sent.left_out == [("2.jpg", "larger than the 10 bytes that are read of a picture")]
    with pytest.raises(UploadError, match="GB are taken at a time"):
        sent.announce([("3.jpg", 10), ("4.jpg", 6)])
    other = uploads.folder(uploads.new_folder())
    with pytest.raises(UploadError, match="At most 4 files"):
        other.announce([(f"{i}.jpg", 1) for i in range(5)])
    monkeypatch.setattr(incoming.shutil, "disk_usage", lambda folder: SimpleNamespace(free=incoming.KEEP_FREE + 5))
    third = uploads.folder(uploads.new_folder())
    with pytest.raises(UploadError, match="These are 6 bytes, and there is room for 5"):
        third.announce([("1.jpg", 6)])


def test_a_file_of_another_size_than_was_said_is_not_taken(uploads):
    sent = uploads.folder(uploads.new_folder())
    sent.announce([("1.jpg", 3)])
    with pytest.raises(UploadError, match="has changed while it was being sent"):
        put(sent, 0, b"12")
    with pytest.raises(UploadError, match="was not announced"):
        put(sent, 1, b"12")
    assert sent.missing == 1


@pytest.mark.parametrize("token", ["", "../a", "x" * 32, "0" * 32, "0" * 31 + "\n"])
def test_a_made_up_token_names_no_file(uploads, tmp_path, token):
    with pytest.raises(UploadError, match="no longer on the server"):
        uploads.place(token)
    (tmp_path / "a.zip").touch()
    uploads.remove(token)
    assert left(tmp_path) == ["a.zip"]


def test_yesterdays_upload_goes_when_the_next_is_sent(uploads, tmp_path):
    _, old = uploads.new_zip()
    old.write_bytes(b"x")
    old_folder = uploads.folder(uploads.new_folder()).folder
    for path in (old, old_folder):
        os.utime(path, (time.time() - 10**5,) * 2)
    token, fresh = uploads.new_zip()
    fresh.write_bytes(b"x")
    uploads.new_folder()
    assert not old.exists() and not old_folder.exists()
    assert uploads.place(token) == fresh  # it may still be being sent


def test_what_was_sent_to_servers_that_were_killed_is_removed(tmp_path):
    gone, other = 2**22 + 1, os.getppid()  # the first is beyond the largest process id
    names = [
        f".upload-{gone}-{'a' * 32}.zip",
        f".upload-{os.getpid()}-{'b' * 32}.zip",
        f".upload-{other}-{'c' * 32}.zip",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f".upload-{gone}-{'d' * 32}" / "a").mkdir(parents=True)
    Uploads(tmp_path)  # the second is of an earlier process that had our number
    assert [path.name for path in tmp_path.iterdir()] == [names[2]]
