"""Extraction goes on after any interruption, skips damaged images and refuses what does not fit."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from waiting import until

import features.encoders
from features.collection.manifest import partial_folder
from features.collection.store import FeatureStore, StoreError
from features.datasets import ImageFolder
from features.extract import extract, main


class FakeEncoder:
    """Mean colour of the four quarters, and how often it was asked; as quick as it is simple."""

    name, dim, classes, min_side = "fake", 12, (), None

    def __init__(self, version: int = 1) -> None:
        self.spec = {"name": "fake", "dim": 12, "weights": {"argument": None, "source": "", "sha256": f"{version:064}"}}
        self.encoded = 0
        self.batches: list[int] = []

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(image, 2, 0), 2, 1).astype(np.float64)  # of one pixel, too, there are four quarters

    def encode_prepared(self, prepared) -> np.ndarray:
        self.encoded += len(prepared)
        self.batches.append(len(prepared))
        four = [[q for rows in np.array_split(image, 2) for q in np.array_split(rows, 2, 1)] for image in prepared]
        return (
            np.array([[quarter.mean((0, 1)) for quarter in quarters] for quarters in four])
            .reshape(-1, self.dim)
            .astype(np.float32)
        )

    def encode(self, images) -> np.ndarray:
        return self.encode_prepared([self.preprocess(image) for image in images])


def make_images(root: Path, count: int = 23) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        path = root / f"label {number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8 + number % 5, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path) -> ImageFolder:
    make_images(tmp_path / "images")
    return ImageFolder(tmp_path / "images")


def run(dataset, folder, encoder=None, **options) -> FeatureStore:
    return extract(dataset, encoder or FakeEncoder(), folder, **{"batch_size": 4, "progress": False, **options})


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_every_row_is_the_vector_of_its_image(images, tmp_path, batch_size):
    encoder = FakeEncoder()
    store = run(images, tmp_path / "c", encoder, batch_size=batch_size, dtype="float32")
    pixels = [np.asarray(Image.open(item.path)) for item in images.items]
    np.testing.assert_array_equal(store.features, FakeEncoder().encode(pixels))
    assert store.items == images.items
    assert sum(encoder.batches) == 23
    assert max(encoder.batches) == min(batch_size, 23)
    with sqlite3.connect(store.folder / "catalog.sqlite") as catalog:
        sizes = catalog.execute("SELECT height, width FROM images ORDER BY id").fetchall()
    assert sizes == [image.shape[:2] for image in pixels]


def test_finished_store_is_not_worked_on_again(images, tmp_path):
    first = run(images, tmp_path / "c")
    encoder = FakeEncoder()
    second = run(images, tmp_path / "c", encoder)
    assert encoder.encoded == 0
    assert second.manifest == first.manifest


def test_damaged_images_keep_their_place(images, tmp_path, caplog):
    whole = run(images, tmp_path / "whole", dtype="float32")
    broken = {0: b"", 4: b"not an image", 5: images.items[5].path.read_bytes()[:60], 6: None, 7: b"x", 22: b"y"}
    for id, content in broken.items():
        path = images.items[id].path
        if content is None:
            path.unlink()
            path.symlink_to("nowhere.png")
        else:
            path.write_bytes(content)
    encoder = FakeEncoder()
    store = run(images, tmp_path / "c", encoder, dtype="float32")  # ids 4 to 7 are one batch without any image
    assert store.manifest["damaged"] == len(broken)
    assert store.ids.tolist() == [i for i in range(23) if i not in broken]
    assert encoder.encoded == 23 - len(broken)
    np.testing.assert_array_equal(store.features[store.ids], whole.features[store.ids])
    assert not store.features[list(broken)].any()
    errors = {item.id: item.error for item in store.items if item.error is not None}
    assert errors.keys() == broken.keys()
    assert "empty" in errors[0]
    assert "not an image" in errors[4]
    assert "damaged" in errors[5]
    assert "No such file" in errors[6]
    assert all(str(images.items[id].path) in caplog.text for id in broken)


def test_nothing_readable_is_an_error_that_leaves_nothing(tmp_path):
    make_images(tmp_path / "images", 3)
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(StoreError, match=r"none of the 3 images .* can be read"):
        run(ImageFolder(tmp_path / "images"), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert not partial_folder(tmp_path / "c").exists()


class Interrupted(FakeEncoder):
    """Stops in its third batch, as Ctrl-C does."""

    def encode_prepared(self, prepared):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().encode_prepared(prepared)


def test_interrupted_run_goes_on_where_it_stopped(images, tmp_path):
    whole = run(images, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "c", Interrupted())
    assert not (tmp_path / "c").exists()
    with pytest.raises(StoreError, match="an extraction was begun in"):
        FeatureStore.open(tmp_path / "c")
    encoder = FakeEncoder()
    store = run(images, tmp_path / "c", encoder)
    assert encoder.encoded == 23 - 2 * 4
    assert (store.folder / "features.npy").read_bytes() == (whole.folder / "features.npy").read_bytes()
    assert store.manifest == whole.manifest
    assert [store.hash_of(id) for id in range(23)] == [whole.hash_of(id) for id in range(23)]
    assert not partial_folder(tmp_path / "c").exists()


CHILD = """
import sys
from pathlib import Path
from test_extract import FakeEncoder
from features.datasets import ImageFolder
from features.extract import extract

