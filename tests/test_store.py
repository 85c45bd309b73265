"""A store holds together: what was written is read back, and parts of different stores are refused."""

import hashlib
import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from features.checksum import sha256_of
from features.collection.manifest import announce, check_same_encoder, new_part, partial_folder, remove_leftovers
from features.collection.store import FeatureStore, StoreError
from features.collection.writer import StoreWriter
from features.datasets import ImageFolder, Item

SPEC = {"name": "fake", "dim": 4, "weights": {"argument": None, "source": "a test", "sha256": "ab" * 32}, "size": 8}
NAMES = ["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", "dogs/broken.jpg", "dogs/copy of 1.jpg"]


@pytest.fixture
def images(tmp_path) -> ImageFolder:
    for name in NAMES:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.replace("copy of ", "").encode())
    return ImageFolder(tmp_path / "images")


def vectors(dtype=np.float32) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    rows[3] = 0
    return rows


def facts(dataset) -> list:
    return [
        (sha256_of(item.path), 10, 20, "damaged (by hand)" if "broken" in item.path.name else None)
        for item in dataset.items
    ]


def write(dataset, folder: Path, dtype: str = "float16", spec=SPEC) -> FeatureStore:
    writer = StoreWriter(folder, dataset, dataset.items, spec, dtype)
    writer.append(vectors()[:2], facts(dataset)[:2])
    writer.append(vectors()[2:], facts(dataset)[2:])
    return writer.finish()


@pytest.fixture
def store(images, tmp_path) -> FeatureStore:
    return write(images, tmp_path / "collections/c")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_written_is_read_back(images, tmp_path, dtype):
    store = write(images, tmp_path / "c", dtype)
    assert store.features.dtype == dtype
    assert isinstance(store.features, np.memmap)
    np.testing.assert_array_equal(store.features, vectors().astype(dtype))
    assert store.ids.tolist() == [0, 1, 2, 4]
    assert store.ids.dtype == np.int64
    wanted = [Item(i.id, i.path, i.labels, "damaged (by hand)" if i.id == 3 else None) for i in images.items]
    assert store.items == wanted
    assert store.labels() == {"cats": 2, "dogs": 2}  # the damaged image is not counted
    manifest = store.manifest
    assert (manifest["count"], manifest["damaged"], manifest["dim"], manifest["dtype"]) == (5, 1, 4, dtype)
    assert (manifest["dataset"], manifest["root"]) == ("images", str(images.root))
    assert store.metric == "cosine"
    assert manifest["encoder"] == SPEC
    store.verify()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "catalog.sqlite",
        "features.npy",
        "manifest.json",
    ]
    assert not partial_folder(tmp_path / "c").exists()


def test_catalog_tells_what_is_known_of_a_file(store, images):
    with sqlite3.connect(store.folder / "catalog.sqlite") as catalog:
        rows = catalog.execute("SELECT path, size, mtime, width, height, error FROM images ORDER BY id").fetchall()
    stat = images.items[0].path.stat()
    assert rows[0] == ("cats/1.jpg", stat.st_size, stat.st_mtime_ns, 10, 20, None)
    assert rows[3][-1] == "damaged (by hand)"


def test_content_is_found_by_its_hash(store, images):
    digest = hashlib.sha256(b"dogs/1.jpg").hexdigest()
    assert store.hash_of(2) == store.hash_of(4) == digest
    assert store.find_hash(digest) == 2  # the first of the copies
    assert store.find_hash("0" * 64) is None
    assert store.find_hash(store.hash_of(3)) is None  # a damaged image is nobody's answer
    with pytest.raises(KeyError, match="99"):
        store.hash_of(99)


def test_many_threads_read(store):
    failures = []

    def read():
        try:
            for _ in range(20):
                assert store.find_hash(store.hash_of(1)) == 1
                assert len(store.items) == 5
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_manifest_is_updated_atomically(store, monkeypatch):
    store.update_manifest(metric="l2", indexes={"ivfpq": {"file": "ivfpq.index"}})
    again = FeatureStore.open(store.folder)
    assert again.metric == store.metric == "l2"
    assert again.manifest["indexes"] == {"ivfpq": {"file": "ivfpq.index"}}
    assert again.manifest["count"] == 5
    before = (store.folder / "manifest.json").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.update_manifest(metric="ip")
    assert (store.folder / "manifest.json").read_bytes() == before
    assert store.metric == "l2"


