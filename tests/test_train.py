"""Training from the command line to the search: tiny images, real networks, a real kill -9."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from waiting import until

from features import EncoderError, create_encoder
from features.collection.store import FeatureStore, StoreError
from features.datasets import VOC2012, DatasetError, ImageFolder
from features.encoders import encoder_for
from features.encoders.weights import read_training, write_training
from features.extract import main as extract
from features.images import decode_image
from features.train import main
from features.training.recipe import Recipe, TrainingError
from features.training.run import CHECKPOINT, TrainingRun
from features.training.train import _locked, train

ROOT = Path(__file__).parent.parent
PHOTOS = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # scikit-image ships them
CLASSES = tuple(Path(photo).stem for photo in PHOTOS)
TINY = Recipe(size=64, epochs=3, batch_size=6)


def view(name: str, seed: int, size=(96, 128)) -> Image.Image:
    """A part of a photograph, half as wide and high, reduced."""
    photo = Image.open(Path(skimage.__file__).parent / "data" / PHOTOS[CLASSES.index(name)]).convert("RGB")
    width, height = photo.width // 2, photo.height // 2
    left, top = (int(np.random.default_rng([seed, side]).integers(side)) for side in (width, height))
    return photo.crop((left, top, left + width, top + height)).resize(size[::-1])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Four classes, eight pictures each; a picture in no folder, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    for name in CLASSES:
        (folder / name).mkdir()
        for seed in range(8):
            view(name, seed).save(folder / name / f"{seed}.png")
    view("coffee", 9).save(folder / "unlabelled.png")
    (folder / "coffee" / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="session")
def trained(pictures, tmp_path_factory):
    """EfficientNet-Lite0 fine-tuned on the photographs, and what was logged and returned."""
    out = tmp_path_factory.mktemp("trained") / "lite0.safetensors"
    return out, train(ImageFolder(pictures), TINY, out, device="cpu", progress=False)


def rows(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".csv").open(newline="") as file:
        return [
            {name: text for name, text in row.items() if name != "images_per_second"} for row in csv.DictReader(file)
        ]


def test_the_header_tells_classes_recipe_and_metrics(trained, pictures):
    out, training = trained
    assert read_training(out) == training
    assert (training.network, training.init, training.multi_label) == ("efficientnet-lite0", "imagenet", False)
    assert training.kind == "efficientnet-lite0-finetuned"
    assert training.classes == CLASSES
    assert (training.preprocessing.crop, training.recipe["size"]) == (64, 64)
    assert training.recipe["data"] == pictures.name
    assert len(training.recipe["weights"]["sha256"]) == 64
    assert training.metrics["validation_score"] == 1.0
    assert training.metrics["held_out_score"] >= 0.75
    found = training.metrics["held_out_images"]
    assert found["after"]["queries"] == 8  # two of each class
    assert found["after"]["mean_average_precision"] >= found["before"]["mean_average_precision"]
    assert "held_out_classes" not in training.metrics


def test_log_and_plot_lie_beside_the_weights(trained):
    out, _ = trained
    assert [row["epoch"] for row in rows(out)] == ["1", "2", "3"]
    assert float(rows(out)[-1]["train_loss"]) < float(rows(out)[0]["train_loss"])
    with Image.open(out.with_suffix(".png")) as plot:
        assert plot.format == "PNG"
    assert sorted(path.name for path in out.parent.iterdir()) == ["lite0.csv", "lite0.png", "lite0.safetensors"]


def test_two_trainings_to_one_file_do_not_mix(pictures, tmp_path):
    out = tmp_path / "twice.safetensors"
    with _locked(out), pytest.raises(TrainingError, match=r"another process is training to .*twice\.safetensors"):
        train(ImageFolder(pictures), TINY, out, device="cpu", progress=False)
    assert not list(tmp_path.iterdir())


def test_the_first_epochs_leave_the_trunk_alone(trained, tmp_path, pictures):
    """With every epoch frozen what the classifier reads stays as it was, and only the classifier differs."""
    out = tmp_path / "head.safetensors"
    train(ImageFolder(pictures), replace(TINY, epochs=1, frozen_epochs=1), out, device="cpu", progress=False)
    encoders = [
        create_encoder("efficientnet-lite0", weights=weights, runtime="eager") for weights in (None, out, trained[0])
    ]
    prepared = encoders[1].preprocess(np.asarray(view("coffee", 50)))
    before, frozen, after = (encoder.encode_prepared([prepared])[0, :1280] for encoder in encoders)
    np.testing.assert_allclose(frozen, before, atol=1e-4)
    assert np.abs(after - before).max() > 0.01


def test_a_trained_file_extracts_and_classifies(trained, pictures, tmp_path):
    out, training = trained
    folder = tmp_path / "collection"
    command = ["--data", str(pictures), "--encoder", "efficientnet-lite0", "--out", str(folder)]
    assert extract([*command, "--weights", str(out)]) == 0
    store = FeatureStore.open(folder)
    encoder = encoder_for(store.manifest["encoder"])
    assert encoder.classes == training.classes
    import timm  # after features has declared the operators that it needs

    net = timm.create_model("tf_efficientnet_lite0", num_classes=len(CLASSES)).eval()
    net.load_state_dict(load_file(out))
    with torch.inference_mode():
        batch = torch.stack([encoder.preprocess(decode_image(store.items[id].path)) for id in store.ids[::4]])
        expected = net(batch).softmax(dim=1).numpy()
    np.testing.assert_allclose(encoder.classify(store.features[store.ids[::4]]), expected, atol=0.01)
    with pytest.raises(StoreError, match="different weights"):
        store.check_encoder(create_encoder("efficientnet-lite0"))


def test_a_killed_training_goes_on_to_the_same_weights(trained, pictures, tmp_path, caplog):
    out = tmp_path / "again.safetensors"
    code = (
        "from features.datasets import *; from features.training.recipe import Recipe;"
        "from features.training.train import train;"
        "import time; from features.training.run import TrainingRun as R; save = R._save;"
        "R._save = lambda self: (save(self), self.step < 5 or time.sleep(3600));"  # of 9; the first epoch has 3
        f"train(ImageFolder({str(pictures)!r}), {TINY!r}, {str(out)!r}, device='cpu', checkpoint_seconds=0)"
    )
    checkpoint = tmp_path / f".{out.name}.partial" / CHECKPOINT
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=threads, stderr=subprocess.DEVNULL) as process:
        until(lambda: _step(checkpoint) == 5 or process.poll() is not None, "step 5")
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    step = _step(checkpoint)
    assert 5 <= step < 9
    assert not out.exists()
    caplog.set_level("INFO")
    training = train(ImageFolder(pictures), TINY, out, device="cpu", progress=False)
    assert f"going on after step {step} of 9" in caplog.text
    expected, expected_training = trained
    assert training.metrics == expected_training.metrics
    assert rows(out) == rows(expected)
    states = load_file(out), load_file(expected)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def _step(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, "pt") as file:
        return json.loads(file.metadata()["progress"])["step"]


@pytest.mark.slow
def test_what_was_begun_is_gone_on_with_only_as_it_was_begun(pictures, tmp_path, monkeypatch):
    out, dataset = tmp_path / "a.safetensors", ImageFolder(pictures)
    monkeypatch.setattr(TrainingRun, "_validate", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, TINY, out, device="cpu", checkpoint_seconds=0, progress=False)
    monkeypatch.undo()
    folder = tmp_path / ".a.safetensors.partial"
    with pytest.raises(TrainingError, match=r"another training .*learning_rate 0.0005, now 0.1.*remove .*partial"):
        train(dataset, replace(TINY, learning_rate=0.1), out, device="cpu", progress=False)
    (folder / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"checkpoint.safetensors is damaged .*remove"):
        train(dataset, TINY, out, device="cpu", progress=False)


def _interrupted(self):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_several_labels_an_image(tmp_path, capsys):
    """VOC's layout: the head is a sigmoid for each class, and the score the mean average precision of the classes."""
    root = tmp_path / "VOC2012"
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    names = CLASSES
    for seed in range(32):
        shown = {names[seed % 4], names[(seed // 4) % 4]}
        halves = [np.asarray(view(name, seed, (96, 64))) for name in sorted(shown)]
        Image.fromarray(np.concatenate(halves, axis=1)).save(root / "JPEGImages" / f"{seed:02}.jpg")
        objects = "".join(f"<object><name>{name}</name></object>" for name in shown)
        (root / "Annotations" / f"{seed:02}.xml").write_text(f"<annotation>{objects}</annotation>")
    out = tmp_path / "voc.safetensors"
    recipe = replace(TINY, epochs=4, frozen_epochs=2)
    training = train(VOC2012(root), recipe, out, device="cpu", progress=False)
    assert training.multi_label
    assert training.recipe["label_smoothing"] == 0
    assert training.metrics["validation_score"] > 0.8
    encoder = create_encoder("efficientnet-lite0", weights=out)
    features = encoder.encode([np.concatenate([np.asarray(view(c, 99, (96, 64))) for c in CLASSES[:2]], axis=1)])
    (probabilities,) = encoder.classify(features)
    assert set(np.argsort(-probabilities)[:2]) == {0, 1}
    logits = (
        features[:, :1280] @ load_file(out)["classifier.weight"].numpy().T + load_file(out)["classifier.bias"].numpy()
    )
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits[0])), atol=1e-4)


