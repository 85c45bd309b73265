"""What the training loop is made of: the schedule, the views of an image, the choice of the best epoch."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from features.training.progress import HEAD_FACTOR, best_epoch, schedule
from features.training.views import RandomViews


def test_schedule_is_flat_then_rises_then_falls_to_nothing():
    rates = np.array([schedule(step, 20, 220) for step in range(220)])
    assert (rates[:20] == HEAD_FACTOR).all()
    top = rates[20:].argmax()
    assert 15 <= top <= 20  # a tenth of the 200 steps of all layers
    assert 0.95 < rates[20:].max() <= 1
    assert (np.diff(rates[20 : 20 + top + 1]) > 0).all()
    assert (np.diff(rates[20 + top :]) < 0).all()
    assert rates[20] == pytest.approx(0.05, rel=0.01)
    assert rates[-1] == 0


def test_views_follow_from_seed_epoch_and_place_alone(monkeypatch):
    # A loader with processes installs a signal handler for good; where a later test's process ends while another thread
    # waits for it, that handler brings down the whole run.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", True)
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3), dtype=np.uint8)
    views = [RandomViews(images, 32, (0, 1))[place][0] for place in range(6)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.uint8 for view in views)
    for workers in (0, 2):
        loader = DataLoader(RandomViews(images, 32, (0, 1)), batch_sampler=[[5, 2], [0]], num_workers=workers)
        batches = {int(place): view for batch, places in loader for view, place in zip(batch, places, strict=True)}
        assert batches.keys() == {5, 2, 0}
        assert all(torch.equal(views[place], view) for place, view in batches.items())
    again = RandomViews(images, 32, (0, 1))[3][0]
    assert torch.equal(again, views[3])
    for seeds in ((0, 2), (1, 1)):
        assert not torch.equal(RandomViews(images, 32, seeds)[3][0], views[3])


def test_of_equal_scores_the_lower_loss_is_best():
    log = [{"validation_score": score, "validation_loss": loss} for score, loss in ((0.8, 0.1), (0.9, 0.5), (0.9, 0.4))]
    assert best_epoch(log) is log[2]
