"""The study of looking at the object: its queries and its measures, on little."""

import numpy as np
from PIL import Image

from benchmarks import background as study
from features import background
from features.collection.lru_cache import LruCache
from features.encoders import EncoderError


def on_white_paper():
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[10:30, 10:30] = (200, 0, 0)
    pixels[18:22, 18:22] = 255  # a hole that belongs to it
    return pixels


def test_an_object_on_white_is_found_whole_and_pasted():
    mask = study.object_on_white(on_white_paper())
    assert mask.sum() == 400 and mask[10:30, 10:30].all()
    scene = np.full((10, 20, 3), 7, np.uint8)
    made = study.pasted(on_white_paper(), mask, scene)
    assert (made[mask] == on_white_paper()[mask]).all() and (made[~mask] == 7).all()
    half = study.pasted(on_white_paper(), mask, scene, 0.5)
    assert (half[15:25, 15:25] != 7).all() and (half == 7).all(axis=2).sum() == 40 * 40 - 100


def test_what_stands_on_no_white_or_is_too_small_or_large_is_none():
    grey, small = np.full((40, 40, 3), 99, np.uint8), np.full((40, 40, 3), 255, np.uint8)
    small[0:8, 0:8] = 0
    assert study.object_on_white(grey) is None
    assert study.object_on_white(small) is None


def test_measures_leave_the_query_itself_out():
    base = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    labels = np.array(["a", "a", "b", "a"])
    found = study.judged(base[[0]], np.array([0]), base, labels)
    # The other "a" first, then "b" and "a", which are as far: 1, and (1 + 2/3) / 2 on average.
    np.testing.assert_allclose(found, [1, 2 / 3, (1 + 2 / 3) / 2])


def test_the_command_tells_a_table_or_what_to_install(demo_collection, monkeypatch, capsys):
    monkeypatch.setattr(background, "shared_network", lambda: lambda prepared: prepared[0].mean(axis=0))
    monkeypatch.setattr(background, "_masks", LruCache())
    monkeypatch.setattr(study, "object_on_white", lambda pixels: np.ones(pixels.shape[:2], bool))
    arguments = [str(demo_collection), "--queries", "4", "--strange", "2"]
    assert study.main(arguments) == 0
    told = capsys.readouterr().out
    assert "4 ordinary queries | 2 objects in strange scenes" in told
    for row in ("as it is", "on white", "half-way", "all half-way"):
        assert f"\n| {row} | " in told

    def none():
        raise EncoderError("pip install it")

    monkeypatch.setattr(background, "shared_network", none)
    monkeypatch.setattr(background, "_masks", LruCache())
    assert study.main(arguments) == 2
    assert capsys.readouterr().err == "pip install it\n"


def test_the_picture_behind_is_stretched():
    scene = np.asarray(Image.linear_gradient("L").convert("RGB"))
    made = study.pasted(np.zeros((9, 5, 3), np.uint8), np.zeros((9, 5), bool), scene)
    assert made.shape == (9, 5, 3) and (np.diff(made[:, 0, 0].astype(int)) > 0).all()
