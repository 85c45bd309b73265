"""Retrieval and class scores against plain loops and scikit-learn."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from features import evaluate
from features.collection.store import FeatureStore
from features.evaluate import class_mean_average_precision, indicators, leave_one_out


def labelled_vectors(n=70, seed=0):
    rng = np.random.default_rng(seed)
    labels = [tuple(rng.choice(["a", "b", "c", "d"], rng.integers(1, 3), replace=False).tolist()) for _ in range(n)]
    centres = rng.normal(size=(4, 16))
    vectors = np.stack([sum(centres["abcd".index(name)] for name in several) for several in labels])
    return (vectors + rng.normal(size=vectors.shape)) * rng.uniform(0.1, 9, (n, 1)), labels


@pytest.mark.parametrize("block", [7, 512])
def test_retrieval_is_what_a_plain_loop_counts(block, monkeypatch):
    monkeypatch.setattr(evaluate, "_BLOCK", block)
    vectors, labels = labelled_vectors()
    labels[3] = ("alone",)  # nothing else is right, so it is not asked
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    average, first_five, first = [], [], []
    for query in range(len(unit)):
        others = sorted((id for id in range(len(unit)) if id != query), key=lambda id: -unit[query] @ unit[id])
        right = [bool(set(labels[id]) & set(labels[query])) for id in others]
        if any(right):
            average.append(np.mean([np.mean(right[: place + 1]) for place, hit in enumerate(right) if hit]))
            first_five.append(np.mean(right[:5]))
            first.append(right[0])
    found = leave_one_out(vectors.astype(np.float16), labels)
    assert found.queries == len(average) == len(labels) - 1
    assert found.mean_average_precision == pytest.approx(np.mean(average), abs=2e-3)
    assert found.precision_at_5 == pytest.approx(np.mean(first_five), abs=5e-3)
    assert found.nearest_neighbor == pytest.approx(np.mean(first), abs=0.02)


def test_nothing_to_ask():
    assert leave_one_out(np.eye(3), [("a",), ("b",), ()]).queries == 0
    assert leave_one_out(np.empty((0, 4)), []).queries == 0
    with pytest.raises(ValueError, match="3 features, got 2"):
        leave_one_out(np.eye(3), [("a",), ("b",)])


def test_class_average_precision_is_scikit_learns():
    rng = np.random.default_rng(1)
    shown = rng.random((50, 6)) < 0.3
    shown[:, 4] = False  # a class that no image shows counts for nothing
    scores = rng.normal(size=(50, 6)) + shown
    kept = [0, 1, 2, 3, 5]
    theirs = np.mean([average_precision_score(shown[:, c], scores[:, c]) for c in kept])
    assert class_mean_average_precision(scores, shown) == pytest.approx(theirs)


def test_indicators():
    assert indicators([("b",), (), ("a", "c", "x")], ["a", "b", "c"]).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_the_command_says_what_leave_one_out_gives(demo_collection, capsys):
    store = FeatureStore.open(demo_collection)
    vectors = store.features[store.ids].astype(np.float32)
    expected = leave_one_out(vectors, [store.items[id].labels for id in store.ids.tolist()])
    assert evaluate.main([str(demo_collection), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row.items() >= asdict(expected).items()
    assert (row["encoder"], row["dim"], row["images"]) == ("efficientnet-lite0", 2048, len(vectors))
    assert evaluate.main([str(demo_collection)]) == 0
    by_folder = capsys.readouterr().out
    assert f"mAP {expected.mean_average_precision:.4f}" in by_folder
    assert evaluate.main([demo_collection.name, "--collections", str(demo_collection.parent)]) == 0
    assert capsys.readouterr().out == by_folder


def test_a_folder_that_is_no_collection_is_refused(tmp_path, capsys):
    assert evaluate.main([str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
