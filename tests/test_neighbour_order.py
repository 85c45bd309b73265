"""Neighbours count in the order of hits; what is shown and cut off stays the similarity of the stored vectors."""

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

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
from search.parts import learn_tag
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
    """Plain and neighbourhood similarity of all pictures, and four times the lead of the first, by the docstring."""
    space = engine.neighbour_order.space
    e = space.rows(space.ids)
    a = project(vector[None], np.array(space.beside["components"]))[0]
    near = e @ a
    if own_id is not None:
        near[own_id] = -9
    f = a + sum(max(near[j], 0) ** 3 * e[j] for j in np.argsort(-near, kind="stable")[:10])
    plain = unit(np.asarray(engine.store.features, np.float32)) @ unit(vector)
    order = [id for id in np.argsort(-plain).tolist() if id != own_id]
    gaps = [plain[one] - plain[other] for one, other in pairwise(order[:6])]
    lead = np.zeros(len(plain))
    lead[order[0]] = 4 * max(0, gaps[0] - np.mean(gaps[1:]))
    return plain, e @ unit(f), lead


@pytest.mark.parametrize("weight", [0.25, 0.5, 1])
def test_scores_are_those_of_the_formula(engine, outsider, weight):
    plain, near, lead = by_the_formula(engine, FakeEncoder().encode([decode_image(outsider)])[0])
    scores = (1 - weight) * (plain + lead) + weight * near
    answer = ask(engine, outsider, 60, weight)
    assert sorted(answer.ids) == list(range(60))
    np.testing.assert_allclose([hit.score for hit in answer], scores[list(answer.ids)], atol=1e-5)
    np.testing.assert_allclose([hit.similarity for hit in answer], plain[list(answer.ids)], atol=1e-5)
    assert [hit.score for hit in answer] == sorted((hit.score for hit in answer), reverse=True)
    assert list(answer.ids) != np.argsort(-plain).tolist(), "they changed the order"


def test_a_picture_of_the_collection_is_no_neighbour_of_its_own(engine):
    answer = ask(engine, engine.store.items[7].path, 59)
    plain, near, lead = by_the_formula(engine, np.asarray(engine.store.features[7], np.float32), own_id=7)
    assert 7 not in answer.ids and len(answer) == 59
    assert 7 not in answer.expansion.ids and len(answer.expansion.ids) == 10
    np.testing.assert_allclose([hit.score for hit in answer], (plain + lead + near)[list(answer.ids)] / 2, atol=1e-5)


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


def test_the_first_is_ahead_by_more_than_the_next_four_are_apart():
    def ranked(*similarities):
        values = np.array(similarities, np.float32)
        return neighbour_order.Ranked(np.arange(5, 5 + len(values)), values, values)

    stands_out = neighbour_order.lead_of(ranked(0.9, 0.5, 0.48, 0.46, 0.44, 0.4, 0.1))
    assert stands_out == (5, pytest.approx(0.4 - 0.1 / 4))
    assert neighbour_order.lead_of(ranked(0.9, 0.8, 0.5, 0.4, 0.3, 0.2)) == (5, 0), "the others are farther apart"
    assert neighbour_order.lead_of(ranked(0.9, 0.9, 0.1)) == (5, 0), "two copies are there"
    assert neighbour_order.lead_of(ranked(0.9, 0.7)) == (5, pytest.approx(0.2))
    assert neighbour_order.lead_of(ranked(0.9)) == neighbour_order.lead_of(ranked()) == (-1, 0)


def test_what_stands_out_comes_first_though_the_neighbourhoods_of_others_are_nearer():
    e = unit(np.array([[0.6, 0.8, 0], *([0.95, 0.3, 0.01 * place] for place in range(6))], np.float32))

    components = np.vstack([np.zeros(3), np.eye(3)]).astype(np.float32)
    order = neighbour_order.NeighbourOrder(SimpleNamespace(beside={"components": components}, rows=e.__getitem__))
    query = np.array([1, 0, 0], np.float32)
    for first, expected in ((0.9, 0), (0.76, 1)):
        plain = np.array([first, 0.75, 0.74, 0.73, 0.72, 0.71, 0.7], np.float32)
        ranked, expansion = order.first(query, neighbour_order.Ranked(np.arange(7), plain, plain), 0.5)
        near = order.similarities(expansion, np.arange(7))
        assert np.argmax(plain + near) == 1, "the sum alone prefers what has many alike"
        assert ranked.ids[0] == expected
    alone = neighbour_order.Ranked(np.arange(7), plain, plain)
    assert order.first(query, alone, 1)[0].ids[0] != 0, "neighbourhoods alone are asked for"


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
    ten_judged = Query((ImagePart(3), FeedbackPart((4, 5, 6, 7, 8), (9, 10, 11, 12, 13))))
    for query in (Query((ImagePart(3), ImagePart(4))), ten_judged):
        assert ask(engine, query, weight=1) == ask(engine, query, weight=0)


