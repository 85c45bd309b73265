"""The benchmark: what it counts, who takes a turn when, and that nothing is left out silently."""

import argparse
import csv
import gc
import json
import math
import statistics
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import threadpoolctl

from benchmarks import command, comparison, process, report, studies
from benchmarks.command import main, parse_arguments
from benchmarks.comparison import Built, Case, Comparison, Spread, measure, turns
from benchmarks.data import Data, load_features, mixture, prepare, reduced, synthetic
from benchmarks.engines import ENGINES, Engine, EngineError, Ivfpq, Sklearn, Subject, parse_subjects
from benchmarks.process import WARM, Worker
from benchmarks.studies import Row
from ivfpq import IndexFlat, benchmark

OURS, FAISS = Subject("ivfpq", "IVF4,PQ4x4"), Subject("faiss", "IVF4,PQ4x4")


def small_data(folder, n=120, d=8, k=3, **keywords):
    x = synthetic(n, d, 0)
    return x, prepare(x, "small", folder, queries=20, k=k, seed=1, **keywords)


class TestData:
    def test_synthetic_vectors_depend_on_the_seed_alone(self):
        x = synthetic(70_000, 4, 7)  # more than one block
        assert x.shape == (70_000, 4)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.array_equal(x, synthetic(70_000, 4, 7))
        assert not np.array_equal(x, synthetic(70_000, 4, 8))

    def test_synthetic_vectors_are_clustered_and_of_low_dimension(self):
        x = synthetic(2000, 64, 0)
        shuffled = np.random.default_rng(0).permuted(x, axis=0)  # the same coordinates, each on its own

        def nearest(y):
            flat = IndexFlat(64)
            flat.add(y)
            return flat.search(y[:200], 2).distances[:, 1].mean()

        assert nearest(x) < 0.6 * nearest(shuffled)
        spectrum = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
        assert spectrum[:32].sum() > 0.97 * spectrum.sum()

    def test_a_mixture_fills_lists_unevenly(self):
        def crowded(make):
            """How many codes the mean query looks at, in times of what lists of one length would give."""
            x = make(20_000, 64, 0)
            engine = Ivfpq(64, Subject("ivfpq", "IVF1024,PQ2x4"), 0)
            engine.train(x)
            engine.add(x)
            engine.query = {"nprobe": 16}
            return engine.scanned(x[:500], 10) / (len(x) * 16 / 1024)

        assert np.array_equal(mixture(70_000, 3, 1), mixture(70_000, 3, 1))
        assert 1 <= crowded(synthetic) < 1.3
        assert crowded(mixture) > 2

    def test_features_come_from_npy_and_npz(self, tmp_path):
        x = np.arange(12, dtype=np.float16).reshape(4, 3)
        np.save(tmp_path / "a.npy", x)
        np.savez(tmp_path / "named.npz", features=x, other=x[:2], labels=np.arange(4))
        np.savez(tmp_path / "only.npz", vectors=x, names=np.array(list("abcd")))
        for name in ("a.npy", "named.npz", "only.npz"):
            assert np.array_equal(load_features(tmp_path / name), x)

    def test_a_file_without_vectors_is_refused(self, tmp_path):
        np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
        np.save(tmp_path / "flat.npy", np.zeros(5))
        np.save(tmp_path / "text.npy", np.array([["a"]]))
        for name in ("two.npz", "flat.npy", "text.npy"):
            with pytest.raises(ValueError, match=name):
                load_features(tmp_path / name)

    def test_queries_are_held_out_and_truth_is_exact(self, tmp_path):
        x, data = small_data(tmp_path)
        base, queries = np.load(data.base), np.load(data.queries)
        assert (len(base), len(queries)) == (100, 20)
        assert sorted(map(tuple, np.concatenate([base, queries]).tolist())) == sorted(map(tuple, x.tolist()))
        exact = np.sort(((queries[:, None].astype(float) - base) ** 2).sum(axis=2), axis=1)[:, :3]
        assert np.allclose(data.truth, exact, rtol=1e-5)

    def test_queries_come_in_no_order(self, tmp_path):
        """Each round asks other queries: those of a sorted file would be easier in some rounds than in others."""
        data = prepare(np.arange(200.0)[:, None], "sorted", tmp_path, queries=40, k=3, seed=0)
        queries = np.load(data.queries)[:, 0]
        assert abs(np.corrcoef(queries, np.arange(40))[0, 1]) < 0.5

    def test_unit_scales_everything_to_length_one(self, tmp_path):
        _, data = small_data(tmp_path, unit=True)
        for file in (data.base, data.queries):
            assert np.allclose(np.linalg.norm(np.load(file), axis=1), 1, atol=1e-6)

    def test_reduced_data_keeps_rows_and_queries_and_finds_their_neighbours_anew(self, tmp_path):
        x = np.zeros((60, 5))
        x[:, 3] = np.random.default_rng(0).permutation(60)  # all there is lies in one direction
        data = prepare(x, "line", tmp_path / "line", queries=10, k=2, seed=0)
        line = reduced(data, 1, tmp_path / "reduced")
        assert (line.n, line.d, np.load(line.base).shape) == (50, 1, (50, 1))
        assert np.allclose(line.truth, data.truth, atol=1e-3)
        order = np.load(data.base)[:, 3].argsort()
        assert (np.diff(np.load(line.base)[order, 0]) > 0).all() or (np.diff(np.load(line.base)[order, 0]) < 0).all()

    def test_a_large_training_set_is_sampled_once_for_all(self, tmp_path, monkeypatch):
        monkeypatch.setattr("benchmarks.data.MAX_TRAIN", 30)
        _, data = small_data(tmp_path)
        train = np.load(data.train)
        assert len(train) == 30
        assert {tuple(row) for row in train.tolist()} <= {tuple(row) for row in np.load(data.base).tolist()}

    def test_too_few_vectors_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="has 4 vectors"):
            prepare(np.zeros((4, 2)), "tiny", tmp_path, queries=1, k=3, seed=0)

    def test_recall_recomputes_distances_and_counts_ties(self, tmp_path):
        base = np.array([[0, 0], [1, 0], [1, 0], [-1, 0], [5, 5]], np.float32)
        queries = np.zeros((1, 2), np.float32)
        files = [tmp_path / "base.npy", tmp_path / "queries.npy"]
        for file, array in zip(files, (base, queries), strict=True):
            np.save(file, array)
        data = Data("ties", 5, 2, 2, files[0], files[0], files[1], np.array([[0, 1]], np.float32))
        assert data.recall([[0, 1]]) == data.recall([[0, 2]]) == data.recall([[3, 0]]) == 1
        assert data.recall([[0, 4]]) == data.recall([[0, 0]]) == data.recall([[0, -1]]) == data.recall([[0, 99]]) == 0.5


