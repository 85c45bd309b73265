"""The command that lets makers speak: batched, resumable, and honest about what it could not read."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_extract import FakeEncoder, make_images

from features.collection import edits
from features.collection.said import Maker, Words
from features.datasets import ImageFolder
from features.encoding import extract
from features.makers import MakerOptions, WordMaker, base, create_maker, register_maker
from features.store import FeatureStore
from search.annotate import annotate, main


@pytest.fixture
def store(tmp_path):
    make_images(tmp_path / "images", 6)
    return extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "collections/c", progress=False)


def run(store, *arguments):
    return main([store.folder.name, "--collections", str(store.folder.parent), "--quiet", *arguments])


def test_the_command_says_what_was_done(store, tmp_path, capsys):
    table = tmp_path / "captions.csv"
    table.write_text("file,caption,tags,rating\n000.png,a red boat,sea,4\nmissing.png,x,,5\n")
    assert run(store, "--maker", "label", "--file", str(table)) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "labels: words of 6 of 6 pictures: 6 captions, 6 tags, 0 fields",
        "captions.csv: words of 1 of 6 pictures: 1 captions, 1 tags, 1 fields",
    ]
    assert "1 row names no picture of c, or more than one; the first: line 3: 'missing.png'" in told.err
    assert run(store, "--maker", "label") == 0
    assert capsys.readouterr().out == "labels: nothing new\n"
    assert run(store) == 0
    assert capsys.readouterr().out == "captions.csv: words of 1 pictures\nlabels: words of 6 pictures\n"
    assert run(store, "--maker", "label", "--forget") == 0
    assert capsys.readouterr().out == "labels: words of 6 pictures taken back\n"
    assert store.annotations.tag_counts() == {"sea": 1}


def test_a_table_that_has_lost_a_row_takes_its_words_back(store, tmp_path):
    table = tmp_path / "captions.csv"
    for content in ("file,tags\n000.png,sea\n001.png,boat\n", "file,tags\n001.png,ship\n"):
        table.write_text(content)
        annotate(store, create_maker("file", store, MakerOptions(table)), progress=False)
    assert store.annotations.tag_counts() == {"ship": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--maker", "blimp"], "unknown maker 'blimp'"),
        (["--file", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--collections", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(store, capsys, arguments, said):
    assert run(store, *arguments) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.startswith("error: ")
    assert told.out == ""


class Stopped(WordMaker):
    """Stops in its third batch."""

    maker, version, batch_size = Maker("model", "stopped"), "1", 2
    left = 2

    def words_of(self, records):
        if not self.left:
            raise KeyboardInterrupt
        type(self).left -= 1
        return [Words({}, {f"tag {record.id}": 0.5}) for record in records]


def test_a_run_that_is_stopped_goes_on_where_it_was(store, monkeypatch):
    monkeypatch.setattr(base, "_CLASSES", dict(base._CLASSES))
    monkeypatch.setattr(Stopped, "left", 2)
    register_maker("stopped", Stopped)
    assert run(store, "--maker", "stopped") == 130
    assert store.annotations.tag_counts() == {f"tag {id}": 1 for id in range(4)}
    edits.remove_tag(store.annotations, [0], "tag 0")
    monkeypatch.setattr(Stopped, "left", 9)
    report = annotate(store, create_maker("stopped", store), progress=False)
    assert (report.looked_at, report.with_words) == (2, 2)
    assert store.annotations.tag_counts() == {f"tag {id}": 1 for id in range(1, 6)}


def test_what_was_reported_done_is_there_after_kill_9(store):
    """The maker kills its own process in the third batch: the two before it were put."""
    program = """
import os, signal, sys
from features.collection.said import Maker, Words
from features.makers import WordMaker, register_maker
from search.annotate import main

class Killed(WordMaker):
    maker, version, batch_size = Maker("model", "killed"), "1", 2
    left = 2

    def words_of(self, records):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return [Words({}, {f"tag {record.id}": 0.5}) for record in records]

register_maker("killed", Killed)
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", program, str(store.folder), "--maker", "killed", "--quiet"]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode == -9
    there = FeatureStore.open(store.folder).annotations
    assert there.tag_counts() == {f"tag {id}": 1 for id in range(4)}
    assert [record.id for record in there.todo(Maker("model", "killed"), "1", store.records())] == [4, 5]
