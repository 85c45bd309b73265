"""What the notebooks share: which collection they open, and pictures that are small enough to commit."""

import importlib
import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from features.collection.store import StoreError


@pytest.fixture
def common(workspace, demo_collection, monkeypatch):
    """The module, with `workspace` for the project's root."""
    with matplotlib.rc_context():  # it sets how plots look, in this process too
        module = importlib.import_module("common")
        monkeypatch.setattr(module, "ROOT", workspace)
        yield module


@pytest.fixture
def shown(common, monkeypatch):
    """JPEG files that were shown."""
    files = []
    monkeypatch.setattr(common, "display", lambda image: files.append(image.data))
    return files


def test_a_collection_that_was_not_made_is_the_demo_and_says_so(common, capsys):
    store = common.open_collection("caltech101")
    assert store.folder.name == "demo"
    assert "no collection 'caltech101' here" in capsys.readouterr().out
    assert common.open_collection("demo").folder == store.folder
    assert capsys.readouterr().out == "demo: 340 images, 8 labels, efficientnet-lite0, d = 2048, float16, cosine\n"


def test_no_collection_at_all_is_an_error(common, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    with pytest.raises(StoreError, match="demo is not a collection"):
        common.open_collection("caltech101")


def test_rows_show_the_pictures_they_name(common, shown):
    store = common.open_collection("demo")
    rows = [[0, 1, 2], [100, -1, 300]]
    common.picture_rows(store, rows, side=64)
    (data,) = shown
    picture = np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32)
    assert len(data) < 20_000

    def middle(pixels, y, x):
        return pixels[int(y) - 10 : int(y) + 10, int(x) - 10 : int(x) + 10].mean((0, 1))

    height, width = picture.shape[:2]
    for row, ids in enumerate(rows):
        for column, id in enumerate(ids):
            found = middle(picture, height * (row + 0.5) / 2, width * (column + 0.5) / 3)
            own = np.full((64, 64, 3), 255) if id < 0 else common.thumbnail(store.items[id].path, 64)
            np.testing.assert_allclose(found, middle(own, own.shape[0] / 2, own.shape[1] / 2), atol=12)


def test_a_row_may_hold_pictures_themselves_with_lines_and_frames(common, shown):
    store = common.open_collection("demo")
    red = np.full((30, 60, 3), (200, 0, 0), np.uint8)
    common.picture_rows(store, [[red, 5]], titles=["row"], captions=[["a" * 40, "b"]], colors=[["#000000", "#00ff00"]])
    picture = np.asarray(Image.open(io.BytesIO(shown[0])), dtype=int)
    assert ((picture[:, :, 0] > 150) & (picture[:, :, 1:].max(2) < 60)).sum() > 1000
    assert ((picture[:, :, 1] > 150) & (picture[:, :, ::2].max(2) < 110)).any()
    assert len(common.shorten("a" * 40)) == len(common.shorten("a" * 15)) == 15


def test_a_table_says_what_it_is_given(common, monkeypatch):
    tables = []
    monkeypatch.setattr(common, "display", lambda table: tables.append(table.data))
    common.show_table(["encoder", "d", "mAP", "zeros"], [("pixels", 3072, 0.12345, "4.1%"), ("other", "", "", "")])
    assert tables[0].splitlines() == [
        "| encoder | d | mAP | zeros |",
        "| --- | ---: | ---: | ---: |",
        "| pixels | 3,072 | 0.123 | 4.1% |",
        "| other |  |  |  |",
    ]


def test_docs_show_caltech101_alone(common, workspace):
    store = common.open_collection("demo")
    (workspace / "docs").mkdir(exist_ok=True)
    common.keep_for_docs(Figure(), "figure.png", store)
    assert not (workspace / "docs" / "figure.png").exists()
    store.manifest["dataset"] = "caltech101"
    common.keep_for_docs(Figure(), "figure.png", store)
    assert Image.open(workspace / "docs" / "figure.png").format == "PNG"
