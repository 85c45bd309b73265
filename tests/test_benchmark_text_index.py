"""What an index of texts loses is counted as comparing all rows by hand counts it."""

import numpy as np
import pytest

from benchmarks import text_index
from features.concepts import unit


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(text_index, "TEXT_FACTORY", "IVF4,PQ4")
    rng = np.random.default_rng(3)
    classes = unit(rng.normal(size=(30, 16)).astype(np.float32))
    rows = text_index.made_rows(2_000, classes, classes.mean(axis=0), rng)
    return rows, unit(classes[:6] + rng.normal(0, 0.1, (6, 16)).astype(np.float32))


def test_rows_are_of_length_one_and_near_what_they_show(made):
    rows, _ = made
    assert rows.dtype == np.float16 and rows.shape == (2_000, 16)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=2e-3)


def test_all_candidates_lose_nothing_and_few_lose_some(made, monkeypatch):
    monkeypatch.setattr(text_index, "CANDIDATES", 2_000)
    assert text_index.through_the_index(*made)[0] == 1
    monkeypatch.setattr(text_index, "CANDIDATES", 5)
    recall, milliseconds, over_all = text_index.through_the_index(*made)
    assert 0 < recall <= 0.5 and milliseconds > 0 < over_all
