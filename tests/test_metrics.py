"""Metrics on answers counted by hand."""

import math

import numpy as np
import pytest

from ivfpq.metrics import knn_recall_at_k, mean_average_precision, one_recall_at_k, precision_at_k, tie_recall_at_k

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


def test_ties_count_as_right():
    truth = [[1.0, 2.0, 2.0]]  # ids 5, 6 and 7, say, with 8 and 9 as far away as 7
    assert tie_recall_at_k([[5, 8, 9]], [[1.0, 2.0, 2.0]], truth) == 1
    assert knn_recall_at_k([[5, 8, 9]], [[5, 6, 7]]) == 1 / 3
    assert tie_recall_at_k([[8, 9, 4]], [[2.0, 2.0, 2.5]], truth) == 2 / 3
    assert tie_recall_at_k([[8, 9, 4]], [[2.0, 2.0, 2.5]], truth, 1) == 0  # the nearest is at 1
    assert tie_recall_at_k([[5, 4, 3], [1, 2, 3]], [[1, 3, 3], [0, 0, 0]], truth * 2) == 4 / 6


def test_an_id_given_twice_or_missing_is_no_second_hit():
    truth = [[1.0, 2.0]]
    assert tie_recall_at_k([[5, 5]], [[1.0, 1.0]], truth) == 1 / 2
    assert tie_recall_at_k([[5, -1]], [[1.0, 0.0]], truth) == 1 / 2
    assert tie_recall_at_k([[5, -1]], [[1.0, math.inf]], [[1.0, math.inf]]) == 1
    assert tie_recall_at_k([[5, 6]], [[1.0, 1.0]], [[1.0, math.inf]]) == 1
    assert math.isnan(tie_recall_at_k([[-1]], [[math.inf]], [[math.inf]]))


def test_without_ties_both_recalls_agree():
    rng = np.random.default_rng(0)
    distances = np.array([rng.permutation(50) for _ in range(20)], float)
    truth = np.argsort(distances, axis=1)[:, :10]
    found = np.array([rng.choice(50, 10, replace=False) for _ in range(20)])
    got = tie_recall_at_k(found, np.take_along_axis(distances, found, 1), np.take_along_axis(distances, truth, 1))
    assert got == knn_recall_at_k(found, truth)
    assert 0 < got < 1


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
        lambda: tie_recall_at_k(FOUND, TRUTH, TRUTH, 4),
        lambda: tie_recall_at_k(FOUND, TRUTH[:1], TRUTH),
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
