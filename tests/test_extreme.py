"""Extreme finite numbers in quantizers: distances that are not numbers are infinitely far, in every kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same

from ivfpq import IndexFlat, IndexIVFPQ, IndexIVFRQ, IndexPQ, IndexRefine, index_factory, kernels
from ivfpq.io import from_bytes, to_bytes

F = np.float32


def answers(index, q, k, monkeypatch):
    """What each kernel answers, with and without lists to choose, and within a radius."""
    found = []
    for name in kernels.available():
        with monkeypatch.context() as patch, np.errstate(all="ignore"):
            patch.setenv("IVFPQ_KERNEL", name)
            one = [index.search(q, k, nprobe=nprobe) for nprobe in (1, 2, 5)]
            one += [index.search(q, 2, nprobe=1, ids=np.arange(0, 40, 3)), index.range_search(q, 1.0, nprobe=3)]
            found.append(one)
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([IndexIVFPQ, IndexIVFRQ]),
    metric=st.sampled_from(["l2", "ip", "cosine"]),
    exponents=st.lists(st.sampled_from([0, 18, 19, 30, 38]), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_all_kernels_give_the_same_answers(seed, kind, metric, exponents):
    rng = np.random.default_rng(seed)
    draw = lambda exponent, *shape: (rng.choice([-3, -1, 0, 1, 3], shape) * 10.0**exponent).astype(F)  # noqa: E731
    index = kind(4, 5, 2, 3, metric=metric)
    dsub = index.pq.dsub
    index.install(draw(exponents[0], 5, 4), draw(exponents[1], 2, 8, dsub))
    index.add_codes(rng.integers(0, 5, 40), rng.integers(0, 8, (40, 2)).astype(np.uint8), np.arange(40))
    q = draw(exponents[2], 6, 4)
    with pytest.MonkeyPatch.context() as patch:
        first, *others = answers(index, q, 7, patch)
    for other in others:
        assert all(same(mine, theirs) for mine, theirs in zip(first, other, strict=True))
    assert not any(np.isnan(array).any() for found in first for array in found)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_what_is_not_a_number_is_infinitely_far(metric, monkeypatch):
    """Of the products of (3e38, 3e38) with (3, -3), infinities of both signs are added."""
    x = np.array([[3, -3], [-3, -3], [3, 3], [0, 0]], F)
    worst = np.inf if metric == "l2" else -np.inf
    for make in (lambda: IndexFlat(2, metric=metric), lambda: IndexRefine(IndexFlat(2, metric=metric))):
        index = make()
        index.add(x)
        for name in kernels.available():
            monkeypatch.setenv("IVFPQ_KERNEL", name)
            found = index.search(np.array([[3e38, 3e38]], F), 4)
            if metric == "ip":
                assert found.ids.tolist() == [[2, 3, 0, 1]]
                assert found.distances.tolist() == [[np.inf, 0, worst, worst]]
            else:
                assert found.ids.tolist() == [[0, 1, 2, 3]] and (found.distances == worst).all()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(
    "spec", ["PQ2x4", "IVF8,PQ2x4", "IVF8,RQ2x4", "IVF8,SQ8", "PCA4,IVF8,PQ2x4", "IVF8,PQ2x4,Refine"]
)
def test_one_huge_vector_among_others_can_be_trained_with(spec, metric):
    x = np.random.default_rng(0).normal(size=(600, 8)).astype(F)
    x[7, 3] = 9.97e36
    index = index_factory(8, spec, metric=metric)
    with np.errstate(all="ignore"):
        index.train(x)
        index.add(x)
        found = index.search(x[7:8], 1, nprobe=8)
    assert metric == "ip" or found.ids.tolist() == [[7]]  # an inner product is found by the others' lengths
    assert not np.isnan(found.distances).any()


def test_a_plain_code_is_trained_with_it_too():
    index = IndexPQ(8, 2, 4)
    x = np.random.default_rng(0).normal(size=(600, 8)).astype(F)
    x[7, 3] = 9.97e36
    with np.errstate(all="ignore"):
        index.train(x)
    assert np.isfinite(index.pq.codebooks).all()


SPREAD_OUT = {
    "both ends": lambda x: x.put([3 * 8 + 3, 9 * 8 + 3], [F(3.3e38), F(-3.3e38)]),
    "all far": lambda x: np.multiply(x, F(1e20), out=x),
    "all at the end": lambda x: np.multiply(x, F(6e37), out=x),
    "rows": lambda x: (np.copyto(x[:5], F(3e38)), np.copyto(x[5:10], F(-3e38))),
    "one component": lambda x: np.copyto(x[:, 2], F(1e30)),
    "tiny": lambda x: np.multiply(x, F(1e-30), out=x),
    "below the normal": lambda x: np.multiply(x, F(1e-42), out=x),
    "copies": lambda x: np.copyto(x, x[0].copy()),
}


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("made_of", SPREAD_OUT)
@pytest.mark.parametrize(
    "spec",
    [
        *("PQ2x3", "RQ2x3", "SQ8", "RaBitQ3", "IVF3,PQ2x3", "IVF3,RQ2x3", "IVF3,SQ8", "IVF3,RaBitQ"),
        *("PCA4,Flat", "PCAR8,IVF3,RaBitQ2", "OPQ2_4,IVF3,PQ2x3", "PCA8,PCA4,IVF3,SQ8,Refine", "RQ2x3,Refine"),
        "Flat,Refine(SQ8)",
    ],
)
def test_what_is_taken_can_be_searched_and_comes_back_from_a_file(spec, made_of, metric, monkeypatch):
    """Whatever the numbers are: vectors that the transforms or the codec cannot hold are refused by a sentence."""
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(F)
    with np.errstate(all="ignore"):
        SPREAD_OUT[made_of](x)
    index = index_factory(8, spec, metric=metric)
    try:
        index.train(x)
        index.add(x)
    except ValueError as error:
        assert "lie too far out for float32" in str(error) or "lies too far apart for float32" in str(error)
        assert metric != "cosine" and made_of in ("both ends", "rows", "all at the end")
        return
    first, *others = answers(index, x[:8], 5, monkeypatch)
    assert all(same(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert not any(np.isnan(array).any() for found in first for array in found)
    again = from_bytes(to_bytes(index))
    assert same(again.search(x[:8], 5, nprobe=3), index.search(x[:8], 5, nprobe=3))


def test_residual_codes_of_far_vectors_are_those_of_near_ones():
    """Which codewords are best does not depend on the unit that is measured in."""
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(F)
    near, far = index_factory(8, "RQ2x3"), index_factory(8, "RQ2x3")
    for index, unit in ((near, 0), (far, 100)):
        index.train(np.ldexp(x, unit))
        index.add(np.ldexp(x, unit))
    assert np.array_equal(near.codes_of(range(300))[1], far.codes_of(range(300))[1])
    assert np.array_equal(np.ldexp(near.pq.codebooks, 100), far.pq.codebooks)
