"""A query of several parts: the order is that of a loop over all pictures, and each hit says what each part gave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_extract import FakeEncoder, make_images

from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoding import extract
from features.images import ImageError, decode_image
from search import fusion, parts, spaces
from search.build import create_index, create_space
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.options import SearchOptions
from search.query import ImagePart, Query, TagPart, TextPart
from search.space import SpaceKind
from search.spaces import register_space


class Said(SpaceKind):
    """Pictures by a number that a text has for each; it knows nothing of every seventh."""

    name = "said"
    accepts = (TextPart,)

    def make(self, store):
        return np.ones((len(store.items), 1), np.float32)

    def score_text(self, part, collection):
        if part.text == "unheard":
            raise QueryError("nobody ever said unheard")
        if part.text == "void":
            return np.full(len(collection.store.items), -np.inf, np.float32)
        scores = np.random.default_rng(len(part.text)).normal(5, 40, len(collection.store.items)).astype(np.float32)
        scores[::7] = -np.inf
        return scores


@pytest.fixture(scope="module", params=["cosine", "ip", "l2"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fusion")
    make_images(folder / "images", 60)
    (folder / "images/label 1/001.png").write_bytes(b"spoiled")
    store = extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "c", progress=False)
    create_index(store, factory="IVF4,PQ4x4", engines=["ivfpq"], metric=request.param)
    return folder / "c"


@pytest.fixture(scope="module")
def engine(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "_KINDS", dict(spaces._KINDS))
        register_space(Said())
        create_space(FeatureStore.open(folder), "said")
        engine = SearchEngine.open(folder)
        engine._encoder = FakeEncoder()
        yield engine


def fused(engine, query, allowed):
    """What a loop says: (id, score, shares) of each picture, best first."""
    rows = np.asarray(engine.store.features, np.float64)
    usable = engine.store.ids.tolist()
    beside = any(isinstance(part, ImagePart) and part.weight > 0 for part in query)
    weights = [part.weight * (0.5 if beside and isinstance(part, TextPart) else 1) for part in query]
    own, columns = set(), []
    for part in query:
        if isinstance(part, TextPart):
            scores = Said().score_text(part, engine).astype(np.float64)
            scores[np.isinf(scores)] = min(scores[id] for id in usable if np.isfinite(scores[id]))
        else:
            own.add(part.picture)
            vector = rows[part.picture]
            if engine.metric == "l2":
                scores = -((rows - vector) ** 2).sum(axis=1)
            else:
                lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector) if engine.metric == "cosine" else 1
                scores = rows @ vector / np.where(lengths == 0, 1, lengths)
        mean, deviation = np.mean([scores[id] for id in usable]), np.std([scores[id] for id in usable])
        columns.append(weights[len(columns)] / sum(map(abs, weights)) * (scores - mean) / deviation)
    shares = np.array(columns)
    order = sorted(set(allowed) - own, key=lambda id: (-shares[:, id].sum(), id))
    return [(id, shares[:, id].sum(), shares[:, id]) for id in order]


LIKE = [ImagePart(7), ImagePart(22, weight=2.5), ImagePart(31, weight=-1), ImagePart(44, weight=-0.5)]
SPOKEN = [TextPart("boat", weight=0.5), TextPart("a night", weight=-2)]
QUERIES = [
    LIKE[:2],
    LIKE[:3],
    LIKE,
    LIKE[2:],
    [LIKE[2]],
    [SPOKEN[0]],
    SPOKEN,
    [SPOKEN[1]],
    [LIKE[0], SPOKEN[0]],
    LIKE + SPOKEN,
]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
@pytest.mark.parametrize("name", ["ivfpq", "exact"])
@pytest.mark.parametrize("filter", [None, {"label": "label 1"}])
def test_the_order_and_the_shares_are_those_of_a_loop(engine, query, name, filter):
    allowed = engine.store.ids if filter is None else engine.matching_ids(filter)
    wanted = fused(engine, query, allowed.tolist())
    answer = engine.search(Query(query), 100, engine=name, filter=filter)
    np.testing.assert_allclose([hit.score for hit in answer], [score for _, score, _ in wanted], atol=2e-4)
    by_id = {id: shares for id, _, shares in wanted}
    assert set(answer.ids) == by_id.keys()
    for hit in answer:
        np.testing.assert_allclose(hit.shares, by_id[hit.id], atol=2e-4)
        assert sum(hit.shares) == pytest.approx(hit.score, abs=1e-9)
        assert (hit.path, hit.labels) == (engine.store.items[hit.id].path, engine.store.items[hit.id].labels)
    assert [hit.rank for hit in answer] == list(range(1, len(answer) + 1))
    assert [part.part for part in answer.parts] == query
    assert answer.unanswered == ()
    assert engine.search(Query(query, filter=filter, k=3), engine=name).hits == answer.hits[:3]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_few_candidates_are_enough_for_an_exact_search(engine, query, monkeypatch):
    everything = engine.search(Query(query), 5, engine="exact")
    monkeypatch.setattr(parts, "CANDIDATES_MIN", 1)
    monkeypatch.setattr(parts, "RERANK_FACTOR", 2)
    few = engine.search(Query(query), 5, engine="exact")
    np.testing.assert_allclose([hit.score for hit in few], [hit.score for hit in everything], atol=2e-4)
    is_mixed = len({type(part) for part in query}) > 1
    has_one_vector = engine.metric != "l2" or isinstance(query[0], TextPart) or query in QUERIES[:3]
    assert (few.reranked < 59 - len(query)) == (has_one_vector and not is_mixed)
    some = engine.search(Query(query), 5, nprobe=4, filter={"label": ["label 1", "label 2"]})
    assert len(some) == 5
    assert all({"label 1", "label 2"} & set(hit.labels) for hit in some)


def test_what_is_unlike_a_picture_is_looked_for_in_all_lists(engine, monkeypatch):
    monkeypatch.setattr(parts, "CANDIDATES_MIN", 1)
    monkeypatch.setattr(parts, "RERANK_FACTOR", 2)
    monkeypatch.setattr(engine.index("ivfpq"), "nprobe", 1)
    assert engine.nlist == 4
    for query in (QUERIES[3], QUERIES[4]):
        assert engine.search(Query(query), 20).hits == engine.search(Query(query), 20, nprobe=4).hits


def test_similarity_is_that_of_the_nearest_wanted_picture(engine):
    alone = [
        {hit.id: hit.distance or hit.similarity for hit in engine.search(part, 99, engine="exact")}
        for part in (ImagePart(7), ImagePart(22))
    ]
    best = min if engine.metric == "l2" else max
    for hit in engine.search(Query(LIKE), 99):
        nearest = best(each[hit.id] for each in alone)
        shown = hit.distance if engine.metric == "l2" else hit.similarity
        assert shown == pytest.approx(nearest, rel=1e-4, abs=1e-3)
        assert (hit.similarity is None) == (engine.metric == "l2")
    middle = sorted(best(each.get(id, np.nan) for each in alone) for id in alone[0].keys() & alone[1].keys())[30]
    cut = engine.search(Query(LIKE), 99, cutoff=middle)
    assert 0 < len(cut) < 57
    assert all(hit.distance <= middle if engine.metric == "l2" else hit.similarity >= middle for hit in cut)
    assert {hit.similarity or hit.distance for hit in engine.search(Query(SPOKEN))} == {None}
    with pytest.raises(QueryError, match="there is no picture to be like"):
        engine.search(Query(SPOKEN), cutoff=0.5)


def test_one_picture_is_searched_as_ever(engine):
    path = engine.store.items[7].path
    options = SearchOptions(k=9, nprobe=2)
    plain = engine.search_vector(engine.encode(path).vector, options, own_id=7)
    for query in (path, str(path), path.read_bytes(), ImagePart(path), ImagePart(7), "like:7", Query([ImagePart(7)])):
        answer = engine.search(query, 9, nprobe=2)
        assert answer == plain
        assert (answer.own_id, answer.parts, answer[0].shares) == (7, (), ())
    assert engine.search(Query([ImagePart(7)], options=options, k=4)).hits == plain.hits[:4]


def test_a_piece_of_a_picture_is_searched(engine):
    item = engine.store.items[9]
    piece = np.ascontiguousarray(decode_image(item.path)[2:8, 1:6])
    wanted = engine.search(piece, 5)
    for picture in (9, item.path, item.path.read_bytes(), decode_image(item.path)):
        assert engine.search(ImagePart(picture, (1, 2, 6, 8)), 5) == wanted
    assert engine.search("like:9#xywh=1,2,5,6", 5) == wanted
    with pytest.raises(QueryError, match=r"the crop \(1, 2, 6, 9999\) does not lie inside a picture of \d+ x \d+"):
        engine.search(ImagePart(9, (1, 2, 6, 9999)))


def test_what_a_collection_cannot_answer_is_said_and_the_others_go_on(engine):
    unheard = [
        TextPart("unheard"),
        TextPart("void"),
        TextPart("the of"),
        TagPart("outdoor"),
        ImagePart("https://x.org/"),
    ]
    answer = engine.search(Query([*unheard[:2], *LIKE[:2], *unheard[2:]]), 99)
    alone = engine.search(Query(LIKE[:2]), 99)
    assert [(hit.id, hit.score) for hit in answer] == [(hit.id, hit.score) for hit in alone]
    assert answer[0].shares == (0, 0, *alone[0].shares, 0, 0, 0)
    assert [part.space for part in answer.parts] == [None, None, "visual", "visual", None, None, None]
    assert answer.unanswered == (
        "nobody ever said unheard",
        "the space said knows nothing of 'void'",
        "'the of' says nothing that could be seen: add a word, or put it in quotes",
        "c cannot be asked by a tag: its spaces are visual, said",
        "nothing is fetched from the web here: give the file instead of https://x.org/",
    )
    with pytest.raises(QueryError, match="nobody ever said unheard; the space said knows nothing"):
        engine.search(Query(unheard))
    assert len(engine.search('"the of"')) == 10


def test_what_is_typed_is_searched(engine):
    typed = engine.search('boat -(a night)^2 like:7^.5 -label:"label 1" -size:>1gb', 99, filter={"id": {"lt": 50}})
    assert {part.space for part in typed.parts} == {"visual", "said"}
    query = Query([TextPart("boat"), TextPart("a night", weight=-2), ImagePart(7, weight=0.5)])
    others = {"not": {"label": "label 1"}, "id": {"lt": 50}}
    assert typed == engine.search(query, 99, filter=others)


def test_a_filter_alone_gives_all_it_lets_through(engine):
    answer = engine.search('label:"label 1"', 99)
    assert answer.ids == tuple(engine.matching_ids({"label": "label 1"}).tolist())
    assert {(hit.score, hit.similarity, hit.shares) for hit in answer} == {(0.0, None, ())}
    assert engine.search('label:"label 1" id:<0').hits == ()


def test_ranks_are_fused_on_request(engine):
    query = [LIKE[0], SPOKEN[1]]
    answer = engine.search(Query(query, options=SearchOptions(fusion="ranks")), 99)
    place = [
        {id: rank for rank, (id, *_) in enumerate(fused(engine, [part], set(engine.store.ids.tolist()) - {7}), 1)}
        for part in (LIKE[0], TextPart("a night"))
    ]
    for hit in answer:
        ranks = [each[hit.id] for each in place]
        assert hit.shares[0] == pytest.approx(1 / 2 / (60 + ranks[0]))
        assert hit.shares[1] == pytest.approx(-1 / 2 / (60 + ranks[1]), rel=0.2)  # ties, of what is not known
    assert [hit.score for hit in answer] == sorted((hit.score for hit in answer), reverse=True)


def test_an_address_is_opened_by_who_can(folder):
    asked = []

    def fetch(address):
        asked.append(address)
        if "nowhere" in address:
            raise ValueError("The server was not found.")
        return engine.store.items[5].path.read_bytes()

    engine = SearchEngine.open(folder, fetch=fetch)
    assert engine.search("image:https://x.org/a.png", 5) == engine.search(ImagePart(5), 5)
    assert asked == ["https://x.org/a.png"]
    with pytest.raises(QueryError, match=r"https://nowhere\.org cannot be searched with: The server was not found"):
        engine.search("image:https://nowhere.org")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "nothing to search for"),
        ("boat label:nothing", "no image of c bears the label 'nothing'"),
        ("boat colour:red", "cannot filter by colour"),
        ("boat size:>large", "size is a number"),
        ("like:60", "c has no picture 60"),
        ("like:20", "c has no picture 20"),  # the spoiled one
        (ImagePart(-1), "c has no picture -1"),
        (Query([TextPart("boat")], collection="demo"), "for the collection demo, and this is c"),
        (Query([TextPart("boat", space="visual")]), "the space visual cannot be asked by a TextPart"),
        (Query([TextPart("boat", space="tint")]), "c has no space 'tint'; it has visual, said"),
        ("x" * 2**20, "at most 10,000 characters"),
        ("\0", "nothing to search for"),
        (Query([TextPart("boat")] * 10_000), "at most 100 parts, got 10,000"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(engine, query, said):
    with pytest.raises(QueryError, match=said):
        engine.search(query)


def test_pictures_that_cannot_be_read_are_named(engine):
    with pytest.raises(ImageError, match="missing"):
        engine.search("boat image:missing.jpg")
    with pytest.raises(EngineError, match="fusion combines scores or ranks, got 'both'"):
        SearchOptions(fusion="both")
    with pytest.raises(EngineError, match="unknown engine 'scann'"):
        engine.search(Query(LIKE), engine="scann")


@pytest.mark.parametrize(
    "text", ["((((((((", '"\\"\'"', "\u05e1\u05d9\u05e8\u05d4", "\U0001f6a3", "-boat", "'; DROP TABLE"]
)
def test_whatever_is_typed_is_answered(engine, text):
    assert len(engine.search(text)) == 10


@given(st.integers(0, 5_000), st.integers(0, 1_000))
def test_the_sample_is_fixed_and_of_the_collection(count, first):
    ids = np.arange(first, first + 3 * count, 3)
    sample = fusion.sample_of(ids)
    assert sample.size == min(count, 2_000)
    assert (np.diff(sample) > 0).all()
    assert set(sample.tolist()) <= set(ids.tolist())
    assert (sample == fusion.sample_of(ids)).all()


def test_scores_that_are_all_the_same_order_nothing():
    same, other = np.full((1, 4), 0.3, np.float32), np.array([[1, 2, 4, 3]], np.float32)
    scores = np.concatenate([same, other])
    shares = fusion.shares(scores, scores, np.array([1.0, 1.0]))
    assert np.abs(shares[0]).max() < 1e-6
    np.testing.assert_allclose(shares[1], (other[0] - 2.5) / other[0].std() / 2, rtol=1e-6)
