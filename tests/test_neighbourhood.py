"""Stored vectors take in their nearest neighbours, and a sync keeps them as a full build would make them."""

import json

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images
from test_sync import paint

from features.collection.store import FeatureStore, StoreError
from features.datasets import ImageFolder
from features.extract import extract
from search import neighbourhood, spaces
from search.build import create_index, create_space, create_spaces, sync_collection
from search.engine import SearchEngine
from search.errors import EngineError
from search.neighbourhood import NEIGHBOURHOOD, build_neighbourhood, fit_components, project
from search.space import Placed
from search.spaces import open_spaces


@pytest.fixture
def root(tmp_path):
    make_images(tmp_path / "images", 60)
    return tmp_path / "images"


@pytest.fixture
def folder(root, tmp_path):
    store = extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, engines=["ivfpq"], factory="Flat")
    return store.folder


def space_of(folder):
    return open_spaces(FeatureStore.open(folder))[NEIGHBOURHOOD]


def sync(folder, root):
    return sync_collection(folder, dataset=ImageFolder(root), encoder=FakeEncoder(), progress=False)


def assert_as_a_full_build(folder):
    """Equal, to the bit, to what is made of the whole collection with the same components."""
    space = space_of(folder)
    made = build_neighbourhood(space.store, np.array(space.beside["components"]))
    np.testing.assert_array_equal(space.vectors, made.vectors)
    for name in ("neighbours", "similarities"):
        np.testing.assert_array_equal(space.beside[name], made.beside[name], err_msg=name)


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def by_the_formula(points, row):
    """A loop over the docstring."""
    near = points @ points[row]
    near[row] = -9
    first = np.argsort(-near, kind="stable")[:10]
    return unit(points[row] + sum(max(near[j], 0) ** 3 * points[j] for j in first))


def test_vectors_are_those_of_the_formula(folder):
    create_spaces(FeatureStore.open(folder))
    space = space_of(folder)
    x = unit(space.rows(space.ids) * 0 + np.asarray(space.store.features, np.float32))
    centred = x - x.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    points = unit(centred @ axes.T)
    wanted = np.stack([by_the_formula(points, row) for row in range(60)])
    found = space.rows(space.ids)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=5e-3)  # axes may point either way
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(60), abs=1e-3)


