"""A collection follows its folder: nothing is encoded twice, ids stay, and whatever stops a sync leaves it whole."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_extract import FakeEncoder, make_images

from features.collection.stage import STAGE
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import SyncReport, sync
from features.datasets import ImageFolder, Item, reopen_dataset, spec_of
from features.extract import extract, main


@pytest.fixture
def root(tmp_path) -> Path:
    make_images(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def folder(root, tmp_path) -> Path:
    extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    return tmp_path / "c"


def update(root: Path, folder: Path, **options) -> tuple[SyncReport, FakeEncoder]:
    encoder = FakeEncoder()
    report = sync(ImageFolder(root), encoder, folder, progress=options.pop("progress", False), **options)
    return report, encoder


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


def by_path(store: FeatureStore) -> dict:
    """Everything but the ids of a store's images."""
    return {
        store.items[id].path: (store.items[id].labels, store.hash_of(id), store.features[id].tolist())
        for id in store.ids.tolist()
    }


def assert_as_fresh(folder: Path, root: Path) -> FeatureStore:
    """The collection holds what extracting the folder anew would give, and hangs together."""
    store = FeatureStore.open(folder)
    store.verify()
    fresh = folder.with_name(f"fresh{len(list(folder.parent.iterdir()))}")
    made = extract(ImageFolder(root), FakeEncoder(), fresh, progress=False)
    assert by_path(store) == by_path(made)
    assert store.labels() == made.labels()
    assert store.manifest["damaged"] == made.manifest["damaged"]
    assert store.image_count == made.image_count
    unusable = np.setdiff1d(np.arange(len(store.features)), store.ids)
    assert not store.features[unusable].any()
    assert len(store.items) == len(store.features)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        store.manifest["features"]["file"],
        store.manifest["catalog"]["file"],
    }
    return store


def change_everything(root: Path) -> None:
    """One image is edited, one spoiled, one removed, one renamed, one moved, two are new and one of them is damaged."""
    paint(root / "label 0/000.png", 100)
    (root / "label 1/001.png").write_bytes(b"spoiled")
    (root / "label 2/002.png").unlink()
    (root / "label 0/003.png").rename(root / "label 0/new name.png")
    (root / "moved").mkdir()
    (root / "label 1/004.png").rename(root / "moved/004.png")
    paint(root / "label 0/005 new.png", 101)
    (root / "broken.jpg").write_bytes(b"no picture")


def test_every_kind_of_change_at_once(root, folder):
    before = FeatureStore.open(folder)
    id_of = {item.path.relative_to(root).as_posix(): item.id for item in before.items}
    change_everything(root)
    report, encoder = update(root, folder)

    assert encoder.encoded == 2, "only what is new or edited, and readable, goes through the network"
    assert sorted(map(str, report.added)) == ["broken.jpg", "label 0/005 new.png"]
    assert sorted(map(str, report.edited)) == ["label 0/000.png", "label 1/001.png"]
    assert list(map(str, report.removed)) == ["label 2/002.png"]
    assert sorted((str(old), str(new)) for old, new in report.renamed) == [
        ("label 0/003.png", "label 0/new name.png"),
        ("label 1/004.png", "moved/004.png"),
    ]
    assert report.unchanged == 23 - 5
    assert sorted(str(path) for path, _ in report.damaged) == ["broken.jpg", "label 1/001.png"]
    assert all("not an image" in reason for _, reason in report.damaged)
    assert str(report).splitlines()[0] == "2 added, 2 edited, 2 renamed, 1 removed, 2 damaged, 18 unchanged"

    store = assert_as_fresh(folder, root)
    assert len(store.items) == 25
    ids = {item.path.relative_to(root).as_posix(): item.id for item in store.items}
    renamed = {"label 0/new name.png": "label 0/003.png", "moved/004.png": "label 1/004.png"}
    assert all(
        ids[path] == id_of[renamed.get(path, path)] for path in ids.keys() - {"broken.jpg", "label 0/005 new.png"}
    )
    assert {ids["broken.jpg"], ids["label 0/005 new.png"]} == {23, 24}
    gone = store.items[id_of["label 2/002.png"]]
    assert (gone.error, gone.labels) == ("removed", ())
    with pytest.raises(KeyError):
        store.hash_of(gone.id)
    changed, unusable = store.changes_since(0)
    assert changed.tolist() == sorted([id_of["label 0/000.png"], ids["label 0/005 new.png"]])
    assert unusable.tolist() == sorted([id_of["label 1/001.png"], id_of["label 2/002.png"], ids["broken.jpg"]])


