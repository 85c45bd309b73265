"""A collection grows at the cost of what is new: nothing else is read or copied, and readers see whole states."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from test_extract import FakeEncoder, make_images
from test_sync import assert_as_fresh, by_path, paint

from benchmarks.appending import measure
from features.collection import vector_file
from features.collection.append import AppendReport, append
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import sync
from features.collection.vector_file import cut_surplus, surplus
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.extract import extract
from search.build import append_collection, create_index, create_spaces, sync_collection
from search.doctor import examine
from search.engine import SearchEngine
from search.space import More, SpaceKind
from search.spaces import _KINDS


@pytest.fixture
def root(tmp_path) -> Path:
    make_images(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def folder(root, tmp_path) -> Path:
    extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    return tmp_path / "c"


def add(root: Path, folder: Path, **options) -> tuple[AppendReport, FakeEncoder]:
    encoder = FakeEncoder()
    report = append(ImageFolder(root), encoder, folder, progress=options.pop("progress", False), **options)
    return report, encoder


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def new_pictures(root: Path, count: int, name: str = "new") -> list[Path]:
    paths = [root / "label 1" / f"{name} {number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        paint(path, crc32(name.encode()) + number)
    return paths


def test_only_what_is_new_is_looked_at_and_written(root, folder, monkeypatch):
    before, content = FeatureStore.open(folder), (folder / "features.npy").read_bytes()
    place = (folder / "features.npy").stat().st_ino
    new_pictures(root, 3)
    (root / "broken.jpg").write_bytes(b"no picture")
    paint(root / "label 0/000.png", 100)  # edited, and one is gone: not seen
    (root / "label 2/002.png").unlink()
    looked_at = []
    stat_of = vars(sys.modules["features.collection.generation"])["stat_of"]
    monkeypatch.setattr("features.collection.generation.stat_of", lambda path: looked_at.append(path) or stat_of(path))
    report, encoder = add(root, folder, batch_size=2)

    assert sorted(path.name for path in report.added) == ["broken.jpg", "new 0.png", "new 1.png", "new 2.png"]
    assert [path.name for path, _ in report.damaged] == ["broken.jpg"]
    assert str(report).splitlines()[0] == "4 added, 1 of them damaged, to 23"
    assert encoder.encoded == 3
    assert {path.name for path in looked_at} == {path.name for path in report.added}
    grown = folder / "features.npy"
    assert grown.stat().st_ino == place
    assert grown.read_bytes()[: len(content)] == content
    assert grown.stat().st_size == len(content) + 4 * 12 * 2

    store = FeatureStore.open(folder)
    store.verify()
    assert store.generation == 1
    assert store.manifest["features"] == {**before.manifest["features"], "grown": store.manifest["features"]["grown"]}
    assert [part["rows"] for part in store.manifest["features"]["grown"]] == [4]
    assert len(store.items) == len(store.features) == 27
    assert [item.labels for item in store.items if item.path.name == "new 0.png"] == [("label 1",)]
    changed, gone = store.changes_since(0)
    assert (changed.size, gone.size) == (3, 1)
    assert min(*changed, *gone) == 23


def test_what_was_added_is_what_a_new_collection_has(root, folder):
    for name in ("first", "second", "third"):
        new_pictures(root, 2, name)
        add(root, folder)
    store = assert_as_fresh(folder, root)
    assert (store.generation, [part["rows"] for part in store.manifest["features"]["grown"]]) == (3, [2, 2, 2])
    assert isinstance(store.features, np.memmap)


def test_nothing_new_writes_nothing(root, folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    report, encoder = add(root, folder)
    assert (report.added, report.before, encoder.encoded) == ((), 23, 0)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_who_has_it_open_keeps_each_state(root, folder):
    states = []
    for number in range(4):
        store = FeatureStore.open(folder)
        states.append((store, np.array(store.features), by_path(store), store.labels()))
        new_pictures(root, 2, f"round {number}")
        add(root, folder)
    for number, (store, rows, described, labels) in enumerate(states):
        np.testing.assert_array_equal(store.features, rows)
        assert len(store.items) == len(rows) == 23 + 2 * number
        assert (by_path(store), store.labels()) == (described, labels)


def test_a_sync_after_it_sees_what_it_did_not_and_writes_all_as_one(root, folder):
    new_pictures(root, 2)
    paint(root / "label 0/000.png", 100)
    add(root, folder)
    report = sync(ImageFolder(root), FakeEncoder(), folder, progress=False)
    assert ([path.name for path in report.edited], report.added) == (["000.png"], ())
    store = assert_as_fresh(folder, root)
    assert store.manifest["features"].keys() == {"file", "sha256"}
    assert store.manifest["features"]["file"] == "features.2.npy"


def test_a_sync_that_only_adds_grows_too(root, folder):
    place = (folder / "features.npy").stat().st_ino
    new_pictures(root, 2)
    sync(ImageFolder(root), FakeEncoder(), folder, progress=False)
    assert assert_as_fresh(folder, root).manifest["features"]["file"] == "features.npy"
    assert (folder / "features.npy").stat().st_ino == place


def test_after_many_parts_it_is_written_as_one(root, folder, monkeypatch):
    monkeypatch.setattr(vector_file, "MAX_PARTS", 2)
    for number in range(4):
        new_pictures(root, 1, f"round {number}")
        add(root, folder)
    entry = assert_as_fresh(folder, root).manifest["features"]
    assert (entry["file"], [part["rows"] for part in entry["grown"]]) == ("features.3.npy", [1])


def test_a_limit_and_another_folder(root, folder, tmp_path):
    new_pictures(root, 4)
    first = [item.path for item in ImageFolder(root).items[:12]]
    report, _ = add(root, folder, limit=12)
    assert {root / path for path in report.added} == {path for path in first if path.name.startswith("new")}
    paint(tmp_path / "other/a.png", 3)
    with pytest.raises(StoreError, match=r"is the collection of .*images, and only what lies there can be added"):
        add(tmp_path / "other", folder)
    with pytest.raises(StoreError, match=r"fake .* not of fake"):
        append(ImageFolder(root), FakeEncoder(2), folder, progress=False)
    with pytest.raises(StoreError, match="not a collection"):
        add(root, folder / "nothing")


def test_stopped_while_encoding_it_goes_on(root, folder):
    new_pictures(root, 6)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add(root, folder, progress=stop, batch_size=2)
    assert FeatureStore.open(folder).generation == 0
    assert add(root, folder)[1].encoded == 2
    assert_as_fresh(folder, root)


def test_a_failure_leaves_no_surplus(root, folder):
    """What `with_store` raises, as on a full disk, comes after the vectors were written."""
    size = (folder / "features.npy").stat().st_size
    new_pictures(root, 2)

    def fail(store: FeatureStore):
        assert (folder / "features.npy").stat().st_size == size + 2 * 24
        assert len(store.features) == 25
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        add(root, folder, with_store=fail)
    assert (folder / "features.npy").stat().st_size == size
    FeatureStore.open(folder).verify()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1], "cannot be read"),
        (lambda content: flipped(content, len(content) - 3), r"features.npy is damaged: its SHA"),
        (lambda content: flipped(content, 140), r"features.npy is damaged: its SHA"),
        (lambda content: content.replace(b"(23, 12)", b"(13, 12)"), r"holds float16 .*, but"),
    ],
)
def test_damage_in_any_part_is_found(root, folder, spoil, message):
    new_pictures(root, 2)
    add(root, folder)
    path = folder / "features.npy"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StoreError, match=message):
        FeatureStore.open(folder).verify()


@pytest.mark.parametrize("grown", [[{"rows": 0, "sha256": "0" * 64}], [{"rows": 2}], [{"rows": 2, "sha256": "x"}], {}])
def test_a_manifest_that_makes_no_sense_of_it_is_refused(root, folder, grown):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["features"]["grown"] = grown
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"features\.grown"):
        FeatureStore.open(folder)


KILLED = """
import os, shutil, sys
from pathlib import Path
from killing import kill_before
from test_extract import FakeEncoder
from features.collection.append import append
from features.datasets import ImageFolder

