"""What a collection leaves out of its folder, and which links it follows, is chosen once and kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_extract import FakeEncoder, make_images
from test_sync import paint

from features import extract
from features.collection.store import FeatureStore
from features.encoders import register_encoder, registry
from gradio_app import create_index
from gradio_app.routes.pictures import folder_of
from search.build import sync_collection

FAST = ["--encoder", "fake"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())


@pytest.fixture(params=["extract", "create_index"])
def command(request):
    """Both commands that make and sync collections."""
    if request.param == "extract":
        return extract.main
    return lambda arguments: create_index.main([*arguments, "--factory", "Flat"])


def paths() -> list[str]:
    store = FeatureStore.open("collections/images")
    return [item.path.relative_to(store.manifest["root"]).as_posix() for item in store.items if item.error is None]


def source() -> dict:
    return json.loads(Path("collections/images/manifest.json").read_text())["source"]


def test_what_was_left_out_stays_out_until_asked_for(tmp_path, command):
    make_images(tmp_path / "images", 4)
    paint(tmp_path / "images/private/1.png", 1)
    paint(tmp_path / "else/far.png", 2)
    (tmp_path / "images/link").symlink_to(tmp_path / "else")
    arguments = ["--data", "images", *FAST]
    assert command([*arguments, "--exclude", "private", "--exclude", "*.gif", "--follow-links"]) == 0
    assert source() == {"kind": "folder", "exclude": ["private", "*.gif"], "follow_links": True}
    made = paths()
    assert "link/far.png" in made
    assert not [path for path in made if "private" in path]

    paint(tmp_path / "images/private/2.png", 3)
    paint(tmp_path / "images/new.png", 4)
    assert command([*arguments, "--sync"]) == 0
    assert set(paths()) == {*made, "new.png"}
    paint(tmp_path / "else/farther.png", 5)
    sync_collection(Path("collections/images"), encoder=FakeEncoder())  # as the page does it
    assert set(paths()) == {*made, "new.png", "link/farther.png"}
    assert source() == {"kind": "folder", "exclude": ["private", "*.gif"], "follow_links": True}

    assert command([*arguments, "--sync", "--exclude", "nothing"]) == 0
    assert {"private/1.png", "private/2.png", "link/far.png"} <= set(paths())
    assert source() == {"kind": "folder", "exclude": ["nothing"], "follow_links": True}


@pytest.mark.parametrize("says", [{}, {"source": {"kind": "folder"}}, {"source": {}}, "both"])
def test_collections_that_keep_the_links_beside_the_source_still_follow_them(tmp_path, says):
    make_images(tmp_path / "images", 2)
    paint(tmp_path / "else/far.png", 2)
    (tmp_path / "images/link").symlink_to(tmp_path / "else")
    assert extract.main(["--data", "images", *FAST, "--follow-links"]) == 0
    path = Path("collections/images/manifest.json")
    manifest = json.loads(path.read_text())
    assert "follow_links" not in manifest
    source = manifest.pop("source")
    path.write_text(json.dumps({**manifest, "follow_links": True, **({"source": source} if says == "both" else says)}))

    store = FeatureStore.open("collections/images")
    assert folder_of(SimpleNamespace(store=store)) == (tmp_path / "images", True)
    paint(tmp_path / "else/farther.png", 3)
    sync_collection(Path("collections/images"), encoder=FakeEncoder(), progress=False)
    assert {"link/far.png", "link/farther.png"} <= set(paths())
    manifest = json.loads(path.read_text())
    assert "follow_links" not in manifest
    assert manifest["source"]["follow_links"] is True


def test_a_plain_run_says_of_a_plain_folder_what_it_is(tmp_path, command):
    make_images(tmp_path / "images", 4)
    assert command(["--data", "images", *FAST]) == 0
    assert source() == {"kind": "folder", "exclude": [], "follow_links": False}
    before = Path("collections/images/manifest.json").read_bytes()
    assert command(["--data", "images", *FAST, "--sync"]) == 0
    assert Path("collections/images/manifest.json").read_bytes() == before
