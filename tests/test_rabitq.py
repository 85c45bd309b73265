"""RaBitQ: a few bits a component and two factors, by itself and in the inverted file."""

import struct

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same, slow_sum

from ivfpq import (
    IndexFileError,
    IndexIVFRaBitQ,
    IndexRaBitQ,
    NotTrainedError,
    from_faiss,
    index_factory,
    kernels,
    load,
    save,
    to_faiss,
)
from ivfpq.distances import normalised
from ivfpq.metrics import knn_recall_at_k
from ivfpq.rabitq import RaBitQuantizer
from ivfpq.transforms import PCA

F = np.float32
D, NLIST = 19, 5
METRICS = ["l2", "ip", "cosine"]


def vectors(n, seed=0, d=D):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, d)) * 3
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(F)


def quantizer(d, bits=1):
    made = RaBitQuantizer(d, bits)
    made.train(np.zeros((1, d), F), np.random.default_rng(0))
    return made


def rotations(d, n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield np.linalg.qr(rng.normal(size=(d, d)))[0]


def test_one_bit_is_a_sign_beside_two_factors():
    codec = quantizer(10)
    r = np.array([[3, -1, 2, -2, 0, 0, 0, 0, 0, 1], np.zeros(10)], F)
    codes = codec.encode(r)
    assert (codec.M, codec.code_size, codec.nbits, codec.plane_bytes) == (10, 10, 8, 2)
    assert codes[0].tobytes() == bytes([0b00000101, 0b10]) + struct.pack("<ff", 19 / 4.5, 19)  # |r|^2 / <y, r>, |r|^2
    s = F(19 / 4.5) / 2
    assert codec.decode(codes).tolist() == [[s, -s, s, -s, -s, -s, -s, -s, -s, s], [0] * 10]
    assert codec.squared_lengths(codes).tolist() == [19, 0]


def test_more_bits_are_planes_of_bits_the_highest_first():
    codec = quantizer(4, 3)
    r = np.array([[0.5, -1.5, 3.5, -2.5]], F) * 2
    codes = codec.encode(r)  # u = y + 3.5: 4, 2, 7, 1
    assert codes[0].tobytes() == bytes([0b0101, 0b0110, 0b1100]) + struct.pack("<ff", 2, 4 * 21)
    assert codec.decode(codes).tolist() == r.tolist()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_is_made_of_a_code_comes_back(bits):
    half = 1 << (bits - 1)
    r = (np.random.default_rng(bits).integers(0, 2 * half, (50, 30)) - (half - 0.5)) * 0.25
    r[:, 0] = (half - 0.5) * 0.25
    codec = quantizer(30, bits)
    np.testing.assert_allclose(codec.decode(codec.encode(r.astype(F))), r, rtol=1e-6)


def test_more_bits_are_nearer_to_the_direction():
    r, cosines = np.random.default_rng(0).normal(size=(200, 128)).astype(F), []
    for bits in range(1, 9):
        y = quantizer(128, bits).decode(quantizer(128, bits).encode(r))
        cosines.append(float((np.vecdot(y, r) / np.linalg.norm(y, axis=1) / np.linalg.norm(r, axis=1)).mean()))
    assert np.diff(cosines).min() > 0
    np.testing.assert_allclose(cosines[:4], [0.798, 0.939, 0.982, 0.995], atol=0.003)  # sqrt(2 / pi) for one bit


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_estimate_is_unbiased_and_within_its_deviations(bits):
    d, rng = 48, np.random.default_rng(1)
    r, a = rng.exponential(size=d), rng.normal(size=d) + 0.5
    codec, off, bounds = quantizer(d, bits), [], []
    for rotation in rotations(d, 600):
        codes = codec.encode((rotation @ r)[None].astype(F))
        off.append(2 * (float(codec.decode(codes)[0].astype(float) @ (rotation @ a)) - r @ a))
        y, n = codec.decode(codes).astype(float), codec.squared_lengths(codes)
        # 2 |a| |r| sqrt((1 - c^2) / c^2) 1.9 / sqrt(d - 1), c the cosine of y and r (Gao and Long 2024, theorem 3.2)
        bounds.append(float(2 * np.linalg.norm(a) * 1.9 * np.sqrt((np.vecdot(y, y) - n)[0] / (d - 1))))
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off))
    assert np.mean(np.abs(off) < bounds) > 0.9
    assert np.std(off) > np.mean(bounds) / 4  # and they are not far too wide


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.filterwarnings("ignore:overflow encountered in subtract")
def test_what_lies_beyond_float32_from_its_centroid_can_be_saved_and_loaded(tmp_path, bits, monkeypatch):
    index = IndexIVFRaBitQ(9, 1, bits)
    index.train(np.full((4, 9), -3e38, F))
    index.add(np.concatenate([np.full((2, 9), 3e38, F), np.full((1, 9), -3e38, F)]))
    save(index, tmp_path / "index")
    again, q = load(tmp_path / "index"), np.array([[-3e38] * 9, [3e38] * 9, [0] * 9], F)
    monkeypatch.setenv("IVFPQ_KERNEL", "reference")
    expected = index.search(q, 3)
    assert expected.ids[0].tolist() == [2, 0, 1]
    for kernel in kernels.available():
        monkeypatch.setenv("IVFPQ_KERNEL", kernel)
        assert same(again.search(q, 3), expected)


