"""Pairs and dimensions of vectors whose pairs and dimensions are known."""

import numpy as np
import pytest

from geometry import (
    axes_for,
    compared,
    effective_dimension,
    intrinsic_dimension,
    labelled_pairs,
    principal_variances,
    sparsity,
)


def test_pairs_share_a_label_or_none():
    rng = np.random.default_rng(0)
    labels = [tuple(rng.choice(["a", "b", "c", "d"], rng.integers(0, 3), replace=False)) for _ in range(60)]
    labels[7] = ("alone",)
    same, different = labelled_pairs(labels, 300, seed=1)
    assert same.shape == different.shape == (300, 2)
    assert (same[:, 0] != same[:, 1]).all()
    assert all(set(labels[a]) & set(labels[b]) for a, b in same)
    assert not any(set(labels[a]) & set(labels[b]) for a, b in different)
    assert 7 not in same and 7 in different[:, 1]
    again, _ = labelled_pairs(labels, 300, seed=1)
    assert np.array_equal(same, again)


@pytest.mark.parametrize("labels", [[("a",), ("b",)], [("a",)] * 3, [()] * 3, []])
def test_labels_that_allow_no_pairs(labels):
    with pytest.raises(ValueError, match="pairs need images"):
        labelled_pairs(labels, 1)


def test_measures_of_pairs():
    x = np.array([[3.0, 0.0], [0.0, 4.0], [6.0, 8.0]], np.float16)
    pairs = np.array([[0, 1], [0, 2]])
    assert compared(x, pairs, "Euclidean") == pytest.approx([5, np.sqrt(73)])
    assert compared(x, pairs, "dot") == pytest.approx([0, 18])
    assert compared(x, pairs, "cosine") == pytest.approx([0, 0.6])
    with pytest.raises(ValueError, match="Euclidean, dot, cosine, got 'l2'"):
        compared(x, pairs, "l2")


def test_sparsity_from_flat_to_a_single_number():
    x = np.zeros((3, 16), np.float32)
    x[0], x[1, 5] = 2, -3
    assert sparsity(x) == pytest.approx([0, 1, np.nan], nan_ok=True)
    assert 0 < sparsity(np.random.default_rng(0).normal(size=(1, 400)))[0] < 0.5


@pytest.mark.parametrize("n", [30, 4000])
def test_variances_are_those_of_the_covariance(n):
    x = np.random.default_rng(0).normal(size=(n, 50)) * np.linspace(0.1, 2, 50) + 3
    wanted = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    found = principal_variances(x)
    assert len(found) == min(n, 50)
    assert found == pytest.approx(wanted[: len(found)], abs=1e-9)


def test_effective_dimension_counts_equal_axes():
    assert effective_dimension(np.array([2.0] * 7 + [0.0] * 9)) == pytest.approx(7)
    assert effective_dimension(np.array([5.0])) == 1
    assert [axes_for(np.array([4.0, 3.0, 2.0, 1.0]), share) for share in (0.4, 0.41, 0.9, 1.0)] == [1, 2, 3, 4]


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_sees_through_the_space_around(dimension):
    rng = np.random.default_rng(0)
    surface = rng.random((1500, dimension)) @ rng.normal(size=(dimension, 40))
    assert intrinsic_dimension(surface) == pytest.approx(dimension, rel=0.12)
    assert intrinsic_dimension(np.concatenate([surface, surface[:50]])) == pytest.approx(dimension, rel=0.12)
