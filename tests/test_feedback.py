"""More like this, less like this: what is learnt, how it turns an order, and what is refused."""

import json

import numpy as np
import pytest
from test_extract import FakeEncoder
from test_fusion import engine, folder  # noqa: F401  (fixtures)
from test_words import folder as folder_of_colours  # noqa: F401
from test_words import quick_words, root  # noqa: F401

from ivfpq.distances import normalised
from search import feedback
from search.__main__ import main
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.feedback import learnt_vector, widened
from search.options import SearchOptions
from search.query import FeedbackPart, ImagePart, Query, TextPart
from search.reasons import explain_parts


@pytest.fixture
def colours(folder_of_colours):  # noqa: F811
    """Twelve red, twelve green and twelve blue pictures."""
    return SearchEngine.open(folder_of_colours)


NONE = np.empty((0, 4), np.float32)


def vectors(*rows):
    return np.array(rows, np.float32)


def test_rocchio_by_hand():
    asked, more, less = vectors([1, 0, 0, 0]), vectors([0, 1, 0, 0], [0, 0, 1, 0]), vectors([0, 0, 0, 1])
    wanted = np.array([1, feedback.MORE / 2, feedback.MORE / 2, -feedback.LESS])
    np.testing.assert_allclose(learnt_vector(asked, more, less, NONE), wanted / np.linalg.norm(wanted), rtol=1e-6)


def test_crosses_alone_point_away_and_checks_alone_towards():
    picture = vectors([0, 1, 0, 0])
    np.testing.assert_array_equal(learnt_vector(NONE, NONE, picture, NONE), -picture[0])
    np.testing.assert_array_equal(learnt_vector(NONE, picture, NONE, NONE), picture[0])
    np.testing.assert_array_equal(learnt_vector(NONE, picture, picture, NONE), np.zeros(4))


def test_ridge_is_that_of_the_primal_with_balanced_sides():
    generator = np.random.default_rng(0)
    asked, more, less, background = (
        normalised(generator.normal(size=(n, 8)).astype(np.float32)) for n in (1, 4, 7, 20)
    )
    rows = np.concatenate([asked, more, less, background]).astype(np.float64)
    target = np.array([1] * 5 + [-1] * 27)
    weight = np.array([1 / 5] * 5 + [1 / 7] * 7 + [1 / 20] * 20)
    primal = np.linalg.solve(rows.T * weight @ rows + feedback.RIDGE * np.eye(8), rows.T @ (weight * target))
    np.testing.assert_allclose(
        learnt_vector(asked, more, less, background), primal / np.linalg.norm(primal), rtol=1e-4, atol=1e-5
    )


