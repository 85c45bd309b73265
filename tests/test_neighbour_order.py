"""Neighbours count in the order of hits; what is shown and cut off stays the similarity of the stored vectors."""

import json

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images
from test_sync import paint

from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.extract import extract
from features.images import decode_image
from search import __main__ as command
from search import neighbour_order, searcher
from search.build import create_index, create_spaces
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.explain import explain
from search.neighbour_reasons import explain_neighbours
from search.neighbourhood import project
from search.options import SearchOptions
from search.query import FeedbackPart, ImagePart, Query
from search.query_json import from_json, to_json


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    monkeypatch.setattr(registry, "_shared", {})
    register_encoder("fake", lambda name, **options: FakeEncoder())


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path / "images", 60)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, factory="Flat")
    create_spaces(store)
    return store.folder


@pytest.fixture
def engine(folder):
    return SearchEngine.open(folder)


@pytest.fixture
def outsider(tmp_path):
    paint(tmp_path / "outside.png", 1000)
    return tmp_path / "outside.png"


def ask(searched, query, k=10, weight=0.5, **options):
    return searched.search(query, k, **{"engine": "exact", "neighbourhood": weight, **options})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_the_formula(engine, vector, own_id=None):
    """Plain and neighbourhood similarity of all pictures, by a loop over the docstring."""
    space = engine.neighbour_order.space
    e = space.rows(space.ids)
    a = project(vector[None], np.array(space.beside["components"]))[0]
    near = e @ a
    if own_id is not None:
        near[own_id] = -9
    f = a + sum(max(near[j], 0) ** 3 * e[j] for j in np.argsort(-near, kind="stable")[:10])
    return unit(np.asarray(engine.store.features, np.float32)) @ unit(vector), e @ unit(f)


@pytest.mark.parametrize("weight", [0.25, 0.5, 1])
def test_scores_are_those_of_the_formula(engine, outsider, weight):
    plain, near = by_the_formula(engine, FakeEncoder().encode([decode_image(outsider)])[0])
    scores = (1 - weight) * plain + weight * near
    answer = ask(engine, outsider, 60, weight)
    assert sorted(answer.ids) == list(range(60))
    np.testing.assert_allclose([hit.score for hit in answer], scores[list(answer.ids)], atol=1e-5)
    np.testing.assert_allclose([hit.similarity for hit in answer], plain[list(answer.ids)], atol=1e-5)
    assert [hit.score for hit in answer] == sorted((hit.score for hit in answer), reverse=True)
    assert list(answer.ids) != np.argsort(-plain).tolist(), "they changed the order"


def test_a_picture_of_the_collection_is_no_neighbour_of_its_own(engine):
    answer = ask(engine, engine.store.items[7].path, 59)
    plain, near = by_the_formula(engine, np.asarray(engine.store.features[7], np.float32), own_id=7)
    assert 7 not in answer.ids and len(answer) == 59
    assert 7 not in answer.expansion.ids and len(answer.expansion.ids) == 10
    np.testing.assert_allclose([hit.score for hit in answer], (plain + near)[list(answer.ids)] / 2, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"rerank": True}, {"engine": "faiss"}, {"engine": "exact"}, {"cutoff": 0.9}])
def test_without_a_weight_the_order_is_the_plain_one_to_the_bit(folder, engine, outsider, options):
    store = FeatureStore.open(folder)
    create_spaces(store, ["visual"])
    plain = SearchEngine.open(folder)
    assert plain.neighbour_order is None
    for query in (outsider, engine.store.items[3].path):
        found = engine.search(query, 20, **options, neighbourhood=0)
        assert found == plain.search(query, 20, **options, neighbourhood=0)
        assert found == plain.search(query, 20, **options, neighbourhood=0.5), "where there is no such space"
        assert all(hit.score == hit.similarity for hit in found)
        assert found.expansion is None


def test_all_engines_and_ranking_again_agree_where_the_index_is_exact(engine, outsider):
    exact = ask(engine, outsider, 20)
    for options in ({"engine": "ivfpq"}, {"engine": "faiss"}, {"engine": "ivfpq", "rerank": True}):
        answer = ask(engine, outsider, 20, **options)
        assert answer.ids == exact.ids
        np.testing.assert_allclose([hit.score for hit in answer], [hit.score for hit in exact], atol=1e-5)
    assert answer.reranked == 60


def test_a_filter_changes_no_score_and_hides_nothing(engine, outsider):
    everything = ask(engine, outsider, 60)
    for label in ("label 0", "label 2"):
        some = ask(engine, outsider, 60, filter={"label": label})
        assert [(hit.id, hit.score) for hit in some] == [(h.id, h.score) for h in everything if h.labels == (label,)]


def test_what_is_cut_off_is_what_looks_less_alike(engine, outsider):
    everything = ask(engine, outsider, 60)
    limit = sorted(hit.similarity for hit in everything)[30]
    some = ask(engine, outsider, 60, cutoff=limit)
    assert some.ids == tuple(hit.id for hit in everything if hit.similarity >= limit)
    for limit in (hit.similarity for hit in everything[:20]):
        first = next(hit.id for hit in everything if hit.similarity >= limit)
        for rerank in (False, True):  # however few are wanted, and wherever in the order they are
            assert ask(engine, outsider, 1, engine="ivfpq", rerank=rerank, cutoff=limit).ids == (first,)


