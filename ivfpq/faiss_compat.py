"""faiss behind our verbs, and, from `faiss_convert`, indexes of each other's kinds."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import faiss  # its stubs are incomplete, so what it makes is Any below
import numpy as np

from ivfpq.abstract import Index
from ivfpq.atomic_file import replaced
from ivfpq.checks import Floats, Ids, IndexFileError, Metric, as_ids, as_metric, positive_int
from ivfpq.cosine import zero_rows
from ivfpq.distances import normalised
from ivfpq.faiss_convert import from_faiss, lists_from_faiss, metric_of, to_faiss
from ivfpq.filtering import search_until_filled
from ivfpq.results import SearchResult

__all__ = ["FaissIndex", "from_faiss", "to_faiss"]


class FaissIndex(Index):
    """A faiss index behind our verbs and conventions, to be measured and offered beside ours.

    Parameters
    ----------
    d : int
        Dimension.
    spec : str
        faiss's own factory string.
    metric : {"l2", "ip", "cosine"}
        Cosine scales vectors and queries to length 1, searches by L2 (better on codes, the same on vectors) and gives
        1 - distance / 2. That of a zero query is 0; a stored zero vector, which faiss cannot tell from others, is taken
        to be at the similarity 1/2.
    nprobe : int
        Lists that a search looks into unless told otherwise.
    """

    def __init__(self, d: int, spec: str, *, metric: Metric = "l2", nprobe: int = 1) -> None:
        self._metric = as_metric(metric)
        index = faiss.index_factory(d, spec, faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2)
        if not _has_lists(index):
            index = faiss.IndexIDMap2(index)  # inverted lists keep ids, other kinds do not
        self._take(index, nprobe)
        if hasattr(self._coded, "do_polysemous_training"):
            # A factory string trains for polysemous codes unless it says "np". Plain searches never use that, answer
            # the same without, and it takes longer than all the rest of the training together.
            self._coded.do_polysemous_training = False
        parts: list[Any] = [self._coded, getattr(self._coded, "pq", None)]
        for part in parts:
            if hasattr(part, "cp"):
                part.cp.min_points_per_centroid = 1  # small collections are meant: no warning for each k-means

    def _take(self, index: Any, nprobe: int) -> None:
        self.faiss_index = index
        self.metadata = {}
        self._writing = threading.RLock()
        self._lists: Any = faiss.downcast_index(faiss.extract_index_ivf(index)) if _has_lists(index) else None
        # What holds codes or vectors, inside whatever is around it.
        self._coded: Any = index if self._lists is None else self._lists
        while self._lists is None and hasattr(self._coded, "index"):
            self._coded = faiss.downcast_index(self._coded.index)
        self.nprobe = positive_int(nprobe, "nprobe")

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        return self._metric

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.faiss_index.d)

    @property
    def ntotal(self) -> int:
        """Vectors stored."""
        return int(self.faiss_index.ntotal)

    @property
    def nlist(self) -> int | None:
        """Inverted lists; None for an index without."""
        return None if self._lists is None else int(self._lists.nlist)

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.faiss_index.is_trained)

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        if self._lists is not None:
            return int(self._lists.code_size)  # sa_code_size would count the list number, which is not stored
        return int(faiss.downcast_index(self.faiss_index.index).sa_code_size())

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, with its id of 8."""
        return self.code_size + 8

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors, as far as faiss tells: none."""
        return 0

    def train(self, x: Any) -> None:
        """Train on vectors (n, d)."""
        self.faiss_index.train(self._vectors(x, "x"))

    def _store(self, x: Floats, ids: Ids) -> None:
        self.faiss_index.add_with_ids(normalised(x) if self.metric == "cosine" else x, ids)

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out; returns how many of them it held. A RuntimeError where faiss cannot (IndexRefine)."""
        return int(self.faiss_index.remove_ids(as_ids(ids)))

    def search(
        self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None, k_factor: int | None = None
    ) -> SearchResult:
        """The k nearest of each query (nq, d), among `ids` if given; missing places are id -1 at +inf (or -inf).

        How many lists are looked into is said by `StoredIndex.search`. `k_factor` is for faiss's IndexRefine, whose own
        is used if it is not given.

        Raises
        ------
        ValueError
            If `ids` are given and faiss cannot search among some only: codes without lists.
        """
        x, k = self._vectors(xq, "xq"), positive_int(k, "k")
        nprobe = self.nprobe if nprobe is None else positive_int(nprobe, "nprobe")
        k_factor = None if k_factor is None else positive_int(k_factor, "k_factor")
        allowed = None if ids is None else as_ids(ids)
        if allowed is not None and isinstance(self._coded, faiss.IndexPQ | faiss.IndexResidualQuantizer):
            raise ValueError(f"faiss cannot restrict the search of an {type(self._coded).__name__} to ids")
        nlist = self.nlist or 1
        if allowed is None:
            found = self._search(x, k, min(nprobe, nlist), None, k_factor)
        else:
            selector = faiss.IDSelectorBatch(allowed)
            first, most = min(nprobe, nlist), nlist
            if self._lists is None and isinstance(self._coded, faiss.IndexHNSW):
                # What is widened here is how much of the graph is looked at.
                first, most = max(k, self._coded.hnsw.efSearch), max(1, self.ntotal)
            found = search_until_filled(
                lambda x, n: self._search(x, k, n, selector, k_factor), x, first, most, k, len(np.unique(allowed))
            )
        if self.metric == "cosine" and len(asked := zero_rows(x)):
            known = self.ids
            smallest = (known if allowed is None else known[np.isin(known, allowed)])[:k]
            found.ids[asked], found.distances[asked] = -1, -np.inf
            found.ids[asked, : len(smallest)], found.distances[asked, : len(smallest)] = smallest, 0
        return found

    def _search(self, x: Floats, k: int, width: int, selector: Any, k_factor: int | None) -> SearchResult:
        """What faiss finds in `width` lists, or with so many candidates of a graph."""
        # Parameters of the call: the index itself is never changed.
        parameters: Any = None
        if self._lists is not None:
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = width
        elif selector is not None and isinstance(self._coded, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
            parameters.efSearch = width
        elif selector is not None:
            parameters = faiss.SearchParameters()
        if selector is not None:
            parameters.sel = selector
        refine = self._refine
        if refine is not None and (parameters is not None or k_factor is not None):
            kind: Any = faiss.IndexRefineSearchParameters
            parameters = kind(k_factor=float(k_factor or refine.k_factor), base_index_params=parameters)
        distances, found = self.faiss_index.search(x, k, params=parameters)
        if self.metric == "cosine" and metric_of(self.faiss_index) == "l2":
            distances = 1 - distances / 2
        distances[found < 0] = np.inf if self.metric == "l2" else -np.inf
        return SearchResult(distances, found)

    @property
    def _refine(self) -> Any:
        """The index that ranks candidates again, in a map of ids or not; None if there is none."""
        index: Any = self.faiss_index
        if isinstance(index, faiss.IndexIDMap):
            index = faiss.downcast_index(index.index)
        return index if isinstance(index, faiss.IndexRefine) else None

    @property
    def ids(self) -> Ids:
        """All ids that it holds, ascending: int64 (ntotal,)."""
        if self._lists is None:
            return np.sort(faiss.vector_to_array(self.faiss_index.id_map))
        return np.sort(lists_from_faiss(self._lists)[1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index in faiss's own format: the old file or the new one is there, whatever happens."""
        if self._lists is not None:
            self._lists.nprobe = self.nprobe
        with replaced(path) as file:
            faiss.write_index(self.faiss_index, file.name)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, metric: Metric | None = None) -> FaissIndex:
        """Read a faiss file. `metric` says "cosine" where the file, which cannot, says L2 or inner product.

        Raises
        ------
        IndexFileError
            If faiss cannot read the file.
        ValueError
            If the file is for another metric.
        """
        with Path(path).open("rb"):  # for faiss a missing file is a broken one
            pass
        try:
            index = faiss.read_index(os.fspath(path))
        except RuntimeError as error:
            raise IndexFileError(f"{os.fspath(path)}: faiss cannot read it: {error}") from None
        known = metric_of(index)
        if metric is not None and as_metric(metric) not in (known, "cosine"):
            raise ValueError(f"{os.fspath(path)} holds an index for {known!r}, not for {metric!r}")
        made = cls.__new__(cls)
        made._metric = metric or known
        made._take(index, int(faiss.extract_index_ivf(index).nprobe) if _has_lists(index) else 1)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and for other processes: what a file would hold."""
        return _restored, (faiss.serialize_index(self.faiss_index), self.metric, self.nprobe), dict(self.metadata)

    def __setstate__(self, metadata: dict[str, Any]) -> None:
        self.metadata = dict(metadata)

    @property
    def _lock(self) -> Any:
        return self._writing

    def _next_id(self) -> int:
        return int(self.ids.max(initial=-1)) + 1


def _restored(data: Any, metric: Metric, nprobe: int) -> FaissIndex:
    """The adapter of a serialized faiss index."""
    made = FaissIndex.__new__(FaissIndex)
    made._metric = metric
    made._take(faiss.deserialize_index(data), nprobe)
    return made


def _has_lists(index: Any) -> bool:
    return faiss.try_extract_index_ivf(index) is not None
