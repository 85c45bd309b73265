"""The evaluation against a loop that spells the measures out."""

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from features.datasets import Item
from gradio_app.tabs.evaluate import EvaluateHandlers, EvaluateState
from ivfpq import IndexFlat
from search.engine import SearchEngine
from search.errors import EngineError
from search.evaluate import BLOCK, DEPTH, evaluate
from search.options import SearchOptions


class Labelled:
    """As much of a `SearchEngine` as an evaluation needs, with exact search over random vectors."""

    name = "made-up"

    def __init__(self, labels, seed=0, damaged=()):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(len(labels), 8)).astype(np.float32)
        items = [
            Item(i, f"{i}.jpg", () if i in damaged else tuple(own), "damaged" if i in damaged else None)
            for i, own in enumerate(labels)
        ]
        ids = np.array([i for i in range(len(labels)) if i not in damaged])
        self.store = SimpleNamespace(items=items, ids=ids, features=features)
        self.labels = dict(Counter(label for item in items for label in item.labels))
        self.index = IndexFlat(8)
        self.index.add_with_ids(features[ids], ids)
        self.asked = []

    def neighbours(self, vectors, options, own_ids=None):
        self.asked.append((len(vectors), options))
        return self.index.search(vectors, min(options.k, self.index.ntotal))


def naive(engine, k):
    """Precision@k, mAP@DEPTH, accuracy, and (right, asked, mistaken for) of each label."""
    items, features = engine.store.items, np.asarray(engine.store.features, dtype=np.float64)
    precisions, averages, firsts, table = [], [], [], {}
    for query in engine.store.ids.tolist():
        others = [i for i in engine.store.ids.tolist() if i != query]
        own = set(items[query].labels)
        relevant = {i for i in others if own & set(items[i].labels)}
        if not relevant:
            continue
        others.sort(key=lambda i: ((features[i] - features[query]) ** 2).sum())
        precisions.append(sum(i in relevant for i in others[:k]) / k)
        found, total = 0, 0.0
        for rank, i in enumerate(others[:DEPTH], start=1):
            if i in relevant:
                found += 1
                total += found / rank
        averages.append(total / min(len(relevant), DEPTH))
        firsts.append(others[0] in relevant)
        for label in own:
            right, asked, mistaken = table.get(label, (0, 0, Counter()))
            if others[0] not in relevant:
                mistaken.update(items[others[0]].labels)
            table[label] = right + (others[0] in relevant), asked + 1, mistaken
    return np.mean(precisions), np.mean(averages), np.mean(firsts), table


def last(evaluations):
    *_, final = evaluations
    return final


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    # one label, several, none; some borne by a single picture
    labels = [rng.choice(list("abcdefgh"), rng.integers(0, 4), replace=False) for _ in range(300)]
    labels += [("alone",), ("alone too", "a")]
    engine = Labelled(labels, seed, damaged=(3, 77))
    precision, average, accuracy, table = naive(engine, 7)
    final = last(evaluate(engine, SearchOptions("exact", 7), worst=100))
    assert final.precision == pytest.approx(precision)
    assert final.mean_average_precision == pytest.approx(average)
    assert final.accuracy == pytest.approx(accuracy)
    assert final.done == final.total == sum(bool(item.labels) for item in engine.store.items) - 1
    for confusion in final.worst:
        right, asked, mistaken = table[confusion.label]
        assert (confusion.right, confusion.asked) == (right, asked)
        assert [count for _, count in confusion.mistaken_for] == [count for _, count in mistaken.most_common(3)]
        assert all(mistaken[label] == count for label, count in confusion.mistaken_for)
        query, found = confusion.example
        assert confusion.label in engine.store.items[query].labels
        assert confusion.mistaken_for[0][0] in engine.store.items[found].labels
    shares = [confusion.right / confusion.asked for confusion in final.worst]
    assert shares == sorted(shares)


def test_few_pictures_and_the_smallest_collection():
    engine = Labelled([("a",), ("a",), ("b",), ("b",)])
    assert last(evaluate(engine, SearchOptions("exact", 3))).precision == pytest.approx(1 / 3)
    twins = Labelled([("a",), ("a",)])
    final = last(evaluate(twins, SearchOptions("exact", 10)))
    assert (final.accuracy, final.mean_average_precision, final.precision) == (1, 1, 0.1)
    assert final.worst == ()


def test_goes_in_blocks_and_hands_the_settings_on():
    engine = Labelled([("ab"[i > BLOCK],) for i in range(3 * BLOCK + 5)])
    steps = list(evaluate(engine, SearchOptions("faiss", nprobe=3, rerank=True)))
    assert [step.done for step in steps] == [BLOCK, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 5]
    assert engine.asked == [(n, SearchOptions("faiss", DEPTH + 1, nprobe=3, rerank=True)) for n in (BLOCK,) * 3 + (5,)]
    # in random order, so that what is seen first is like the rest
    assert {confusion.label for confusion in steps[0].worst} == {"a", "b"}


def test_what_cannot_be_judged_is_said():
    for labels in ([(), ()], [("a",), ("b",)]):
        with pytest.raises(EngineError, match="no two pictures of made-up share a label"):
            next(evaluate(Labelled(labels), SearchOptions("exact")))
    with pytest.raises(EngineError, match="k must be from 1 to 100, got 101"):
        next(evaluate(Labelled([("a",), ("a",)]), SearchOptions("exact", 101)))


def a_library(engine):
    return SimpleNamespace(get=lambda name: engine if name == engine.name else None)


def test_a_stopped_run_says_how_far_it_came_and_shows_what_it_knows(demo_collection):
    engine = SearchEngine.open(demo_collection)
    handlers, state = EvaluateHandlers(a_library(engine)), EvaluateState()
    run = handlers.start(engine.name, state, ["exact", "ivfpq"], 10, 8, False)
    assert "0 %" in next(run)[2]
    handlers.stop(state)
    start, stop, shown = next(run)
    assert (start["interactive"], stop["interactive"]) == (True, False)
    text = " ".join(re.sub("<[^>]*>", " ", shown).split())
    first = {"ivfpq": "IVFPQ (ours)", "exact": "exact"}[engine.engines[0]]
    assert re.search(rf"Stopped at 9 % .* {re.escape(first)} (\d\.\d{{3}} ){{3}}64 of 340", text)
    assert "not begun" in text
    assert list(run) == []


def test_a_run_whose_collection_is_no_longer_chosen_shows_nothing_more(demo_collection):
    engine = SearchEngine.open(demo_collection)
    handlers, state = EvaluateHandlers(a_library(engine)), EvaluateState()
    run = handlers.start(engine.name, state, ["exact"], 10, 8, False)
    next(run)
    handlers.choose_collection(engine.name, state)
    assert list(run) == []
    *_, (_, _, shown) = handlers.start(engine.name, state, ["exact"], 10, 8, False)  # and the next is not stopped by it
    assert "100 %" in shown
    assert "Stopped" not in shown


def test_every_engine_of_a_real_collection(demo_collection):
    engine = SearchEngine.open(demo_collection)
    finals = {
        name: last(evaluate(engine, SearchOptions(name, nprobe=100, rerank=name != "exact"))) for name in engine.engines
    }
    assert finals["ivfpq"].accuracy == finals["faiss"].accuracy == finals["exact"].accuracy > 0.8
    assert finals["exact"].total == 340
