"""The doctor finds what is wrong with a collection, makes again what can be made again, and touches nothing else."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images

from features.collection import edits
from features.collection.annotations_schema import MIGRATIONS
from features.collection.lock import writing
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.encoding import extract
from features.store import FeatureStore
from search.build import create_index, create_spaces, sync_collection
from search.doctor import examine, main
from search.engine import SearchEngine

IMAGES = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection with both indexes, the space of neighbours, and something said."""
    base = tmp_path_factory.mktemp("doctor")
    make_images(base / "images", IMAGES)
    store = extract(ImageFolder(base / "images"), FakeEncoder(), base / "collections/c", progress=False)
    create_index(store, factory="IVF4,PQ3x4")
    create_spaces(store, ["visual", "neighbourhood"])
    edits.add_caption(store.annotations, [7], "a red boat")
    edits.add_tag(store.annotations, [8], "sea")
    store.annotations.close()
    return base


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())
    manifest = tmp_path / "made/collections/c/manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made / "images"), str(tmp_path / "made/images")))
    return manifest.parent


def parts(findings):
    return [finding.part for finding in findings]


def answers(folder):
    """What a search of each engine gives for a picture."""
    engine = SearchEngine.open(folder)
    query = next((folder.parent.parent / "images").rglob("005.png"))
    found = {name: engine.search(query, k=5, engine=name, neighbourhood=0).hits for name in ("ivfpq", "faiss", "exact")}
    return {name: [(hit.path.name, round(hit.similarity, 5)) for hit in hits] for name, hits in found.items()}


