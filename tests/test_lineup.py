"""Encoders side by side: each from where it should be, or with the reason why not; judged on what none has seen."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

import lineup
from features import EncoderError, create_encoder
from features.datasets import DatasetError, ImageFolder
from features.encoders import resnet50
from features.encoders.weights import read_training, read_weights, write_training
from features.extract import extract
from features.images import decode_image
from features.pixels import Pixels
from features.split import split
from features.train import main as train
from lineup import features_of, held_out, how_to_train, open_encoder, raw_vectors, trained_file

PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg")  # scikit-image ships them


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three classes of eight views."""
    folder = tmp_path_factory.mktemp("lineup") / "views"
    for photo in PHOTOS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / photo).convert("RGB")
        (folder / photo[:3]).mkdir(parents=True)
        for number in range(8):
            box = (10 * number, 5 * number, 10 * number + 200, 5 * number + 150)
            picture.crop(box).resize((96, 72)).save(folder / photo[:3] / f"{number}.png")
    return ImageFolder(folder)


@pytest.fixture(scope="session")
def store(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collections") / "views"
    return extract(photos, create_encoder("efficientnet-lite0"), folder, progress=False)


@pytest.fixture(scope="session")
def weights(photos, store, tmp_path_factory):
    """A folder with EfficientNet-Lite0 fine-tuned by the command that is given, at a smaller size."""
    folder = tmp_path_factory.mktemp("weights")
    out = str(trained_file("efficientnet-lite0-finetuned", store, folder))
    words = how_to_train("efficientnet-lite0-finetuned", store).split()
    assert words[:3] == ["python", "-m", "features.train"]
    words[words.index("--out") + 1] = out
    assert train([*words[3:], "--size", "32", "--epochs", "1", "--batch-size", "4"]) == 0
    return folder


@pytest.fixture(autouse=True)
def no_resnet50(monkeypatch, tmp_path):
    monkeypatch.setattr(resnet50, "cached_weights", lambda: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("resnet50", "^its weights are not on this machine; --encoder resnet50"),
        ("resnet50-finetuned", "^training would begin with ImageNet's weights, which are not on this machine"),
        (
            "resnet50-scratch",
            "^not trained yet: .* --encoder resnet50 --init scratch .* weights/views/resnet50-scratch",
        ),
        ("efficientnet-lite0-finetuned", "^not trained yet: .* --encoder efficientnet-lite0 --init imagenet"),
    ],
)
def test_what_cannot_be_had_says_why(kind, reason, store, tmp_path):
    with pytest.raises(EncoderError, match=reason):
        open_encoder(kind, store, tmp_path)


def test_a_trained_file_of_something_else_is_refused(store, weights, tmp_path):
    tuned = trained_file("efficientnet-lite0-finetuned", store, weights)
    scratch = trained_file("resnet50-scratch", store, tmp_path)
    scratch.parent.mkdir(parents=True)
    shutil.copy(tuned, scratch)
    with pytest.raises(EncoderError, match="holds efficientnet-lite0-finetuned, not resnet50-scratch"):
        open_encoder("resnet50-scratch", store, tmp_path)
    scratch.unlink()
    training = read_training(tuned)
    state, _ = read_weights(tuned)
    file = trained_file("efficientnet-lite0-finetuned", store, tmp_path)
    write_training(file, state, replace(training, recipe={**training.recipe, "data": "others"}))
    with pytest.raises(EncoderError, match="was trained on others, not on views"):
        open_encoder("efficientnet-lite0-finetuned", store, tmp_path)
    write_training(file, state, replace(training, recipe={**training.recipe, "images": {"train": 5}}))
    with pytest.raises(EncoderError, match="was trained on 5 images, not on these 18"):
        held_out(store, tmp_path)


def test_the_judges_are_what_training_left_out(photos, store, weights, tmp_path):
    labels = [item.labels for item in photos.items]
    before, after = held_out(store, tmp_path), held_out(store, weights)
    assert np.array_equal(before, after)  # the command that is given splits as the notebook does without it
    assert np.array_equal(after, split(labels, held_out=lineup.HELD_OUT).held_out)


def test_networks_that_leave_nothing_out_in_common(photos, store, weights, tmp_path):
    tuned = trained_file("efficientnet-lite0-finetuned", store, weights)
    training = read_training(tuned)
    state, _ = read_weights(tuned)
    labels = [item.labels for item in photos.items]
    mine = set(split(labels, held_out=0.25).held_out)
    seed = next(s for s in range(99) if not mine & set(split(labels, held_out=0.25, seed=s).held_out))
    for kind, network, init, recipe in (
        ("efficientnet-lite0-finetuned", "efficientnet-lite0", "imagenet", training.recipe),
        ("resnet50-scratch", "resnet50", "scratch", {**training.recipe, "seed": seed}),
    ):
        file = trained_file(kind, store, tmp_path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_training(file, state, replace(training, network=network, init=init, recipe=recipe))
    with pytest.raises(DatasetError, match="no image was held out from all of resnet50-scratch, efficientnet-lite0"):
        held_out(store, tmp_path)


def test_features_come_from_the_collection_or_are_extracted_once(photos, store, weights, tmp_path, monkeypatch):
    ids = held_out(store, weights)
    plain = features_of(open_encoder("efficientnet-lite0", store, weights), store, ids, tmp_path)
    assert np.array_equal(plain, store.features[ids].astype(np.float32))
    assert not list(tmp_path.iterdir())
    encoder = open_encoder("efficientnet-lite0-finetuned", store, weights)
    tuned = features_of(encoder, store, ids, tmp_path)
    wanted = encoder.encode([decode_image(photos.items[id].path) for id in ids])
    assert tuned == pytest.approx(wanted, rel=0.02, abs=0.02)
    monkeypatch.setattr(encoder, "encode_prepared", None)
    assert np.array_equal(features_of(encoder, store, ids, tmp_path), tuned)


def test_raw_vectors_are_the_middle_squares(tmp_path):
    rng = np.random.default_rng(1)
    folder = tmp_path / "squares"
    folder.mkdir()
    for name, size in {"a.png": (8, 12), "b.png": (20, 8)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    items = ImageFolder(folder).items
    pixels = Pixels(folder, items, 8, progress=False)
    found = raw_vectors(pixels, 8)
    assert found.shape == (len(pixels), 192)
    wide, high = (np.asarray(Image.open(item.path), dtype=np.float32) for item in items)
    assert found[0] == pytest.approx((wide[:, 2:10] / 127.5 - 1).ravel(), abs=1e-6)
    assert found[1] == pytest.approx((high[6:14] / 127.5 - 1).ravel(), abs=1e-6)