def test_only_the_first_components_are_kept(folder, monkeypatch):
    monkeypatch.setattr(neighbourhood, "COMPONENTS", 3)
    store = FeatureStore.open(folder)
    components = fit_components(store)
    assert components.shape == (4, 12)
    x = unit(np.asarray(store.features, np.float32))
    axes = np.linalg.svd(x - x.mean(0))[2][:3]
    np.testing.assert_allclose(np.abs(components[1:] @ axes.T), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(components[0], x.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(project(x, components), axis=1), 1, atol=1e-5)


def test_a_sample_of_many_pictures_and_few_of_many_dimensions(folder, monkeypatch):
    monkeypatch.setattr(neighbourhood, "_SAMPLE", 5)  # fewer rows than dimensions
    components = fit_components(FeatureStore.open(folder))
    assert components.shape == (5, 12)  # five points lie in four dimensions
    np.testing.assert_allclose(components[1:] @ components[1:].T, np.eye(4), atol=1e-4)


def test_a_sync_gives_what_a_full_build_does(folder, root, monkeypatch):
    create_spaces(FeatureStore.open(folder))
    entry = json.loads((folder / "manifest.json").read_text())["spaces"][NEIGHBOURHOOD]
    before = space_of(folder)
    ids = {item.path.name: item.id for item in before.store.items}
    edited, gone = ids["003.png"], ids["005.png"]
    looked_at = []
    look_again = neighbourhood._look_again

    def spy(made, points, store, rows, candidates):
        looked_at.append(rows)
        look_again(made, points, store, rows, candidates)

    monkeypatch.setattr(neighbourhood, "_look_again", spy)
    paint(root / "label 0/new.png", 100)
    paint(root / "label 1/newer.png", 101)
    paint(root / "label 0/003.png", 102)  # edited
    (root / "label 2/005.png").unlink()
    sync(folder, root)
    (rows,) = looked_at
    lists = np.array(before.beside["neighbours"])
    assert {edited, 60, 61} <= set(rows.tolist()), "what changed"
    assert set(np.flatnonzero(np.isin(lists, [edited, gone]).any(axis=1)).tolist()) - {gone} <= set(rows.tolist()), (
        "and had it"
    )
    now = np.array(space_of(folder).beside["neighbours"])
    assert set(np.flatnonzero(np.isin(now, [edited, 60, 61]).any(axis=1)).tolist()) <= set(rows.tolist()), "or has it"
    assert rows.size < 60
    kept = np.setdiff1d(np.arange(60), [*rows.tolist(), gone])
    np.testing.assert_array_equal(space_of(folder).vectors[kept], before.vectors[kept])
    monkeypatch.undo()
    assert_as_a_full_build(folder)
    np.testing.assert_array_equal(space_of(folder).beside["components"], before.beside["components"])
    assert not space_of(folder).vectors[gone].any()
    assert not (folder / entry["file"]).exists() and not (folder / entry["beside"]["neighbours"]["file"]).exists()


@pytest.mark.parametrize("seed", range(4))
def test_syncs_one_after_another_give_what_a_full_build_does(folder, root, seed):
    create_spaces(FeatureStore.open(folder))
    generator = np.random.default_rng(seed)
    for step in range(3):
        files = sorted(root.rglob("*.png"))
        for place in generator.choice(len(files), 6, replace=False).tolist():
            if generator.random() < 0.5:
                files[place].unlink()
            else:
                paint(files[place], 1000 * seed + 10 * step + place)
        for number in range(int(generator.integers(0, 5))):
            paint(root / "label 0" / f"{step} {number}.png", 500 + 100 * seed + 10 * step + number)
        sync(folder, root)
        assert_as_a_full_build(folder)


def test_all_is_made_anew_where_more_than_half_has_changed(folder, root):
    create_spaces(FeatureStore.open(folder))
    before = np.array(space_of(folder).beside["components"])
    for path in sorted(root.rglob("*.png"))[:40]:
        paint(path, 7000 + hash(path.name) % 1000)
    sync(folder, root)
    space = space_of(folder)
    assert not np.array_equal(space.beside["components"], before)
    np.testing.assert_array_equal(space.beside["components"], fit_components(space.store))
    assert_as_a_full_build(folder)


def test_a_sync_goes_on_from_nothing_where_the_files_are_damaged(folder, root):
    create_spaces(FeatureStore.open(folder))
    entry = json.loads((folder / "manifest.json").read_text())["spaces"][NEIGHBOURHOOD]
    (folder / entry["beside"]["neighbours"]["file"]).write_bytes(b"damage")
    with pytest.raises(StoreError, match=r"neighbourhood-neighbours\.npy is damaged"):
        FeatureStore.open(folder).verify()
    paint(root / "new.png", 100)
    sync(folder, root)
    FeatureStore.open(folder).verify()
    assert_as_a_full_build(folder)


def test_of_many_pictures_the_index_gives_the_candidates(folder, root, monkeypatch):
    create_spaces(FeatureStore.open(folder))
    compared = np.array(space_of(folder).vectors)
    monkeypatch.setattr(neighbourhood, "COMPARED_AT_MOST", 10)
    create_space(FeatureStore.open(folder), NEIGHBOURHOOD)
    np.testing.assert_array_equal(space_of(folder).vectors, compared)  # of sixty pictures a hundred are all
    paint(root / "new.png", 100)
    sync(folder, root)
    assert_as_a_full_build(folder)
    monkeypatch.setattr(neighbourhood, "CANDIDATES", 3)
    create_space(FeatureStore.open(folder), NEIGHBOURHOOD)
    lists = np.array(space_of(folder).beside["neighbours"])
    assert (lists[:, :3] >= 0).all() and (lists[:, 3:] == -1).all()
    assert not (lists == np.arange(61)[:, None]).any(), "no picture is a neighbour of itself"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_collections_of_few_pictures(tmp_path, count):
    make_images(tmp_path / "images", count)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, engines=["ivfpq"], factory="Flat")
    create_spaces(store)
    lists = np.array(space_of(store.folder).beside["neighbours"])
    assert [set(row[row >= 0].tolist()) for row in lists] == [set(range(count)) - {row} for row in range(count)]
    make_images(tmp_path / "images", count + 1)
    sync(store.folder, tmp_path / "images")
    assert_as_a_full_build(store.folder)


def test_pictures_that_are_all_equal(tmp_path):
    for number in range(15):
        paint(tmp_path / "images" / f"{number}.png", 1)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, engines=["ivfpq"], factory="Flat")
    create_spaces(store)
    assert np.isfinite(space_of(store.folder).vectors).all()


