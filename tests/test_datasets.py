"""Which images a dataset holds, in which order, with which labels."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.datasets import (
    VOC2012,
    Caltech101,
    DatasetError,
    Demo,
    ImageFolder,
    demo,
    open_dataset,
    reopen_dataset,
    spec_of,
)
from features.datasets.demo import View, make_views, render


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not decoded here")


def relative(dataset) -> list[str]:
    return [item.path.relative_to(dataset.root).as_posix() for item in dataset.items]


def assert_well_formed(dataset) -> None:
    assert [item.id for item in dataset.items] == list(range(len(dataset.items)))
    assert dataset.root.is_absolute()
    assert all(item.path.is_absolute() and item.error is None for item in dataset.items)
    names = relative(dataset)
    assert names == sorted(names)


def test_caltech101_takes_the_images_of_the_class_folders_only(tmp_path):
    touch(tmp_path, "b/image_0001.jpg", "a/image_0002.jpg", "a/image_0001.jpg", "a/tmp", "stray.jpg", "a/x/deep.jpg")
    dataset = Caltech101(tmp_path)
    assert relative(dataset) == ["a/image_0001.jpg", "a/image_0002.jpg", "b/image_0001.jpg"]
    assert [item.labels for item in dataset.items] == [("a",), ("a",), ("b",)]
    assert_well_formed(dataset)


VOC_XML = """<annotation><filename>x.jpg</filename>
<object><name>person</name><part><name>head</name></part></object>
<object><name>horse</name></object><object><name>person</name></object></annotation>"""


def test_voc2012_labels_are_the_annotated_objects(tmp_path, caplog):
    touch(tmp_path, "JPEGImages/2.jpg", "JPEGImages/1.jpg", "JPEGImages/3.jpg", "JPEGImages/notes.txt")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/1.xml").write_text(VOC_XML)
    (tmp_path / "Annotations/2.xml").write_text(VOC_XML[:100])
    dataset = VOC2012(tmp_path)
    assert relative(dataset) == ["JPEGImages/1.jpg", "JPEGImages/2.jpg", "JPEGImages/3.jpg"]
    assert [item.labels for item in dataset.items] == [("horse", "person"), (), ()]
    assert "2.jpg" in caplog.text
    assert "3.jpg" in caplog.text
    assert_well_formed(dataset)


def test_image_folder_is_recursive_and_labelled_by_subfolder(tmp_path):
    wanted = ["animals/cats/1.PNG", "animals/cats/2.jpeg", "animals/z.webp", "top.jpg"]
    touch(tmp_path, *wanted, ".hidden.jpg", ".git/x.jpg", "animals/.thumbs/x.jpg", "notes.txt", "noextension", "a.pdf")
    dataset = ImageFolder(tmp_path)
    assert relative(dataset) == wanted
    assert [item.labels for item in dataset.items] == [("animals/cats",), ("animals/cats",), ("animals",), ()]
    assert dataset.name == tmp_path.name
    assert_well_formed(dataset)


def test_image_folder_does_not_follow_links_in_circles(tmp_path):
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert relative(ImageFolder(tmp_path)) == ["a/1.jpg"]


def test_what_image_folder_passes_over_is_told(tmp_path, monkeypatch, caplog):
    touch(tmp_path, "1.jpg", "a/2.HEIC", "a/3.heif", "locked/4.jpg")
    monkeypatch.setattr("features.datasets.folder.extensions", lambda: frozenset({".jpg"}))
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert relative(ImageFolder(tmp_path)) == ["1.jpg"]
    assert "2 HEIC images are passed over: pip install pillow-heif" in caplog.text
    assert f"{tmp_path / 'locked'} is passed over: Permission denied" in caplog.text


def test_names_that_are_not_utf8(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9/\xff.jpg"))
    (item,) = ImageFolder(tmp_path).items
    assert item.path.exists()
    assert item.labels == ("caf�",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("caltech", r"run ./data_download.sh caltech"),
        ("voc", r"run ./data_download.sh voc"),
        ("imagenet", r"unknown dataset 'imagenet'"),
        ("", r"unknown dataset ''"),
        ("empty", r"no images in"),
    ],
)
def test_what_is_not_there_says_so(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        open_dataset(spec)


def test_incomplete_download_says_so(tmp_path):
    (tmp_path / "caltech101").mkdir()
    (tmp_path / "VOCdevkit/VOC2012").mkdir(parents=True)
    for spec in ("caltech", "voc"):
        with pytest.raises(DatasetError, match=f"run ./data_download.sh {spec}"):
            open_dataset(spec, datasets_dir=tmp_path)


def test_named_datasets_and_folders_open(tmp_path):
    touch(tmp_path, "caltech101/a/1.jpg", "VOCdevkit/VOC2012/JPEGImages/1.jpg", "photos/1.jpg")
    specs = ["caltech", "voc", str(tmp_path / "photos")]
    opened = [open_dataset(spec, datasets_dir=tmp_path) for spec in specs]
    assert [dataset.name for dataset in opened] == ["caltech101", "voc2012", "photos"]
    assert [spec_of(dataset.name, dataset.root) for dataset in opened] == specs


def test_dataset_of_a_collection_is_opened_again(tmp_path, small_demo):
    touch(tmp_path, "caltech101/a/1.jpg", "VOCdevkit/VOC2012/JPEGImages/1.jpg", "photos/1.jpg", "own/voc2012/2.jpg")
    touch(tmp_path, "own/demo/3.jpg")
    for spec in ("caltech", "voc", "demo", *(str(tmp_path / own) for own in ("photos", "own/voc2012", "own/demo"))):
        dataset = open_dataset(spec, datasets_dir=tmp_path)
        again = reopen_dataset(dataset.name, str(dataset.root))
        assert (type(again), again.items) == (type(dataset), dataset.items)
    with pytest.raises(DatasetError, match="is not a folder"):
        reopen_dataset("photos", tmp_path / "gone")


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(demo, "VIEWS_PER_PHOTO", 4)
    monkeypatch.setattr(demo, "_PHOTOS", [p for p in demo._PHOTOS if p[0] in ("coffee", "chelsea the cat", "lion")])


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_demo_is_made_once_and_labelled_by_photograph(tmp_path, small_demo):
    dataset = open_dataset("demo", datasets_dir=tmp_path)
    assert_well_formed(dataset)
    assert [item.labels for item in dataset.items] == [
        (p,) for p in ("chelsea the cat", "coffee", "lion") for _ in range(4)
    ]
    made = dataset.items[0].path.stat().st_mtime_ns
    again = open_dataset("demo", datasets_dir=tmp_path)
    assert again.items == dataset.items
    assert again.items[0].path.stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_demo_follows_from_its_seed(tmp_path, small_demo):
    make_views(tmp_path / "a", seed=1)
    make_views(tmp_path / "b", seed=1)
    make_views(tmp_path / "c", seed=2)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a["coffee/coffee_00.jpg"] == c["coffee/coffee_00.jpg"]  # the first view is the whole photograph
    assert sum(a[name] != c[name] for name in a) == 3 * 3 + 1


def test_every_view_can_be_made_again_from_its_record(tmp_path, small_demo):
    make_views(tmp_path / "demo")
    record = json.loads((tmp_path / "demo/views.json").read_text())
    photos = {label: demo._find(module, name) for label, module, _, name in demo._PHOTOS}
    for entry in record["views"]:
        photo = Image.open(photos[entry["label"]]).convert("RGB")
        photo.thumbnail((900, 900), Image.Resampling.LANCZOS)
        view = View(**{name: entry[name] for name in View.__dataclass_fields__})
        rendered = np.asarray(render(photo, view), dtype=int)
        stored = np.asarray(Image.open(tmp_path / "demo" / entry["file"]), dtype=int)
        assert stored.shape == rendered.shape
        assert abs(stored - rendered).mean() < 6  # JPEG
        assert {"package", "version", "photo"} <= entry.keys()


def test_rotated_crops_never_show_the_empty_corners():
    white = Image.new("RGB", (300, 200), "white")
    generator = np.random.default_rng(0)
    rotated = 0
    for _ in range(300):
        view = demo._draw(generator, white.size)
        rotated += view.rotation != 0
        plain = View(view.rotation, view.crop, view.flip, 1.0, 1.0, 1.0, 0.0)
        assert np.asarray(render(white, plain)).min() >= 250, view
        assert min(view.crop[2] - view.crop[0], view.crop[3] - view.crop[1]) > 40
    assert rotated > 50


def test_photographs_that_are_not_installed_are_left_out(tmp_path, monkeypatch, small_demo):
    monkeypatch.setattr(demo, "_PHOTOS", [*demo._PHOTOS, ("x", "no_such_module", "none", "x.png")])
    make_views(tmp_path / "demo")
    assert {item.labels[0] for item in Demo(tmp_path / "demo").items} == {"chelsea the cat", "coffee", "lion"}
    monkeypatch.setattr(demo, "_PHOTOS", demo._PHOTOS[-1:])
    with pytest.raises(DatasetError, match="photographs"):
        Demo(tmp_path / "none")


def test_demo_does_not_overwrite_what_is_not_its_own(tmp_path):
    touch(tmp_path, "demo/mine.jpg")
    with pytest.raises(DatasetError, match="not the demo dataset"):
        Demo(tmp_path / "demo")
    assert (tmp_path / "demo/mine.jpg").exists()
    touch(tmp_path, "broken/views.json")
    with pytest.raises(DatasetError, match="damaged"):
        Demo(tmp_path / "broken")


@pytest.mark.slow
def test_whole_demo_is_about_a_thousand_views_of_many_photographs(tmp_path):
    dataset = open_dataset("demo", datasets_dir=tmp_path)
    assert 900 <= len(dataset.items) <= 1100
    assert len({item.labels for item in dataset.items}) >= 20
    assert sum(item.path.stat().st_size for item in dataset.items) < 40e6
