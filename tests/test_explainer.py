"""The page that shows how the index works: what it shows is what the library computes from the same vectors."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import explainer
from ivfpq import IndexFlat, IndexIVFPQ, load
from ivfpq.kmeans import lloyd
from ivfpq.pq import ProductQuantizer
from search.engine import SearchEngine
from search.explain.__main__ import main
from search.explain.page import DIGITS, FILES, PAGE, read_numbers
from search.explain.recording import CellSearch, UnexplainableError, exact, packed, recorded_query, unpacked
from search.options import SearchOptions

K = 10


@pytest.fixture(scope="module")
def data():
    return read_numbers(PAGE)


@pytest.fixture(scope="module")
def cells():
    return load(explainer.INDEX)


def stored_vectors(data):
    return unpacked(data["vectors"], np.float32, (-1, data["about"]["d"]))


def of_steps(packed_numbers):
    return packed_numbers["low"] + packed_numbers["step"] * unpacked(packed_numbers["data"], np.uint16)


def test_lists_and_codes_are_those_that_the_index_gives_these_vectors(data, cells):
    again = type(cells)(cells.d, cells.nlist, cells.M, cells.nbits)
    again.install(cells.centroids, cells.pq.codebooks)
    again.add(stored_vectors(data))
    lists, codes = again.codes_of(np.arange(data["about"]["stored"]))
    assert "".join(DIGITS[number] for number in lists) == data["lists"]
    assert np.bincount(lists, minlength=cells.nlist).tolist() == data["sizes"]
    assert (codes == cells.codes_of(np.arange(len(codes)))[1]).all()


def test_every_query_is_what_a_search_computes(data, cells):
    for query in data["queries"]:
        q = unpacked(query["vector"], np.float32)
        probe = cells.probe(q[None], cells.nlist)
        assert query["order"] == probe.ids[0].tolist()
        np.testing.assert_allclose(query["to_centroids"], probe.distances[0], rtol=1e-5)
        place = query["order"].index(query["lookup"]["list"])
        assert {data["sizes"][number] for number in query["order"][:place]} <= {0}  # nearer lists are empty
        found = cells.search(q[None], data["about"]["stored"], nprobe=place + 1)
        rows = query["lookup"]["rows"]
        assert [row["id"] for row in rows] == found.ids[0, : len(rows)].tolist()
        assert [np.float32(row["sum"]) for row in rows] == found.distances[0, : len(rows)].tolist()  # to the bit
        table, step = of_steps(query["lookup"]["table"]).reshape(cells.M, -1), query["lookup"]["table"]["step"]
        for row in rows:
            shown = table[np.arange(cells.M), row["code"]]
            assert np.abs(shown - row["parts"]).max() <= 1.01 * step
            assert np.float32(0) + np.add.accumulate(np.float32(row["parts"]))[-1] == np.float32(row["sum"])


def test_screening_loses_nothing_and_is_below_what_it_bounds(data, cells):
    for query in data["queries"]:
        screening = query["screening"]
        found = cells.search(unpacked(query["vector"], np.float32)[None], K, nprobe=cells.nlist)
        sums = np.float32(screening["sums"])
        for k, look in enumerate(screening["looks"], start=1):
            assert np.float32(look["limit"]) == found.distances[0, k - 1]
            survives = np.array(list(look["survives"])) == "1"
            bounds = of_steps(look["bounds"])
            assert set(found.ids[0, :k]) <= set(np.array(screening["ids"])[survives])
            assert survives[sums <= found.distances[0, k - 1]].all()
            assert (bounds <= sums + 1e-6)[survives].all()
            assert (bounds[~survives] >= look["limit"] * (1 - 1e-3)).all()


def test_the_recorder_writes_the_committed_numbers_again(data, cells):
    query = data["queries"][0]
    q = unpacked(query["vector"], np.float32)
    kept = np.square(stored_vectors(data) - q).sum(axis=1)
    again = recorded_query(CellSearch(cells, q), lambda ids: (kept[ids], kept[ids]), nprobe=cells.nlist, k=K)
    assert again["order"] == query["order"]
    for row, known in zip(again["lookup"]["rows"], query["lookup"]["rows"], strict=True):
        assert (row["id"], row["code"], row["sum"]) == (known["id"], known["code"], known["sum"])
        np.testing.assert_allclose(row["kept"], known["kept"], rtol=1e-4)
    np.testing.assert_allclose(
        of_steps(again["lookup"]["table"]), of_steps(query["lookup"]["table"]), rtol=1e-4, atol=1e-4
    )
    for look, known in zip(again["screening"]["looks"], query["screening"]["looks"], strict=True):
        assert look["limit"] == known["limit"]
        # A sum of minima may round to the next step on another processor.
        assert sum(a != b for a, b in zip(look["survives"], known["survives"], strict=True)) <= 2


def test_where_the_nearest_list_holds_nothing_else_the_next_one_is_shown():
    cells = IndexIVFPQ(4, nlist=3, M=2, nbits=1, seed=0)
    x = np.repeat(np.eye(4, dtype=np.float32)[:3], 4, axis=0)
    cells.train(x)
    cells.add(x)
    order = CellSearch(cells, x[0]).order
    cells.remove_ids(np.arange(1, 4))  # the list of x[0] keeps x[0] alone, the next one is emptied
    cells.remove_ids(np.flatnonzero(cells.codes_of(np.arange(4, 12))[0] == order[1]) + 4)

    def recorded(own_id):
        kept = np.square(x - x[0]).sum(axis=1)
        return recorded_query(CellSearch(cells, x[0]), lambda ids: (kept[ids], kept[ids]), nprobe=1, k=3, own_id=own_id)

    assert (recorded(None)["lookup"]["list"], recorded(None)["screening"]["ids"]) == (order[0], [0])
    others = recorded(0)
    assert others["lookup"]["list"] == order[2]
    assert {row["id"] for row in others["lookup"]["rows"]} == set(others["screening"]["ids"])
    assert len(others["screening"]["looks"]) == 3
    cells.remove_ids(np.arange(1, 12))
    with pytest.raises(UnexplainableError, match="there is none to compare"):
        recorded(0)


def test_neighbours_in_the_kept_numbers_are_mostly_those_shown(data):
    """The page's neighbours are those of the whole vectors, which are not kept here."""
    flat = IndexFlat(data["about"]["d"])
    flat.add(stored_vectors(data))
    near = flat.search(stored_vectors(data), 7).ids
    shared = [len({*row["ids"]} & {*ids}) / 6 for row, ids in zip(data["neighbours"], near.tolist(), strict=True)]
    assert np.mean(shared) > 0.8


