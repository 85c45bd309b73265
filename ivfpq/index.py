"""IndexIVFPQ: the inverted file with product quantization (Jégou, Douze, Schmid 2011, section IV); IndexPQ without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ivfpq.assign import choose, finder
from ivfpq.checks import Floats, Ids, Metric, NotTrainedError, as_ids, as_metric, as_vectors, positive_int
from ivfpq.distances import normalised, pair_distances_at
from ivfpq.invlists import InvertedLists, Lists
from ivfpq.kernels import dispatch
from ivfpq.kernels.quantizers import Quantizers, coarse_rows, term_rows
from ivfpq.kmeans import MAX_POINTS_PER_CENTROID, kmeans
from ivfpq.pq import Codes, ProductQuantizer, Quantizer
from ivfpq.results import RangeResult, SearchResult, best_k
from ivfpq.threads import spread

ADD_BLOCK = 1 << 18  # numbers of the vectors encoded at a time: 1 MiB, which stays in the caches


class IndexIVFPQ:
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
        they come in, and the similarity is 1 - |x - y|^2 / 2: see `kernels.reference` for why.
    nprobe : int
        Lists that a search looks into unless told otherwise; more than nlist means all.
    seed : int
        Of the random numbers that training uses: the same data and seed give the same index.

    Attributes
    ----------
    pq : ProductQuantizer
    lists : InvertedLists
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    Any number of threads may search while one adds or removes: a search sees the index as it was at one moment.
    """

    __slots__ = ("_metric", "_nprobe", "_quantizers", "lists", "metadata", "pq", "seed")
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
        self.pq = self._quantizer(d, M, nbits)
        self._metric = as_metric(metric)
        nlist = positive_int(nlist, "nlist")
        width = self.pq.M + term_rows(self.pq, nlist, self._metric)
        self.lists = InvertedLists(nlist, width, self.pq.dtype)
        self.nprobe = nprobe
        self.seed = int(seed)
        self._quantizers: Quantizers | None = None
        self.metadata: dict[str, Any] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._parameters if name != "seed")
        return f"{type(self).__name__}({shown}; {self.ntotal} vectors)"

    @property
    def d(self) -> int:
        """Dimension."""
        return self.pq.d

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
    def ntotal(self) -> int:
        """Vectors stored."""
        return self.lists.view.ntotal

    @property
    def centroids(self) -> Floats | None:
        """The coarse quantizer, float32 (nlist, d); None before training."""
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
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory: a byte (above 8 bits two) for each number, its term's too, and its id."""
        return self.lists.view.bytes_per_vector

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return max(self.nlist, self.pq.ksub)

    def train(self, x: Any) -> None:
        """Find the centroids and the codebooks.

        Parameters
        ----------
        x : array_like, shape (n, d)
            At least `train_size_min` vectors like those to be stored.

        Raises
        ------
        ValueError
            If there are too few vectors.
        RuntimeError
            If vectors are stored already: their codes would mean something else afterwards.
        """
        x = self._vectors(x, "x")
        if len(x) < self.train_size_min:
            raise ValueError(
                f"training needs at least {self.train_size_min} vectors (nlist={self.nlist}, nbits={self.nbits}), "
                f"got n={len(x)}"
            )
        if self.ntotal:
            raise RuntimeError(f"the index holds {self.ntotal} vectors: reset it before training again")
        rng = np.random.default_rng(self.seed)
        centroids = self._cells(x, rng)
        most = MAX_POINTS_PER_CENTROID * self.pq.ksub
        if len(x) > most:
            x = x[np.sort(rng.choice(len(x), most, replace=False))]
        coarse = coarse_rows(centroids, self.metric)
        self.pq.train(x - centroids[choose(x, coarse, 1, "ip" if self.metric == "ip" else "l2")[:, 0]], rng)
        self._quantizers = Quantizers(coarse, self.pq, self.metric)

    def add(self, x: Any) -> None:
        """Store vectors (n, d) under the next free ids: 0, 1, ..., or on from the largest id there is."""
        x = as_vectors(x, self.d)
        with self.lists.lock:  # nobody else may take these ids
            first = self.lists.next_id()
            self.add_with_ids(x, np.arange(first, first + len(x)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Store vectors (n, d) under ids (n,), distinct and not yet in the index.

        Raises
        ------
        NotTrainedError
            Before training.
        ValueError
            If an id is taken or comes twice; then nothing is stored.
        """
        trained = self._trained()
        x = self._vectors(x, "x")
        ids = as_ids(ids, n=len(x))
        self.add_codes(*self._encoded(x, trained), ids)

    def add_codes(self, list_numbers: Ids, codes: Codes, ids: Ids) -> None:
        """Store codes (n, M) made elsewhere in lists (n,) under ids (n,), distinct; nothing of it is checked but ids.

        Raises
        ------
        ValueError
            If an id is taken; then nothing is stored.
        """
        self.lists.add(list_numbers, self._trained().with_terms(list_numbers, codes), ids)

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,), distinct, by `x` (n, d).

        A search meanwhile sees all of the old ones or all of the new ones.

        Raises
        ------
        NotTrainedError
            Before training.
        ValueError
            If an id comes twice.
        KeyError
            If the index does not hold an id. In either case nothing is changed.
        """
        trained = self._trained()
        x = self._vectors(x, "x")
        ids = as_ids(ids, n=len(x))
        list_numbers, codes = self._encoded(x, trained)
        self.lists.update(list_numbers, trained.with_terms(list_numbers, codes), ids)

    def search(self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None) -> SearchResult:
        """The k nearest of each query among the vectors of its probed lists.

        Parameters
        ----------
        xq : array_like, shape (nq, d)
        k : int
        nprobe : int, optional
            Lists to look into, for this call only.
        ids : array_like of int, optional
            Consider these ids only; those the index does not hold are passed over.

        Returns
        -------
        SearchResult
            `distances` float32 (nq, k), `ids` int64 (nq, k); best first, ties by the smaller id. Places that no
            candidate fills hold id -1 at +inf (l2) or -inf (ip, cosine).
        """
        k = positive_int(k, "k")
        return dispatch.search(*self._prepared(xq, nprobe, ids), k)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str) -> Ids:
        """The ids that `search` gives, int64 (nq, k), in no order: for `IndexRefine`, which knows the active kernel."""
        return dispatch.candidates(*self._prepared(x, nprobe, ids), k, kernel)

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors of the probed lists nearer than `radius` (for ip and cosine: more similar than it).

        Returns
        -------
        RangeResult
            `lims` (nq + 1,), `distances` and `ids` (lims[-1],): those of query i are at lims[i]:lims[i + 1], best
            first.
        """
        return dispatch.range_search(*self._prepared(xq, nprobe, ids), float(np.float32(radius)))

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
        x, nprobe, trained, _ = self._prepared(xq, nprobe, None)
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
        return lists.list_numbers(rows), lists.codes(rows)[:, : self.M]

    def reconstruct(self, id: int) -> Floats:
        """What is left of the vector stored under `id`: its centroid and its codewords. float32 (d,).

        Raises
        ------
        KeyError
            If the index does not hold the id.
        """
        trained = self._trained()
        list_numbers, codes = self.codes_of(as_ids([id], "id"))
        vector: Floats = trained.coarse.y[list_numbers[0]] + self.pq.decode(codes)[0]
        return vector

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held."""
        return self.lists.remove(as_ids(ids))

    def merge_from(self, other: IndexIVFPQ) -> None:
        """Add what `other` stores, under the same ids. `other` stays as it is.

        Raises
        ------
        TypeError
            If `other` is of another kind.
        ValueError
            If the two were trained differently, or an id is in both; then nothing changes.
        """
        if type(other) is not type(self):
            raise TypeError(f"an {type(self).__name__} can only take in another one, got {type(other).__name__}")
        for name in ("d", "nlist", "M", "nbits", "metric"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"the two indexes differ in {name}: {mine} and {theirs}")
        if not np.array_equal(self._trained().coarse.y, other._trained().coarse.y):
            raise ValueError("the two indexes have different centroids: only indexes trained as one can be merged")
        if not np.array_equal(self.pq.codebooks, other.pq.codebooks):  # type: ignore[arg-type]
            raise ValueError("the two indexes have different codebooks: only indexes trained as one can be merged")
        self.lists.merge(other.lists.view)

    def reset(self) -> None:
        """Forget the stored vectors, not the training."""
        self.lists.clear()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        lists = self.lists.settled()
        parameters = {name: getattr(self, name) for name in self._parameters}
        arrays = {} if not self.is_trained else {"centroids": self.centroids, "codebooks": self.pq.codebooks}
        return parameters, {**arrays, "sizes": lists.sizes, "ids": lists.packed_ids, "codes": lists.blocks}

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexIVFPQ:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        nlist = parameters["nlist"] if "nlist" in cls._parameters else 1
        if np.shape(arrays["sizes"]) != (nlist,):  # before nlist is believed
            raise ValueError(f"sizes must have shape ({nlist},), got {np.shape(arrays['sizes'])}")
        index = cls(**parameters)
        # Version 2 of the file had no terms with residual quantizers: they are computed.
        bare = index.lists.width == index.M + 2 and np.shape(arrays["codes"])[1:2] == (index.M,)
        stored = InvertedLists(nlist, index.M, index.lists.dtype) if bare else index.lists
        lists = stored.restored(arrays["sizes"], arrays["ids"], arrays["codes"])
        if "centroids" in arrays:
            index.install(arrays["centroids"], arrays["codebooks"])
        elif lists.ntotal:
            raise ValueError(f"{lists.ntotal} vectors are stored in an index that was never trained")
        if index.pq.nbits not in (8, 16) and (lists.blocks[:, : index.M] >= index.pq.ksub).any():
            raise ValueError(f"codes must be below 2**nbits = {index.pq.ksub}")
        if bare and lists.ntotal:
            rows = lists.rows()
            index.add_codes(lists.list_numbers(), lists.codes(rows), lists.ids(rows))
            index.lists.settled()
        elif not bare:
            index.lists.publish(lists)
        return index

    def install(self, centroids: Any, codebooks: Any) -> None:
        """Use quantizers trained elsewhere: `centroids` (nlist, d) and `codebooks` (M, ksub, dsub).

        Raises
        ------
        ValueError
            If a shape is wrong or a number is not finite.
        RuntimeError
            If vectors are stored already.
        """
        if self.ntotal:
            raise RuntimeError(f"the index holds {self.ntotal} vectors: reset it before changing its quantizers")
        centroids = as_vectors(centroids, self.d, "centroids")
        if len(centroids) != self.nlist:
            raise ValueError(f"centroids must have shape ({self.nlist}, {self.d}), got {centroids.shape}")
        shape = (self.M, self.pq.ksub, self.pq.dsub)
        if np.shape(codebooks) != shape:
            raise ValueError(f"codebooks must have shape {shape}, got {np.shape(codebooks)}")
        flat = as_vectors(np.reshape(codebooks, (-1, self.pq.dsub)), self.pq.dsub, "codebooks")
        self.pq.codebooks = flat.reshape(shape)
        self._quantizers = Quantizers(coarse_rows(centroids, self.metric), self.pq, self.metric)

    def _cells(self, x: Floats, rng: np.random.Generator) -> Floats:
        """The coarse quantizer of training vectors (n, d): float32 (nlist, d)."""
        return kmeans(x, self.nlist, rng, spherical=self.metric == "ip")

    def _prepared(self, xq: Any, nprobe: int | None, ids: Any) -> tuple[Floats, int, Quantizers, Lists]:
        """Queries, how many lists each looks into, the quantizers, and the lists as they are now."""
        trained = self._trained()
        x = self._vectors(xq, "xq")
        nprobe = self.nprobe if nprobe is None else positive_int(nprobe, "nprobe")
        lists = self.lists.view
        if ids is not None:
            lists = self.lists.only(lists, as_ids(ids))
        return x, min(nprobe, self.nlist), trained, lists

    def _encoded(self, x: Floats, trained: Quantizers) -> tuple[Ids, Codes]:
        """The list (n,) and the code (n, M) of each vector."""
        list_numbers, codes = np.empty(len(x), np.int64), np.empty((len(x), self.M), self.lists.dtype)
        find, encode = finder([trained.coarse], trained.space), self.pq.encoder()
        step = max(1, ADD_BLOCK // self.d)

        def work(first: int, last: int) -> None:
            for start in range(first, last, step):
                part = slice(start, min(start + step, last))
                list_numbers[part] = find(x[part])[:, 0]
                residual = trained.coarse.y.take(list_numbers[part], axis=0)
                codes[part] = encode(np.subtract(x[part], residual, out=residual))

        spread(work, len(x), len(x) // 2 // step)
        return list_numbers, codes

    def _vectors(self, x: Any, name: str) -> Floats:
        x = as_vectors(x, self.d, name)
        return normalised(x) if self._metric == "cosine" else x

    def _trained(self) -> Quantizers:
        if self._quantizers is None:
            raise NotTrainedError("the index is not trained: call train first")
        return self._quantizers


class IndexPQ(IndexIVFPQ):
    """Codes of the vectors themselves, all of which every search scans (section III: product quantization alone).

    This is the inverted file with a single list whose centroid is the origin: what the centroid leaves over of a vector
    is the vector. All else is that of `IndexIVFPQ`; `nprobe` is taken and means nothing here.

    Parameters
    ----------
    d, M, nbits, metric, seed
        See `IndexIVFPQ`.
    """

    __slots__ = ()
    _parameters = ("d", "M", "nbits", "metric", "seed")

    def __init__(self, d: int, M: int = 8, nbits: int = 8, *, metric: Metric = "l2", seed: int = 0) -> None:
        super().__init__(d, 1, M, nbits, metric=metric, seed=seed)

    def install(self, centroids: Any, codebooks: Any) -> None:
        """Use codebooks (M, ksub, dsub) trained elsewhere. `centroids` must be the origin, (1, d); else as there."""
        if np.any(centroids):
            raise ValueError("centroids must be the origin alone: there is one list, of whole vectors")
        super().install(centroids, codebooks)

    def _cells(self, x: Floats, rng: np.random.Generator) -> Floats:
        return np.zeros((1, self.d), np.float32)
