"""The vectors that `IndexRefine` ranks candidates by: one list of float32 or float16 numbers, or of a byte for each."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ivfpq import cosine, kernels
from ivfpq.checks import Doubles, Floats, Ids, Metric, NotTrainedError, check_stored
from ivfpq.distances import pair_distances
from ivfpq.index import ADD_BLOCK, UNTRAINED
from ivfpq.invlists import InvertedLists
from ivfpq.kernels.quantizers import Quantizers, coarse_rows, term_rows
from ivfpq.list_layout import Lists
from ivfpq.publication import Change, Published
from ivfpq.screening import Points, of_similarity, screen
from ivfpq.sq import ScalarQuantizer
from ivfpq.terms import check_terms
from ivfpq.threads import spread

DTYPES = ("float32", "float16", "uint8")


class StoredVectors(InvertedLists):
    """A list whose codes are whole vectors.

    Parameters
    ----------
    d : int
        Dimension.
    metric : str
        For cosine, vectors come in scaled to length 1.
    dtype : numpy type
    published : Published
        That of the index.
    width : int
        Numbers kept of a vector.
    """

    __slots__ = ("d", "metric")
    train_size_min = 0
    is_trained = True

    def __init__(self, d: int, metric: Metric, dtype: Any, published: Published, width: int) -> None:
        super().__init__(1, width, dtype, lanes=1, published=published, marks_removed=True)
        self.d = d
        self.metric: Metric = metric

    def learned(self, x: Floats) -> list[Change]:
        """What training by vectors (n, d) makes of it."""
        return []

    @abstractmethod
    def rounded(self, x: Floats) -> tuple[Ids, Any]:
        """The list (n,) of each vector (n, d), and what is stored of it there (n, width)."""

    @abstractmethod
    def at(self, lists: Lists, rows: Ids) -> Floats:
        """The vectors in rows (n,), as they are stored: float32 (n, d)."""

    def screened(self, x: Floats, lists: Lists, rows: Ids) -> tuple[Floats, Doubles]:
        """The distances of queries (nq, d) to rows (n,), roughly: see `screening.screen`."""
        return screen(x, Points.of(self.at(lists, rows)), self.metric)

    def distances(self, x: Floats, lists: Lists, rows: Ids) -> Floats:
        """The defined distance of x[i] and rows[i]: shapes (n, d), (n,) -> (n,)."""
        return pair_distances(x, self.at(lists, rows), self.metric)

    def for_kernels(self, x: Floats, lists: Lists) -> bool:
        """Whether what `compiled` gives can rank for queries (nq, d)."""
        return True

    @abstractmethod
    def arrays(self, lists: Lists) -> dict[str, Any]:
        """What a file holds of `lists`, which are settled, but for ids."""

    @abstractmethod
    def read(self, arrays: dict[str, Any]) -> Lists:
        """The lists that a file holds, to be published. Raises ValueError if the parts do not fit together."""

    def check_same(self, other: StoredVectors) -> None:
        """That another of its kind was trained as this one. Raises ValueError."""

    @abstractmethod
    def compiled(self, lists: Lists, parts: tuple[Any, ...], before: Any, sketch: bool | None) -> Any:
        """What ranks candidates in compiled code: a Store of `kernels.rerank` or `kernels.rerank_bytes`.

        `before` is what this gave for earlier lists, or None.
        """


class FloatVectors(StoredVectors):
    """Vectors of float32 or float16 numbers."""

    __slots__ = ()

    def __init__(self, d: int, metric: Metric, dtype: Any, published: Published) -> None:
        super().__init__(d, metric, dtype, published, d)

    def rounded(self, x: Floats) -> tuple[Ids, Any]:
        """See `StoredVectors.rounded`."""
        with np.errstate(over="ignore"):
            stored = x.astype(self.dtype, copy=False)
        if not np.isfinite(stored).all():
            raise ValueError(f"x must be finite in {self.dtype}, but its largest number is {np.abs(x).max():g}")
        return np.zeros(len(x), np.int64), stored

    def at(self, lists: Lists, rows: Ids) -> Floats:
        """See `StoredVectors.at`."""
        vectors: Floats = lists.blocks[:, :, 0][rows].astype(np.float32, copy=False)
        return vectors

    def arrays(self, lists: Lists) -> dict[str, Any]:
        """See `StoredVectors.arrays`."""
        return {"vectors": lists.blocks[:, :, 0]}

    def read(self, arrays: dict[str, Any]) -> Lists:
        """See `StoredVectors.read`."""
        vectors = arrays["vectors"]
        if vectors.dtype != self.dtype or vectors.ndim != 2 or vectors.shape[1] != self.d:
            raise ValueError(f"vectors must be {self.dtype} (n, {self.d}), got {vectors.dtype} {vectors.shape}")
        check_stored(vectors, self.metric == "cosine")
        return self.restored(np.array([len(vectors)]), arrays["ids"], vectors[:, :, None])

    def compiled(self, lists: Lists, parts: tuple[Any, ...], before: Any, sketch: bool | None) -> Any:
        """See `StoredVectors.compiled`."""
        return kernels.compiled_module("rerank").Store(lists, self.metric, before, sketch)


class ByteVectors(StoredVectors):
    """Vectors of a byte a number, by a `ScalarQuantizer`, and with the distances of an `IndexSQ`.

    A byte does not show that it stands for 0, so for cosine zero vectors have a list behind the others, as everywhere
    (see `cosine`). They are too rare for a kernel that knows them.
    """

    __slots__ = ("_part",)
    train_size_min = 1

    def __init__(self, d: int, metric: Metric, published: Published) -> None:
        super().__init__(d, metric, np.uint8, published, d + term_rows(ScalarQuantizer(d), 1, metric))
        self._part = published.append(None)

    @property
    def codec(self) -> Quantizers | None:
        """The codec, around the origin; None before training."""
        codec: Quantizers | None = self.published.parts[self._part]
        return codec

    @property
    def is_trained(self) -> bool:  # type: ignore[override]
        """Whether vectors can be added."""
        return self.codec is not None

    def learned(self, x: Floats) -> list[Change]:
        """See `StoredVectors.learned`."""
        pq = ScalarQuantizer(self.d)
        pq.train(x, np.random.default_rng(0))  # which it has no use for
        return [self._with(pq)]

    def _with(self, pq: ScalarQuantizer) -> Change:
        """A trained codec as kernels know it: that of an inverted file with the origin for its centroid."""
        return self._part, Quantizers(coarse_rows(np.zeros((1, self.d), np.float32), self.metric), pq, self.metric)

    def _trained(self) -> Quantizers:
        if self.codec is None:
            raise NotTrainedError(UNTRAINED)
        return self.codec

    def rounded(self, x: Floats) -> tuple[Ids, Any]:
        """See `StoredVectors.rounded`."""
        trained, numbers, step = self._trained(), np.zeros(len(x), np.int64), max(1, ADD_BLOCK // self.d)
        codes, encode = np.empty(x.shape, np.uint8), trained.pq.encoder()

        def work(first: int, last: int) -> None:
            for start in range(first, last, step):
                part = slice(start, min(start + step, last))
                codes[part] = encode(x[part])

        spread(work, len(x), len(x) // 2 // step)
        stored = trained.with_terms(numbers, codes)
        return cosine.apart(numbers, x, 1) if self.metric == "cosine" else numbers, stored

    def at(self, lists: Lists, rows: Ids) -> Floats:
        """See `StoredVectors.at`."""
        vectors = self._trained().pq.decode(lists.codes(rows)[:, : self.d])
        vectors[self._zero(lists, rows)] = 0
        return vectors

    def _zero(self, lists: Lists, rows: Ids) -> npt.NDArray[np.bool_]:
        """Which of rows (n,) are zero vectors that are kept apart: bool (n,)."""
        if len(lists.sizes) == 1:
            return np.zeros(len(rows), bool)
        return np.asarray(lists.list_numbers(rows) == 1)

    def screened(self, x: Floats, lists: Lists, rows: Ids) -> tuple[Floats, Doubles]:
        """See `StoredVectors.screened`."""
        if self.metric != "cosine":
            return super().screened(x, lists, rows)
        score, error = of_similarity(*screen(x, Points.of(self.at(lists, rows)), "l2"))
        score[:, self._zero(lists, rows)] = 0
        score[~x.any(axis=1)] = 0
        return score, error

    def distances(self, x: Floats, lists: Lists, rows: Ids) -> Floats:
        """See `StoredVectors.distances`."""
        if self.metric != "cosine":
            return super().distances(x, lists, rows)
        similarity = cosine.similarity(pair_distances(x, self.at(lists, rows), "l2"))
        similarity[self._zero(lists, rows) | ~x.any(axis=1)] = 0
        return similarity

    def for_kernels(self, x: Floats, lists: Lists) -> bool:
        """See `StoredVectors.for_kernels`."""
        return self.metric != "cosine" or not cosine.matters(x, self, lists)

    def arrays(self, lists: Lists) -> dict[str, Any]:
        """See `StoredVectors.arrays`."""
        trained = {} if self.codec is None else {"codebooks": self.codec.pq.codebooks}
        sizes = lists.sizes if lists.sizes[1:].any() else lists.sizes[:1]
        return {**trained, "sizes": sizes, "codes": lists.blocks}

    def read(self, arrays: dict[str, Any]) -> Lists:
        """See `StoredVectors.read`. The codec is installed."""
        sizes = arrays["sizes"]
        if np.shape(sizes) != (1,) and self.metric != "cosine":
            raise ValueError(f"sizes must have shape (1,), got {np.shape(sizes)}")
        lists = self.restored(sizes, arrays["ids"], arrays["codes"])
        if "codebooks" in arrays:
            self.install(arrays["codebooks"])
            check_terms(self._trained(), lists.leading(1))
        elif lists.ntotal:
            raise ValueError(f"{lists.ntotal} vectors are stored in an index that was never trained")
        return lists

    def install(self, codebooks: Any) -> None:
        """Use the ranges (2, d) of a codec trained elsewhere. Raises ValueError if they are none."""
        pq = ScalarQuantizer(self.d)
        pq.install(codebooks)
        self.published.replace(self._with(pq))

    def check_same(self, other: StoredVectors) -> None:
        """See `StoredVectors.check_same`."""
        mine, theirs = self._trained().pq.codebooks, other._trained().pq.codebooks  # type: ignore[attr-defined]
        if not np.array_equal(mine, theirs):  # type: ignore[arg-type]
            raise ValueError("the two indexes have different codebooks: only indexes trained as one can be merged")

    def compiled(self, lists: Lists, parts: tuple[Any, ...], before: Any, sketch: bool | None) -> Any:
        """See `StoredVectors.compiled`."""
        return kernels.compiled_module("rerank_bytes").Store(lists, parts[self._part])


def stored_vectors(d: int, metric: Metric, dtype: str, published: Published) -> StoredVectors:
    """Room for vectors of one of the DTYPES. Raises ValueError if it is another."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    if dtype == "uint8":
        return ByteVectors(d, metric, published)
    return FloatVectors(d, metric, dtype, published)
