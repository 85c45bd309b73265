"""The text in pictures, drawn here and read for real, is found by the search box."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from meanings import WordSentences
from PIL import Image, ImageDraw, ImageFont
from test_extract import FakeEncoder

from features.collection.said import Maker
from features.datasets import ImageFolder
from features.encoding import extract
from features.makers import MakerError, create_maker
from features.makers import ocr as module
from features.store import FeatureStore
from search.annotate import annotate, main
from search.build import create_index
from search.engine import SearchEngine

FONT = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
OCR = Maker("ocr", "rapidocr")

pytest.importorskip("rapidocr")


def draw(path, *lines):
    image = Image.new("RGB", (640, 240), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((20, 20 + 100 * number), line, "black", ImageFont.truetype(FONT, 48))
    image.save(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A sign, a menu, a picture without text, one of two rows, and one that is damaged by the time it is read."""
    folder = tmp_path_factory.mktemp("ocr")
    (folder / "images").mkdir()
    draw(folder / "images" / "0.png", "STOP AHEAD 42 km")
    draw(folder / "images" / "1.png", "Café Müller", "Öffnet um 9")
    Image.new("RGB", (200, 100), (30, 90, 200)).save(folder / "images" / "2.png")
    Image.new("RGB", (8000, 2), "white").save(folder / "images" / "3.png")
    draw(folder / "images" / "4.png", "GONE")
    store = extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "c", progress=False)
    create_index(store, factory="Flat")
    (folder / "images" / "4.png").write_bytes(b"no picture any more")
    return store


@pytest.fixture(scope="module")
def report(drawn):
    return annotate(drawn, create_maker("ocr", drawn), progress=False)


@pytest.fixture
def engine(drawn, report, monkeypatch):
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    return SearchEngine.open(drawn.folder)


def test_what_stands_in_a_picture_is_its_caption(drawn, report):
    said = drawn.annotations.of(range(5))
    assert {id: [caption.text for caption in each.captions] for id, each in said.items()} == {
        0: ["STOP AHEAD 42 km"],
        1: ["Café Müller Öffnet um 9"],
    }
    assert all(0.9 < caption.certainty <= 1 and caption.maker == OCR for caption in said[0].captions + said[1].captions)
    assert (report.looked_at, report.with_words, report.captions) == (5, 2, 2)


def test_a_picture_that_cannot_be_read_is_a_sentence_and_the_others_are_read(report):
    thin, damaged = report.notes
    assert "no text was read in" in thin
    assert "3.png: ResizeImgError" in thin
    assert "4.png" in damaged
    assert "not an image" in damaged


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("stop", (0,)),
        ('"stop ahead"', (0,)),
        ("cafe muller", (1,)),
        ("CAFÉ", (1,)),
        ("offnet", (1,)),
        ("source:ocr", (0, 1)),
        ("stop source:ocr", (0, 1)),
    ],
)
def test_the_search_box_finds_it_whatever_the_accents(engine, typed, ids):
    assert engine.search(typed).ids[: len(ids)] == ids


def test_a_filter_by_source_lets_nothing_else_through(engine):
    assert engine.search("source:ocr").ids == (0, 1)
    assert engine.search("-source:ocr").ids == (2, 3, 4)


class QuickReader:
    """Reads "read" in every picture, until it is stopped."""

    def __init__(self, left=9):
        self.left, self.seen = left, []

    def __call__(self, pixels, use_det):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen.append(pixels)
        return SimpleNamespace(txts=("read",), scores=(0.75,))


@pytest.fixture
def store(drawn, tmp_path):
    """The same pictures, of which nothing is said."""
    copy = shutil.ignore_patterns("annotations.sqlite*")
    return FeatureStore.open(shutil.copytree(drawn.folder, tmp_path / "c", ignore=copy))


def maker_with(store, reader):
    maker = create_maker("ocr", store)
    maker.__dict__["_reader"] = reader
    return maker


def test_a_run_that_is_stopped_goes_on_and_a_second_one_reads_nothing(store):
    maker = maker_with(store, QuickReader(left=3))
    maker.batch_size = 2
    with pytest.raises(KeyboardInterrupt):
        annotate(store, maker, progress=False)
    assert store.annotations.of(range(5)).keys() == {0, 1}
    assert annotate(store, maker_with(store, QuickReader()), progress=False).looked_at == 3
    assert store.annotations.of(range(5)).keys() == {0, 1, 2, 3}
    last = create_maker("ocr", store)
    assert annotate(store, last, progress=False).looked_at == 0
    assert "_reader" not in vars(last), "no network is loaded where there is nothing to read"


def test_a_picture_that_is_away_is_looked_at_the_next_time(store, tmp_path):
    path = Path(store.manifest["root"], "2.png")
    shutil.move(path, tmp_path / "2.png")
    try:
        away = annotate(store, maker_with(store, QuickReader()), progress=False)
    finally:
        shutil.move(tmp_path / "2.png", path)
    assert (away.looked_at, away.with_words) == (4, 3)
    assert sum("2.png" in note for note in away.notes) == 1
    again = annotate(store, maker_with(store, QuickReader()), progress=False)
    assert (again.looked_at, again.with_words) == (1, 1)


def test_without_the_package_it_says_what_to_install(drawn, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(drawn.folder), "--maker", "ocr", "--quiet"]) == 2
    assert "pip install rapidocr==3.10.0" in capsys.readouterr().err


def test_nothing_is_downloaded_for_networks_that_are_damaged(drawn, monkeypatch, tmp_path):
    package = Path(importlib.util.find_spec("rapidocr").origin).parent
    (tmp_path / "models").mkdir()
    for name in module._NETWORKS.values():
        (tmp_path / "models" / name).write_bytes((package / "models" / name).read_bytes()[:1000])
    find = importlib.util.find_spec

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: Spec if name == "rapidocr" else find(name, *rest)
    )
    monkeypatch.setattr("requests.Session.send", lambda *_, **__: pytest.fail("the network was asked"))
    maker = create_maker("ocr", drawn)
    with pytest.raises(MakerError, match=r"cannot be read .*--force-reinstall --no-deps rapidocr==3.10.0"):
        maker.words_of(drawn.records([0]))


def test_colours_reach_the_reader_as_it_takes_them(drawn):
    reader = QuickReader()
    maker_with(drawn, reader).words_of(drawn.records([2]))
    np.testing.assert_array_equal(reader.seen[0][0, 0], [200, 90, 30])
