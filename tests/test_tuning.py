"""tune and target_recall: how much to look at for the recall that is wanted."""

import copy
import re

import numpy as np
import pytest
from oracles import same

from ivfpq import IndexFileError, IndexFlat, NotTunedError, index_factory, load, save
from ivfpq.metrics import knn_recall_at_k
from ivfpq.tuning import FAR_APART, K_FACTORS, Reading, Setting, cheapest, from_json, with_setting

F = np.float32
D = 16


def vectors(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, D)) * 1.5
    return (centres[rng.integers(60, size=n)] + rng.normal(size=(n, D))).astype(F)


@pytest.fixture(scope="module")
def built():
    index = index_factory(D, "IVF32,PQ4,Refine")
    index.train(vectors(2000, 0))
    index.add(vectors(3000, 1))
    return index


@pytest.fixture
def index(built):
    return copy.copy(built)


@pytest.fixture(scope="module")
def truth():
    flat = IndexFlat(D)
    flat.add(vectors(3000, 1))
    return lambda q, k: flat.search(q, k).ids


@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_queries_that_it_was_not_learnt_on_find_as_many(index, truth, recall):
    tuned, others = vectors(1000, 2), vectors(1000, 3)
    setting = index.tune(tuned, 10, recall)
    assert setting.k == 10 and setting.recall == recall <= setting.found
    assert setting.found == knn_recall_at_k(index.search(tuned, 10, target_recall=recall).ids, truth(tuned, 10))
    found = index.search(others, 10, target_recall=recall)
    assert same(found, index.search(others, 10, nprobe=setting.nprobe, k_factor=setting.k_factor))
    assert knn_recall_at_k(found.ids, truth(others, 10)) > recall - 0.01


def test_no_setting_that_finds_as_many_reads_less(index, truth):
    q = vectors(100, 2)
    setting = index.tune(q, 5, 0.9)
    reading = index._reading()
    assert reading == Reading(32, 3000 * 4 / 32, D, 3000)
    cost = reading.bytes(5, setting.nprobe, setting.k_factor)
    assert cost == setting.nprobe * 375 + FAR_APART * 5 * setting.k_factor * D
    for k_factor in K_FACTORS:
        for nprobe in range(1, 33):
            if reading.bytes(5, nprobe, k_factor) < cost:
                ids = index.search(q, 5, nprobe=nprobe, k_factor=k_factor).ids
                assert knn_recall_at_k(ids, truth(q, 5)) < 0.9


def test_the_fewest_lists_are_found_by_steps_that_double_and_halve():
    truth, asked = np.arange(100)[None], []

    def search(nprobe, k_factor):  # each list holds one neighbour, and fewer than 400 candidates are none
        asked.append((nprobe, k_factor))
        return np.where(np.arange(100) < nprobe * (k_factor is None or k_factor >= 4), truth, -1)

    assert cheapest(search, truth, 0.5, 100, Reading(64, 1.0, 0, 64)) == Setting(100, 0.5, 0.5, 50, None)
    assert [nprobe for nprobe, _ in asked] == [1, 2, 4, 8, 16, 32, 64, 48, 56, 52, 50, 49]
    asked.clear()
    assert cheapest(search, truth, 0.5, 100, Reading(64, 1000.0, 1, 10**6)) == Setting(100, 0.5, 0.5, 50, 4)
    assert [nprobe for nprobe, factor in asked if factor == 24] == [50]
    assert [nprobe for nprobe, factor in asked if factor in (1, 2)] == [50, 51, 50, 51]  # dearer than what was found


def test_codes_alone_are_tuned_against_a_search_of_all_lists():
    index = index_factory(D, "IVF32,PQ4")
    index.train(vectors(2000, 0))
    index.add(vectors(3000, 1))
    q = vectors(300, 2)
    setting = index.tune(q, 10, 0.95)
    assert setting.k_factor is None and 1 < setting.nprobe < 32
    assert knn_recall_at_k(index.search(q, 10, target_recall=0.95).ids, index.search(q, 10, nprobe=32).ids) >= 0.95


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_an_index_that_ranks_again_is_tuned_against_exact_search(metric, monkeypatch):
    monkeypatch.setattr("ivfpq.refine.BLOCK", 100 * D)  # several blocks of vectors
    index = index_factory(D, "PCA8,IVF8,SQ8,Refine(SQfp16)", metric=metric)
    x = vectors(1500, 1).astype(np.float16).astype(F)
    index.train(x)
    index.add_with_ids(x, np.arange(1500) * 3 + 7)
    index.remove_ids([7, 10, 4504])
    flat = IndexFlat(D, metric=metric)
    stored = np.array([index.reconstruct(id) for id in index.ids])
    flat.add_with_ids(stored, index.ids)
    q = vectors(40, 2)
    np.testing.assert_array_equal(index._nearest(q, 6), flat.search(q, 6).ids)
    assert index.tune(q, 6, 0.9).found >= 0.9


