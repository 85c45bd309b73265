"""Words say which neighbours of a picture count where both are searched together."""

import numpy as np
import pytest
from test_fusion import Said
from test_neighbour_order import ask, folder, registered, unit  # noqa: F401  (fixtures)

from features.collection.store import FeatureStore
from search import fusion, spaces
from search.build import create_space
from search.engine import SearchEngine
from search.filters import Filter
from search.neighbourhood import project
from search.options import SearchOptions
from search.query import ImagePart, Query, TextPart


@pytest.fixture
def engine(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(spaces, "_KINDS", dict(spaces._KINDS))
    spaces.register_space(Said())
    create_space(FeatureStore.open(folder), "said")
    return SearchEngine.open(folder)


def standard(scores):
    return (scores - scores.mean()) / scores.std()


def by_the_formula(engine, pictures, text, weight):
    """Scores of all pictures, by the docstring of `search.mixed_order`, and what the words give of each."""
    ids = engine.store.ids
    space = engine.neighbour_order.space
    stored = unit(np.asarray(engine.store.features[ids], np.float32))
    said = Said().score_text(TextPart(text), engine)[ids]
    told = np.where(np.isfinite(said), said, said[np.isfinite(said)].min())
    plain = [standard(stored @ unit(np.asarray(engine.store.features[id], np.float32))) for id in pictures]
    total = len(pictures) + fusion.WORDS_BESIDE_PICTURE
    shares = [1 / total] * len(pictures) + [1 - len(pictures) / total]
    first = sum(share * scores for share, scores in zip(shares, [*plain, standard(told)], strict=True))
    own = project(np.asarray(engine.store.features[pictures], np.float32), np.array(space.beside["components"]))
    best = [place for place in np.argsort(-first).tolist() if ids[place] not in pictures and first[place] > 0][:10]
    f = unit(own.mean(axis=0) + sum(first[place] / first[best[0]] * space.rows(ids)[place] for place in best))
    near = standard(space.rows(ids) @ f)
    seen = sum(share * ((1 - weight) * scores + weight * near) for share, scores in zip(shares, plain, strict=False))
    return seen + shares[-1] * standard(told), shares[-1] * standard(told)


@pytest.mark.parametrize("pictures", [[7], [7, 30]])
@pytest.mark.parametrize("weight", [0.3, 1])
def test_the_order_is_that_of_the_formula(engine, pictures, weight):
    parts = [*map(ImagePart, pictures), TextPart("a boat")]
    found = ask(engine, Query(parts), k=60, weight=weight)
    expected, of_words = by_the_formula(engine, pictures, "a boat", weight)
    others = [id for id in np.argsort(-expected, kind="stable").tolist() if id not in pictures]
    assert list(found.ids) == others
    np.testing.assert_allclose([hit.score for hit in found], expected[others], atol=2e-4)
    np.testing.assert_allclose([hit.shares[-1] for hit in found], of_words[others], atol=2e-4)


def test_a_filter_changes_no_score(engine):
    query = Query([ImagePart(7), TextPart("a boat")])
    everywhere = {hit.id: hit.score for hit in ask(engine, query, k=60)}
    within = engine.search(Query(query.parts, Filter(("label 1",))), 60, engine="exact", neighbourhood=0.5)
    assert 0 < len(within) < len(everywhere)
    np.testing.assert_allclose([hit.score for hit in within], [everywhere[hit.id] for hit in within], atol=1e-6)


def test_without_neighbours_or_words_the_parts_are_what_they_were(engine):
    plain = ask(engine, Query([ImagePart(7), TextPart("a boat")]), k=60, weight=0)
    weights = np.array([1, fusion.WORDS_BESIDE_PICTURE])
    stored = unit(np.asarray(engine.store.features, np.float32))
    said = Said().score_text(TextPart("a boat"), engine)
    told = np.where(np.isfinite(said), said, said[np.isfinite(said)].min())
    expected = weights / weights.sum() @ np.stack([standard(stored @ stored[7]), standard(told)])
    assert list(plain.ids) == [id for id in np.argsort(-expected, kind="stable").tolist() if id != 7]
    alone = ask(engine, Query([TextPart("a boat")]), k=3)
    np.testing.assert_allclose([hit.score for hit in alone], np.sort(standard(told))[::-1][:3], atol=1e-4)
    unlike = ask(engine, Query([ImagePart(7, weight=-1), TextPart("a boat")]), k=3)
    np.testing.assert_allclose([hit.shares[1] for hit in unlike], 0.5 * standard(told)[list(unlike.ids)], atol=1e-4)


def test_ranks_know_no_neighbours(engine):
    query = Query([ImagePart(7), TextPart("a boat")])
    without = engine.search(Query(query.parts, options=SearchOptions("exact", 60, neighbourhood=0, fusion="ranks")))
    beside = engine.search(Query(query.parts, options=SearchOptions("exact", 60, neighbourhood=1, fusion="ranks")))
    assert [(hit.id, hit.score) for hit in without] == [(hit.id, hit.score) for hit in beside]
