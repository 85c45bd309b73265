"""An index is copied as a value, shares no memory that others can write to, and is saved as files are."""

import copy
import os
import pickle
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from oracles import same

from ivfpq import IndexFileError, IndexFlat, IndexIVFPQ, index_factory, load, save
from ivfpq.faiss_compat import FaissIndex
from ivfpq.io import from_bytes, to_bytes
from ivfpq.transforms import PCA

F = np.float32
D = 8
SPECS = [
    *("Flat", "PQ2x3", "IVF3,PQ2x3", "IVF3,RQ2x3", "PCA4,IVF3,PQ2x3", "OPQ2_4,IVF3,PQ2x3,Refine"),
    *("IVF3,SQ8", "PCA4,SQ8,Refine", "IVF3,PQ2x3,Refine(SQ8)"),
]


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D)).astype(F)


def made(spec, metric="l2"):
    index = index_factory(D, spec, metric=metric)
    index.train(vectors(80))
    index.add(vectors(40, 1))
    index.metadata = {"names": ["a", "b"]}
    return index


def unpickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301, our own bytes


def searched(index):
    return index.search(vectors(3, 2), 4).ids


@pytest.mark.parametrize("spec", SPECS)
def test_copies_are_independent(spec):
    index = made(spec)
    want = index.search(vectors(5, 3), 6)
    for copied in (copy.copy(index), copy.deepcopy(index), unpickled(index)):
        assert type(copied) is type(index) and repr(copied) == repr(index)
        assert same(copied.search(vectors(5, 3), 6), want) and copied.metadata == index.metadata
        copied.metadata["more"] = 1
        copied.add(vectors(3, 4))
        copied.remove_ids([0, 1])
        assert same(index.search(vectors(5, 3), 6), want) and "more" not in index.metadata
        copied.reset()
        copied.train(vectors(90, 5))
    assert same(index.search(vectors(5, 3), 6), want)


def test_other_processes_take_an_index():
    indexes = [made("IVF3,PQ2x3"), made("PCA4,Flat,Refine")]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for index in indexes:
            np.testing.assert_array_equal(pool.submit(searched, index).result(), searched(index))


def test_parts_are_copied_too():
    pca = PCA(D, 4)
    pca.train(vectors(80), np.random.default_rng(0))
    want = pca.apply(vectors(5))
    for copied in (copy.copy(pca), copy.deepcopy(pca), unpickled(pca)):
        assert same([copied.apply(vectors(5))], [want])
    view = made("IVF3,PQ2x3").lists.view
    copied = copy.deepcopy(view)
    assert copied.addresses["blocks"] == copied.blocks.ctypes.data != view.blocks.ctypes.data


def test_the_adapter_of_faiss_is_copied():
    index = FaissIndex(D, "IVF3,PQ2x3np", metric="cosine", nprobe=2)
    index.train(vectors(80))
    index.add(vectors(40, 1))
    want = index.search(vectors(5, 3), 6)
    for copied in (copy.copy(index), copy.deepcopy(index), unpickled(index)):
        assert same(copied.search(vectors(5, 3), 6), want)
        copied.add(vectors(5, 4))
        assert index.ntotal == 40 and copied.ntotal == 45


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_that_is_handed_out_changes_the_index(spec):
    index = made(spec)
    q = vectors(5, 3)
    want = index.search(q, 6)
    for inside in (index, getattr(index, "index", None), getattr(index, "base", None)):
        arrays = [getattr(inside, "centroids", None), getattr(getattr(inside, "pq", None), "codebooks", None)]
        arrays += [a for t in getattr(inside, "transforms", ()) for a in (t.A, t.b)]
        for array in arrays:
            if array is not None:
                with pytest.raises(ValueError, match="read-only"):
                    array[:] = 0
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True
    index.reconstruct(3)[:] = 0
    assert same(index.search(q, 6), want)


def test_nothing_that_was_given_changes_the_index():
    rng = np.random.default_rng(0)
    centroids, codebooks = rng.normal(size=(3, D)).astype(F), rng.normal(size=(2, 8, 4)).astype(F)
    index, x = IndexIVFPQ(D, 3, 2, 3), vectors(40, 1)
    index.install(centroids, codebooks)
    index.add(x)
    flat = IndexFlat(D)
    flat.add(x)
    pca = PCA(D, 4)
    pca.train(vectors(80), rng)
    A, b = pca.A.copy(), pca.b.copy()
    other = PCA(D, 4)
    other.install(A, b)
    y = other.apply(x)
    want, exact = index.search(vectors(5, 3), 6, nprobe=3), flat.search(vectors(5, 3), 6)
    for array in (centroids, codebooks, A, b):
        array[:] = 7
    before, x[:] = x.copy(), 0
    assert same(index.search(vectors(5, 3), 6, nprobe=3), want) and same(flat.search(vectors(5, 3), 6), exact)
    assert same([other.apply(before)], [y])