def test_a_vector_takes_in_its_nearest_but_not_itself(engine):  # noqa: F811
    stored = np.asarray(engine.store.features, np.float32)
    rows = normalised(stored)
    near = rows @ rows[7]
    by_metric = {"cosine": -near, "ip": -stored @ stored[7], "l2": ((stored - stored[7]) ** 2).sum(axis=1)}
    nearest = sorted(engine.store.ids.tolist(), key=lambda id: by_metric[engine.metric][id])[: feedback.NEIGHBOURS + 1]
    others = [id for id in nearest if near[id] < feedback.SAME][: feedback.NEIGHBOURS]
    wanted = rows[7] + sum(max(near[id], 0) ** 3 * rows[id] for id in others)
    wide = widened(stored[7:8], engine.space(), SearchOptions("exact"))
    np.testing.assert_allclose(wide[0], wanted / np.linalg.norm(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ivfpq", "exact"])
@pytest.mark.parametrize("own", [(), (ImagePart(7),), (TextPart("boat"),), (ImagePart(7), TextPart("a night"))])
def test_what_is_checked_stays_and_what_is_crossed_leaves(engine, name, own):  # noqa: F811
    judged = FeedbackPart(more=(22, 31), less=(44, 3))
    answer = engine.search(Query((*own, judged)), 100, engine=name)
    assert {22, 31} <= set(answer.ids) and not {44, 3} & set(answer.ids)
    assert set(answer.ids) == set(engine.store.ids.tolist()) - {44, 3} - ({7} if ImagePart(7) in own else set())
    for hit in answer:
        assert len(hit.shares) == len(own) + 1 and sum(hit.shares) == pytest.approx(hit.score)


def test_a_filter_and_the_number_of_hits_hold(engine):  # noqa: F811
    query = Query((ImagePart(7), FeedbackPart((22,), (44,))), filter={"label": "label 1"})
    allowed = set(engine.matching_ids({"label": "label 1"}).tolist()) - {7, 44}
    assert set(engine.search(query, 100).ids) == allowed
    assert engine.search(query, 3).ids == engine.search(query, 100).ids[:3]


def test_what_was_learnt_is_compared_with_every_stored_vector(engine):  # noqa: F811
    judged = FeedbackPart((22, 31, 8), (44, 3))
    rows = normalised(np.asarray(engine.store.features, np.float32))
    searcher = engine.space()
    vector = feedback.learnt_from(judged, np.empty((0, rows.shape[1]), np.float32), searcher, SearchOptions("exact"))
    near = rows @ vector
    wanted = sorted(set(engine.store.ids.tolist()) - {44, 3}, key=lambda id: (-near[id], id))
    found = engine.search(Query((judged,)), 100, engine="exact").ids
    if engine.metric == "ip":  # long vectors come first there
        near = np.asarray(engine.store.features, np.float32) @ vector
        wanted = sorted(wanted, key=lambda id: (-near[id], id))
    np.testing.assert_allclose(near[list(found)], near[wanted], rtol=1e-4, atol=1e-4)


def test_judgements_count_by_their_weight(engine):  # noqa: F811
    def share_of(weight):
        parts = (TextPart("boat"), FeedbackPart((22,), (44,), weight=weight))
        hit = next(hit for hit in engine.search(Query(parts), 100) if hit.id == 22)
        return abs(hit.shares[1])

    assert 0 == share_of(0) < share_of(0.5) < share_of(1) < share_of(4)


@pytest.mark.parametrize("judgements", [1, 6])  # few are learnt otherwise than many
@pytest.mark.parametrize("own", [ImagePart(0), TextPart("crimson")])
def test_checks_bring_their_kind_and_crosses_send_theirs_away(colours, own, judgements):
    reds, greens = range(1, 1 + judgements), range(12, 12 + judgements)
    before = colours.search(Query((own,)), 11)
    assert {hit.labels for hit in before} == {("a",)}
    query = Query((own, FeedbackPart(greens, reds)))
    after = colours.search(query, 11)
    assert {hit.labels for hit in after} == {("b",)} and set(greens) <= set(after.ids)
    *_, reason = explain_parts(colours, after, after[0])
    assert reason.share == after[0].shares[-1] > 0 and reason.answer.part == query.feedback


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((FeedbackPart((999_999,)),), "has no picture 999999"),
        ((FeedbackPart((7,), space="said"),), "the space said cannot be asked by a FeedbackPart"),
    ],
)
def test_what_is_no_picture_is_a_sentence_and_the_others_go_on(engine, parts, said):  # noqa: F811
    with pytest.raises(QueryError, match=said):
        engine.search(Query(parts))
    answer = engine.search(Query((TextPart("boat"), *parts)), 100)
    assert said in answer.unanswered[0] and answer.ids == engine.search(Query((TextPart("boat"),)), 100).ids
    with pytest.raises(EngineError, match="unknown engine"):
        engine.search(Query((FeedbackPart((7,)),)), engine="nobody")


def test_the_command_takes_judgements(folder, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(SearchEngine, "encoder", FakeEncoder())
    where = [folder.name, "--collections", str(folder.parent)]
    assert main(["like:7", "--in", *where, "--more", "22,31", "--less", "44", "-k", "99", "--json"]) == 0
    by_options = json.loads(capsys.readouterr().out)
    assert main(["like:7 more:22|31 less:44", "--in", *where, "-k", "99", "--json"]) == 0
    typed = json.loads(capsys.readouterr().out)
    assert [hit["id"] for hit in by_options["hits"]] == [hit["id"] for hit in typed["hits"]]
    assert 44 not in {hit["id"] for hit in typed["hits"]}
    assert main(["like:7 more:3", "--in", *where, "--less", "3"]) == 2
    assert "picture 3 is judged both ways" in capsys.readouterr().err
    assert main(["like:7", "--in", *where, "--less", "999999"]) == 0
    assert "has no picture 999999" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["like:7", "--in", *where, "--more", "a"])
    assert "ids are numbers with commas between, got 'a'" in capsys.readouterr().err
