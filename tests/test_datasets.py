"""Which images a dataset holds, in which order, with which labels."""

import hashlib
import io
import json
import os
from pathlib import Path, PurePath
from types import SimpleNamespace

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
    register_dataset,
    registry,
    reopen_dataset,
    source_of,
    spec_of,
)
from features.datasets.demo import View, make_views, render
from features.datasets.walk import why_not_taken


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
    monkeypatch.setattr("features.datasets.walk.extensions", lambda: frozenset({".jpg"}))
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert relative(ImageFolder(tmp_path)) == ["1.jpg"]
    assert "2 HEIC images are passed over: pip install pillow-heif" in caplog.text
    assert f"{tmp_path / 'locked'} is passed over: Permission denied" in caplog.text


def test_what_systems_keep_for_themselves_is_left_out(tmp_path, caplog):
    kept = ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/2.jpg", "$RECYCLE.BIN/S-1/3.jpg", "__MACOSX/._4.jpg")
    touch(tmp_path, "1.jpg", "a/@eaDir/5.jpg/x.jpg", "System Volume Information/6.jpg", ".thumbnails/7.jpg", *kept)
    assert relative(ImageFolder(tmp_path)) == ["1.jpg"]
    assert "6 system folders are passed over (#recycle, $RECYCLE.BIN, @eaDir, ...)" in caplog.text


def test_patterns_are_excluded(tmp_path):
    touch(
        tmp_path, "1.jpg", "2.gif", "a/3.jpg", "a/4.gif", "private/5.jpg", "b/private/6.jpg", "b/c/7.jpg", "b/c2/8.jpg"
    )
    assert relative(ImageFolder(tmp_path, exclude=["*.gif", "private", "b/c/"])) == ["1.jpg", "a/3.jpg", "b/c2/8.jpg"]
    assert relative(ImageFolder(tmp_path, exclude=["b/*", "a/3.jpg"])) == ["1.jpg", "2.gif", "a/4.gif", "private/5.jpg"]
    with pytest.raises(DatasetError, match=r"no images in .*: 5 files and folders are left out, as --exclude says"):
        _ = ImageFolder(tmp_path, exclude=["*"]).items
    with pytest.raises(DatasetError, match="is for folders of images, not for caltech"):
        open_dataset("caltech", exclude=["*.gif"])


def test_pictures_by_other_names(tmp_path):
    touch(tmp_path, "1.MPO", "2.jfif", "3.insp", "notes.txt", "README", "12.30.45")
    jpeg = io.BytesIO()
    Image.new("RGB", (3, 2)).save(jpeg, "JPEG")
    for name in ("IMG_0001", "Screenshot 12.30.46", "scan.of yesterday", "0", "not a picture.txt"):
        (tmp_path / name).write_bytes(jpeg.getvalue())
    (tmp_path / "BMW").write_bytes(b"BMW is a maker of cars")
    assert relative(ImageFolder(tmp_path)) == [
        "0", "1.MPO", "2.jfif", "3.insp", "IMG_0001", "Screenshot 12.30.46", "scan.of yesterday",
    ]  # fmt: skip