class FakeProcess:
    """Answers as a process does, writes down who was asked what, and breaks down when told to."""

    def __init__(self, subject, log, us=10.0, fails_at=None):
        self.subject, self.log, self.us, self.fails_at = subject, log, us, fails_at

    def ask(self, do, **arguments):
        self.log.append((self.subject.engine, do, arguments["arguments"].get("nprobe"), arguments["threads"]))
        if do == self.fails_at:
            raise EngineError("out of memory")
        if do == "answers":
            return [[0, 1, 2]] * 20
        if do == "scanned":
            return 7.5
        return (self.us, 1.0) if do == "batch" else [self.us, 2 * self.us, 3 * self.us]


class TestTurns:
    def test_engines_alternate_within_each_setting(self):
        probes = [{"nprobe": 1}, {"nprobe": 8}]
        plan = turns([probes, probes], [1, 2])
        assert [engine for engine, _, _ in plan] == [0, 1] * 4
        assert [(a["nprobe"], t) for _, a, t in plan[::2]] == [(1, 1), (1, 2), (8, 1), (8, 2)]

    def test_each_engine_has_its_own_settings(self):
        plan = turns([[{"nprobe": 4}, {"nprobe": 8}], [{"ef": 16}], [{"nprobe": 8}]], [1])
        assert plan == [(0, {"nprobe": 4}, 1), (0, {"nprobe": 8}, 1), (2, {"nprobe": 8}, 1), (1, {"ef": 16}, 1)]

    def test_all_warm_up_and_then_take_turns_round_after_round(self, tmp_path):
        _, data = small_data(tmp_path)
        log = []
        processes = [FakeProcess(OURS, log, us=2.0), FakeProcess(FAISS, log, us=6.0)]
        probes = [[{"nprobe": 1}, {"nprobe": 2}]] * 2
        cases = measure(processes, probes, data, threads=[1], repeats=3, unavailable={})
        assert [entry[1] for entry in log[:8]] == ["answers", "scanned"] * 4
        one_round = [
            (engine, do, nprobe, 1) for nprobe in (1, 2) for engine in ("ivfpq", "faiss") for do in ("batch", "single")
        ]
        assert log[8:] == one_round * 3
        assert [(case.subject.engine, case.setting) for case in cases] == [
            ("ivfpq", "nprobe=1"),
            ("ivfpq", "nprobe=2"),
            ("faiss", "nprobe=1"),
            ("faiss", "nprobe=2"),
        ]
        assert cases[0].batch_us == [2.0] * 3
        assert cases[0].single_us == [4.0] * 3
        assert len(cases[0].latencies_us) == 9
        assert cases[0].scanned == 7.5
        assert cases[0].recall == data.recall([[0, 1, 2]] * 20)

    @pytest.mark.parametrize("moment", ["answers", "batch", "single"])
    def test_an_engine_that_breaks_down_is_named_and_the_others_go_on(self, tmp_path, moment):
        _, data = small_data(tmp_path)
        log, unavailable = [], {}
        processes = [FakeProcess(FAISS, log, fails_at=moment), FakeProcess(OURS, log)]
        cases = measure(processes, [[{}], [{}]], data, threads=[1], repeats=2, unavailable=unavailable)
        assert unavailable == {"faiss IVF4,PQ4x4": "out of memory"}
        assert [case.subject for case in cases] == [OURS]
        assert len(cases[0].batch_us) == 2
        assert sum(entry[:2] == ("faiss", moment) for entry in log) == 1  # not asked again


