"""Scalar quantization, by itself and in the inverted file."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import check_distances, same
from test_compiled import check, with_random_codes

from ivfpq import IndexFileError, IndexIVFPQ, IndexIVFSQ, IndexSQ, NotTrainedError, index_factory, kernels, load, save
from ivfpq.distances import normalised
from ivfpq.kernels import integers, scalar
from ivfpq.sq import ScalarQuantizer

F = np.float32
D, NLIST = 10, 5
METRICS = ["l2", "ip", "cosine"]


def vectors(n, seed=0, d=D):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, d)) * 3
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(F)


def test_a_byte_stands_for_the_middle_of_its_step():
    sq = ScalarQuantizer(3)
    sq.train(np.array([[0, -1, 5], [255, 1, 5]], F), np.random.default_rng(0))
    assert sq.codebooks.tolist() == [[0, -1, 5], [255, 2, 0]] and (sq.M, sq.nbits, sq.code_size) == (3, 8, 3)
    codes = sq.encode(np.array([[0, -1, 5], [7.3, 0, 9], [255, 1, 5], [-40, 3e38, -3e38], [254.99, -0.999, 0]], F))
    assert codes.tolist() == [[0, 0, 0], [7, 127, 0], [255, 255, 0], [0, 255, 0], [254, 0, 0]]
    # low + width * (u + 1/2) / 255
    np.testing.assert_allclose(sq.decode(codes)[:3], [[0.5, -1 + 1 / 255, 5], [7.5, 0, 5], [255.5, 1 + 1 / 255, 5]])


def test_codes_and_what_they_decode_to_are_those_of_faiss():
    theirs, x, more = faiss.ScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit), vectors(500), 2 * vectors(500, 1)
    theirs.train(x)
    sq = ScalarQuantizer(D)
    sq.train(x, np.random.default_rng(0))
    np.testing.assert_array_equal(sq.codebooks.ravel(), faiss.vector_to_array(theirs.trained))
    np.testing.assert_array_equal(sq.encode(more), theirs.compute_codes(more))
    np.testing.assert_allclose(sq.decode(sq.encode(more)), theirs.decode(sq.encode(more)), rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(NotTrainedError):
        ScalarQuantizer(3).encode(np.zeros((1, 3), F))
    with pytest.raises(ValueError, match="SQ has d numbers of 8 bits a code, got d=3, M=2, nbits=8"):
        ScalarQuantizer(3, 2)
    with pytest.raises(ValueError, match="too far apart for float32"):
        ScalarQuantizer(1).train(np.array([[-3e38], [3e38]], F), np.random.default_rng(0))
    index = IndexIVFSQ(2, 2)
    with pytest.raises(ValueError, match=r"at least 2 vectors \(nlist=2\), got n=1"):
        index.train(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"codebooks must have shape \(2, 2\), got \(2, 3\)"):
        index.install(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="widths of the ranges, must not be negative, got -1"):
        index.install(np.zeros((2, 2)), [[0, 0], [1, -1]])
    with pytest.raises(ValueError, match="finite"):
        index.install(np.zeros((2, 2)), [[0, 0], [1, np.nan]])
    with pytest.raises(ValueError, match="centroids must be the origin alone"):
        IndexSQ(2).install([[0, 1]], [[0, 0], [1, 1]])


@pytest.fixture(scope="module")
def trained():
    made = {}
    for metric in METRICS:
        made[metric] = IndexIVFSQ(D, NLIST, metric=metric)
        made[metric].train(vectors(600))
    return made


@pytest.fixture(params=METRICS)
def index(request, trained):
    made = IndexIVFSQ.from_state(*trained[request.param].state())
    made.add(vectors(300, 1))
    return made


def test_every_distance_is_the_defined_one(index):
    assert index.ntotal == 300
    check_distances(index, vectors(4, 2), NLIST)


def test_a_byte_a_component_loses_little(index):
    x = vectors(300, 1)
    x = normalised(x) if index.metric == "cosine" else x
    low, width = index.pq.codebooks
    for i in (0, 7, 299):
        number = index.codes_of([i])[0][0]
        inside = np.clip(x[i] - index.centroids[number], low, low + width)
        assert (np.abs(index.reconstruct(i) - index.centroids[number] - inside) <= width / 255 * 0.51 + 1e-6).all()


def test_removing_updating_adding_in_parts_and_merging(index):
    x, q = vectors(300, 1), vectors(9, 4)
    one = IndexIVFSQ.from_state(*index.state())
    one.reset()
    for part in np.split(x, [1, 2, 40, 41, 130]):
        one.add(part)
    for name, array in index.state()[1].items():
        np.testing.assert_array_equal(array, one.state()[1][name])
    assert index.remove_ids([2, 7, 250, 10**6]) == 3
    with pytest.raises(KeyError, match="first is 250"):
        index.update([1, 250], x[:2])
    index.add_with_ids(vectors(3, 8), [7, 2, 250])
    one.update([7, 2, 250], vectors(3, 8))
    assert same(index.search(q, 300, nprobe=NLIST), one.search(q, 300, nprobe=NLIST))
    some = np.arange(0, 300, 7)
    assert set(index.search(q, 300, nprobe=1, ids=some).ids[0].tolist()) == {-1, *some.tolist()}
    one.remove_ids(np.arange(150))
    other = IndexIVFSQ.from_state(*index.state())
    other.remove_ids(np.arange(150, 300))
    one.merge_from(other)
    assert same(index.search(q, 300, nprobe=NLIST), one.search(q, 300, nprobe=NLIST))
    other.reset()
    other.install(other.centroids, other.pq.codebooks + F(1))
    with pytest.raises(ValueError, match="different codebooks"):
        one.merge_from(other)
    with pytest.raises(TypeError, match="an IndexIVFSQ can only take in another one, got IndexIVFPQ"):
        one.merge_from(IndexIVFPQ(D, NLIST, 5))


def test_a_file_gives_the_same_index_and_a_forged_one_a_sentence(index, tmp_path):
    path, q = tmp_path / "a.index", vectors(9, 4)
    save(index, path)
    for mmap in (False, True):
        got = load(path, mmap=mmap)
        assert repr(got) == repr(index) and same(got.search(q, 20, nprobe=3), index.search(q, 20, nprobe=3))
        got.remove_ids([3])
        got.add_with_ids(vectors(1, 1), [3])
    parameters, arrays = index.state()
    assert arrays["codes"].shape == (300, D + 4 * (index.metric != "ip"), 1) and arrays["codebooks"].shape == (2, D)
    wrong = {**arrays, "codebooks": -np.abs(arrays["codebooks"])}
    with pytest.raises(ValueError, match="must not be negative"):
        IndexIVFSQ.from_state(parameters, wrong)
    if index.metric != "ip":
        for byte, bits in ((D + 2, 0x10), (D + 3, 0x80), (D + 3, 0x7F)):  # the last makes no number of some
            codes = arrays["codes"].copy()
            codes[4, byte] ^= bits
            with pytest.raises(ValueError, match="the term of the vector in row 4 is not that of its code"):
                IndexIVFSQ.from_state(parameters, {**arrays, "codes": codes})
    index.reset()
    parameters, arrays = index.state()
    assert index.ntotal == 0 and IndexIVFSQ.from_state(parameters, arrays).is_trained


def test_a_forged_file_is_named(trained, tmp_path):
    path = tmp_path / "a.index"
    save(trained["l2"], path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexFileError, match=r"a\.index: truncated"):
        load(path)


def made(rng, metric, nlist, d, n, *, shift=0.0, scale=1.0, grid=False):
    """An index of random centroids, ranges and codes, with ties, one list empty and one long; ids in no order."""

    def draw(*shape):
        return rng.integers(-2, 3, shape).astype(F) if grid else rng.standard_normal(shape).astype(F)

    index = IndexIVFSQ(d, nlist, metric=metric)
    ranges = np.stack([draw(d), np.abs(draw(d)) * 2]) * F(scale)
    index.install(draw(nlist, d) * F(3 * scale) + F(shift * scale), ranges)
    return with_random_codes(index, rng, n)


@given(data=st.data(), metric=st.sampled_from(METRICS), grid=st.booleans())
@settings(max_examples=100, deadline=None)
def test_all_kernels_give_one_answer(data, metric, grid):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nlist, d = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 15, 16, 31, 32, 33, 64, 100, 300]))
    n = draw(st.sampled_from([0, 1, 3, 4, 5, 9, 64, 200, 700]))
    scale = draw(st.sampled_from([1.0, 1.0, 1e-12, 1e-21, 1e12, 1e19]))
    if metric == "ip":
        scale = min(scale, 1e15)  # beyond, infinity less infinity has no order
    shift = draw(st.sampled_from([0.0, 0.0, 100.0]))
    with np.errstate(all="ignore"):
        index = made(rng, metric, nlist, d, n, shift=shift, scale=scale, grid=grid)
        x = rng.standard_normal((draw(st.integers(1, 9)), d))
        x = ((np.rint(2 * x) if grid else 3 * x) * scale + shift * scale).astype(F)
        stored = index.lists.view.ids(index.lists.view.rows())
        if draw(st.booleans()):
            index.remove_ids(stored[::5])
        ids = draw(st.sampled_from([None, None, "some", "none"]))
        if ids is not None:
            ids = rng.permutation(stored)[: len(stored) // 2] if ids == "some" else []
        check(index, x, draw(st.integers(1, 120)), draw(st.integers(1, nlist)), ids)


@pytest.mark.parametrize("metric", METRICS)
def test_long_lists_and_many_queries(metric):
    rng = np.random.default_rng(0)
    index = made(rng, metric, 3, 16, 12_000)
    x = rng.standard_normal((75, 16)).astype(F)
    for k in (1, 40, 5000):
        check(index, x, k, 2)


def test_equal_codes_tie_by_id():
    rng = np.random.default_rng(5)
    index = made(rng, "l2", 3, 24, 0)
    codes = np.repeat(rng.integers(0, 256, (1, 24)).astype(np.uint8), 6000, axis=0)
    index.add_codes(np.zeros(6000, np.int64), codes, rng.permutation(6000))
    x = rng.standard_normal((2, 24)).astype(F)
    assert index.search(x, 25, nprobe=3).ids.tolist() == [list(range(25))] * 2
    check(index, x, 25, 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [256, 300, 2048])
def test_the_largest_products_do_not_overflow(metric, d):
    """All codes 255 and all numbers of a query alike: 32 bits hold the sum, whatever its length."""
    rng = np.random.default_rng(8)
    index = IndexIVFSQ(d, 2, metric=metric)
    index.install(np.repeat([[0], [1e-3]], d, axis=1), np.stack([np.zeros(d), np.ones(d)]))
    codes = np.full((300, d), 255, np.uint8)
    codes[:, :40] = rng.integers(200, 256, (300, 40))
    index.add_codes(np.zeros(300, np.int64), codes, np.arange(300))
    check(index, np.stack([np.full(d, 9), np.full(d, -9), np.full(d, 1e-3)]).astype(F), 20, 2)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_query_that_is_cut_away_finds_its_neighbour(metric):
    """One component of the query gives it its unit, and most are 0.49 of that: as integers they are nothing."""
    d = 256
    index = IndexIVFSQ(d, 1, metric=metric)
    index.install(np.zeros((1, d)), np.stack([np.full(d, -128.0), np.full(d, 255.0)]))  # u is u + 1/2 - 128
    codes = np.full((200, d), 255, np.uint8)
    codes[:, 2::2] = 0  # all of one length, and as far from the query in most components
    codes[:, :2] = 128
    codes[::2, 1] = 129  # a little nearer, and the integers know it
    codes[199, 2:] = 255  # much nearer, by what is cut away
    index.add_codes(np.zeros(200, np.int64), codes, np.arange(200))
    unit = 1e6 / 32767
    x = np.full((1, d), 0.49 * unit, F)
    x[0, :2] = 1e6, 1000 * unit
    assert index.search(x, 1).ids.tolist() == [[199]]
    for k in (1, 2, 150):
        check(index, x, k, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_estimates_leave_out_what_is_far_and_nothing_that_is_near(metric):
    rng = np.random.default_rng(2)
    index = made(rng, metric, 6, 64, 3000)
    x = rng.standard_normal((4, 64)).astype(F)
    x = normalised(x) if metric == "cosine" else x
    compiled = scalar.CompiledScalar(index._quantizers)
    first = compiled.quantizers, compiled.codec, index.lists.view.addresses, x, 6, scalar.of_thread.scratch
    query, value, _ = integers.range_search(*first, np.inf)
    assert len(query) == 4 * 3000  # an infinite radius leaves nothing out
    for limit in np.quantile(value, [0.0, 0.01, 0.5]):
        got = integers.range_search(*first, 2 * limit + 2 if metric == "cosine" else limit)[1]
        inside = np.count_nonzero(value <= limit)
        assert np.count_nonzero(got <= limit) == inside  # none is lost
        assert len(got) <= inside + 4 * 3000 * 0.02  # and hardly one too many


@pytest.mark.parametrize("metric", METRICS)
def test_threads_do_not_change_an_answer(metric, monkeypatch):
    rng = np.random.default_rng(7)
    index = made(rng, metric, 9, 32, 5000)
    x = rng.standard_normal((101, 32)).astype(F)
    found = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        answers = (*index.search(x, 10, nprobe=4), *index.range_search(x, 0.3, nprobe=4))
        found.add(tuple(part.tobytes() for part in answers))
    assert len(found) == 1


def test_refined_it_is_nearly_exact():
    x, q = vectors(4000, d=40), vectors(50, 9, d=40)
    exact, index = index_factory(40, "Flat"), index_factory(40, "PCA16,IVF10,SQ8,Refine")
    for each in (exact, index):
        each.train(x)
        each.add(x)
    truth = exact.search(q, 10).ids
    found = index.search(q, 10, nprobe=10, k_factor=40).ids
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]) > 0.97
    assert same(index.search(q, 10, nprobe=10, k_factor=400), exact.search(q, 10))


@pytest.mark.parametrize("metric", METRICS)
def test_refined_all_kernels_choose_the_same_candidates(metric, monkeypatch):
    index = index_factory(40, "PCA16,IVF10,SQ8,Refine", metric=metric)
    x, q = vectors(1500, d=40), vectors(23, 9, d=40)
    q[3] = 0
    index.train(x)
    index.add(x[:1000])
    found = []
    for name in kernels.available():
        monkeypatch.setenv("IVFPQ_KERNEL", name)
        found.append([index.search(q, 5, nprobe=3, k_factor=k_factor) for k_factor in (1, 2, 20)])
        found[-1] += [index.search(q[i : i + 1], 5, nprobe=3, k_factor=2) for i in (0, 3)]
        found[-1].append(index.search(q, 5, nprobe=1, ids=np.arange(0, 1000, 99)))
    assert all(same(one, other) for more in found[1:] for one, other in zip(found[0], more, strict=True))
