"""What the epochs of a training are judged by, and how its learning rate goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from features.evaluate import class_mean_average_precision

HEAD_FACTOR = 10.0
"""On a frozen trunk the new last layer learns at so many times the learning rate of all layers."""
WARM_UP = 0.1
"""Share of the steps of all layers during which their learning rate rises to its full value."""


def schedule(step: int, frozen: int, steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    Constant while the last layer learns alone, in the first `frozen` steps; then for all layers a linear warm-up and
    half a cosine down to zero (Loshchilov, Hutter 2017, section 3, without restarts).
    """
    if step < frozen:
        return HEAD_FACTOR
    done = (step - frozen + 1) / (steps - frozen)
    return min(1.0, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def score(scores: np.ndarray, shown: np.ndarray, multi_label: bool) -> float:
    """Accuracy, or if images have several labels the mean average precision of the classes.

    Parameters
    ----------
    scores, shown : arrays, shape (n, classes)
        Any increasing function of the probabilities; 1 where the image has the label.
    """
    if multi_label:
        return class_mean_average_precision(scores, shown)
    return float((scores.argmax(axis=1) == shown.argmax(axis=1)).mean())


def best_epoch(log: Sequence[dict[str, float]]) -> dict[str, float]:
    """The epoch with the highest validation score; of several, the one with the lowest validation loss."""
    return max(log, key=lambda row: (row["validation_score"], -row["validation_loss"]))
