"""The open collections, which come and go while they are searched."""

import threading
from types import SimpleNamespace

import pytest

from gradio_app.library import Library


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
