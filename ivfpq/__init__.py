"""IVFPQ, written from scratch: an inverted file with product quantization (Jégou, Douze, Schmid 2011)."""

from typing import Any

from ivfpq import kernels, metrics
from ivfpq.checks import IndexFileError, NotTrainedError, NotTunedError
from ivfpq.factory import index_factory
from ivfpq.flat import IndexFlat
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.io import load, save
from ivfpq.pretransform import IndexPreTransform
from ivfpq.rabitq import IndexIVFRaBitQ, IndexRaBitQ
from ivfpq.refine import IndexRefine
from ivfpq.results import RangeResult, SearchResult
from ivfpq.rq import IndexIVFRQ, IndexRQ
from ivfpq.sq import IndexIVFSQ, IndexSQ

__version__ = "0.2.0"

__all__ = [
    "IVFPQTransformer",
    "IndexFileError",
    "IndexFlat",
    "IndexIVFPQ",
    "IndexIVFRQ",
    "IndexIVFRaBitQ",
    "IndexIVFSQ",
    "IndexPQ",
    "IndexPreTransform",
    "IndexRQ",
    "IndexRaBitQ",
    "IndexRefine",
    "IndexSQ",
    "NotTrainedError",
    "NotTunedError",
    "RangeResult",
    "SearchResult",
    "from_faiss",
    "index_factory",
    "kernels",
    "load",
    "metrics",
    "save",
    "to_faiss",
]


def __getattr__(name: str) -> Any:
    if name in ("from_faiss", "to_faiss"):  # faiss is loaded when it is asked for
        from ivfpq import faiss_compat

        return getattr(faiss_compat, name)
    if name == "IVFPQTransformer":  # and so is scikit-learn
        from ivfpq.neighbors import IVFPQTransformer

        return IVFPQTransformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
