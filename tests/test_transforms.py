"""Transforms against faiss and scikit-learn; IndexPreTransform against transforming by hand."""

import faiss
import numpy as np
import pytest
from oracles import same

from ivfpq import IndexFlat, IndexIVFPQ, IndexPreTransform, NotTrainedError, index_factory
from ivfpq.distances import normalised
from ivfpq.pq import ProductQuantizer
from ivfpq.transforms import OPQ, PCA, L2Norm, LinearTransform, _allocated

F = np.float32
METRICS = ["l2", "ip", "cosine"]


def vectors(n, d=16, seed=0):
    """Of variances that fall off, with correlated coordinates and a mean."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) * 0.8 ** np.arange(d)[:, None]
    return (rng.normal(size=(n, d)) @ mix + 1).astype(F)


def turned(d_in, d_out, seed=0):
    """A LinearTransform with random orthonormal rows."""
    rng = np.random.default_rng(seed)
    made = LinearTransform(d_in, d_out)
    made.install(np.linalg.qr(rng.normal(size=(d_in, d_in)))[0][:d_out], rng.normal(size=d_out))
    return made


def test_any_batch_gives_the_same_bits():
    transform, x = turned(300, 40), vectors(500, 300)
    whole = transform.apply(x)
    for size in (1, 7):
        parts = [transform.apply(part) for part in np.array_split(x[:70], 70 // size)]
        assert np.concatenate(parts).tobytes() == whole[:70].tobytes()
    assert transform.apply(np.asfortranarray(x)).tobytes() == whole.tobytes()


def test_pca_is_that_of_scikit_learn_and_faiss():
    from sklearn import decomposition

    x, q = vectors(400), vectors(30, seed=1)
    ours = PCA(16, 5)
    ours.train(x, np.random.default_rng(0))
    theirs = decomposition.PCA(5).fit(x.astype(np.float64))
    by_faiss = faiss.PCAMatrix(16, 5)
    by_faiss.train(x)
    for other in (theirs.transform(q.astype(np.float64)), by_faiss.apply(q)):
        signs = np.sign((other * ours.apply(q)).sum(axis=0))
        np.testing.assert_allclose(ours.apply(q), other * signs, atol=2e-4)
    np.testing.assert_allclose(ours.apply(x).mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(ours.reverse(ours.apply(q)), by_faiss.reverse_transform(by_faiss.apply(q)), atol=2e-4)


def test_pca_for_inner_products_keeps_the_origin():
    x = vectors(400)
    pca = PCA(16, 16)
    pca.train(x, np.random.default_rng(0), centred=False)
    assert not pca.b.any()
    np.testing.assert_allclose(pca.apply(x) @ pca.apply(x).T, x @ x.T, rtol=1e-3, atol=1e-2)


def test_pca_sees_no_shift_and_no_order():
    x = vectors(300)
    one, two = PCA(16, 4), PCA(16, 4)
    one.train(x, np.random.default_rng(0))
    two.train(x[::-1] + F(1024), np.random.default_rng(5))
    np.testing.assert_allclose(one.A, two.A, atol=1e-3)


def quantization_error(z, M, nbits):
    pq = ProductQuantizer(z.shape[1], M, nbits)
    pq.train(z, np.random.default_rng(0))
    return float(np.square(z - pq.decode(pq.encode(z))).sum(axis=1).mean())


def test_opq_makes_the_product_quantizer_lose_less():
    x = vectors(2000)
    opq = OPQ(16, 16, 4, 4)
    opq.train(x, np.random.default_rng(0))
    np.testing.assert_allclose(opq.A @ opq.A.T, np.eye(16), atol=1e-4)
    pca = PCA(16, 16)
    pca.train(x, np.random.default_rng(0))
    mine = quantization_error(opq.apply(x), 4, 4)
    assert mine < 0.9 * quantization_error(x, 4, 4) and mine < 0.8 * quantization_error(pca.apply(x), 4, 4)
    theirs = faiss.OPQMatrix(16, 4, 16)
    theirs.pq = faiss.ProductQuantizer(16, 4, 4)
    theirs.train(x)
    assert mine < 1.05 * quantization_error(theirs.apply(x), 4, 4)


def test_opq_with_a_reduction_stays_in_the_principal_directions():
    x = vectors(1000)
    opq, pca = OPQ(16, 8, 4, 4), PCA(16, 8)
    opq.train(x, np.random.default_rng(0))
    pca.train(x, np.random.default_rng(0))
    np.testing.assert_allclose(opq.A.T @ opq.A, pca.A.T @ pca.A, atol=1e-4)  # the same projection
    again = OPQ(16, 8, 4, 4)
    again.train(x, np.random.default_rng(0))
    assert again.A.tobytes() == opq.A.tobytes()


def test_directions_are_dealt_out_evenly():
    order = _allocated(np.array([16.0, 8, 4, 2, 1, 0.5, 0.25, 0.125]), 4)
    assert sorted(order) == list(range(8))
    assert {frozenset(order[2 * m : 2 * m + 2]) for m in range(4)} == {
        frozenset(p) for p in ((0, 7), (1, 6), (2, 5), (3, 4))
    }
    assert sorted(_allocated(np.zeros(6), 3)) == list(range(6))


def test_l2norm():
    x = vectors(5)
    x[2] = 0
    y = L2Norm(16).apply(x)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), [1, 1, 0, 1, 1], rtol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(NotTrainedError):
        PCA(4, 2).apply(np.zeros((1, 4), F))
    with pytest.raises(ValueError, match="rows of A must be orthonormal"):
        LinearTransform(2, 2).install([[1, 0], [1, 1]], [0, 0])
    with pytest.raises(ValueError, match=r"A must have shape \(2, 3\), got \(1, 3\)"):
        LinearTransform(3, 2).install(np.eye(3)[:1], [0, 0])
    flat = IndexFlat(3)
    with pytest.raises(ValueError, match="gives 2 dimensions, what follows takes 3"):
        IndexPreTransform([PCA(4, 2)], flat)
    with pytest.raises(ValueError, match="must be for l2"):
        IndexPreTransform([PCA(4, 3)], IndexFlat(3, metric="cosine"))
    with pytest.raises(ValueError, match="must be for l2"):
        IndexPreTransform([PCA(4, 3)], IndexFlat(3, metric="ip"), metric="cosine")
    with pytest.raises(ValueError, match="at least one"):
        IndexPreTransform([], flat)
    with pytest.raises(TypeError, match="got dict"):
        IndexPreTransform([L2Norm(3)], {})
    with pytest.raises(TypeError, match="got IndexFlat"):
        IndexPreTransform([flat], flat)


SPECS = ["PCA8,Flat", "PCA8,IVF6,PQ4x4", "OPQ4_8,IVF6,PQ4x4", "L2norm,PCA8,IVF6,RQ3x4"]


@pytest.fixture(params=METRICS, scope="module")
def metric(request):
    return request.param


@pytest.fixture(params=SPECS, scope="module")
def trained(request, metric):
    index = index_factory(16, request.param, metric=metric)
    assert not index.is_trained and index.train_size_min >= 9
    with pytest.raises(NotTrainedError):
        index.add(vectors(1))
    index.train(vectors(500))
    return index


@pytest.fixture
def index(trained):
    made = IndexPreTransform.from_state(*trained.state())
    made.add(vectors(300, seed=1))
    return made


def by_hand(index, x):
    x = normalised(x) if index.metric == "cosine" else x
    for transform in index.transforms:
        x = transform.apply(x)
    return x


def test_searching_is_searching_what_the_transforms_give(index):
    q = vectors(20, seed=2)
    found = index.search(q, 9, nprobe=3)
    np.testing.assert_array_equal(index.apply_chain(q), by_hand(index, q))
    inside = index.index.search(by_hand(index, q), 9, nprobe=3)
    want = F(1) - inside.distances / F(2) if index.metric == "cosine" else inside.distances
    assert same(found, (want, inside.ids))
    assert index.metric == "l2" or (np.diff(found.distances) <= 0).all()
    alone = index.search(q[3:4], 9, nprobe=3)
    assert same(alone, (found.distances[3:4], found.ids[3:4]))


def test_range_search_agrees_with_search(index):
    q = vectors(9, seed=3)
    distances, ids = index.search(q, 300, nprobe=6)
    for radius in (distances[0, 30], distances[4, 100]):
        lims, near, found = index.range_search(q, radius, nprobe=6)
        for i in range(len(q)):
            inside = distances[i] < radius if index.metric == "l2" else distances[i] > radius
            assert found[lims[i] : lims[i + 1]].tolist() == ids[i, inside].tolist()
            assert near[lims[i] : lims[i + 1]].tobytes() == distances[i, inside].tobytes()


def test_the_other_verbs(index):
    q, some = vectors(5, seed=4), np.arange(0, 300, 7)
    got = index.search(q, 5, ids=some)
    assert set(got.ids.ravel().tolist()) <= {-1, *some.tolist()}
    assert index.remove_ids([3, 5, 10**9]) == 2 and index.ntotal == 298
    index.add_with_ids(vectors(1, seed=5), [3])
    other = IndexPreTransform.from_state(*index.state())
    other.reset()
    other.add_with_ids(vectors(2, seed=6), [5, 900])
    index.merge_from(other)
    assert index.ntotal == 301 and other.ntotal == 2
    with pytest.raises(ValueError, match="already in the index"):
        index.merge_from(other)
    index.update([900], vectors(1, seed=5))
    assert same([index.reconstruct(900)], [index.reconstruct(3)])
    with pytest.raises(KeyError, match="1 of the ids are not in the index, the first is 901"):
        index.update([900, 901], vectors(2))
    with pytest.raises(KeyError):
        index.reconstruct(901)
    with pytest.raises(RuntimeError, match="reset it"):
        index.train(vectors(500))
    if index.code_size != 32:
        index.nprobe = 4
        assert (index.nlist, index.nprobe, index.index.nprobe) == (6, 4, 4)
    else:
        assert not hasattr(index, "nlist")
    index.reset()
    assert index.ntotal == 0 and index.is_trained


def test_reconstructions_are_near(index):
    x = vectors(300, seed=1)
    x = normalised(x) if index.metric == "cosine" else x
    if isinstance(index.transforms[0], L2Norm):
        x = normalised(x)
    rebuilt = np.stack([index.reconstruct(i) for i in range(300)])
    assert rebuilt.dtype == F and np.square(rebuilt - x).sum() < 0.5 * np.square(x - x.mean(axis=0)).sum()


def test_merging_what_was_trained_apart_is_refused():
    one, two = (index_factory(16, "PCA8,IVF4,PQ2x4", seed=0) for _ in range(2))
    one.train(vectors(300))
    two.train(vectors(300, seed=8))
    with pytest.raises(ValueError, match="different transforms"):
        one.merge_from(two)
    with pytest.raises(TypeError, match="got IndexFlat"):
        one.merge_from(IndexFlat(16))
    with pytest.raises(ValueError, match=r"at least 16 vectors .*got n=15"):
        two.train(vectors(15))


def test_training_is_the_same_for_the_same_seed_only():
    made = [index_factory(16, "OPQ4_8,IVF4,PQ4x4", seed=seed) for seed in (1, 1, 2)]
    for index in made:
        index.train(vectors(600))
    one, two, other = (b"".join(a.tobytes() for a in index.state()[1].values()) for index in made)
    assert one == two != other


def test_pca_and_opq_gain_recall_on_codes():
    from ivfpq.metrics import knn_recall_at_k

    x, q = vectors(3000, 32), vectors(100, 32, seed=2)
    flat = IndexFlat(32)
    flat.add(x)
    truth, recall = flat.search(q, 10).ids, {}
    for spec in ("IVF8,PQ4x6", "OPQ4,IVF8,PQ4x6", "OPQ4_16,IVF8,PQ4x6"):
        index = index_factory(32, spec)
        index.train(x)
        index.add(x)
        recall[spec] = knn_recall_at_k(index.search(q, 10, nprobe=8).ids, truth)
    plain, turned_, reduced = recall.values()
    assert turned_ > plain + 0.05 and reduced > plain + 0.05
    assert isinstance(index.index, IndexIVFPQ)
