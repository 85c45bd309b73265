"""IndexRefine: exact distances for what its base finds."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from oracles import same

from ivfpq import IndexFlat, IndexIVFPQ, IndexRefine, IndexSQ, NotTrainedError, index_factory, kernels, load, save
from ivfpq.metrics import knn_recall_at_k

F = np.float32
D = 12
SMAPS = Path("/proc/self/smaps")  # Linux's
METRICS = ["l2", "ip", "cosine"]
SPECS = ["Flat", "IVF6,PQ3x4", "PCA6,IVF6,PQ3x4", "PCA6,IVF6,RQ3x4", "IVF6,SQ8"]


def vectors(n, seed=0, d=D):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, d)) * 3
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(F)


@pytest.fixture(params=METRICS, scope="module")
def metric(request):
    return request.param


@pytest.fixture(params=SPECS, scope="module")
def trained(request, metric):
    index = index_factory(D, f"{request.param},Refine", metric=metric)
    if request.param != "Flat":
        with pytest.raises(NotTrainedError):
            index.add(vectors(1))
    index.train(vectors(400))
    return index


@pytest.fixture
def index(trained):
    made = IndexRefine.from_state(*trained.state())
    made.add(vectors(300, 1))
    return made


def exact(metric, n=300):
    flat = IndexFlat(D, metric=metric)
    flat.add(vectors(n, 1))
    return flat


def test_with_all_vectors_as_candidates_it_is_the_exact_index(index):
    q, flat = vectors(20, 2), exact(index.metric)
    index.k_factor = 300
    assert same(index.search(q, 9, nprobe=6), flat.search(q, 9))
    some = np.arange(1, 300, 5)
    assert same(index.search(q, 9, nprobe=6, ids=some), flat.search(q, 9, ids=some))
    for i in (0, 299):
        assert same([index.reconstruct(i)], [flat.reconstruct(i)])


def test_the_best_of_the_bases_candidates_by_exact_distance(index):
    q, flat = vectors(20, 2), exact(index.metric)
    assert index.k_factor == 10
    found, candidates = index.search(q, 3, nprobe=2), index.base.search(q, 30, nprobe=2).ids
    for i in range(len(q)):
        alone = flat.search(q[i : i + 1], 3, ids=candidates[i][candidates[i] >= 0])
        assert same(alone, (found.distances[i : i + 1], found.ids[i : i + 1]))
    assert same(index.search(q[4:5], 3, nprobe=2), (found.distances[4:5], found.ids[4:5]))


def test_a_search_can_have_a_k_factor_of_its_own(index):
    q = vectors(20, 2)
    for k_factor in (1, 4, 300):
        found = index.search(q, 3, nprobe=6, k_factor=k_factor)
        candidates = index.base.search(q, 3 * k_factor, nprobe=6).ids
        assert all(set(a.tolist()) <= set(b.tolist()) for a, b in zip(found.ids, candidates, strict=True))
        assert index.k_factor == 10
        again = IndexRefine.from_state(*index.state())
        again.k_factor = k_factor
        assert same(found, again.search(q, 3, nprobe=6))
    assert same(index.search(q, 3, nprobe=6, k_factor=300), exact(index.metric).search(q, 3))
    assert same(index.search(q, 3), index.search(q, 3, k_factor=10))


@pytest.mark.parametrize("spec", ["Flat", "IVF6,PQ3x4", "PCA6,IVF6,PQ3x4", "IVF6,PQ3x4,Refine"])
def test_a_k_factor_is_checked_by_every_kind_and_means_nothing_where_nothing_is_ranked_again(spec):
    index = index_factory(D, spec)
    index.train(vectors(400))
    index.add(vectors(50, 1))
    for wrong, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="k_factor must be"):
            index.search(vectors(2), 3, k_factor=wrong)
    if "Refine" not in spec:
        assert same(index.search(vectors(2), 3, k_factor=7), index.search(vectors(2), 3))


def test_it_finds_more_than_its_base(index):
    q = vectors(50, 3)
    truth = exact(index.metric).search(q, 5).ids
    base = knn_recall_at_k(index.base.search(q, 5, nprobe=6).ids, truth)
    assert knn_recall_at_k(index.search(q, 5, nprobe=6).ids, truth) > min(base + 0.1, 0.95)


def test_range_search_is_what_search_gives_cut_at_the_radius(index):
    q, flat = vectors(9, 4), exact(index.metric)
    radius = float(flat.search(q, 60).distances[0, 40])
    assert same(index.range_search(q, radius, nprobe=6), flat.range_search(q, radius))
    index.k_factor = 300
    lims, distances, ids = index.range_search(q, radius, nprobe=2)
    found = index.search(q, 300, nprobe=2)
    for i in range(len(q)):
        inside = (found.distances[i] < radius) if index.metric == "l2" else (found.distances[i] > radius)
        assert ids[lims[i] : lims[i + 1]].tolist() == found.ids[i][inside].tolist()
        assert distances[lims[i] : lims[i + 1]].tobytes() == found.distances[i][inside].tobytes()


def test_range_search_finds_a_stored_vector_at_any_radius():
    """A code alone may lie farther away than the radius; the vector does not."""
    x = vectors(200, 1)
    index = index_factory(D, "IVF6,PQ3x4,Refine")
    index.train(vectors(400))
    index.add(x)
    lims, distances, ids = index.range_search(x, 1e-6, nprobe=6)
    assert (np.diff(lims) == 1).all() and ids.tolist() == list(range(200)) and (distances == 0).all()


def test_missing_neighbours_are_padded(index):
    worst = np.inf if index.metric == "l2" else -np.inf
    found = index.search(vectors(3, 5), 310, nprobe=6)
    assert (found.ids[:, :300] >= 0).all() and (found.ids[:, 300:] == -1).all()
    assert (found.distances[:, 300:] == worst).all()
    assert index.search(np.empty((0, D)), 3).ids.shape == (0, 3)
    index.reset()
    assert (index.search(vectors(2), 3).ids == -1).all() and index.ntotal == index.base.ntotal == 0


def test_adding_removing_updating_merging(index):
    q, x = vectors(9, 6), vectors(5, 7)
    index.k_factor = 300
    flat = exact(index.metric)
    for target in (index, flat):
        assert target.remove_ids([4, 200, 10**9]) == 2
        target.add(x[:1])
        target.add_with_ids(x[1:3], [2**40, 200])
        target.update([7, 2**40], x[3:])
    assert index.ntotal == index.base.ntotal == flat.ntotal
    assert same(index.search(q, 9, nprobe=6), flat.search(q, 9))
    other = IndexRefine.from_state(*index.state())
    other.reset()
    other.add_with_ids(x, np.arange(1000, 1005))
    index.merge_from(other)
    flat.add_with_ids(x, np.arange(1000, 1005))
    assert same(index.search(q, 9, nprobe=6), flat.search(q, 9)) and other.ntotal == 5


def test_a_refused_change_changes_nothing(index):
    before = index.state()[1]
    other = IndexRefine.from_state(*index.state())
    with pytest.raises(ValueError, match="already in the index, the first is 5"):
        index.add_with_ids(vectors(2), [1000, 5])
    with pytest.raises(ValueError, match="distinct"):
        index.add_with_ids(vectors(2), [1000, 1000])
    with pytest.raises(KeyError, match="first is 1000"):
        index.update([5, 1000], vectors(2))
    with pytest.raises(ValueError, match="300 of the ids are already"):
        index.merge_from(other)
    if index.base.is_trained and not isinstance(index.base, IndexFlat):
        stranger = index_factory(D, "IVF6,PQ3x2,Refine", metric=index.metric)
        stranger.train(vectors(50))
        stranger.add_with_ids(vectors(3), [1000, 1001, 1002])
        with pytest.raises((TypeError, ValueError)):
            index.merge_from(stranger)
    for name, array in index.state()[1].items():
        assert array.tobytes() == before[name].tobytes()


def test_half_floats_are_rounded_vectors():
    x, q = vectors(200, 1), vectors(9, 2)
    index = index_factory(D, "IVF6,PQ3x4,Refine(SQfp16)")
    index.train(x)
    index.add(x)
    index.k_factor = 200
    flat = IndexFlat(D)
    flat.add(x.astype(np.float16))
    assert same(index.search(q, 9, nprobe=6), flat.search(q, 9))
    assert index.code_size == 2 + 2 * D and index.dtype == "float16"
    assert index.bytes_per_vector == (2 + 1 + 3) + (2 * D + 3)
    with pytest.raises(ValueError, match="must be finite in float16, but its largest number is 70000"):
        index.add(np.full((1, D), 70000))
    assert index.ntotal == index.base.ntotal == 200
    with pytest.raises(ValueError, match="differ in dtype: float16 and float32"):
        index.merge_from(index_factory(D, "IVF6,PQ3x4,Refine"))


def in_bytes(spec, metric, k_factor=300):
    """An index of 300 vectors in bytes, the last of length 0 for cosine, and one of the same bytes alone."""
    index = index_factory(D, f"{spec},Refine(SQ8)", metric=metric)
    with pytest.raises(NotTrainedError):
        index.add(vectors(1))
    index.train(vectors(400))
    x = vectors(300, 1)
    if metric == "cosine":
        x[299] = 0
    index.add(x)
    index.k_factor = k_factor
    plain = IndexSQ(D, metric=metric)
    plain.train(vectors(400))
    plain.add(x)
    return index, plain


@pytest.mark.parametrize("spec", SPECS)
def test_bytes_are_ranked_as_an_index_of_bytes_would(spec, metric, monkeypatch):
    index, plain = in_bytes(spec, metric)
    q = vectors(20, 2)
    q[7] = 0
    some = np.arange(1, 300, 5)
    radius = float(plain.search(q, 60).distances[0, 40])
    for _ in range(2):
        for kernel in ("reference", ""):
            monkeypatch.setenv("IVFPQ_KERNEL", kernel)
            assert same(index.search(q, 9, nprobe=6), plain.search(q, 9))
            assert same(index.search(q[:7], 300, nprobe=6), plain.search(q[:7], 300))
            assert same(index.search(q, 9, nprobe=6, ids=some), plain.search(q, 9, ids=some))
            assert same(index.range_search(q, radius, nprobe=6), plain.range_search(q, radius))
        for i in plain.ids[[0, -1]].tolist():
            assert same([index.reconstruct(i)], [plain.reconstruct(i)])
        for each in (index, plain):
            each.remove_ids([299, 4])
        index = load_again(index)  # in whose lists nothing tells that there was a zero vector
    assert index.code_size == index.base.code_size + D
    assert index.bytes_per_vector == index.base.bytes_per_vector + D + 4 * (metric != "ip") + 3


def load_again(index):
    return IndexRefine.from_state(*index.state())


def test_an_index_of_bytes_is_changed_and_merged(metric):
    index, _ = in_bytes("IVF6,PQ3x4", metric)
    q, x = vectors(9, 6), vectors(5, 7)
    assert index.remove_ids([4, 200, 10**9]) == 2
    index.add_with_ids(x[:3], [300, 2**40, 200])
    index.update([7, 2**40], x[3:])
    other = load_again(index)
    other.reset()
    other.add_with_ids(x, np.arange(1000, 1005))
    index.merge_from(other)
    assert index.ntotal == index.base.ntotal == 306 and other.ntotal == 5
    again = load_again(other)
    again.reset()
    everything = np.sort(index.ids)
    want = vectors(300, 1)
    if metric == "cosine":
        want[299] = 0
    known = dict(enumerate(want)) | dict(zip([300, 2**40, 200], x[:3], strict=True))
    known |= dict(zip([7, 2**40, *range(1000, 1005)], [*x[3:], *x], strict=True))
    again.add_with_ids(np.array([known[i] for i in everything.tolist()]), everything)
    again.k_factor = index.k_factor
    assert same(index.search(q, 9, nprobe=6), again.search(q, 9, nprobe=6))
    stranger = index_factory(D, "IVF6,PQ3x4,Refine(SQ8)", metric=metric)
    stranger.base = load_again(other).base  # trained as one, but for the bytes
    with pytest.raises(NotTrainedError):
        index.merge_from(stranger)
    stranger = load_again(again)
    stranger.reset()
    stranger.store.install(2 * index.store.codec.pq.codebooks)
    with pytest.raises(ValueError, match="different codebooks: only indexes trained as one"):
        index.merge_from(stranger)


def test_bytes_find_nearly_all():
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(1000, 64)).astype(F), rng.normal(size=(50, 64)).astype(F)
    index, flat = index_factory(64, "PQ16x4,Refine(SQ8)"), IndexFlat(64)
    index.train(x)
    for each in (index, flat):
        each.add(x)
    index.k_factor = 40
    truth = flat.search(q, 10).ids
    assert knn_recall_at_k(index.base.search(q, 10).ids, truth) < 0.7
    assert knn_recall_at_k(index.search(q, 10).ids, truth) > 0.97
    assert index.tune(q, 10, 0.95).found >= 0.95  # by what the bytes stand for


@pytest.fixture
def compiled(monkeypatch):
    """Only compiled code makes sketches: it runs here even where the others are tried without it."""
    if kernels.active() == "reference":
        monkeypatch.delenv("IVFPQ_KERNEL", raising=False)
    if kernels.active() == "reference":
        pytest.skip("numba is not installed")


def sketched(index):
    """Whether its last search used sketches."""
    return bool(index._compiled._task["sketch"][0])


@pytest.mark.parametrize("part", ["Refine", "Refine(SQfp16)"])
def test_sketches_are_made_where_they_are_wanted(part, tmp_path, compiled):
    index = index_factory(D, f"PCA6,IVF6,PQ3x4,{part}")
    index.train(vectors(400))
    index.add(vectors(300, 1))
    save(index, tmp_path / "a.index")
    mapped, q = load(tmp_path / "a.index", mmap=True), vectors(9, 2)
    want = index.search(q, 5, nprobe=3)
    assert sketched(index) == (part == "Refine") and index.sketch is mapped.sketch is None
    assert same(mapped.search(q, 5, nprobe=3), want) and not sketched(mapped)
    mapped.sketch = True
    assert same(mapped.search(q, 5, nprobe=3), want) and sketched(mapped)
    index.sketch = False
    assert same(index.search(q, 5, nprobe=3), want) and not sketched(index)
    save(mapped, tmp_path / "b.index")
    assert load(tmp_path / "b.index").sketch is True and load(tmp_path / "a.index").sketch is None
    mapped.add(vectors(5, 3))
    index.add(vectors(5, 3))
    assert same(mapped.search(q, 5, nprobe=3), index.search(q, 5, nprobe=3)) and sketched(mapped)


@pytest.mark.skipif(
    not SMAPS.exists() or "VmFlags" not in SMAPS.read_text(), reason="this system does not tell how files are mapped"
)
def test_a_file_is_read_ahead_only_as_long_as_there_are_no_sketches(tmp_path, compiled):
    index, q = index_factory(512, "Flat,Refine"), np.ones((1, 512), F)
    index.add(np.random.default_rng(0).normal(size=(50, 512)))
    save(index, tmp_path / "a.index")
    mapped = load(tmp_path / "a.index", mmap=True)

    def at_random():
        """How many mappings of the file are not read ahead: "rr" among their flags."""
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text(), flags=re.MULTILINE)
        return sum(bool(re.search(r"^VmFlags:.* rr\b", p, re.MULTILINE)) for p in parts if str(tmp_path) in p)

    want = mapped.search(q, 3)
    assert at_random() == 0
    mapped.sketch = True
    assert same(mapped.search(q, 3), want) and at_random() == 1  # the vectors alone
    assert same(mapped.search(q, 3), index.search(q, 3))


def test_a_sketch_is_true_false_or_none_and_not_of_bytes():
    index = IndexRefine(IndexFlat(D), sketch=False)
    for wrong in (1, "yes", 0.0):
        with pytest.raises(TypeError, match="sketch must be True, False or None"):
            index.sketch = wrong
    assert index.sketch is False
    with pytest.raises(ValueError, match="sketch=True is for float vectors"):
        IndexRefine(IndexFlat(D), dtype="uint8", sketch=True)
    IndexRefine(IndexFlat(D), dtype="uint8", sketch=False)


def test_mapped_vectors_stay_in_the_file(tmp_path):
    index = index_factory(D, "PCA6,IVF6,PQ3x4,Refine")
    index.train(vectors(400))
    index.add(vectors(300, 1))
    save(index, tmp_path / "a.index")
    mapped = load(tmp_path / "a.index", mmap=True)
    array = mapped.store.view.blocks
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    assert array is not None
    assert same(mapped.search(vectors(9, 2), 5, nprobe=3), index.search(vectors(9, 2), 5, nprobe=3))
    mapped.add(vectors(1))
    assert mapped.ntotal == 301


def test_what_does_not_fit_is_refused():
    full = IndexFlat(D)
    full.add(vectors(3))
    with pytest.raises(ValueError, match="base must be empty"):
        IndexRefine(full)
    with pytest.raises(TypeError, match="got IndexRefine"):
        IndexRefine(IndexRefine(IndexFlat(D)))
    with pytest.raises(ValueError, match="dtype must be one of 'float32', 'float16', 'uint8', got 'int8'"):
        IndexRefine(IndexFlat(D), dtype="int8")
    with pytest.raises(ValueError, match="k_factor must be at least 1"):
        IndexRefine(IndexFlat(D), k_factor=0)
    index = IndexRefine(IndexFlat(D))
    with pytest.raises(TypeError, match="got IndexFlat"):
        index.merge_from(full)
    with pytest.raises(KeyError, match="id 3 is not in the index"):
        index.reconstruct(3)
    with pytest.raises(AttributeError):
        index.nprob = 3
    index.base.add(vectors(1))
    with pytest.raises(RuntimeError, match="behind the back"):
        index.search(vectors(1), 1)


def test_searching_while_another_thread_writes_sees_before_or_after():
    """Ten copies of the query come, move far away, and go, forty times: nobody may see four, or a mixed distance."""
    index = IndexRefine(IndexIVFPQ(D, 6, 3, 4), k_factor=2)
    index.train(vectors(400))
    index.add(vectors(300, 1))
    here, far = np.full((10, D), 50, F), np.full((10, D), 60, F)
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                found = index.search(here[:1], 40, nprobe=6)
            except RuntimeError as error:
                wrong.append(error)
                return
            copies = found.distances[0, found.ids[0] >= 1000]
            if len(copies) not in (0, 10) or len(set(copies.tolist())) > 1:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(40):
        ids = 1000 + 10 * step + np.arange(10)
        index.add_with_ids(here, ids)
        index.update(ids, far)
        index.remove_ids(ids)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong and index.ntotal == index.base.ntotal == 300
