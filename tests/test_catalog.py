"""The catalog finds by SQL, migrates old files, and lets no foreign structure run."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_store import write

from features.collection.catalog import Catalog, change_counter
from features.collection.catalog_schema import PATH_PARTS
from features.collection.conditions import AllOf, Condition, Not
from features.collection.errors import StoreError
from features.collection.facet_columns import camera_column
from features.collection.file_facts import stat_of
from features.collection.records import CatalogChanges, Row
from features.datasets import ImageFolder
from features.store import FeatureStore

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    made = Catalog.create(tmp_path / "catalog.sqlite")
    rows = [Row(id, Path(f"{id}.jpg"), 10, 20, f"{id % 3}" * 64, 1, 1, "bad" if id == 4 else None) for id in range(6)]
    labels = {0: ("cat",), 1: ("dog", "cat", "cat"), 2: ("o'clock\" --",), 4: ("cat",), 5: ("dog",)}
    made.fill(rows, labels.items())
    return made


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/broken.jpg", "b/copy of 1.jpg"]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return write(ImageFolder(tmp_path / "images"), tmp_path / "c").folder


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({}, [0, 1, 2, 3, 5]),
        ({"label": "cat"}, [0, 1]),  # 4 is damaged
        ({"label": ["cat", "dog"]}, [0, 1, 5]),
        ({"label": {"dog"}}, [1, 5]),
        ({"label": []}, []),
        ({"label": "cat' OR 1=1 --"}, []),
        ({"label": "o'clock\" --"}, [2]),
        ({"label": "\ud800"}, []),
    ],
)
def test_ids_with_a_filter(catalog, filter, ids):
    found = catalog.ids_with(filter)
    assert found.tolist() == ids
    assert found.dtype == np.int64


def test_unknown_filters_are_named(catalog):
    with pytest.raises(ValueError, match="cannot filter by colour; known: label"):
        catalog.ids_with({"colour": "red"})


def test_all_copies_are_found(catalog):
    assert catalog.ids_of_hash("1" * 64) == [1]  # 4 is damaged
    assert catalog.ids_of_hash("0" * 64) == [0, 3]
    assert catalog.ids_of_hash("9" * 64) == []


def test_labels_without_any_are_no_entry(catalog):
    assert catalog.label_counts() == {"cat": 2, "dog": 2, "o'clock\" --": 1}
    assert catalog.labels_by_image()[1] == ("cat", "dog")


def test_a_change_that_fails_changes_nothing(catalog):
    before = catalog.records()
    twice = CatalogChanges(removed=[(0, Path("0.jpg"))], added=[Row(1, Path("new.jpg"), 1, 1, None, None, None, None)])
    with pytest.raises(StoreError):
        catalog.apply(twice, 1)
    catalog.close()
    assert Catalog.open(catalog.path).records() == before


_INDEXES = "PRAGMA index_list(images)"


def test_the_first_catalogs_are_read_and_migrated(folder, tmp_path):
    path = folder / "catalog.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript("ALTER TABLE images DROP COLUMN generation; DROP TABLE removed; PRAGMA user_version = 0")
        old.executescript("DROP INDEX images_folder; DROP INDEX images_camera")
        for column in (*PATH_PARTS, "phash", "camera"):
            old.execute(f"ALTER TABLE images DROP COLUMN {column}")
    catalog = Catalog.open(path)
    in_b = Condition("folder", "eq", "b")
    found = catalog.ids_matching(in_b)
    assert found.tolist() == [2, 4]
    assert catalog.ids_matching(AllOf((Not(in_b), Condition("size", "gt", 0)))).tolist() == [0, 1]
    assert catalog.removed() == []
    assert catalog.removed_count() == 0
    assert catalog.phashes()[0].size == 0 and catalog.without_phash() == {0, 1, 2, 4} == catalog.without_camera()
    no_camera = Condition("camera", "empty")
    assert catalog.ids_matching(no_camera).tolist() == [0, 1, 2, 4]
    assert catalog.ids_matching(AllOf((no_camera, in_b))).tolist() == [2, 4]
    assert camera_column(catalog).values == ()
    new = catalog.copy(tmp_path / "new.sqlite")
    assert new.records() == catalog.records()
    new.close()
    with sqlite3.connect(tmp_path / "new.sqlite") as new:
        assert new.execute("PRAGMA user_version").fetchone() == (5,)
        assert new.execute("SELECT id FROM images WHERE folder = 'b' AND error IS NULL").fetchall() == [(2,), (4,)]
        assert new.execute("SELECT DISTINCT generation FROM images").fetchall() == [(0,)]
        assert {"images_size", "images_mtime", "images_folder"} <= {name for _, name, *_ in new.execute(_INDEXES)}
        assert new.execute("SELECT DISTINCT phash, camera FROM images").fetchall() == [(None, None)]


def test_catalogs_without_cameras_are_read_and_migrated(folder, tmp_path):
    path = folder / "catalog.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript("DROP INDEX images_camera; ALTER TABLE images DROP COLUMN camera; PRAGMA user_version = 4")
    catalog = Catalog.open(path)
    in_b, nikon = Condition("folder", "eq", "b"), Condition("camera", "eq", "NIKON D90")
    assert catalog.ids_matching(AllOf((Not(nikon), in_b))).tolist() == [2, 4]
    assert catalog.ids_matching(nikon).tolist() == []
    new = catalog.copy(tmp_path / "new.sqlite")
    new.apply(CatalogChanges(cameras=[(0, "NIKON D90"), (1, "Nikon D90"), (2, "")]), 1)
    assert new.without_camera() == {4}
    assert new.ids_matching(nikon).tolist() == [0, 1]
    assert new.ids_matching(Condition("camera", "prefix", "nikon")).tolist() == [0, 1]
    assert new.ids_matching(Condition("camera", "empty")).tolist() == [2, 4]
    assert new.changes_since(0)[0].tolist() == [], "no vector is another for that"
    found = camera_column(new)
    assert (found.values, found.ids.tolist()) == (("NIKON D90",), [0, 1])


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT i AS id"
HOSTILE = [
    (f"DROP TABLE labels; CREATE VIEW labels AS {ENDLESS} FROM n", "labels is not a table"),
    (f"ALTER TABLE images RENAME TO x; CREATE VIEW images AS {ENDLESS}, '' AS path FROM n", "images is not a table"),
    ("DROP TABLE about; CREATE VIRTUAL TABLE about USING fts5(key, value)", "about is not a table"),
    ("DROP TABLE labels", "labels is not a table"),
    ("ALTER TABLE images DROP COLUMN width", "the table images has other columns"),
    ("CREATE TRIGGER t DELETE ON images BEGIN DELETE FROM labels; END", "has a trigger"),
    ("UPDATE about SET value = '{'", "not JSON"),
    ("UPDATE about SET value = '" + "[" * 100_000 + "'", "not JSON"),
    ("UPDATE images SET path = 7 WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET path = '../../etc/passwd' WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET path = '/etc/passwd' WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET path = x'612f2e2e2f62' WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET size = 'large' WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET sha256 = x'00' WHERE id = 2", "image 2 makes no sense"),
    ("UPDATE images SET id = 99 WHERE id = 2", "image 99 makes no sense"),
    ("UPDATE images SET id = -1 WHERE id = 2", "image -1 makes no sense"),
    ("INSERT INTO labels VALUES (77, 'x')", "label of image 77"),
    ("UPDATE labels SET label = x'00' WHERE image_id = 2", "label of image 2"),
    ("INSERT INTO removed VALUES (2, 'x', 1)", "image 2 cannot be removed"),
]


@pytest.mark.parametrize(("statement", "message"), HOSTILE)
def test_a_forged_catalog_is_refused(folder, statement, message):
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.executescript(statement)
    catalog.close()
    with pytest.raises(StoreError, match=message):
        FeatureStore.open(folder)


def test_features_that_are_something_else_are_refused(folder):
    path, whole = folder / "features.npy", (folder / "features.npy").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", whole)
    with pytest.raises(StoreError, match=r"features.npy cannot be read"):
        FeatureStore.open(folder)
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=r"features.npy cannot be read"):
        FeatureStore.open(folder)
    path.write_bytes(whole.replace(b"'fortran_order': False", b"'fortran_order': True "))
    with pytest.raises(StoreError, match=r"features\.npy holds"):
        FeatureStore.open(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="it is not a file"):
        FeatureStore.open(folder)


def test_every_flipped_byte_is_found_by_verify(folder, tmp_path):
    """By `open` or by `verify`, whichever comes first; unharmed it passes."""
    FeatureStore.open(folder).verify()
    generator = np.random.default_rng(0)
    for name in ("features.npy", "catalog.sqlite"):
        content = (folder / name).read_bytes()
        places = generator.integers(0, len(content), 60).tolist()
        for place in places if name == "catalog.sqlite" else range(len(content)):
            if name == "catalog.sqlite" and 24 <= place < 28:
                continue  # the count of changes itself, which says nothing of pictures
            broken = bytearray(content)
            broken[place] ^= 1 << place % 8
            (folder / name).write_bytes(broken)
            with pytest.raises(StoreError):
                FeatureStore.open(folder).verify()
        (folder / name).write_bytes(content)
    FeatureStore.open(folder).verify()


def test_verify_reads_indexes_and_spaces_too(folder):
    store = FeatureStore.open(folder)
    (folder / "ivfpq.index").write_bytes(b"index")
    store.update_manifest(indexes={"ivfpq": {"file": "ivfpq.index", "sha256": "0" * 64}})
    store.verify(derived=False)
    with pytest.raises(StoreError, match=r"ivfpq\.index is damaged"):
        store.verify()


def test_a_catalog_with_tables_of_others_is_not_damaged(folder):
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.execute("CREATE TABLE mine (x)")
    catalog.close()
    store = FeatureStore.open(folder)
    assert change_counter(folder / "catalog.sqlite") != store.manifest["catalog"]["change_counter"]
    store.verify()


def test_a_shortened_catalog_is_refused_at_once(folder):
    os.truncate(folder / "catalog.sqlite", 4096)
    with pytest.raises(StoreError, match=r"catalog.sqlite cannot be read: it has 4096 bytes"):
        FeatureStore.open(folder)


@pytest.mark.parametrize("seconds", [-(10**10), 10**10, 10**12])  # 1653; 2286 and 33658 do not fit 64 bits
def test_far_times_fit(tmp_path, seconds, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")
    real = os.stat_result((0o100644, 1, 1, 1, 0, 0, 1, 0, seconds, 0), {"st_mtime_ns": seconds * 10**9})
    monkeypatch.setattr(Path, "stat", lambda self, **_: real)
    size, mtime = stat_of(tmp_path / "x")
    with sqlite3.connect(":memory:") as database:
        assert database.execute("SELECT ?, ?", (size, mtime)).fetchone() == (1, mtime)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_extract import FakeEncoder
from features.datasets import ImageFolder
from features.encoding import extract
from features.store import StoreError

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    extract(ImageFolder(sys.argv[1]), FakeEncoder(), sys.argv[2], progress=False, batch_size=8, dtype="float32")
except (StoreError, OSError) as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_is_named_and_nothing_is_lost(tmp_path):
    from test_extract import FakeEncoder, make_images

    from features.encoding import extract

    make_images(tmp_path / "images", 40)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    code = LIMITED.format(tests=str(ROOT / "tests"))
    said = []
    for limit in (100, 6000, 14_000, 22_000, 30_000):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "images"), str(tmp_path / "c"), str(limit)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout.splitlines()
    assert said
    assert all("File too large" in line for line in said), said
    encoder = FakeEncoder()
    store = extract(ImageFolder(tmp_path / "images"), encoder, tmp_path / "c", progress=False, dtype="float32")
    assert encoder.encoded < 40
    store.verify()
    assert json.loads((tmp_path / "c/manifest.json").read_text())["count"] == 40


def test_a_full_disk_is_named(folder, tmp_path):
    """sqlite tells no errno: the sentence comes from what the operating system says, or else from sqlite."""
    catalog = FeatureStore.open(folder).catalog.copy(tmp_path / "new.sqlite")
    catalog._connection.execute("PRAGMA max_page_count = 1")
    rows = [Row(id, Path("x" * 3000 + str(id)), 1, 1, None, None, None, None) for id in range(10, 99)]
    with pytest.raises(StoreError, match=r"new.sqlite cannot be written: database or disk is full"):
        catalog.apply(CatalogChanges(added=rows), 1)


def test_a_link_to_a_collection_keeps_its_own_name(folder, tmp_path):
    (tmp_path / "backup").symlink_to(folder)
    store = FeatureStore.open(tmp_path / "backup")
    assert store.folder == tmp_path / "backup"
    shutil.rmtree(tmp_path / "images")
    assert store.ids.size == 4
