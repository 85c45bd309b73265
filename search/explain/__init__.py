"""Why a picture was found, or was not: where it is like the query, where the index keeps it, and what a search did."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.encoders import Encoder
from ivfpq import IndexIVFPQ
from ivfpq.distances import normalised
from search.engine import SearchEngine
from search.filters import Filter, FilterLike
from search.hits import Answer
from search.inverted_file import InvertedFile
from search.neighbour_reasons import NeighbourReason, explain_neighbours
from search.options import SearchOptions
from search.searcher import RERANK_FACTOR

Vector = NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SearchPath:
    """What one search looked at.

    Attributes
    ----------
    compared : int
        Centroids, or all pictures where there are no lists.
    probed : tuple of int
        Numbers of the lists looked into, nearest first; empty where there are none.
    scanned, reranked : int
        Codes compared, and how many pictures were then ranked again by their stored vectors.
    """

    compared: int
    probed: tuple[int, ...]
    scanned: int
    reranked: int

    def __str__(self) -> str:
        if not self.probed:
            return f"{self.compared:,} pictures compared, one by one."
        steps = [
            f"{self.compared:,} centroids compared",
            f"{len(self.probed):,} {'list' if len(self.probed) == 1 else 'lists'} probed",
            f"{self.scanned:,} codes scanned",
        ]
        return ", ".join([*steps, f"{self.reranked:,} re-ranked"] if self.reranked else steps) + "."


@dataclass(frozen=True)
class Place:
    """Where an index keeps a picture, seen from a query.

    Attributes
    ----------
    list_number : int
    list_rank : int
        1 if this list's centroid is the nearest to the query.
    list_ids : int64 array
        All pictures in the list, this one among them.
    code : bytes
        All that the index knows of the picture besides its list.
    score : float
        Similarity (or distance) to the query by the code.
    rank : int
        Its rank by that among the scanned codes; had its list been probed, if it was not. The query's own picture does
        not count.
    """

    list_number: int
    list_rank: int
    list_ids: NDArray[np.int64]
    code: bytes
    score: float
    rank: int


@dataclass(frozen=True)
class Explanation:
    """What became of a picture in a search.

    Attributes
    ----------
    rank : int or None
        In the results; None if it is not among them.
    exact_rank, exact_score : int, float
        By exact search.
    place : Place or None
        None where the engine has no inverted lists.
    verdict : str
        The fate of the picture in a sentence or two.
    lost : bool
        Whether exact search would have shown it and this one does not.
    neighbours : NeighbourReason or None
        What its neighbours changed afterwards; None where they do not count. All else is said of the plain order.
    """

    id: int
    rank: int | None
    exact_rank: int
    exact_score: float
    place: Place | None
    path: SearchPath
    verdict: str
    lost: bool
    neighbours: NeighbourReason | None = None


@dataclass(frozen=True)
class CellMap:
    """The coarse cells of an index on a plane.

    Attributes
    ----------
    points : float array, shape (nlist, 2)
        Centroids.
    query : float array, shape (2,)
    sizes : int array, shape (nlist,)
        Pictures in each list.
    probed : int array
        Numbers of the lists that the search looks into, nearest first.
    """

    points: NDArray[Any]
    query: NDArray[Any]
    sizes: NDArray[np.int64]
    probed: NDArray[np.int64]


def explain(
    engine: SearchEngine,
    vector: Vector,
    own_id: int | None,
    id: int,
    options: SearchOptions,
    *,
    filter: Filter | FilterLike | None = None,
) -> Explanation:
    """Follow a picture through a search.

    Parameters
    ----------
    vector, own_id
        The query, as `SearchEngine.encode` returns it.
    id : int
        Any picture of the collection, found or not.
    filter : Filter or mapping, optional
        See `SearchEngine.search`.
    """
    asked, reason = options, explain_neighbours(engine, vector, own_id, id, options, filter=filter)
    options = replace(options, neighbourhood=0)  # of what follows the index knows nothing of neighbours
    answer = engine.search_vector(vector, options, own_id=own_id, filter=filter)
    allowed = Filter.of(filter).ids(engine.store)
    exact = engine.index("exact")
    exact_score = float(exact.search(vector[None], 1, ids=np.array([id])).distances[0, 0])
    exact_rank = _rank(exact, vector[None], id, exact_score, own_id, ids=allowed)
    path = search_path(engine, vector, answer, options, filter=filter)
    file = inverted_file(engine, options)
    place = None if file is None else _place(file, vector, id, own_id, len(path.probed), allowed)
    rank = next((hit.rank for hit in answer if hit.id == id), None)
    lost = rank is None and exact_rank <= options.k
    if reason is not None:
        lost = _is_lost(engine, vector, own_id, id, asked, filter)
    verdict = _verdict(rank, exact_rank, place, path, options, own_id is not None)
    return Explanation(id, rank, exact_rank, exact_score, place, path, verdict, lost, reason)


def search_path(
    engine: SearchEngine,
    vector: Vector,
    answer: Answer,
    options: SearchOptions,
    *,
    filter: Filter | FilterLike | None = None,
) -> SearchPath:
    """What a search with these options, which gave this answer, looked at."""
    file = inverted_file(engine, options)
    allowed = Filter.of(filter).ids(engine.store)
    if file is None:
        return SearchPath(int(engine.store.ids.size if allowed is None else allowed.size), (), 0, answer.reranked)
    probed = _probed(engine, file, vector, options, answer.own_id, allowed)
    lists = file.cells.lists.view
    if allowed is None:
        scanned = int(lists.sizes[probed].sum())
    else:
        scanned = int(np.isin(file.cells.codes_of(allowed)[0], probed).sum())
    return SearchPath(file.cells.nlist, tuple(probed.tolist()), scanned, answer.reranked)


def cell_map(
    engine: SearchEngine,
    vector: Vector,
    options: SearchOptions,
    *,
    own_id: int | None = None,
    filter: Filter | FilterLike | None = None,
    method: str = "pca",
) -> CellMap | None:
    """The cells on a plane, with the query and the lists that a search looks into; None where there are no lists.

    Parameters
    ----------
    method : {"pca", "umap"}
        UMAP keeps neighbours together better; it needs the package umap-learn, and a while to begin with.
    """
    file = inverted_file(engine, options)
    if file is None or file.cells.nlist < 3:
        return None
    points, projection = _plane(file.cells, method)
    x = file.seen(vector)
    query = projection.transform(normalised(x) if file.cells.metric == "cosine" else x)[0]
    allowed = Filter.of(filter).ids(engine.store)
    probed = _probed(engine, file, vector, options, own_id, allowed)
    return CellMap(points, query, file.cells.lists.view.sizes, probed)


def inverted_file(engine: SearchEngine, options: SearchOptions) -> InvertedFile | None:
    """What a search with these options looks into; None if it compares with every picture."""
    return None if options.engine == "exact" else InvertedFile.of(engine.index(options.engine))


def map_methods() -> tuple[str, ...]:
    """What `cell_map` can do here."""
    return ("pca", "umap") if importlib.util.find_spec("umap") else ("pca",)


def heat_map(encoder: Encoder, image: NDArray[np.uint8], vector: Vector) -> tuple[NDArray[np.float32], Box]:
    """Where in an image lies what it has in common with a vector.

    The inner product of what the last layer sees in each place with what it sees in the other picture on average. The
    mean of these is the inner product of both pictures' averages, which the vectors begin with: so each number is a
    place's share of the similarity (Stylianou, Souvenir, Pless 2019, "Visualizing Deep Similarity Networks").

    Parameters
    ----------
    image : uint8 (H, W, 3)
    vector : float32 (dim,)
        Of the other picture.

    Returns
    -------
    heat : float32 (h, w)
        From 0 up to 1, the place that matches most.
    box : left, top, right, bottom in pixels of the image
        What the numbers divide evenly; the network does not see what is outside.
    """
    values, box = encoder.feature_map(image)
    heat = np.maximum(values @ vector[: values.shape[2]], 0)
    return heat / max(float(heat.max()), np.finfo(np.float32).tiny), box


def top_classes(encoder: Encoder, vector: Vector, n: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes by the encoder's classifier, with their probabilities; none if it has no classifier."""
    if not encoder.classes:
        return []
    probabilities = encoder.classify(vector[None])[0]
    return [(encoder.classes[i], float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:n]]


