"""What ann-benchmarks and VIBE are given, run the way they do it."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import suites

FOLDER = Path(suites.__path__[0])


def made(suite, tmp_path, monkeypatch):
    """The definitions of the suite: what to construct, and groups of query arguments."""
    folder = tmp_path / suite / "algorithms" / "ivfpq"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "module.py").write_text((FOLDER / "module.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    (algorithm,) = yaml.safe_load((FOLDER / suite / "config.yml").read_text())["float"]["any"]
    constructor = getattr(importlib.import_module(f"{algorithm['module']}.module"), algorithm["constructor"])
    for group in algorithm["run_groups"].values():
        for own in itertools.product(*group["args"]):
            yield constructor, [*algorithm["base_args"], *own], list(itertools.product(*group["query_args"]))


@pytest.mark.parametrize("suite", ["ann_benchmarks", "vibe"])
def test_a_suite_builds_asks_and_measures(suite, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8)).astype(np.float32)
    queries = x[:5] + np.float32(1e-3)
    definitions = list(made(suite, tmp_path, monkeypatch))
    assert len(definitions) == 4 and all(arguments[0] == "@metric" for _, arguments, _ in definitions)
    constructor, (_, spec), asked = definitions[0]
    algorithm = constructor("angular", spec.replace("1024", "8"))
    before = algorithm.get_memory_usage()
    algorithm.fit(x)
    assert algorithm.get_memory_usage() > 0 < before
    for arguments in asked[-2:]:
        algorithm.set_query_arguments(*arguments)
        algorithm.batch_query(queries, 3)
        found = algorithm.get_batch_results()
        assert [ids[0] for ids in found] == [0, 1, 2, 3, 4]
        assert all(np.array_equal(algorithm.query(q, 3), ids) for q, ids in zip(queries, found, strict=True))
        assert str(algorithm) == f"ivfpq(IVF8,SQ8,Refine, nprobe={arguments[0]}, k_factor={arguments[1]})"
    assert len(algorithm.query(queries[0], 700)) == 600 and algorithm.get_additional() == {}
    algorithm.done()


def test_each_specification_makes_an_index():
    from benchmarks.suites.module import Ivfpq
    from ivfpq import index_factory

    for suite in ("ann_benchmarks", "vibe"):
        (algorithm,) = yaml.safe_load((FOLDER / suite / "config.yml").read_text())["float"]["any"]
        for group in algorithm["run_groups"].values():
            for spec in group["args"][0]:
                assert index_factory(256, spec, metric="cosine").d == 256
    with pytest.raises(ValueError, match=r"metric must be one of .*, got 'hamming'"):
        Ivfpq("hamming", "Flat")
