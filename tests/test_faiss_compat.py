"""faiss as the judge. With the same quantizers: the same codes, ids, and distances.

Codes may differ only where two codewords are equally near in float32. Distances agree within TOLERANCE of the largest
distance in play: faiss adds |x - c|^2 + (|y|^2 + 2<c, y>) - 2<x, y>, whose terms are rounded at that size, where we add
squares of differences. Neighbours are compared as `evaluation.check_ref_knn_with_draws` of faiss does: equal, except
among those that the tolerance cannot tell apart.
"""

import sys

import faiss
import numpy as np
import pytest

from ivfpq import IndexFileError, IndexFlat, IndexIVFPQ, from_faiss, index_factory, to_faiss
from ivfpq.distances import normalised
from ivfpq.faiss_compat import FaissIndex

F = np.float32
TOLERANCE = 1e-5


def vectors(n, d=32, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, d)) * 2
    return (centres[rng.integers(20, size=n)] + rng.normal(size=(n, d))).astype(F)


def assert_same_answer(ours, theirs):
    """Both (distances, ids), best first, padded with -1."""
    (D, found), (DF, found_faiss) = ours, theirs
    np.testing.assert_array_equal(found < 0, found_faiss < 0)
    there = found >= 0
    slack = TOLERANCE * np.abs(D[there]).max(initial=1)
    np.testing.assert_allclose(D[there], DF[there], rtol=0, atol=slack)
    for d, i, i_faiss, n in zip(D, found, found_faiss, there.sum(axis=1), strict=True):
        if n == 0:
            continue
        clear = np.abs(d[:n] - d[n - 1]) > 2 * slack  # not tied with the last one, which the cut may have decided
        missing = set(i[:n][clear].tolist()) - set(i_faiss[:n].tolist())
        assert not missing
        for place in np.flatnonzero(i[:n] != i_faiss[:n]):
            other = np.flatnonzero(i[:n] == i_faiss[place])
            assert not len(other) or abs(d[other[0]] - d[place]) <= 2 * slack


def assert_same_codes(ours, theirs, x):
    """Two of our indexes store `x` {id: vector} in the same lists and codes, but for float ties."""
    views = [(index, index.lists.view) for index in (ours, theirs)]
    ids = np.array(sorted(x))
    rows = [index.lists.find(view, ids) for index, view in views]
    assert all((r >= 0).all() for r in rows) and ours.ntotal == theirs.ntotal == len(ids)
    lists, codes = zip(*((v.list_numbers(r), v.codes(r)) for (_, v), r in zip(views, rows, strict=True)), strict=True)
    different = np.flatnonzero((lists[0] != lists[1]) | (codes[0] != codes[1]).any(axis=1))
    assert len(different) <= len(ids) // 500
    for place in different.tolist():
        gaps = [((index.reconstruct(ids[place]).astype(float) - x[ids[place]]) ** 2).sum() for index, _ in views]
        assert lists[0][place] == lists[1][place] and abs(gaps[0] - gaps[1]) <= TOLERANCE * max(gaps)


def faiss_metric(metric):
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


