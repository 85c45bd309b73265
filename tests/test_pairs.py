"""Numbers of 4 bits lie two in a byte, in memory and in files, and mean what they meant when each had its own."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import KINDS, METRICS, check, made

from ivfpq import IndexFileError, IndexIVFPQ, IndexIVFRQ, index_factory, load, save
from ivfpq.pq import ProductQuantizer

F = np.float32


def unpaired(arrays, M):
    """Arrays of a state as files up to version 3 have them: each number in a byte of its own."""
    old = {}
    for name, array in arrays.items():
        if not name.endswith("pairs"):
            old[name] = array
            continue
        rows = (M + 1) // 2
        halves = np.stack([array[:, :rows] & 15, array[:, :rows] >> 4], axis=2).reshape(len(array), 2 * rows, 64)
        old[name.removesuffix("pairs") + "codes"] = np.concatenate([halves[:, :M], array[:, rows:]], axis=1)
    return old


def saved_as_before(patch, index, path, arrays, version="3"):
    """Write what an older program would have."""
    described = index.state()[0]
    with patch.context() as patched:
        patched.setattr("ivfpq.io.VERSION", version)
        patched.setattr(type(index), "state", lambda self: (described, arrays))
        save(index, path)


def version_of(path):
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["version"]


@pytest.mark.parametrize("M", [1, 2, 3, 8, 33])
def test_pairs_are_the_bits_of_the_numbers_one_after_the_other(M):
    codes = np.random.default_rng(M).integers(0, 16, (50, M)).astype(np.uint8)
    pq = ProductQuantizer(M, M, 4)
    bits = (codes[:, :, None] >> np.arange(4)) & 1
    want = np.packbits(bits.astype(np.uint8).reshape(50, -1), axis=1, bitorder="little")
    np.testing.assert_array_equal(pq.pack(codes), want)
    np.testing.assert_array_equal(pq.to_rows(codes), want)
    np.testing.assert_array_equal(pq.unpack(want), codes)
    terms = np.full((50, 1), 255, np.uint8)
    np.testing.assert_array_equal(pq.from_rows(np.concatenate([want, terms], axis=1)), codes)
    blocks = codes[:48].reshape(3, 16, M).transpose(0, 2, 1)
    np.testing.assert_array_equal(pq.from_rows(pq.to_rows(blocks)), blocks)


@pytest.mark.parametrize("spec", ["IVF2,PQ32x4", "PQ32x4", "IVF2,RQ6x4"])
def test_a_vector_takes_half_the_bytes(spec):
    index = index_factory(32, spec)
    index.train(np.random.default_rng(0).standard_normal((100, 32)))
    index.add(np.random.default_rng(1).standard_normal((64, 32)))
    M, terms = index.M, {"IVF2,PQ32x4": 1, "PQ32x4": 0, "IVF2,RQ6x4": 2}[spec]
    assert index.bytes_per_vector == M // 2 + terms + 3
    assert index.codes_of([5])[1].shape == (1, M)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), metric=st.sampled_from(METRICS), grid=st.booleans())
@settings(max_examples=60, deadline=None)
def test_kernels_one_answer(kind, data, metric, grid):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nlist, M, dsub = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 4, 4, 8]))
    n = draw(st.sampled_from([0, 1, 63, 65, 700, 2500]))
    scale = draw(st.sampled_from([1.0, 1.0, 1e-12, 1e12]))
    index = made(rng, metric, nlist, M, dsub, 4, n, scale=scale, grid=grid, kind=kind)
    x = (3 * rng.standard_normal((draw(st.integers(1, 6)), index.d)) * scale).astype(F)
    x = np.rint(x / F(scale)) * F(scale) if grid else x
    with np.errstate(all="ignore"):
        check(index, x, draw(st.integers(1, 90)), draw(st.integers(1, nlist)))


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize("nlist", [1, 2])
def test_long_lists_that_several_queries_share(nbits, nlist):
    """The nearest list of a query is longer than what is scanned of it at once."""
    rng = np.random.default_rng(nbits)
    index = made(rng, "l2", nlist, 7, 4, nbits, 45_000)
    check(index, rng.standard_normal((6, 28)).astype(F) * 2, 10, nlist)


def test_a_cluster_that_is_stored_last():
    """No sample of the list knows how near its end is."""
    rng = np.random.default_rng(1)
    index = IndexIVFPQ(64, 1, 16, 4)
    index.install(np.zeros((1, 64)), rng.standard_normal((16, 16, 4)))
    codes = rng.integers(0, 15, (20_000, 16)).astype(np.uint8)
    codes[19_950:] = 15
    index.add_codes(np.zeros(20_000, np.int64), codes, np.arange(20_000))
    check(index, index.reconstruct(19_999)[None] + F(0.01), 30, 1)


@pytest.mark.parametrize("spec", ["IVF3,PQ3x4", "PQ2x4", "IVF3,RQ4x4", "PCA4,IVF3,PQ4x4,Refine", "IVF2,PQ1x4"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_of_version_3_is_read(spec, metric, mmap, tmp_path, monkeypatch):
    index, rng = index_factory(6, spec, metric=metric, seed=3), np.random.default_rng(0)
    index.train(rng.standard_normal((60, 6)))
    x = rng.standard_normal((150, 6))
    x[::40] = 0  # zero vectors, which for cosine have a list of their own
    index.add_with_ids(x, rng.permutation(1000)[:150])
    M = int(spec.split("Q")[1][0])
    path, new = tmp_path / "old.index", tmp_path / "new.index"
    arrays = index.state()[1]
    saved_as_before(monkeypatch, index, path, unpaired(arrays, M))
    save(index, new)
    assert version_of(path) == "3" and version_of(new) == ("4" if M > 1 else "3")
    again = load(path, mmap=mmap)
    assert again.state()[1].keys() == arrays.keys()
    for name, array in again.state()[1].items():
        np.testing.assert_array_equal(array, arrays[name])
    again.add(rng.standard_normal((5, 6)))
    assert again.ntotal == 155


def test_a_file_of_version_2_had_no_terms_and_the_same_width_as_pairs_with_terms(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    index = IndexIVFRQ(6, 3, 4, 4)
    index.install(rng.standard_normal((3, 6)), rng.standard_normal((4, 16, 6)))
    index.add(rng.standard_normal((90, 6)))
    arrays = index.state()[1]
    bare = unpaired({**arrays, "pairs": arrays["pairs"][:, :2]}, 4)
    assert bare["codes"].shape == arrays["pairs"].shape
    saved_as_before(monkeypatch, index, tmp_path / "a.index", bare, "2")
    for name, array in load(tmp_path / "a.index").state()[1].items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("old", [False, True])
def test_numbers_above_15_are_refused(old, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    index = IndexIVFPQ(6, 2, 3, 4, metric="ip")
    index.install(rng.standard_normal((2, 6)), rng.standard_normal((3, 16, 2)))
    index.add(rng.standard_normal((10, 6)))
    arrays = index.state()[1]
    if old:
        arrays = unpaired(arrays, 3)
        arrays["codes"][0, 1, 0] = 16
    else:
        arrays["pairs"] = arrays["pairs"].copy()
        arrays["pairs"][0, 1, 0] |= 16  # beside the last number, where there is none
    saved_as_before(monkeypatch, index, tmp_path / "a.index", arrays)
    with pytest.raises(IndexFileError, match=r"codes must be below 2\*\*nbits = 16"):
        load(tmp_path / "a.index")


@pytest.mark.parametrize("spec", ["IVF4,PQ5x4", "PQ6x4", "IVF4,RQ3x4"])
def test_faiss_has_the_same_codes(spec):
    faiss = pytest.importorskip("faiss")
    from ivfpq import from_faiss, to_faiss

    rng = np.random.default_rng(0)
    index = index_factory(30, spec)
    index.train(rng.standard_normal((300, 30)))
    index.add(rng.standard_normal((300, 30)))
    theirs = to_faiss(index)
    again = from_faiss(theirs)
    for one, two in zip(again.codes_of(np.arange(300)), index.codes_of(np.arange(300)), strict=True):
        np.testing.assert_array_equal(one, two)
    x = rng.standard_normal((9, 30)).astype(F)
    if "IVF" in spec:
        faiss.extract_index_ivf(theirs).nprobe = 4
    np.testing.assert_allclose(theirs.search(x, 5)[0], index.search(x, 5, nprobe=4).distances, rtol=1e-3)
