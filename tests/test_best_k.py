"""The k best of each query, and all within a radius (`ivfpq.results`)."""

import numpy as np

from ivfpq.results import best_k, within

F = np.float32


def test_best_k_orders_by_distance_then_id_and_pads():
    query = np.array([2, 0, 0, 0, 2])
    distance = np.array([1, 5, 3, 3, 0], F)
    ids = np.array([7, 1, 9, 4, 8])
    found = best_k(query, distance, ids, 3, 2, "l2")
    assert found.ids.tolist() == [[4, 9], [-1, -1], [8, 7]]
    assert found.distances.tolist() == [[3, 3], [np.inf, np.inf], [0, 1]]
    found = best_k(query, distance, ids, 3, 3, "ip")
    assert found.ids.tolist() == [[1, 4, 9], [-1, -1, -1], [7, 8, -1]]
    assert found.distances[2].tolist() == [1, 0, -np.inf]


def test_within_is_strict():
    query, distance, ids = np.array([1, 1, 1]), np.array([2, 1, 3], F), np.array([5, 6, 7])
    lims, d, i = within(query, distance, ids, 2, 2.0, "l2")
    assert (lims.tolist(), d.tolist(), i.tolist()) == ([0, 0, 1], [1], [6])
    lims, d, i = within(query, distance, ids, 2, 2.0, "ip")
    assert (lims.tolist(), d.tolist(), i.tolist()) == ([0, 0, 1], [3], [7])