def test_nothing_changed_writes_nothing(root, folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    report, encoder = update(root, folder)
    assert report == SyncReport((), (), (), (), 23, ())
    assert encoder.encoded == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_new_time_and_same_content_is_no_edit(root, folder, monkeypatch):
    path = root / "label 0/000.png"
    os.utime(path, ns=(5, 5))
    report, encoder = update(root, folder)
    assert (report.unchanged, report.edited, encoder.encoded) == (23, (), 0)
    store = assert_as_fresh(folder, root)
    assert store.manifest["features"]["file"] == "features.npy"  # the vectors were not written again
    changes = "features.collection.changes"
    monkeypatch.setattr(f"{changes}.sha256_of", lambda path: pytest.fail("the new time was not recorded"))
    update(root, folder)


def test_edit_that_keeps_the_size_is_seen_by_its_content(root, folder):
    path = root / "label 0/000.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # within the checksum of the PNG's pixels
    path.write_bytes(content)
    report, _ = update(root, folder)
    assert list(map(str, report.edited)) == ["label 0/000.png"]
    assert_as_fresh(folder, root)


def test_ids_of_removed_images_are_never_given_again(root, folder):
    path = root / "label 2/020.png"
    content = path.read_bytes()
    path.unlink()
    assert [str(path) for path in update(root, folder)[0].removed] == ["label 2/020.png"]
    path.write_bytes(content)
    report, encoder = update(root, folder)
    assert (len(report.added), encoder.encoded) == (1, 1)
    store = assert_as_fresh(folder, root)
    assert store.find_hash(store.hash_of(23)) == 23
    assert store.items[22].error == "removed"
    assert FeatureStore.open(folder).generation == 2


def test_copies_and_renames_of_copies(root, folder):
    """Two files of the same content are renamed and a third is added: each keeps one id, by its name if it can."""
    one, two = root / "label 0/000.png", root / "label 1/copy.png"
    shutil.copyfile(one, two)
    update(root, folder)
    one.rename(root / "x.png")
    (root / "label 9").mkdir()
    two.rename(root / "label 9/copy.png")
    shutil.copyfile(root / "x.png", root / "another.png")
    report, encoder = update(root, folder)
    assert (str(two.relative_to(root)), "label 9/copy.png") in {(str(a), str(b)) for a, b in report.renamed}
    assert (len(report.renamed), len(report.added), encoder.encoded) == (2, 1, 1)
    assert_as_fresh(folder, root)


def test_limited_collection_is_extended(root, tmp_path):
    folder = tmp_path / "c"
    extract(ImageFolder(root), FakeEncoder(), folder, limit=7, progress=False)
    with pytest.raises(StoreError, match=r"does not have .* and 15 more; --sync brings it up to date"):
        extract(ImageFolder(root), FakeEncoder(), folder, progress=False)
    report, encoder = update(root, folder, limit=12)
    assert (len(report.added), report.unchanged, encoder.encoded) == (5, 7, 5)
    assert update(root, folder, limit=3)[0].unchanged == 12, "a limit never takes anything out"
    report, encoder = update(root, folder)
    assert (len(report.added), encoder.encoded) == (11, 11)
    store = assert_as_fresh(folder, root)
    assert [item.path for item in store.items] == [item.path for item in ImageFolder(root).items]


def test_synced_collection_is_complete_for_extract(root, folder):
    change_everything(root)
    update(root, folder)
    encoder = FakeEncoder()
    extract(ImageFolder(root), encoder, folder, progress=False)
    assert encoder.encoded == 0
    paint(root / "label 0/000.png", 102)
    with pytest.raises(StoreError, match=r"000.png has changed since .*; --sync brings it up to date"):
        extract(ImageFolder(root), encoder, folder, progress=False)


def test_moved_folder_and_another_folder(root, folder, tmp_path):
    moved = tmp_path / "elsewhere/images"
    moved.parent.mkdir()
    root.rename(moved)
    report, encoder = update(moved, folder)
    assert (report.unchanged, encoder.encoded) == (23, 0)
    assert FeatureStore.open(folder).items[0].path.is_file()
    paint(tmp_path / "other/a.png", 3)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=r"none of the images of .* is in .*other: it is a collection of .*elsewhere"):
        update(tmp_path / "other", folder)
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("exclude", "fits"),
    [
        (["label 1"], lambda path: path.startswith("label 1/")),
        (["label 1/"], lambda path: path.startswith("label 1/")),
        (["label ?/00*"], lambda path: path.partition("/")[2].startswith("00")),
        (["*5.png", "nothing"], lambda path: path.endswith("5.png")),
    ],
)
def test_what_is_excluded_from_now_on_leaves_the_collection_and_may_come_back(root, folder, exclude, fits):
    before = {item.path.relative_to(root).as_posix(): item.id for item in FeatureStore.open(folder).items}
    gone = {path for path in before if fits(path)}
    assert 0 < len(gone) < len(before)
    report = sync(ImageFolder(root, exclude=exclude), FakeEncoder(), folder, progress=False)
    assert {path.as_posix() for path in report.removed} == gone
    store = FeatureStore.open(folder)
    assert store.ids.tolist() == sorted(before[path] for path in before if path not in gone)
    assert all((root / path).exists() for path in gone)
    assert sync(ImageFolder(root, exclude=exclude), FakeEncoder(), folder, progress=False).removed == ()
    report, encoder = update(root, folder)
    assert {path.as_posix() for path in report.added} == gone
    assert encoder.encoded == len(gone)


