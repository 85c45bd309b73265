"""IndexIVFPQ: the inverted file with product quantization (Jégou, Douze, Schmid 2011, section IV)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from ivfpq import cosine
from ivfpq.assign import choose
from ivfpq.base import StoredIndex
from ivfpq.checks import (
    Floats,
    Ids,
    Metric,
    NotTrainedError,
    as_ids,
    as_metric,
    as_vectors,
    positive_int,
    read_only,
)
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.filtering import lists_to_fill, search_on, unfilled
from ivfpq.invlists import CODES_IN_BLOCK, InvertedLists
from ivfpq.kernels import dispatch
from ivfpq.kernels.quantizers import Quantizers, coarse_rows, term_rows
from ivfpq.kmeans import MAX_POINTS_PER_CENTROID, kmeans
from ivfpq.list_layout import Lists
from ivfpq.pq import Codes, ProductQuantizer, Quantizer
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult, best_k
from ivfpq.terms import check_terms
from ivfpq.threads import spread

UNTRAINED = "the index is not trained: call train first"
ADD_BLOCK = 1 << 18  # numbers of the vectors encoded at a time: 1 MiB, which stays in the caches


class IndexIVFPQ(StoredIndex):
    """Vectors sorted into nlist cells, each kept as the short code of what its cell's centroid leaves over.

    `train` finds the centroids (the coarse quantizer) and the product quantizer of the residuals. `add` sends a vector
    to the list of its nearest centroid c and stores the code of x - c. `search` looks into the `nprobe` lists whose
    centroids are nearest to the query, and ranks what it finds there by the distance to the codes.

    Parameters
    ----------
    d : int
        Dimension.
    nlist : int
        Cells.
    M, nbits : int
        Numbers in a code, and bits of each: see `ProductQuantizer`.
    metric : {"l2", "ip", "cosine"}
        Squared Euclidean distance, inner product, or cosine similarity. For cosine, vectors are scaled to length 1 as
        they come in, and the similarity is 1 - |x - y|^2 / 2: see `kernels.reference` for why. That of a zero vector is
        0: see `cosine`.
    nprobe : int
        Lists that a search looks into unless told otherwise; more than nlist means all.
    seed : int
        Of the random numbers that training uses: the same data and seed give the same index.

    Attributes
    ----------
    lists : InvertedLists
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.
    """

    __slots__ = ("_lists", "_metric", "_nprobe", "_quantizers_part", "_untrained", "seed")
    _quantizer: Callable[[int, int, int], Quantizer] = ProductQuantizer  # the codec: `IndexIVFRQ` has another
    _parameters: ClassVar[tuple[str, ...]] = ("d", "nlist", "M", "nbits", "metric", "nprobe", "seed")

    def __init__(
        self,
        d: int,
        nlist: int = 100,
        M: int = 8,
        nbits: int = 8,
        *,
        metric: Metric = "l2",
        nprobe: int = 1,
        seed: int = 0,
    ) -> None:
        self._untrained = self._quantizer(d, M, nbits)
        self._metric = as_metric(metric)
        nlist = positive_int(nlist, "nlist")
        untrained = self._untrained
        width = untrained.code_rows + term_rows(untrained, nlist, self._metric)
        self._lists = InvertedLists(nlist, width, untrained.dtype, 1 if untrained.in_rows else CODES_IN_BLOCK)
        self._quantizers_part = self._lists.published.append(None)
        self.nprobe = nprobe
        self.seed = int(seed)
        self.metadata: dict[str, Any] = {}
        self._begin_settings()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._parameters if name != "seed")
        return f"{type(self).__name__}({shown}; {self.ntotal} vectors)"

    @property
    def lists(self) -> InvertedLists:
        """What is stored."""
        return self._lists

    @property
    def pq(self) -> Quantizer:
        """The codec of what a centroid leaves over of a vector."""
        return self._untrained if self._quantizers is None else self._quantizers.pq

    @property
    def d(self) -> int:
        """Dimension."""
        return self._untrained.d

    @property
    def nlist(self) -> int:
        """Cells."""
        return self.lists.nlist

    @property
    def M(self) -> int:  # noqa: N802
        """Numbers in a code."""
        return self.pq.M

    @property
    def nbits(self) -> int:
        """Bits of each number of a code."""
        return self.pq.nbits

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        return self._metric

    @property
    def nprobe(self) -> int:
        """Lists that a search looks into unless told otherwise."""
        return self._nprobe

    @nprobe.setter
    def nprobe(self, value: int) -> None:
        self._nprobe = positive_int(value, "nprobe")

    @property
    def centroids(self) -> Floats | None:
        """The coarse quantizer, float32 (nlist, d), which cannot be written to; None before training."""
        return None if self._quantizers is None else self._quantizers.coarse.y

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return self._quantizers is not None

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        return self.pq.code_size

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return max(self.nlist, self.pq.train_size_min)

    def _what_training_depends_on(self) -> str:
        return f"nlist={self.nlist}, nbits={self.nbits}"

    def learned(self, x: Floats) -> list[Change]:
        """Centroids and codebooks. See `StoredIndex.learned`."""
        rng = np.random.default_rng(self.seed)
        centroids = self._cells(x, rng)
        pq = self._quantizer(self.d, self.M, self.nbits)
        most = MAX_POINTS_PER_CENTROID * pq.ksub
        if len(x) > most:
            x = x[np.sort(rng.choice(len(x), most, replace=False))]
        coarse = coarse_rows(read_only(centroids), self.metric)
        with np.errstate(over="ignore"):
            residuals = x - centroids[choose(x, coarse, 1, "ip" if self.metric == "ip" else "l2")[:, 0]]
        if np.isfinite(residuals).all():
            pq.train(residuals, rng)
        if pq.codebooks is None or not np.isfinite(pq.codebooks).all():
            raise ValueError(f"x lies too far apart for float32: its largest number is {np.abs(x).max():g}")
        return [(self._quantizers_part, Quantizers(coarse, pq, self.metric))]

    def encode(self, x: Floats) -> tuple[Ids, Codes]:
        """The list (n,) and the code with its term, as lists hold them, (n, width) of each vector.

        See `StoredIndex.encode`.
        """
        if self._metric != "cosine":
            return self.quantized(x)
        x = normalised(x)
        list_numbers, stored = self.quantized(x)
        return cosine.apart(list_numbers, x, self.nlist), stored

    def quantized(self, x: Floats) -> tuple[Ids, Codes]:
        """The list of the nearest centroid of each vector, as the metric compares them, and the code with its term."""
        trained = self._trained()
        list_numbers, codes = np.empty(len(x), np.int64), np.empty((len(x), self.M), self.lists.dtype)
        find, encode = trained.finders()
        step = max(1, ADD_BLOCK // self.d)

        def work(first: int, last: int) -> None:
            for start in range(first, last, step):
                part = slice(start, min(start + step, last))
                list_numbers[part] = find(x[part])[:, 0]
                residual = trained.coarse.y.take(list_numbers[part], axis=0)
                codes[part] = encode(np.subtract(x[part], residual, out=residual))

        spread(work, len(x), len(x) // 2 // step)
        return list_numbers, trained.with_terms(list_numbers, codes)

    def add_codes(self, list_numbers: Ids, codes: Codes, ids: Ids) -> None:
        """Store codes (n, M) made elsewhere in lists (n,) under ids (n,), distinct; nothing of it is checked but ids.

        Raises
        ------
        ValueError
            If an id is taken; then nothing is stored.
        """
        self.lists.add(list_numbers, self._trained().with_terms(list_numbers, codes), ids)

    def search_parts(self, x: Floats, k: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> SearchResult:
        """See `StoredIndex.search_parts`."""
        return self._found(x, k, nprobe, ids, None, parts)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str, parts: tuple[Any, ...]) -> Ids:
        """The ids that `search` gives. See `StoredIndex.candidates`."""
        x = normalised(x) if self._metric == "cosine" else x
        return self._found(x, k, nprobe, ids, kernel, parts).ids

    def _found(
        self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str | None, parts: tuple[Any, ...]
    ) -> SearchResult:
        """What `search` finds; with a kernel, the ids alone matter, in any order."""
        quantizers, all_lists, lists, ids, nprobe = self._prepared(nprobe, ids, parts)
        mended = self._metric == "cosine" and cosine.matters(x, self.lists, all_lists)

        def search(x: Floats, nprobe: int) -> SearchResult:
            if kernel is None or mended:
                return dispatch.search(x, nprobe, quantizers, lists, k)
            found = dispatch.candidates(x, nprobe, quantizers, lists, k, kernel)
            return SearchResult(np.empty((len(x), 0), np.float32), found)

        if ids is not None and lists.ntotal <= k:
            nprobe = self.nlist
        found = search(x, nprobe)
        if ids is not None and nprobe < self.nlist and len(short := unfilled(found)):
            search_on(
                found, search, x, short, lists_to_fill(x[short], quantizers.coarse, quantizers.space, lists.sizes, k)
            )
        return cosine.with_zero_vectors(found, x, self.lists, all_lists, ids) if mended else found

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors of the probed lists nearer than `radius`. See `StoredIndex.range_search`."""
        x = self._vectors(xq, "xq")
        radius = float(np.float32(radius))
        quantizers, all_lists, lists, ids, nprobe = self._prepared(nprobe, ids, self.lists.published.parts)
        found = dispatch.range_search(x, nprobe, quantizers, lists, radius)
        if self._metric == "cosine":
            return cosine.within_zero_vectors(found, x, self.lists, all_lists, radius, ids)
        return found

    def reachable(self, x: Floats, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Iterator[Ids]:
        """What `range_search` compares with. See `StoredIndex.reachable`."""
        x = normalised(x) if self._metric == "cosine" else x
        quantizers, all_lists, lists, ids, nprobe = self._prepared(nprobe, ids, parts)
        none = np.empty(0, np.int64)
        found = (
            np.concatenate([none, *(lists.list_ids(number) for number in numbers)])
            for numbers in choose(x, quantizers.coarse, nprobe, quantizers.space)
        )
        return cosine.reachable(found, x, self.lists, all_lists, ids) if self._metric == "cosine" else found

    def probe(self, xq: Any, nprobe: int | None = None) -> SearchResult:
        """The lists that a search with the same arguments looks into.

        Parameters
        ----------
        xq : array_like, shape (nq, d)
        nprobe : int, optional
            For this call only.

        Returns
        -------
        SearchResult
            `ids` int64 (nq, nprobe) are numbers of lists, nearest first; `distances` those to their centroids (inner
            products, for ip).
        """
        x = self._vectors(xq, "xq")
        trained, *_, nprobe = self._prepared(nprobe, None, self.lists.published.parts)
        numbers = choose(x, trained.coarse, nprobe, trained.space).ravel()
        query = np.repeat(np.arange(len(x)), nprobe)
        distances = pair_distances_at(x, query, trained.coarse.y, numbers, trained.space)
        return best_k(query, distances, numbers, len(x), nprobe, trained.space)

    def codes_of(self, ids: Any) -> tuple[Ids, Codes]:
        """The lists (n,) and the codes (n, M) that vectors are stored by, in the order of `ids` (n,).

        Raises
        ------
        KeyError
            If the index does not hold an id.
        """
        ids, lists = as_ids(ids), self.lists.view
        rows = self.lists.find(lists, ids)
        if (rows < 0).any():
            raise KeyError(f"id {ids[rows < 0][0]} is not in the index")
        return lists.list_numbers(rows), self.pq.from_rows(lists.codes(rows))

    def reconstruct(self, id: int) -> Floats:
        """What is left of the vector stored under `id`: its centroid and its codewords. float32 (d,).

        Raises
        ------
        KeyError
            If the index does not hold the id.
        """
        trained = self._trained()
        list_numbers, codes = self.codes_of(as_ids([id], "id"))
        if list_numbers[0] == self.nlist:
            return np.zeros(self.d, np.float32)
        vector: Floats = trained.coarse.y[list_numbers[0]] + trained.pq.decode(codes)[0]
        return vector

    def _merged(self, other: IndexIVFPQ, parts: tuple[Any, ...]) -> list[Change]:
        self._check_same(other, "d", "nlist", "M", "nbits", "metric")
        mine, theirs = self._trained(), other._trained()
        if not np.array_equal(mine.coarse.y, theirs.coarse.y):
            raise ValueError("the two indexes have different centroids: only indexes trained as one can be merged")
        if not np.array_equal(mine.pq.codebooks, theirs.pq.codebooks):  # type: ignore[arg-type]
            raise ValueError("the two indexes have different codebooks: only indexes trained as one can be merged")
        return [self.lists.merged(parts[other.lists.part].lists)]

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        lists = self.lists.settled()
        sizes = lists.sizes if lists.sizes[self.nlist :].any() else lists.sizes[: self.nlist]
        parameters = {name: getattr(self, name) for name in self._parameters}
        arrays = {} if not self.is_trained else {"centroids": self.centroids, "codebooks": self.pq.codebooks}
        name = "pairs" if self.pq.paired else "codes"
        return parameters, {**arrays, "sizes": sizes, "ids": lists.packed_ids, name: lists.blocks}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexIVFPQ:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        nlist = parameters["nlist"] if "nlist" in cls._parameters else 1
        if np.shape(arrays["sizes"]) not in ((nlist,), (nlist + 1,)):  # before nlist is believed
            raise ValueError(f"sizes must have shape ({nlist},), got {np.shape(arrays['sizes'])}")
        index = cls(**parameters)
        pq, codes = index.pq, arrays["pairs" if "pairs" in arrays else "codes"]
        if pq.paired and "pairs" not in arrays:
            codes = _paired(pq, codes)
        # Version 2 of the file had no terms with residual quantizers: they are computed.
        bare = index.lists.width == pq.code_rows + 2 and np.shape(codes)[1:2] == (pq.code_rows,)
        stored = InvertedLists(nlist, pq.code_rows, index.lists.dtype) if bare else index.lists
        lists = stored.restored(arrays["sizes"], arrays["ids"], codes)
        if "centroids" in arrays:
            index.install(arrays["centroids"], arrays["codebooks"])
        elif lists.ntotal:
            raise ValueError(f"{lists.ntotal} vectors are stored in an index that was never trained")
        if pq.nbits not in (4, 8, 16) and (lists.blocks[:, : pq.M] >= pq.ksub).any():
            raise ValueError(f"codes must be below 2**nbits = {pq.ksub}")
        if pq.nbits == 4 and pq.M % 2 and (lists.blocks[:, pq.code_rows - 1] > 15).any():
            raise ValueError(f"codes must be below 2**nbits = {pq.ksub}, the last one alone in its byte")
        if pq.keeps_lengths:
            pq.check_codes(lists.blocks[:, : pq.M, 0])
        if bare and lists.ntotal:
            rows = lists.rows()
            index.add_codes(lists.list_numbers(), pq.from_rows(lists.codes(rows)), lists.ids(rows))
            index.lists.settled()
        elif not bare:
            if lists.ntotal:
                check_terms(index._trained(), lists.leading(nlist))
            index.lists.publish(lists)
        return index

    def install(self, centroids: Any, codebooks: Any) -> None:
        """Use quantizers trained elsewhere: `centroids` (nlist, d) and `codebooks` of the codec's `shape`.

        Raises
        ------
        ValueError
            If a shape is wrong or a number is not finite.
        RuntimeError
            If vectors are stored already.
        """
        centroids = as_vectors(centroids, self.d, "centroids")
        if len(centroids) != self.nlist:
            raise ValueError(f"centroids must have shape ({self.nlist}, {self.d}), got {centroids.shape}")
        pq = self._quantizer(self.d, self.M, self.nbits)
        pq.install(codebooks)
        quantizers = Quantizers(coarse_rows(read_only(centroids), self.metric), pq, self.metric)
        with self._lock:
            if self.ntotal:
                raise RuntimeError(f"the index holds {self.ntotal} vectors: reset it before changing its quantizers")
            self.lists.published.replace((self._quantizers_part, quantizers), (self._settings_part, ()))

    def _cells(self, x: Floats, rng: np.random.Generator) -> Floats:
        """The coarse quantizer of training vectors (n, d): float32 (nlist, d)."""
        return kmeans(x, self.nlist, rng, spherical=self.metric == "ip")

    def _prepared(
        self, nprobe: int | None, ids: Any, parts: tuple[Any, ...]
    ) -> tuple[Quantizers, Lists, Lists, Ids | None, int]:
        """The quantizers, all lists, what a search goes through of them, the allowed ids, and how many lists to see."""
        quantizers: Quantizers | None = parts[self._quantizers_part]
        if quantizers is None:
            raise NotTrainedError(UNTRAINED)
        nprobe = self.nprobe if nprobe is None else positive_int(nprobe, "nprobe")
        all_lists: Lists = parts[self.lists.part].lists
        lists = all_lists.leading(self.nlist)
        if ids is not None:
            ids = as_ids(ids)
            lists = self.lists.only(lists, ids)
        return quantizers, all_lists, lists, ids, min(nprobe, self.nlist)

    @property
    def _quantizers(self) -> Quantizers | None:
        quantizers: Quantizers | None = self.lists.published.parts[self._quantizers_part]
        return quantizers

    def _trained(self) -> Quantizers:
        quantizers = self._quantizers
        if quantizers is None:
            raise NotTrainedError(UNTRAINED)
        return quantizers


def _paired(pq: Quantizer, codes: Any) -> Any:
    """Blocks of a file older than version 4, which had each number of 4 bits in a byte, as lists hold them now."""
    if np.ndim(codes) != 3 or codes.dtype != np.uint8 or codes.shape[1] < pq.M:
        raise ValueError(f"codes must be uint8 (blocks, {pq.M} or more, lanes), got {codes.dtype} {np.shape(codes)}")
    if (codes[:, : pq.M] >= pq.ksub).any():
        raise ValueError(f"codes must be below 2**nbits = {pq.ksub}")
    return np.concatenate([pq.to_rows(codes[:, : pq.M]), codes[:, pq.M :]], axis=1)
