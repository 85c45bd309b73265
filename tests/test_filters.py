"""A filter gives ids and a sentence, and never hides what it lets through: not from any engine, option or tool."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from test_conditions import TREES
from test_extract import FakeEncoder, make_images

from features.datasets import ImageFolder
from features.encoding import extract
from search.build import create_index
from search.compare import compare
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.explain import explain
from search.filters import Filter
from search.options import SearchOptions

LABEL = {"label": "label 1"}


@pytest.fixture(scope="module", params=["Flat", "IVF8,PQ4x4"])
def engine(request, tmp_path_factory):
    """Sixty pictures, twenty of each of three labels, in a tiny index; one of them is a file that cannot be read."""
    folder = tmp_path_factory.mktemp("filters")
    make_images(folder / "images", 60)
    (folder / "images/label 1/001.png").write_bytes(b"spoiled")
    store = extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "c", progress=False)
    create_index(store, factory=request.param)
    return SearchEngine.open(folder / "c")


def allowed_ids(engine, *labels):
    """What a loop over the pictures says."""
    return [item.id for item in engine.store.items if item.error is None and set(labels) & set(item.labels)]


def test_ids_are_those_of_a_loop(engine):
    for labels in (["label 1"], ["label 0", "label 2"], []):
        ids = Filter.of({"label": labels}).ids(engine.store)
        assert ids.dtype == np.int64
        assert ids.tolist() == allowed_ids(engine, *labels)
    assert Filter.of({"label": "label 1"}) == Filter(("label 1",)) == Filter.of(Filter(("label 1",)))
    assert Filter.of(None) == Filter.of({}) == Filter()
    assert Filter().ids(engine.store) is None


def test_people_read_a_sentence():
    assert str(Filter.of({"label": ["cup", "chair"]})) == "pictures labelled cup or chair"
    assert str(Filter.of(LABEL)) == "pictures labelled label 1"
    assert str(Filter()) == "all pictures"
    assert str(Filter.of({"label": []})) == "no pictures"


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"label": "cup", "size": {"gt": "1mb"}}, "pictures labelled cup and whose size is more than 1mb"),
        ({"or": [{"label": "cup"}, {"not": {"folder": "old"}}]}, "pictures labelled cup or whose folder is not old"),
        ({"year": {"between": [2010, 2015]}}, "pictures whose year is between 2010 and 2015"),
        ({"not": {"label": ["cup", "chair"]}}, "pictures not labelled cup or chair"),
        ({"width": {"empty": True}}, "pictures whose width is empty"),
        ({"width": {"empty": False}}, "pictures whose width is not empty"),
        ({"name": {"prefix": "I", "suffix": "1"}}, "pictures whose name begins with I and whose name ends with 1"),
        (
            {"and": [{"or": [{"label": "cup"}, {"id": [1, 2]}]}, {"not": {"or": [{"id": 3}, {"id": 4}]}}]},
            "pictures (labelled cup or whose id is 1 or 2) and not (whose id is 3 or whose id is 4)",
        ),
        ({"colour": {"ne": "red"}}, "pictures whose colour is not red"),
    ],
)
def test_a_filter_of_several_terms_is_a_sentence_and_comes_back_from_json(filter, said):
    assert str(Filter.of(filter)) == said
    assert Filter.of(json.loads(json.dumps(Filter.of(filter).to_json()))) == Filter.of(filter)


@given(TREES)
def test_every_tree_comes_back_from_json(tree):
    filter = Filter(where=tree)
    assert Filter.of(json.loads(json.dumps(filter.to_json()))) == filter
    assert str(filter)


def test_several_terms_let_through_what_a_loop_says(engine):
    asked = {"label": ["label 1", "label 2"], "name": {"contains": "1"}, "not": {"format": "jpeg"}}
    wanted = [id for id in allowed_ids(engine, "label 1", "label 2") if "1" in engine.store.items[id].path.name]
    assert Filter.of(asked).ids(engine.store).tolist() == wanted
    assert Filter.of(asked).count(engine.store) == len(wanted) > 3
    assert Filter().count(engine.store) == 59
    both = Filter.of(LABEL) & Filter.of({"id": {"lt": 30}})
    assert both.ids(engine.store).tolist() == [id for id in allowed_ids(engine, "label 1") if id < 30]
    assert Filter() & Filter.of(LABEL) == Filter.of(LABEL)
    vector = engine.space().space.rows(np.array([0]))[0]
    assert set(engine.search_vector(vector, SearchOptions(k=99), filter=asked).ids) == set(wanted)


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"label": "label 11"}, "no image of c bears the label 'label 11'; did you mean 'label 1'?"),
        ({"not": {"label": "nothing"}}, "no image of c bears the label 'nothing'"),
        ({"widht": 3}, "the nearest is width"),
        ({"width": {"gt": "wide"}}, "width is a number; got 'wide'"),
        ({"width": {"near": 3}}, "width cannot be compared by 'near'"),
        ({"width": None}, "finite number, got None"),
        ({"width": {"empty": 1}}, 'whether width is "empty" is true or false, got 1'),
        ({"and": {"width": 1}}, '"and" joins a list of filters, got dict'),
        ({"or": [3]}, "a filter is a mapping, got int"),
        ("label", "a filter is a mapping, got str"),
        ({3: 4}, "a field has a name"),
    ],
)
def test_a_filter_that_makes_no_sense_is_a_sentence(engine, filter, said):
    with pytest.raises(QueryError, match=re.escape(said)):
        Filter.of(filter).ids(engine.store)


def test_a_filter_of_any_depth_is_a_sentence():
    deep = {"label": "cup"}
    for _ in range(100_000):
        deep = {"not": deep}
    with pytest.raises(QueryError, match="nested"):
        Filter.of(deep)


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"colour": "red"}, "cannot filter by colour; known: label"),
        ({"label": ["label 1", "x' OR 1=1 --"]}, "no image of c bears the label"),
        ({"label": ["nothing", "none"]}, "no image of c bears the label 'none', 'nothing'"),
    ],
)
def test_what_cannot_be_filtered_by_is_said(engine, filter, said):
    with pytest.raises(EngineError, match=said):
        engine.search_vector(engine.space().space.rows(np.array([0]))[0], SearchOptions(), filter=filter)


@pytest.mark.parametrize("name", ["ivfpq", "faiss", "exact"])
@pytest.mark.parametrize("rerank", [False, True])
def test_k_among_the_allowed_are_found_or_all_of_them(engine, name, rerank):
    allowed = set(allowed_ids(engine, "label 1"))
    assert len(allowed) == 19
    for own_id in (0, 7, 58):  # of another label, of this one, of the third
        vector = engine.space().space.rows(np.array([own_id]))[0]
        for k, nprobe in ((1, 1), (5, 1), (12, 2), (19, 1), (100, 1)):
            options = SearchOptions(name, k, nprobe, rerank)
            found = engine.search_vector(vector, options, own_id=own_id, filter=LABEL)
            others = allowed - {own_id}
            assert len(found) == min(k, len(others))
            assert set(found.ids) <= others
            assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
        everything = engine.search_vector(vector, SearchOptions(name, 100, 1, rerank), own_id=own_id, filter=LABEL)
        assert set(everything.ids) == allowed - {own_id}
        middle = everything[8].score
        near = SearchOptions(name, 100, 1, rerank, cutoff=middle)
        cut = engine.search_vector(vector, near, own_id=own_id, filter=LABEL)
        assert cut.hits == tuple(hit for hit in everything if hit.score >= middle)


def test_an_empty_filter_lets_nothing_through(engine):
    vector = engine.space().space.rows(np.array([3]))[0]
    for name in engine.engines:
        assert engine.search_vector(vector, SearchOptions(name), filter={"label": []}).hits == ()


def test_compare_and_explain_speak_of_the_allowed_alone(engine):
    vector, allowed = engine.space().space.rows(np.array([0]))[0], allowed_ids(engine, "label 1")
    compared = compare(engine, vector, 0, SearchOptions(k=19, nprobe=1), filter=LABEL)
    for one in compared.values():
        assert one.ids == set(allowed)
        assert one.recall == 1
    exact = compared["exact"].answer
    for name in ("ivfpq", "faiss"):
        options = SearchOptions(name, 5, 1, rerank=False)
        answer = engine.search_vector(vector, options, own_id=0, filter=LABEL)
        for hit in exact:
            explanation = explain(engine, vector, 0, hit.id, options, filter=LABEL)
            assert explanation.exact_rank == hit.rank
            assert explanation.rank == next((found.rank for found in answer if found.id == hit.id), None)
            assert explanation.lost == (hit.rank <= 5 and hit.id not in answer.ids)
            if explanation.place is None:
                assert explanation.path.compared == 19
            else:
                probed = set(explanation.path.probed)
                lists = engine.index("ivfpq").codes_of(allowed)[0] if name == "ivfpq" else None
                assert hit.id not in answer.ids or explanation.place.list_number in probed
                assert explanation.path.scanned >= len(answer) == 5
                if lists is not None:  # no further than it takes
                    before = set(explanation.path.probed[:-1])
                    assert len(before) == 0 or sum(number in before for number in lists) < 5