@pytest.mark.slow
def test_resnet50_from_scratch_by_the_command_with_a_class_held_out(pictures, tmp_path, capsys):
    out = tmp_path / "resnet50.safetensors"
    command = ["--data", str(pictures), "--encoder", "resnet50", "--init", "scratch", "--size", "32", "--epochs", "1"]
    command += ["--batch-size", "8", "--hold-out-classes", "1", "--device", "cpu", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert all(f"held out {what}, {when}" in printed for what in ("images", "classes") for when in ("before", "after"))
    training = read_training(out)
    assert len(training.classes) == 3
    assert set(training.classes) | set(training.recipe["unseen_classes"]) == set(CLASSES)
    assert training.metrics["held_out_classes"]["after"]["queries"] == 8
    assert (training.preprocessing.resize, training.preprocessing.crop) == (37, 32)
    encoder = create_encoder("resnet50-scratch", weights=out, device="cpu")
    assert encoder.preprocess(np.asarray(view("coffee", 1))).shape == (3, 32, 32)
    assert (encoder.spec["name"], encoder.dim, encoder.classes) == ("resnet50-scratch", 2048, training.classes)
    for name in ("resnet50", "resnet50-finetuned"):
        with pytest.raises(EncoderError, match=f"holds resnet50-scratch, not {name}"):
            create_encoder(name, weights=out)
    with pytest.raises(EncoderError, match="holds resnet50-scratch, not efficientnet-lite0"):
        create_encoder("efficientnet-lite0", weights=out)
    write_training(out, load_file(out), replace(training, init="imagenet"))
    assert create_encoder("resnet50-finetuned", weights=out, device="cpu").name == "resnet50-finetuned"
    assert main([*command[:-1], str(out)]) == 1
    assert "exists: remove it" in capsys.readouterr().err


def test_trained_names_need_a_trained_file(trained, tmp_path):
    for name in ("resnet50-finetuned", "resnet50-scratch"):
        with pytest.raises(EncoderError, match=f"{name} needs --weights"):
            create_encoder(name)
        with pytest.raises(EncoderError, match=f"holds efficientnet-lite0-finetuned, not {name}"):
            create_encoder(name, weights=trained[0])


def test_a_damaged_header_is_refused(trained, tmp_path):
    damaged = tmp_path / "x.safetensors"
    damaged.write_bytes(trained[0].read_bytes().replace(b'\\"multi_label\\"', b'\\"multi_lable\\"'))
    with pytest.raises(EncoderError, match="header cannot be read"):
        create_encoder("efficientnet-lite0", weights=damaged)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "vgg"}, "encoder must be resnet50 or efficientnet-lite0, got 'vgg'"),
        ({"init": "nothing"}, "init must be imagenet or scratch"),
        ({"size": 8}, "size must be at least 32, got 8"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"frozen_epochs": 9}, "frozen_epochs must be at most epochs"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"held_out": 1.0}, "held_out must lie between"),
        ({"init": "scratch"}, "freezes nothing"),
        ({"init": "scratch", "frozen_epochs": 0, "weights": "x"}, "takes no weights"),
    ],
)
def test_recipes_that_mean_nothing(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


def test_data_and_weights_that_do_not_fit(trained, pictures, tmp_path):
    out = tmp_path / "x.safetensors"
    with pytest.raises(DatasetError, match="no image has a label"):
        train(ImageFolder(pictures / "coffee"), TINY, out)  # lies in no subfolder
    with pytest.raises(TrainingError, match=r"must be named <something>.safetensors, got x.pth"):
        train(ImageFolder(pictures), TINY, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match="holds efficientnet-lite0-finetuned, not resnet50"):
        train(ImageFolder(pictures), replace(TINY, encoder="resnet50", weights=str(trained[0])), out)
    with pytest.raises(EncoderError, match="'nonsense' cannot be used"):
        train(ImageFolder(pictures), TINY, out, device="nonsense")
    assert list(tmp_path.iterdir()) == []