def test_file_that_is_there_but_not_listed_stays(root, folder, monkeypatch):
    """As when a folder cannot be listed for once, or the package that read a format is gone."""
    dataset = ImageFolder(root)
    dataset.items = [item for item in dataset.items if item.labels != ("label 1",)]
    report = sync(dataset, FakeEncoder(), folder, progress=False)
    assert (report.removed, report.unchanged) == ((), 23)


@pytest.fixture
def linked(root, tmp_path) -> Path:
    """A folder of links to pictures that lie below it, as on a drive that is mounted there, and a collection of it."""
    (root / ".drive").mkdir()
    for path in sorted(root.glob("*/*.png"))[:10]:
        path.rename(root / ".drive" / path.name)
        path.symlink_to(root / ".drive" / path.name)
    extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    return root


def test_pictures_on_a_drive_that_is_away_are_kept_and_named(linked, tmp_path):
    folder, before = tmp_path / "c", by_path(FeatureStore.open(tmp_path / "c"))
    (linked / ".drive").rename(tmp_path / "away")
    paint(linked / "new.png", 5)
    report, encoder = update(linked, folder)
    assert (len(report.added), encoder.encoded, len(report.away), report.unchanged) == (1, 1, 10, 23)
    assert (report.edited, report.removed, report.renamed, report.damaged) == ((), (), (), ())
    assert str(report).count("away, kept as it was: label ") == 10
    store = FeatureStore.open(folder)
    assert len(store.ids) == 24
    assert by_path(store).items() >= before.items()
    assert update(linked, folder)[0].away == report.away
    encoder = FakeEncoder()
    extract(ImageFolder(linked), encoder, folder, progress=False)  # nothing is known to have changed
    assert encoder.encoded == 0
    (tmp_path / "away").rename(linked / ".drive")
    report, encoder = update(linked, folder)
    assert (report.away, report.unchanged, encoder.encoded) == ((), 24, 0)
    assert_as_fresh(folder, linked)


def test_a_linked_folder_that_is_away_is_not_gone(root, folder, tmp_path):
    (root / "label 1").rename(tmp_path / "drive")
    (root / "label 1").symlink_to(tmp_path / "drive")  # not followed, and not gone
    assert update(root, folder)[0].removed == ()
    (tmp_path / "drive").rename(tmp_path / "away")
    report, _ = update(root, folder)
    assert (report.removed, report.unchanged) == ((), 23)
    assert {path.parts[0] for path in report.away} == {"label 1"}
    (root / "label 1").unlink()
    assert len(update(root, folder)[0].removed) == len(report.away)