@pytest.mark.parametrize("weight", [0.5, 1])
def test_few_judgements_are_learnt_from_in_neighbourhoods_too(engine, outsider, weight):
    """The formula of the docstring: both moved queries, each of length 1, and the query itself besides."""
    encoded = FakeEncoder().encode([decode_image(outsider)])[0]
    features = unit(np.asarray(engine.store.features, np.float32))
    e = engine.neighbour_order.space.rows(np.arange(60))
    f = ask(engine, outsider).expansion.vector
    moved = unit(unit(encoded) + 2 * features[[4, 8]].mean(0) - 2 * features[9])
    moved_near = unit(f + 2 * e[[4, 8]].mean(0) - 2 * e[9])
    fits = (1 - weight) * features @ moved + weight * e @ moved_near
    itself = features @ unit(encoded)
    shares = np.stack([(itself - itself.mean()) / itself.std() / 5, 4 * (fits - fits.mean()) / fits.std() / 5])
    answer = ask(engine, Query((ImagePart(outsider), FeedbackPart((4, 8), (9,)))), 60, weight)
    assert 9 not in answer.ids and len(answer) == 59
    np.testing.assert_allclose([hit.shares for hit in answer], shares.T[list(answer.ids)], atol=2e-3)
    assert [hit.score for hit in answer] == sorted((hit.score for hit in answer), reverse=True)
    alone = ask(engine, Query((FeedbackPart((4,), (9,)),)), 59, weight)
    alone_fits = (1 - weight) * features @ unit(features[4] - features[9]) + weight * e @ unit(e[4] - e[9])
    assert list(alone.ids)[:5] == [id for id in np.argsort(-alone_fits).tolist() if id != 9][:5]


def test_a_learned_tag_is_learnt_from_stored_vectors_alone(engine):
    query = Query((ImagePart(3), FeedbackPart((4,), (9,))))
    kept = [learn_tag(engine, name, query, SearchOptions("exact", neighbourhood=w)) for name, w in (("a", 0), ("b", 1))]
    np.testing.assert_array_equal(kept[0].vector, kept[1].vector)


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
    _, likeness, _ = by_the_formula(engine, vector)
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
    lead = ask(engine, outsider).expansion.lead
    first = explain_neighbours(engine, vector, own_id, lead.id, options)
    assert first.plain_rank == 1 and ("well ahead of the next" in first.verdict) == (lead.by > 0)
    beyond = explain_neighbours(engine, vector, own_id, lead.id, replace(options, neighbourhood=1))
    assert not beyond.stands_out


def test_the_command(folder, outsider, capsys, engine):
    def found(*options):
        arguments = [str(outsider), "--in", folder.name, "--collections", str(folder.parent), "--json", *options]
        assert command.main(arguments) == 0
        return [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]]

    assert found("--neighbourhood", "1") == list(ask(engine, outsider, weight=1, engine="ivfpq").ids)
    assert found("--neighbourhood", "0") == list(ask(engine, outsider, weight=0, engine="ivfpq").ids)
    assert command.main([str(outsider), "--in", str(folder), "--neighbourhood", "7"]) == 2
    assert "neighbourhood must be a number from 0 to 1, got 7.0" in capsys.readouterr().err


def test_an_answer_says_whether_its_matches_are_weak(engine, folder, outsider, capsys):
    answer = ask(engine, outsider)
    assert answer.is_weak is (answer.strength.value < answer.strength.weak_below)
    plain = ask(engine, outsider, weight=0).strength
    assert plain == pytest.approx(answer.strength, abs=1e-6), "whatever orders them"
    mine = ask(engine, engine.store.items[3].path)
    assert mine.own_id == 3 and mine.strength is not None
    assert ask(engine, Query((ImagePart(3), ImagePart(4)))).is_weak is None
    engine.space().strength._weak_below = 9.0  # whatever is found is weak
    assert ask(engine, outsider).is_weak
    assert command.main([str(outsider), "--in", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weak"] is answer.is_weak
