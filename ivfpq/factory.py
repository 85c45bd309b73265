"""index_factory: an index from its description, in faiss's grammar."""

from __future__ import annotations

import re

from ivfpq.base import StoredIndex
from ivfpq.checks import Metric, as_metric, positive_int
from ivfpq.flat import IndexFlat
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.pretransform import IndexPreTransform
from ivfpq.rabitq import IndexIVFRaBitQ, IndexRaBitQ
from ivfpq.refine import IndexRefine
from ivfpq.rq import IndexIVFRQ, IndexRQ
from ivfpq.sq import IndexIVFSQ, IndexSQ
from ivfpq.transforms import OPQ, PCA, L2Norm, Transform

_GRAMMAR = (
    "any of PCAn, PCARn, OPQm or OPQm_n, L2norm; then Flat, or a codec PQm, PQmxb or RQmxb (m numbers of b bits a "
    "code, 8 if not said), SQ8 (8 bits a component) or RaBitQb (b bits a component, 1 if not said), with IVFn before "
    "it for n lists; then, if wanted, Refine, Refine(SQfp16) or Refine(SQ8); e.g. IVF100,PQ8 or "
    "PCA128,IVF100,RQ8x8,Refine"
)
_PCA = re.compile(r"PCA(R?)(\d+)")
_OPQ = re.compile(r"OPQ(\d+)(?:_(\d+))?")
_IVF = re.compile(r"IVF(\d+)")
_CODEC = re.compile(r"(PQ|RQ)(\d+)(?:x(\d+))?|(SQ)8|(RaBitQ)([1-8]?)")
_PLAIN = {"PQ": IndexPQ, "RQ": IndexRQ, "SQ": IndexSQ, "RaBitQ": IndexRaBitQ}
_LISTS = {"PQ": IndexIVFPQ, "RQ": IndexIVFRQ, "SQ": IndexIVFSQ, "RaBitQ": IndexIVFRaBitQ}
_REFINE = {
    "Refine": "float32",
    "RFlat": "float32",
    "Refine(Flat)": "float32",
    "Refine(SQfp16)": "float16",
    "Refine(SQ8)": "uint8",
}


def index_factory(d: int, spec: str, *, metric: Metric = "l2", seed: int = 0) -> StoredIndex:
    """An empty index.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    spec : str
        Parts with commas between them:

        - any number of transforms: "PCA64" (64 principal directions), "PCAR64" (turned at
          random, as "RaBitQ" needs it), "OPQ8" or "OPQ8_64" (a rotation for 8 parts,
          without or with a reduction to 64 dimensions), "L2norm" (length 1);
        - "Flat", or "PQ8", "RQ8x8" (numbers of a code x bits of each), "SQ8" (8 bits a component), "RaBitQ" or
          "RaBitQ4" (1 or 4 bits a component), or with lists "IVF100,PQ8", "IVF1024,PQ16x4", "IVF100,RQ8x8",
          "IVF100,SQ8";
        - "Refine" (or "RFlat") to rank the best candidates again by the vectors, "Refine(SQfp16)" by float16 ones,
          "Refine(SQ8)" by those of a byte a component.
    metric : {"l2", "ip", "cosine"}
    seed : int
        Of the training, where there is one.

    Raises
    ------
    ValueError
        If `spec` is not understood; the message names the part and gives the grammar.
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec must be a string, got {spec!r}")
    d, metric = positive_int(d, "d"), as_metric(metric)
    parts = [part.strip() for part in spec.split(",")]
    refine = _REFINE.get(parts[-1])
    if refine:
        parts.pop()
    transforms: list[Transform] = []
    width = d
    while parts:
        if match := _PCA.fullmatch(parts[0]):
            transforms.append(PCA(width, int(match[2]), rotated=bool(match[1])))
        elif match := _OPQ.fullmatch(parts[0]):
            transforms.append(OPQ(width, int(match[2] or width), int(match[1]), _bits(parts)))
        elif parts[0] == "L2norm":
            transforms.append(L2Norm(width))
        else:
            break
        width = transforms[-1].d_out
        parts.pop(0)
    # Vectors of length 1 are compared by their distance, which the transforms keep; see `IndexPreTransform`.
    inner: Metric = "l2" if transforms and metric == "cosine" else metric
    index: StoredIndex
    match parts:
        case ["Flat"]:
            index = IndexFlat(width, metric=inner)
        case [codec] if code := _CODEC.fullmatch(codec):
            index = _PLAIN[_kind(code)](width, *_numbers(code), metric=inner, seed=seed)
        case [cells, codec] if (ivf := _IVF.fullmatch(cells)) and (code := _CODEC.fullmatch(codec)):
            index = _LISTS[_kind(code)](width, int(ivf[1]), *_numbers(code), metric=inner, seed=seed)
        case _:
            raise ValueError(f"cannot read the index description {spec!r}: {_complaint(parts)}; known are {_GRAMMAR}")
    if transforms:
        index = IndexPreTransform(transforms, index, metric=metric, seed=seed)
    return IndexRefine(index, dtype=refine) if refine else index  # type: ignore[arg-type]


def _kind(code: re.Match[str]) -> str:
    """Which codec it is."""
    return code[1] or code[4] or code[5]


def _numbers(code: re.Match[str]) -> tuple[int, ...]:
    """What a class takes of the numbers of a code: M and nbits, bits, or nothing where there are d of 8 bits."""
    if code[5]:
        return (int(code[6] or 1),)
    return (int(code[2]), int(code[3] or 8)) if code[1] else ()


def _bits(parts: list[str]) -> int:
    """Bits of the numbers of the product quantizer that an OPQ is for."""
    code = _CODEC.fullmatch(parts[-1])
    return int(code[3] or 8) if code and code[1] == "PQ" else 8


def _complaint(parts: list[str]) -> str:
    """What is wrong with what is left when transforms and refinement are read."""
    match parts:
        case []:
            return "it names no index"
        case [cells] if _IVF.fullmatch(cells):
            return f"{cells!r} must be followed by PQ, RQ, SQ8 or RaBitQ"
        case [cells, "Flat"] if _IVF.fullmatch(cells):
            return f"lists hold codes here, not whole vectors: 'Flat' is exact, '{cells},PQ8,Refine' nearly so and fast"
        case [whole, rest, *_] if whole == "Flat" or _CODEC.fullmatch(whole):
            return f"{rest!r} cannot follow {whole!r}"
        case [cells, codec, *rest] if _IVF.fullmatch(cells):
            return f"{rest[0]!r} cannot follow {codec!r}" if _CODEC.fullmatch(codec) else f"{codec!r} is no codec"
    return f"{parts[0]!r} is no part of it"
