"""One search over a collection, as the page shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.images import ImageError
from features.picture_files import stored_pixels
from ivfpq import IndexFlat
from ivfpq.distances import normalised
from search.engine import SearchEngine
from search.explain import inverted_file
from search.explain.page import PAGE, SIDE, places, read_numbers, rounded
from search.explain.recording import CellSearch, UnexplainableError, exact, packed, recorded_query
from search.inverted_file import InvertedFile
from search.options import SearchOptions

Ids = NDArray[np.int64]

SHOWN = 96  # pictures on the map, of however many there are
CODED = 6  # whose codes are shown number by number
NEIGHBOURS = 6


def is_explainable(engine: SearchEngine, options: SearchOptions) -> bool:
    """Whether `SearchRecord` has figures for a search with these options."""
    file = inverted_file(engine, options)
    return file is not None and CellSearch.can_follow(file.cells)


class SearchRecord:
    """What a search did, in numbers and thumbnails.

    Parameters
    ----------
    vector, own_id
        The query, as `SearchEngine.encode` returns it.
    picture : PIL image
        The query as it is shown.
    options : SearchOptions
        As it was searched; neighbours, which no index knows of, do not count here.

    Attributes
    ----------
    numbers : dict
        See `page.write_numbers`.
    shown : int64 array
        Ids of the pictures on the map.

    Raises
    ------
    UnexplainableError
        If the index has no inverted lists of product-quantized residuals.
    """

    def __init__(
        self,
        engine: SearchEngine,
        vector: NDArray[np.float32],
        own_id: int | None,
        options: SearchOptions,
        *,
        picture: Image.Image,
        label: str = "your picture",
    ) -> None:
        file = inverted_file(engine, options)
        if file is None:
            raise UnexplainableError(
                f"the page explains inverted lists of product-quantized residuals; {options.engine} in {engine.name} "
                "has none"
            )
        self._engine, self._file, self._vector, self._own_id, self._picture = engine, file, vector, own_id, picture
        self._search = CellSearch(file.cells, file.seen(vector)[0])
        self._nprobe = min(options.nprobe or engine.nprobe, file.cells.nlist)
        self._answers = self._searched(options)
        self.shown = self._chosen(self._answers["exact"])
        self.numbers = self._written(label, options)

    def thumbnails(self) -> list[Image.Image]:
        """Those of the pictures on the map, and of the query, in the order of the page."""
        return [*(self._thumbnail(int(id)) for id in self.shown), self._picture]

    def _thumbnail(self, id: int) -> Image.Image:
        try:
            pixels = stored_pixels(self._engine.store.manifest, self._engine.store.items[id].path)
        except ImageError:  # its place stays empty
            return Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        return Image.fromarray(pixels)

    def _searched(self, options: SearchOptions) -> dict[str, Ids]:
        """What each way of searching finds, best first."""
        found = {}
        for name in ("exact", options.engine):
            for rerank in (False,) if name == "exact" else (False, True):
                asked = SearchOptions(name, 10, options.nprobe, rerank, neighbourhood=0)
                answer = self._engine.search_vector(self._vector, asked, own_id=self._own_id)
                found[f"{name}, re-ranked" if rerank else name] = np.array(answer.ids, np.int64)
        return found

    def _chosen(self, truth: Ids) -> Ids:
        """What is on the map: all that is found, the nearest list's best, and others from everywhere."""
        near = self._search.nearest_list(self._own_id)[1]
        near = near[np.argsort(self._search.distances(near)[1], kind="stable")][:12]
        usable = self._engine.store.ids
        others = usable[np.unique(np.linspace(0, len(usable) - 1, min(SHOWN, len(usable))).astype(np.int64))]
        wanted = np.concatenate([truth, *self._answers.values(), near, others])
        first = np.array(list(dict.fromkeys(wanted[wanted != self._own_id].tolist())), np.int64)
        return first[: max(SHOWN, len(np.unique(wanted)) - len(others))]

    def _true_distances(self, ids: Ids) -> NDArray[np.float32]:
        """Squared distances of whole vectors, of length 1 where the metric is cosine."""
        found = self._engine.index("exact").search(self._vector[None], len(ids), ids=ids)
        at = dict(zip(found.ids[0].tolist(), found.distances[0].tolist(), strict=True))
        scores = np.array([at[id] for id in ids.tolist()], np.float32)
        return np.float32(2) * (np.float32(1) - scores) if self._file.metric == "cosine" else scores

    def _kept_distances(self, ids: Ids) -> NDArray[np.float32]:
        """Squared distances of vectors as the cells were given them."""
        seen = _seen(self._file, np.asarray(self._engine.store.features[ids], np.float32))
        return np.square(seen - self._search.query).sum(axis=1)

    def _written(self, label: str, options: SearchOptions) -> dict[str, Any]:
        engine, file, search = self._engine, self._file, self._search
        cells, truth = file.cells, self._answers["exact"]
        vectors = np.asarray(engine.store.features[self.shown], np.float32)
        seen = _seen(file, vectors)
        at = places(np.concatenate([seen, search.query[None]]))
        lists = cells.lists.view
        inside = np.concatenate([lists.list_ids(number) for number in range(cells.nlist)])
        whole = normalised(vectors) if file.metric == "cosine" else vectors
        among = IndexFlat(whole.shape[1])
        among.add(whole)
        near = among.search(whole, min(NEIGHBOURS + 1, len(whole)))
        recorded = recorded_query(
            search,
            lambda ids: (self._kept_distances(ids), self._true_distances(ids)),
            nprobe=self._nprobe,
            k=10,
            own_id=self._own_id,
            rows=CODED * 2,
        )
        return {
            "about": {
                "title": "How this was found", "collection": engine.name, "exported": True,
                "factory": f"IVF{cells.nlist},PQ{cells.M}x{cells.nbits}",
                "command": f"python -m search.explain {engine.name}",
                "dim": int(vectors.shape[1]), "d": cells.d, "nlist": cells.nlist, "M": cells.M, "nbits": cells.nbits,
                "stored": len(inside), "trained": 0, "kept": 1, "k": len(truth), "nprobe": self._nprobe,
                "metric": file.metric,
            },
            "credits": [],
            "ids": self.shown.tolist(),
            "pictures": [
                {"label": self._label(int(id)), "at": rounded(place)} for id, place in zip(self.shown, at, strict=False)
            ],
            "vectors": packed(seen),
            "neighbours": [
                {
                    "ids": self.shown[ids[ids != own]][:NEIGHBOURS].tolist(),
                    "distances": exact(distances[ids != own][:NEIGHBOURS]),
                }
                for own, (ids, distances) in enumerate(zip(near.ids, near.distances, strict=True))
            ],
            "lists": cells.codes_of(self.shown)[0].tolist(),
            "sizes": [len(lists.list_ids(number)) for number in range(cells.nlist)],
            "dots": [],
            "kmeans": {},
            "queries": [
                {
                    "label": label, "at": rounded(at[-1]), "vector": packed(search.query),
                    "truth": truth.tolist(), "truth_distances": exact(self._true_distances(truth)), **recorded,
                }
            ],
            "codes": self._codes([row["id"] for row in recorded["lookup"]["rows"][:CODED]], seen),
            "budgets": [
                {
                    "bytes": None,
                    "codecs": [
                        {"name": name, "factory": options_of(name, cells.nlist, self._nprobe), "hits": [ids.tolist()],
                         "recall": None}
                        for name, ids in self._answers.items()
                    ],
                }
            ],
            "measured": read_numbers(PAGE)["measured"],
        }  # fmt: skip

    def _codes(self, ids: list[int], seen: NDArray[np.float32]) -> dict[str, Any]:
        """What the codes of a few pictures leave of their residuals."""
        cells, pq = self._file.cells, self._file.cells.pq
        lists, codes = cells.codes_of(self.shown)
        residuals = seen - cells.centroids[lists]  # type: ignore[index]
        rebuilt = pq.decode(codes)
        size = np.square(residuals).sum(axis=1)
        # A picture alone in its list is the centroid, but for rounding: there is nothing to say of its residual.
        alone = size <= 1e-9 * np.square(seen).sum(axis=1)
        error = np.where(alone, 0, np.square(residuals - rebuilt).sum(axis=1) / np.where(alone, 1, size))
        rows = [self.shown.tolist().index(id) for id in ids]
        scale = float(np.abs(residuals[rows]).max(initial=1e-30))
        parts = residuals[rows].reshape(len(rows), pq.M, 1, pq.dsub)
        costs = np.square(parts - pq.codebooks[None]).sum(axis=3)  # type: ignore[index]
        return {
            "pictures": ids, "scale": scale, "residuals": packed(residuals[rows]),
            "configs": [
                {
                    "M": pq.M, "nbits": pq.nbits, "errors": rounded(error),
                    "rebuilt": packed(np.round(127 * np.clip(rebuilt[rows] / scale, -1, 1)).astype(np.int8)),
                }
            ],
            "costs": packed(np.round(255 * costs / costs.max(axis=2, keepdims=True)).astype(np.uint8)),
            "codes": codes[rows].tolist(),
        }  # fmt: skip

    def _label(self, id: int) -> str:
        item = self._engine.store.items[id]
        return item.labels[0] if item.labels else item.path.stem


def options_of(name: str, nlist: int, nprobe: int) -> str:
    """How one of the ways of searching looked, for people."""
    return "every vector compared" if name == "exact" else f"nprobe {nprobe} of {nlist}"


def _seen(file: InvertedFile, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stored vectors (n, dim) as the cells hold them."""
    seen = np.concatenate([file.seen(vector) for vector in vectors])
    return normalised(seen) if file.cells.metric == "cosine" else seen
