"""The graph of faiss's HNSW, and a search through it that remembers its way.

HNSW (Malkov, Yashunin 2018, "Efficient and robust approximate nearest neighbor search using hierarchical navigable
small world graphs") links every vector to some near ones in layer 0, a few of them also in layer 1, fewer in layer 2,
... A search walks greedily through the upper layers, from each to the one below where it can get no nearer, and keeps a
list of the best in layer 0.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np


@dataclass
class Way:
    """What a search did in one layer.

    Attributes
    ----------
    layer : int
    compared : list of int
        Vectors whose distance was computed, in this order; the first is where it came in.
    steps : list of int
        Those from which it went on, in this order.
    """

    layer: int
    compared: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


class Graph:
    """The links of a `faiss.IndexHNSWFlat` and its vectors.

    Attributes
    ----------
    x : float32 (n, d)
    tops : int array, shape (n,)
        The highest layer of each vector.
    """

    def __init__(self, index: Any) -> None:
        hnsw = index.hnsw
        self.x = index.reconstruct_n(0, index.ntotal)
        self.tops = faiss.vector_to_array(hnsw.levels) - 1
        self.entry, self.layers = int(hnsw.entry_point), int(hnsw.max_level) + 1
        self._offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        self._places = faiss.vector_to_array(hnsw.cum_nneighbor_per_level)  # of a vector's links in each layer
        self._links = faiss.vector_to_array(hnsw.neighbors)

    def neighbours(self, node: int, layer: int) -> np.ndarray:
        """What a vector is linked to in a layer."""
        start = self._offsets[node]
        links = self._links[start + self._places[layer] : start + self._places[layer + 1]]
        return links[links >= 0]

    def search(self, query: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, list[Way]]:
        """The k nearest that a search with a list of `ef` finds, and its way, from the top layer to layer 0."""
        ways = []
        found = [(self._distances(query, np.array([self.entry]))[0], self.entry)]
        for layer in range(self.layers - 1, -1, -1):
            found, way = self._search_layer(query, found[0], layer, max(ef, k) if layer == 0 else 1)
            ways.append(way)
        return np.array([node for _, node in found[:k]]), ways

    def _search_layer(
        self, query: np.ndarray, start: tuple[float, int], layer: int, ef: int
    ) -> tuple[list[tuple[float, int]], Way]:
        """Algorithm 2 of the paper: go on from the nearest candidate until it is farther than all of the `ef` best."""
        way = Way(layer, [start[1]])
        seen, candidates, best = {start[1]}, [start], [(-start[0], start[1])]
        while candidates:
            distance, node = heapq.heappop(candidates)
            if len(best) == ef and distance > -best[0][0]:
                break
            way.steps.append(node)
            fresh = [int(other) for other in self.neighbours(node, layer) if other not in seen]
            seen.update(fresh)
            way.compared.extend(fresh)
            for distance, other in zip(self._distances(query, np.array(fresh, np.int64)), fresh, strict=True):
                if len(best) < ef or distance < -best[0][0]:
                    heapq.heappush(candidates, (distance, other))
                    heapq.heappush(best, (-distance, other))
                    if len(best) > ef:
                        heapq.heappop(best)
        return sorted((-distance, node) for distance, node in best), way

    def _distances(self, query: np.ndarray, nodes: np.ndarray) -> list[float]:
        return ((self.x[nodes] - query) ** 2).sum(axis=1).tolist()