def test_every_build_makes_it_and_a_collection_of_before_stays_as_it_is(folder):
    entry = json.loads((folder / "manifest.json").read_text())
    assert "spaces" not in entry
    assert SearchEngine.open(folder).spaces == ("visual",)
    assert create_spaces(FeatureStore.open(folder)) == (NEIGHBOURHOOD,)
    entry = json.loads((folder / "manifest.json").read_text())["spaces"][NEIGHBOURHOOD]
    assert (entry["dim"], entry["dtype"], entry["metric"], entry["accepts"]) == (12, "float16", "cosine", [])
    assert entry["maker"] == {"neighbours": 10, "power": 3, "components": 256}
    assert set(entry["beside"]) == {"neighbours", "similarities", "components"}
    FeatureStore.open(folder).verify()
    assert SearchEngine.open(folder).spaces == ("visual",), "nothing is asked there"
    assert create_spaces(FeatureStore.open(folder)) == ()
    create_spaces(FeatureStore.open(folder), ["visual"])
    assert create_spaces(FeatureStore.open(folder)) == (), "what was chosen stays"


def test_a_collection_that_is_not_compared_by_cosine_has_none(folder):
    create_index(FeatureStore.open(folder), metric="l2")
    store = FeatureStore.open(folder)
    assert create_spaces(store) == ()
    with pytest.raises(EngineError, match="cannot have the space neighbourhood: its vectors are compared by l2"):
        create_spaces(store, [NEIGHBOURHOOD])


def test_where_nothing_that_came_to_many_can_be_read_the_others_stay(folder, root, monkeypatch):
    monkeypatch.setattr(neighbourhood, "COMPARED_AT_MOST", 10)
    create_spaces(FeatureStore.open(folder))
    first = space_of(folder)
    (root / "broken.jpg").write_bytes(b"no picture")
    sync(folder, root)
    space = space_of(folder)
    np.testing.assert_array_equal(space.ids, first.ids)
    np.testing.assert_array_equal(space.rows(space.ids), first.rows(first.ids))
    space.store.verify()


@pytest.mark.parametrize("seed", range(2))
def test_pictures_that_come_to_many_change_only_those_that_are_near(folder, root, monkeypatch, seed):
    """By the index, which of sixty gives all: the lists are those of a full build, and old rows stay where they are."""
    monkeypatch.setattr(neighbourhood, "COMPARED_AT_MOST", 10)
    monkeypatch.setattr(neighbourhood, "_FEW", 2)
    create_spaces(FeatureStore.open(folder))
    first, content = space_of(folder), (folder / "neighbourhood.npy").read_bytes()
    monkeypatch.setattr(neighbourhood, "_points", lambda *_: pytest.fail("all pictures were looked at"))
    for step in range(3):
        opened = space_of(folder)
        before = np.array(opened.beside["neighbours"])
        for number in range(3):
            paint(root / "label 0" / f"{step} {number}.png", 900 + 100 * seed + 10 * step + number)
        (root / f"broken {step}.jpg").write_bytes(b"no picture")
        sync(folder, root)
        space = space_of(folder)
        assert isinstance(space.vectors, Placed) and isinstance(space.beside["neighbours"], Placed)
        np.testing.assert_array_equal(opened.beside["neighbours"], before)
        FeatureStore.open(folder).verify()
        monkeypatch.undo()
        made = build_neighbourhood(space.store, np.array(space.beside["components"]))
        ids = space.ids
        np.testing.assert_array_equal(space.beside["neighbours"][ids], made.beside["neighbours"][ids])
        np.testing.assert_allclose(space.beside["similarities"][ids], made.beside["similarities"][ids], atol=1e-3)
        np.testing.assert_allclose(space.rows(ids), made.vectors[ids].astype(np.float32), atol=2e-3)
        assert (space.beside["neighbours"][space.store.features.shape[0] - 4 :] == -1).any(axis=1).sum() == 1
        monkeypatch.setattr(neighbourhood, "COMPARED_AT_MOST", 10)
        monkeypatch.setattr(neighbourhood, "_points", lambda *_: pytest.fail("all pictures were looked at"))
    assert (folder / "neighbourhood.npy").read_bytes()[: len(content)] == content
    np.testing.assert_array_equal(np.asarray(first.vectors), first.vectors[np.arange(60)])
    monkeypatch.undo()
    (root / "label 0/0 0.png").unlink()  # and then all is written as one again
    sync(folder, root)
    assert "places" not in FeatureStore.open(folder).manifest["spaces"][NEIGHBOURHOOD]["beside"]
    assert_as_a_full_build(folder)


def test_rows_that_have_changed_often_are_written_as_one(folder, root, monkeypatch):
    monkeypatch.setattr(neighbourhood, "COMPARED_AT_MOST", 10)
    monkeypatch.setattr(spaces, "MAX_VERSIONS", 1)
    create_spaces(FeatureStore.open(folder))
    paint(root / "new.png", 100)
    sync(folder, root)
    entry = FeatureStore.open(folder).manifest["spaces"][NEIGHBOURHOOD]
    assert (set(entry["beside"]), "grown" in entry) == ({"neighbours", "similarities", "components"}, False)
