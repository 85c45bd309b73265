"""A new encoder is one class and one line: no file of ours changes for it."""

import subprocess
import sys

import numpy as np
import pytest

from features import EncoderError, create_encoder, register_encoder
from features.datasets import ImageFolder
from features.encoders import encoder_for, encoder_names, registry
from features.extract import extract
from features.images import decode_image

SOURCE = '''
import numpy as np

class MeanColour:
    """Three numbers: the mean of each channel."""

    dim, classes, min_side = 3, (), None

    def __init__(self, name, *, weights=None, device=None, runtime=None):
        self.name = name
        self.asked = (weights, device, runtime)
        weights = {"argument": weights, "source": "none", "sha256": ""}
        self.spec = {"name": name, "dim": 3, "weights": weights, "preprocessing": {}, "descriptor": "mean colour"}

    def preprocess(self, image):
        return image.mean((0, 1))

    def encode(self, images):
        return self.encode_prepared([self.preprocess(image) for image in images])

    def encode_prepared(self, prepared):
        return np.asarray(prepared, dtype=np.float32)
'''


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Whatever a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module outside the project that holds an encoder."""
    (tmp_path / "made_up_encoder.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "made_up_encoder"
    sys.modules.pop("made_up_encoder", None)


def test_an_encoder_is_registered_by_the_path_of_its_class(module, picture_folder, tmp_path):
    register_encoder("mean-colour", f"{module}:MeanColour")
    assert module not in sys.modules  # until it is needed
    encoder = create_encoder("mean-colour", weights="w", device="cpu")
    assert encoder.asked == ("w", "cpu", None)
    again = encoder_for(encoder.spec)
    assert (again.name, again.asked) == ("mean-colour", ("w", None, None))

    store = extract(ImageFolder(picture_folder), encoder, tmp_path / "store", progress=False)
    store.check_encoder(encoder)
    id = int(store.ids[3])
    expected = decode_image(store.items[id].path).mean((0, 1))
    np.testing.assert_allclose(store.features[id], expected, rtol=1e-3)


def test_an_encoder_is_registered_as_a_class(module):
    made = __import__(module).MeanColour
    register_encoder("mine", made)
    assert type(create_encoder("mine")) is made
    del (spec := create_encoder("mine").spec)["weights"]
    assert encoder_for(spec).asked == (None, None, None)


def test_what_is_unknown_is_told_what_is_known(module):
    register_encoder("mine", f"{module}:MeanColour")
    assert encoder_names()[0] == "auto"
    assert encoder_names()[-1] == "mine"
    with pytest.raises(EncoderError, match=r"unknown encoder 'x'; there are auto, resnet50, .*, mine$"):
        create_encoder("x")
    with pytest.raises(EncoderError, match=r"belongs to: resnet50 or .* or mine$"):
        create_encoder("auto", weights="w")


@pytest.mark.parametrize(("name", "target"), [("", "a:B"), ("auto", "a:B"), ("x", "a.B"), ("x", ":B"), ("x", "a:")])
def test_what_cannot_be_registered(name, target):
    with pytest.raises(ValueError, match=r"(name|target) must"):
        register_encoder(name, target)


def test_registering_loads_no_torch():
    code = (
        "import sys; from features import register_encoder as r; r('x', 'no.such:Thing'); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