def test_a_file_that_may_not_be_read_for_once_is_kept(root, folder, monkeypatch):
    """As when a disk fails or permissions are missing; a test may run as root, who may read everything."""
    path = root / "label 0/000.png"
    before = by_path(FeatureStore.open(folder))[path]
    paint(path, 100)
    real = os.open

    def refuse(opened, *arguments, **options):
        if str(opened) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(opened, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    report, encoder = update(root, folder)
    assert ([str(path) for path in report.away], report.edited, encoder.encoded) == (["label 0/000.png"], (), 0)
    assert by_path(FeatureStore.open(folder))[path] == before
    monkeypatch.undo()
    report, encoder = update(root, folder)
    assert ([str(path) for path in report.edited], encoder.encoded) == (["label 0/000.png"], 1)


def test_links_out_of_the_root_are_not_followed(root, tmp_path):
    paint(tmp_path / "elsewhere/secret.png", 3)
    (root / "secret.png").symlink_to(tmp_path / "elsewhere/secret.png")
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    folder = tmp_path / "c"
    dataset = ImageFolder(root)
    listed = [item.path for item in dataset.items]
    assert not {"secret.png", "pipe.png", "zero.png"} & {path.name for path in listed}
    paths = sorted([*listed, *(root / name for name in ("secret.png", "pipe.png", "zero.png"))])
    dataset.items = [Item(id, path, ()) for id, path in enumerate(paths)]  # they took the place of files just now
    store = extract(dataset, FakeEncoder(), folder, progress=False)
    reasons = {path.name: reason for path, reason in store.damaged()}
    assert reasons.keys() == {"secret.png", "pipe.png", "zero.png"}
    assert "outside" in reasons["secret.png"]
    assert "named pipe" in reasons["pipe.png"]
    report, encoder = update(root, folder)
    assert (report.edited, report.away, encoder.encoded) == ((), (), 0)


def rename_as_on_a_disk_that_ignores_case(root: Path, old: str, new: str) -> ImageFolder:
    """Both names lead to the file, and the folder lists the new one only."""
    os.link(root / old, root / new)
    dataset = ImageFolder(root)
    dataset.items = [item for item in dataset.items if item.path != root / old]
    return dataset


def test_another_spelling_of_a_name_is_a_rename(root, folder):
    id = next(item.id for item in FeatureStore.open(folder).items if item.path.name == "003.png")
    dataset = rename_as_on_a_disk_that_ignores_case(root, "label 0/003.png", "label 0/003.PNG")
    encoder = FakeEncoder()
    report = sync(dataset, encoder, folder, progress=False)
    assert [(str(old), str(new)) for old, new in report.renamed] == [("label 0/003.png", "label 0/003.PNG")]
    assert (report.added, report.removed, report.unchanged, encoder.encoded) == ((), (), 22, 0)
    store = FeatureStore.open(folder)
    assert store.items[id].path.name == "003.PNG"
    assert len(store.items) == 23


def test_a_picture_that_is_twice_under_two_spellings_is_once_again(root, folder):
    os.link(root / "label 0/003.png", root / "label 0/003.PNG")
    update(root, folder)
    assert FeatureStore.open(folder).image_count == 24
    dataset = ImageFolder(root)
    dataset.items = [item for item in dataset.items if item.path.name != "003.png"]
    report = sync(dataset, FakeEncoder(), folder, progress=False)
    assert [str(path) for path in report.removed] == ["label 0/003.png"]
    assert FeatureStore.open(folder).image_count == 23


def test_another_card_with_the_same_names_is_refused(tmp_path):
    """Two cards, both with IMG_0001.png: the first one's collection is not replaced."""
    for card, seed in (("one", 1), ("two", 2)):
        for number in range(3):
            paint(tmp_path / card / f"100CANON/IMG_{number:04}.png", 10 * seed + number)
    one, two, folder = tmp_path / "one/100CANON", tmp_path / "two/100CANON", tmp_path / "c"
    extract(ImageFolder(one), FakeEncoder(), folder, progress=False)
    before = (folder / "manifest.json").read_bytes()
    message = r"none of the images of .*c is in .*two/100CANON: it is a collection of .*one/100CANON; --name gives"
    for act in (update, lambda root, folder: extract(ImageFolder(root), FakeEncoder(), folder, progress=False)):
        with pytest.raises(StoreError, match=message):
            act(two, folder)
    assert (folder / "manifest.json").read_bytes() == before
    shutil.copyfile(one / "IMG_0000.png", two / "copied.png")
    assert len(update(two, folder)[0].added) == 1, "with one image in common it is the same collection"


def test_same_name_size_and_time_are_not_the_same_content_elsewhere(root, folder, tmp_path):
    other = shutil.copytree(root, tmp_path / "other/images")
    for path in other.glob("*/*.png"):
        stat, content = path.stat(), bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with pytest.raises(StoreError, match="none of the images"):
        update(other, folder)


def test_damage_is_not_made_official(root, folder):
    paint(root / "new.png", 4)
    for name in ("features.npy", "catalog.sqlite"):
        whole = (folder / name).read_bytes()
        broken = bytearray(whole)
        broken[-3] ^= 1
        (folder / name).write_bytes(broken)
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STAGE}
        with pytest.raises(StoreError, match=f"{name} is damaged: its SHA-256"):
            update(root, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STAGE} == before
        (folder / name).write_bytes(whole)
    update(root, folder)
    assert_as_fresh(folder, root)