def test_kinds_that_nothing_reads_are_counted_with_the_reason(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("features.datasets.walk.extensions", lambda: frozenset({".jpg"}))
    touch(tmp_path, "1.jpg", "a.hif", "b.jxl", "c.dng", "d.CR2", "e.nef", "f.svg", "g.txt")
    assert relative(ImageFolder(tmp_path)) == ["1.jpg"]
    for sentence in (
        "1 HEIC images are passed over: pip install pillow-heif to read them",
        "1 JPEG XL images are passed over: pip install pillow-jxl-plugin to read them",
        "3 camera raw images are passed over: pip install rawpy to read them",
        "1 .svg files are passed over: they hold drawings or pages, not pixels",
    ):
        assert sentence in caplog.text
    assert ".txt" not in caplog.text
    (tmp_path / "1.jpg").unlink()
    touch(tmp_path, "h.txt", "i")
    with pytest.raises(
        DatasetError, match=r"no images in .*: 3 camera raw .*; 2 other files \(\.txt\); 1 .*no extension"
    ):
        _ = ImageFolder(tmp_path).items
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no images in .*: the folder is empty"):
        _ = ImageFolder(tmp_path / "empty").items


@pytest.mark.parametrize("follow_links", [False, True])
def test_pipes_and_devices_are_named_and_never_opened(tmp_path, caplog, follow_links):
    touch(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "cam.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    assert relative(ImageFolder(tmp_path, follow_links=follow_links)) == ["1.jpg"]
    assert "2 named pipes are passed over: pictures are files (cam.jpg, pipe)" in caplog.text
    assert "zero.jpg" in caplog.text


def test_what_is_left_out_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("features.datasets.walk.extensions", lambda: frozenset({".jpg"}))
    touch(tmp_path, "1.jpg", "a/b.hif", "a/c.txt", "a/.hidden", "@eaDir/2.jpg", "README", "x/3.jpg")
    folder = ImageFolder(tmp_path, exclude=["x"])
    assert relative(folder) == ["1.jpg"]
    found = {
        "@eaDir": "system folders are passed over",
        "README": "other files (no extension)",
        "a/b.hif": "HEIC images are passed over: pip install pillow-heif to read them",
        "a/c.txt": "other files (.txt)",
        "x": "files and folders are left out, as --exclude says",
    }
    assert dict(folder.left_out) == found and folder.left_out_count == 5
    names = [PurePath(name) for name in ("1.jpg", "README", *found)]
    assert [why_not_taken(name) for name in names] == [
        None, None, None, None, found["a/b.hif"], found["a/c.txt"], None,
    ]  # fmt: skip
    assert why_not_taken(PurePath("@eaDir/2.jpg")) == found["@eaDir"]
    assert why_not_taken(PurePath("a/.hidden")) == why_not_taken(PurePath(".a/1.jpg")) == "hidden files and folders"
    monkeypatch.setattr("features.datasets.walk.MAX_NAMED", 2)
    folder = ImageFolder(tmp_path, exclude=["x"])
    assert relative(folder) == ["1.jpg"] and (len(folder.left_out), folder.left_out_count) == (2, 5)


def test_links_out_of_the_folder_are_taken_only_when_asked_for(tmp_path, caplog):
    root = tmp_path / "root"
    touch(root, "1.jpg", "a/2.jpg")
    touch(tmp_path, "else/3.jpg", "else/deep/4.jpg", "5.jpg")
    (root / "file.jpg").symlink_to(tmp_path / "5.jpg")
    (root / "inner.jpg").symlink_to("a/2.jpg")
    (root / "other").symlink_to(tmp_path / "else")
    (root / "again").symlink_to(tmp_path / "else/deep")
    (root / "within").symlink_to("a")
    (tmp_path / "else/back").symlink_to(root)
    (tmp_path / "else/deep/loop").symlink_to("..")
    (root / "circle.jpg").symlink_to("circle.jpg")
    (root / "up").symlink_to(tmp_path)
    plain = ["1.jpg", "a/2.jpg", "circle.jpg", "inner.jpg"]
    assert relative(ImageFolder(root)) == plain
    assert "4 links that lead out of the folder are passed over: --follow-links takes them (again" in caplog.text
    followed = ImageFolder(root, follow_links=True)
    assert relative(followed) == sorted([*plain, "file.jpg", "again/4.jpg", "again/loop/3.jpg", "up/5.jpg"])
    assert_well_formed(followed)
    labels = {item.path.name: item.labels for item in followed.items}
    assert (labels["3.jpg"], labels["5.jpg"]) == (("again/loop",), ("up",))


def test_a_link_whose_drive_is_away_stays_listed(tmp_path):
    touch(tmp_path, "drive/1.jpg", "root/2.jpg")
    (tmp_path / "root/1.jpg").symlink_to(tmp_path / "drive/1.jpg")
    (tmp_path / "drive/1.jpg").unlink()
    assert relative(ImageFolder(tmp_path / "root", follow_links=True)) == ["1.jpg", "2.jpg"]
    assert relative(ImageFolder(tmp_path / "root")) == ["2.jpg"]


def test_a_tilde_that_names_nobody_is_part_of_the_name(tmp_path, monkeypatch):
    touch(tmp_path, "~old pictures/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert relative(open_dataset("~old pictures")) == ["1.jpg"]
    for nowhere in ("~nobody of this name", "~nobody of this name/x"):
        with pytest.raises(DatasetError, match=f"unknown dataset '{nowhere}'"):
            open_dataset(nowhere)
    monkeypatch.setenv("HOME", str(tmp_path / "~old pictures"))
    assert relative(open_dataset("~")) == ["1.jpg"]


def test_what_a_manifest_keeps_opens_the_same_again(tmp_path, small_demo):
    touch(
        tmp_path,
        "caltech101/a/1.jpg",
        "VOCdevkit/VOC2012/JPEGImages/1.jpg",
        "own/caltech101/a/1.jpg",
        "own/caltech101/2.png",
    )
    for spec in ("caltech", "voc", "demo", str(tmp_path / "own/caltech101")):
        dataset = open_dataset(spec, datasets_dir=tmp_path)
        source = json.loads(json.dumps(source_of(dataset)))
        again = reopen_dataset(dataset.name, str(dataset.root), source)
        assert (type(again), again.items) == (type(dataset), dataset.items)
        assert spec_of(dataset.name, dataset.root, source) == spec
    (tmp_path / "link.png").symlink_to(tmp_path / "own/caltech101/2.png")
    (tmp_path / "own/caltech101/3.png").symlink_to("/nowhere/3.png")
    dataset = ImageFolder(tmp_path / "own/caltech101", exclude=["a"], follow_links=True)
    again = reopen_dataset(dataset.name, dataset.root, json.loads(json.dumps(source_of(dataset))))
    assert relative(again) == relative(dataset) == ["2.png", "3.png"]
    assert source_of(SimpleNamespace(name="x", root=tmp_path, items=[])) == {}


def test_a_new_dataset_is_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))

    class Mine(ImageFolder):
        name, kind, location = "mine", "my-own", "mine"

        def __init__(self, root):
            super().__init__(root)
            self.name, self.options = "mine", {}

        @classmethod
        def is_at(cls, root):
            return True

    register_dataset("my-own", Mine)
    touch(tmp_path, "mine/1.jpg")
    dataset = open_dataset("my-own", datasets_dir=tmp_path)
    assert type(dataset) is Mine
    assert type(reopen_dataset("mine", dataset.root, source_of(dataset))) is Mine
    assert spec_of("mine", dataset.root) == "my-own"
    with pytest.raises(DatasetError, match="none of caltech, voc, demo and my-own, and no such"):
        open_dataset("x")


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
def test_whole_demo_is_about_a_thousand_views_of_many_photographs(workspace):
    dataset = open_dataset("demo", datasets_dir=workspace / "datasets")
    assert 900 <= len(dataset.items) <= 1100
    assert len({item.labels for item in dataset.items}) >= 20
    assert sum(item.path.stat().st_size for item in dataset.items) < 40e6
