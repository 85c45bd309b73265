"""What a collection leaves out of its folder, and which links it follows, is chosen once and kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from test_extract import FakeEncoder, make_images
from test_routes_pictures import serve
from test_sync import paint

from features import extract
from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.images import DecodeLimits, decode_image, decode_with_size
from gradio_app import create_index
from gradio_app.routes.pictures import folder_of, picture_url
from gradio_app.session import QueryPicture
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
    assert folder_of(SimpleNamespace(store=store)) == (tmp_path / "images", True, None)
    paint(tmp_path / "else/farther.png", 3)
    sync_collection(Path("collections/images"), encoder=FakeEncoder(), progress=False)
    assert {"link/far.png", "link/farther.png"} <= set(paths())
    manifest = json.loads(path.read_text())
    assert "follow_links" not in manifest
    assert manifest["source"]["follow_links"] is True


@pytest.fixture
def small_limit(monkeypatch):
    """A limit of 2,000 pixels in place of a hundred million, which would cost gigabytes."""
    for function in (decode_image, decode_with_size):
        monkeypatch.setitem(function.__kwdefaults__, "limits", DecodeLimits(max_pixels=2_000))


def test_what_is_too_large_names_the_option_that_takes_it(tmp_path, command, small_limit, capsys):
    make_images(tmp_path / "images", 4)
    Image.new("RGB", (60, 50), "red").save(tmp_path / "images/large.png")
    arguments = ["--data", "images", *FAST]
    assert command(arguments) == 0
    assert "large.png" not in paths()
    ((path, reason),) = FeatureStore.open("collections/images").damaged()
    assert path == tmp_path / "images/large.png"
    assert reason.startswith("too large: 60 x 50 is 0.0 megapixels")
    assert "--max-megapixels" in reason

    raised = [*arguments, "--max-megapixels", "400"]
    assert command(raised) != 0
    assert "large.png was too large" in capsys.readouterr().err
    assert command([*raised, "--sync"]) == 0
    assert "large.png" in paths()
    assert source() == {"kind": "folder", "exclude": [], "follow_links": False, "max_megapixels": 400}

    Image.new("RGB", (70, 50), "blue").save(tmp_path / "images/larger.png")
    assert command([*arguments, "--sync"]) == 0
    Image.new("RGB", (80, 50), "green").save(tmp_path / "images/largest.png")
    sync_collection(Path("collections/images"), encoder=FakeEncoder(), progress=False)  # as the page does it
    assert {"large.png", "larger.png", "largest.png"} <= set(paths())
    assert source()["max_megapixels"] == 400
    assert FeatureStore.open("collections/images").manifest["damaged"] == 0
    before = Path("collections/images/manifest.json").read_bytes()
    assert command([*arguments, "--sync"]) == 0
    assert Path("collections/images/manifest.json").read_bytes() == before

    engine = SimpleNamespace(
        name="images", store=FeatureStore.open("collections/images"), folder=Path("collections/images")
    )
    large = next(item.id for item in engine.store.items if item.path.name == "large.png")
    for size in ("thumb", "view"):
        assert serve(engine).get(picture_url(engine, large, size)).status_code == 200
    assert QueryPicture.of(engine, large).width == 60


def test_a_new_collection_takes_what_the_option_allows(tmp_path, command, small_limit):
    make_images(tmp_path / "images", 4)
    Image.new("RGB", (60, 50), "red").save(tmp_path / "images/large.png")
    Image.new("RGB", (70, 50), "red").save(tmp_path / "images/larger.png")
    assert command(["--data", "images", *FAST, "--max-megapixels", "0.0031"]) == 0
    assert "large.png" in paths()
    assert "larger.png" not in paths()
    assert source()["max_megapixels"] == 0.0031


def test_an_extraction_that_was_stopped_goes_on_with_a_higher_limit(tmp_path, small_limit):
    make_images(tmp_path / "images", 6)
    Image.new("RGB", (60, 50), "red").save(tmp_path / "images/a.png")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.extract(ImageFolder("images"), FakeEncoder(), "c", batch_size=3, progress=stop)
    encoder = FakeEncoder()
    store = extract.extract(ImageFolder("images", max_megapixels=400), encoder, "c", batch_size=3, progress=False)
    assert store.damaged() == []
    assert encoder.encoded == 5  # a.png, and the four that were not encoded before it was stopped


@pytest.mark.parametrize("megapixels", ["0", "-3", "nan", "inf", "1e9"])
def test_a_limit_is_a_number_of_megapixels(tmp_path, command, megapixels, capsys):
    make_images(tmp_path / "images", 2)
    assert command(["--data", "images", *FAST, f"--max-megapixels={megapixels}"]) != 0
    assert "max_megapixels must be more than 0 and at most 100000" in capsys.readouterr().err
    assert not Path("collections").exists()


def test_a_plain_run_says_of_a_plain_folder_what_it_is(tmp_path, command):
    make_images(tmp_path / "images", 4)
    assert command(["--data", "images", *FAST]) == 0
    assert source() == {"kind": "folder", "exclude": [], "follow_links": False}
    before = Path("collections/images/manifest.json").read_bytes()
    assert command(["--data", "images", *FAST, "--sync"]) == 0
    assert Path("collections/images/manifest.json").read_bytes() == before