root, folder, copies = map(Path, sys.argv[1:])
for step in range(1, 100):
    copy = shutil.copytree(folder, copies / str(step) / "c")
    child = os.fork()
    if child == 0:
        kill_before(step, copy)
        append(ImageFolder(root), FakeEncoder(), copy, progress=False)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(ended)
    if ended != -9:
        sys.exit(ended)
"""


@pytest.mark.slow
def test_killed_at_any_step_it_is_the_old_one_or_the_new_one(tmp_path):
    """kill -9 before each file operation in turn; then an ordinary append finishes the work."""
    root, folder = tmp_path / "images", tmp_path / "c"
    make_images(root, 5)
    extract(ImageFolder(root), FakeEncoder(), folder, progress=False)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    new_pictures(root, 1, "earlier")
    add(root, folder)
    old = by_path(FeatureStore.open(folder))
    new_pictures(root, 2)
    add(root, shutil.copytree(folder, tmp_path / "new"))
    new = by_path(FeatureStore.open(tmp_path / "new"))
    copies = tmp_path / "copies"
    done = subprocess.run([sys.executable, script, root, folder, copies], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, ended = map(int, done.stdout.split())
    assert (set(killed), ended) == ({-9}, 0)
    outcomes, tails = [], 0
    for step in range(1, len(killed) + 1):
        copy = copies / str(step) / "c"
        store = FeatureStore.open(copy)
        store.verify()
        tails += bool(surplus(copy, store.manifest))
        outcomes.append(by_path(store) == new)
        assert outcomes[-1] or by_path(store) == old
        add(root, copy)
        again = assert_as_fresh(copy, root)
        assert surplus(copy, again.manifest) == {}
        np.testing.assert_array_equal(store.features, again.features[: len(store.features)])
    assert len(outcomes) > 6
    assert tails, "a writer was stopped between the vectors and the manifest"
    assert outcomes == sorted(outcomes), "once new, always new"
    assert set(outcomes) == {False, True}


# With what follows from the vectors


class Sums(SpaceKind):
    """The vector and one more: of each picture by itself, and counted."""

    name, accepts = "sums", ()
    made = 0

    def make(self, store):
        rows = np.zeros((len(store.features), 12), np.float16)
        rows[store.ids] = self.of(store, store.ids)
        return rows

    def make_more(self, before, ids, candidates):
        return More(ids, self.of(before.store, ids))

    def of(self, store, ids):
        Sums.made += len(ids)
        return np.asarray(store.features[ids]) + np.float16(1)


@pytest.fixture
def collection(tmp_path, monkeypatch) -> Path:
    """A collection of 150 pictures with both indexes, neighbours, and a space of each picture's own."""
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())
    monkeypatch.setitem(_KINDS, "sums", Sums())
    make_images(tmp_path / "images", 150)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, factory="IVF4,PQ3x4")
    create_spaces(store, ["visual", "neighbourhood", "sums"])
    return tmp_path / "c"


