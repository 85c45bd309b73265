"""The factory's grammar."""

import faiss
import pytest

from ivfpq import (
    IndexFlat,
    IndexIVFPQ,
    IndexIVFRQ,
    IndexIVFSQ,
    IndexPQ,
    IndexPreTransform,
    IndexRefine,
    IndexRQ,
    IndexSQ,
    index_factory,
)
from ivfpq.transforms import OPQ, PCA, L2Norm


def test_flat():
    index = index_factory(16, "Flat", metric="cosine")
    assert isinstance(index, IndexFlat) and (index.d, index.metric) == (16, "cosine")


@pytest.mark.parametrize(
    ("spec", "nlist", "M", "nbits"),
    [
        ("IVF100,PQ8", 100, 8, 8),
        ("IVF1,PQ16x4", 1, 16, 4),
        (" IVF7 , PQ2x12 ", 7, 2, 12),
        ("IVF5,PQ4x16", 5, 4, 16),
        ("IVF5,RQ3x6", 5, 3, 6),
        ("IVF5,RQ5x8", 5, 5, 8),
    ],
)
def test_inverted_files_are_what_faiss_would_make(spec, nlist, M, nbits):
    index = index_factory(16, spec, metric="ip", seed=7)
    assert type(index) is (IndexIVFRQ if "RQ" in spec else IndexIVFPQ)
    assert (index.nlist, index.M, index.nbits, index.metric, index.seed) == (nlist, M, nbits, "ip", 7)
    theirs = faiss.index_factory(16, spec.replace(" ", ""), faiss.METRIC_INNER_PRODUCT)
    codec = theirs.rq if "RQ" in spec else theirs.pq
    assert (theirs.nlist, codec.M, theirs.code_size) == (nlist, M, index.code_size)


@pytest.mark.parametrize(("spec", "M", "nbits"), [("PQ8", 8, 8), ("PQ8x4", 8, 4), ("RQ3x6", 3, 6)])
def test_codes_without_lists_are_what_faiss_would_make(spec, M, nbits):
    index = index_factory(16, spec, metric="ip", seed=7)
    assert type(index) is (IndexRQ if "RQ" in spec else IndexPQ)
    assert (index.nlist, index.M, index.nbits, index.metric, index.seed) == (1, M, nbits, "ip", 7)
    assert faiss.index_factory(16, spec).sa_code_size() == index.code_size


@pytest.mark.parametrize(
    ("spec", "kinds", "widths"),
    [
        ("PCA8,IVF4,PQ4", [PCA], [8]),
        ("OPQ4,IVF4,PQ4x5", [OPQ], [16]),
        ("OPQ4_8,IVF4,PQ4", [OPQ], [8]),
        ("PCA12,OPQ4_8,Flat", [PCA, OPQ], [12, 8]),
        ("L2norm,PCA8,L2norm,Flat", [L2Norm, PCA, L2Norm], [16, 8, 8]),
    ],
)
def test_transforms_are_what_faiss_would_make(spec, kinds, widths):
    index = index_factory(16, spec, seed=3)
    assert isinstance(index, IndexPreTransform)
    assert [type(t) for t in index.transforms] == kinds and [t.d_out for t in index.transforms] == widths
    theirs = faiss.index_factory(16, spec)
    assert [theirs.chain.at(i).d_out for i in range(theirs.chain.size())] == widths
    assert (index.d, index.index.d, index.metric) == (16, widths[-1], "l2")
    if isinstance(index.transforms[-1], OPQ) and "x5" in spec:
        assert (index.transforms[-1].M, index.transforms[-1].nbits) == (4, 5)


