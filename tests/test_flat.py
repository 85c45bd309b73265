"""IndexFlat against naive float64 loops and faiss."""

import faiss
import numpy as np
import pytest

from ivfpq import IndexFlat

F = np.float32
METRICS = ["l2", "ip", "cosine"]


def data(n=300, d=24, nq=20, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) + offset).astype(F), (rng.normal(size=(nq, d)) + offset).astype(F)


def exact(x, y, metric):
    """float64 distances, smaller better."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if metric == "l2":
        return ((x[:, None] - y) ** 2).sum(axis=2)
    if metric == "cosine":
        x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    return -x @ y.T


def filled(x, metric="l2"):
    index = IndexFlat(x.shape[1], metric=metric)
    index.add(x)
    return index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0, 100])
def test_search_is_the_naive_loop(metric, offset):
    x, q = data(offset=offset)
    D, found = filled(x, metric).search(q, 7)
    want = exact(q, x, metric)
    got = np.take_along_axis(want, found, axis=1)
    # Sorted, nothing better left out, beyond what float32 can tell apart.
    slack = 1e-6 * np.abs(want).max()
    assert (got[:, 1:] >= got[:, :-1] - slack).all()
    assert (got <= np.sort(want, axis=1)[:, :7] + slack).all()
    np.testing.assert_allclose(D, got if metric == "l2" else -got, rtol=2e-6, atol=slack)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_faiss_gives_the_same_neighbours(metric):
    x, q = data(1000, 64)
    theirs = faiss.IndexFlat(64, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    theirs.add(x)
    DF, found_faiss = theirs.search(q, 10)
    D, found = filled(x, metric).search(q, 10)
    np.testing.assert_array_equal(found, found_faiss)
    np.testing.assert_allclose(D, DF, rtol=1e-5)


def test_the_kept_lengths_follow_every_change():
    x, q = data()
    index, gone = IndexFlat(24), np.arange(100, 200)
    for step in range(0, 300, 30):  # the later ones fill room that the earlier ones left
        index.add(x[step : step + 30] * F(step + 1))
        whole = filled(np.stack([index.reconstruct(i) for i in range(step + 30)]))
        for got, want in zip(index.search(q, 5), whole.search(q, 5), strict=True):
            assert got.tobytes() == want.tobytes()
        index.search(q, 5, ids=[1, 2])
    index.remove_ids(gone)
    index.add_with_ids(x[gone] * F(1e-3), gone)
    assert set(index.search(np.zeros((1, 24)), 100).ids[0].tolist()) == set(gone.tolist())


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_smaller_id_whatever_the_order_of_adding(metric):
    x = np.repeat(np.array([[1, 2, 2], [2, 4, 4], [-2, 1, 0]], F), 10, axis=0)
    ids = np.random.default_rng(0).permutation(100)[:30]
    index = IndexFlat(3, metric=metric)
    index.add_with_ids(x, ids)
    _, found = index.search(x[:1], 15)
    first = {"l2": ids[:10], "ip": ids[10:20], "cosine": ids[:20]}[metric][:20]
    assert found[0, : min(15, len(first))].tolist() == sorted(first.tolist())[:15]


@pytest.mark.parametrize("metric", METRICS)
def test_one_query_at_a_time_gives_the_same_bits_as_all_at_once(metric):
    x, q = data(500, 100)
    index = filled(x, metric)
    D, found = index.search(q, 9)
    for i in range(len(q)):
        d, ids = index.search(q[i : i + 1], 9)
        assert d.tobytes() == D[i].tobytes() and ids.tolist() == [found[i].tolist()]


def test_blocks_do_not_change_the_answer(monkeypatch):
    x, q = data(500, 10)
    whole = filled(x).search(q, 9)
    monkeypatch.setattr("ivfpq.exhaustive.BLOCK", 40)
    for got, want in zip(filled(x).search(q, 9), whole, strict=True):
        assert got.tobytes() == want.tobytes()


def test_more_than_there_is_pads():
    x, q = data(3, 4, 2)
    for metric, worst in (("l2", np.inf), ("ip", -np.inf), ("cosine", -np.inf)):
        D, found = filled(x, metric).search(q, 5)
        assert (found[:, :3] >= 0).all() and (found[:, 3:] == -1).all() and (D[:, 3:] == worst).all()
    D, found = IndexFlat(4).search(q, 2)
    assert (found == -1).all() and np.isinf(D).all()
    assert filled(x).search(np.empty((0, 4)), 5).ids.shape == (0, 5)


@pytest.mark.parametrize("metric", METRICS)
def test_ids_restrict(metric):
    x, q = data()
    index = filled(x, metric)
    some = np.arange(0, 300, 7)
    alone = IndexFlat(24, metric=metric)
    alone.add_with_ids(x[some], some)
    for got, want in zip(index.search(q, 5, ids=np.append(some, 10**6)), alone.search(q, 5), strict=True):
        assert got.tobytes() == want.tobytes()
    for got, want in zip(index.search(q, 5, ids=np.arange(300)), index.search(q, 5), strict=True):
        assert got.tobytes() == want.tobytes()
    assert (index.search(q, 5, ids=[]).ids == -1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_range_search_agrees_with_search(metric):
    x, q = data()
    index = filled(x, metric)
    D, found = index.search(q, 300)
    radius = float(D[0, 20])
    lims, d, ids = index.range_search(q, radius)
    for i in range(len(q)):
        inside = D[i] < radius if metric == "l2" else D[i] > radius
        assert ids[lims[i] : lims[i + 1]].tolist() == found[i, inside].tolist()
        assert d[lims[i] : lims[i + 1]].tobytes() == D[i, inside].tobytes()
    assert lims[1] == 20


def test_remove_merge_reset_reconstruct():
    x, q = data()
    index, rest = filled(x), IndexFlat(24)
    assert index.remove_ids([5, 6, 1000]) == 2
    rest.add_with_ids(np.delete(x, [5, 6], axis=0), np.delete(np.arange(300), [5, 6]))
    for got, want in zip(index.search(q, 9), rest.search(q, 9), strict=True):
        assert got.tobytes() == want.tobytes()
    with pytest.raises(KeyError, match="id 5 is not in the index"):
        index.reconstruct(5)
    part = IndexFlat(24)
    part.add_with_ids(x[5:7], [5, 6])
    index.merge_from(part)
    for got, want in zip(index.search(q, 9), filled(x).search(q, 9), strict=True):
        assert got.tobytes() == want.tobytes()
    with pytest.raises(ValueError, match="already in the index"):
        index.merge_from(part)
    with pytest.raises(ValueError, match="differ"):
        index.merge_from(IndexFlat(24, metric="ip"))
    with pytest.raises(TypeError, match="got int"):
        index.merge_from(3)
    np.testing.assert_array_equal(index.reconstruct(5), x[5])
    index.reconstruct(5)[:] = 0
    np.testing.assert_array_equal(index.reconstruct(5), x[5])
    index.reset()
    assert index.ntotal == 0 and index.is_trained


def test_surface():
    index = IndexFlat(24)
    assert (index.code_size, index.train_size_min, index.metric, index.metadata) == (96, 0, "l2", {})
    index.train(np.zeros((0, 24)))
    with pytest.raises(AttributeError):
        index.nprob = 3
    with pytest.raises(AttributeError):
        index.metric = "ip"
    assert repr(index) == "IndexFlat(d=24, metric='l2'; 0 vectors)"