def found(engine: SearchEngine, path: Path) -> dict:
    hits = {name: engine.search(path, k=5, engine=name, neighbourhood=0).hits for name in engine.engines}
    return {name: [(hit.path.name, round(hit.similarity, 5)) for hit in each] for name, each in hits.items()}


def test_a_search_finds_what_was_added_and_an_open_one_does_not(collection, tmp_path):
    root, before = tmp_path / "images", SearchEngine.open(collection)
    (one, two) = new_pictures(root, 2)
    shutil.copyfile(one, root / "label 1/copy.png")
    old = found(before, one)
    Sums.made = 0
    report, updates = append_collection(collection, progress=False)
    assert len(report.added) == 3
    assert [(each.engine, each.taken_out, each.put_in, each.rebuilt) for each in updates] == [
        ("ivfpq", 0, 3, None),
        ("faiss", 0, 3, None),
    ]
    assert Sums.made == 3
    assert found(before, one) == old

    engine = SearchEngine.open(collection)
    for hits in found(engine, one).values():
        assert hits[0] == ("copy.png", pytest.approx(1, abs=1e-3))
    listed = engine.store.manifest["spaces"]
    assert [part["rows"] for part in listed["sums"]["grown"]] == [3]
    assert listed["sums"]["file"] == "sums.npy"
    assert examine(collection) == []
    fresh = tmp_path / "fresh"
    store = extract(ImageFolder(root), FakeEncoder(), fresh, progress=False)
    place = {item.path: item.id for item in store.items}
    order = [place[item.path] for item in engine.store.items]
    np.testing.assert_array_equal(np.load(collection / "sums.npy").shape, (150, 12))
    sums = SearchEngine.open(collection)._spaces["sums"].space.vectors
    np.testing.assert_array_equal(sums, Sums().make(store)[order])
    assert two.name not in [name for name, _ in old["exact"]]


