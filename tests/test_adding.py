"""Pictures go into a collection's own folder as a whole, or come out of it again, wherever it was stopped."""

import json
from pathlib import PurePosixPath

import pytest

from features.collection.store import StoreError
from gradio_app import adding
from gradio_app.adding import put_in, take_back

PATHS = [PurePosixPath(path) for path in ("a/new.jpg", "a/other.jpg", "b/same.jpg")]


@pytest.fixture
def folder(tmp_path):
    """As much of a collection as is asked for: two pictures in its own folder, of which one is about to be replaced."""
    folder = tmp_path / "c"
    for name, content in (("a/other.jpg", "old"), ("b/same.jpg", "same")):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_text(content)
    return folder


@pytest.fixture
def generation(folder, monkeypatch):
    manifest = {"root": str(folder / "images"), "generation": 3}
    monkeypatch.setattr(adding, "read_manifest", lambda place: manifest)
    return manifest


@pytest.fixture
def sent(tmp_path):
    for name, content in (("a/new.jpg", "new"), ("a/other.jpg", "newer"), ("b/same.jpg", "same")):
        (tmp_path / "sent" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sent" / name).write_text(content)
    return tmp_path / "sent"


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_new_files_go_in_others_are_replaced_and_the_same_stay(folder, generation, sent, tmp_path):
    seen = []
    same = put_in(sent, PATHS, folder, tmp_path / "place", progress=lambda done, total: seen.append((done, total)))
    assert same == [PurePosixPath("b/same.jpg")]
    assert files(folder / "images") == {"a/new.jpg": "new", "a/other.jpg": "newer", "b/same.jpg": "same"}
    assert files(sent) == {"b/same.jpg": "same"}
    assert seen == [(1, 3), (2, 3)]
    take_back(tmp_path / "place")
    assert files(folder / "images") == {"a/other.jpg": "old", "b/same.jpg": "same"}
    assert files(sent) == {"a/new.jpg": "new", "a/other.jpg": "newer", "b/same.jpg": "same"}


def test_what_a_sync_has_taken_in_stays(folder, generation, sent, tmp_path):
    put_in(sent, PATHS, folder, tmp_path / "place")
    before = files(folder / "images")
    generation["generation"] = 4
    take_back(tmp_path / "place")
    assert files(folder / "images") == before


@pytest.mark.parametrize("stop", range(12))
def test_stopped_before_any_step_it_is_as_before_or_done(folder, generation, sent, tmp_path, monkeypatch, stop):
    """Each write of the journal and each move is a step; before the next one the process is gone."""
    before, there = files(folder / "images"), files(sent)
    steps = iter(range(stop))

    def step(real):
        def stopped(*args, **kwargs):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return stopped

    with monkeypatch.context() as patch:
        for name in ("replace", "mkdir"):
            patch.setattr(f"pathlib.Path.{name}", step(getattr(adding.Path, name)))
        patch.setattr(adding.os, "fsync", step(adding.os.fsync))
        try:
            put_in(sent, PATHS, folder, tmp_path / "place")
        except KeyboardInterrupt:
            pass
        else:
            assert stop >= 10
    take_back(tmp_path / "place")
    assert (files(folder / "images"), files(sent)) == (before, there)


def test_a_line_that_was_being_written_had_not_begun(folder, generation, sent, tmp_path):
    put_in(sent, PATHS[:1], folder, tmp_path / "place")
    journal = tmp_path / "place" / "adding.jsonl"
    journal.write_text(journal.read_text() + '"a/oth')
    take_back(tmp_path / "place")
    assert files(folder / "images") == {"a/other.jpg": "old", "b/same.jpg": "same"}
    journal.write_text(json.dumps([str(sent)])[:5])
    take_back(tmp_path / "place")
    take_back(tmp_path / "nowhere")


def test_nothing_leads_out_of_the_folder(folder, generation, sent, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "images" / "link").symlink_to(tmp_path / "elsewhere")
    (sent / "link").mkdir()
    (sent / "link" / "1.jpg").write_text("x")
    with pytest.raises(StoreError, match=r"link/1\.jpg leads out of the folder"):
        put_in(sent, [PurePosixPath("link/1.jpg")], folder, tmp_path / "place")
    assert list((tmp_path / "elsewhere").iterdir()) == []