class Clock:
    """Stands for the module `time`: it goes on when it is told to, and by a nanosecond when it is looked at."""

    now = busy = 0.0

    def perf_counter(self):
        self.now += 1e-9
        return self.now

    def process_time(self):
        return self.busy

    def sleep(self, seconds):
        self.now += seconds


CLOCK = Clock()


class Slow(Engine):
    """Adding an engine is this much. Everything but the search is far slower than the search."""

    package = "slow"
    build_arguments = {"trees": 3}  # noqa: RUF012

    def __init__(self, d, subject, seed):
        self.index, self.asked = None, []

    def add(self, x):
        self.index = x

    def prepare(self):
        CLOCK.sleep(0.2)

    def search(self, xq, k):
        self.asked.extend(xq[:, 0].tolist())
        CLOCK.sleep(0.002)
        CLOCK.busy += 0.001
        return np.tile(np.arange(k), (len(xq), 1))


class TestWorker:
    @pytest.fixture
    def worker(self, tmp_path, monkeypatch):
        monkeypatch.setitem(ENGINES, "slow", Slow)
        monkeypatch.setattr(process, "BATCH_SECONDS", 0.01)
        monkeypatch.setattr(process, "time", CLOCK)
        queries = np.arange(50, dtype=np.float32).reshape(50, 1)
        np.save(tmp_path / "queries.npy", queries)
        np.save(tmp_path / "base.npy", queries)
        worker = Worker()
        with threadpoolctl.threadpool_limits():  # restored afterwards
            worker.start(["slow", "", ""], 1, 0, str(tmp_path / "queries.npy"), True)
            worker.add(str(tmp_path / "base.npy"), 1)
            worker.engine.asked.clear()
            yield worker

    def test_only_the_search_is_timed(self, worker):
        us, cores = worker.batch(3, {}, 1)
        assert us * 50 == pytest.approx(2_000, rel=1e-5)
        assert cores == pytest.approx(0.5, rel=1e-5)
        times = worker.single(3, {}, 1, 0)
        assert times == pytest.approx([2_000] * len(times), rel=1e-5)

    def test_single_queries_start_where_they_are_told_and_wrap_around(self, worker, monkeypatch):
        monkeypatch.setattr(process, "SINGLES", 4)
        assert len(worker.single(3, {}, 1, 48)) == 4
        warm = WARM
        assert worker.engine.asked[warm:] == [48, 49, 0, 1]
        assert worker.engine.asked[:warm] == [48 - i for i in range(warm, 0, -1)]

    def test_slow_single_queries_stop_in_time(self, worker, monkeypatch):
        monkeypatch.setattr(process, "SINGLE_SECONDS", 0.02)
        assert len(worker.single(3, {}, 1, 0)) == 7  # 10 that take longer than 0.02 s together, without the warm ones

    def test_what_writes_no_file_has_no_size(self, worker, tmp_path):
        assert worker.save(str(tmp_path / "index")) is None
        assert worker.answers(3, {}, 1) == [[0, 1, 2]] * 50

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
    def test_memory_is_what_came_since_the_start(self, worker):
        before = worker.memory()
        worker.engine.index = np.ones(20_000_000, np.uint8)
        grown = worker.memory() - before
        assert 19_000_000 < grown < 24_000_000