def _probed(
    engine: SearchEngine,
    file: InvertedFile,
    vector: Vector,
    options: SearchOptions,
    own_id: int | None,
    allowed: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """The lists that a search looks into, nearest first."""
    nprobe = engine.index(options.engine).nprobe if options.nprobe is None else options.nprobe  # type: ignore[attr-defined]
    if allowed is None:
        return file.cells.probe(file.seen(vector), nprobe).ids[0]
    # Among some pictures only it looks on, list by list, until it has as many candidates as were asked for.
    order = file.cells.probe(file.seen(vector), file.cells.nlist).ids[0]
    wanted = (options.k + (own_id is not None)) * (RERANK_FACTOR if options.rerank else 1)
    wanted *= getattr(engine.index(options.engine), "k_factor", 1)
    there = np.bincount(file.cells.codes_of(allowed)[0], minlength=file.cells.nlist)[order].cumsum()
    enough = int(np.searchsorted(there, min(wanted, engine.store.ids.size))) + 1
    return order[: max(nprobe, enough)]


def _place(
    file: InvertedFile,
    vector: Vector,
    id: int,
    own_id: int | None,
    nprobe: int,
    allowed: NDArray[np.int64] | None,
) -> Place:
    cells, x = file.cells, file.seen(vector)
    (number,), code = cells.codes_of([id])
    order = cells.probe(x, cells.nlist).ids[0]
    distance = float(cells.search(x, 1, nprobe=cells.nlist, ids=[id]).distances[0, 0])
    return Place(
        list_number=int(number),
        list_rank=int(np.flatnonzero(order == number)[0]) + 1,
        list_ids=cells.lists.view.list_ids(int(number)),
        code=cells.pq.pack(code)[0].tobytes(),
        score=file.score(distance),
        rank=_rank(cells, x, id, distance, own_id, nprobe=nprobe, ids=allowed),
    )


def _rank(index: Any, x: NDArray[np.float32], id: int, score: float, own_id: int | None, **where: Any) -> int:
    """1 and the number of stored vectors that come before one with this id and score."""
    just_behind = np.nextafter(np.float32(score), np.float32(np.inf if index.metric == "l2" else -np.inf))
    _, scores, ids = index.range_search(x, just_behind, **where)
    before = (scores != np.float32(score)) | (ids < id)
    return 1 + int(np.count_nonzero(before & (ids != id) & (ids != own_id)))


def _is_lost(
    engine: SearchEngine,
    vector: Vector,
    own_id: int | None,
    id: int,
    options: SearchOptions,
    filter: Filter | FilterLike | None,
) -> bool:
    """Whether exact search would have shown a picture where a search with these options does not."""
    exactly = replace(options, engine="exact", rerank=False)
    shown, truth = (engine.search_vector(vector, how, own_id=own_id, filter=filter).ids for how in (options, exactly))
    return id in truth and id not in shown


def _verdict(
    rank: int | None, exact_rank: int, place: Place | None, path: SearchPath, options: SearchOptions, own: bool
) -> str:
    k = options.k
    if options.engine == "exact":
        return f"Found at rank {rank}." if rank else f"Not shown: it is at rank {exact_rank}, and {k} were asked for."
    if rank and exact_rank <= k:
        same = "and exact search agrees" if rank == exact_rank else f"and by exact search at rank {exact_rank}"
        return f"Found at rank {rank}, {same}."
    if rank:
        return (
            f"Found at rank {rank}, though exact search puts it only at rank {exact_rank}: "
            "pictures that are nearer were lost."
        )
    if exact_rank > k:
        return f"Not shown, and rightly: exact search puts it at rank {exact_rank}, and {k} were asked for."
    if place is None:
        return f"Lost, though exact search puts it at rank {exact_rank}."
    said = f"Lost, though exact search puts it at rank {exact_rank}: "
    if place.list_number not in path.probed:
        return (
            f"{said}it is in the {_ordinal(place.list_rank)} nearest list, and {len(path.probed)} "
            f"{'was' if len(path.probed) == 1 else 'were'} probed. Probe {place.list_rank} to look at it."
        )
    if options.rerank:
        return f"{said}by its code it is at rank {place.rank}, and only the first {path.reranked} were ranked again."
    candidates = RERANK_FACTOR * (k + own) - own
    help_ = (
        f"Re-ranking looks at the first {candidates} and finds it."
        if place.rank <= candidates
        else f"Re-ranking would not find it either: it looks at the first {candidates}."
    )
    return f"{said}its list was probed, but by its code it is at rank {place.rank}. {help_}"


def _ordinal(n: int) -> str:
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


@lru_cache(maxsize=8)
def _plane(cells: IndexIVFPQ, method: str) -> tuple[NDArray[Any], Any]:
    """Centroids on a plane, and what puts other vectors there."""
    centroids = cells.centroids
    if method == "umap":
        import umap

        projection: Any = umap.UMAP(n_neighbors=min(15, cells.nlist - 1), random_state=0, n_jobs=1)
    else:
        from sklearn.decomposition import PCA

        projection = PCA(2, svd_solver="full")
    return projection.fit_transform(centroids), projection
