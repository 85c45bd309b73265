"""The open collections, which come and go while they are searched."""

import sqlite3
import threading
import zipfile
from types import SimpleNamespace

import pytest

from features.collection.store import StoreError
from gradio_app.library import Library, LibraryError, open_collections
from search.errors import EngineError


def engine(name):
    return SimpleNamespace(name=name)


def test_it_is_a_mapping_in_order():
    one, two = engine("one"), engine("two")
    library = Library([one, two])
    assert dict(library) == {"one": one, "two": two}
    assert library.first() is one
    assert library.get("three") is None
    assert Library().first() is None


def test_same_names_are_refused():
    with pytest.raises(ValueError, match="different names, got a, b, a"):
        Library([engine("a"), engine("b"), engine("a")])


def test_changes_count_and_replace():
    library = Library([engine("one")])
    versions = [library.version]
    newer = engine("one")
    library.put(newer)
    versions.append(library.version)
    assert library["one"] is newer
    library.drop("one")
    versions.append(library.version)
    assert not library
    assert versions == sorted(set(versions))


def test_a_reader_meets_no_half_change():
    """Names come and go in another thread while this one goes through them: iterating a plain dict would break."""
    library = Library([engine("stays")])
    done = threading.Event()

    def change():
        for i in range(2000):
            library.put(engine(f"{i % 7}"))
            library.drop(f"{(i + 3) % 7}")
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    while not done.is_set():
        assert "stays" in {name: one.name for name, one in library.items()}
    thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Collections by name, and what happens to who opens each."""

    def collections(**opened):
        for name in opened:
            (tmp_path / name).mkdir()
            (tmp_path / name / "manifest.json").write_text("{}")

        def open_one(place):
            found = opened[place.name]
            if isinstance(found, BaseException):
                raise found
            return SimpleNamespace(name=found, folder=place)

        monkeypatch.setattr("gradio_app.library.SearchEngine.open", open_one)
        return tmp_path

    return collections


@pytest.mark.parametrize(
    "error",
    [
        StoreError("it is damaged"),
        EngineError("no index"),
        KeyError("sha256"),
        TypeError("unhashable"),
        ValueError("bad"),
        RecursionError("too deep"),
        MemoryError(),
        sqlite3.DatabaseError("file is not a database"),
        zipfile.BadZipFile("no zip"),
        OSError(5, "Input/output error"),
        AssertionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_bad_collection_never_hides_the_others(folder, caplog, error):
    place = folder(bad=error, good="good", other="other")
    assert list(open_collections(None, place)) == ["good", "other"]
    assert f"collection 'bad' cannot be opened: {str(error) or type(error).__name__}" in caplog.text
    with pytest.raises(LibraryError, match=r"^collection 'bad' cannot be opened"):
        open_collections(["good", "bad"], place)


def test_a_link_to_another_collection_is_left_out(folder, caplog):
    place = folder(small="small", tiny="small")
    assert list(open_collections(None, place)) == ["small"]
    assert "collection 'tiny' cannot be opened: it is called small, as is the one in" in caplog.text


def test_no_collection_left_is_told(folder):
    with pytest.raises(LibraryError, match=r"^collection 'bad' cannot be opened: 'x'$"):
        open_collections(None, folder(bad=KeyError("x")))


def test_who_stops_the_program_is_obeyed(folder):
    with pytest.raises(KeyboardInterrupt):
        open_collections(None, folder(bad=KeyboardInterrupt()))
