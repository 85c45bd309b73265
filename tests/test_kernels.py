"""The reference kernel is the definition: scalar loops over tables, every candidate looked at, nothing screened."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_sum

from ivfpq import kernels
from ivfpq.invlists import InvertedLists
from ivfpq.kernels import reference
from ivfpq.pq import ProductQuantizer

F = np.float32


def slow_table(r, pq, metric):
    """T[m][j], entry by entry."""

    def entry(part, y):
        if metric == "ip":
            return slow_sum([F(a * b) for a, b in zip(part, y, strict=True)])
        return slow_sum([F(F(a - b) * F(a - b)) for a, b in zip(part, y, strict=True)])

    return [[entry(r[m * pq.dsub : (m + 1) * pq.dsub], y) for y in pq.codebooks[m]] for m in range(pq.M)]


def slow_distances(x, centroids, pq, lists, metric):
    """{(list, id): distance} of one query to everything stored."""
    with np.errstate(over="ignore", invalid="ignore"):
        return dict(slow_pairs(x, centroids, pq, lists, metric))


def slow_pairs(x, centroids, pq, lists, metric):
    for number in range(len(centroids)):
        c = centroids[number]
        table = slow_table(x if metric == "ip" else x - c, pq, metric)
        base = slow_sum([F(a * b) for a, b in zip(x, c, strict=True)]) if metric == "ip" else F(0)
        for row in range(lists.starts[number], lists.starts[number] + lists.sizes[number]):
            total = base
            for m, j in enumerate(pq.from_rows(lists.codes(np.array([row])))[0]):
                total = F(total + table[m][j])
            yield (
                (number, int(lists.ids(np.array([row]))[0])),
                F(F(1) - F(total / F(2))) if metric == "cosine" else total,
            )


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    M, dsub, nbits = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 5, 16, 19])), draw(st.integers(1, 5))
    nlist, n = draw(st.integers(1, 5)), draw(st.integers(0, 40))
    d = M * dsub
    scale = F(10.0) ** F(draw(st.sampled_from([-20, -3, 0, 0, 0, 4, 15])))
    offset = draw(st.sampled_from([0, 0, 100]))
    whole = draw(st.booleans())  # whole numbers make ties; few codes make equal codes

    def numbers(*shape):
        return ((rng.integers(-1, 2, shape) if whole else rng.normal(size=shape)) * scale).astype(F)

    pq = ProductQuantizer(d, M, nbits)
    pq.codebooks = numbers(M, pq.ksub, dsub)
    centroids = numbers(nlist, d) + F(offset) * scale
    x = numbers(3, d) + F(offset) * scale
    centroids *= F(draw(st.sampled_from([1, 1, 1e4])))  # lists so far out that their codes hardly count
    if draw(st.booleans()):
        centroids[-1] = -pq.codebooks[:, 0].ravel()  # the inner product's two parts cancel
    lists = InvertedLists(nlist, pq.code_rows)
    codes = rng.integers(0, draw(st.sampled_from([1, 2, pq.ksub])), (n, M)).astype(np.uint8)
    ids = rng.permutation(1000)[:n]
    for part in np.array_split(np.arange(n), 3):
        lists.add(rng.integers(nlist, size=len(part)), pq.to_rows(codes[part]), ids[part])
    probes = np.stack([rng.permutation(nlist)[: draw(st.shared(st.integers(1, nlist), key="nprobe"))] for _ in x])
    return x, probes, centroids, pq, lists.view


@given(problems(), st.sampled_from(["l2", "ip", "cosine"]), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_search_is_the_exhaustive_loop_over_tables_bit_for_bit(problem, metric, k):
    x, probes, centroids, pq, lists = problem
    found = reference.search(x, probes, centroids, pq, lists, k, metric)
    sign, missing = (1, np.inf) if metric == "l2" else (-1, -np.inf)
    for i in range(len(x)):
        stored = slow_distances(x[i], centroids, pq, lists, metric)
        want = sorted((sign * v, id, v) for (number, id), v in stored.items() if number in probes[i])[:k]
        want += [(None, -1, missing)] * (k - len(want))
        assert found.ids[i].tolist() == [id for _, id, _ in want]
        assert found.distances[i].tobytes() == np.array([v + F(0) for _, _, v in want], F).tobytes()


@given(problems(), st.sampled_from(["l2", "ip", "cosine"]), st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_range_search_is_the_exhaustive_loop(problem, metric, which):
    x, probes, centroids, pq, lists = problem
    every = sorted(slow_distances(x[0], centroids, pq, lists, metric).values())
    radius = float(every[min(which, len(every) - 1)]) if every else 0.0  # one that is met exactly
    lims, d, ids = reference.range_search(x, probes, centroids, pq, lists, radius, metric)
    sign = 1 if metric == "l2" else -1
    for i in range(len(x)):
        stored = slow_distances(x[i], centroids, pq, lists, metric)
        want = [
            (sign * v, id) for (number, id), v in stored.items() if number in probes[i] and sign * v < sign * radius
        ]
        part = slice(lims[i], lims[i + 1])
        assert list(zip((sign * d[part]).tolist(), ids[part].tolist(), strict=True)) == sorted(want)


def test_lists_that_only_rounding_tells_apart():
    """Fifty centroids hold the same numbers in other orders: equal inner products, but for the order of adding."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=1024).astype(F)
    centroids = np.stack([rng.permutation(numbers) for _ in range(50)])
    pq = ProductQuantizer(1024, 1, 1)
    pq.codebooks = np.zeros((1, 2, 1024), F)
    lists = InvertedLists(50, 1)
    lists.add(np.arange(50), np.zeros((50, 1), np.uint8), np.arange(50))
    x, codes = np.full((1, 1024), 0.1, F), np.zeros((50, 1), np.uint8)
    want = reference.adc(np.repeat(x, 50, axis=0), centroids, codes, pq, "ip")
    found = reference.search(x, np.arange(50)[None], centroids, pq, lists.view, 50, "ip")
    assert len(np.unique(want)) > 3
    assert reference.search(x, np.arange(50)[None], centroids, pq, lists.view, 1, "ip").ids[0, 0] == want.argmax()
    assert found.distances[0].tolist() == sorted(want.tolist(), reverse=True)


