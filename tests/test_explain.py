"""Explanations against naive search, and the promises they make against the searches they speak of."""

import importlib.machinery
import importlib.util
import shutil
import sys
import types
from functools import partial

import numpy as np
import pytest
from PIL import Image

from features.collection.store import FeatureStore
from features.encoders import create_encoder
from features.images import decode_image
from search.build import create_index
from search.engine import SearchEngine
from search.explain import (
    InvertedFile,
    cell_map,
    explain,
    heat_map,
    map_methods,
    search_path,
    top_classes,
)
from search.filters import Filter
from search.options import SearchOptions

QUERIES = (0, 57, 150, 333)
plain = partial(SearchOptions, rerank=False, neighbourhood=0)  # it is the index that is explained


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


@pytest.fixture(
    scope="module", params=[("PCA32,IVF8,PQ4x4,Refine", "l2"), ("IVF8,PQ8x4", "ip"), ("L2norm,IVF8,RQ4x4", "cosine")]
)
def other(request, demo_collection, tmp_path_factory):
    """The same vectors in indexes of other kinds."""
    factory, metric = request.param
    folder = shutil.copytree(demo_collection, tmp_path_factory.mktemp("other") / "demo")
    create_index(FeatureStore.open(folder), factory=factory, engines=["ivfpq"], metric=metric)
    return SearchEngine.open(folder)


