"""Zip files that do what they should, and zip files that were made to do harm."""

import io
import shutil
import stat
import zipfile
from types import SimpleNamespace

import pytest
from PIL import Image

from gradio_app.zips import ZipError, unpack


def picture(colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path):
    def make(*entries, **options):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return path

    return make


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_are_unpacked_and_the_rest_passed_over(pack, tmp_path):
    source = pack(
        ("cats/1.png", picture()),
        ("dogs/big/2.PNG", picture("blue")),
        ("cats/.hidden.png", b"x"),
        ("__MACOSX/cats/1.png", b"x"),
        ("readme.txt", "hello"),
        ("tool.exe", b"MZ"),
    )
    seen = []
    assert unpack(source, tmp_path / "out", progress=lambda done, total: seen.append((done, total))) == [
        ("readme.txt", "other files (.txt)"),
        ("tool.exe", "other files (.exe)"),
    ]
    assert files(tmp_path / "out") == ["cats/1.png", "dogs/big/2.PNG"]
    assert (tmp_path / "out/cats/1.png").read_bytes() == picture()
    assert seen[-1][0] == seen[-1][1] == len(picture()) + len(picture("blue"))


def test_a_folder_around_everything_is_no_label(pack, tmp_path):
    unpack(pack(("Photos/cats/1.png", picture()), ("Photos/2.png", picture())), tmp_path / "out")
    assert files(tmp_path / "out") == ["2.png", "cats/1.png"]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\..\\..\\evil.png", "C:\\evil.png", "..\\evil.png"),
        *("C:evil.png", "c:/evil.png", "\\evil.png", "\\\\server\\share\\evil.png"),
    ],
)
def test_a_name_that_leads_out_is_refused(pack, tmp_path, name):
    with pytest.raises(ZipError, match="outside its folder"):
        unpack(pack(("good.png", picture()), (name, picture())), tmp_path / "x" / "out")
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_is_refused(pack, tmp_path, kind):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (kind | 0o777) << 16
    with pytest.raises(ZipError, match="a link or a device"):
        unpack(pack((link, "/etc/passwd")), tmp_path / "out")


def test_a_bomb_is_refused_by_what_it_says(pack, tmp_path):
    source = pack(("bomb.png", bytes(10**7)), compression=zipfile.ZIP_DEFLATED)
    assert source.stat().st_size < 20_000
    with pytest.raises(ZipError, match="at most 1,000,000 are taken"):
        unpack(source, tmp_path / "out", max_bytes=10**6)
    with pytest.raises(ZipError, match="at most 1,000,000 are read"):
        unpack(source, tmp_path / "out", max_file_bytes=10**6)
    with pytest.raises(ZipError, match="at most 1 are taken"):
        unpack(pack(("1.png", picture()), ("2.png", picture())), tmp_path / "out", max_files=1)
    assert not (tmp_path / "out").exists()


def test_a_bomb_that_lies_about_its_size_fills_no_disk(pack, tmp_path):
    source = pack(("bomb.png", bytes(10**7)), compression=zipfile.ZIP_DEFLATED)
    size, lie = (10**7).to_bytes(4, "little"), (100).to_bytes(4, "little")
    content = source.read_bytes()
    assert content.count(size) == 2  # in the file's own header and in the directory
    source.write_bytes(content.replace(size, lie))
    with pytest.raises(ZipError):
        unpack(source, tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 100


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ZipError, match="cannot be read"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_damage_encryption_and_doubles_are_refused(pack, tmp_path):
    source = pack(("1.png", picture() * 50))
    content = bytearray(source.read_bytes())
    content[100] ^= 255  # in the picture: its checksum is wrong
    source.write_bytes(content)
    with pytest.raises(ZipError, match="cannot be read"):
        unpack(source, tmp_path / "damaged")
    source = pack(("1.png", picture()))
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(content)
    with pytest.raises(ZipError, match="cannot be read"):
        unpack(source, tmp_path / "encrypted")
    with pytest.warns(UserWarning, match="Duplicate"):
        source = pack(("1.png", picture()), ("1.png", picture("blue")))
    with pytest.raises(ZipError, match="two files"):
        unpack(source, tmp_path / "double")


def test_a_zip_without_pictures_is_refused(pack, tmp_path):
    with pytest.raises(ZipError, match="holds no picture"):
        unpack(pack(("a.txt", "x"), (".b.png", "x")), tmp_path / "out")


def test_backslashes_of_old_packers_separate_folders(pack, tmp_path):
    unpack(pack(("Photos\\cats\\1.png", picture()), ("Photos\\", b""), ("Photos\\2.png", picture())), tmp_path / "out")
    assert files(tmp_path / "out") == ["2.png", "cats/1.png"]


def test_a_colon_in_a_name_is_no_drive(pack, tmp_path):
    unpack(pack(("12:30 at noon.png", picture())), tmp_path / "out")
    assert files(tmp_path / "out") == ["12:30 at noon.png"]


@pytest.mark.parametrize("name", ["", "\0.png", "\0", ".", "./", "//", "\\"])
def test_a_file_without_a_name_is_refused_in_words(tmp_path, name):
    """zipfile writes no such name, so one of the same length is put into the bytes afterwards."""
    path, stand_in = tmp_path / "a.zip", "ABCDEF"[: max(len(name), 1)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", picture())
        archive.writestr(stand_in, b"")
    content = path.read_bytes()
    if name:
        second = content.rindex(b"PK\x03\x04")
        path.write_bytes(content[:second] + content[second:].replace(stand_in.encode(), name.encode()))
    else:  # a name of no length, in the directory
        at = content.rindex(b"PK\x01\x02")
        end = content.index(b"PK\x05\x06")
        entry = content[at:end]
        entry = entry[:28] + b"\0\0" + entry[30:46] + entry[47:]
        tail = bytearray(content[end:])
        tail[12:16] = (int.from_bytes(tail[12:16], "little") - 1).to_bytes(4, "little")
        path.write_bytes(content[:at] + entry + tail)
    if name.endswith(("/", "\\")):  # a folder, which is made for what is in it
        assert unpack(path, tmp_path / "out") == []
        assert files(tmp_path / "out") == ["good.png"]
    else:
        with pytest.raises(ZipError, match="a file without a name"):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_told_in_a_sentence(pack, tmp_path, method):
    content = pack(("cats/1.png", picture() * 20), compression=method).read_bytes()
    told = 0
    for at in range(len(content)):
        path = tmp_path / "damaged.zip"
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            unpack(path, tmp_path / str(at) / "out")
        except ZipError as error:
            told += 1
            assert str(error).startswith(("The zip file", "The pictures", "'"))
    assert told > len(content) / 2  # every second of these bytes at least is of use


def test_what_finds_no_room_is_refused_before_anything_is_written(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30 + 10))
    with pytest.raises(ZipError, match="there is room for 10: free some"):
        unpack(pack(("1.png", picture())), tmp_path / "out")
    assert not (tmp_path / "out").exists()
