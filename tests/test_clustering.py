"""k-means beside its peers: all of them cluster, all are counted alike."""

import os

import numpy as np
import pytest

import clustering
from benchmarks.data import synthetic
from clustering import Clustered, compare_kmeans, kmeans_table


def test_all_cluster_the_same_points_in_turns(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    asked = []
    for name, (seeding, call) in clustering.CLUSTERINGS.items():

        def noted(x, k, seed, name=name, call=call):
            asked.append((name, len(x), k, os.environ["OMP_NUM_THREADS"]))
            return call(x, k, seed)

        monkeypatch.setitem(clustering.CLUSTERINGS, name, (seeding, noted))
    x = synthetic(600, 16, 0)
    done = compare_kmeans(x, 8, threads=1, repeats=2)
    turn = [(name, 600, 8, "1") for name in ("scikit-learn", "faiss", "ours")]
    assert asked[3:] == turn * 2
    assert os.environ["OMP_NUM_THREADS"] == "7"
    spread = float(np.square(x - x.mean(axis=0)).sum(axis=1).mean())
    for row in done:
        assert len(row.seconds) == len(row.objective) == 2
        assert all(1 < count <= 25 for count in row.iterations)
        assert (
            0.2 * spread < min(row.objective) <= max(row.objective) < 0.8 * spread
        )  # it has clustered: one has `spread`
    values = [value for row in done for value in row.objective]
    assert max(values) < 1.3 * min(values)


def test_the_objective_is_the_mean_squared_distance():
    x = np.array([[0, 0], [2, 0], [10, 0]], np.float32)
    assert clustering._objective(x, np.array([[1, 0], [10, 0]], np.float32)) == pytest.approx(2 / 3)


def test_points_that_some_would_leave_out_are_refused():
    with pytest.raises(ValueError, match="1025 points for 4 centroids"):
        compare_kmeans(np.zeros((1025, 2), np.float32), 4, threads=1, repeats=1)


def test_the_table_shows_the_spread():
    text = kmeans_table([Clustered("ours", "k-means++", [25, 25, 25], [1.0, 2.0, 4.0], [0.5, 0.25, 0.75])])
    assert "2.00 (1.00-4.00)" in text
    assert "0.25000 - 0.75000" in text