def test_true_neighbours_can_be_given(index):
    q = vectors(50, 2)
    by_codes = index.base.search(q, 12, nprobe=32).ids
    setting = index.tune(q, 10, 0.5, truth=by_codes)
    ids = index.search(q, 10, nprobe=setting.nprobe, k_factor=setting.k_factor).ids
    assert setting.found == knn_recall_at_k(ids, by_codes[:, :10]) != knn_recall_at_k(ids, index._nearest(q, 10))
    for bad in (by_codes[:3], by_codes[:, :9], by_codes.astype(float), by_codes[0]):
        with pytest.raises(ValueError, match=re.escape("truth must be ids (50, 10), got ")):
            index.tune(q, 10, 0.9, truth=bad)


def test_a_smaller_recall_and_fewer_neighbours_are_served_by_what_is_nearest_above(index):
    index.settings = (Setting(10, 0.9, 0.91, 3, 4), Setting(10, 0.99, 0.99, 9, 6), Setting(50, 0.5, 0.6, 2, 2))
    q = vectors(20, 3)
    for k, target, nprobe, k_factor in [
        (10, 0.9, 3, 4),
        (10, 0.91, 9, 6),
        (4, 0.7, 3, 10),
        (11, 0.4, 2, 10),
        (50, 0.5, 2, 2),
    ]:
        expected = index.search(q, k, nprobe=nprobe, k_factor=k_factor)
        assert same(index.search(q, k, target_recall=target), expected)
    for k, target in [(10, 0.991), (51, 0.3), (11, 0.6)]:
        with pytest.raises(
            NotTunedError, match=rf"0\.9 at k=10, 0\.99 at k=10, 0\.5 at k=50.*tune\(x, {k}, {target}\)"
        ):
            index.search(q, k, target_recall=target)


def test_what_was_tuned_again_takes_the_place_of_the_old():
    one, two, other = Setting(10, 0.9, 0.9, 3, 2), Setting(10, 0.9, 0.92, 4, 2), Setting(5, 0.9, 0.9, 1, 1)
    assert with_setting(with_setting(with_setting((), one), other), two) == (other, two)


def test_an_index_that_was_not_tuned_says_so(index):
    with pytest.raises(NotTunedError, match=r"not tuned: call tune\(x, k, recall\)"):
        index.search(vectors(1, 2), 10, target_recall=0.9)
    with pytest.raises(NotTunedError, match="not tuned"):
        IndexFlat(D).search(vectors(1, 2), 10, target_recall=0.9)