def said(folder):
    annotations = FeatureStore.open(folder).annotations
    return annotations.search("boat")[0].tolist(), list(annotations.tagged("sea"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}


def spoil(path: Path) -> None:
    """One bit in the middle of a file is another one now."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_collection_is_left_as_it_is(folder):
    before = contents(folder)
    assert examine(folder, repair=True) == []
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("ivfpq.index", "index ivfpq"),
        ("faiss.index", "index faiss"),
        ("neighbourhood.npy", "space neighbourhood"),
        ("features.npy", "vectors and catalog"),
        ("catalog.sqlite", "vectors and catalog"),
    ],
)
@pytest.mark.parametrize("harm", [spoil, Path.unlink, lambda path: path.write_bytes(b"")])
def test_what_is_derived_is_made_again(folder, file, part, harm):
    before = answers(folder), said(folder)
    harm(folder / file)
    assert parts(examine(folder))[0] == part
    assert not any(finding.mended for finding in examine(folder))
    findings = examine(folder, repair=True)
    assert parts(findings)[0] == part
    assert all(finding.mended for finding in findings)
    assert examine(folder) == []
    assert (answers(folder), said(folder)) == before
    assert not list(folder.parent.glob(".c.again*"))


def test_vectors_of_a_collection_that_was_synced_are_made_again(folder):
    images = folder.parent.parent / "images"
    gone = next(images.rglob("003.png"))
    gone.unlink()
    shutil.copy(next(images.rglob("004.png")), images / "label 1/new.png")
    sync_collection(folder, progress=False)
    before = [names_of(folder, ids) for ids in said(folder)], answers(folder)["exact"]
    spoil(folder / "features.1.npy")
    assert all(finding.mended for finding in examine(folder, repair=True))
    assert examine(folder) == []
    assert answers(folder)["exact"] == before[1]
    assert [names_of(folder, ids) for ids in said(folder)] == before[0]  # ids may be others now


def names_of(folder, ids):
    items = FeatureStore.open(folder).items
    return [item.path.name for item in items if item.id in ids and item.error is None]


def test_vectors_stay_as_they_are_where_the_pictures_are_gone(folder):
    spoil(folder / "features.npy")
    shutil.rmtree(folder.parent.parent / "images")
    before = contents(folder)
    (finding,) = examine(folder, repair=True)
    assert not finding.mended
    assert "could not be made again" in finding.advice
    assert contents(folder) == before


def test_a_stopped_repair_leaves_the_collection_and_goes_on(folder, monkeypatch):
    spoil(folder / "features.npy")
    before = (folder / "manifest.json").read_bytes()
    asked = []

    class Stopping(FakeEncoder):
        def encode_prepared(self, prepared):
            asked.append(len(prepared))
            if len(asked) == 4:
                raise KeyboardInterrupt
            return super().encode_prepared(prepared)

    register_encoder("fake", lambda name, **options: Stopping())
    with pytest.raises(KeyboardInterrupt):
        examine(folder, repair=True)
    assert (folder / "manifest.json").read_bytes() == before
    second = FakeEncoder()
    register_encoder("fake", lambda name, **options: second)
    assert all(finding.mended for finding in examine(folder, repair=True))
    assert second.encoded == IMAGES - sum(asked[:3])
    assert examine(folder) == []


class TestWords:
    def change(self, folder, statement):
        with closing(sqlite3.connect(folder / "annotations.sqlite")) as connection, connection:
            connection.execute(statement)

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM words",
            "UPDATE words SET captions = 'a green tree'",
            "INSERT INTO words (rowid, captions) VALUES (999, 'a ghost')",
            "DELETE FROM voices",
            "INSERT INTO voices VALUES ('model', 'liar', 1)",
            "DELETE FROM words_data WHERE id > 10",
        ],
    )
    def test_their_index_is_made_again(self, folder, statement):
        before = said(folder), FeatureStore.open(folder).annotations.makers()
        assert before[0] == ([7], [8])
        self.change(folder, statement)
        assert parts(examine(folder)) == ["words in annotations.sqlite"]
        (finding,) = examine(folder, repair=True)
        assert finding.mended
        assert examine(folder) == []
        assert (said(folder), FeatureStore.open(folder).annotations.makers()) == before

    def test_a_file_of_an_earlier_version_is_whole(self, folder):
        for path in folder.glob("annotations.sqlite*"):
            path.unlink()
        with closing(sqlite3.connect(folder / "annotations.sqlite")) as connection:
            connection.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
            path, sha256 = FeatureStore.open(folder).items[7].path, FeatureStore.open(folder).hash_of(7)
            relative = path.relative_to(folder.parent.parent / "images").as_posix()
            connection.execute("INSERT INTO about VALUES ('id', ?)", (json.dumps("0" * 32),))
            connection.execute("INSERT INTO pictures VALUES (1, 7, ?, ?)", (relative, sha256))
            connection.execute("INSERT INTO captions VALUES (1, 'person', '', 'a red boat')")
            connection.commit()
        assert examine(folder) == []
        assert said(folder) == ([7], [])

    def test_a_damaged_file_is_named_and_not_touched(self, folder):
        path = folder / "annotations.sqlite"
        FeatureStore.open(folder).annotations.close()
        content = bytearray(path.read_bytes())
        content[4096:8192] = bytes(4096)
        path.write_bytes(content)
        findings = examine(folder, repair=True)
        assert parts(findings) == ["annotations.sqlite"]
        assert not findings[0].mended
        assert "copy it" in findings[0].advice
        assert path.read_bytes() == content

    def test_a_picture_that_is_not_there_keeps_what_was_said(self, folder):
        FeatureStore.open(folder).annotations.close()
        self.change(folder, "UPDATE pictures SET image_id = 5000 WHERE image_id = 7")
        (finding,) = examine(folder, repair=True)
        assert (finding.part, finding.mended) == ("annotations.sqlite", True)
        assert said(folder) == ([7], [8])


def test_what_a_stopped_writer_left_is_deleted_and_nothing_else(folder):
    (folder / ".announced").write_text("ivfpq.1.index\nmanifest.json\nivfpq.index\n")
    (folder / "ivfpq.1.index").write_bytes(b"half")
    (folder / "holiday.txt").write_text("mine")
    (finding,) = examine(folder, repair=True)
    assert (finding.part, finding.mended) == ("ivfpq.1.index", True)
    assert not (folder / "ivfpq.1.index").exists()
    assert (folder / "holiday.txt").read_text() == "mine"
    assert examine(folder) == []


def test_pictures_that_have_changed_are_counted(folder):
    images = folder.parent.parent / "images"
    next(images.rglob("001.png")).unlink()
    next(images.rglob("002.png")).write_bytes(b"other")
    (finding,) = examine(folder, repair=True)
    assert "1 cannot be found and 1 have changed" in finding.fault
    assert "--sync" in finding.advice
    assert not finding.mended


def test_nobody_is_in_the_way_of_a_writer(folder):
    script = (
        "import sys\nfrom features.collection.lock import writing\n"
        f"with writing({str(folder)!r}):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert main([str(folder)]) == 2
    finally:
        holder.communicate()
    assert main([str(folder)]) == 0
    with writing(folder):
        pass


def test_the_command(folder, capsys):
    assert main([folder.name, "--collections", str(folder.parent)]) == 0
    assert capsys.readouterr().out == f"{folder}: everything is as it should be\n"
    spoil(folder / "ivfpq.index")
    assert main([str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [finding["part"] for finding in told["findings"]] == ["index ivfpq"]
    assert main([str(folder), "--repair"]) == 0
    assert "(made again)" in capsys.readouterr().out
    assert main([str(folder)]) == 0


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"format": 9}'])
def test_without_a_manifest_there_is_nothing_to_mend(folder, content, capsys):
    path = folder / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert main([str(folder), "--repair"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("manifest.json: ")
    assert ("all but annotations.sqlite" in told) == (content is not None)
    assert said_before(folder)


def said_before(folder):
    with closing(sqlite3.connect(folder / "annotations.sqlite")) as connection:
        return connection.execute("SELECT text FROM captions").fetchall() == [("a red boat",)]


def test_an_index_of_other_pictures_is_found(folder):
    store = FeatureStore.open(folder)
    entry = store.manifest["indexes"]["ivfpq"]
    from features.checksum import sha256_of
    from ivfpq import load, save

    index = load(folder / entry["file"])
    index.remove_ids(np.array([5]))
    save(index, folder / entry["file"])
    store.update_manifest(indexes={"ivfpq": {**entry, "sha256": sha256_of(folder / entry["file"])}})
    (finding,) = examine(folder, repair=True)
    assert finding.mended
    assert f"holds {IMAGES - 1} vectors" in finding.fault
    assert examine(folder) == []
