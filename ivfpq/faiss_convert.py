"""faiss indexes from ours and ours from faiss's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss  # its stubs are incomplete, so what it makes is Any below
import numpy as np

from ivfpq.base import StoredIndex
from ivfpq.checks import Floats, Ids, Metric, as_ids
from ivfpq.flat import IndexFlat
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.invlists import InvertedLists
from ivfpq.list_layout import Lists, bytes_of_id, pack_ids, unpack_ids
from ivfpq.pretransform import IndexPreTransform
from ivfpq.rabitq import FACTORS, IndexIVFRaBitQ, IndexRaBitQ
from ivfpq.refine import IndexRefine
from ivfpq.rq import IndexIVFRQ, IndexRQ, ResidualQuantizer
from ivfpq.sq import IndexIVFSQ, IndexSQ, ScalarQuantizer
from ivfpq.transforms import OPQ, PCA, L2Norm, LinearTransform, Transform


def to_faiss(index: StoredIndex) -> Any:
    """A faiss index with the same transforms, quantizers, codes and ids.

    IndexPQ becomes faiss's IndexPQ, IndexRQ its IndexResidualQuantizer, IndexIVFRQ its IndexIVFResidualQuantizer,
    IndexSQ its IndexScalarQuantizer, IndexIVFSQ its IndexIVFScalarQuantizer (QT_8bit); the other names are the same.
    Codes of IndexIVFRaBitQ mean the same there with one bit a component, for L2 and cosine.

    faiss has no cosine, so the caller scales queries to length 1. A cosine IndexFlat becomes an inner-product one, any
    other cosine index an L2 one, of whose distances d our similarities are 1 - d / 2 (where float16 vectors refine,
    which are not quite of length 1, or 8-bit ones what an IndexFlat finds, similarities differ by their rounding). Ids
    of an index without lists, with or without transforms, other than 0, 1, ..., n - 1 in order need an IndexIDMap2
    around the faiss index, and so does an IndexRefine with other ids: faiss numbers what it refines. (Inside that map
    the base's ids are the numbers.)

    Raises
    ------
    TypeError
        If `index` is not one of ours, or faiss has nothing that means the same.
    """
    if isinstance(index, IndexRefine):
        arrays = index.state()[1]
        ids: Any = unpack_ids(arrays["ids"])
        base = _body(index.base, ids)
        store = _vectors_to_faiss(index, arrays, base.metric_type)
        made: Any = faiss.IndexRefine(base, store)
        made.k_factor = float(index.k_factor)
    elif isinstance(index, IndexFlat | IndexIVFPQ | IndexPreTransform):
        inner = index.index if isinstance(index, IndexPreTransform) else index
        if not isinstance(inner, IndexFlat | IndexPQ):
            return _body(index, None)
        lists = inner.lists.view
        ids = lists.ids(lists.rows())
        made = _body(index, ids)
    else:
        raise TypeError(f"to_faiss takes an index of ours, got {type(index).__name__}")
    if (ids == np.arange(len(ids))).all():
        return made
    count, made.ntotal = made.ntotal, 0  # it only takes an empty index
    mapped = faiss.IndexIDMap2(made)
    made.ntotal = count
    faiss.copy_array_to_vector(ids.astype(np.int64), mapped.id_map)
    mapped.ntotal = count
    mapped.construct_rev_map()
    return mapped


def _vectors_to_faiss(index: IndexRefine, arrays: dict[str, Any], metric: int) -> Any:
    """What faiss refines by, with the vectors that `IndexRefine.state` gave."""
    if index.dtype == "uint8":
        made: Any = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_8bit, metric)
        if "codebooks" in arrays:
            faiss.copy_array_to_vector(arrays["codebooks"].ravel(), made.sq.trained)
            made.is_trained = True
        codes = arrays["codes"][:, : index.d, 0]
        faiss.copy_array_to_vector(np.ascontiguousarray(codes).ravel(), made.codes)
        made.ntotal = len(codes)
        return made
    if index.dtype == "float16":
        made = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_fp16, metric)
    else:
        made = faiss.IndexFlat(index.d, metric)
    made.add(arrays["vectors"].astype(np.float32))
    return made


def _body(index: Any, ids: Any, zero: Any = None) -> Any:
    """The faiss index; with `ids` (ntotal,), one that calls each vector by its place among these.

    `zero` (1, d) is what a zero vector has become on its way into the index; itself if not given.
    """
    if isinstance(index, IndexPreTransform):
        zero = index.apply_chain(np.zeros((1, index.d), np.float32)) if index.is_trained else None
        return _transformed(index, _body(index.index, ids, zero))

    def renamed(own: Ids) -> Ids:
        if ids is None:
            return own
        order = np.argsort(ids)
        places: Ids = order[np.searchsorted(ids[order], own)]
        return places

    if not isinstance(index, IndexFlat | IndexPQ):
        return _with_lists(index, renamed, np.zeros((1, index.d), np.float32) if zero is None else zero)
    lists = index.lists.view
    rows = lists.rows()
    stored = lists.codes(rows[np.argsort(renamed(lists.ids(rows)))])
    if isinstance(index, IndexFlat):
        flat = faiss.IndexFlat(index.d, faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT)
        flat.add(stored)
        return flat
    codes = index.pq.from_rows(stored)
    made: Any
    if isinstance(index, IndexRaBitQ):
        raise TypeError(f"faiss has our RaBitQ in lists alone, got {index!r}")
    if isinstance(index, IndexSQ):
        made = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_8bit, _faiss_metric(index))
    else:
        kind: Any = faiss.IndexResidualQuantizer if isinstance(index, IndexRQ) else faiss.IndexPQ
        made = kind(index.d, index.M, index.nbits, _faiss_metric(index))
    if index.is_trained:
        _install(made, index)
        faiss.copy_array_to_vector(index.pq.pack(codes).ravel(), made.codes)  # faiss keeps no terms
        made.ntotal = len(codes)
    return made


def _transformed(index: IndexPreTransform, inner: Any) -> Any:
    made: Any = faiss.IndexPreTransform(inner)
    for transform in reversed(index.transforms):
        if isinstance(transform, L2Norm):
            theirs: Any = faiss.NormalizationTransform(transform.d_in, 2.0)
        elif isinstance(transform, PCA):
            theirs = faiss.PCAMatrix(transform.d_in, transform.d_out, 0, transform.rotated)
        elif isinstance(transform, OPQ):
            theirs = faiss.OPQMatrix(transform.d_in, transform.M, transform.d_out)
        else:
            theirs = faiss.LinearTransform(transform.d_in, transform.d_out, True)
        if isinstance(transform, LinearTransform) and transform.A is not None and transform.b is not None:
            theirs.have_bias = True
            faiss.copy_array_to_vector(transform.A.ravel(), theirs.A)
            faiss.copy_array_to_vector(transform.b, theirs.b)
            theirs.is_orthonormal = theirs.is_trained = True
        made.prepend_transform(theirs)
    made.is_trained, made.ntotal = index.is_trained, index.ntotal
    return made


def _faiss_metric(index: IndexIVFPQ) -> int:
    return int(faiss.METRIC_INNER_PRODUCT if index.metric == "ip" else faiss.METRIC_L2)


def _with_zero_vectors_among_others(index: IndexIVFPQ, zero: Floats) -> Lists:
    """The lists with zero vectors in that of the nearest centroid, like all others."""
    view = index.lists.view
    zeros = view.list_ids(index.nlist)
    again = InvertedLists(index.nlist, index.lists.width, index.lists.dtype, index.lists.lanes)
    rows = view.leading(index.nlist).rows()
    again.add(view.list_numbers(rows), view.codes(rows), view.ids(rows))
    numbers, codes = index.quantized(zero)
    again.add(numbers.repeat(len(zeros)), codes.repeat(len(zeros), axis=0), zeros)
    return again.view


def _with_factors(codes: Any, order: list[int], times: list[float]) -> Any:
    """RaBitQ's codes (n, bytes) with their two factors in another order, and then multiplied.

    faiss has |r|^2 first and then s sqrt(d) / 2: its components are of length 1 together.
    """
    factors = np.ascontiguousarray(codes[:, -FACTORS:]).view("<f4")[:, order] * np.array(times, np.float32)
    return np.concatenate([codes[:, :-FACTORS], np.ascontiguousarray(factors).view(np.uint8)], axis=1)


def _install(made: Any, index: IndexIVFPQ) -> None:
    """Give a faiss index our codebooks."""
    codebooks: Floats = index.pq.codebooks  # type: ignore[assignment]
    if isinstance(index, IndexIVFRaBitQ):
        pass  # nothing was learnt
    elif isinstance(index.pq, ScalarQuantizer):
        faiss.copy_array_to_vector(codebooks.ravel(), made.sq.trained)
    elif isinstance(index.pq, ResidualQuantizer):
        faiss.copy_array_to_vector(codebooks.ravel(), made.rq.codebooks)
        made.rq.is_trained = True
        made.rq.compute_codebook_tables()
    else:
        faiss.copy_array_to_vector(codebooks.ravel(), made.pq.centroids)
    made.is_trained = True


def _with_lists(index: IndexIVFPQ, renamed: Callable[[Ids], Ids], zero: Floats) -> Any:
    metric = _faiss_metric(index)
    quantizer = faiss.IndexFlat(index.d, metric)
    made: Any
    if isinstance(index, IndexIVFRaBitQ):
        if index.bits != 1 or index.metric == "ip":
            raise TypeError(f"faiss has our RaBitQ for one bit and no inner products, got {index!r}")
        made = faiss.IndexIVFRaBitQ(quantizer, index.d, index.nlist, metric)
        made.qb = 0  # queries are not cut to few bits
    elif isinstance(index, IndexIVFSQ):
        eight_bits = faiss.ScalarQuantizer.QT_8bit
        made = faiss.IndexIVFScalarQuantizer(quantizer, index.d, index.nlist, eight_bits, metric)
    else:
        kind: Any = faiss.IndexIVFResidualQuantizer if isinstance(index, IndexIVFRQ) else faiss.IndexIVFPQ
        made = kind(quantizer, index.d, index.nlist, index.M, index.nbits, metric)
    made.nprobe = min(index.nprobe, index.nlist)
    if not index.is_trained:
        return made
    quantizer.add(index.centroids)  # type: ignore[arg-type]
    _install(made, index)
    if index.metric != "ip" and isinstance(made, faiss.IndexIVFPQ):
        made.precompute_table()
    lists = index.lists.view
    if len(lists.sizes) > index.nlist:  # faiss keeps no zero vectors apart
        lists = _with_zero_vectors_among_others(index, zero)
    for number in np.flatnonzero(lists.sizes).tolist():
        rows = lists.starts[number] + np.arange(lists.sizes[number])
        ids = renamed(lists.ids(rows))
        codes = np.ascontiguousarray(index.pq.pack(index.pq.from_rows(lists.codes(rows))))
        if isinstance(index, IndexIVFRaBitQ):
            codes = _with_factors(codes, [1, 0], [1, np.sqrt(index.d) / 2])
        made.invlists.add_entries(number, len(rows), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    made.ntotal = lists.ntotal
    return made


def from_faiss(faiss_index: Any) -> StoredIndex:
    """Our index with the same transforms, quantizers, codes and ids as a faiss one, for L2 or inner product.

    Takes IndexFlat, IndexPQ, IndexResidualQuantizer and IndexScalarQuantizer (QT_8bit), IndexIVFPQ and its like (codes
    of residuals, a flat quantizer), an IndexPreTransform of orthonormal linear transforms and NormalizationTransform
    around one of these, an IndexRefine (flat, float16 or QT_8bit) around either, and each of these but an index with
    lists alone inside IndexIDMap.

    Raises
    ------
    TypeError
        If it is of another kind.
    ValueError
        If it is one of these kinds with settings that ours have not.
    """
    index = faiss.downcast_index(faiss_index)  # does not keep what it is a view of alive: `faiss_index` does
    ids: Any = None
    if isinstance(index, faiss.IndexIDMap):
        ids = faiss.vector_to_array(index.id_map)
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexRefine):
        return _refine_from_faiss(index, ids)
    if isinstance(index, faiss.IndexPreTransform):
        return _transforms_from_faiss(index, ids)
    return _plain_from_faiss(index, ids)


def _plain_from_faiss(index: Any, ids: Any) -> Any:
    """From a flat index or one with lists; `ids` (ntotal,) are what its own numbers from 0 stand for, if given."""
    if isinstance(index, faiss.IndexFlat):
        flat = IndexFlat(index.d, metric=metric_of(index))
        vectors = _flat_vectors(index)
        flat.add_with_ids(vectors, np.arange(len(vectors)) if ids is None else ids)
        return flat
    kind = _CODED.get(type(index))
    if kind is None:
        raise TypeError(
            f"from_faiss takes {', '.join(known.__name__ for known in _CODED)}, IndexFlat, IndexPreTransform or "
            f"IndexRefine, got {type(index).__name__}"
        )
    numbers_of_code, codebooks = _codec_from_faiss(index)
    metric = metric_of(index)
    if issubclass(kind, IndexPQ):
        if getattr(index, "search_type", None) not in (None, faiss.IndexPQ.ST_PQ):  # type: ignore[attr-defined]
            raise ValueError(
                f"ours compares with vectors by tables (ST_PQ), faiss here by search type {index.search_type}"
            )
        ours = kind(index.d, *numbers_of_code, metric=metric)
        centroids = np.zeros((1, index.d))
        sizes, own = np.array([index.ntotal]), np.arange(index.ntotal)
        codes = faiss.vector_to_array(index.codes).reshape(index.ntotal, index.code_size)
    else:
        quantizer = faiss.downcast_index(index.quantizer)
        if not isinstance(quantizer, faiss.IndexFlat) or metric_of(quantizer) != metric:
            raise ValueError(f"the coarse quantizer must be flat, with the metric of the index, got {quantizer}")
        if not index.by_residual:
            raise ValueError("the faiss index stores codes of the vectors (by_residual=False), ours are of residuals")
        ours = kind(index.d, index.nlist, *numbers_of_code, metric=metric, nprobe=index.nprobe)
        centroids = _flat_vectors(quantizer)
        sizes, own, codes = lists_from_faiss(index)
        if kind is IndexIVFRaBitQ:
            codes = _with_factors(codes, [1, 0], [2 / np.sqrt(index.d), 1])
    if index.is_trained:
        if ids is not None and len(own) and (own.min() < 0 or own.max() >= len(ids)):
            raise ValueError("the ids of the faiss index inside do not fit the IndexIDMap around it")
        numbers = as_ids(own if ids is None else ids[own], "the ids of the faiss index", n=len(own))
        ours.install(centroids, codebooks)
        ours.add_codes(np.repeat(np.arange(len(sizes)), sizes), ours.pq.unpack(codes), numbers)
    return ours


_CODED: dict[Any, Any] = {
    faiss.IndexPQ: IndexPQ,
    faiss.IndexResidualQuantizer: IndexRQ,
    faiss.IndexScalarQuantizer: IndexSQ,
    faiss.IndexIVFPQ: IndexIVFPQ,
    faiss.IndexIVFResidualQuantizer: IndexIVFRQ,
    faiss.IndexIVFScalarQuantizer: IndexIVFSQ,
    faiss.IndexIVFRaBitQ: IndexIVFRaBitQ,
}


def _codec_from_faiss(index: Any) -> tuple[tuple[int, ...], Any]:
    """What the constructor of ours takes of a code's numbers, (M, nbits) or nothing, and the codebooks if any."""
    if hasattr(index, "pq"):
        pq = index.pq
        return (pq.M, pq.nbits), faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    if hasattr(index, "rabitq"):
        if index.rabitq.nb_bits != 1 or metric_of(index) == "ip":
            raise ValueError("ours are faiss's RaBitQ for one bit and no inner products")
        return (), np.zeros((0, index.d), np.float32)
    if hasattr(index, "sq"):
        if index.sq.qtype != faiss.ScalarQuantizer.QT_8bit:
            raise ValueError(
                f"ours has ranges of its own for each component (QT_8bit), faiss here type {index.sq.qtype}"
            )
        return (), faiss.vector_to_array(index.sq.trained).reshape(2 if index.is_trained else 0, index.d)
    rq = index.rq
    plain = [faiss.AdditiveQuantizer.ST_decompress]
    if metric_of(index) == "ip":
        plain.append(faiss.AdditiveQuantizer.ST_LUT_nonorm)  # inner products from tables need no norms
    if rq.search_type not in plain:
        raise ValueError("the faiss index stores norms with its codes, ours are decoded (RQmxb without a suffix)")
    bits = set(faiss.vector_to_array(rq.nbits).tolist())
    if len(bits) != 1:
        raise ValueError(f"the numbers of a code must all have the same bits, got {sorted(bits)}")
    return (rq.M, bits.pop()), faiss.vector_to_array(rq.codebooks).reshape(rq.M, -1, index.d)


def lists_from_faiss(index: Any) -> tuple[Ids, Ids, Any]:
    """Sizes of the lists (nlist,), and list after list ids (n,) and packed codes (n, code_size)."""
    invlists: Any = index.invlists
    sizes = np.array([invlists.list_size(number) for number in range(index.nlist)], np.int64)
    ids, codes = [np.empty(0, np.int64)], [np.empty((0, index.code_size), np.uint8)]
    for number in np.flatnonzero(sizes).tolist():
        size = int(sizes[number])
        ids.append(faiss.rev_swig_ptr(invlists.get_ids(number), size).copy())
        own = faiss.rev_swig_ptr(invlists.get_codes(number), size * index.code_size)
        codes.append(own.reshape(size, index.code_size).copy())
    return sizes, np.concatenate(ids), np.concatenate(codes)


def _transforms_from_faiss(index: Any, ids: Any) -> IndexPreTransform:
    transforms: list[Transform] = []
    for number in range(index.chain.size()):
        theirs = faiss.downcast_VectorTransform(index.chain.at(number))
        if isinstance(theirs, faiss.NormalizationTransform):
            if theirs.norm != 2:
                raise ValueError(f"ours normalise by the Euclidean length, faiss here by norm {theirs.norm}")
            transforms.append(L2Norm(theirs.d_in))
            continue
        if not isinstance(theirs, faiss.LinearTransform):
            raise TypeError(f"from_faiss takes linear transforms and L2 normalisation, got {type(theirs).__name__}")
        made: LinearTransform
        if isinstance(theirs, faiss.PCAMatrix):
            made = PCA(theirs.d_in, theirs.d_out, rotated=theirs.random_rotation)
        elif isinstance(theirs, faiss.OPQMatrix):
            made = OPQ(theirs.d_in, theirs.d_out, theirs.M)
        else:
            made = LinearTransform(theirs.d_in, theirs.d_out)
        if theirs.is_trained:
            A = faiss.vector_to_array(theirs.A)[: theirs.d_out * theirs.d_in].reshape(theirs.d_out, theirs.d_in)
            made.install(A, faiss.vector_to_array(theirs.b) if theirs.have_bias else np.zeros(theirs.d_out))
        transforms.append(made)
    return IndexPreTransform(transforms, _plain_from_faiss(faiss.downcast_index(index.index), ids))


def _refine_from_faiss(index: Any, ids: Any) -> IndexRefine:
    store: Any = faiss.downcast_index(index.refine_index)
    vectors: dict[str, Any]
    scalar = store.sq.qtype if isinstance(store, faiss.IndexScalarQuantizer) else None
    if isinstance(store, faiss.IndexFlat):
        dtype, vectors = "float32", {"vectors": _flat_vectors(store)}
    elif scalar == faiss.ScalarQuantizer.QT_fp16:
        halves = faiss.vector_to_array(store.codes).view(np.float16)
        dtype, vectors = "float16", {"vectors": halves.reshape(store.ntotal, store.d)}
    elif scalar == faiss.ScalarQuantizer.QT_8bit:
        dtype, vectors = "uint8", _plain_from_faiss(store, None).state()[1]
    else:
        kind = type(store).__name__ if scalar is None else f"scalar quantizer of type {scalar}"
        raise TypeError(f"ours refine by float32, float16 or 8-bit vectors (QT_8bit), faiss here by {kind}")
    base = faiss.downcast_index(index.base_index)
    known = np.arange(index.ntotal) if ids is None else ids
    inner = (
        _transforms_from_faiss(base, ids) if isinstance(base, faiss.IndexPreTransform) else _plain_from_faiss(base, ids)
    )
    described, arrays = inner.described()
    factor = max(1, round(index.k_factor))
    parameters = {"base": described, "dtype": dtype, "k_factor": factor}
    packed = np.ascontiguousarray(pack_ids(known, bytes_of_id(int(known.max(initial=-1)))))
    return IndexRefine.from_state(parameters, {**arrays, **vectors, "ids": packed})


def metric_of(index: Any) -> Metric:
    """The metric of a faiss index. A ValueError if ours have none like it."""
    if index.metric_type == faiss.METRIC_L2:
        return "l2"
    if index.metric_type == faiss.METRIC_INNER_PRODUCT:
        return "ip"
    raise ValueError(f"the faiss index has a metric that ours have not (number {index.metric_type})")


def _flat_vectors(index: Any) -> Floats:
    vectors: Floats = faiss.vector_to_array(index.codes).view(np.float32).reshape(index.ntotal, index.d)
    return vectors