def test_what_does_not_fit_is_refused():
    for bits, error in ((0, ValueError), (9, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="bits must be"):
            IndexIVFRaBitQ(8, 2, bits)
    with pytest.raises(NotTrainedError):
        RaBitQuantizer(3).encode(np.zeros((1, 3), F))
    with pytest.raises(ValueError, match=r"at least 3 vectors \(nlist=3\), got n=2"):
        IndexIVFRaBitQ(4, 3).train(np.zeros((2, 4)))


def defined_distances(index, x, ids):
    """The defined distances of one query, in plain Python."""
    numbers, codes = index.codes_of(ids)
    for number, y, n in zip(numbers, index.pq.decode(codes), index.pq.squared_lengths(codes), strict=True):
        c = index.centroids[number]
        if index.metric == "ip":
            yield F(slow_sum(x * c) + slow_sum(x * y))
            continue
        a = x - c
        product = slow_sum(a * y)
        value = max(F(F(slow_sum(a * a) + n) - F(product + product)), F(0))
        yield F(F(1) - F(value / F(2))) if index.metric == "cosine" else value


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [1, 3])
def test_every_distance_is_the_defined_one(metric, bits):
    index = IndexIVFRaBitQ(D, NLIST, bits, metric=metric)
    index.train(vectors(200))
    index.add(vectors(100, 1))
    q = np.concatenate([vectors(3, 2), vectors(1, 1)])
    asked = normalised(q) if metric == "cosine" else q
    for x, distances, ids in zip(asked, *index.search(q, 100, nprobe=NLIST), strict=True):
        assert sorted(ids.tolist()) == list(range(100))
        assert list(defined_distances(index, x, ids)) == distances.tolist()
        assert np.lexsort((ids, distances if metric == "l2" else -distances)).tolist() == list(range(100))


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d, nlist, n = draw(st.integers(1, 40)), draw(st.integers(1, 6)), draw(st.integers(6, 150))
    scale = 10.0 ** draw(st.sampled_from([-30, -20, -5, 0, 0, 0, 5, 15, 18]))
    whole = draw(st.booleans())  # ties
    x = rng.integers(-2, 3, (n + 5, d)) if whole else rng.normal(size=(n + 5, d)) + draw(st.sampled_from([0, 0, 100]))
    index = IndexIVFRaBitQ(d, nlist, draw(st.integers(1, 8)), metric=draw(st.sampled_from(METRICS)))
    x = (x * scale).astype(F)
    index.train(x[:n])
    index.add_with_ids(x[:n], rng.permutation(10 * n)[:n])
    return index, x[-8:], draw(st.integers(1, n + 3)), draw(st.integers(1, nlist))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_all_kernels_answer_the_same(case):
    index, q, k, nprobe = case
    answers = []
    for kernel in kernels.available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IVFPQ_KERNEL", kernel)
            found = index.search(q, k, nprobe=nprobe)
            radius = float(found.distances[0, 0])
            few = index.search(q[:1], k, nprobe=1, ids=np.arange(0, 10**4, 3))
            answers.append([*found, *few, *index.search(q[3:4], k, nprobe=nprobe)])
            if np.isfinite(radius):
                answers[-1] += index.range_search(q, radius, nprobe=nprobe)
    assert all(same(answers[0], other) for other in answers[1:])


