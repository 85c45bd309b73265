"""What is said of how well pictures find pictures."""

import numpy as np
import pytest

from benchmarks import pictures
from benchmarks.pictures import WEIGHTS, held_out, main, measures_of
from ivfpq.distances import normalised


def kinds(count=240, spread=0.3):
    """Vectors of four kinds, and which kind each is of."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    return normalised((np.eye(16)[labels] + spread * rng.normal(size=(count, 16))).astype(np.float32)), labels


def test_measures_by_hand():
    found = measures_of(np.array([True, False, True, True, False, False]))
    assert found == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3, 1, 3 / 5, 3 / 6])
    assert measures_of(np.zeros(6, bool)).tolist() == [0, 0, 0, 0]


def test_the_plain_order_is_that_of_a_loop_and_neighbours_help():
    features, labels = kinds()
    figures = held_out(features, labels, 60)
    order = np.random.default_rng(0).permutation(240)
    asked, kept = order[:60], order[60:]
    wanted = [
        measures_of(labels[kept[np.argsort(-(features[kept] @ features[one]), kind="stable")]] == labels[one])
        for one in asked
    ]
    np.testing.assert_allclose(figures[0], np.mean(wanted, axis=0), atol=1e-6)
    assert figures[WEIGHTS.index(0.5), 0] > figures[0, 0] + 0.02, "they find more of the same kind"


def test_the_command_prints_a_table(tmp_path, capsys):
    features, labels = kinds()
    np.savez(tmp_path / "f.npz", features=features.astype(np.float16), labels=labels)
    assert main([str(tmp_path / "f.npz"), "--queries", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| neighbourhood | mAP | 1-NN | P@5 | P@20 |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 0", "| 0.5", "| 1"]
    assert lines[-1] == "40 of 240 pictures held out; the first 1,000 by similarity are ordered again"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "f.npz"), "--queries", "240"])
    assert "--queries must be from 1 to 239, got 240" in capsys.readouterr().err


def test_a_cropped_copy_finds_its_picture(demo_collection):
    engine = pictures.SearchEngine.open(demo_collection)
    features = normalised(np.asarray(engine.store.features[engine.store.ids], np.float32))
    found = pictures.copies_found(engine, features, 12)
    assert found.shape == (len(WEIGHTS),) and 0.5 <= found[0] <= 1
