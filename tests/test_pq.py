"""The product quantizer against its formulas, naive loops and faiss."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivfpq.checks import NotTrainedError
from ivfpq.pq import ProductQuantizer

F = np.float32


def quantizer(d=12, M=3, nbits=4, seed=0, integers=False):
    pq = ProductQuantizer(d, M, nbits)
    rng = np.random.default_rng(seed)
    shape = (M, pq.ksub, pq.dsub)
    pq.codebooks = (rng.integers(-2, 3, shape) if integers else rng.normal(size=shape)).astype(F)
    return pq


def distinct_codes(pq, n, seed=0):
    return np.random.default_rng(seed).integers(0, pq.ksub, (n, pq.M)).astype(np.uint8 if pq.nbits <= 8 else np.uint16)


@pytest.mark.parametrize("nbits", range(1, 17))
def test_vectors_built_from_codewords_come_back_exactly(nbits):
    pq = quantizer(d=6, M=3, nbits=nbits)
    codes = distinct_codes(pq, 50)
    x = np.stack([np.concatenate([pq.codebooks[m, code[m]] for m in range(3)]) for code in codes])
    np.testing.assert_array_equal(pq.decode(codes), x)
    found = pq.encode(x)
    assert found.dtype == codes.dtype
    np.testing.assert_array_equal(found, codes)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_encode_is_the_nearest_codeword_the_smaller_number_on_ties(seed, M, dsub, nbits, integers):
    pq = quantizer(M * dsub, M, nbits, seed, integers)
    rng = np.random.default_rng(seed + 1)
    x = (rng.integers(-2, 3, (7, M * dsub)) if integers else rng.normal(size=(7, M * dsub))).astype(F)
    for row, code in zip(x, pq.encode(x), strict=True):
        for m in range(M):
            gaps = ((row[m * dsub : (m + 1) * dsub].astype(float) - pq.codebooks[m].astype(float)) ** 2).sum(axis=1)
            if integers:  # small whole numbers are exact, so ties are real
                assert code[m] == gaps.argmin()
            else:
                assert gaps[code[m]] <= gaps.min() * (1 + 1e-5)


@given(st.integers(1, 16), st.integers(1, 9), st.integers(0, 20), st.integers(0, 10**6))
def test_packing_keeps_every_bit(nbits, M, n, seed):
    pq = ProductQuantizer(M, M, nbits)
    codes = distinct_codes(pq, n, seed)
    packed = pq.pack(codes)
    assert packed.dtype == np.uint8 and packed.shape == (n, -(-M * nbits // 8)) and pq.code_size == packed.shape[1]
    unpacked = pq.unpack(packed)
    np.testing.assert_array_equal(unpacked, codes)
    assert unpacked.dtype == codes.dtype


@pytest.mark.parametrize("nbits", [1, 3, 4, 5, 8, 10, 12, 16])
@pytest.mark.parametrize("M", [1, 5])
def test_codes_are_those_of_faiss_bit_for_bit(nbits, M):
    dsub = 3
    pq = quantizer(M * dsub, M, nbits, seed=nbits)
    theirs = faiss.ProductQuantizer(M * dsub, M, nbits)
    faiss.copy_array_to_vector(pq.codebooks.ravel(), theirs.centroids)
    x = np.random.default_rng(5).normal(size=(200, M * dsub)).astype(F)
    assert theirs.code_size == pq.code_size
    np.testing.assert_array_equal(pq.pack(pq.encode(x)), theirs.compute_codes(x))
    np.testing.assert_array_equal(pq.decode(pq.encode(x)), theirs.decode(theirs.compute_codes(x)))


def test_training_is_as_good_as_that_of_faiss():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 16)) @ rng.normal(size=(16, 16))).astype(F)
    pq = ProductQuantizer(16, 4, 5)
    pq.train(x, np.random.default_rng(0))
    theirs = faiss.ProductQuantizer(16, 4, 5)
    theirs.train(x)
    loss = ((pq.decode(pq.encode(x)) - x) ** 2).sum()
    assert loss <= 1.02 * ((theirs.decode(theirs.compute_codes(x)) - x) ** 2).sum()


def test_encoding_does_not_depend_on_the_batch():
    pq = quantizer(integers=True)
    x = np.random.default_rng(1).integers(-3, 4, (100, 12)).astype(F)
    np.testing.assert_array_equal(np.concatenate([pq.encode(row[None]) for row in x]), pq.encode(x))


def test_nothing_in_nothing_out():
    pq = quantizer()
    assert pq.encode(np.empty((0, 12), F)).shape == (0, 3)
    assert pq.decode(np.empty((0, 3), np.uint8)).shape == (0, 12)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="d must be a multiple of M, got d=10, M=4"):
        ProductQuantizer(10, 4)
    with pytest.raises(ValueError, match="nbits must be from 1 to 16, got 0"):
        ProductQuantizer(8, 4, 0)
    with pytest.raises(NotTrainedError):
        ProductQuantizer(8, 4).encode(np.zeros((1, 8), F))
    with pytest.raises(ValueError, match="nbits=4 needs at least 16 training vectors, got n=15"):
        ProductQuantizer(8, 4, 4).train(np.zeros((15, 8), F), np.random.default_rng(0))