@pytest.mark.parametrize("metric", METRICS)
def test_removing_updating_adding_in_parts_and_merging(metric):
    index = IndexIVFRaBitQ(D, NLIST, 2, metric=metric)
    index.train(vectors(200))
    one = IndexIVFRaBitQ.from_state(*index.state())
    x, q = vectors(300, 1), vectors(9, 4)
    index.add(x)
    for part in np.split(x, [1, 2, 40, 41, 130]):
        one.add(part)
    for name, array in index.state()[1].items():
        np.testing.assert_array_equal(array, one.state()[1][name])
    assert index.remove_ids([2, 7, 250, 10**6]) == 3
    index.add_with_ids(vectors(3, 8), [7, 2, 250])
    one.update([7, 2, 250], vectors(3, 8))
    assert same(index.search(q, 300, nprobe=NLIST), one.search(q, 300, nprobe=NLIST))
    other = IndexIVFRaBitQ.from_state(*one.state())
    one.remove_ids(np.arange(150))
    other.remove_ids(np.arange(150, 300))
    one.merge_from(other)
    assert same(index.search(q, 300, nprobe=NLIST), one.search(q, 300, nprobe=NLIST))


@pytest.mark.parametrize("spec", ["PCAR8,IVF5,RaBitQ3", "RaBitQ2", "IVF5,RaBitQ,Refine"])
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_brings_it_back(spec, mmap, tmp_path):
    index = index_factory(D, spec, metric="cosine")
    index.train(vectors(200))
    index.add(np.concatenate([vectors(100, 1), np.zeros((1, D), F)]))
    save(index, tmp_path / "index")
    again = load(tmp_path / "index", mmap=mmap)
    assert repr(again) == repr(index) and again.code_size == index.code_size
    assert same(again.search(vectors(5, 2), 20, nprobe=3), index.search(vectors(5, 2), 20, nprobe=3))
    again.add(vectors(10, 3))
    assert again.ntotal == 111


def test_factors_and_terms_that_cannot_be_are_refused(tmp_path):
    index = IndexIVFRaBitQ(D, NLIST)
    index.train(vectors(200))
    index.add(vectors(100, 1))
    for place, value, message in (
        (3, np.nan, "factors"),
        (3, -1, "factors"),
        (7, np.inf, "factors"),
        (11, 3e4, "term"),
    ):
        parameters, arrays = index.state()
        codes = arrays["codes"].copy()
        codes[5, place : place + 4, 0] = np.array([value], "<f4").view(np.uint8)
        with pytest.raises(ValueError, match=message):
            IndexIVFRaBitQ.from_state(parameters, {**arrays, "codes": codes})
    save(index, tmp_path / "index")
    (tmp_path / "index").write_bytes((tmp_path / "index").read_bytes()[:-1])
    with pytest.raises(IndexFileError, match="truncated"):
        load(tmp_path / "index")


def test_the_factory_makes_it():
    for spec, kind, bits in (("RaBitQ", IndexRaBitQ, 1), ("IVF7,RaBitQ4", IndexIVFRaBitQ, 4)):
        index = index_factory(16, spec, metric="ip", seed=3)
        assert type(index) is kind and (index.bits, index.metric, index.seed) == (bits, "ip", 3)
        assert index.code_size == 2 * bits + 8
    assert index_factory(16, "PCAR8,IVF7,RaBitQ").transforms[0].parameters() == {
        "d_in": 16,
        "d_out": 8,
        "rotated": True,
    }
    with pytest.raises(ValueError, match="'RaBitQ9' is no codec"):
        index_factory(16, "IVF7,RaBitQ9")