def test_the_answer_does_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    pq = ProductQuantizer(24, 3, 4)
    pq.codebooks = rng.normal(size=(3, 16, 8)).astype(F)
    lists = InvertedLists(4, pq.code_rows)
    codes = rng.integers(0, 16, (500, 3)).astype(np.uint8)
    lists.add(rng.integers(4, size=500), pq.to_rows(codes), np.arange(500))
    centroids, x = rng.normal(size=(4, 24)).astype(F), rng.normal(size=(30, 24)).astype(F)
    probes = np.tile([3, 0, 2], (30, 1))
    whole = reference.search(x, probes, centroids, pq, lists.view, 9, "l2")
    monkeypatch.setattr(reference, "BLOCK", 300)
    monkeypatch.setattr(reference, "SMALL_BLOCK", 50)
    for got, want in zip(reference.search(x, probes, centroids, pq, lists.view, 9, "l2"), whole, strict=True):
        assert got.tobytes() == want.tobytes()


def test_beyond_float32_it_is_still_the_definition():
    pq = ProductQuantizer(2, 1, 1)
    pq.codebooks = np.array([[[3e38, 3e38], [0, 0]]], F)
    lists = InvertedLists(1, 1)
    lists.add(np.zeros(4, np.int64), np.array([[0], [1], [1], [0]], np.uint8), np.array([4, 3, 2, 1]))
    found = reference.search(
        np.zeros((1, 2), F), np.zeros((1, 1), np.int64), np.zeros((1, 2), F), pq, lists.view, 5, "l2"
    )
    assert found.ids.tolist() == [[2, 3, 1, 4, -1]]
    assert found.distances.tolist() == [[0, 0, np.inf, np.inf, np.inf]]


def test_active_names_the_kernel_and_the_environment_chooses(monkeypatch):
    monkeypatch.delenv("IVFPQ_KERNEL", raising=False)
    assert kernels.active() == kernels.available()[-1]
    monkeypatch.setenv("IVFPQ_KERNEL", "reference")
    assert kernels.active() == "reference"
    monkeypatch.setenv("IVFPQ_KERNEL", "abacus")
    with pytest.raises(ValueError, match=r"IVFPQ_KERNEL must be one of .*, got 'abacus'"):
        kernels.active()


def test_without_numba_everything_works_and_says_what_it_uses():
    code = (
        "import sys; sys.modules['numba'] = None\n"  # as if it were not installed
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numba' else find(name, *rest)\n"
        "import numpy as np, ivfpq\n"
        "index = ivfpq.IndexIVFPQ(4, 2, 2, 2); x = np.random.default_rng(0).normal(size=(50, 4))\n"
        "index.train(x); index.add(x); print(ivfpq.kernels.active(), index.search(x[:1], 1, nprobe=2).ids.shape)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "IVFPQ_KERNEL"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == "reference (1, 1)\n"
