"""IVFPQTransformer in scikit-learn's own checks, beside its exact counterpart, and in pipelines."""

import logging

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from ivfpq.neighbors import IVFPQTransformer

CHECKED = [
    IVFPQTransformer(),  # whose index has too few samples in these checks, and searches exactly
    IVFPQTransformer(spec="IVF2,PQ1x2", nprobe=2, n_neighbors=2),
    IVFPQTransformer(spec="IVF1,RQ2x1,Refine", metric="cosine", mode="connectivity", n_neighbors=2),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    x, y = make_blobs(700, 12, centers=5, cluster_std=2.0, random_state=0)
    return x[:600], y[:600], x[600:], y[600:]


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("spec", ["Flat", "IVF4,PQ8x4,Refine"])
def test_the_graph_is_that_of_the_exact_transformer(blobs, mode, metric, spec):
    x, _, q, _ = blobs
    ours = IVFPQTransformer(mode=mode, metric=metric, spec=spec, nprobe=4, n_neighbors=6).fit(x)
    theirs = KNeighborsTransformer(mode=mode, metric=metric, n_neighbors=6).fit(x)
    for some in (q, x[:50]):
        one, two = ours.transform(some), theirs.transform(some)
        assert issparse(one) and one.shape == two.shape == (len(some), 600) and one.nnz == two.nnz
        difference = abs(one - two)
        if spec == "Flat":
            assert difference.max() < 1e-3
        else:  # the sum over neighbours that only one of them has
            assert difference.sum() < 0.1 * two.sum()
    if mode == "distance":
        assert (ours.transform(x[:50]).diagonal() < 2e-3).all()  # each sample is its own neighbour


def test_neighbours_come_nearest_first_and_are_always_as_many(blobs):
    x, _, q, _ = blobs
    ours = IVFPQTransformer(spec="IVF50,PQ6x4", nprobe=1).fit(x)
    distances, indices = ours.kneighbors(q, 300)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(row.tolist())) == 300 for row in indices) and indices.min() >= 0
    np.testing.assert_array_equal(ours.kneighbors(q, 300, return_distance=False), indices)


def test_features_that_the_quantizer_does_not_divide(blobs):
    x, _, q, _ = blobs
    ours = IVFPQTransformer(spec="IVF4,PQ7x4,Refine", nprobe=4).fit(x)
    assert ours.index_.d == 14 and ours.n_features_in_ == 12
    exact = KNeighborsTransformer().fit(x)
    found, want = ours.kneighbors(q)[1], exact.kneighbors(q)[1]
    assert np.mean([len(np.intersect1d(*rows)) for rows in zip(found, want, strict=True)]) > 4


def test_a_classifier_behind_it_is_as_good(blobs):
    x, y, q, labels = blobs
    pipeline = make_pipeline(
        IVFPQTransformer(spec="IVF4,PQ6x4", nprobe=2, n_neighbors=10), KNeighborsClassifier(10, metric="precomputed")
    )
    exact = KNeighborsClassifier(10).fit(x, y).score(q, labels)
    assert clone(pipeline).fit(x, y).score(q, labels) > exact - 0.03


def test_too_few_samples_search_exactly_and_say_so(blobs, caplog):
    with caplog.at_level(logging.WARNING):
        ours = IVFPQTransformer().fit(blobs[0][:200])
    assert "needs 256 samples to train, got 200: searching exactly" in caplog.text
    assert ours.get_feature_names_out()[-1] == "ivfpqtransformer199"


def test_what_does_not_fit_is_refused(blobs):
    x = blobs[0]
    with pytest.raises(ValueError, match="mode must be"):
        IVFPQTransformer(mode="x").fit(x)
    with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', got 'l2'"):
        IVFPQTransformer(metric="l2").fit(x)
    with pytest.raises(ValueError, match="'PQ0x' is no codec"):
        IVFPQTransformer(spec="IVF4,PQ0x").fit(x)
    with pytest.raises(ValueError, match="at most n_samples_fit_ = 10, got 11"):
        IVFPQTransformer(spec="Flat", n_neighbors=10).fit(x[:10]).transform(x[:3])
    with pytest.raises(TypeError, match="n_neighbors must be a whole number"):
        IVFPQTransformer(n_neighbors=1.5).fit(x)


def test_it_comes_from_the_package_and_loads_scikit_learn_only_then():
    import subprocess
    import sys

    code = "import sys, ivfpq; assert 'sklearn' not in sys.modules; ivfpq.IVFPQTransformer; sys.modules['sklearn']"
    subprocess.run([sys.executable, "-c", code], check=True)
