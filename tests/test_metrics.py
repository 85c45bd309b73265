"""Metrics on answers counted by hand."""

import math

import numpy as np
import pytest

from ivfpq.metrics import knn_recall_at_k, mean_average_precision, one_recall_at_k, precision_at_k

FOUND = np.array([[1, 2, 3], [9, 8, -1]])
TRUTH = np.array([[3, 4, 1], [8, 7, 9]])


def test_knn_recall():
    assert knn_recall_at_k(FOUND, TRUTH) == 4 / 6
    assert knn_recall_at_k(FOUND, TRUTH, 1) == 0
    assert knn_recall_at_k(FOUND, TRUTH, 2) == 1 / 4
    assert knn_recall_at_k(TRUTH, TRUTH) == 1


def test_missing_neighbours_are_neither_hits_nor_asked_for():
    assert knn_recall_at_k([[1, -1]], [[1, -1]]) == 1
    assert knn_recall_at_k([[-1, -1]], [[1, 2]]) == 0
    assert math.isnan(knn_recall_at_k([[-1]], [[-1]]))


def test_one_recall():
    assert one_recall_at_k(FOUND, TRUTH) == 1
    assert one_recall_at_k(FOUND, TRUTH, 2) == 1 / 2
    assert one_recall_at_k(FOUND, TRUTH, 1) == 0
    assert one_recall_at_k([[-1, 2]], [[-1]]) == 0


def test_precision():
    relevant = np.array([[True, False, True], [False, False, True]])
    assert precision_at_k(relevant) == 1 / 2
    assert precision_at_k(relevant, 2) == 1 / 4


def test_mean_average_precision():
    relevant = np.array([[True, False, True], [False, True, False], [False, False, False]])
    assert mean_average_precision(relevant) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert mean_average_precision(relevant, [4, 1, 2]) == pytest.approx(((1 + 2 / 3) / 4 + 1 / 2 + 0) / 3)
    assert math.isnan(mean_average_precision(relevant[2:]))


def test_mean_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    relevant = rng.random((20, 50)) < 0.2
    want = np.mean([average_precision_score(row, -np.arange(50)) for row in relevant])
    assert mean_average_precision(relevant) == pytest.approx(want)


@pytest.mark.parametrize(
    "call",
    [
        lambda: knn_recall_at_k(FOUND, TRUTH, 4),
        lambda: knn_recall_at_k(FOUND[0], TRUTH[0]),
        lambda: knn_recall_at_k(FOUND, TRUTH[:1]),
        lambda: one_recall_at_k(FOUND, TRUTH, 4),
        lambda: precision_at_k([[1, 0]]),
        lambda: precision_at_k([[True]], 2),
        lambda: mean_average_precision([[True, True]], [1]),
        lambda: mean_average_precision([[True, True]], [2, 2]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=r"\d"):
        call()