@pytest.mark.parametrize(
    ("part", "dtype"),
    [("Refine", "float32"), ("RFlat", "float32"), ("Refine(SQfp16)", "float16"), ("Refine(SQ8)", "uint8")],
)
def test_refinement_is_outermost(part, dtype):
    index = index_factory(16, f"PCA8,IVF4,RQ2x4,{part}", metric="cosine")
    assert isinstance(index, IndexRefine) and isinstance(index.base, IndexPreTransform)
    assert (index.d, index.dtype, index.k_factor, index.metric) == (16, dtype, 10, "cosine")
    assert isinstance(index.base.index, IndexIVFRQ) and index.base.index.metric == "l2"


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ("", "'' is no part of it"),
        ("flat", "'flat' is no part of it"),
        ("IVF100", "'IVF100' must be followed by PQ, RQ, SQ8 or RaBitQ"),
        ("IVF100,SQ4", "'SQ4' is no codec"),
        ("IVF100,SQ8x8", "'SQ8x8' is no codec"),
        ("SQ8,IVF100", "'IVF100' cannot follow 'SQ8'"),
        ("PQ8,IVF100", "'IVF100' cannot follow 'PQ8'"),
        ("IVF10,Flat", "lists hold codes here, not whole vectors: .*'IVF10,PQ8,Refine' nearly so and fast"),
        ("IVF,PQ8", "'IVF' is no part of it"),
        ("IVF100,PQ8,", "'' cannot follow 'PQ8'"),
        ("IVF100,PQ8x", "'PQ8x' is no codec"),
        ("IVF10,Flat,PQ8", "'Flat' is no codec"),
        ("Flat,PQ8", "'PQ8' cannot follow 'Flat'"),
        ("IVF10,PQ4,PCA8", "'PCA8' cannot follow 'PQ4'"),
        ("PCA8", "it names no index"),
        ("Refine", "it names no index"),
        ("PCAx,Flat", "'PCAx' is no part of it"),
        ("IVF10,PQ4,Refine,Refine", "'Refine' cannot follow 'PQ4'"),
        ("IVF10,PQ4,Refine(PQ8)", r"'Refine\(PQ8\)' cannot follow 'PQ4'"),
    ],
)
def test_anything_else_is_refused_with_the_part_and_the_grammar(spec, wrong):
    with pytest.raises(ValueError, match=rf"cannot read the index description .*{wrong}; .*IVF100,PQ8"):
        index_factory(16, spec)


def test_scalar_quantizers_are_what_faiss_would_make():
    for spec, kind, nlist in (("SQ8", IndexSQ, 1), ("IVF7,SQ8", IndexIVFSQ, 7)):
        index = index_factory(16, spec, metric="ip", seed=7)
        assert type(index) is kind and (index.d, index.nlist, index.metric, index.seed) == (16, nlist, "ip", 7)
        theirs = faiss.index_factory(16, spec)
        assert getattr(theirs, "nlist", 1) == nlist and theirs.sq.code_size == index.code_size == 16
    index = index_factory(16, "PCA8,IVF7,SQ8,Refine", metric="cosine")
    assert isinstance(index, IndexRefine) and isinstance(index.base.index, IndexIVFSQ) and index.base.index.d == 8


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="nbits must be from 1 to 16, got 17"):
        index_factory(16, "IVF4,PQ8x17")
    with pytest.raises(ValueError, match="nlist must be at least 1, got 0"):
        index_factory(16, "IVF0,PQ8")
    with pytest.raises(ValueError, match="d=16, M=5"):
        index_factory(16, "IVF4,PQ5")
    with pytest.raises(ValueError, match="d=16, M=5"):
        index_factory(16, "OPQ5,IVF4,RQ5x8")
    with pytest.raises(ValueError, match="keeps at most the 16 dimensions there are, got d_out=17"):
        index_factory(16, "PCA17,Flat")
    with pytest.raises(ValueError, match="d_out must be at least 1, got 0"):
        index_factory(16, "PCA0,Flat")
    with pytest.raises(ValueError, match="metric must be one of"):
        index_factory(16, "PCA8,Flat", metric="l3")
    with pytest.raises(TypeError, match="spec must be a string"):
        index_factory(16, None)
