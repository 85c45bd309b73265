"""Files that are set aside go to a trash folder when a person says so, and come back; no other file is moved."""

import io
import json
import os
import threading

import pytest
from meanings import ColourEncoder
from rest_collection import colours

from features.collection import duplicates as decisions
from features.collection.errors import StoreError
from features.collection.lock import writing
from features.collection.trash import FOLDER, LOG, Moved, move_to_trash, put_back, trashed
from features.store import FeatureStore
from search import duplicates
from search.build import sync_collection


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Twelve pictures; the first red one is there three times, and two of them are set aside for the third."""
    made = colours(tmp_path, monkeypatch)
    first, *others = sorted((tmp_path / "images" / "a").iterdir())
    (tmp_path / "images" / "b" / "deeper").mkdir()
    for copy in (others[0], tmp_path / "images" / "b" / "deeper" / "00.png"):
        copy.write_bytes(first.read_bytes())
    sync_collection(made.folder, encoder=ColourEncoder(), progress=False)
    store = FeatureStore.open(made.folder)
    (group,) = store.catalog.copies()
    decisions.keep(store.annotations, group[0], group[1:])
    return store


def root_of(store):
    return next(path for path in store.items[0].path.parents if path.name == "images")


def files(store, inside=""):
    folder = root_of(store) / inside
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def aside(store):
    return [record.path.as_posix() for record in store.records(list(decisions.set_aside(store.annotations)))]


def reasons(moved):
    return {path.as_posix(): reason for path, reason in moved.left}


def test_they_go_with_their_paths_and_come_back(store):
    before, gone = files(store), aside(store)
    assert gone == ["a/01.png", "b/deeper/00.png"]
    moved = move_to_trash(store, 2)
    assert [path.as_posix() for path in moved.paths] == gone and moved.left == ()
    assert files(store, FOLDER) == [*gone, LOG]
    log = [json.loads(line) for line in (root_of(store) / FOLDER / LOG).read_text().splitlines()]
    assert [entry["path"] for entry in log] == gone
    assert {entry["sha256"] for entry in log} == {entry["kept_sha256"] for entry in log} == {store.hash_of(0)}
    report, _ = sync_collection(store.folder, encoder=ColourEncoder(), progress=False)
    assert [path.as_posix() for path in report.removed] == gone and report.added == (), "the trash is no part of it"
    store = FeatureStore.open(store.folder)
    assert decisions.set_aside(store.annotations) == {}
    assert [path.as_posix() for path in trashed(store)] == gone
    back = put_back(store)
    assert sorted(path.as_posix() for path in back.paths) == gone and files(store) == before
    assert not (root_of(store) / FOLDER).exists()
    sync_collection(store.folder, encoder=ColourEncoder(), progress=False)
    store = FeatureStore.open(store.folder)
    assert aside(store) == gone, "what was decided is remembered"
    assert put_back(store) == Moved((), ())


def test_what_could_not_be_moved_is_counted_once_when_it_is(store, monkeypatch):
    monkeypatch.setattr("features.collection.trash._rename", lambda *_: "the disk is read only")
    assert move_to_trash(store, 2).paths == () and trashed(store) == []
    monkeypatch.undo()
    assert len(move_to_trash(store, 2).paths) == len(trashed(store)) == 2
    log = (root_of(store) / FOLDER / LOG).read_text().splitlines()
    assert len(log) == 2


def test_nothing_moves_but_what_was_confirmed(store):
    before = files(store)
    for expected in (0, 1, 3):
        with pytest.raises(StoreError, match=f"2 pictures are set aside by now, and not {expected}"):
            move_to_trash(store, expected)
    assert files(store) == before


def test_what_changed_is_a_link_or_has_lost_its_kept_one_stays(store, tmp_path):
    root = root_of(store)
    (root / "a" / "01.png").write_bytes(b"edited")
    (root / "b" / "deeper").rename(tmp_path / "elsewhere")
    (root / "b" / "deeper").symlink_to(tmp_path / "elsewhere")
    before = files(store)
    assert reasons(move_to_trash(store, 2)) == {
        "a/01.png": "the file has changed: sync the collection first",
        "b/deeper/00.png": "it is a link, or reached by one",
    }
    assert files(store) == before


@pytest.mark.parametrize("kept", ["gone", "edited"])
def test_the_last_file_of_a_picture_is_never_moved(store, kept):
    path = store.items[0].path
    path.write_bytes(b"other") if kept == "edited" else path.unlink()
    moved = move_to_trash(store, 2)
    assert moved.paths == ()
    assert len(reasons(moved)) == 2 and files(store, "b/deeper") == ["00.png"]


def test_who_was_kept_and_set_aside_later_speaks_for_who_is_kept_now(store):
    blue = next(item.id for item in store.items if item.labels == ("c",))
    decisions.keep(store.annotations, blue, [0])
    assert len(move_to_trash(store, 3).paths) == 3
    store.items[blue].path.unlink()
    put_back(store)
    assert move_to_trash(store, 3).paths == ()


def test_a_place_that_is_taken_is_left_alone(store):
    root = root_of(store)
    move_to_trash(store, 2)
    (root / "a" / "01.png").write_bytes(b"new")
    back = put_back(store)
    assert reasons(back) == {"a/01.png": "its place is taken by now"}
    assert (root / "a" / "01.png").read_bytes() == b"new" and files(store, FOLDER) == ["a/01.png", LOG]
    (root / "a" / "01.png").unlink()
    assert [path.as_posix() for path in put_back(store).paths] == ["a/01.png"]


def test_names_that_are_not_utf_8_come_back(store):
    root, name = root_of(store), os.fsdecode(b"sm\xf6rg.png")
    try:
        (root / "a" / "01.png").rename(root / "a" / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    sync_collection(store.folder, encoder=ColourEncoder(), progress=False)
    store = FeatureStore.open(store.folder)
    assert len(move_to_trash(store, 2).paths) == 2
    assert len(put_back(store).paths) == 2 and (root / "a" / name).is_file()


@pytest.mark.parametrize("line", ["{", "[]", '{"path": "a", "trashed": "../x"}', '{"path": "/etc/x", "trashed": "a"}'])
def test_a_log_that_says_what_it_cannot_moves_nothing(store, line):
    move_to_trash(store, 2)
    log = root_of(store) / FOLDER / LOG
    log.write_text(f"{log.read_text()}{line}\n")
    before = files(store)
    with pytest.raises(StoreError, match="line 3"):
        put_back(store)
    assert files(store) == before


def test_other_writers_and_other_collections_are_respected(store):
    store.manifest["source"]["kind"] = "caltech"
    with pytest.raises(StoreError, match="is not a folder of your own"):
        move_to_trash(store, 2)
    store.manifest["source"]["kind"] = "folder"
    held, done = threading.Event(), threading.Event()

    def hold():
        with writing(store.folder):
            held.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    try:
        with pytest.raises(StoreError, match="being changed by another thread"):
            move_to_trash(store, 2)
    finally:
        done.set()
        other.join()
    assert len(aside(store)) == 2 and not (root_of(store) / FOLDER).exists()


class TestCommand:
    def run(self, store, monkeypatch, *options, answer=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        return duplicates.main([str(store.folder), *options])

    @pytest.mark.parametrize("answer", ["", "no\n", "y\n"])
    def test_without_a_yes_nothing_moves(self, store, monkeypatch, capsys, answer):
        before = files(store)
        assert self.run(store, monkeypatch, "--trash", answer=answer) == 1
        assert "Move these 2 files to" in (told := capsys.readouterr().out) and "nothing was moved" in told
        assert files(store) == before

    def test_it_asks_and_moves_and_brings_back(self, store, monkeypatch, capsys):
        before = files(store)
        assert self.run(store, monkeypatch, "--trash", answer="yes\n") == 0
        told = capsys.readouterr().out
        assert "  a/01.png\n" in told and "2 files are in" in told and "create_index.py --sync" in told
        assert self.run(store, monkeypatch, "--put-back") == 0
        assert "2 files are back where they were" in capsys.readouterr().out
        assert files(store) == before
