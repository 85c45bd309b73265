"""What people say of pictures outlives syncs and rebuilds."""

import sqlite3
from pathlib import Path

import pytest
from test_store import write

from features.collection.annotations import Annotations
from features.collection.errors import StoreError
from features.datasets import ImageFolder
from features.store import FeatureStore


def paint(root: Path, **contents: str) -> ImageFolder:
    for name, content in contents.items():
        (root / f"{name}.jpg").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.jpg").write_text(content)
    return ImageFolder(root)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    dataset = paint(tmp_path / "images", a="A", b="B", c="C", d="same", e="same")
    return write(dataset, tmp_path / "c")


def test_it_begins_empty_and_is_named_by_the_manifest(store):
    annotations = Annotations.open(store)
    assert annotations.image_ids() == {}
    assert FeatureStore.open(store.folder).manifest["annotations"] == annotations.id
    assert Annotations.open(store).id == annotations.id
    with sqlite3.connect(store.folder / "annotations.sqlite") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (Annotations.VERSION,)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_key_stays_with_its_picture(store):
    annotations = Annotations.open(store)
    keys = [annotations.key_of(record) for record in store.records()]
    assert [annotations.key_of(record) for record in store.records()] == keys
    assert Annotations.open(store).image_ids() == dict(zip(keys, range(5), strict=True))


def test_a_change_is_done_whole_or_not_at_all(store):
    annotations = Annotations.open(store)
    key = annotations.key_of(store.records()[0])
    with pytest.raises(KeyboardInterrupt), annotations.changing() as connection:
        connection.execute("INSERT INTO favourites VALUES (?)", (key,))
        raise KeyboardInterrupt
    with pytest.raises(StoreError, match="FOREIGN KEY"), annotations.changing() as connection:
        connection.execute("INSERT INTO favourites VALUES (99)")
    with annotations.changing() as connection:
        assert connection.execute("SELECT * FROM favourites").fetchall() == []


def test_a_collection_built_anew_finds_its_pictures_again(store, tmp_path):
    """b is edited, c renamed, e, which equals d, removed, and a new picture takes the first id."""
    old = Annotations.open(store)
    key = {record.path.stem: old.key_of(record) for record in store.records()}
    with old.changing() as connection:
        connection.executemany("INSERT INTO favourites VALUES (?)", [(each,) for each in key.values()])
    old.close()
    root = tmp_path / "images"
    (root / "c.jpg").rename(root / "z.jpg")
    (root / "b.jpg").write_text("another")
    (root / "e.jpg").unlink()
    for path in store.folder.iterdir():
        if not path.name.startswith("annotations.sqlite"):
            path.unlink()
    rebuilt = write(paint(root, a="A", _0="new"), store.folder)
    new = Annotations.open(rebuilt)
    now = {record.path.stem: record.id for record in rebuilt.records()}
    assert new.image_ids() == {
        key["a"]: now["a"],
        key["b"]: None,  # another picture by now
        key["c"]: now["z"],
        key["d"]: now["d"],
        key["e"]: None,  # what is said of d is not said of e
    }
    with new.changing() as connection:
        assert len(connection.execute("SELECT * FROM favourites").fetchall()) == 5, "nothing that was said is lost"


def test_what_cannot_be_read_is_named(store):
    path = store.folder / "annotations.sqlite"
    path.write_bytes(b"no database" * 999)
    with pytest.raises(StoreError, match=r"annotations\.sqlite cannot be read"):
        Annotations.open(store)
    path.unlink()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=f"has version 99; this program reads up to {Annotations.VERSION}"):
        Annotations.open(store)
