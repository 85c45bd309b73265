"""Residual quantization, by itself and in the inverted file."""

import itertools

import faiss
import numpy as np
import pytest
from oracles import check_distances, same

from ivfpq import IndexFlat, IndexIVFPQ, IndexIVFRQ, NotTrainedError, index_factory
from ivfpq.distances import normalised
from ivfpq.metrics import knn_recall_at_k
from ivfpq.pq import ProductQuantizer
from ivfpq.rq import BEAM, ResidualQuantizer, _beam_search, _refitted, _sum, _Tables

F = np.float32
D, NLIST, M, NBITS = 10, 5, 4, 4  # M does not divide D
METRICS = ["l2", "ip", "cosine"]


def vectors(n, seed=0, d=D):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, d)) * 3
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(F)


def trained_quantizer(d=D, m=M, nbits=NBITS, n=800):
    rq = ResidualQuantizer(d, m, nbits)
    rq.train(vectors(n, d=d), np.random.default_rng(0))
    return rq


def error(x, quantizer):
    return float(np.square(x - quantizer.decode(quantizer.encode(x))).sum(axis=1).mean())


def test_decoding_adds_in_order():
    rq = trained_quantizer()
    codes = np.random.default_rng(0).integers(0, 16, (20, M)).astype(np.uint8)
    for row, y in zip(codes, rq.decode(codes), strict=True):
        total = rq.codebooks[0, row[0]]
        for m in range(1, M):
            total = total + rq.codebooks[m, row[m]]
        assert y.tobytes() == total.tobytes()


def test_a_beam_as_wide_as_all_choices_finds_the_best_code():
    rng = np.random.default_rng(0)
    codebooks, x = rng.normal(size=(3, 4, 6)).astype(F), rng.normal(size=(30, 6)).astype(F)
    everything = np.array(list(itertools.product(range(4), repeat=3)))
    gaps = np.square(x[:, None].astype(float) - _sum(everything, codebooks)).sum(axis=2)
    found = _beam_search(x, _Tables(codebooks), 64)
    assert found.shape == (30, 64, 3)
    for row, gap in zip(found, gaps, strict=True):
        np.testing.assert_array_equal(row, everything[np.argsort(gap)])


def test_a_wider_beam_is_no_worse_and_the_widest_kept_is_best():
    rq, x = trained_quantizer(), vectors(300, 1)
    tables = _Tables(rq.codebooks)
    errors = [np.square(x - rq.decode(_beam_search(x, tables, b)[:, 0])).sum() for b in (1, 4, BEAM)]
    assert errors[0] > errors[1] >= errors[2]
    np.testing.assert_array_equal(rq.encode(x), _beam_search(x, tables, BEAM)[:, 0])


def test_fitting_codebooks_to_codes_is_the_ridge_regression():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(200, 6)).astype(F), rng.integers(0, 7, (200, 3))  # word 7 is never used
    before = rng.normal(size=(3, 8, 6)).astype(F)
    fitted = _refitted(x, codes, before)
    b = np.zeros((200, 24))
    for m in range(3):
        b[np.arange(200), 8 * m + codes[:, m]] = 1
    want = np.linalg.solve(b.T @ b + np.eye(24), b.T @ x).reshape(3, 8, 6)
    np.testing.assert_allclose(fitted[:, :7], want[:, :7], atol=1e-4)
    np.testing.assert_array_equal(fitted[:, 7], before[:, 7])


def test_it_loses_less_than_product_quantization_and_than_faiss():
    x = vectors(3000, d=16)
    rq = trained_quantizer(16, 4, 5, 3000)
    pq = ProductQuantizer(16, 4, 5)
    pq.train(x, np.random.default_rng(0))
    theirs = faiss.ResidualQuantizer(16, 4, 5)
    theirs.train(x)
    by_faiss = np.square(x - theirs.decode(theirs.compute_codes(x))).sum(axis=1).mean()
    assert error(x, rq) < 0.9 * error(x, pq)
    assert error(x, rq) < 1.02 * by_faiss
    fresh = vectors(500, 5, d=16)
    assert error(fresh, rq) < 1.02 * np.square(fresh - theirs.decode(theirs.compute_codes(fresh))).sum(axis=1).mean()


def test_packing_is_that_of_faiss():
    rq = trained_quantizer(nbits=5)
    theirs = faiss.ResidualQuantizer(D, M, 5)
    faiss.copy_array_to_vector(rq.codebooks.ravel(), theirs.codebooks)
    theirs.is_trained = True
    codes = rq.encode(vectors(50, 2))
    np.testing.assert_allclose(theirs.decode(rq.pack(codes)), rq.decode(codes), atol=1e-5)
    np.testing.assert_array_equal(rq.unpack(rq.pack(codes)), codes)


