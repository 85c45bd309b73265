"""Weak matches are told where the nearest are hardly nearer than pictures of other things."""

import numpy as np
import pytest

from benchmarks import weak
from benchmarks.pictures import Stored
from ivfpq.distances import normalised
from search.neighbour_order import Ranked
from search.neighbourhood import project
from search.strength import LEAST_SHARE, PICTURES_MIN, StrengthOfHits

KINDS, EACH, DIM = 6, 20, 24


def pictures(count=KINDS * EACH, seed=0):
    """Vectors of six kinds, which kind each is of, and one of a kind that nobody has."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % KINDS
    rows = np.eye(DIM)[labels] + 0.12 * rng.normal(size=(count, DIM))
    return normalised(rows.astype(np.float32)), labels, np.eye(DIM, dtype=np.float32)[KINDS + 1]


def asked(features, query, own_id=None):
    similarities = features @ query
    ids = np.arange(len(features))
    told = StrengthOfHits(Stored.of(features), weak._Rows(features))
    return told.of(query, Ranked(ids, similarities, similarities), own_id)


def by_the_formula(features):
    """Strength of every picture as its own query, and how to tell that of another, by loops over all of them."""
    components = Stored.of(features).beside["components"]
    points = project(features, components)
    near = points @ points.T
    np.fill_diagonal(near, -9)
    own = [np.sort(row)[-5:].mean() for row in near]

    def strength(row):
        first = np.argsort(-row)[:5]
        return row[first].mean() - 0.5 * np.mean([own[hit] for hit in first])

    return [strength(row) for row in near], lambda query: strength(points @ project(query[None], components)[0])


def test_a_strength_is_that_of_the_formula_and_a_tenth_of_the_pictures_is_weak():
    features, _, stranger = pictures()
    strengths, of = by_the_formula(features)
    told = asked(features, stranger)
    assert told.value == pytest.approx(of(stranger), abs=2e-3)
    assert told.weak_below == pytest.approx(np.quantile(strengths, LEAST_SHARE), abs=2e-3)
    mine = asked(features, features[7], own_id=7)
    assert mine.value == pytest.approx(strengths[7], abs=2e-3), "a picture is no hit of its own"


def test_what_is_like_nothing_is_weak_and_what_is_of_a_kind_is_not():
    features, _, stranger = pictures()
    assert asked(features, stranger).is_weak
    more, _, _ = pictures(60, seed=1)
    told = [asked(features, query).is_weak for query in more]
    assert sum(told) < 15, "about a tenth"


def test_nothing_is_said_of_few_pictures_or_where_nothing_was_found():
    features, _, stranger = pictures(PICTURES_MIN - 1)
    assert asked(features, stranger) is None
    features, _, stranger = pictures()
    nothing = Ranked(np.array([], np.int64), np.array([], np.float32), np.array([], np.float32))
    told = StrengthOfHits(Stored.of(features), weak._Rows(features))
    assert told.of(stranger, nothing) is None
    only_itself = Ranked(np.array([3]), np.ones(1, np.float32), np.ones(1, np.float32))
    assert told.of(features[3], only_itself, 3) is None


def test_auc_counts_pairs():
    assert weak.auc(np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])) == pytest.approx((2 + 1 + 1.5) / 6)


def test_the_command_withholds_classes(tmp_path, capsys, monkeypatch):
    features, labels, _ = pictures(240)
    monkeypatch.setattr(weak, "WITHHELD", 2)
    np.savez(tmp_path / "f.npz", features=features, labels=labels.astype(str))
    assert weak.main([str(tmp_path / "f.npz"), "--draws", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| of ten withheld classes | mean | lowest | highest |"
    assert float(lines[2].split(" | ")[1]) > 0.95, "what is left is nothing like them"
    assert lines[-1] == "240 pictures, 2 draws"
