"""Fixed weights and a fixed picture give fixed vectors: whatever changes the numbers, wherever, is noticed.

The weights are drawn by numpy, whose generator gives the same numbers everywhere, so that nothing need be downloaded
and a few numbers of each vector are all that has to be kept here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from features import create_encoder
from features.torchvision_ops import declare_operators

declare_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402

NETWORKS = {
    "resnet50": lambda: torchvision.models.resnet50(weights=None),
    "efficientnet-lite0": lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False),
}
# See `summary`; computed in float32 by torch on a CPU, runtime "eager".
GOLDEN = {
    "resnet50": """
        142877 0.234 1.8441 0.15391 0.0070425 0.33687 0.77157 0.24323 0.20647 1.7948 -0.64272 -1.216 0.63748
    """,
    "efficientnet-lite0": """
        101.89 0.7945 0 0.21081 0.0050974 0.029202 -1.524 -0.14338 -1.0789 0.79895 -0.37603 0.49616 1.5601
    """,
}


def seeded_state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that keep what flows through the network at about the same size, all of it drawn from one seed."""
    rng = np.random.default_rng(20)
    state = {}
    for name, tensor in net.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:  # a normalisation's factors are about 1, everything else about 0
            values = 0.1 * rng.standard_normal(shape) + (name.endswith("weight"))
        else:
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.asarray(values)).to(tensor.dtype)
    return state


def picture() -> np.ndarray:
    """Waves that are different in each channel, 300 x 260: uint8 (260, 300, 3)."""
    y, x = np.mgrid[:260, :300]
    channels = [np.sin(x / 9 + y / 31), np.cos(x * y / 2500), np.sin(y / 7) * np.cos(x / 23)]
    return np.rint(127.5 + 127.5 * np.stack(channels, axis=2)).astype(np.uint8)


def vector_of(name: str, folder: Path) -> np.ndarray:
    path = folder / f"{name}.safetensors"
    save_file(seeded_state(NETWORKS[name]()), path)
    return create_encoder(name, weights=path, device="cpu", runtime="eager").encode([picture()])[0]


def summary(vector: np.ndarray) -> np.ndarray:
    """Length, eight of the numbers, and four products with fixed vectors, in which every number takes part.

    All but the first are of the vector scaled to a mean square of 1.
    """
    length = np.linalg.norm(vector)
    scaled = vector / length * np.sqrt(len(vector))
    directions = np.random.default_rng(21).standard_normal((4, len(vector))) / np.sqrt(len(vector))
    return np.array([length, *scaled[:: len(vector) // 8], *directions @ scaled])


def golden(name: str) -> np.ndarray:
    return np.array(GOLDEN[name].split(), float)


@pytest.mark.parametrize("name", NETWORKS)
def test_seeded_weights_give_the_golden_vector(name, tmp_path):
    np.testing.assert_allclose(summary(vector_of(name, tmp_path)), golden(name), rtol=1e-3, atol=1e-3)


def test_golden_vector_notices_a_small_change(tmp_path, monkeypatch):
    """One more pixel of crop offset, as a wrong rounding gives, is far outside what the test above allows."""
    shifted = np.roll(picture(), 1, axis=1)
    monkeypatch.setattr("test_golden.picture", lambda: shifted)
    found = summary(vector_of("efficientnet-lite0", tmp_path))
    assert not np.allclose(found, golden("efficientnet-lite0"), rtol=1e-2, atol=1e-2)