def test_k_means_is_written_down_as_it_runs(data):
    for count, run in data["kmeans"].items():
        objectives = [each["objective"] for each in run["rounds"]]
        assert objectives == sorted(objectives, reverse=True)
        assert all(len(each["cells"]) == data["about"]["trained"] for each in run["rounds"])
        assert len(run["rounds"][0]["centroids"]) == int(count)
    assert data["kmeans"][str(data["about"]["nlist"])]["lists"] == data["lists"]


def test_rounds_end_where_kmeans_does():
    from ivfpq.kmeans import kmeans

    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    rounds = list(lloyd(x, 7, np.random.default_rng(1)))
    assert (rounds[-1].means == kmeans(x, 7, np.random.default_rng(1))).all()
    for before, after in pairwise(rounds):
        assert (before.means == after.centroids).all()
        assert after.objective <= before.objective
    naive = np.square(x[:, None] - rounds[0].centroids).sum(axis=2).argmin(axis=1)
    assert (rounds[0].nearest == naive).mean() > 0.99


def test_errors_shrink_with_parts_and_bits(data, cells):
    errors = {(each["M"], each["nbits"]): np.mean(each["errors"]) for each in data["codes"]["configs"]}
    for (M, nbits), error in errors.items():
        assert error <= errors.get((M // 2, nbits), 2)
        assert error <= errors.get((M, nbits - 2), 2)
    shown = data["codes"]["pictures"]
    residuals = unpacked(data["codes"]["residuals"], np.float32, (len(shown), -1))
    codes = cells.pq.encode(residuals)
    assert codes.tolist() == data["codes"]["codes"]
    mine = next(each for each in data["codes"]["configs"] if (each["M"], each["nbits"]) == (cells.M, cells.nbits))
    left = np.square(residuals - cells.pq.decode(codes)).sum(axis=1) / np.square(residuals).sum(axis=1)
    np.testing.assert_allclose(np.array(mine["errors"])[shown], left, atol=1e-4)


def test_measured_figures_are_those_of_the_benchmark(data):
    assert data["measured"] == explainer.measured()


def test_photographs_have_their_credits(data):
    assert {each["label"] for each in data["credits"]} >= {picture["label"] for picture in data["pictures"]}
    assert len(data["pictures"]) == 96


def test_the_folder_is_small_and_asks_for_nothing_outside():
    size = sum((PAGE / name).stat().st_size for name in (*FILES, "data.js"))
    assert size <= 400_000
    for name in FILES:
        text = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|fetch\(|XMLHttpRequest|import\s", text), name


def test_scripts_can_be_parsed():
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    for name in FILES:
        if name.endswith(".js"):
            subprocess.run([node, "--check", PAGE / name], check=True)


def test_floats_are_written_so_that_they_read_back():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert np.float32(exact(values)).tolist() == values.tolist()
    assert (unpacked(packed(values), np.float32) == values).all()


@pytest.mark.parametrize(("metric", "trained"), [("ip", True), ("l2", False)])
def test_what_the_page_has_no_picture_for_is_refused(metric, trained):
    from ivfpq import IndexIVFPQ

    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    index = IndexIVFPQ(4, 2, 2, 2, metric=metric)
    if trained:
        index.train(x)
    with pytest.raises(UnexplainableError, match="the page explains inverted lists of product-quantized residuals"):
        CellSearch(index, x[0])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_distances_are_those_of_a_search(metric):
    from ivfpq import IndexIVFPQ

    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 12)).astype(np.float32) + 1
    index = IndexIVFPQ(12, 5, 3, 5, metric=metric)
    index.train(x)
    index.add(x)
    search = CellSearch(index, x[7])
    found = index.search(x[7][None], 300, nprobe=2)
    ids = found.ids[0][found.ids[0] >= 0]
    distances = found.distances[0][: len(ids)]
    sums = search.distances(ids)[1]
    assert ((sums if metric == "l2" else np.float32(1) - sums / np.float32(2)) == distances).all()
    assert sorted(search.scanned(2)) == sorted(ids)
    for k in (1, 5, 20):
        look = search.screening(search.scanned(2), k)
        assert set(ids[:k]) <= set(search.scanned(2)[look.survives])


def test_a_codec_of_one_part_is_drawn_too():
    from ivfpq import IndexIVFPQ

    x = np.random.default_rng(1).normal(size=(90, 6)).astype(np.float32)
    index = IndexIVFPQ(6, 3, 1, 3)
    index.train(x)
    index.add(x)
    assert isinstance(index.pq, ProductQuantizer)
    search = CellSearch(index, x[0])
    assert search.minima().shape == (1, 8)
    assert search.screening(search.scanned(3), 4).survives.sum() >= 4


def test_a_search_of_ones_own_is_written_down(demo_collection, tmp_path, capsys):
    asked = ["demo", "--collections", str(demo_collection.parent), "--query", "57", "--nprobe", "3"]
    assert main([*asked, "--export", str(tmp_path / "found")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "found" / "index.html")
    assert {path.name for path in (tmp_path / "found").iterdir()} == {*FILES, "data.js", "pictures.webp"}
    written, engine = read_numbers(tmp_path / "found"), SearchEngine.open(demo_collection)
    (query,) = written["queries"]
    vector = np.asarray(engine.store.features[57], np.float32)
    for codec, rerank in zip(written["budgets"][0]["codecs"][1:], (False, True), strict=True):
        options = SearchOptions("ivfpq", 10, 3, rerank, neighbourhood=0)
        assert codec["hits"] == [list(engine.search_vector(vector, options, own_id=57).ids)]
    truth = engine.search_vector(vector, SearchOptions("exact", 10, rerank=False, neighbourhood=0), own_id=57)
    assert query["truth"] == list(truth.ids)
    np.testing.assert_allclose(query["truth_distances"], [2 - 2 * hit.similarity for hit in truth], atol=1e-5)
    index = engine.index("ivfpq")
    assert query["order"][:3] == index.probe(vector[None], 3).ids[0].tolist()
    assert 57 not in query["screening"]["ids"]
    assert query["screening"]["ids"] != []
    by_code = index.search(vector[None], 1, nprobe=100, ids=[query["lookup"]["rows"][0]["id"]]).distances[0, 0]
    assert np.float32(1) - np.float32(query["lookup"]["rows"][0]["sum"]) / np.float32(2) == by_code
    assert set(query["truth"]) <= set(written["ids"])
    assert sum(written["sizes"]) == written["about"]["stored"] == len(engine.store.ids)

    assert main([*asked, "--engine", "exact", "--export", str(tmp_path / "other")]) == 2
    assert "the page explains inverted lists of product-quantized residuals" in capsys.readouterr().err
    assert main(["demo", "--collections", str(demo_collection.parent), "--query", "7000", "--export", "x"]) == 2
    assert "has no picture 7000" in capsys.readouterr().err


def test_page_folder_holds_nothing_else():
    assert {path.name for path in PAGE.iterdir()} == {*FILES, "data.js", "pictures.webp"}
    assert Path(PAGE / "pictures.webp").stat().st_size < 250_000