@pytest.mark.parametrize("metadata", [{0: "a.jpg", "0": "b.jpg"}, {0: 1}, {"a": (1, 2)}, {"a": {1: 2}}, {None: 1}])
def test_metadata_that_would_come_back_otherwise_is_refused(metadata, tmp_path):
    with pytest.raises(ValueError, match="metadata would not come back"):
        save(made("Flat"), tmp_path / "a", metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_permissions_and_a_link_its_target(tmp_path):
    path, link = tmp_path / "a.index", tmp_path / "link"
    save(made("Flat"), path)
    path.chmod(0o600)
    link.symlink_to("a.index")
    save(made("PQ2x3"), link)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path).ntotal == load(link).ntotal == 40
    assert sorted(tmp_path.iterdir()) == [path, link]


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("a" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    save(made("Flat"), path)
    assert load(path).ntotal == 40


def test_the_message_names_the_missing_folder(tmp_path):
    index = FaissIndex(D, "Flat")
    for write in (lambda path: save(made("Flat"), path), index.save):
        with pytest.raises(FileNotFoundError) as error:
            write(tmp_path / "no" / "a.index")
        assert error.value.filename == str(tmp_path / "no") and ".tmp" not in str(error.value)
        with pytest.raises(IsADirectoryError):
            write(tmp_path)


def test_what_killed_saves_left_behind_is_removed(tmp_path):
    """And nothing else: not what another process is writing, nor what belongs to another file."""
    script = (
        "import sys, os, numpy as np; from ivfpq import IndexFlat, save, atomic_file\n"
        "index = IndexFlat(4); index.add(np.ones((5, 4)))\n"
        "os.fsync = lambda _: (print('there', flush=True), sys.stdin.read())\n"
        "save(index, sys.argv[1])"
    )
    path, other = tmp_path / "a.index", tmp_path / "b.index"
    processes = []
    for target in (path, path, other):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"there\n"
        processes.append(process)
    assert len(list(tmp_path.iterdir())) == 3
    processes[0].kill()
    processes[2].kill()
    processes[0].wait(), processes[2].wait()
    save(made("Flat"), path)
    assert len(list(tmp_path.iterdir())) == 3  # the file, what process 1 is writing, and what b.index left
    processes[1].kill()
    processes[1].wait()
    save(made("Flat"), path)
    save(made("Flat"), other)
    assert sorted(tmp_path.iterdir()) == [path, other]
    for process in processes:
        process.stdin.close(), process.stdout.close()


def test_odd_inputs_work_or_get_a_sentence():
    import pandas
    from scipy.sparse import csr_matrix

    index, x = made("Flat"), vectors(4, 7)
    index.add(pandas.Series(list(x)))
    assert same([index.reconstruct(41)], [x[1]])
    assert set(index.search(x, 3, ids={1, 2, 41}).ids.ravel().tolist()) == {1, 2, 41}
    assert index.remove_ids({41, 42, 10**6}) == 2
    for wrong, message in [
        (csr_matrix(x), "x must be dense, got a sparse csr_matrix"),
        ([[1, 2], [3]], "x must be an array"),
        (None, r"x must hold real numbers, got dtype object \(NoneType of NoneType\)"),
        ({1: 2}, r"x must hold real numbers, got dtype object \(dict of dict\)"),
        (np.ma.masked_greater(x, 0), "x must not have masked values"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            index.add(wrong)
    for wrong, message in [
        (np.ma.masked_less(np.ones((4, 3), int), 2), "truth must not have masked values"),
        ([[1, 2, 3], [1]] * 2, "truth must be an array, but what was given makes none"),
        ({1, 2}, r"truth must be ids \(4, 3\), got object \(\)"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            index.tune(x, 3, 0.5, truth=wrong)
    for verb in (lambda n: index.search(x, n), lambda n: index.search(x, 3, nprobe=n), lambda n: index.tune(x, n, 0.5)):
        with pytest.raises(ValueError, match=r"must be from 1 to 9223372036854775807, got 1180591620717411303424"):
            verb(2**70)
    with pytest.raises(TypeError, match="ids must be in an order, which a set has not"):
        index.add_with_ids(x, {1000, 1001, 1002, 1003})


@pytest.mark.parametrize("kernel", ["reference", "portable"])
def test_an_atexit_handler_can_search(kernel):
    script = (
        "import atexit, numpy as np, ivfpq; from ivfpq import kernels, threads\n"
        "x = np.random.default_rng(0).normal(size=(3000, 16)); i = ivfpq.index_factory(16, 'IVF4,PQ4x4,Refine')\n"
        "i.train(x); i.add(x); want = i.search(x, 3).ids\n"
        "def late():\n    i.add(x); i.remove_ids(range(3000, 6000)); print((i.search(x, 3).ids == want).all())\n"
        "atexit.register(late)"
    )
    environment = {**os.environ, "IVFPQ_KERNEL": kernel, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] and done.stderr == ""


def test_removing_one_copies_nothing_that_is_large():
    import tracemalloc

    index = index_factory(512, "IVF16,PQ8,Refine")
    x = np.random.default_rng(0).normal(size=(20_000, 512)).astype(F)
    index.train(x[:2000])
    index.add(x)
    index.remove_ids([0])
    index.update([1], x[:1])  # the first changes find the places of the ids, and make room for later ones
    tracemalloc.start()
    try:
        for id in range(10, 40):
            index.remove_ids([id])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 10
    assert index.ntotal == 20_000 - 31
    assert set(index.search(x[10:40], 1, nprobe=16).ids.ravel().tolist()).isdisjoint(range(10, 40))
    assert index.search(x[40:60], 1, nprobe=16).ids.ravel().tolist() == list(range(40, 60))


@pytest.mark.parametrize("metric", ["cosine"])
@pytest.mark.parametrize("spec", [*SPECS, "PCA4,Flat", "Flat,Refine"])
def test_a_zero_vector_has_the_similarity_0(spec, metric, tmp_path):
    """CASES, the index, 4."""
    index = index_factory(D, spec, metric=metric)
    x = np.abs(vectors(200, 1))  # all similarities between these are large
    x[17] = 0
    index.train(np.abs(vectors(300)))
    index.add(x)
    save(index, tmp_path / "a")
    for one in (index, load(tmp_path / "a"), copy.deepcopy(index)):
        found = one.search(np.abs(vectors(4, 2)), 200, nprobe=3)
        assert (found.ids[:, -1] == 17).all() and (found.distances[:, -1] == 0).all()
        lims, distances, ids = one.range_search(np.abs(vectors(4, 2)), -0.1, nprobe=3)
        assert (np.diff(lims) == 200).all() and (distances[ids == 17] == 0).all()
        asked = one.search(np.zeros((1, D)), 5, nprobe=1)
        assert asked.ids.tolist() == [[0, 1, 2, 3, 4]] and (asked.distances == 0).all()
        assert one.search(np.zeros((1, D)), 2, ids=[30, 17, 9]).ids.tolist() == [[9, 17]]
        assert (one.reconstruct(17) == 0).all()
        one.update([17], x[:1])
        assert one.ntotal == 200 and one.search(x[:1], 1, nprobe=3).distances[0, 0] > 0.5
        one.update([17], np.zeros((1, D)))
        assert one.remove_ids([17]) == 1 and one.ntotal == 199
        assert 17 not in one.search(np.abs(vectors(4, 2)), 200, nprobe=3).ids


@pytest.mark.parametrize("place", ["far", "copies"])
def test_far_from_the_origin_little_is_computed_twice(place, monkeypatch):
    """CASES, the index, 6: the answers are right, and only few pairs are left to compute as defined."""
    from ivfpq import exhaustive

    x = vectors(3000, 1) + F(1000) if place == "far" else np.repeat(vectors(1, 1), 3000, axis=0)
    q = vectors(50, 2) + (F(1000) if place == "far" else F(0))
    index = IndexFlat(D)
    index.add_with_ids(x, np.arange(3000)[::-1])
    pairs, real = [], exhaustive.pair_distances_at

    def counted(x, i, y, j, metric):
        pairs.append(len(i))
        return real(x, i, y, j, metric)

    monkeypatch.setattr(exhaustive, "pair_distances_at", counted)
    monkeypatch.setattr("ivfpq.screening.MANY", 10_000)
    found = index.search(q, 5)
    assert sum(pairs) < 50 * 3000 / 10
    d = real(q, np.repeat(np.arange(50), 3000), x, np.tile(np.arange(3000), 50), "l2").reshape(50, 3000)
    ids = np.arange(3000)[::-1]
    for i in range(50):
        order = np.lexsort((ids, d[i]))[:5]
        assert found.ids[i].tolist() == ids[order].tolist()
        assert found.distances[i].tolist() == d[i][order].tolist()


def test_codes_of_whole_vectors_are_bounded_as_tightly_far_from_the_origin():
    """CASES, the index, 6: what tables may be off by goes with how far apart the vectors lie, so few are looked at."""
    from ivfpq.kernels.compiled import CompiledQuantizers

    lengths = []
    for offset in (0, 1000):
        x = vectors(600, 1) + F(offset)
        index = index_factory(D, "PQ2x3")
        index.train(x)
        index.add(x)
        lengths.append(CompiledQuantizers(index._trained()).record["longest_code"][0])
        d = np.square(x[:50, None] - np.stack([index.reconstruct(id) for id in range(600)])).sum(axis=2)
        found = index.search(x[:50], 600)
        assert np.allclose(found.distances, np.take_along_axis(d, found.ids, axis=1), rtol=1e-5)
        assert (np.diff(found.distances, axis=1) >= 0).all()
    assert 0 < lengths[1] < 1.5 * lengths[0]


def test_bytes_that_are_no_index_are_refused():
    with pytest.raises(IndexFileError):
        from_bytes(to_bytes(made("Flat"))[:-1])
