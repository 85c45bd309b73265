"""The factory's grammar."""

import faiss
import pytest

from ivfpq import IndexFlat, IndexIVFPQ, index_factory


def test_flat():
    index = index_factory(16, "Flat", metric="cosine")
    assert isinstance(index, IndexFlat) and (index.d, index.metric) == (16, "cosine")


@pytest.mark.parametrize(
    ("spec", "nlist", "M", "nbits"),
    [("IVF100,PQ8", 100, 8, 8), ("IVF1,PQ16x4", 1, 16, 4), (" IVF7 , PQ2x12 ", 7, 2, 12), ("IVF5,PQ4x16", 5, 4, 16)],
)
def test_ivfpq_is_what_faiss_would_make(spec, nlist, M, nbits):
    index = index_factory(16, spec, metric="ip", seed=7)
    assert isinstance(index, IndexIVFPQ)
    assert (index.nlist, index.M, index.nbits, index.metric, index.seed) == (nlist, M, nbits, "ip", 7)
    theirs = faiss.index_factory(16, spec.replace(" ", ""), faiss.METRIC_INNER_PRODUCT)
    assert (theirs.nlist, theirs.pq.M, theirs.pq.nbits, theirs.code_size) == (nlist, M, nbits, index.code_size)


@pytest.mark.parametrize(
    "spec", ["", "flat", "IVF100", "PQ8", "IVF,PQ8", "IVF100,PQ8,", "IVF100,PQ8x", "IVF10,Flat,PQ8"]
)
def test_anything_else_is_refused_with_the_grammar(spec):
    with pytest.raises(ValueError, match=r"cannot read the index description .*IVF100,PQ8"):
        index_factory(16, spec)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="nbits must be from 1 to 16, got 17"):
        index_factory(16, "IVF4,PQ8x17")
    with pytest.raises(ValueError, match="nlist must be at least 1, got 0"):
        index_factory(16, "IVF0,PQ8")
    with pytest.raises(ValueError, match="d=16, M=5"):
        index_factory(16, "IVF4,PQ5")
    with pytest.raises(TypeError, match="spec must be a string"):
        index_factory(16, None)
