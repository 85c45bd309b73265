"""IndexIVFPQ: what must hold whatever the data."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same

from ivfpq import IndexFlat, IndexIVFPQ, IndexPQ, NotTrainedError
from ivfpq.distances import normalised
from ivfpq.metrics import knn_recall_at_k

F = np.float32
D, NLIST, M, NBITS = 12, 6, 3, 4
METRICS = ["l2", "ip", "cosine"]


def vectors(n, seed=0, d=D):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, d)) * 3
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(F)


@pytest.fixture(scope="session")
def trained():
    """One trained, empty index a metric; tests take copies."""
    made = {}
    for metric in METRICS:
        index = IndexIVFPQ(D, NLIST, M, NBITS, metric=metric)
        index.train(vectors(500))
        made[metric] = index
    return made


def copy_of(index):
    return IndexIVFPQ.from_state(*index.state())


@pytest.fixture(params=METRICS)
def index(request, trained):
    """400 vectors under ids 0 ... 399."""
    made = copy_of(trained[request.param])
    made.add(vectors(400, 1))
    return made


def test_probe_names_the_lists_that_a_search_looks_into_nearest_first(index):
    q = vectors(20, 2)
    for nprobe in (1, 3, NLIST, NLIST + 5):
        distances, numbers = index.probe(q, nprobe)
        assert numbers.shape == (20, min(nprobe, NLIST))
        nearer = np.diff(distances) if index.metric != "ip" else -np.diff(distances)
        assert (nearer >= 0).all()
        for row, found in zip(numbers, index.search(q, 400, nprobe=nprobe).ids, strict=True):
            inside = np.concatenate([index.lists.view.list_ids(number) for number in row])
            assert sorted(found[found >= 0]) == sorted(inside)


def test_codes_of_are_what_add_codes_takes(index, trained):
    ids = np.random.default_rng(0).permutation(400)
    other = copy_of(trained[index.metric])
    other.add_codes(*index.codes_of(ids), ids)
    assert same(other.search(vectors(20, 2), 400, nprobe=NLIST), index.search(vectors(20, 2), 400, nprobe=NLIST))
    with pytest.raises(KeyError, match="id 400 is not in the index"):
        index.codes_of([3, 400])


def test_visiting_every_list_is_the_exhaustive_scan_of_what_is_reconstructed(index):
    q = vectors(20, 2)
    found = index.search(q, 400, nprobe=NLIST)
    rebuilt = np.stack([index.reconstruct(i) for i in range(400)]).astype(np.float64)
    asked = normalised(q) if index.metric == "cosine" else q
    for row, distances, ids in zip(asked.astype(np.float64), *found, strict=True):
        assert sorted(ids) == list(range(400))
        squared = ((rebuilt - row) ** 2).sum(axis=1)
        want = {"l2": squared, "ip": rebuilt @ row, "cosine": 1 - squared / 2}[index.metric]
        np.testing.assert_allclose(distances, want[ids], rtol=1e-5, atol=1e-5)
        gaps = np.diff(distances) if index.metric == "l2" else -np.diff(distances)
        assert (gaps >= 0).all() and (np.diff(ids)[gaps == 0] > 0).all()


def test_fewer_lists_give_the_same_answer_cut_down_to_those_lists(index):
    q = vectors(10, 3)
    everything = index.search(q, 400, nprobe=NLIST)
    view = index.lists.view
    list_of = dict(zip(view.ids(view.rows()).tolist(), view.list_numbers().tolist(), strict=True))
    for nprobe in (1, 2, 5):
        few = index.search(q, 400, nprobe=nprobe)
        for i in range(len(q)):
            there = few.ids[i][few.ids[i] >= 0]
            visited = {list_of[j] for j in there.tolist()}
            assert len(visited) <= nprobe
            keep = np.array([list_of[j] in visited for j in everything.ids[i].tolist()])
            assert there.tolist() == everything.ids[i][keep].tolist()
            assert few.distances[i][: len(there)].tobytes() == everything.distances[i][keep].tobytes()


def test_the_probed_lists_are_those_of_the_nearest_centroids(index):
    q = vectors(10, 3)
    asked = normalised(q) if index.metric == "cosine" else q
    c = index.centroids.astype(np.float64)
    for i, row in enumerate(asked.astype(np.float64)):
        score = -(c @ row) if index.metric == "ip" else ((c - row) ** 2).sum(axis=1)
        nearest = set(np.argsort(score)[:2].tolist())
        ids = index.search(q[i : i + 1], 400, nprobe=2).ids[0]
        view = index.lists.view
        rows = index.lists.find(view, ids[ids >= 0])
        assert set(view.list_numbers(rows).tolist()) <= nearest
        assert len(rows) == view.sizes[list(nearest)].sum()


@pytest.mark.parametrize("metric", METRICS)
@given(cuts=st.lists(st.integers(0, 100), max_size=8))
@settings(max_examples=15, deadline=None)
def test_any_batching_of_add_gives_the_same_index(trained, metric, cuts):
    x, q = vectors(100, 4), vectors(5, 5)
    whole, parts = copy_of(trained[metric]), copy_of(trained[metric])
    whole.add(x)
    for part in np.split(x, sorted(cuts)):
        parts.add(part)
    assert same(whole.search(q, 20, nprobe=3), parts.search(q, 20, nprobe=3))
    for name, array in whole.state()[1].items():
        np.testing.assert_array_equal(array, parts.state()[1][name])


def test_any_batching_of_search_gives_the_same_bits(index):
    q = vectors(60, 6)
    whole = index.search(q, 9, nprobe=4)
    for i in range(len(q)):
        assert same(index.search(q[i : i + 1], 9, nprobe=4), (whole.distances[i : i + 1], whole.ids[i : i + 1]))


@given(gone=st.sets(st.integers(0, 150)))
@settings(max_examples=20, deadline=None)
def test_removed_is_as_if_never_added(trained, gone):
    x, q = vectors(120, 7), vectors(5, 8)
    index, never = copy_of(trained["l2"]), copy_of(trained["l2"])
    index.add(x)
    assert index.remove_ids(list(gone)) == len(gone & set(range(120)))
    kept = np.array(sorted(set(range(120)) - gone), np.int64)
    never.add_with_ids(x[kept], kept)
    assert index.ntotal == never.ntotal == len(kept)
    assert same(index.search(q, 30, nprobe=3), never.search(q, 30, nprobe=3))


def test_a_filter_is_as_if_the_others_were_never_added(index):
    x, q, some = vectors(400, 1), vectors(9, 9), np.arange(3, 400, 11)
    alone = copy_of(index)
    alone.reset()
    alone.add_with_ids(x[some], some)
    got = index.search(q, 50, nprobe=3, ids=np.concatenate([some, some, [10**12]]))
    assert same(got, alone.search(q, 50, nprobe=NLIST))  # there are 37: all are found, whatever lists they are in
    assert same(index.search(q, 50, nprobe=3, ids=range(400)), index.search(q, 50, nprobe=3))
    assert (index.search(q, 5, ids=[]).ids == -1).all()
    assert same(index.range_search(q, 4.0, nprobe=3, ids=some), alone.range_search(q, 4.0, nprobe=3))


def test_range_search_agrees_with_search(index):
    q = vectors(9, 10)
    distances, ids = index.search(q, 400, nprobe=NLIST)
    radius = distances[0, 30]
    lims, near, found = index.range_search(q, radius, nprobe=NLIST)
    for i in range(len(q)):
        inside = distances[i] < radius if index.metric == "l2" else distances[i] > radius
        assert found[lims[i] : lims[i + 1]].tolist() == ids[i, inside].tolist()
        assert near[lims[i] : lims[i + 1]].tobytes() == distances[i, inside].tobytes()


def test_vectors_built_from_codewords_round_trip(trained):
    index = copy_of(trained["l2"])
    index.install(index.centroids * 100, index.pq.codebooks)  # cells so far apart that none reaches into another
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << NBITS, (50, M)).astype(np.uint8)
    lists = rng.integers(0, NLIST, 50)
    x = index.centroids[lists] + index.pq.decode(codes)
    index.add(x)
    for i in range(50):
        np.testing.assert_array_equal(index.reconstruct(i), x[i])
    found = index.search(x, 1)
    np.testing.assert_allclose(found.distances[:, 0], 0, atol=1e-6)


@pytest.mark.parametrize("nbits", [1, 2, 5, 8, 10, 12])
def test_every_nbits_searches(nbits):
    index = IndexIVFPQ(8, 4, 4, nbits, seed=1)
    x = vectors(max(300, index.train_size_min), d=8)
    index.train(x)
    index.add(x[:300])
    recall = knn_recall_at_k(index.search(x[:50], 10, nprobe=4).ids, exact(x[:300], x[:50]))
    assert index.code_size == (4 * nbits + 7) // 8
    assert recall > {1: 0.1, 2: 0.2, 5: 0.5, 8: 0.8, 10: 0.85, 12: 0.85}[nbits]


def test_sixteen_bits_with_quantizers_from_elsewhere():
    index = IndexIVFPQ(4, 2, 2, 16)
    rng = np.random.default_rng(0)
    index.install(rng.normal(size=(2, 4)), rng.normal(size=(2, 65536, 2)))
    x = rng.normal(size=(40, 4)).astype(F)
    index.add(x)
    assert index.code_size == 4
    assert index.search(x, 1, nprobe=2).ids[:, 0].tolist() == list(range(40))
    assert (index.search(x, 1, nprobe=2).distances < 0.01).all()


def exact(x, q, k=10):
    flat = IndexFlat(x.shape[1])
    flat.add(x)
    return flat.search(q, k).ids


def test_equal_vectors_are_found_by_smallest_id_first(index):
    index.reset()
    index.add_with_ids(np.repeat(vectors(1, 11), 30, axis=0), np.random.default_rng(0).permutation(30))
    assert index.search(vectors(1, 11), 10).ids[0].tolist() == list(range(10))


def test_more_than_the_candidates_pads(index):
    worst = np.inf if index.metric == "l2" else -np.inf
    distances, ids = index.search(vectors(5, 12), 500, nprobe=NLIST)
    assert (ids[:, :400] >= 0).all() and (ids[:, 400:] == -1).all() and (distances[:, 400:] == worst).all()
    index.reset()
    distances, ids = index.search(vectors(5, 12), 3)
    assert (ids == -1).all() and (distances == worst).all()
    assert index.search(np.empty((0, D)), 3).ids.shape == (0, 3)
    assert index.range_search(vectors(2), 1.0).lims.tolist() == [0, 0, 0]


def test_training_is_the_same_for_the_same_seed_only():
    x = vectors(500)
    made = [IndexIVFPQ(D, NLIST, M, NBITS, seed=seed) for seed in (5, 5, 6)]
    for one in made:
        one.train(x)
    one, two, other = (i.centroids.tobytes() + i.pq.codebooks.tobytes() for i in made)
    assert one == two != other


def test_float64_fortran_order_and_strides_make_no_difference(index):
    x, q = vectors(50, 13), vectors(5, 14)
    other = copy_of(index)
    index.add(x)
    wide = np.zeros((50, 2 * D))
    wide[:, ::2] = x
    other.add(np.asfortranarray(wide)[:, ::2])
    assert same(index.search(q, 9, nprobe=3), other.search(np.asfortranarray(q, dtype=np.float64), 9, nprobe=3))


def test_cosine_does_not_see_lengths(trained):
    one, two = copy_of(trained["cosine"]), copy_of(trained["cosine"])
    x, q = vectors(100, 15), vectors(5, 16)
    one.add(x)
    two.add(x * F(2.0) ** np.arange(100, dtype=F)[:, None] / 2**40)  # powers of two change no digit
    assert same(one.search(q, 9), two.search(q * F(1024), 9))
    assert one.search(x[:1], 1, nprobe=NLIST).distances[0, 0] == pytest.approx(1, abs=0.05)


def test_a_shift_of_all_data_keeps_the_answer():
    x, q = vectors(600), vectors(30, 17)
    near, far = IndexIVFPQ(D, NLIST, M, NBITS), IndexIVFPQ(D, NLIST, M, NBITS)
    near.train(x)
    far.install(near.centroids + F(1024), near.pq.codebooks)  # 1024 + a number keeps 2**-13 of it
    near.add(x)
    far.add(x + F(1024))
    assert knn_recall_at_k(far.search(q + F(1024), 10, nprobe=3).ids, near.search(q, 10, nprobe=3).ids) > 0.99


def test_merge_gives_what_adding_would(trained):
    x, q = vectors(100, 18), vectors(5, 19)
    whole, one, two = (copy_of(trained["l2"]) for _ in range(3))
    whole.add(x)
    one.add(x[:60])
    two.add_with_ids(x[60:], np.arange(60, 100))
    one.merge_from(two)
    assert same(one.search(q, 20, nprobe=3), whole.search(q, 20, nprobe=3))
    assert two.ntotal == 40
    before = one.ntotal
    with pytest.raises(ValueError, match="40 of the ids are already in the index"):
        one.merge_from(two)
    assert one.ntotal == before


def test_merging_what_was_trained_apart_is_refused(trained):
    index, other = copy_of(trained["l2"]), IndexIVFPQ(D, NLIST, M, NBITS)
    with pytest.raises(NotTrainedError):
        index.merge_from(other)
    other.install(trained["l2"].centroids + F(1), trained["l2"].pq.codebooks)
    with pytest.raises(ValueError, match="different centroids"):
        index.merge_from(other)
    other.install(trained["l2"].centroids, trained["l2"].pq.codebooks + F(1))
    with pytest.raises(ValueError, match="different codebooks"):
        index.merge_from(other)
    with pytest.raises(ValueError, match="differ in metric: l2 and ip"):
        index.merge_from(trained["ip"])
    with pytest.raises(TypeError, match="got IndexFlat"):
        index.merge_from(IndexFlat(D))


def test_ids(trained):
    index = copy_of(trained["l2"])
    x = vectors(10)
    index.add_with_ids(x[:3], [7, 2**40, 3])
    with pytest.raises(ValueError, match="1 of the ids are already in the index, the first is 3"):
        index.add_with_ids(x[:2], [4, 3])
    with pytest.raises(ValueError, match="distinct"):
        index.add_with_ids(x[:2], [5, 5])
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        index.add_with_ids(x[:2], [5])
    assert index.ntotal == 3
    index.add(x[3:5])  # goes on from the largest
    assert sorted(index.search(x[:1], 9, nprobe=NLIST).ids[0])[-2:] == [2**40 + 1, 2**40 + 2]
    with pytest.raises(KeyError, match="id 4 is not in the index"):
        index.reconstruct(4)
    assert index.remove_ids([3, 3, 4]) == 1


def test_wrong_input_is_refused_with_both_sides(index):
    for verb in (index.add, lambda x: index.search(x, 3), lambda x: index.range_search(x, 1.0)):
        with pytest.raises(ValueError, match=r"must have shape \(n, 12\), got \(2, 13\)"):
            verb(np.zeros((2, 13)))
        with pytest.raises(ValueError, match="must be finite"):
            verb(np.full((2, 12), np.nan))
    for bad in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            index.search(vectors(1), bad)
        with pytest.raises(ValueError, match="nprobe must be at least 1"):
            index.search(vectors(1), 1, nprobe=bad)
    assert index.ntotal == 400


def test_before_training_nothing_works_and_says_so():
    index = IndexIVFPQ(D, NLIST, M, NBITS)
    assert not index.is_trained
    for call in (lambda: index.add(vectors(1)), lambda: index.search(vectors(1), 1), lambda: index.reconstruct(0)):
        with pytest.raises(NotTrainedError, match="call train first"):
            call()
    with pytest.raises(ValueError, match=r"at least 16 vectors \(nlist=6, nbits=4\), got n=15"):
        index.train(vectors(15))
    assert index.train_size_min == 16
    index.train(vectors(16))
    assert index.is_trained


def test_training_again_needs_a_reset(index):
    with pytest.raises(RuntimeError, match="400 vectors: reset"):
        index.train(vectors(100))
    with pytest.raises(RuntimeError, match="400 vectors: reset"):
        index.install(index.centroids, index.pq.codebooks)
    index.reset()
    assert index.ntotal == 0 and index.is_trained
    index.train(vectors(100))


def test_install_checks_its_arrays(trained):
    index = IndexIVFPQ(D, NLIST, M, NBITS)
    centroids, codebooks = trained["l2"].centroids, trained["l2"].pq.codebooks
    with pytest.raises(ValueError, match=r"centroids must have shape \(6, 12\), got \(5, 12\)"):
        index.install(centroids[:5], codebooks)
    with pytest.raises(ValueError, match=r"codebooks must have shape \(3, 16, 4\)"):
        index.install(centroids, codebooks[:2])
    with pytest.raises(ValueError, match="codebooks must be finite"):
        index.install(centroids, codebooks * np.nan)
    assert not index.is_trained


def test_surface():
    index = IndexIVFPQ(32, nprobe=4)
    assert (index.d, index.nlist, index.M, index.nbits, index.metric, index.nprobe, index.ntotal, index.is_trained) == (
        32, 100, 8, 8, "l2", 4, 0, False,
    )  # fmt: skip
    assert (index.code_size, index.bytes_per_vector, index.train_size_min, index.metadata) == (8, 12, 256, {})
    index.nprobe, index.metadata = 1000, {"a": 1}  # more than nlist means all
    assert repr(index) == "IndexIVFPQ(d=32, nlist=100, M=8, nbits=8, metric='l2', nprobe=1000; 0 vectors)"
    for name, value in (("nprob", 3), ("d", 3), ("metric", "ip"), ("ntotal", 1)):
        with pytest.raises(AttributeError):
            setattr(index, name, value)
    with pytest.raises(ValueError, match="nprobe must be at least 1, got 0"):
        index.nprobe = 0
    with pytest.raises(ValueError, match="metric must be one of"):
        IndexIVFPQ(32, metric="L2")


def test_nprobe_of_a_call_leaves_the_index_alone(index):
    index.search(vectors(1), 1, nprobe=3)
    assert index.nprobe == 1
    q = vectors(5, 20)
    before = index.search(q, 400)
    index.nprobe = 3
    assert same(index.search(q, 400), index.search(q, 400, nprobe=3)) and not same(index.search(q, 400), before)


def test_searching_while_another_thread_writes_sees_before_or_after(trained):
    """Each of 40 steps adds ten copies of the query and then removes them: nobody may see four."""
    index, x = copy_of(trained["l2"]), vectors(300, 21)
    index.add(x)
    far = np.full((1, D), 50, F)
    index.add_with_ids(far + F(60), [999])  # the cell is never empty
    done, seen, wrong = threading.Event(), set(), []

    def read():
        while not done.is_set():
            ids = index.search(far, 40, nprobe=NLIST).ids[0]
            copies = int(np.count_nonzero((ids >= 1000) & (ids < 10**6)))
            seen.add(copies)
            if copies not in (0, 10) or len(set(ids.tolist())) != 40:
                wrong.append(ids)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(40):
        ids = 1000 + 10 * step + np.arange(10)
        index.add_with_ids(np.repeat(far, 10, axis=0), ids)
        index.add_with_ids(x[:50], 10**6 + 50 * step + np.arange(50))  # makes the lists move
        index.remove_ids(ids)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert seen <= {0, 10}
    assert index.ntotal == 301 + 40 * 50


def test_two_writers_lose_nothing(trained):
    index = copy_of(trained["l2"])

    def write():
        for _ in range(30):
            index.add(vectors(3))

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    view = index.lists.view
    assert sorted(view.ids(view.rows()).tolist()) == list(range(270))


@pytest.mark.parametrize("metric", METRICS)
def test_codes_without_lists_are_compared_with_the_vectors_they_stand_for(metric):
    index, x, q = IndexPQ(D, M, NBITS, metric=metric), vectors(300), vectors(20, 2)
    index.train(x)
    index.add(x)
    assert repr(index) == f"IndexPQ(d=12, M=3, nbits=4, metric={metric!r}; 300 vectors)"
    assert (index.centroids == 0).all()
    stored = normalised(x) if metric == "cosine" else x
    np.testing.assert_array_equal(index.reconstruct(5), index.pq.decode(index.pq.encode(stored[5:6]))[0])
    flat = IndexFlat(D, metric="ip" if metric == "ip" else "l2")
    flat.add(np.stack([index.reconstruct(i) for i in range(300)]))
    want = flat.search(normalised(q) if metric == "cosine" else q, 300)
    found = index.search(q, 300, nprobe=7)
    distances = 2 - 2 * found.distances if metric == "cosine" else found.distances
    np.testing.assert_allclose(distances, want.distances, rtol=1e-4, atol=1e-4)
    assert knn_recall_at_k(found.ids[:, :10], want.ids[:, :10]) > 0.95  # codes tie, and float32 rounds


@pytest.mark.realdata
def test_real_features_as_good_as_faiss(testdata):
    import faiss

    with np.load(testdata / "caltech101_features_2048.npz") as archive:
        x = archive["features"][::3].astype(F)
    q, x = x[::20], np.delete(x, np.arange(0, len(x), 20), axis=0)
    truth = exact(x, q)
    index = IndexIVFPQ(2048, 30, 8, 6)
    index.train(x)
    index.add(x)
    theirs = faiss.index_factory(2048, "IVF30,PQ8x6np")
    theirs.train(x)
    theirs.add(x)
    theirs.nprobe = 8
    ours = knn_recall_at_k(index.search(q, 10, nprobe=8).ids, truth)
    assert ours >= knn_recall_at_k(theirs.search(q, 10)[1], truth) - 0.02