def vector_of(engine, id):
    return np.asarray(engine.store.features[id], dtype=np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_list_code_and_members_are_those_of_a_naive_encoder(engine):
    index = engine.index("ivfpq")
    rows = unit(np.asarray(engine.store.features, dtype=np.float64))
    lists = np.linalg.norm(rows[:, None] - index.centroids[None], axis=2).argmin(axis=1)
    options = plain(nprobe=100)
    for id in QUERIES:
        place = explain(engine, vector_of(engine, 5), 5, id, options).place
        assert place.list_number == lists[id]
        np.testing.assert_array_equal(np.sort(place.list_ids), np.flatnonzero(lists == lists[id]))
        residual = (rows[id] - index.centroids[lists[id]]).reshape(8, -1)
        naive = [
            np.linalg.norm(book - part, axis=1).argmin()
            for book, part in zip(index.pq.codebooks, residual, strict=True)
        ]
        assert place.code == bytes(naive)
        order = np.linalg.norm(index.centroids - unit(vector_of(engine, 5)), axis=1).argsort()
        assert order[place.list_rank - 1] == place.list_number


@pytest.mark.parametrize("name", ["ivfpq", "faiss"])
@pytest.mark.parametrize("nprobe", [3, 100])
def test_ranks_and_scores_are_those_of_the_searches(engine, name, nprobe):
    for query in QUERIES:
        vector = vector_of(engine, query)
        options = plain(name, 340, nprobe)
        hits = engine.search_vector(vector, options, own_id=query)
        exact = {hit.id: hit for hit in engine.search_vector(vector, plain("exact", 340), own_id=query)}
        path = search_path(engine, vector, hits, options)
        assert path.compared == 100
        assert len(set(path.probed)) == nprobe
        assert path.scanned == len(hits) + 1  # the query itself is found and left out
        assert str(path) == f"100 centroids compared, {nprobe} lists probed, {path.scanned} codes scanned."
        for hit in (hits[0], hits[len(hits) // 2], hits[-1]):
            found = explain(engine, vector, query, hit.id, options)
            assert (found.rank, found.exact_rank) == (hit.rank, exact[hit.id].rank)
            assert found.exact_score == exact[hit.id].score
            assert found.place.score == pytest.approx(hit.score, abs=1e-6)
            # faiss adds in another order, so that equally good ones may change places
            assert abs(found.place.rank - hit.rank) <= (0 if name == "ivfpq" else 1)
            assert found.place.list_number in path.probed


def test_a_filter_that_lets_all_through_changes_nothing(engine):
    for options in (plain("ivfpq", 10, 3), SearchOptions("ivfpq", 10, 3)):
        vector = vector_of(engine, 7)
        told, want = (explain(engine, vector, 7, 8, options, **how) for how in ({"filter": Filter()}, {}))
        assert (told.verdict, told.path, told.rank) == (want.verdict, want.path, want.rank)
        cells = cell_map(engine, vector, options, filter=Filter())
        assert cells.probed.tolist() == cell_map(engine, vector, options).probed.tolist()


@pytest.mark.parametrize("name", ["ivfpq", "faiss"])
def test_every_promise_about_a_lost_picture_holds(engine, name):
    seen = set()
    for query in range(0, 340, 17):
        vector = vector_of(engine, query)
        options = plain(name, 5, 2)
        found = {hit.id for hit in engine.search_vector(vector, options, own_id=query)}
        for hit in engine.search_vector(vector, plain("exact", 5), own_id=query):
            explanation = explain(engine, vector, query, hit.id, options)
            verdict = explanation.verdict
            assert explanation.lost == (hit.id not in found) == verdict.startswith("Lost")
            if not explanation.lost:
                assert verdict.startswith(f"Found at rank {explanation.rank}, ")
            elif "Probe" in verdict:
                seen.add("cell")
                rank = explanation.place.list_rank
                assert f"Probe {rank} to look at it" in verdict
                few, enough = (
                    search_path(engine, vector, engine.search_vector(vector, options, own_id=query), options)
                    for options in (plain(name, 5, rank - 1), plain(name, 5, rank))
                )
                assert explanation.place.list_number in set(enough.probed) - set(few.probed)
            else:
                seen.add("code")
                again = {h.id for h in engine.search_vector(vector, plain(name, 5, 2, rerank=True), own_id=query)}
                assert ("and finds it" in verdict) == (hit.id in again)
                assert explanation.place.rank > 5
    assert seen == {"cell", "code"}


def test_what_is_not_lost_is_said_too(engine):
    vector = vector_of(engine, 57)
    exact = [hit.id for hit in engine.search_vector(vector, plain("exact", 340), own_id=57)]
    last = explain(engine, vector, 57, exact[-1], plain("ivfpq", 5, 8))
    assert last.verdict == "Not shown, and rightly: exact search puts it at rank 339, and 5 were asked for."
    assert not last.lost
    by_all = explain(engine, vector, 57, exact[6], plain("exact", 5))
    assert (by_all.place, by_all.path.probed) == (None, ())
    assert by_all.verdict == "Not shown: it is at rank 7, and 5 were asked for."
    assert str(by_all.path) == "340 pictures compared, one by one."
    again = explain(engine, vector, 57, exact[0], plain("ivfpq", 5, 100, rerank=True))
    assert again.verdict == "Found at rank 1, and exact search agrees."
    assert str(again.path).endswith("340 codes scanned, 60 re-ranked.")
    # One list alone: all of it is shown, also what is far away.
    alone = plain("ivfpq", 20, 1)
    worst = explain(engine, vector, 57, engine.search_vector(vector, alone, own_id=57)[-1].id, alone)
    said = f"though exact search puts it only at rank {worst.exact_rank}: pictures that are nearer were lost."
    assert (worst.exact_rank > 20) == worst.verdict.endswith(said)
    assert str(worst.path).startswith("100 centroids compared, 1 list probed, ")


def test_labels_narrow_everything_down(engine):
    label = engine.store.items[200].labels[0]
    borne = [item.id for item in engine.store.items if label in item.labels]
    vector, options, filter = vector_of(engine, 0), plain("ivfpq", 3, 100), {"label": label}
    exact = engine.search_vector(vector, plain("exact", 340), own_id=0, filter=filter)
    found = explain(engine, vector, 0, exact[-1].id, options, filter=filter)
    assert (found.exact_rank, found.path.scanned) == (len(exact), len(borne))
    assert found.place.rank <= len(borne)


def test_other_kinds_of_index_are_looked_into(other):
    options = plain("ivfpq", 339, 8)
    vector = vector_of(other, 57)
    hits = other.search_vector(vector, options, own_id=57)
    file = InvertedFile.of(other.index("ivfpq"))
    inside = [id for id in file.cells.search(file.seen(vector), 340, nprobe=8).ids[0].tolist() if id != 57]
    for hit in (hits[0], hits[100], hits[-1]):
        found = explain(other, vector, 57, hit.id, options)
        assert found.rank == hit.rank
        assert inside[found.place.rank - 1] == hit.id
        assert hit.id in found.place.list_ids
        assert len(found.place.code) == file.cells.code_size
        if "Refine" not in other.store.manifest["indexes"]["ivfpq"]["factory"]:
            assert found.place.score == pytest.approx(hit.score, rel=1e-5)
    cells = cell_map(other, vector, options)
    assert cells.points.shape == (8, 2)


def test_an_index_without_lists_has_no_place(demo_collection, tmp_path):
    folder = shutil.copytree(demo_collection, tmp_path / "flat")
    create_index(FeatureStore.open(folder), factory="Flat")
    flat = SearchEngine.open(folder)
    for name in ("ivfpq", "faiss"):
        found = explain(flat, vector_of(flat, 0), 0, 1, plain(name, 340))
        assert found.place is None
        assert found.rank == found.exact_rank
        assert cell_map(flat, vector_of(flat, 0), plain(name)) is None


def test_the_map_puts_vectors_where_their_centroids_are(engine):
    index, options = engine.index("ivfpq"), plain("ivfpq", 10, 7)
    number = np.linalg.norm(index.centroids, axis=1).argmax()  # of vectors so alike that it is nearly as long as they
    cells = cell_map(engine, index.centroids[number] * 3, options)  # cosine: the length does not matter
    near = np.linalg.norm(cells.points - cells.query, axis=1).argmin()
    assert near == number == cells.probed[0]
    assert cells.sizes.sum() == 340
    assert len(cells.probed) == 7
    # Principal components: no other plane keeps more of the spread, and the first keeps more than the second.
    centred = index.centroids - index.centroids.mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False)[:2] ** 2
    np.testing.assert_allclose((cells.points**2).sum(axis=0), spread, rtol=1e-3)


def test_umap_is_offered_and_used_where_it_is_installed(engine, monkeypatch):
    assert ("umap" in map_methods()) == (importlib.util.find_spec("umap") is not None)

    class UMAP:
        def __init__(self, n_neighbors, random_state, n_jobs):
            assert 2 <= n_neighbors < 100

        def fit_transform(self, x):
            return x[:, :2]

        transform = fit_transform

    module = types.ModuleType("umap")
    module.UMAP, module.__spec__ = UMAP, importlib.machinery.ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", module)
    assert map_methods() == ("pca", "umap")
    vector = vector_of(engine, 0)
    cells = cell_map(engine, vector, plain(), method="umap")
    np.testing.assert_array_equal(cells.points, engine.index("ivfpq").centroids[:, :2])
    np.testing.assert_allclose(cells.query, unit(vector)[:2], rtol=1e-5)


@pytest.fixture(scope="module")
def encoder():
    return create_encoder("efficientnet-lite0", device="cpu")


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("size", [(320, 320), (320, 480), (480, 320)])
def test_heat_peaks_at_a_planted_patch(engine, encoder, corner, size):
    photo = decode_image(engine.store.items[0].path)
    patch = np.asarray(Image.fromarray(photo).resize((128, 128)))
    scene = np.full((*size, 3), 128, np.uint8)
    top, left = (size[0] - 280) // 2 + 152 * corner[0], (size[1] - 280) // 2 + 152 * corner[1]
    scene[top : top + 128, left : left + 128] = patch
    heat, (x0, y0, x1, y1) = heat_map(encoder, scene, encoder.encode([photo])[0])
    assert (heat.min() >= 0, heat.max()) == (True, 1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x = x0 + (column + 0.5) * (x1 - x0) / heat.shape[1]
    y = y0 + (row + 0.5) * (y1 - y0) / heat.shape[0]
    assert left <= x <= left + 128
    assert top <= y <= top + 128


def test_heat_is_each_places_share_of_the_inner_product(engine, encoder):
    pixels = decode_image(engine.store.items[0].path)
    mine, other = encoder.encode([pixels])[0], vector_of(engine, 1)
    values, _ = encoder.feature_map(pixels)
    heat, _ = heat_map(encoder, pixels, other)
    assert (values @ other[:1280]).min() > 0  # nothing was cut off at 0
    scale = (values @ other[:1280]).max()
    assert heat.mean() * scale == pytest.approx(mine[:1280] @ other[:1280], rel=1e-3)


def test_classes_come_likeliest_first(engine, encoder):
    vector = vector_of(engine, 0)
    probabilities = encoder.classify(vector[None])[0]
    names, shares = zip(*top_classes(encoder, vector, 4), strict=True)
    assert names[0] == encoder.classes[probabilities.argmax()]
    np.testing.assert_allclose(shares, np.sort(probabilities)[::-1][:4])