def test_files_of_others_in_the_folder_stay(root, folder):
    mine = ["catalog.sqlite.bak", "features.npy.2026-11-01", "ivfpq.index.good", "features.1.npy", "catalog.1.sqlite"]
    for name in mine:
        (folder / name).write_bytes(b"mine")
    change_everything(root)
    update(root, folder)
    for name in mine:
        assert (folder / name).read_bytes() == b"mine"
        (folder / name).unlink()
    assert_as_fresh(folder, root)


def test_an_own_folder_named_like_a_dataset_is_not_taken_for_it(tmp_path):
    root = tmp_path / "caltech101"
    paint(root / "summer.png", 1)
    store = extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    again = reopen_dataset(store.manifest["dataset"], store.manifest["root"])
    assert isinstance(again, ImageFolder)
    assert again.items == store.items
    assert spec_of(store.manifest["dataset"], store.manifest["root"]) == str(root)


def test_a_root_that_is_not_utf8_is_synced(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    paint(root / "a.png", 1)
    extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    paint(root / os.fsdecode(b"\xff.png"), 2)
    os.utime(root / "a.png", ns=(10**19 + 5, 10**19 + 5))  # the year 2286
    report, encoder = update(root, tmp_path / "c")
    assert (len(report.added), encoder.encoded, report.unchanged) == (1, 1, 1)
    assert_as_fresh(tmp_path / "c", root)
    content = bytearray((root / "a.png").read_bytes())
    content[-20] ^= 1
    (root / "a.png").write_bytes(content)
    os.utime(root / "a.png", ns=(10**19 + 7, 10**19 + 7))
    assert len(update(root, tmp_path / "c")[0].edited) == 1


def test_unreadable_image_is_tried_again_and_again(root, tmp_path, monkeypatch):
    monkeypatch.setattr("features.encoding.MAX_FILE_BYTES", 380)  # the larger ones are not even read
    folder = tmp_path / "c"
    store = extract(ImageFolder(root), FakeEncoder(), folder, progress=False)
    unread = store.manifest["damaged"]
    assert 0 < unread < 23
    report, encoder = update(root, folder)
    assert (report.unchanged, report.edited, encoder.encoded) == (23, (), 0)
    monkeypatch.undo()
    report, encoder = update(root, folder)
    assert (len(report.edited), encoder.encoded) == (unread, unread)
    assert_as_fresh(folder, root)


def test_other_encoder_and_nothing_left_are_refused(root, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StoreError, match=r"is of encoder fake"):
        sync(ImageFolder(root), FakeEncoder(2), folder, progress=False)
    for item in ImageFolder(root).items:
        item.path.write_bytes(b"spoiled")
    with pytest.raises(StoreError, match=r"none of the 23 images in .* can be read"):
        update(root, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STAGE}
    assert after == before
    with pytest.raises(StoreError, match="not a collection"):
        update(root, folder / "nothing")
    assert not (folder / "nothing").exists()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"limit": 0}])
