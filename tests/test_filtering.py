"""A filter never hides what it lets through: every kind, every kernel, one query or many."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same

from ivfpq import IndexIVFPQ, index_factory, kernels
from ivfpq.distances import pair_distances
from ivfpq.faiss_compat import FaissIndex
from ivfpq.filtering import lists_to_fill
from ivfpq.kernels import dispatch
from ivfpq.results import SearchResult
from ivfpq.screening import Points

F = np.float32
D, N, NLIST = 8, 600, 24
METRICS = ["l2", "ip", "cosine"]
LISTED = [f"IVF{NLIST},PQ2x4", f"IVF{NLIST},RQ2x4", f"PCA6,IVF{NLIST},PQ2x4"]
SPECS = [
    "Flat",
    "PQ2x4",
    "PCA4,Flat",
    "PCA4,PQ2x4",
    *LISTED,
    f"IVF{NLIST},PQ2x4,Refine",
    f"PCA6,IVF{NLIST},RQ2x4,Refine",
]


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    return (
        np.random.default_rng(5).normal(size=(12, D))[rng.integers(12, size=n)] * 3 + rng.normal(size=(n, D))
    ).astype(F)


@pytest.fixture(scope="module")
def built():
    made = {}

    def build(spec, metric):
        if (spec, metric) not in made:
            made[spec, metric] = index = index_factory(D, spec, metric=metric)
            index.train(vectors(N))
            index.add(vectors(N, 1))
        return made[spec, metric]

    return build


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_short_answer_means_that_there_are_no_more(built, spec, metric):
    index, q = built(spec, metric), vectors(9, 2)
    for some in ([3], [3, 77, 401, 402], np.arange(0, N, 40), np.arange(0, N, 3), np.arange(N)):
        for k in (1, 4, 30):
            for nprobe in (1, 5):
                found = index.search(q, k, nprobe=nprobe, ids=some)
                there = np.isin(found.ids, some).sum(axis=1)
                assert (there == min(k, len(some))).all()
                assert (found.ids[:, : min(k, len(some))] >= 0).all()
    assert (index.search(q, 3, ids=[]).ids == -1).all()
    assert (index.search(q, 3, ids=[N, N + 1]).ids == -1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", LISTED)
def test_as_few_lists_are_visited_as_it_takes(built, spec, metric):
    """Naively: one list more at a time, of an index that holds only the allowed, until k are found."""
    index, q, some, k = built(spec, metric), vectors(20, 3), np.arange(0, N, 11), 5
    alone = copy.copy(index)
    alone.remove_ids(np.setdiff1d(np.arange(N), some))
    for nprobe in (1, 3):
        got = index.search(q, k, nprobe=nprobe, ids=some)
        lengths = set()
        for i in range(len(q)):
            for lists in range(nprobe, NLIST + 1):
                want = alone.search(q[i : i + 1], k, nprobe=lists)
                if want.ids[0, -1] >= 0:
                    break
            lengths.add(lists)
            assert same((got.distances[i : i + 1], got.ids[i : i + 1]), want)
            assert same(index.search(q[i : i + 1], k, nprobe=nprobe, ids=some), want)  # alone, and in the batch
        assert len(lengths) > 1  # one query is short and another is not


@pytest.mark.parametrize("spec", SPECS)
def test_all_kernels_answer_a_filter_the_same(built, spec, monkeypatch):
    q = vectors(9, 4)
    for metric in METRICS:
        index, answers = built(spec, metric), []
        for name in kernels.available():
            monkeypatch.setenv("IVFPQ_KERNEL", name)
            some = [np.arange(0, N, step) for step in (7, 60, 590)]
            answers.append([index.search(q, 6, nprobe=2, ids=ids) for ids in some])
        for other in answers[1:]:
            assert all(same(mine, theirs) for mine, theirs in zip(answers[0], other, strict=True))


def test_a_full_filter_is_no_filter(built):
    for spec in SPECS:
        index, q = built(spec, "l2"), vectors(9, 5)
        k = 3 if "IVF" in spec else 20
        assert same(index.search(q, k, nprobe=9, ids=np.arange(N)), index.search(q, k, nprobe=9))


def test_refinement_ranks_all_allowed_where_they_are_few(built):
    index, q, some = built(f"IVF{NLIST},PQ2x4,Refine", "l2"), vectors(9, 6), np.arange(0, N, 100)
    flat = built("Flat", "l2")
    assert same(index.search(q, 3, nprobe=1, ids=some), flat.search(q, 3, ids=some))


def test_range_search_looks_into_nprobe_lists_whatever_the_filter(built):
    index, q = built(LISTED[0], "l2"), vectors(5, 7)
    everything = index.range_search(q, 1e9, nprobe=2)
    some = np.arange(0, N, 2)
    found = index.range_search(q, 1e9, nprobe=2, ids=some)
    for i in range(len(q)):
        want = everything.ids[everything.lims[i] : everything.lims[i + 1]]
        assert found.ids[found.lims[i] : found.lims[i + 1]].tolist() == want[np.isin(want, some)].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_the_adapter_of_faiss_visits_the_same_lists(metric):
    from ivfpq import from_faiss

    theirs = FaissIndex(D, f"IVF{NLIST},PQ2x4np", metric=metric)
    theirs.train(vectors(N))
    theirs.add(vectors(N, 1))
    q, some = vectors(9, 2), np.arange(0, N, 13)
    unit = q / np.linalg.norm(q, axis=1, keepdims=True) if metric == "cosine" else q
    ours = from_faiss(theirs.faiss_index)
    for k in (1, 4, 20, 60):
        found, want = theirs.search(q, k, nprobe=2, ids=some), ours.search(unit, k, nprobe=2, ids=some)
        assert (np.isin(found.ids, some).sum(axis=1) == min(k, len(some))).all()
        distances = 1 - want.distances / 2 if metric == "cosine" else want.distances
        there = want.ids >= 0
        assert (there == (found.ids >= 0)).all()
        np.testing.assert_allclose(found.distances[there], distances[there], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ["HNSW8", "Flat", "PCA4,Flat", "SQ8"])
def test_the_adapter_of_faiss_hides_nothing_in_other_kinds(spec):
    index = FaissIndex(D, spec)
    index.train(vectors(N))
    index.add(vectors(N, 1))
    for some in ([3], np.arange(0, N, 100), np.arange(0, N, 3)):
        for k in (1, 5):
            found = index.search(vectors(9, 2), k, ids=some)
            assert (np.isin(found.ids, some).sum(axis=1) == min(k, len(some))).all()


@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(["l2", "ip"]), grid=st.booleans(), k=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_lists_to_fill_counts_as_defined(seed, metric, grid, k):
    rng = np.random.default_rng(seed)
    d, nlist = int(rng.integers(1, 6)), int(rng.integers(1, 30))
    draw = (lambda *shape: rng.integers(-2, 3, shape)) if grid else (lambda *shape: rng.normal(size=shape) + 100)
    x, y, sizes = draw(7, d).astype(F), draw(nlist, d).astype(F), rng.integers(0, 3, nlist)
    centre = y.mean(axis=0) if metric == "l2" else None
    got = lists_to_fill(x, Points.of(y, centre), metric, sizes, k)
    for i in range(len(x)):
        distance = pair_distances(x[[i] * nlist], y, metric) * (1 if metric == "l2" else -1)
        seen = np.cumsum(sizes[np.lexsort((np.arange(nlist), distance))])
        assert got[i] == (np.argmax(seen >= k) + 1 if seen[-1] >= k else nlist)


def test_a_query_with_enough_is_asked_once(monkeypatch):
    """The lists of a query that is filled are not looked for a second time, nor those of another in its batch."""
    index = IndexIVFPQ(D, NLIST, 2, 4)
    index.train(vectors(N))
    index.add(vectors(N, 1))
    asked, real = [], dispatch.search

    def search(x, nprobe, *rest):
        asked.append((len(x), nprobe))
        return real(x, nprobe, *rest)

    monkeypatch.setattr(dispatch, "search", search)
    found = index.search(vectors(9, 2), 3, nprobe=8, ids=np.arange(0, N, 2))
    assert isinstance(found, SearchResult) and asked == [(9, 8)]
