"""Which camera a picture was taken with: read from its file as it is encoded, or by a sync; a field and a facet."""

import errno
import io
import sqlite3

import pytest
from PIL import ExifTags, Image, PngImagePlugin
from test_details import photograph
from test_extract import FakeEncoder

from features.collection.sync import sync
from features.datasets import ImageFolder
from features.encoding import extract
from features.images.exif import camera_of
from features.store import FeatureStore
from search.facets import Facets
from search.filters import Filter


def taken_with(path, maker, model, form="JPEG", **options):
    exif = Image.Exif()
    exif.update({ExifTags.Base.Make: maker, ExifTags.Base.Model: model})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (len(path.name) * 9, 0, 99)).save(path, form, exif=exif, **options)
    return path


@pytest.mark.parametrize(
    ("maker", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("", "DSC-W55\0\0 ", "DSC-W55"),
        ("Pentax", "", "Pentax"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_model_comes_after_its_maker_unless_it_names_it(tmp_path, maker, model, camera, form):
    path = taken_with(tmp_path / "a", maker, model, form)
    assert camera_of(path.read_bytes()) == camera
    with path.open("rb") as file:
        assert camera_of(file) == camera


def test_what_says_nothing_or_makes_no_sense_is_no_camera(tmp_path):
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG", pnginfo=PngImagePlugin.PngInfo())
    for content in (b"", b"no picture", plain.getvalue(), photograph(tmp_path / "a.jpg")[:40]):
        assert camera_of(content) == ""


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "images"
    taken_with(root / "a.jpg", "Canon", "Canon EOS 5D")
    taken_with(root / "bb.jpg", "NIKON CORPORATION", "NIKON D90")
    taken_with(root / "ccc.png", "NIKON CORPORATION", "Nikon D90", "PNG")
    Image.new("RGB", (16, 12), (1, 2, 3)).save(root / "none.jpg")
    (root / "zz.jpg").write_bytes(b"damaged")
    return root


def chosen(store, filter):
    return Filter.of(filter).ids(store).tolist()


def check(store):
    (facet,) = [each for each in Facets(store).of(Filter(), ["camera"]) if each.field == "camera"]
    assert [(value.text, value.count) for value in facet.values] == [("NIKON D90", 2), ("Canon EOS 5D", 1), ("none", 1)]
    for value in facet.values:
        assert len(chosen(store, value.tree)) == value.count
    assert chosen(store, {"camera": "nikon d90"}) == [1, 2]
    assert chosen(store, {"not": {"camera": {"prefix": "NIKON"}}}) == [0, 3]
    assert chosen(store, {"camera": {"empty": True}}) == [3]
    assert str(Filter.of({"camera": "NIKON D90"})) == "pictures taken with NIKON D90"


def test_it_is_read_as_a_picture_is_encoded_and_follows_it(pictures, tmp_path):
    store = extract(ImageFolder(pictures), FakeEncoder(), tmp_path / "c", progress=False)
    check(store)
    taken_with(pictures / "a.jpg", "Leica", "M11")
    taken_with(pictures / "dddd.jpg", "Leica", "M11")
    sync(ImageFolder(pictures), FakeEncoder(), tmp_path / "c", progress=False)
    assert chosen(FeatureStore.open(tmp_path / "c"), {"camera": "Leica M11"}) == [0, 5]


def test_a_collection_of_an_earlier_version_learns_it_at_its_next_sync(pictures, tmp_path):
    folder = tmp_path / "c"
    store = extract(ImageFolder(pictures), FakeEncoder(), folder, progress=False)
    with sqlite3.connect(folder / store.manifest["catalog"]["file"]) as catalog:
        catalog.executescript(
            "DROP INDEX images_camera; ALTER TABLE images DROP COLUMN camera; PRAGMA user_version = 4"
        )
    store.update_manifest(catalog={"file": store.manifest["catalog"]["file"]})
    earlier = FeatureStore.open(folder)
    assert "camera" not in {facet.field for facet in Facets(earlier).of(Filter(), ())}
    assert chosen(earlier, {"camera": {"empty": True}}) == [0, 1, 2, 3]
    report = sync(ImageFolder(pictures), FakeEncoder(), folder, progress=False)
    assert (report.edited, report.unchanged) == ((), 5), "nothing is encoded for it"
    check(FeatureStore.open(folder))
    before = FeatureStore.open(folder).generation
    sync(ImageFolder(pictures), FakeEncoder(), folder, progress=False)
    assert FeatureStore.open(folder).generation == before, "looked for once"


def test_a_file_that_cannot_be_read_names_no_camera_for_now(tmp_path):
    class Away(io.BytesIO):
        def read(self, *_):
            raise OSError(errno.EIO, "the drive is away")

    with pytest.raises(OSError, match="the drive is away"):
        camera_of(Away(b"..."))