def test_only_the_first_are_reordered_and_the_rest_stays_behind_in_plain_order(engine, outsider, monkeypatch):
    for module in (neighbour_order, searcher):
        monkeypatch.setattr(module, "CANDIDATES", 12)
    plain = ask(engine, outsider, 60, weight=0)
    answer = ask(engine, outsider, 60)
    assert set(answer.ids[:12]) == set(plain.ids[:12]) and answer.ids[:12] != plain.ids[:12]
    assert answer.ids[12:] == plain.ids[12:]
    scores = [hit.score for hit in answer]
    assert scores == sorted(scores, reverse=True)
    assert ask(engine, outsider, 5).ids == answer.ids[:5], "however many are asked for"


def test_many_vectors_at_once_find_what_each_finds(engine):
    vectors = np.asarray(engine.store.features[:6], np.float32)
    for rerank in (False, True):
        options = SearchOptions(k=8, rerank=rerank, neighbourhood=0.5)
        found = engine.neighbours(vectors, options, list(range(6)))
        for id in range(6):
            one = engine.search_vector(vectors[id], options, own_id=id)
            assert [other for other in found.ids[id].tolist() if other != id][:7] == list(one.ids)[:7]


def test_pieces_of_pictures_and_queries_as_json(engine):
    part = ImagePart(7, crop=(0, 0, 6, 6))
    query = Query((part,), options=SearchOptions("exact", neighbourhood=0.75))
    written = json.loads(json.dumps(to_json(query)))
    assert written["options"] == {"engine": "exact", "neighbourhood": 0.75}
    assert from_json(written) == query
    answer = engine.search(query)
    assert answer == ask(engine, part, weight=0.75) and answer.expansion is not None
    with pytest.raises(EngineError, match="neighbourhood must be a number from 0 to 1, got 2"):
        from_json({**written, "options": {"neighbourhood": 2}})


def test_a_query_of_several_pictures_is_answered_by_how_alike_they_look(engine):
    for query in (Query((ImagePart(3), ImagePart(4))), Query((ImagePart(3), FeedbackPart((4,), (9,))))):
        assert ask(engine, query, weight=1) == ask(engine, query, weight=0)


def test_it_is_not_made_for_who_asks_where_a_collection_has_none(folder):
    create_spaces(FeatureStore.open(folder), ["visual"])
    with pytest.raises(QueryError, match="has no space 'neighbourhood'"):
        SearchEngine.open(folder).search(ImagePart(3, space="neighbourhood"))


def test_a_collection_that_is_compared_otherwise_by_now_does_without(folder, outsider):
    create_index(FeatureStore.open(folder), metric="l2")
    engine = SearchEngine.open(folder)
    assert engine.neighbour_order is None
    assert ask(engine, outsider) == ask(engine, outsider, weight=0)


def test_what_is_open_goes_on_after_its_files_are_gone(folder, engine, outsider):
    before = ask(engine, outsider)
    create_spaces(FeatureStore.open(folder), ["visual"])
    assert not (folder / "neighbourhood.npy").exists()
    assert ask(engine, outsider) == before


@pytest.mark.parametrize("rerank", [False, True])
def test_what_neighbours_changed_is_told(engine, outsider, rerank):
    vector, own_id = engine.encode(outsider)
    options = SearchOptions("ivfpq", 5, rerank=rerank)
    plain, near = ask(engine, outsider, 60, 0).ids, ask(engine, outsider, 60).ids
    e, features = engine.neighbour_order.space, np.asarray(engine.store.features, np.float32)
    _, likeness = by_the_formula(engine, vector)
    for id in (near[0], plain[-1], 17):
        told = explain(engine, vector, own_id, id, options)
        reason = told.neighbours
        assert (reason.rank, reason.plain_rank) == (near.index(id) + 1, plain.index(id) + 1)
        assert told.exact_rank == reason.plain_rank
        assert reason.similarity == pytest.approx(likeness[id], abs=1e-3)
        points = project(features, np.array(e.beside["components"]))
        alike = points @ points[id]
        alike[id] = -9
        ten = np.argsort(-alike, kind="stable")[:10]
        parts = np.vstack([points[id], alike[ten, None] ** 3 * points[ten]])
        f = engine.search(outsider, engine="ivfpq").expansion.vector
        shares = parts @ f / np.linalg.norm(parts.sum(0))
        assert reason.own_share == pytest.approx(shares[0], abs=5e-3)
        assert [share for _, share in reason.shares] == pytest.approx(np.sort(shares[1:])[::-1][:5], abs=5e-3)
        assert {other for other, _ in reason.shares} <= set(ten.tolist())
    moved = next(id for id in near if near.index(id) < plain.index(id))
    said = explain_neighbours(engine, vector, own_id, moved, options).verdict
    assert said == f"Neighbours moved it up, from rank {plain.index(moved) + 1} to rank {near.index(moved) + 1}."
    assert explain(engine, vector, own_id, moved, SearchOptions("ivfpq", 5, neighbourhood=0)).neighbours is None


def test_the_command(folder, outsider, capsys, engine):
    def found(*options):
        arguments = [str(outsider), "--in", folder.name, "--collections", str(folder.parent), "--json", *options]
        assert command.main(arguments) == 0
        return [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]]

    assert found("--neighbourhood", "1") == list(ask(engine, outsider, weight=1, engine="ivfpq").ids)
    assert found("--neighbourhood", "0") == list(ask(engine, outsider, weight=0, engine="ivfpq").ids)
    assert command.main([str(outsider), "--in", str(folder), "--neighbourhood", "7"]) == 2
    assert "neighbourhood must be a number from 0 to 1, got 7.0" in capsys.readouterr().err