def test_the_doctor_finds_a_surplus_and_takes_it_away(collection):
    whole = (collection / "sums.npy").read_bytes()
    for name in ("features.npy", "sums.npy"):
        with (collection / name).open("ab") as file:
            file.write(b"stopped")
    assert found(SearchEngine.open(collection), next(collection.parent.glob("images/*/*.png")))
    findings = examine(collection)
    assert [(each.part, each.fault) for each in findings] == [
        (name, "7 bytes at its end were left by a writer that was stopped") for name in ("features.npy", "sums.npy")
    ]
    assert all(each.mended for each in examine(collection, repair=True))
    assert examine(collection) == []
    assert (collection / "sums.npy").read_bytes() == whole


def test_the_doctor_finds_damage_in_what_was_added_and_makes_it_again(collection, tmp_path):
    new_pictures(tmp_path / "images", 2)
    append_collection(collection, progress=False)
    content = bytearray((collection / "sums.npy").read_bytes())
    content[-1] ^= 1
    (collection / "sums.npy").write_bytes(content)
    (finding,) = examine(collection)
    assert (finding.part, "is damaged: its SHA-256" in finding.fault) == ("space sums", True)
    assert all(each.mended for each in examine(collection, repair=True))
    assert examine(collection) == []


def test_an_edited_picture_lets_a_space_be_made_again(collection, tmp_path):
    paint(tmp_path / "images/label 0/000.png", 9)
    new_pictures(tmp_path / "images", 1)
    sync_collection(collection, progress=False)
    assert "grown" not in FeatureStore.open(collection).manifest["spaces"]["sums"]
    assert examine(collection) == []


def test_cutting_back_takes_nothing_that_counts(root, folder):
    new_pictures(root, 2)
    add(root, folder)
    path, manifest = folder / "features.npy", FeatureStore.open(folder).manifest
    whole = path.read_bytes()
    cut_surplus(folder, manifest)
    assert path.read_bytes() == whole
    os.truncate(path, len(whole) - 1)
    assert surplus(folder, manifest) == {}  # it cannot be read: opening says so
    cut_surplus(folder, manifest)
    assert path.read_bytes() == whole[:-1]


def test_the_benchmark_measures_each_step(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())
    found = measure(tmp_path, 300, 7, FakeEncoder(), ("visual", "neighbourhood"), factory="IVF4,PQ3x4")
    steps = {step["step"]: step for step in found}
    added = steps["the new pictures, added"]
    assert (added["added"], added["vectors_copied"]) == (7, False)
    assert all(" 7 put in, quantizers kept" in update for update in added["updates"])
    assert all(step["seconds"] >= 0 and step["most_mb"] > 0 for step in steps.values())
    assert steps["vectors and catalog"]["written_mb"] > 0
    assert len(FeatureStore.open(tmp_path / "made").ids) == 307


def test_a_higher_limit_of_size_is_for_a_sync(root, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root / "large.png")
    folder = tmp_path / "c"
    extract(ImageFolder(root, max_megapixels=3e-4), FakeEncoder(), folder, progress=False)
    (damaged,) = FeatureStore.open(folder).catalog.damaged()
    assert damaged[0] == Path("large.png")
    paint(root / "new.png", 77)
    low, high = ImageFolder(root, max_megapixels=3e-4), ImageFolder(root, max_megapixels=1)
    with pytest.raises(StoreError, match=r"large\.png was too large for the limit that .* --sync brings in"):
        append(high, FakeEncoder(), folder, progress=False)
    assert append(low, FakeEncoder(), folder, progress=False).added == (Path("new.png"),)
    sync(high, FakeEncoder(), folder, progress=False)
    assert FeatureStore.open(folder).catalog.damaged() == []
