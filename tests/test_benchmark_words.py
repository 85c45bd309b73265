"""What is said of how well words find pictures."""

import json

import numpy as np
import pytest
from test_words import folder, quick_words, root  # noqa: F401  (fixtures)

from benchmarks import words
from features.collection.edits import add_tag
from features.collection.store import FeatureStore


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


def test_a_folder_of_class_folders_is_measured_as_the_collection_made_of_it(root, folder, tmp_path, capsys):  # noqa: F811
    (tmp_path / "words.json").write_text(json.dumps({"crimson": ["a"]}))
    asked = ["--words", str(tmp_path / "words.json")]
    assert words.main([str(folder), *asked]) == 0
    expected = capsys.readouterr().out
    assert words.main(["--data", str(root), "--encoder", "colours", *asked]) == 0
    assert capsys.readouterr().out == expected
    for wrong in ([], [str(folder), "--data", str(root)]):
        with pytest.raises(SystemExit):
            words.main([*wrong, *asked])
        assert "give a collection, or --data with a folder of class folders" in capsys.readouterr().err


def test_the_mix_is_chosen_on_one_half_of_the_texts_and_told_of_the_other(folder, capsys):  # noqa: F811
    store = FeatureStore.open(folder)
    for id in store.ids.tolist():
        add_tag(store.annotations, [id], store.items[id].labels[0])
    assert words.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "names, mAP by the weights of what is said:" in lines
    start = lines.index("| meaning | words | chosen on (1 texts) | held out (2) |")
    rows = [line.split(" | ") for line in lines[start + 2 : start + 2 + len(words.MIXES)]]
    assert [(row[0].strip("| "), row[1].removesuffix(" (in use)")) for row in rows] == [
        (f"{meaning:g}", f"{by_words:g}") for meaning, by_words in words.MIXES
    ]
    assert [row[1] for row in rows if "in use" in row[1]] == ["2 (in use)"] and rows[4][1] == "2 (in use)"
    best = [row for row in rows if row[2].startswith("**")]
    assert len(best) == 1 and float(best[0][2].strip("*")) == max(float(row[2].strip("*")) for row in rows)