@pytest.mark.parametrize("n", [16, 17, 40])
def test_few_and_equal_training_vectors(n):
    rq = ResidualQuantizer(3, 2, 4)
    x = np.repeat(vectors(4, d=3), (n + 3) // 4, axis=0)[:n]
    rq.train(x, np.random.default_rng(0))
    assert np.isfinite(rq.codebooks).all() and error(x, rq) < 0.2 * x.var()
    rq.train(np.zeros((n, 3), F), np.random.default_rng(0))
    assert error(np.zeros((2, 3), F), rq) == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 16 training vectors, got n=15"):
        ResidualQuantizer(3, 2, 4).train(vectors(15, d=3), np.random.default_rng(0))
    with pytest.raises(NotTrainedError):
        ResidualQuantizer(3, 2, 4).encode(vectors(1, d=3))
    with pytest.raises(ValueError, match="nbits must be from 1 to 16, got 17"):
        ResidualQuantizer(3, 2, 17)


@pytest.fixture(scope="module")
def trained():
    made = {}
    for metric in METRICS:
        made[metric] = IndexIVFRQ(D, NLIST, M, NBITS, metric=metric)
        made[metric].train(vectors(600))
    return made


@pytest.fixture(params=METRICS)
def index(request, trained):
    made = IndexIVFRQ.from_state(*trained[request.param].state())
    made.add(vectors(300, 1))
    return made


def test_every_distance_is_the_defined_one(index):
    assert index.ntotal == 300
    check_distances(index, vectors(4, 2), NLIST)


def test_a_short_list_is_the_beginning_of_the_long_one(index):
    q = vectors(20, 3)
    everything = index.search(q, 300, nprobe=3)
    few = index.search(q, 7, nprobe=3)
    assert same(few, (everything.distances[:, :7].copy(), everything.ids[:, :7].copy()))
    assert same(index.search(q[5:6], 7, nprobe=3), (few.distances[5:6], few.ids[5:6]))
    lims, near, ids = index.range_search(q, everything.distances[0, 20], nprobe=3)
    assert ids[: lims[1]].tolist() == everything.ids[0, : lims[1]].tolist()
    assert near[: lims[1]].tobytes() == everything.distances[0, : lims[1]].tobytes()


def test_any_batching_of_add_gives_the_same_index(index):
    parts = IndexIVFRQ.from_state(*index.state())
    parts.reset()
    for part in np.split(vectors(300, 1), [1, 2, 40, 41, 130]):
        parts.add(part)
    for name, array in index.state()[1].items():
        np.testing.assert_array_equal(array, parts.state()[1][name])


def test_update_is_remove_and_add(index):
    other = IndexIVFRQ.from_state(*index.state())
    x = vectors(3, 8)
    index.update([7, 2, 250], x)
    other.remove_ids([2, 7, 250])
    other.add_with_ids(x, [7, 2, 250])
    q = vectors(9, 4)
    assert same(index.search(q, 300, nprobe=NLIST), other.search(q, 300, nprobe=NLIST))
    for wrong in ([300], [1, 300]):
        with pytest.raises(KeyError, match="first is 300"):
            index.update(wrong, x[: len(wrong)])
    with pytest.raises(ValueError, match="distinct"):
        index.update([1, 1], x[:2])
    assert same(index.search(q, 300, nprobe=NLIST), other.search(q, 300, nprobe=NLIST))


def test_codes_without_terms_as_in_files_of_version_2_get_theirs(index):
    parameters, arrays = index.state()
    bare = {name: array for name, array in arrays.items() if name != "pairs"}
    bare["codes"] = index.pq.from_rows(arrays["pairs"])
    for name, array in IndexIVFRQ.from_state(parameters, bare).state()[1].items():
        np.testing.assert_array_equal(array, arrays[name])
    assert index.lists.width == index.pq.code_rows + 2 * (index.metric != "ip")


def test_merging_needs_the_same_kind_and_training(trained):
    one = IndexIVFRQ.from_state(*trained["l2"].state())
    two = IndexIVFRQ.from_state(*trained["l2"].state())
    one.add(vectors(50, 1))
    two.add_with_ids(vectors(50, 2), np.arange(50, 100))
    one.merge_from(two)
    assert one.ntotal == 100
    with pytest.raises(ValueError, match="50 of the ids are already"):
        one.merge_from(two)
    pq = IndexIVFPQ(D, NLIST, 5, NBITS)
    for a, b in ((one, pq), (pq, one)):
        with pytest.raises(TypeError, match=f"an {type(a).__name__} can only take in another one, got "):
            a.merge_from(b)
    two.reset()
    two.install(two.centroids, two.pq.codebooks + F(1))
    with pytest.raises(ValueError, match="different codebooks"):
        one.merge_from(two)


def test_recall_is_that_of_faiss_or_better():
    x, q = vectors(4000, d=24), vectors(200, 9, d=24)
    flat = IndexFlat(24)
    flat.add(x)
    truth = flat.search(q, 10).ids
    index = index_factory(24, "IVF10,RQ4x6")
    index.train(x)
    index.add(x)
    theirs = faiss.index_factory(24, "IVF10,RQ4x6")
    theirs.train(x)
    theirs.add(x)
    theirs.nprobe = 10
    ours = knn_recall_at_k(index.search(q, 10, nprobe=10).ids, truth)
    assert ours > knn_recall_at_k(theirs.search(q, 10)[1], truth) - 0.01


@pytest.mark.realdata
@pytest.mark.slow
def test_eight_bytes_find_two_thirds_of_the_real_neighbours(testdata):
    with np.load(testdata / "caltech101_features_2048.npz") as archive:
        x = normalised(archive["features"].astype(F))
    order = np.random.default_rng(0).permutation(len(x))
    q, x = x[order[:1000]], x[order[1000:]]
    flat = IndexFlat(2048)
    flat.add(x)
    index = index_factory(2048, "PCA256,IVF1024,RQ8x8")
    index.train(x)
    index.add(x)
    assert index.code_size == 8
    assert knn_recall_at_k(index.search(q, 10, nprobe=16).ids, flat.search(q, 10).ids) > 0.65  # 0.678 when written