def trained_faiss(metric="l2", nbits=8, M=4, nlist=10, d=32):
    index = faiss.index_factory(d, f"IVF{nlist},PQ{M}x{nbits}np", faiss_metric(metric))
    index.cp.niter = index.pq.cp.niter = 2  # good codes are not the question here
    index.train(vectors(max(600, 1 << nbits), d))
    return index


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("nbits", "M"), [(8, 4), (8, 32), (8, 1), (4, 8), (5, 2), (1, 4), (10, 4), (12, 2)])
def test_codes_ids_and_distances_are_those_of_faiss(metric, nbits, M):
    theirs = trained_faiss(metric, nbits, M)
    ours = from_faiss(theirs)
    assert (ours.d, ours.nlist, ours.M, ours.nbits, ours.metric, ours.ntotal) == (32, 10, M, nbits, metric, 0)
    assert ours.code_size == theirs.code_size
    x, q, ids = vectors(2000, seed=1), vectors(50, seed=2), np.random.default_rng(0).permutation(5000)[:2000]
    theirs.add_with_ids(x, ids)
    ours.add_with_ids(x, ids)
    assert_same_codes(ours, from_faiss(theirs), dict(zip(ids.tolist(), x, strict=True)))
    for nprobe in (1, 3, 10):
        theirs.nprobe = nprobe
        assert_same_answer(ours.search(q, 20, nprobe=nprobe), theirs.search(q, 20))
        radius = float(ours.search(q, 20, nprobe=nprobe).distances[0, 9])
        nudged = radius * (1 + 1e-4)
        lims, _, found = ours.range_search(q, nudged, nprobe=nprobe)
        lims_faiss, d_faiss, found_faiss = theirs.range_search(q, nudged)
        for i in range(len(q)):
            mine = set(found[lims[i] : lims[i + 1]].tolist())
            part = slice(lims_faiss[i], lims_faiss[i + 1])
            sure = np.abs(d_faiss[part] - nudged) > 1e-3 * abs(nudged) + 1e-3
            assert set(found_faiss[part][sure].tolist()) <= mine
            assert len(mine) <= part.stop - part.start + np.count_nonzero(~sure) + 1
    theirs.set_direct_map_type(faiss.DirectMap.Hashtable)
    for id in ids[:20].tolist():
        np.testing.assert_array_equal(ours.reconstruct(id), theirs.reconstruct(id))


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_our_training_searched_by_faiss(metric):
    ours = IndexIVFPQ(32, 10, 4, 6, metric=metric, nprobe=4)
    ours.train(vectors(1000))
    ours.add_with_ids(vectors(500, seed=1), np.arange(500) * 2 + 2**33)
    theirs, q = to_faiss(ours), vectors(30, seed=2)
    assert (theirs.ntotal, theirs.nprobe) == (500, 4)
    assert theirs.metric_type == faiss_metric("ip" if metric == "ip" else "l2")
    D, found = theirs.search(normalised(q) if metric == "cosine" else q, 15)
    assert_same_answer(ours.search(q, 15), (1 - D / 2 if metric == "cosine" else D, found))
    again = from_faiss(theirs)
    for name, array in again.state()[1].items():
        np.testing.assert_array_equal(array, ours.state()[1][name])
    # faiss may go on with it: what it adds gets the codes that we give.
    x = vectors(200, seed=3)
    theirs.add_with_ids(normalised(x) if metric == "cosine" else x, np.arange(200))
    ours.add_with_ids(x, np.arange(200))
    stored = {
        **dict(zip((np.arange(500) * 2 + 2**33).tolist(), vectors(500, seed=1), strict=True)),
        **dict(enumerate(x)),
    }
    if metric == "cosine":
        stored = {id: normalised(vector[None])[0] for id, vector in stored.items()}
    assert_same_codes(ours, from_faiss(theirs), stored)


@pytest.mark.parametrize(("spec", "kind"), [("PQ4x6", faiss.IndexPQ), ("RQ4x6", faiss.IndexResidualQuantizer)])
def test_codes_without_lists_are_what_faiss_calls_so(spec, kind):
    ours = index_factory(32, spec)
    assert type(to_faiss(ours)) is kind and not to_faiss(ours).is_trained
    ours.train(vectors(400))
    ours.add(vectors(300, seed=1))
    theirs = to_faiss(ours)
    assert type(theirs) is kind and (theirs.ntotal, theirs.code_size) == (300, ours.code_size)
    np.testing.assert_allclose(theirs.reconstruct(7), ours.reconstruct(7), atol=1e-5)
    theirs.add(vectors(200, seed=2))
    ours.add(vectors(200, seed=2))
    if "RQ" not in spec:  # whose beam here is wider than there
        assert_same_codes(
            ours, from_faiss(theirs), dict(enumerate(np.vstack([vectors(300, seed=1), vectors(200, seed=2)])))
        )


def test_an_untrained_and_an_empty_index_go_both_ways():
    ours = from_faiss(to_faiss(IndexIVFPQ(32, 10, 4, 6, nprobe=3)))
    assert not ours.is_trained and (ours.nlist, ours.M, ours.nbits, ours.nprobe) == (10, 4, 6, 3)
    assert from_faiss(to_faiss(from_faiss(trained_faiss()))).ntotal == 0


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("ids", [np.arange(300), np.arange(300)[::-1], np.arange(300) * 7 + 2**40])
def test_flat_both_ways(metric, ids):
    x, q = vectors(300), vectors(20, seed=1)
    ours = IndexFlat(32, metric=metric)
    ours.add_with_ids(x, ids)
    theirs = to_faiss(ours)
    assert isinstance(theirs, faiss.IndexFlat) == (ids[0] == 0 and ids[1] == 1)
    assert_same_answer(ours.search(q, 10), theirs.search(q, 10))
    again = from_faiss(theirs)
    assert again.metric == metric
    for name, array in again.state()[1].items():
        np.testing.assert_array_equal(array, ours.state()[1][name])