def test_wrong_arguments_are_named(index):
    q = vectors(5, 2)
    for other in ({"nprobe": 3}, {"k_factor": 3}):
        with pytest.raises(ValueError, match="give the one or the others"):
            index.search(q, 3, target_recall=0.9, **other)
    for wrong, error in (
        (0, ValueError),
        (1.01, ValueError),
        (float("nan"), ValueError),
        ("0.9", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match="recall must be"):
            index.tune(q, 3, wrong)
        with pytest.raises(error, match="target_recall must be"):
            index.search(q, 3, target_recall=wrong)
    with pytest.raises(ValueError, match="got 0 and 3000"):
        index.tune(q[:0], 3, 0.9)
    index.reset()
    with pytest.raises(ValueError, match="got 5 and 0"):
        index.tune(q, 3, 0.9)


def test_a_recall_that_nothing_reaches_is_refused_and_changes_nothing(index):
    nowhere = np.full((5, 3), 10**6)
    with pytest.raises(ValueError, match=r"no setting reaches a recall of 0\.5 at k=3: the most found is 0\.0000"):
        index.tune(vectors(5, 2), 3, 0.5, truth=nowhere)
    assert index.settings == ()


@pytest.mark.parametrize("mmap", [False, True])
def test_settings_are_kept_in_the_file_and_by_copies(index, tmp_path, mmap):
    q = vectors(200, 2)
    for k, recall in ((10, 0.9), (3, 0.95)):
        index.tune(q, k, recall)
    save(index, tmp_path / "index")
    again = load(tmp_path / "index", mmap=mmap)
    assert again.settings == index.settings == copy.deepcopy(index).settings and len(index.settings) == 2
    assert same(again.search(q, 10, target_recall=0.9), index.search(q, 10, target_recall=0.9))


def test_those_of_an_index_inside_another_are_kept_too(index, tmp_path):
    q = vectors(200, 2)
    index.base.tune(q, 5, 0.9)
    save(index, tmp_path / "index")
    again = load(tmp_path / "index")
    assert again.settings == () and again.base.settings == index.base.settings and len(again.base.settings) == 1
    assert copy.copy(index).base.settings == index.base.settings


def test_a_file_without_settings_is_as_it_was_and_damaged_ones_are_refused(index, tmp_path, monkeypatch):
    save(index, tmp_path / "plain")
    assert b'"settings"' not in (tmp_path / "plain").read_bytes()[:4000]
    assert load(tmp_path / "plain").settings == ()
    for text in (
        "[[10, 0.9, 0.9, 0, 2]]",
        "[[10, 1.5, 0.9, 1, 2]]",
        "[[1]]",
        "3",
        "{}",
        '""',
        '[[10, "0.9", 0.9, 1, 2]]',
        '[[10, 0.9, "0.9", 1, 2]]',
        "[[10, 0.9, NaN, 1, 2]]",
        "[[10, 0.9, 0.8, 1, 2]]",
        "[[10, 0.9, 0.9, 1, 2], [10, 0.9, 0.9, 1, null]]",
    ):
        with pytest.raises((ValueError, TypeError)):
            from_json(text)
        monkeypatch.setattr("ivfpq.io.to_json", lambda settings, text=text: text)
        index.settings = (Setting(10, 0.9, 0.9, 1, 2),)
        save(index, tmp_path / "odd")
        with pytest.raises(IndexFileError, match="do not fit together"):
            load(tmp_path / "odd")


def test_training_forgets_what_was_tuned_and_adding_does_not(index):
    index.tune(vectors(100, 2), 10, 0.8)
    kept = index.settings
    index.add(vectors(10, 5))
    index.remove_ids([1])
    assert index.settings == kept
    index.reset()
    assert index.settings == kept
    index.train(vectors(2000, 0))
    assert index.settings == ()
    codes = index_factory(D, "IVF4,PQ4")
    codes.train(vectors(2000, 0))
    codes.add(vectors(100, 1))
    codes.tune(vectors(10, 2), 1, 0.5)
    codes.reset()
    codes.install(codes.centroids, codes.pq.codebooks)
    assert codes.settings == ()


def test_training_forgets_what_the_indexes_inside_were_tuned_for():
    x, found = vectors(300, 0), (Setting(1, 0.5, 0.6, 2, None),)
    index = index_factory(D, "PCA8,IVF4,SQ8,Refine")
    index.train(x)
    inside = [index, index.base, index.base.index]
    for one in inside:
        one.settings = found
    with pytest.raises(ValueError, match="at least 9 vectors"):
        index.train(x[:3])
    assert all(one.settings == found for one in inside)
    index.base.train(x)
    assert [one.settings for one in inside] == [found, (), ()]
    index.train(x)
    assert all(one.settings == () for one in inside)


@pytest.mark.parametrize("spec", ["Flat", "PQ4", "L2norm,PQ4", "PQ4,Refine"])
def test_an_index_without_lists_can_be_tuned_too(spec):
    index = index_factory(D, spec)
    index.train(vectors(500, 0))
    index.add(vectors(300, 1))
    q = vectors(30, 2)
    setting = index.tune(q, 4, 0.9)
    assert setting.nprobe == 1 and (setting.k_factor is None) == ("Refine" not in spec)
    assert index.search(q, 4, target_recall=0.9).ids.shape == (30, 4)