def a_comparison(data):
    """Ours three times as fast in batches, in every round; faiss with another recall."""
    cases = [
        Case(OURS, {"nprobe": 8}, 1, 0.5, [1.0, 2.0, 4.0], [5.0, 5.0, 5.0], [4.0, 5.0, 6.0], [1.0] * 3),
        Case(FAISS, {"nprobe": 8}, 1, 0.4, [3.0, 6.0, 12.0], [10.0, 20.0, 5.0], [9.0, 10.0, 20.0], [0.9] * 3),
        Case(Subject("sklearn"), {}, 1, 1.0, [100.0] * 3, [200.0] * 3, [200.0], [1.0] * 3),
    ]
    built = [
        Built(OURS, "reference", 0.5, 1.0, 0.1, 0.01, 12_000, 1_500),
        Built(FAISS, "", 0.0, 2.0, 0.1, 0.01, None, 1_700),
        Built(Subject("sklearn"), "", 0.0, 0.0, 0.0, 0.0, 0, None),
    ]
    return Comparison(data, built, cases, {"annoy": "not installed: No module named 'annoy'"})


class TestReport:
    def test_a_ratio_is_taken_within_each_round(self, tmp_path):
        _, data = small_data(tmp_path)
        (row,) = report.ratios(a_comparison(data))
        assert row["batch"] == {"median": 3, "low": 3, "high": 3}  # though the medians of each side vary fourfold
        assert row["single"] == {"median": 2, "low": 1, "high": 4}
        assert (row["recall"], row["faiss_recall"]) == (0.5, 0.4)

    def test_other_factories_variants_and_threads_are_no_pair(self, tmp_path):
        _, data = small_data(tmp_path)
        comparison = a_comparison(data)
        faiss = comparison.cases[1]
        for other in (
            Case(FAISS._replace(factory="Flat"), faiss.arguments, 1),
            Case(FAISS._replace(variant="polysemous"), faiss.arguments, 1),
            Case(FAISS, {"nprobe": 9}, 1),
            Case(FAISS, faiss.arguments, 2),
        ):
            comparison.cases[1] = other
            assert report.ratios(comparison) == []

    def test_the_files_say_what_was_measured(self, tmp_path):
        _, data = small_data(tmp_path)
        about = report.environment(3, ["python", "-m", "ivfpq.benchmark"])
        text = report.write(tmp_path / "out", a_comparison(data), about, 3)
        content = json.loads((tmp_path / "out" / "results.json").read_text())
        rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
        assert [row["engine"] for row in rows] == ["ivfpq", "faiss", "sklearn"]
        for row, result in zip(rows, content["results"], strict=True):
            assert float(row["batch_us"]) == result["batch_us"] == statistics.median(result["rounds"]["batch_us"])
            assert float(row["single_p50_us"]) == result["single_p50_us"]
        assert (rows[0]["batch_us_low"], rows[0]["batch_us_high"]) == ("1.0", "4.0")
        assert rows[1]["memory_bytes"] == ""
        assert content["unavailable"] == {"annoy": "not installed: No module named 'annoy'"}
        assert content["environment"]["seed"] == 3
        assert {"numpy", "faiss-cpu", "hnswlib", "annoy"} <= content["environment"]["versions"].keys()
        assert "- annoy: not installed" in text
        assert "3.00x" in text
        assert "0.4000 *" in text  # recalls too far apart for a fair ratio
        assert (tmp_path / "out" / "report.md").read_text() == text
        assert (tmp_path / "out" / "pareto.png").read_bytes().startswith(b"\x89PNG")

    def test_a_summary_says_under_what_it_was_measured(self, tmp_path):
        _, data = small_data(tmp_path)
        text = report.summary(a_comparison(data))
        assert "small: n = 100, d = 8, 20 held-out queries, k = 3; threads: 1; median of 3 interleaved rounds" in text
        assert "2.00 (1.00-4.00)" in text
        assert "Not measured: annoy: not installed" in text

    def test_winners_are_found_for_each_recall(self, tmp_path):
        _, data = small_data(tmp_path)
        text = report.winners(a_comparison(data), [0.3, 0.5, 0.9, 1.1])
        ours = "ivfpq IVF4,PQ4x4 nprobe=8"
        assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:6]] == [
            ["0.3", f"{ours}: 2.00", f"{ours}: 5.00", "sklearn: 0", "sklearn: 0"],
            ["0.5", f"{ours}: 2.00", f"{ours}: 5.00", "sklearn: 0", "sklearn: 0"],
            ["0.9", "sklearn: 100", "sklearn: 200", "sklearn: 0", "sklearn: 0"],
            ["1.1", "none", "none", "none", "none"],
        ]
        comparison = a_comparison(data)
        comparison.cases = comparison.cases[1:2]  # faiss, whose memory nobody could tell
        assert report.winners(comparison, [0]).splitlines()[2].split("|")[5].strip() == "none"

    def test_engines_differ_in_colour_and_factories_in_marks(self):
        subjects = [Subject(engine, factory) for engine in ("ivfpq", "faiss") for factory in ("Flat", "IVF4,PQ4")]
        styles = report.lines(subjects)
        looks = [(styles[subject]["color"], styles[subject]["marker"]) for subject in subjects]
        assert len(set(looks)) == 4
        assert [mark for _, mark in looks] == [looks[0][1], looks[1][1]] * 2

    def test_numbers_have_three_digits(self):
        numbers = {1234567: "1,234,567", 123.456: "123", 1.23456: "1.23", 0.0123456: "0.0123", 0: "0", 1e-9: "0"}
        assert {value: report.short(value) for value in numbers} == numbers
        assert report.short(None) == report.short(math.nan) == "-"
        assert report.short(2048, 1024) == "2.00"
        assert report.spread(Spread(2, 1, 3), "x") == "2.00x (1.00-3.00)"
        assert report.spread(Spread(2, 2, 2)) == "2.00"

    def test_spread(self):
        assert Spread.of([3, 1, 2]) == (2, 1, 3)
        assert math.isnan(Spread.of([]).median)
        assert Spread.of_ratios([4.0, 9.0], [2.0, 3.0]) == (2.5, 2, 3)
        with pytest.raises(ValueError, match="longer"):
            Spread.of_ratios([1.0], [1.0, 2.0])


