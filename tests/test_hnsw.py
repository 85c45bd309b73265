"""The way through faiss's HNSW graph: faiss finds the same, and the way is one along links."""

import faiss
import numpy as np
import pytest

from hnsw import Graph


@pytest.fixture(scope="module")
def index():
    index = faiss.IndexHNSWFlat(16, 8)
    index.hnsw.efConstruction = 40
    index.add(np.random.default_rng(0).random((2000, 16), dtype=np.float32))
    return index


@pytest.fixture(scope="module")
def graph(index):
    return Graph(index)


@pytest.mark.parametrize("ef", [10, 40])
def test_faiss_finds_the_same(index, graph, ef):
    queries = np.random.default_rng(1).random((50, 16), dtype=np.float32)
    index.hnsw.efSearch = ef
    _, theirs = index.search(queries, 10)
    ours = np.stack([graph.search(query, 10, ef)[0] for query in queries])
    assert np.mean(ours == theirs) > 0.99  # two neighbours as far as float32 can tell may change places


def test_the_way_follows_links_down_the_layers(graph):
    query = np.random.default_rng(2).random(16, dtype=np.float32)
    found, ways = graph.search(query, 5, 20)
    assert [way.layer for way in ways] == list(range(graph.layers - 1, -1, -1))
    assert ways[0].compared[0] == graph.entry
    distance = ((graph.x - query) ** 2).sum(axis=1)
    for way, below in zip(ways, [*ways[1:], None], strict=True):
        assert (graph.tops[way.compared] >= way.layer).all()
        linked = {int(other) for step in way.steps for other in graph.neighbours(step, way.layer)}
        assert set(way.compared) == linked | {way.compared[0]}
        if below is not None:  # greedy: each step is nearer, and the last is where the next layer is entered
            assert (np.diff(distance[way.steps]) < 0).all()
            assert below.compared[0] == way.steps[-1]
    assert (np.diff(distance[found]) >= 0).all()
    assert set(found) <= set(ways[-1].compared)


def test_a_list_as_long_as_the_graph_finds_the_true_nearest(graph):
    query = np.random.default_rng(3).random(16, dtype=np.float32)
    found, _ = graph.search(query, 10, 2000)
    assert found.tolist() == ((graph.x - query) ** 2).sum(axis=1).argsort(kind="stable")[:10].tolist()