def test_what_ours_have_not_is_refused():
    with pytest.raises(TypeError, match="IndexHNSW"):
        from_faiss(faiss.IndexHNSWFlat(8, 4))
    with pytest.raises(ValueError, match="by tables"):
        symmetric = faiss.IndexPQ(8, 4, 4)
        symmetric.search_type = faiss.IndexPQ.ST_SDC
        from_faiss(symmetric)
    with pytest.raises(ValueError, match="by_residual=False"):
        index = trained_faiss()
        index.by_residual = False
        from_faiss(index)
    with pytest.raises(ValueError, match="metric that ours have not"):
        from_faiss(faiss.IndexFlat(8, faiss.METRIC_L1))
    with pytest.raises(ValueError, match="coarse quantizer must be flat"):
        from_faiss(faiss.index_factory(16, "IVF32_HNSW8,PQ4"))
    with pytest.raises(TypeError, match="got dict"):
        to_faiss({})
    repeated = faiss.IndexIDMap2(faiss.IndexFlatL2(8))
    repeated.add_with_ids(np.zeros((2, 8), F), np.array([3, 3]))
    with pytest.raises(ValueError, match="3 comes 2 times"):
        from_faiss(repeated)


def test_ivfpq_alone_does_not_load_faiss():
    import subprocess

    code = "import sys, ivfpq; assert 'faiss' not in sys.modules; ivfpq.to_faiss; assert 'faiss' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("spec", ["IVF10,PQ4x6np", "Flat", "PQ4x6", "PCA16,IVF10,PQ4x6np"])
def test_adapter_has_our_verbs_and_conventions(metric, spec, tmp_path):
    x, q, ids = vectors(1000), vectors(9, seed=1), np.arange(1000) * 3
    index = FaissIndex(32, spec, metric=metric, nprobe=4)
    assert not index.is_trained or spec == "Flat"
    index.train(x)
    index.add_with_ids(x, ids)
    assert (index.d, index.ntotal, index.nlist) == (32, 1000, 10 if "IVF" in spec else None)
    assert index.code_size == (128 if spec == "Flat" else 3)
    found = index.search(q, 5)
    if not spec.startswith("PCA"):
        ours = from_faiss(index.faiss_index)
        D, ids_found = ours.search(normalised(q) if metric == "cosine" else q, 5, nprobe=4)
        assert_same_answer((1 - D / 2 if metric == "cosine" else D, ids_found), found)
    worst = np.inf if metric == "l2" else -np.inf
    if spec == "PQ4x6":
        with pytest.raises(ValueError, match="faiss cannot restrict the search of an IndexPQ to ids"):
            index.search(q, 5, ids=[3, 6])
    else:
        few = index.search(q, 5, ids=[3, 6], nprobe=10)
        assert (np.sort(few.ids[:, :2]) == [3, 6]).all()
        assert (few.ids[:, 2:] == -1).all() and (few.distances[:, 2:] == worst).all()
    assert index.nprobe == 4
    index.save(tmp_path / "a.faiss")
    assert [p.name for p in tmp_path.iterdir()] == ["a.faiss"]
    again = FaissIndex.load(tmp_path / "a.faiss", metric=metric)
    assert (again.metric, again.ntotal, again.nlist) == (metric, 1000, index.nlist)
    for one, two in zip(again.search(q, 5, nprobe=4), found, strict=True):
        np.testing.assert_array_equal(one, two)
    assert again.remove_ids([*ids[:400], 1, 2]) == 400
    left = again.search(q, 1000, nprobe=10).ids
    assert again.ntotal == 600
    assert all(set(row[row >= 0]) == set(ids[400:]) for row in left)