class TestExactEngines:
    @pytest.mark.parametrize(
        "subject", [Subject("numpy"), *(Subject("sklearn", "", v) for v in ("", "kd_tree", "ball_tree"))]
    )
    @pytest.mark.parametrize("threads", [1, 2])
    def test_they_find_the_true_neighbours(self, tmp_path, subject, threads):
        _, data = small_data(tmp_path, n=500, k=7)
        engine = ENGINES[subject.engine](8, subject, 0)
        engine.threads = threads
        engine.add(np.load(data.base))
        xq = np.load(data.queries)
        assert (
            data.recall(engine.search(xq, 7))
            == data.recall(np.concatenate([engine.search_one(q[None], 7) for q in xq]))
            == 1
        )

    @pytest.mark.parametrize("variant", ["kd_tree", "ball_tree"])
    def test_trees_leave_out_most_in_two_dimensions_and_nothing_in_many(self, variant):
        def share(d):
            x = np.random.default_rng(0).standard_normal((2000, d), np.float32)
            tree = Sklearn(d, Subject("sklearn", "", variant), 0)
            tree.add(x[20:])
            return tree.scanned(x[:20], 5) / 1980

        assert share(2) < 0.4  # a ball tree computes the distances to its centres besides
        assert share(64) > 0.95


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """The command on tiny data with one engine that cannot be imported and one that takes its process down."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "annoy.py").write_text("raise ImportError('annoy is broken here')\n")
    (folder / "hnswlib.py").write_text("import os\nos._exit(3)\n")
    x = synthetic(500, 16, 0)
    np.save(folder / "x.npy", np.concatenate([x, x[:20]]))  # copies, so that there are ties
    engines = "ivfpq:reference,faiss,sklearn,annoy,hnswlib"
    arguments = ["--features", str(folder / "x.npy"), "--factory", "IVF4,PQ4x4", "IVF4,SQfp16", "--engines", engines]
    arguments += ["--k", "5", "--nprobe", "4,1", "--threads", "1", "--queries", "40", "--repeats", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        assert main([*arguments, "--out", str(folder / "out")]) == 0
    return json.loads((folder / "out" / "results.json").read_text())


@pytest.mark.slow
class TestOneRun:
    def test_every_engine_is_measured_or_named(self, one_run):
        measured = [(row["engine"], row["variant"], row["factory"], row["query"]) for row in one_run["results"]]
        assert measured == [
            *[("ivfpq", "reference", "IVF4,PQ4x4", f"nprobe={nprobe}") for nprobe in (1, 4)],
            *[
                ("faiss", "", factory, f"nprobe={nprobe}")
                for factory in ("IVF4,PQ4x4", "IVF4,SQfp16")
                for nprobe in (1, 4)
            ],
            ("sklearn", "", "", ""),
        ]
        reasons = one_run["unavailable"]
        assert reasons.keys() == {"annoy", "hnswlib", "ivfpq:reference IVF4,SQfp16"}
        assert "annoy is broken here" in reasons["annoy"]
        assert "exit status 3" in reasons["hnswlib"]
        assert "IVF4,SQfp16" in reasons["ivfpq:reference IVF4,SQfp16"]

    def test_numbers_are_plausible(self, one_run):
        for row in one_run["results"]:
            assert 0 < row["batch_us_low"] <= row["batch_us"] <= row["batch_us_high"]
            assert 0 < row["single_p50_us"] <= row["single_p95_us"] <= row["single_p99_us"]
            assert row["single_queries"] > 2
            assert len(row["rounds"]["batch_us"]) == len(row["rounds"]["single_p50_us"]) == 2
            assert row["kernel"] == ("reference" if row["engine"] == "ivfpq" else "")
            assert (row["file_bytes"] is None) == (row["engine"] == "sklearn")
        recall = {(row["engine"], row["factory"], row["query"]): row["recall"] for row in one_run["results"]}
        assert recall["sklearn", "", ""] == 1  # exact, and ties count: there are copies in the data
        assert recall["faiss", "IVF4,SQfp16", "nprobe=4"] > 0.95
        assert recall["faiss", "IVF4,PQ4x4", "nprobe=1"] <= recall["faiss", "IVF4,PQ4x4", "nprobe=4"] < 0.95

    def test_ours_and_faiss_are_paired(self, one_run):
        assert [(row["subject"], row["query"]) for row in one_run["ratios"]] == [
            ("ivfpq:reference IVF4,PQ4x4", "nprobe=1"),
            ("ivfpq:reference IVF4,PQ4x4", "nprobe=4"),
        ]


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--engines", "ivfpq,milvus"], "'milvus'"),
            (["--engines", "ivfpq:fast"], "ivfpq:portable"),
            (["--threads", "1,5000"], "5000"),
            (["--features", "nowhere.npy"], "nowhere.npy"),
            (["--n", "5", "--engines", "ivfpq"], "has 5 vectors"),
        ],
    )
    def test_what_cannot_be_done_is_said(self, arguments, message, capsys):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["0", "1,-2", "x", ""])
    def test_numbers_must_be_positive(self, text, capsys):
        with pytest.raises(SystemExit):
            parse_arguments(["--nprobe", text])
        assert "--nprobe" in capsys.readouterr().err

    def test_settings_depend_on_what_the_factory_makes(self):
        def settings(factory):
            return ENGINES["faiss"].query_arguments(factory, 10, [1, 8])

        assert settings("IVF100,PQ8") == [{"nprobe": 1}, {"nprobe": 8}] and settings("PQ8") == [{}]
        assert settings("PQ8,RFlat") == [{"k_factor": 10}]
        assert settings("IVF9,PQ8,Refine") == [{"nprobe": 1, "k_factor": 10}, {"nprobe": 8, "k_factor": 10}]
        assert settings("IVF9,SQ8,Refine")[:4] == [
            {"nprobe": n, "k_factor": f} for n, f in ((1, 2), (1, 3), (1, 4), (8, 2))
        ]
        graph = settings("PCA8,HNSW32_SQ8,RFlat")
        assert len(graph) == 12 and graph[0] == {"efSearch": 16, "k_factor": 2}
        assert [each["efSearch"] for each in settings("HNSW32")] == [16, 32, 64, 128]

    def test_one_subject_a_factory_where_engines_take_them(self):
        assert parse_subjects("faiss:polysemous", ["A", "B"]) == [
            Subject("faiss", "A", "polysemous"),
            Subject("faiss", "B", "polysemous"),
        ]
        assert parse_subjects(" annoy", ["A", "B"]) == [Subject("annoy")]
        assert Subject("ivfpq", "IVF1,PQ8", "portable").label == "ivfpq:portable IVF1,PQ8"


class TestDoor:
    def test_the_library_hands_on_to_the_checkout(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            benchmark.main(["--help"])
        assert stopped.value.code == 0
        assert "usage: python -m ivfpq.benchmark" in capsys.readouterr().out

    def test_without_a_checkout_it_says_so_in_a_sentence(self, capsys, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "benchmarks", None)
        assert benchmark.main(["--help"]) == 2
        assert capsys.readouterr().err == (
            "error: the benchmark is not installed with the library; run it in a checkout of the project\n"
        )


class TestRow:
    @pytest.mark.parametrize(("ours", "fair"), [(0.496, True), (0.5, True), (0.7, True), (0.494, False)])
    def test_speed_at_the_cost_of_recall_is_marked(self, ours, fair):
        row = Row("a", ratio=Spread.of([9.0]), our_recall=ours, their_recall=0.5)
        assert row.is_fair is fair
        assert ("0.500 *" in studies.table([row])) is not fair
        assert studies.replace(row, margin=0.0).is_fair is (ours >= 0.5)

    def test_where_a_recall_is_missing_there_is_none_to_lose(self):
        assert Row("a").is_fair
        assert Row("a", our_recall=0.1).is_fair


class InThisProcess:
    """A worker without the process, which answers what JSON would bring. Polysemous training, which takes seconds
    however little there is to train, is left out, and what was warmed up once in this process stays warm.
    """

    warm = set()  # noqa: RUF012

    def __init__(self, subject, data, seed, *, cold=False):
        self.subject, self.worker = subject, Worker()
        warm_up = not cold and subject not in self.warm
        variant = "" if subject.variant == "polysemous" else subject.variant
        self.started = self.ask(
            "start",
            subject=list(subject._replace(variant=variant)),
            d=data.d,
            seed=seed,
            queries=str(data.queries),
            warm_up=warm_up,
        )
        if warm_up:
            self.warm.add(subject)

    def ask(self, do, **arguments):
        try:
            return json.loads(json.dumps(getattr(self.worker, do)(**json.loads(json.dumps(arguments)))))
        except (ImportError, RuntimeError, ValueError) as error:
            raise EngineError(str(error)) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def quick(monkeypatch):
    """Studies in this process, with turns too short to mean anything."""
    for name, value in {"BATCH_SECONDS": 1e-4, "SETTLE_SECONDS": 0, "SINGLES": 2}.items():
        monkeypatch.setattr(process, name, value)
    monkeypatch.setattr(comparison, "SINGLES", 2)
    for name, value in {"TRAINING_ROUNDS": 1, "FRESH_PROCESSES": 1, "THEIR_FACTORY": "IVF100,PQ8"}.items():
        monkeypatch.setattr(studies, name, value)
    for module in (comparison, studies):
        monkeypatch.setattr(module, "Process", InThisProcess)
    for module in (command, studies):
        monkeypatch.setattr(module, "cores", lambda: 1)
    gc.freeze()  # memory is looked at after a collection, which need not walk through all that the tests have imported
    with threadpoolctl.threadpool_limits():  # restored afterwards
        yield
    gc.unfreeze()


@pytest.mark.slow
class TestStudies:
    def test_fast_table_has_all_its_rows(self, quick, tmp_path, monkeypatch):
        np.save(tmp_path / "x.npy", synthetic(340, 128, 0))
        arguments = ["--study", "fast-table", "--features", str(tmp_path / "x.npy"), "--n", "400", "--d", "32"]
        assert main([*arguments, "--repeats", "1", "--out", str(tmp_path / "out")]) == 0
        content = json.loads((tmp_path / "out" / "fast-table.json").read_text())
        rows = content["rows"]
        starts = ["scan of", "load IVF10,PQ8", "memory a vector"]
        for name in ("synthetic", "mixture"):
            starts += [f"{name}: IVF10,PQ16, batch", f"{name}: IVF10,PQ16, single", f"{name}: add 400"]
        starts += [
            "first query",
            "IVF100,PQ8, d = 128, batch",
            "train IVF100,PQ8",
            "add 272",
            "PCA128,IVF100,PQ8,Refine",
        ]
        starts += ["recall@10 at 8 bytes", "import"]
        for start in starts:
            assert any(row["what"].startswith(start) for row in rows), start
        for row in rows:
            assert row["better"] == ("higher" if row["what"].startswith("recall") else "lower")
            assert row["ours"] or row["note"]
        against_fast_scan = [row for row in rows if "fewest probes" in row["note"]]
        assert against_fast_scan
        assert all(row["our_recall"] >= row["their_recall"] for row in against_fast_scan)
        assert all("a query scans, in the mean" in row["note"] for row in rows if ": IVF10,PQ16" in row["what"])
        text = (tmp_path / "out" / "fast-table.md").read_text()
        assert text.count("\n| ") == len(rows) + 2  # the header and the line below it

    @pytest.mark.parametrize("kernel", ["portable", "reference"])
    def test_no_kernel_is_measured_twice(self, monkeypatch, kernel):
        asked = []

        def remember(data, plan, **_):
            asked.extend(subject.label for subject, _ in plan)
            raise EngineError("enough")

        monkeypatch.setenv("IVFPQ_KERNEL", kernel)
        monkeypatch.setattr(studies, "compare", remember)
        with pytest.raises(EngineError, match="enough"):
            studies.scan_rows(None, argparse.Namespace(repeats=1, seed=0))
        others = [] if kernel == "portable" else ["ivfpq:portable PQ8"]
        assert asked == ["ivfpq PQ8", *others, "faiss PQ8"]

    def test_a_group_that_fails_leaves_a_row(self, quick, tmp_path, monkeypatch):
        def broken(*_):
            raise EngineError("no room")

        others = (
            "scan_rows",
            "inverted_file_rows",
            "feature_rows",
            "training_rows",
            "refinement_rows",
            "eight_byte_rows",
        )
        for name in others:
            monkeypatch.setattr(studies, name, lambda data, args: [])
        broken.__name__ = "storage_rows"
        monkeypatch.setattr(studies, "storage_rows", broken)
        monkeypatch.setattr(studies, "import_rows", lambda: [])
        np.save(tmp_path / "x.npy", synthetic(60, 4, 0))
        arguments = ["--study", "fast-table", "--features", str(tmp_path / "x.npy"), "--n", "60", "--d", "4"]
        assert main([*arguments, "--out", str(tmp_path)]) == 0
        (row,) = json.loads((tmp_path / "fast-table.json").read_text())["rows"]
        assert (row["what"], row["ours"], row["note"]) == ("storage rows", None, "no room")

    def test_high_recall_shows_the_cheapest_setting_of_each_engine(self, quick, tmp_path):
        np.save(tmp_path / "x.npy", synthetic(700, 24, 0))
        arguments = ["--study", "high-recall", "--features", str(tmp_path / "x.npy"), "--queries", "40"]
        assert main([*arguments, "--repeats", "1", "--k", "5", "--out", str(tmp_path)]) == 0
        content = json.loads((tmp_path / "high-recall.json").read_text())
        factories = ["ivfpq PCA24,IVF16,SQ8,Refine", "ivfpq PCA24,IVF16,PQ8,Refine", "faiss PCA24,HNSW32_SQ8,Refine"]
        factories += ["faiss PCA24,IVF16,SQ8,Refine", "faiss HNSW32", "faiss IVF16,Flat"]
        factories += ["hnswlib"] if find_spec("hnswlib") else []
        rows = content["rows"]
        wanted = [
            (recall, way, one) for recall in (0.95, 0.99, 0.999) for way in ("batch", "single") for one in factories
        ]
        assert [(row["wanted"], row["way"], row["subject"]) for row in rows] == wanted
        text = (tmp_path / "high-recall.md").read_text()
        for row in rows:
            mine = [case for case in content["cases"] if Subject(*case["subject"]).label == row["subject"]]
            enough = [case[f"{row['way']}_us"][0] for case in mine if case["recall"] >= row["wanted"]]
            assert ("us" in row) == bool(enough)
            if enough:
                assert row["us"][0] == min(enough) and row["recall"] >= row["wanted"] and row["setting"] in text
        exact = next(row for row in rows if row["subject"] == factories[0] and row["wanted"] == 0.999)
        assert exact["of_ours"] == [1, 1, 1]

    def test_a_wanted_recall_is_measured_beside_the_best_that_could_have_been_chosen(self, tmp_path):
        np.save(tmp_path / "x.npy", synthetic(900, 24, 0))
        arguments = ["--study", "target-recall", "--features", str(tmp_path / "x.npy"), "--queries", "60"]
        assert main([*arguments, "--repeats", "2", "--k", "5", "--out", str(tmp_path)]) == 0
        content = json.loads((tmp_path / "target-recall.json").read_text())
        assert content["data"]["queries"] == 60
        rows, text = content["rows"], (tmp_path / "target-recall.md").read_text()
        assert [(row["target"], row["way"]) for row in rows] == [
            (target, way) for target in (0.9, 0.95, 0.99) for way in ("batch", "single")
        ]
        for row in rows:
            assert row["recall"] > row["target"] - 0.1
            assert row["best_recall"] >= min(row["recall"], row["target"])
            assert row["setting"] in text and row["best"] in text
            low, high = row["times_best"][1:]
            assert low <= row["us"][2] / row["best_us"][1] and row["us"][1] / row["best_us"][2] <= high

    def test_scaling_varies_one_thing_at_a_time(self, quick, tmp_path):
        arguments = ["--study", "scaling", "--n", "400", "--d", "16", "--repeats", "1", "--out", str(tmp_path)]
        assert main(arguments) == 0
        points = json.loads((tmp_path / "scaling.json").read_text())["points"]
        values = {}
        for point in points:
            values.setdefault(point["curve"], {}).setdefault(point["engine"], []).append(point["value"])
        both = lambda numbers: {"ivfpq": numbers, "faiss": numbers}  # noqa: E731
        assert values == {
            "vectors": both([400]),
            "lists probed": both([1, 2, 4, 8]),
            "threads": both([1]),
            "bytes a code (M)": both([4, 8, 16]),
        }
        assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
