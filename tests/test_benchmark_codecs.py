"""Codecs are compared at the bytes that they are said to have, and by neighbours counted as anywhere else."""

import json

import faiss
import numpy as np
import pytest
from test_benchmark import quick  # noqa: F401 (a fixture)

from benchmarks import codecs
from benchmarks.codecs import BYTES, CODECS, Encoded, recalls
from benchmarks.command import main
from benchmarks.data import synthetic
from ivfpq import index_factory


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.engine} {codec.name}")
def test_a_code_has_the_bytes_that_it_is_measured_at(codec):
    for m in BYTES:
        factory = codec.factory(m, 0)
        if codec.engine == "faiss":
            assert faiss.index_factory(2048, factory).sa_code_size() == m
        else:
            index = index_factory(2048, factory)
            inner = getattr(index, "index", index)
            assert (inner.M, inner.nbits) == (m, 8)
        assert ("IVF100" in codec.factory(m, 100)) and "IVF" not in factory


def test_the_study_measures_every_codec_in_both_ways(quick, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(codecs, "BYTES", (4, 8))
    monkeypatch.setattr(codecs, "CODECS", (*CODECS[:1], *CODECS[-1:], CODECS[-1]._replace(code="none")))
    np.save(tmp_path / "x.npy", synthetic(330, 128, 0))
    arguments = ["--study", "codecs", "--features", str(tmp_path / "x.npy"), "--metric", "cosine", "--queries", "30"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "codecs.json").read_text())
    rows = [Encoded(**row) for row in content["rows"]]
    assert [(row.engine, row.lists, row.bytes) for row in rows] == [
        (engine, lists, m) for engine in ("ivfpq", "faiss") for lists in (0, 7) for m in (4, 8)
    ]
    for row in rows:
        shares = list(row.nearest_found.values())
        assert shares == sorted(shares)
        assert 0 < row.recall < 1
        assert row.train_s > 0 < row.add_us
    assert len(content["unavailable"]) == 4
    assert content["data"]["n"] == 300
    assert (tmp_path / "codecs.png").read_bytes().startswith(b"\x89PNG")


def test_more_bytes_than_a_codec_can_be_trained_for_are_left_out(quick, tmp_path, monkeypatch):  # noqa: F811
    few = CODECS[0]._replace(largest=8, largest_in_lists=4)
    monkeypatch.setattr(codecs, "CODECS", (few,))
    np.save(tmp_path / "x.npy", synthetic(330, 32, 0))
    assert main(["--study", "codecs", "--features", str(tmp_path / "x.npy"), "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "codecs.json").read_text())["rows"]
    assert [(row["lists"] > 0, row["bytes"]) for row in rows] == [(False, 4), (False, 8), (True, 4)]


def test_the_best_of_each_size_is_bold():
    def row(codec, m, recall):
        return Encoded(codec, "faiss", "", m, 0, recall, {}, 1, 1)

    lines = recalls([row("a", 4, 0.5), row("a", 8, 0.6), row("b", 4, 0.7)], 10).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["recall@10", "of", "4 B", "8 B"]
    assert cells[2:] == [["a", "faiss", "0.500", "**0.600**"], ["b", "faiss", "**0.700**", "-"]]
