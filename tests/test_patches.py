"""Places found in made maps whose best places are known."""

import numpy as np
import pytest

from features.encoders import FeatureMap
from patches import nearest_patches


def planted(seed, row, column, target, first, strength):
    """A map of noise, with the target at one place."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 4, 10)).astype(np.float32)
    values[row, column, first : first + len(target)] = 7 * target + (1 - strength) * rng.normal(size=len(target))
    return FeatureMap(values, (10.0, 20.0, 50.0, 80.0))


def test_the_planted_places_come_first_with_their_boxes():
    target = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    maps = [planted(0, 0, 3, target, 5, 0.5), planted(1, 2, 1, target, 5, 1.0), planted(2, 1, 0, -target, 5, 1.0)]
    best, second = nearest_patches(maps, target, 5, 2)
    assert (best.image, second.image) == (1, 0)
    assert best.similarity == pytest.approx(1)
    assert best.box == pytest.approx((20, 60, 30, 80))
    assert second.box == pytest.approx((40, 20, 50, 40))


def test_one_place_of_an_image_and_no_division_by_nothing():
    flat = FeatureMap(np.zeros((2, 2, 4), np.float32), (0.0, 0.0, 2.0, 2.0))
    full = FeatureMap(np.ones((2, 2, 4), np.float32), (0.0, 0.0, 2.0, 2.0))
    assert [patch.similarity for patch in nearest_patches([flat, full], np.ones(4), 0, 9)] == pytest.approx([1, 0])


@pytest.mark.parametrize("first", [-1, 1])
def test_a_target_beyond_the_channels(first):
    maps = [FeatureMap(np.ones((2, 2, 4), np.float32), (0.0, 0.0, 2.0, 2.0))]
    with pytest.raises(ValueError, match="within the 4 channels"):
        nearest_patches(maps, np.ones(4), first, 1)