def test_bad_arguments(root, folder, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        update(root, folder, **options)


def test_what_is_open_stays_as_it_was(root, folder):
    store = FeatureStore.open(folder)
    rows = np.array(store.features)
    hashes = [store.hash_of(id) for id in range(23)]
    change_everything(root)
    update(root, folder)
    update(root, folder)
    assert not (folder / "catalog.sqlite").exists()
    np.testing.assert_array_equal(store.features, rows)
    assert [store.hash_of(id) for id in range(23)] == hashes
    assert len(store.items) == len(store.ids) == 23
    assert sum(store.labels().values()) == 23


def test_progress_is_reported_and_only_one_may_sync(root, folder):
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        with pytest.raises(StoreError, match="being brought up to date by another process"):
            update(root, folder)

    for number in range(5):
        paint(root / f"new {number}.png", number)
    update(root, folder, progress=progress, batch_size=2)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_interrupted_sync_goes_on(root, folder, caplog):
    for number in range(6):
        paint(root / f"new {number}.png", number)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(root, folder, progress=stop, batch_size=2)
    assert FeatureStore.open(folder).generation == 0
    paint(root / "new 0.png", 77)  # edited after it was encoded
    with caplog.at_level("INFO"):
        _, encoder = update(root, folder)
    assert encoder.encoded == 3
    assert "going on after 3 of 6 images" in caplog.text
    assert_as_fresh(folder, root)


def test_collection_made_before_there_was_sync(root, folder):
    """Its catalog has neither generations nor removed images, and its manifest does not name the catalog."""
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.executescript("ALTER TABLE images DROP COLUMN generation; DROP TABLE removed")
    store = FeatureStore.open(folder)
    for key in ("generation", "removed", "catalog"):
        del store.manifest[key]
    (folder / "manifest.json").write_text(json.dumps(store.manifest))
    assert len(FeatureStore.open(folder).items) == 23
    change_everything(root)
    update(root, folder)
    assert_as_fresh(folder, root)


def test_what_else_the_catalog_holds_is_kept(root, folder):
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.execute("CREATE TABLE tags (image_id INTEGER, tag TEXT)")
        catalog.execute("INSERT INTO tags VALUES (3, 'mine')")
    change_everything(root)
    update(root, folder)
    with sqlite3.connect(folder / FeatureStore.open(folder).manifest["catalog"]["file"]) as catalog:
        assert catalog.execute("SELECT * FROM tags").fetchall() == [(3, "mine")]


KILLED = """
import os, shutil, sys
from pathlib import Path
from killing import kill_before
from test_extract import FakeEncoder
from features.datasets import ImageFolder
from features.collection.sync import sync

root, folder, copies = map(Path, sys.argv[1:])
for step in range(1, 100):
    copy = shutil.copytree(folder, copies / str(step) / "c")
    child = os.fork()
    if child == 0:
        kill_before(step, copy)
        sync(ImageFolder(root), FakeEncoder(), copy, progress=False, batch_size=1)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(ended)
    if ended != -9:
        sys.exit(ended)
"""


@pytest.mark.slow
def test_killed_at_any_step_it_is_the_old_one_or_the_new_one(root, folder, tmp_path):
    """kill -9 before each file operation in turn; then an ordinary sync finishes the work."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    old = by_path(FeatureStore.open(folder))
    change_everything(root)
    update(root, shutil.copytree(folder, tmp_path / "new"))
    new = by_path(FeatureStore.open(tmp_path / "new"))
    copies = tmp_path / "copies"
    done = subprocess.run([sys.executable, script, root, folder, copies], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, ended = map(int, done.stdout.split())
    assert (set(killed), ended) == ({-9}, 0)
    outcomes = []
    for step in range(1, len(killed) + 1):
        copy = copies / str(step) / "c"
        store = FeatureStore.open(copy)
        store.verify()
        outcomes.append(by_path(store) == new)
        assert outcomes[-1] or by_path(store) == old
        update(root, copy)
        assert_as_fresh(copy, root)
    assert len(outcomes) > 8
    assert outcomes == sorted(outcomes), "once new, always new"
    assert set(outcomes) == {False, True}


def test_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("features.encoders.create_encoder", lambda name, weights: FakeEncoder())
    monkeypatch.setattr("features.encoders.encoder_for", lambda spec: FakeEncoder())
    command = ["--data", "images", "--sync"]
    assert main([*command, "--limit", "20", "--dtype", "float32"]) == 0, "a first extraction if there is nothing yet"
    assert capsys.readouterr().out == "collections/images: 20 images (0 damaged), 12-d float32, fake\n"
    change_everything(root)
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "5 added, 2 edited, 2 renamed, 1 removed, 2 damaged, 15 unchanged"
    assert out[1].startswith("cannot be read: ")
    assert out[-1] == "collections/images: 24 images (2 damaged), 12-d float32, fake"
    assert main([*command, "--dtype", "float16"]) == 1
    assert "holds float32, now float16" in capsys.readouterr().err
