"""The map puts pictures where principal components have them, is made once for each state, and knows their lists."""

from __future__ import annotations

import gc
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import ref

import faiss
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from test_extract import FakeEncoder, make_images

from features.collection.lock import writing
from features.collection.store import FeatureStore, StoreError
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.encoding import extract
from search import picture_map
from search.build import create_index, sync_collection
from search.doctor import examine
from search.engine import SearchEngine
from search.errors import QueryError
from search.filters import Filter
from search.index_lists import FIELD, IndexLists, first_lists
from search.picture_map import PictureMap, map_of

IMAGES = 90


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection whose two indexes have four lists each."""
    base = tmp_path_factory.mktemp("map")
    make_images(base / "images", IMAGES)
    store = extract(ImageFolder(base / "images"), FakeEncoder(), base / "c", progress=False)
    create_index(store, factory="IVF4,PQ3x4")
    return base


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())
    manifest = tmp_path / "made/c/manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made / "images"), str(tmp_path / "made/images")))
    return manifest.parent


@pytest.fixture
def makings(monkeypatch):
    """How often a map was computed."""
    count, make = [], PictureMap.make
    monkeypatch.setattr(PictureMap, "make", classmethod(lambda cls, store: count.append(1) or make(store)))
    return count


def compared(store):
    """The vectors as a metric compares them, float64."""
    x = np.asarray(store.features[store.ids], np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if store.metric == "cosine" else x


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_coordinates_are_the_first_two_principal_components(folder, metric):
    store = FeatureStore.open(folder)
    store.update_manifest(metric=metric)
    found = PictureMap.make(store)
    x = compared(store)
    np.testing.assert_array_equal(found.ids, store.ids)
    np.testing.assert_allclose(found.points, PCA(2).fit_transform(x), atol=2e-4 * found.reach)
    # Without the library, from the definition, in whichever direction.
    _, _, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(
        np.abs(found.points), np.abs((x - x.mean(0)) @ directions[:2].T), atol=2e-4 * found.reach
    )
    np.testing.assert_allclose(
        found.places(np.asarray(store.features[[3, 5]], np.float32)), found.points[[3, 5]], atol=1e-4 * found.reach
    )


def test_of_many_pictures_the_directions_are_learnt_from_some(folder, monkeypatch):
    monkeypatch.setattr(picture_map, "LEARNT_FROM", 60)
    store = FeatureStore.open(folder)
    found, again = PictureMap.make(store), PictureMap.make(store)
    np.testing.assert_array_equal(found.points, again.points)
    chosen = np.sort(np.random.default_rng(0).choice(store.ids, 60, replace=False))
    known = PCA(2).fit(compared(store)[chosen])
    np.testing.assert_allclose(found.points, known.transform(compared(store)), atol=2e-3 * found.reach)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_pictures_have_places_too(tmp_path, count):
    make_images(tmp_path / "images", count)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    found = map_of(store)
    assert found.points.shape == (count, 2)
    assert np.isfinite(found.points).all()
    assert found.reach > 0
    x = compared(store)
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    here = np.linalg.norm(found.points[:, None] - found.points, axis=2)
    np.testing.assert_allclose(here, apart, atol=1e-4)  # three points lie in a plane


def test_it_is_computed_once_and_anew_after_a_sync(folder, makings):
    first = map_of(FeatureStore.open(folder))
    again = FeatureStore.open(folder)
    assert map_of(again) is map_of(again)
    assert len(makings) == 1
    np.testing.assert_array_equal(map_of(again).points, first.points)
    np.testing.assert_array_equal(map_of(again).directions, first.directions)
    again.verify()
    new = folder.parent / "images/label 0/new.png"
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (9, 9, 3), np.uint8)).save(new)
    (gone,) = [item for item in again.items if item.path.name == "001.png"]
    gone.path.unlink()
    sync_collection(folder, encoder=FakeEncoder(), progress=False)
    store = FeatureStore.open(folder)
    assert PictureMap.read(store) is None
    renewed = map_of(store)
    assert len(makings) == 2
    assert renewed.ids.tolist() == [id for id in range(IMAGES + 1) if id != gone.id]
    np.testing.assert_allclose(renewed.points, PCA(2).fit_transform(compared(store)), atol=2e-4 * renewed.reach)
    assert [path.name for path in folder.glob("map*")] == [store.manifest["map"]["file"]]
    FeatureStore.open(folder).verify()
    map_of(FeatureStore.open(folder))
    assert len(makings) == 2


def test_a_metric_that_is_changed_makes_it_anew(folder, makings):
    map_of(FeatureStore.open(folder))
    create_index(FeatureStore.open(folder), metric="l2")
    assert map_of(FeatureStore.open(folder)).metric == "l2"
    assert len(makings) == 2


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(path.read_bytes()[:-3] + b"abc"), Path.unlink])
def test_a_damaged_file_is_found_and_made_again(folder, harm):
    points = map_of(FeatureStore.open(folder)).points
    harm(folder / "map.npy")
    with pytest.raises(StoreError, match=r"map\.npy"):
        PictureMap.read(FeatureStore.open(folder))
    (finding,) = examine(folder)
    assert finding.part == "map"
    assert [each.mended for each in examine(folder, repair=True)] == [True]
    assert examine(folder) == []
    np.testing.assert_array_equal(PictureMap.read(FeatureStore.open(folder)).points, points)
    harm(folder / FeatureStore.open(folder).manifest["map"]["file"])
    np.testing.assert_array_equal(map_of(FeatureStore.open(folder)).points, points)


def test_who_cannot_write_sees_it_all_the_same(folder, makings):
    store = FeatureStore.open(folder)

    with ThreadPoolExecutor(1) as pool, writing(folder, purpose="changed by a test"):
        found = pool.submit(map_of, store).result()  # another thread does not hold the lock
    assert found.points.shape == (IMAGES, 2)
    assert "map" not in FeatureStore.open(folder).manifest
    assert map_of(store) is found
    assert len(makings) == 1


def test_each_picture_is_in_the_list_that_the_index_says(made):
    engine = SearchEngine.open(made / "c")
    store = engine.store
    own = IndexLists.of(engine.space(), "ivfpq")
    np.testing.assert_array_equal(own.ids, store.ids)
    np.testing.assert_array_equal(own.numbers, engine.index("ivfpq").codes_of(store.ids)[0])
    assert own.sizes.tolist() == engine.index("ivfpq").lists.view.sizes[:4].tolist()
    assert first_lists(engine.space()).engine == "ivfpq"
    assert own.of_pictures(np.array([2, 5_000, 0])).tolist() == [own.numbers[2], -1, own.numbers[0]]
    theirs = IndexLists.of(engine.space(), "faiss")
    inside = faiss.extract_index_ivf(engine.index("faiss").faiss_index).invlists
    for number in range(4):
        ids = faiss.rev_swig_ptr(inside.get_ids(number), inside.list_size(number))
        assert theirs.ids[theirs.numbers == number].tolist() == sorted(ids.tolist())
        assert engine.matching_ids({FIELD: f"faiss/{number}"}).tolist() == sorted(ids.tolist())
        assert engine.matching_ids({FIELD: number}).tolist() == store.ids[own.numbers == number].tolist()
    assert IndexLists.of(engine.space(), "exact") is None


def test_what_a_closed_collection_held_is_let_go(made):
    gc.collect()
    gc.disable()  # a map of a deleted file should not wait for what happens some time
    try:
        engine = SearchEngine.open(made / "c")
        assert engine.matching_ids({FIELD: 0}).size
        store = ref(engine.store)
        del engine
        assert store() is None
    finally:
        gc.enable()


def test_a_list_is_a_filter_like_any_other(made):
    engine = SearchEngine.open(made / "c")
    in_list = set(engine.matching_ids({FIELD: [0, 2]}).tolist())
    labelled = set(engine.matching_ids({"label": "label 1"}).tolist())
    both = engine.matching_ids({FIELD: ["0", "2"], "label": "label 1"})
    assert both.tolist() == sorted(in_list & labelled)
    without = engine.matching_ids({"not": {FIELD: "ivfpq/0"}})
    assert set(without.tolist()) == set(engine.store.ids.tolist()) - set(engine.matching_ids({FIELD: 0}).tolist())
    hits = engine.search(engine.store.items[0].path, 5, filter={FIELD: 2})
    assert set(hits.ids) <= set(engine.matching_ids({FIELD: 2}).tolist())
    assert engine.search("index_list:2", 100).ids == tuple(engine.matching_ids({FIELD: 2}).tolist())
    for wrong, said in (
        (4, "the lists of the index ivfpq are 0 to 3, got 4"),
        ("first", "index_list is the number of a list, or an engine and a number as faiss/12; got 'first'"),
        ("exact/1", "the index exact has no lists that can be looked into"),
        ({"gt": 1}, "can be equal to one value or to any of several"),
    ):
        with pytest.raises(QueryError, match=said):
            engine.matching_ids({FIELD: wrong})


def test_a_flat_index_has_no_lists(folder):
    create_index(FeatureStore.open(folder), factory="Flat", engines=["ivfpq", "faiss"])
    engine = SearchEngine.open(folder)
    assert first_lists(engine.space()) is None
    with pytest.raises(QueryError, match="no index of this collection has lists"):
        engine.matching_ids({FIELD: 0})
    with pytest.raises(QueryError, match="nothing in this collection has an index_list"):
        Filter.of({FIELD: 0}).ids(FeatureStore.open(folder))
