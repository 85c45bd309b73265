"""k-means: toy answers, faiss and scikit-learn as judges of the objective, and the awkward inputs."""

import faiss
import numpy as np
import pytest

from ivfpq import kernels
from ivfpq.kmeans import kmeans

F = np.float32


@pytest.fixture(autouse=True, params=sorted({kernels.available()[0], kernels.available()[-1]}))
def kernel(request, monkeypatch):
    """Plain numpy, and compiled code."""
    monkeypatch.setenv("IVFPQ_KERNEL", request.param)


def rng(seed=0):
    return np.random.default_rng(seed)


def objective(x, centroids):
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    return sum(((row - centroids) ** 2).sum(axis=1).min() for row in x)


def blobs(n, k, d, seed=0):
    r = rng(seed)
    return (r.normal(size=(k, d))[r.integers(k, size=n)] * 5 + r.normal(size=(n, d))).astype(F)


def test_four_corners():
    corners = np.array([[0, 0], [0, 9], [9, 0], [9, 9]], F)
    x = np.concatenate([corners + step for step in ([0, 0.5], [0.5, 0], [0, -0.5], [-0.5, 0])]).astype(F)
    found = kmeans(x, 4, rng())
    assert sorted(found.tolist()) == corners.tolist()


def test_as_many_centroids_as_points_are_the_points():
    x = blobs(12, 12, 3)
    assert sorted(kmeans(x, 12, rng()).round(4).tolist()) == sorted(x.round(4).tolist())


def test_one_centroid_is_the_mean():
    x = blobs(100, 3, 4)
    np.testing.assert_allclose(kmeans(x, 1, rng())[0], x.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("k", "d"), [(8, 2), (32, 16), (64, 40)])
def test_the_objective_is_as_low_as_that_of_faiss(k, d):
    x = blobs(3000, k, d, seed=k)
    theirs = faiss.Kmeans(d, k, niter=25, seed=1)
    theirs.train(x)
    assert objective(x, kmeans(x, k, rng())) <= 1.02 * objective(x, theirs.centroids)


def test_without_a_tolerance_no_iteration_is_left_out(caplog):
    x = blobs(300, 4, 3)
    caplog.set_level("DEBUG", "ivfpq.kmeans")
    quick, all_of_them = kmeans(x, 4, rng()), kmeans(x, 4, rng(), tolerance=None)
    counts = [record.args[1] for record in caplog.records]
    assert counts[-25:] == list(range(25))  # those of the second call
    assert 0 < len(counts) - 25 < 25
    assert objective(x, all_of_them) <= objective(x, quick)


def test_same_seed_same_bytes_and_the_input_is_left_alone():
    x = blobs(500, 8, 6)
    before = x.copy()
    one, two, other = kmeans(x, 8, rng(3)), kmeans(x, 8, rng(3)), kmeans(x, 8, rng(4))
    assert one.tobytes() == two.tobytes() != other.tobytes()
    np.testing.assert_array_equal(x, before)


def test_data_far_from_the_origin_is_clustered_as_well():
    x = blobs(500, 8, 6)
    near, far = objective(x, kmeans(x, 8, rng())), objective(x, kmeans(x + F(10_000), 8, rng()) - F(10_000))
    assert far <= 1.02 * near


@pytest.mark.parametrize("spherical", [False, True])
def test_fewer_distinct_points_than_centroids(spherical):
    x = np.repeat(np.array([[0, 1], [1, 0], [3, 3]], F), 20, axis=0)
    found = kmeans(x, 10, rng(), spherical=spherical)
    assert found.shape == (10, 2) and np.isfinite(found).all()
    if not spherical:
        assert objective(x, found) < 1e-10


def test_no_centroid_is_left_without_points():
    # One far point and a crowd: seeds drawn in rounds may share a cell, and the repair has to move them.
    x = np.concatenate([rng().normal(size=(200, 3)), [[1000, 0, 0]]]).astype(F)
    for seed in range(5):
        found = kmeans(x, 40, rng(seed))
        nearest = ((x[:, None] - found) ** 2).sum(axis=2).argmin(axis=1)
        assert len(np.unique(nearest)) >= 39


def test_spherical_centroids_have_length_one_and_follow_the_directions():
    angles = np.repeat([0.0, 1.0, 2.0, 4.0], 50) + rng().normal(size=200) * 0.01
    x = (np.stack([np.cos(angles), np.sin(angles)], 1) * rng().uniform(0.5, 2, (200, 1))).astype(F)
    found = kmeans(x, 4, rng(), spherical=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(sorted(np.arctan2(found[:, 1], found[:, 0]) % 6.2832), [0, 1, 2, 4], atol=0.02)


def test_too_few_points_say_both_numbers():
    with pytest.raises(ValueError, match="n=3, k=4"):
        kmeans(np.zeros((3, 2), F), 4, rng())


def test_large_training_sets_are_sampled():
    x = blobs(5000, 4, 2)
    assert objective(x, kmeans(x, 4, rng())) <= 1.1 * objective(x, kmeans(x[:1000], 4, rng()))
