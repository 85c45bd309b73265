"""What a code loses: nothing where codes are exact, and what was put in where they are not."""

import numpy as np
import pytest

from benchmarks.data import prepare, synthetic
from loss import loss, near_distances


def data_of(x, folder):
    return prepare(x, "some", folder, queries=50, k=5, seed=0)


def test_codes_that_tell_everything_lose_nothing(tmp_path):
    x = np.random.default_rng(0).integers(0, 4, (600, 4)).astype(np.float32)  # 4 values a number: 2 bits say them all
    found = loss(data_of(x, tmp_path), "IVF1,PQ4x2", nprobe=1, seed=0)
    assert found.noise == pytest.approx(0, abs=1e-5)
    assert found.all_lists == found.probed == found.refined == 1


def test_what_is_lost_comes_back_step_by_step(tmp_path):
    data = data_of(synthetic(1500, 32, 0), tmp_path)
    coarse, fine = (loss(data, f"IVF16,PQ{M}x4", nprobe=4, seed=0) for M in (2, 16))
    for found in (coarse, fine):
        assert found.probed <= found.all_lists + 0.02
        assert found.probed < found.refined
    assert fine.noise < 0.7 * coarse.noise
    assert fine.all_lists > coarse.all_lists + 0.1


def test_near_distances_are_the_true_ones(tmp_path):
    data = data_of(synthetic(300, 8, 0), tmp_path)
    near = near_distances(data)
    assert near.shape == (50, 100)
    np.testing.assert_array_equal(near[:, :5], data.truth)
    exact = ((np.load(data.queries)[:, None].astype(float) - np.load(data.base)) ** 2).sum(axis=2)
    np.testing.assert_allclose(near, np.sort(exact, axis=1)[:, :100], rtol=1e-5)
