"""Engines side by side: recall as counting by hand gives it."""

from functools import partial

import numpy as np
import pytest

from search.compare import compare
from search.engine import SearchEngine
from search.options import SearchOptions

plain = partial(SearchOptions, rerank=False, neighbourhood=0)  # what indexes find is compared


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


def vector_of(engine, id):
    return np.asarray(engine.store.features[id], dtype=np.float32)


@pytest.mark.parametrize("own", [True, False])
def test_recall_is_the_share_of_what_brute_force_finds(engine, own):
    rows = np.asarray(engine.store.features, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    recalls = set()
    for id in range(0, 340, 20):
        order = np.argsort(-(rows @ rows[id]), kind="stable")
        truth = [i for i in order.tolist() if not own or i != id][:10]
        answers = compare(engine, vector_of(engine, id), id if own else None, plain(k=10, nprobe=2))
        assert list(answers) == ["ivfpq", "faiss", "exact"]
        for name, answer in answers.items():
            assert answer.recall == pytest.approx(len(answer.ids & set(truth)) / 10)
            assert answer.engine == name
            assert answer.answer.search_ms > 0
            recalls.add(answer.recall)
        assert answers["exact"].recall == 1
    assert len(recalls) > 3


def test_controls_count(engine):
    vector = vector_of(engine, 7)
    few = compare(engine, vector, 7, plain(k=10, nprobe=1))
    assert all(answer.answer.reranked == 0 for answer in few.values())
    best = compare(engine, vector, 7, plain(k=34, nprobe=100, rerank=True))
    assert [answer.recall for answer in best.values()] == [1, 1, 1]
    assert [answer.answer.reranked for answer in best.values()] == [340, 340, 0]
    assert best["ivfpq"].answer == best["exact"].answer


def test_more_than_there_are(engine):
    answers = compare(engine, vector_of(engine, 7), 7, plain(k=500, nprobe=100))
    assert [(len(answer.answer), answer.recall) for answer in answers.values()] == [(339, 1)] * 3
