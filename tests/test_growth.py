"""Engines as the vectors become more: who is measured at which size, and who has run out of time."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import growth
from benchmarks.comparison import Built, Case, Comparison
from benchmarks.data import synthetic
from benchmarks.engines import Subject
from growth import PANELS, Runner, draw_growth, grow, growth_table

LISTS = Runner(Subject("ivfpq", "IVF{nlist},PQ4"), {"nprobe": 2})
EXACT = Runner(Subject("sklearn"), {})


@pytest.fixture
def grown(monkeypatch, tmp_path):
    """Sizes 100, 200 and 400, and 3 s for each; scikit-learn takes a second to be built for 100 vectors."""
    asked = []

    def compare(data, plan, *, threads, repeats, seed):
        asked.append((data.n, len(data.truth), [subject.label for subject, _ in plan]))
        cases, built = [], []
        for subject, (arguments,) in plan:
            slow = subject.engine == "sklearn"
            built.append(Built(subject, "", 0.0, data.n / 100 if slow else 0.0, 0.0, 0.0, 1000 * data.n, None))
            cases.append(Case(subject, arguments, 1, 0.5, [1e3] * 3, [1e3, 2e3, 3e3], [1e3] * 30, [1.0] * 3))
        return Comparison(data, built, cases, {})

    monkeypatch.setattr(growth, "compare", compare)
    keywords = {"name": "some", "folder": tmp_path, "queries": 10, "k": 3, "threads": 1, "repeats": 3, "seed": 0}
    done = grow(synthetic(410, 8, 0), [100, 200, 400], [LISTS, EXACT], budget_s=3.0, **keywords)
    return asked, done


def test_lists_grow_with_the_vectors():
    assert [LISTS.at(n).factory for n in (10, 1000, 10**6)] == ["IVF1,PQ4", "IVF25,PQ4", "IVF1024,PQ4"]
    assert LISTS.label == "ivfpq IVFn,PQ4, nprobe=2"
    assert EXACT.label == "sklearn"


def test_an_engine_leaves_when_its_time_is_spent(grown):
    asked, done = grown
    assert asked == [
        (100, 10, ["ivfpq IVF2,PQ4", "sklearn"]),
        (200, 10, ["ivfpq IVF5,PQ4", "sklearn"]),
        (400, 10, ["ivfpq IVF10,PQ4"]),
    ]
    why = "took 2 s for 200 vectors; for 400 it has 3 s"
    assert [comparison.unavailable for comparison in done] == [{}, {}, {"sklearn": why}]


def test_the_table_and_the_figure_show_what_was_measured(grown):
    _, done = grown
    text = growth_table(done, [LISTS, EXACT])
    assert text.count("2,000 (1,000-3,000), 0.50") == 5
    assert "-: sklearn took 2 s" in text
    figure = Figure()
    axes = figure.subplots(1, len(PANELS))
    draw_growth(axes, done, [LISTS, EXACT])
    lists, exact = (container[0] for container in axes[list(PANELS).index("memory, MB")].containers)
    assert np.allclose(lists.get_data(), ([100, 200, 400], [0.1, 0.2, 0.4]))
    assert np.allclose(exact.get_data(), ([100, 200], [0.1, 0.2]))


def test_too_few_vectors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 100"):
        grow(
            synthetic(100, 4, 0), [50, 100], [EXACT], name="few", folder=tmp_path, queries=10, k=3, threads=1,
            repeats=1, seed=0, budget_s=1,
        )  # fmt: skip
