"""Details of a picture's file: its path for who may manage, what the camera wrote, and its list of the index."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import ExifTags, Image
from test_annotations import paint
from test_store import write

from features.images.exif import Exif, read_exif
from gradio_app.routes.access import StartToken
from gradio_app.routes.details import detail_routes
from ivfpq import IndexIVFPQ

TOKEN = StartToken()


def photograph(path, gps=None):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon\0", "EOS <b>5D</b>"
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ExposureTime: 0.005, ExifTags.Base.FNumber: 2.8})
    if gps:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path.read_bytes()


GPS = {1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0)}


def test_what_a_camera_wrote_is_read(tmp_path):
    found = read_exif(photograph(tmp_path / "a.jpg", GPS))
    assert found.values == {"Make": "Canon", "Model": "EOS <b>5D</b>", "ExposureTime": "1/200 s", "FNumber": "2.8"}
    assert found.place == pytest.approx((-33.86, 151.2))
    assert read_exif(photograph(tmp_path / "b.jpg")).place is None
    assert read_exif(photograph(tmp_path / "c.jpg", {**GPS, 2: (100.0, 0.0, 0.0)})).place is None
    assert read_exif(b"no picture") == Exif({})


@pytest.fixture
def engine(tmp_path):
    images = paint(tmp_path / "images", a="A", b="B", c="C", d="D", e="E")
    photograph(tmp_path / "images" / "a.jpg", GPS)
    index = IndexIVFPQ(4, nlist=2, M=2, nbits=2)
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    index.train(x)
    index.add(x)
    store = write(images, tmp_path / "c")
    return SimpleNamespace(store=store, name="c", engines=("ivfpq",), index=lambda name: index)


def client_of(engine, *, holds_token=True):
    app = FastAPI(routes=detail_routes({"c": engine}, TOKEN, is_managed=True))
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


def test_details_are_told_and_the_whole_path_only_to_who_may_manage(engine):
    item = engine.store.items[0]
    mine = client_of(engine).get("/details/c/0").text
    theirs = client_of(engine, holds_token=False).get("/details/c/0").text
    assert str(item.path) in mine
    assert str(item.path.parent) not in theirs
    assert "a.jpg" in theirs
    for page in (mine, theirs):
        assert "EOS &lt;b&gt;5D&lt;/b&gt;" in page
        assert f"{item.path.stat().st_size:,} bytes" in page
        assert "<summary>Show where it was taken</summary>-33.86000, 151.20000" in page
        assert " of 2, with " in page
    assert client_of(engine).get("/details/c/0?content=0000").status_code == 409
    assert client_of(engine).get("/details/c/9").status_code == 404
    assert "No" not in client_of(engine).get("/details/c/1").text  # no picture has no EXIF, and is no fault