def test_a_rotated_pca_keeps_the_same_and_spreads_it():
    x = (vectors(400) * np.linspace(3, 0.1, D)).astype(F)
    plain, turned, again = PCA(D, 6), PCA(D, 6, rotated=True), PCA(D, 6, rotated=True)
    for transform in (plain, turned, again):
        transform.train(x, np.random.default_rng(5))
    assert same([turned.A], [again.A]) and plain.parameters() == {"d_in": D, "d_out": 6}
    one, two = plain.apply(x), turned.apply(x)
    np.testing.assert_allclose(np.square(one).sum(1), np.square(two).sum(1), rtol=1e-3)
    assert two.var(axis=0).max() / two.var(axis=0).min() < one.var(axis=0).max() / one.var(axis=0).min() / 3


def test_a_bit_a_component_finds_more_than_the_length_of_the_code_lets_hope():
    d, rng = 64, np.random.default_rng(0)
    x = rng.normal(size=(3000, 12)) @ rng.normal(size=(12, d)) + 0.3 * rng.normal(size=(3000, d))
    x, q = x[:-100].astype(F), x[-100:].astype(F)
    flat = index_factory(d, "Flat")
    flat.add(x)
    recalls = []
    for spec in ("IVF8,RaBitQ", "PCAR64,IVF8,RaBitQ", "PCAR64,IVF8,RaBitQ4"):
        index = index_factory(d, spec)
        index.train(x[:1500])
        index.add(x)
        recalls.append(knn_recall_at_k(index.search(q, 10, nprobe=8).ids, flat.search(q, 10).ids))
    assert recalls[2] > 0.9 > recalls[1] > 0.5 and recalls[1] > recalls[0] - 0.05


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_faiss_has_the_same_codes_and_the_same_distances(metric):
    index = index_factory(D, "PCAR16,IVF5,RaBitQ", metric=metric)
    index.train(vectors(300))
    index.add_with_ids(vectors(200, 1), np.arange(200) * 3)
    theirs, q = to_faiss(index), vectors(20, 2)
    q = normalised(q) if metric == "cosine" else q
    faiss.ParameterSpace().set_index_parameter(theirs, "nprobe", 5)
    found, (distances, ids) = index.search(q, 200, nprobe=5), theirs.search(q, 200)
    distances = 1 - distances / 2 if metric == "cosine" else distances
    for i in range(len(q)):
        ours = dict(zip(found.ids[i].tolist(), found.distances[i].tolist(), strict=True))
        least = distances[i] if metric == "cosine" else np.maximum(distances[i], 0)
        np.testing.assert_allclose([ours[id] for id in ids[i].tolist()], least, rtol=1e-3, atol=2e-3)
    again = from_faiss(theirs)
    assert isinstance(again.index, IndexIVFRaBitQ) and again.ntotal == 200
    np.testing.assert_array_equal(
        again.index.codes_of(index.ids)[1][:, :-8], index.index.codes_of(index.ids)[1][:, :-8]
    )


def test_codes_that_faiss_makes_are_ours():
    theirs = faiss.index_factory(D, "IVF3,RaBitQ")
    theirs.train(vectors(300))
    theirs.add(vectors(200, 1))
    ours = from_faiss(theirs)
    numbers, codes = ours.codes_of(np.arange(200))
    made = ours.pq.encode(vectors(200, 1) - ours.centroids[numbers])
    np.testing.assert_array_equal(made[:, :-8], codes[:, :-8])
    factors = [np.ascontiguousarray(c[:, -8:]).view("<f4") for c in (made, codes)]
    np.testing.assert_allclose(*factors, rtol=1e-4)


def test_what_faiss_has_not_is_said():
    for spec, metric, message in (
        ("IVF2,RaBitQ2", "l2", "for one bit and no inner products"),
        ("IVF2,RaBitQ", "ip", "for one bit and no inner products"),
        ("RaBitQ", "l2", "in lists alone"),
    ):
        with pytest.raises(TypeError, match=message):
            to_faiss(index_factory(D, spec, metric=metric))
    with pytest.raises(ValueError, match="for one bit and no inner products"):
        from_faiss(faiss.index_factory(D, "IVF2,RaBitQ4"))
