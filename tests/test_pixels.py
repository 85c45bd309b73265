"""Images decoded once: the right pixels, in the right places, made anew only when they must be."""

from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from features import pixels as module
from features.datasets import DatasetError, ImageFolder
from features.pixels import Pixels


@pytest.fixture
def items(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (40, 60), "b.png": (33, 20), "d.png": (8, 400), "e.png": (31, 41)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes(b"no picture")
    return ImageFolder(folder).items


def test_every_image_has_its_short_side(items, tmp_path):
    pixels = Pixels(tmp_path, items, 16, progress=False)
    assert [pixels[place].shape for place in (0, 1, 3, 4)] == [(16, 24, 3), (26, 16, 3), (16, 64, 3), (16, 21, 3)]
    assert pixels.damaged.tolist() == [2]
    theirs = Image.open(items[0].path).resize((24, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels[0], np.asarray(theirs))
    assert not pixels[0].flags.writeable


def test_decoded_once(items, tmp_path, monkeypatch):
    first = Pixels(tmp_path, items, 16, progress=False)

    def never(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_image", never)
        again = Pixels(tmp_path, items, 16, progress=False)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again[4], first[4])


def test_made_anew_for_another_size_or_a_changed_image(items, tmp_path):
    first = Pixels(tmp_path, items, 16, progress=False)
    assert Pixels(tmp_path, items, 8, progress=False)[0].shape == (8, 12, 3)
    Image.new("RGB", (50, 50), "red").save(items[0].path)
    changed = Pixels(tmp_path, items, 16, progress=False)
    assert changed.fingerprint != first.fingerprint
    assert (changed[0] == (255, 0, 0)).all()


def test_what_was_half_made_is_not_used(items, tmp_path):
    Pixels(tmp_path, items, 16, progress=False)
    for name, content in ((module.SHAPES, "{"), (module.SHAPES, "{}"), (module.PIXELS, "short")):
        (tmp_path / name).write_text(content)
        assert Pixels(tmp_path, items, 16, progress=False)[4].shape == (16, 21, 3)


def test_a_link_that_leads_out_of_the_root_is_left_out(items, tmp_path, caplog):
    root = items[0].path.parent
    outside = tmp_path / "outside.png"
    Image.new("RGB", (30, 30), "red").save(outside)
    (root / "b.png").unlink()
    (root / "b.png").symlink_to(outside)
    assert Pixels(tmp_path, items, 16, progress=False, root=root).damaged.tolist() == [1, 2]
    assert f"left out: {root / 'b.png'}: a link to {outside}" in caplog.text
    (tmp_path / "other").mkdir()
    followed = Pixels(tmp_path / "other", items, 16, progress=False, root=root, follow_links=True)
    assert followed.damaged.tolist() == [2]
    assert (followed[1] == (255, 0, 0)).all()


def test_no_room_and_no_image(items, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="none of the 1 images can be decoded"):
        Pixels(tmp_path, items[2:3], 16, progress=False)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(100))
    with pytest.raises(OSError, match="are needed in"):
        Pixels(tmp_path, items, 16, progress=False)
