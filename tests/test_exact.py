"""Compiled transforms and re-ranking give the bits of their definitions in numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_sum

from ivfpq import IndexFlat, IndexRefine, kernels
from ivfpq.kernels import rerank
from ivfpq.transforms import LinearTransform

F = np.float32


def both(monkey, ask):
    """What `ask` gives with the compiled kernels and without."""
    found = []
    for name in (kernels.available()[-1], "reference"):
        monkey.setattr(kernels, "active", lambda name=name: name)
        with np.errstate(all="ignore"):
            found.append(ask())
    return found


def same(one, two):
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([0, 1, 2, 3, 9]),
    d_in=st.sampled_from([1, 5, 16, 32, 48, 70, 256]),
    scale=st.sampled_from([-40, -3, 0, 5, 30, 38]),
)
@settings(max_examples=80, deadline=None)
def test_transforms(seed, n, d_in, scale):
    rng = np.random.default_rng(seed)
    transform = LinearTransform(d_in, int(rng.integers(1, d_in + 1)))
    basis = np.linalg.qr(rng.normal(size=(d_in, d_in)))[0][: transform.d_out]
    transform.install(basis, rng.normal(size=transform.d_out) * rng.integers(0, 2))
    x = np.clip(rng.normal(size=(n, d_in)) * 10.0**scale, -3e38, 3e38).astype(F)
    with pytest.MonkeyPatch.context() as monkey:
        one, two = both(monkey, lambda: [transform.apply(x)])
    assert same(one, two) and one[0].shape == (n, transform.d_out)
    for i in range(min(n, 2)):
        with np.errstate(all="ignore"):
            for j in range(0, transform.d_out, 7):
                wanted = F(slow_sum(list(x[i] * transform.A[j])) + transform.b[j]) + F(0)
                assert one[0][i, j].tobytes() == F(wanted).tobytes()


@given(data=st.data(), metric=st.sampled_from(["l2", "ip", "cosine"]), grid=st.booleans())
@settings(max_examples=100, deadline=None)
def test_reranking(data, metric, grid):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d, n = draw(st.sampled_from([1, 7, 16, 33, 64, 100, 130])), draw(st.sampled_from([0, 1, 5, 60, 300]))
    dtype = draw(st.sampled_from(["float32", "float32", "float16", "uint8"]))
    exponent = draw(st.sampled_from([0, 0, 0, -6, 3] if dtype == "float16" else [0, 0, -20, -30, -38, 9, 18]))
    spread = draw(st.sampled_from([0, 8])) if metric != "l2" and dtype == "float32" and exponent < 9 else 0
    index = IndexRefine(IndexFlat(d, metric=metric), dtype=dtype, k_factor=draw(st.integers(1, 8)))

    def vectors(count):
        x = rng.integers(-2, 3, (count, d)) if grid else rng.normal(size=(count, d))
        return (x * 10.0**exponent * 10.0 ** rng.uniform(-spread, spread, (count, 1))).astype(F)

    index.train(vectors(10))
    x, q, k = vectors(n), vectors(draw(st.integers(0, 4))), draw(st.sampled_from([1, 3, 10]))
    ids = rng.permutation(3 * n)[:n] if draw(st.booleans()) else np.arange(n)
    first = n // 2
    index.add_with_ids(x[:first], ids[:first])
    with pytest.MonkeyPatch.context() as monkey:
        assert same(*both(monkey, lambda: index.search(q, k)))
        index.add_with_ids(x[first:], ids[first:])  # sketches grow
        assert same(*both(monkey, lambda: index.search(q, k)))
        index.remove_ids(ids[::3])
        assert same(*both(monkey, lambda: index.search(q, k)))


def test_vectors_that_their_sketches_rule_out_are_not_read(monkeypatch):
    monkeypatch.setattr(kernels, "active", lambda: kernels.available()[-1])
    rng = np.random.default_rng(0)
    index = IndexRefine(IndexFlat(256), k_factor=20)
    index.add(rng.normal(size=(2000, 256)))
    q = rng.normal(size=(1, 256)).astype(F)
    found, candidates = index.search(q, 5), index.base.search(q, 100).ids
    index.store.view.blocks[candidates[0, 40:]] = np.nan  # so these may be anything
    assert same(index._compiled.rerank(q, candidates, candidates, 5), found)


def test_threads_do_not_change_an_answer(monkeypatch):
    monkeypatch.setattr(kernels, "active", lambda: kernels.available()[-1])
    rng = np.random.default_rng(2)
    index = IndexRefine(IndexFlat(40))
    index.add(rng.integers(0, 3, (500, 40)))
    q = rng.integers(0, 3, (101, 40)).astype(F)
    want = index.search(q, 10)
    monkeypatch.setattr(rerank, "WORTH_A_THREAD", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    index._compiled = None
    assert same(index.search(q, 10), want)


def test_read_only_and_unaligned_queries():
    transform = LinearTransform(4, 4)
    transform.install(np.eye(4), np.zeros(4))
    x = np.arange(12, dtype=F).reshape(3, 4)
    x.setflags(write=False)
    assert transform.apply(x).tobytes() == x.tobytes()