def test_adapter_refuses_what_does_not_fit(tmp_path):
    index = FaissIndex(8, "Flat")
    with pytest.raises(ValueError, match=r"x must have shape \(n, 8\)"):
        index.add_with_ids(np.zeros((2, 9)), [0, 1])
    with pytest.raises(ValueError, match="distinct"):
        index.add_with_ids(np.zeros((2, 8)), [1, 1])
    index.save(tmp_path / "a")
    with pytest.raises(ValueError, match="holds an index for 'l2', not for 'ip'"):
        FaissIndex.load(tmp_path / "a", metric="ip")
    (tmp_path / "b").write_bytes(b"nothing of the kind")
    with pytest.raises(IndexFileError, match="b: faiss cannot read it"):
        FaissIndex.load(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        FaissIndex.load(tmp_path / "c")


@pytest.mark.realdata
def test_an_index_that_others_published_loads_and_answers_as_faiss_does(testdata):
    theirs = faiss.read_index(str(testdata / "published_voc2012_ivf100_pq8.faiss"))
    ours = from_faiss(theirs)
    assert (ours.ntotal, ours.d, ours.nlist, ours.M, ours.nbits) == (17125, 2048, 100, 8, 8)
    rng = np.random.default_rng(0)
    view = ours.lists.view
    stored = view.ids(view.rows())
    near = np.stack([ours.reconstruct(id) for id in rng.choice(stored, 40).tolist()])
    q = near + rng.normal(size=near.shape).astype(F) * near.std() / 2
    for nprobe in (1, 8):
        theirs.nprobe = nprobe
        assert_same_answer(ours.search(q, 20, nprobe=nprobe), theirs.search(q, 20))
    q = np.maximum(q, 0)
    theirs.reset()
    copied, ids = from_faiss(theirs), np.arange(40)
    theirs.add_with_ids(q, ids)
    copied.add_with_ids(q, ids)
    assert_same_codes(copied, from_faiss(theirs), dict(enumerate(q)))


SPECS = [
    "PQ4x6np",
    "PQ8x4np",
    "RQ4x6",
    "OPQ4_16,PQ4x6np",
    "PCA16,RQ3x5,Refine(SQfp16)",
    "IVF10,RQ4x6",
    "PCA16,IVF10,PQ4x6np",
    "OPQ4_16,IVF10,PQ4x6np",
    "L2norm,PCA16,IVF10,RQ3x5",
    "PCA16,Flat",
    "L2norm,Flat",
    "Flat,RFlat",
    "IVF10,PQ4x6np,RFlat",
    "OPQ4_16,IVF10,PQ4x6np,Refine(SQfp16)",
    "PCA16,IVF10,RQ3x5,RFlat",
    "PCA16,Flat,RFlat",
    "SQ8",
    "IVF10,SQ8",
    "PCA16,IVF10,SQ8,RFlat",
    "PCA16,IVF10,PQ4x6np,Refine(SQ8)",
    "PCA16,Flat,Refine(SQ8)",
]


def quick(theirs):
    """Fewer rounds of training: good codes are not the question here."""
    inner = theirs.base_index if isinstance(theirs, faiss.IndexRefine) else theirs
    inner = faiss.downcast_index(inner)
    for i in range(inner.chain.size() if isinstance(inner, faiss.IndexPreTransform) else 0):
        transform = faiss.downcast_VectorTransform(inner.chain.at(i))
        if isinstance(transform, faiss.OPQMatrix):
            transform.niter = 2
    return theirs


def set_nprobe(index, nprobe, spec):
    if "IVF" in spec:
        inner = index.base_index if isinstance(index, faiss.IndexRefine) else index
        faiss.extract_index_ivf(inner).nprobe = nprobe


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("spec", SPECS)
def test_nested_indexes_of_faiss_answer_the_same_here(metric, spec):
    theirs = quick(faiss.index_factory(32, spec, faiss_metric(metric)))
    assert from_faiss(theirs).is_trained == (spec in ("L2norm,Flat", "Flat,RFlat"))
    theirs.train(vectors(1000))
    x, q = vectors(600, seed=1), vectors(30, seed=2)
    theirs.add(x)
    if isinstance(theirs, faiss.IndexRefine):
        theirs.k_factor = 5
    ours = from_faiss(theirs)
    assert (ours.d, ours.metric, ours.ntotal) == (32, metric, 600)
    set_nprobe(theirs, 4, spec)
    assert_same_answer(ours.search(q, 10, nprobe=4), theirs.search(q, 10))
    for i in range(0, 600, 97):
        # A transform of faiss adds in float32, in its own order, there and back.
        np.testing.assert_allclose(ours.reconstruct(i), reconstructed(theirs, i), atol=1e-4)
    # And what is added here gets the codes that faiss gives it.
    again = from_faiss(theirs)
    again.reset()
    again.add(x)
    if "RQ" not in spec:  # whose beam here is wider than there
        mine, other = ours.search(q, 10, nprobe=4), again.search(q, 10, nprobe=4)
        assert np.mean(mine.ids == other.ids) > 0.99


def reconstructed(theirs, i):
    inner = theirs.base_index if isinstance(theirs, faiss.IndexRefine) else theirs
    if isinstance(theirs, faiss.IndexRefine):
        return faiss.downcast_index(theirs.refine_index).reconstruct(i)
    ivf = faiss.try_extract_index_ivf(inner)
    if ivf is not None:
        ivf.make_direct_map()
    return inner.reconstruct(i)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("spec", [s.replace("np", "") for s in SPECS])
@pytest.mark.parametrize("ids", [np.arange(400), np.random.default_rng(5).permutation(2000)[:400] + 2**33])
def test_our_nested_indexes_answer_the_same_in_faiss(metric, spec, ids):
    ours = index_factory(32, spec, metric=metric)
    ours.train(vectors(1000))
    ours.add_with_ids(vectors(400, seed=1), ids)
    if "IVF" in spec:
        ours.nprobe = 4
    theirs, q = to_faiss(ours), vectors(30, seed=2)
    assert (theirs.d, theirs.ntotal, theirs.is_trained) == (32, 400, True)
    D, found = theirs.search(normalised(q) if metric == "cosine" else q, 10)
    want = ours.search(q, 10)
    if metric == "cosine" and not spec.startswith("Flat"):
        D = 1 - D / 2
    if metric == "cosine" and "fp16" in spec:  # rounded vectors are not of length 1: inner product and distance differ
        np.testing.assert_allclose(want.distances, D, atol=1e-3)
        assert np.mean(want.ids == found) > 0.9
    else:
        assert_same_answer(want, (D, found))
    again = from_faiss(theirs)
    in_faiss = "ip" if spec.startswith("Flat") else "l2"
    assert type(again) is type(ours) and again.metric == (in_faiss if metric == "cosine" else metric)
    for name, array in again.state()[1].items():
        one, two = (sorted(row.tobytes() for row in np.atleast_1d(a)) for a in (array, ours.state()[1][name]))
        assert one == two


def test_a_pca_that_turns_at_random_still_does_when_it_is_trained_again():
    there = index_factory(8, "PCAR4,IVF2,PQ2x4")
    for spec, rotated in (("PCAR4,Flat", True), ("PCA4,Flat", False)):
        theirs = faiss.index_factory(8, spec)
        theirs.train(vectors(100, 8))
        (pca,) = from_faiss(theirs).transforms
        assert pca.rotated is rotated
    there.train(vectors(100, 8))
    assert from_faiss(to_faiss(there)).transforms[0].rotated


def test_nested_settings_that_ours_have_not_are_refused():
    with pytest.raises(ValueError, match="stores norms"):
        from_faiss(faiss.index_factory(16, "IVF4,RQ2x4_Nfloat"))
    with pytest.raises(ValueError, match="must all have the same bits"):
        from_faiss(faiss.index_factory(16, "IVF4,RQ1x8_1x4"))
    with pytest.raises(ValueError, match="orthonormal"):
        white = faiss.index_factory(16, "PCAW8,Flat")
        white.train(vectors(200, 16))
        from_faiss(white)
    with pytest.raises(TypeError, match="linear transforms and L2 normalisation"):
        from_faiss(faiss.index_factory(16, "ITQ8,Flat"))
    with pytest.raises(TypeError, match=r"8-bit vectors .* faiss here by scalar quantizer of type 1"):
        from_faiss(faiss.index_factory(16, "Flat,Refine(SQ4)"))
    with pytest.raises(TypeError, match=r"8-bit vectors .* faiss here by IndexPQ"):
        from_faiss(faiss.index_factory(16, "Flat,Refine(PQ4)"))


@pytest.mark.parametrize("spec", ["PQ4np,RFlat", "IVF6,PQ4np,RFlat"])  # without polysemous training, which takes long
def test_a_k_factor_reaches_the_refinement_of_faiss(spec, tmp_path):
    theirs = quick(faiss.index_factory(32, spec))
    x, q = vectors(300, seed=1), vectors(20, seed=2)
    theirs.train(vectors(1000))
    theirs.add(x)
    faiss.write_index(theirs, str(tmp_path / "index"))
    index, flat = FaissIndex.load(tmp_path / "index"), IndexFlat(32)
    flat.add(x)
    np.testing.assert_array_equal(index.search(q, 3, nprobe=6, k_factor=100).ids, flat.search(q, 3).ids)
    set_nprobe(theirs, 6, spec)
    for k_factor in (None, 1, 3):
        theirs.k_factor = k_factor or 1
        np.testing.assert_array_equal(index.search(q, 3, nprobe=6, k_factor=k_factor).ids, theirs.search(q, 3)[1])
    with pytest.raises(ValueError, match="k_factor must be at least 1, got 0"):
        index.search(q, 3, k_factor=0)