class Slow(FakeEncoder):
    def encode_prepared(self, prepared):
        print(self.encoded, flush=True)  # everything before this batch is on disk
        sys.stdin.readline()  # until it is told to go on
        return super().encode_prepared(prepared)

extract(ImageFolder({images!r}), Slow(), {folder!r}, batch_size=4, progress=False)
"""


@pytest.mark.parametrize(("how", "after"), [(signal.SIGKILL, 0), (signal.SIGKILL, 24), (signal.SIGINT, 24)])
def test_killed_process_loses_one_batch_at_most(tmp_path, how, after):
    make_images(tmp_path / "images", 60)
    images = ImageFolder(tmp_path / "images")
    code = CHILD.format(images=str(images.root), folder=str(tmp_path / "c"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        for line in child.stdout:
            written = int(line)
            if written >= after:
                break
            child.stdin.write(b"\n")
            child.stdin.flush()
        child.send_signal(how)
    assert child.returncode != 0
    assert not (tmp_path / "c").exists()
    encoder = FakeEncoder()
    store = run(images, tmp_path / "c", encoder)
    assert 60 - written - 4 <= encoder.encoded <= 60 - written
    assert (store.folder / "features.npy").read_bytes() == (
        run(images, tmp_path / "whole").folder / "features.npy"
    ).read_bytes()
    store.verify()


def test_kill_in_the_middle_of_a_write_is_undone(images, tmp_path, monkeypatch):
    """Vectors of a batch are on disk and its catalog rows are not, or only half: the batch is done again."""
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "c", Interrupted())
    partial = partial_folder(tmp_path / "c")
    with (partial / "features.npy").open("ab") as file:
        file.write(b"half a row")
    store = run(images, tmp_path / "c")
    assert (store.folder / "features.npy").read_bytes() == (
        run(images, tmp_path / "whole").folder / "features.npy"
    ).read_bytes()


def test_going_on_with_something_else_is_refused(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "c", Interrupted())
    partial = partial_folder(tmp_path / "c")
    with pytest.raises(StoreError, match="different weights") as caught:
        run(images, tmp_path / "c", FakeEncoder(2))
    assert f"remove {partial} to start over" in str(caught.value)
    with pytest.raises(StoreError, match="writes float16, now float32"):
        run(images, tmp_path / "c", dtype="float32")
    run(images, tmp_path / "c")


def test_begun_extraction_takes_what_has_changed_and_keeps_what_is_encoded(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "c", Interrupted())  # after 8 images
    Image.effect_mandelbrot((9, 9), (-3, -2.5, 2, 2.5), 50).save(images.root / "label 0/000a.png")  # now the second
    images.items[2].path.unlink()
    images.items[3].path.write_bytes(images.items[20].path.read_bytes())
    changed = ImageFolder(images.root)
    encoder = FakeEncoder()
    store = run(changed, tmp_path / "c", encoder)
    assert encoder.encoded == 23 - 8 + 2
    assert store.items == changed.items
    whole = run(changed, tmp_path / "whole")
    assert (store.folder / "features.npy").read_bytes() == (whole.folder / "features.npy").read_bytes()
    assert store.manifest == whole.manifest


def test_begun_extraction_may_be_limited_later(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "c", Interrupted())
    encoder = FakeEncoder()
    assert run(images, tmp_path / "c", encoder, limit=6).items == images.items[:6]
    assert encoder.encoded == 0


def test_finished_store_of_something_else_is_refused(images, tmp_path):
    run(images, tmp_path / "c")
    for options, message in [
        ({"encoder": FakeEncoder(2)}, r"fake \(12-d, weights 00000000\)"),
        ({"dtype": "float32"}, "holds float16, now float32"),
        ({"limit": 5}, r"has 23 images, .* now gives 5"),
    ]:
        with pytest.raises(StoreError, match=message):
            run(images, tmp_path / "c", **options)
    path = images.items[3].path
    content = bytearray(path.read_bytes())
    os.utime(path, ns=(1, 1))
    run(images, tmp_path / "c")  # another time, the same content
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="has changed since"):
        run(images, tmp_path / "c")


def test_moved_dataset_is_found_again(images, tmp_path):
    run(images, tmp_path / "c")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(images.root, tmp_path / "elsewhere")
    encoder = FakeEncoder()
    store = run(ImageFolder(tmp_path / "elsewhere/images"), tmp_path / "c", encoder)
    assert encoder.encoded == 0
    assert all(item.path.exists() for item in store.items)
    assert FeatureStore.open(tmp_path / "c").items == store.items


def test_large_jpegs_are_decoded_as_small_as_the_encoder_allows(tmp_path):
    """The vector is of the reduced picture; the catalog knows the whole one's size."""
    (tmp_path / "images").mkdir()
    seen = []

    class Looking(FakeEncoder):
        min_side = 30

        def preprocess(self, image):
            seen.append(image.shape)
            return super().preprocess(image)

    Image.effect_mandelbrot((320, 250), (-3, -2.5, 2, 2.5), 50).convert("RGB").save(tmp_path / "images" / "a.jpg")
    store = run(ImageFolder(tmp_path / "images"), tmp_path / "c", Looking())
    assert seen == [(32, 40, 3)]
    with sqlite3.connect(store.folder / "catalog.sqlite") as catalog:
        assert catalog.execute("SELECT width, height FROM images").fetchall() == [(320, 250)]