def test_a_file_that_the_manifest_no_longer_names_is_deleted(store):
    for name in ("ivfpq.index", "faiss.index"):
        (store.folder / name).write_bytes(b"x")
    store.update_manifest(indexes={"ivfpq": {"file": "ivfpq.index"}, "faiss": {"file": "faiss.index"}})
    store.update_manifest(indexes={"faiss": {"file": "faiss.index"}})
    assert not (store.folder / "ivfpq.index").exists()
    assert (store.folder / "faiss.index").exists()


def test_leftovers_of_a_stopped_writer_go_and_everything_else_stays(store):
    folder = store.folder
    store.update_manifest(indexes={"ivfpq": {"file": "ivfpq.2.index"}})
    left = ["features.1.npy", "catalog.3.sqlite", "catalog.3.sqlite-journal", "ivfpq.index", "faiss.3.index"]
    temporary = [".faiss.3.index.0123456789ab.tmp", ".manifest.json.0123456789ab.tmp"]
    mine = ["notes.sqlite", "my features.npy", "features.txt", "ivfpq.2.index", "catalog.sqlite-wal", "faiss.index"]
    mine += ["catalog.sqlite.bak", "features.npy.2026-11-01", "ivfpq.index.good", "features.20261101.npy", ".ivfpq.tmp"]
    for name in left + temporary + mine:
        (folder / name).write_bytes(b"x")
    announce(folder, *(name for name in left if not name.endswith("journal")), "ivfpq.2.index", "../mine")
    (folder.parent / "mine").write_bytes(b"x")
    remove_leftovers(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {*mine, "features.npy", "catalog.sqlite", "manifest.json"}
    assert (folder.parent / "mine").exists()


def test_a_new_part_takes_no_name_that_is_taken(store):
    (store.folder / "features.1.npy").write_bytes(b"mine")
    assert new_part(store.folder, "features.npy", 0).name == "features.2.npy"
    (store.folder / "features.2.npy").write_bytes(b"begun")
    remove_leftovers(store.folder)
    assert not (store.folder / "features.2.npy").exists()
    assert (store.folder / "features.1.npy").read_bytes() == b"mine"


def test_a_name_announced_by_half_is_not_believed(store):
    (store.folder / ".announced").write_bytes(b"gone.npy\nmine")  # the disk was full, or the process was killed
    for name in ("gone.npy", "mine"):
        (store.folder / name).write_bytes(b"x")
    remove_leftovers(store.folder)
    assert (store.folder / "mine").exists()
    assert not (store.folder / "gone.npy").exists()


def test_an_entry_written_by_another_process_is_kept(store):
    other = FeatureStore.open(store.folder)
    other.update_manifest(a=1)
    store.update_manifest(b=2)
    assert FeatureStore.open(store.folder).manifest.items() >= {"a": 1, "b": 2}.items()


def edit_manifest(folder: Path, **entries) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_parts_that_do_not_belong_together_are_refused(store, images, tmp_path):
    folder = store.folder
    (images.root / "dogs/1.jpg").write_bytes(b"changed")
    other = write(images, tmp_path / "other", spec={**SPEC, "size": 9}).folder
    rows = np.load(other / "features.npy")
    rows[0] += 1
    for part, change, message in [
        (
            "catalog.sqlite",
            lambda: sqlite_update(folder, "DELETE FROM images WHERE id = 4"),
            "lists 4 images, 1 of them",
        ),
        ("catalog.sqlite", lambda: sqlite_update(folder, "UPDATE images SET error = 'x'"), "5 of them damaged"),
        (
            "catalog.sqlite",
            lambda: sqlite_update(folder, "UPDATE about SET value = '\"00\"'"),
            "belongs to features with",
        ),
        ("catalog.sqlite", lambda: (folder / "catalog.sqlite").write_bytes(b"no database" * 99), "cannot be read"),
        ("catalog.sqlite", lambda: (folder / "catalog.sqlite").unlink(), "cannot be read"),
        ("features.npy", lambda: np.save(folder / "features.npy", rows[:3]), r"\(3, 4\).*\(5, 4\)"),
        ("features.npy", lambda: np.save(folder / "features.npy", rows[:, :2]), r"\(5, 2\).*\(5, 4\)"),
        ("features.npy", lambda: np.save(folder / "features.npy", rows.astype("f4")), "float32.*float16"),
        ("features.npy", lambda: os.truncate(folder / "features.npy", 140), "cannot be read"),
        ("features.npy", lambda: (folder / "features.npy").unlink(), "cannot be read"),
        ("manifest.json", lambda: edit_manifest(folder, count=6), r"\(5, 4\).*\(6, 4\)"),
        ("manifest.json", lambda: edit_manifest(folder, format=99), "format 99; this version reads 1"),
        ("manifest.json", lambda: (folder / "manifest.json").write_text("{"), "cannot be read"),
        ("manifest.json", lambda: (folder / "manifest.json").write_text('{"format": 1}'), "lacks count"),
        ("manifest.json", lambda: edit_manifest(folder, catalog={"file": "../other/catalog.sqlite"}), "not a file of"),
        (
            "manifest.json",
            lambda: edit_manifest(folder, indexes={"faiss": {"file": "/etc/x"}}),
            "'/etc/x', which",
        ),
        ("manifest.json", lambda: edit_manifest(folder, indexes=["faiss"]), "does not say which files"),
        ("manifest.json", lambda: (folder / "manifest.json").unlink(), "not a collection"),
    ]:
        whole = (folder / part).read_bytes()
        change()
        with pytest.raises(StoreError, match=message) as caught:
            FeatureStore.open(folder)
        assert str(folder) in str(caught.value)
        (folder / part).write_bytes(whole)
    FeatureStore.open(folder)
    np.save(folder / "features.npy", rows)  # the same shape, other numbers: found by reading them
    with pytest.raises(StoreError, match="is damaged: its SHA-256"):
        FeatureStore.open(folder).verify()


def sqlite_update(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.execute(statement)
    catalog.close()


def test_another_encoder_is_refused_and_both_are_named(store):
    class Fake:
        spec = SPEC

    store.check_encoder(Fake)
    Fake.spec = {**SPEC, "weights": {**SPEC["weights"], "source": "elsewhere", "argument": "x.pth"}}
    store.check_encoder(Fake)  # the same weights in another place
    Fake.spec = {**SPEC, "runtime": {"name": "another", "version": "2", "precision": "bfloat16"}}
    store.check_encoder(Fake)  # run by something else
    for change in ({"name": "real"}, {"dim": 5}, {"size": 9}, {"weights": {**SPEC["weights"], "sha256": "cd" * 32}}):
        now = {**SPEC, **change}
        with pytest.raises(StoreError) as caught:
            check_same_encoder(SPEC, now, "this store")
        message = str(caught.value)
        assert "this store" in message
        assert "fake (4-d, weights abababab)" in message
        assert f"{now['name']} ({now['dim']}-d, weights {now['weights']['sha256'][:8]})" in message
        assert next(iter(change)) in message


def test_one_writer_at_a_time(images, tmp_path):
    first = StoreWriter(tmp_path / "c", images, images.items, SPEC, "float16")
    with pytest.raises(StoreError, match="in use by another extraction"):
        StoreWriter(tmp_path / "c", images, images.items, SPEC, "float16")
    first.append(vectors(), facts(images))
    first.finish()


def test_vectors_that_the_type_cannot_hold_are_refused(images, tmp_path):
    writer = StoreWriter(tmp_path / "c", images, images.items, SPEC, "float16")
    with np.errstate(over="ignore"), pytest.raises(StoreError, match="float16 cannot hold"):
        writer.append(vectors() * 1e6, facts(images))
    assert writer.done == 0
    writer.close()


def test_a_folder_with_other_things_in_it_is_left_alone(images, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        StoreWriter(tmp_path / "full", images, images.items, SPEC, "float16")
    (tmp_path / "empty").mkdir()
    assert write(images, tmp_path / "empty").manifest["count"] == 5


def test_paths_that_are_not_utf8_come_back(tmp_path):
    root = tmp_path / "images"
    odd = root / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.jpg")
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"x")
    dataset = ImageFolder(root)
    writer = StoreWriter(tmp_path / "c", dataset, dataset.items, SPEC, "float32")
    writer.append(np.ones((1, 4)), [(sha256_of(odd), 1, 1, None)])
    (item,) = writer.finish().items
    assert item.path == odd
    assert item.path.read_bytes() == b"x"


def test_sha256_of_a_file_and_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == sha256_of(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_a_store_may_be_moved(store, tmp_path):
    items = store.items
    shutil.move(store.folder, tmp_path / "moved here")
    assert FeatureStore.open(tmp_path / "moved here").items == items
