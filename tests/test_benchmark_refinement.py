"""The study of where the vectors lie that candidates are ranked by."""

import json

import numpy as np
import pytest

from benchmarks import refinement
from benchmarks.command import main
from benchmarks.data import synthetic
from benchmarks.process import memory_of_this_process
from ivfpq import index_factory, save


def test_each_grade_answers_and_is_measured_beside_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(refinement, "in_a_process", lambda count, *arguments: 6400)
    np.save(tmp_path / "x.npy", synthetic(720, 24, 0))
    arguments = ["--study", "refinement", "--features", str(tmp_path / "x.npy"), "--queries", "80", "--repeats", "2"]
    assert main([*arguments, "--k", "5", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "refinement.json").read_text())
    assert content["data"] == {"name": "x", "n": 640, "d": 24, "queries": 80}
    rows, text = content["rows"], (tmp_path / "refinement.md").read_text()
    grades = [grade.name for grade in refinement.GRADES]
    assert [(row["base"], row["grade"]) for row in rows] == [
        (base, grade) for base in ("PCA24,IVF16,SQ8", "PCA24,IVF16,PQ8") for grade in grades
    ]
    for first in (0, len(grades)):
        exact = [row for row in rows[first : first + len(grades)] if "byte" not in row["grade"]]
        assert len({row["recall"] for row in exact if "16" not in row["grade"]}) == 1
        assert rows[first]["times_batch"] == rows[first]["times_single"] == [1, 1, 1]
    for row in rows:
        assert row["recall"] > 0.9 and row["memory"] == 10 and row["grade"] in text
        assert row["read"] == (6400 if "file" in row["grade"] else None)
    assert rows[3]["file"] < rows[2]["file"] < rows[0]["file"] == rows[5]["file"]


@pytest.mark.skipif(memory_of_this_process("Anonymous") is None, reason="this system does not tell of memory")
def test_vectors_in_a_file_take_no_memory(tmp_path):
    index = index_factory(512, "Flat,Refine(SQfp16)")
    index.add(np.random.default_rng(0).normal(size=(8000, 512)))
    save(index, tmp_path / "a.index")
    np.save(tmp_path / "q.npy", np.zeros((1, 512), np.float32))
    mapped, copied = (
        refinement.memory_here(
            refinement.Grade("", "", mmap=mmap, sketch=False), tmp_path / "a.index", str(tmp_path / "q.npy"), 3, {}
        )
        for mmap in (True, False)
    )
    read = refinement.read_here(
        refinement.Grade("", "", mmap=True), tmp_path / "a.index", str(tmp_path / "q.npy"), 3, {}
    )
    assert read is None or read >= 0  # 0 where a file's only place is memory
    of_vectors = 8000 * 512 * (2 + 4)
    assert mapped < of_vectors / 4 and copied > of_vectors / 2