def test_a_million_small_images_fit_in_memory(tmp_path):
    """What each further image costs, listed, encoded and catalogued, is less than a millionth of 1.5 GB."""

    class Counting(FakeEncoder):
        def encode_prepared(self, prepared):
            return np.ones((len(prepared), self.dim), np.float32)

    peaks = []
    for count in (300, 1300):
        root = tmp_path / str(count)
        root.mkdir()
        Image.new("RGB", (4, 4)).save(root / "0.png")
        for number in range(1, count):
            os.link(root / "0.png", root / f"{number}.png")
        tracemalloc.start()
        run(ImageFolder(root), tmp_path / f"c{count}", Counting(), batch_size=64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1000 < 1500


def test_limit_takes_the_first_images(images, tmp_path):
    store = run(images, tmp_path / "c", limit=7)
    assert store.items == images.items[:7]


def test_decoding_goes_on_while_the_network_works(images, tmp_path):
    """The second batch is being prepared by other threads when the first is encoded."""
    prepared: list[int] = []
    seen: list[int] = []

    class Watching(FakeEncoder):
        def preprocess(self, image):
            prepared.append(threading.get_ident())
            return super().preprocess(image)

        def encode_prepared(self, batch):
            until(lambda: len(prepared) >= 8, "the preparation of the second batch")
            seen.append(len(prepared))
            return super().encode_prepared(batch)

    run(images, tmp_path / "c", Watching())
    assert seen[0] >= 8
    assert threading.get_ident() not in prepared


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"dtype": "int8"}, {"limit": 0}])
def test_bad_arguments(images, tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        run(images, tmp_path / "c", **options)


@pytest.fixture
def fake_encoder(monkeypatch):
    asked = []
    made = FakeEncoder()
    monkeypatch.setattr(
        features.encoders, "create_encoder", lambda name, weights: asked.append((name, weights)) or made
    )
    return asked


def test_command_line(images, tmp_path, monkeypatch, capsys, fake_encoder):
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "images", "--dtype", "float32", "--batch-size", "5", "--limit", "12"]) == 0
    out, err = capsys.readouterr()
    assert out == "collections/images: 12 images (0 damaged), 12-d float32, fake\n"
    assert "12/12" in err
    assert "image/s" in err
    assert FeatureStore.open("collections/images").manifest["count"] == 12
    assert main(["--data", "images", "--encoder", "resnet50", "--weights", "w.pth", "--out", "x/y"]) == 0
    assert fake_encoder == [("auto", None), ("resnet50", "w.pth")]
    assert FeatureStore.open("x/y").manifest["count"] == 23


def test_command_line_errors_are_one_line(images, tmp_path, monkeypatch, capsys, fake_encoder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    for arguments, message in [
        (["--data", "caltech"], "run ./data_download.sh caltech"),
        (["--data", "nothing"], "no images in"),
        (["--data", "images", "--out", "images"], "not empty"),
    ]:
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
    for arguments in (
        [],
        ["--encoder", "auto"],
        ["--data", "images", "--limit", "0"],
        ["--data", "images", "--dtype", "int8"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)


def test_command_line_interrupted(images, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features.encoders, "create_encoder", lambda name, weights: Interrupted())
    assert main(["--data", "images", "--batch-size", "4"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(features.encoders, "create_encoder", lambda name, weights: FakeEncoder())
    with caplog.at_level("INFO"):
        assert main(["--data", "images"]) == 0
    assert "going on after 8 of 23 images" in caplog.text


def test_whole_way_with_the_real_encoder(tmp_path, capsys):
    make_images(tmp_path / "images", 5)
    folder = tmp_path / "c"
    assert main(["--data", str(tmp_path / "images"), "--out", str(folder), "--encoder", "efficientnet-lite0"]) == 0
    assert capsys.readouterr().out == f"{folder}: 5 images (0 damaged), 2048-d float16, efficientnet-lite0\n"
    store = FeatureStore.open(tmp_path / "c")
    assert store.features.shape == (5, 2048)
    assert len({row.tobytes() for row in store.features}) == 5
