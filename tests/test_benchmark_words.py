"""What is said of how well words find pictures."""

import json

import numpy as np
import pytest
from test_words import folder, quick_words, root  # noqa: F401  (fixtures)

from benchmarks import words


def test_precision_and_average_precision_by_hand():
    scores, right = np.array([0.9, 0.1, 0.8, 0.7]), np.array([True, True, False, True])
    assert words.precision_at(2, scores, right) == 0.5
    assert words.precision_at(3, scores, right) == pytest.approx(2 / 3)
    assert words.average_precision(scores, right) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert words.precision_at(1, np.zeros(4), right) == 1.0  # of equal scores the first


def test_names_and_words_and_what_answers_them():
    labels = [("sea_horse",), ("BACKGROUND_Google",), ("bass", "ant")]
    names = words.relevance_of_names(labels)
    assert {name: right.tolist() for name, right in names.items()} == {
        "ant": [False, False, True],
        "bass": [False, False, True],
        "sea horse": [True, False, False],
    }
    general = words.relevance_of_words(labels, words.GENERAL_WORDS)
    assert {name: right.tolist() for name, right in general.items()} == {
        "animal": [True, False, True],
        "fish": [True, False, True],
        "insect": [False, False, True],
    }
    assert len(words.GENERAL_WORDS) == 20


def test_the_command_prints_a_table(folder, tmp_path, capsys):  # noqa: F811
    (tmp_path / "words.json").write_text(json.dumps({"crimson": ["a"], "nothing": ["x"]}))
    assert words.main([str(folder), "--words", str(tmp_path / "words.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | names: P@10 | mAP | words: P@10 | mAP |"
    assert lines[-3].startswith("| + feedback: as it is searched |") and lines[-3].split("|")[4].strip() == "1.000"
    assert lines[-1] == "36 pictures, colours, 3 names and 1 words"
