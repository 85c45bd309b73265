"""SearchEngine on a real collection: who is found, who is left out, and what is refused."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.collection.store import StoreError
from features.images import ImageError, decode_image
from ivfpq import IndexFlat
from search.engine import SearchEngine
from search.errors import EngineError
from search.options import SearchOptions


@pytest.fixture(scope="module")
def engine(demo_collection):
    return SearchEngine.open(demo_collection)


@pytest.fixture(scope="module")
def outsider(engine, tmp_path_factory):
    """A crop of one of the collection's pictures, as a file of its own: (path, id of the original)."""
    path = tmp_path_factory.mktemp("outside") / "crop.png"
    pixels = decode_image(engine.store.items[0].path)
    height, width = pixels.shape[:2]
    Image.fromarray(pixels[height // 16 :, : width - width // 16]).save(path)
    return path, 0


def test_open_tells_what_there_is(engine):
    assert engine.name == "demo"
    assert engine.metric == "cosine"
    assert engine.engines == ("ivfpq", "faiss", "exact")
    assert engine.nlist == 100
    assert 1 <= engine.nprobe <= engine.nlist
    assert sum(engine.labels.values()) == len(engine.store.items) == 340


@pytest.mark.parametrize("name", ["ivfpq", "faiss", "exact"])
class TestEachEngine:
    def test_ranks_scores_and_fields(self, engine, outsider, name):
        hits = engine.search(outsider[0], k=7, engine=name, nprobe=100, neighbourhood=0)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6, 7]
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert len({hit.id for hit in hits}) == 7
        for hit in hits:
            item = engine.store.items[hit.id]
            assert (hit.path, hit.labels) == (item.path, item.labels)
            assert hit.path.is_file()
            assert hit.similarity == hit.score
            assert hit.distance is None
        assert hits.encode_ms > 0
        assert hits.search_ms > 0

    def test_scores_are_cosines(self, engine, outsider, name):
        vector, _ = engine.encode(outsider[0])
        for hit in engine.search(outsider[0], k=5, engine=name, nprobe=100, neighbourhood=0):
            other = engine.store.features[hit.id].astype(np.float32)
            cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
            assert hit.score == pytest.approx(cosine, abs=1e-3 if name == "exact" else 0.2)

    def test_a_crop_finds_views_of_its_photograph(self, engine, outsider, name):
        label = engine.store.items[outsider[1]].labels
        hits = engine.search(outsider[0], k=5, engine=name, nprobe=100)
        assert sum(hit.labels == label for hit in hits) >= 4

    def test_a_picture_of_the_collection_leaves_itself_out(self, engine, name):
        for i in (0, 100, 339):
            path = engine.store.items[i].path
            by_path = engine.search(path, k=5, engine=name, nprobe=100)
            by_bytes = engine.search(path.read_bytes(), k=5, engine=name, nprobe=100)
            assert i not in [hit.id for hit in by_path]
            assert by_path == by_bytes
            assert by_path.own_id == by_bytes.own_id == i
            assert len(by_path) == 5

    def test_pixels_keep_their_best_hit(self, engine, name):
        pixels = decode_image(engine.store.items[5].path)
        assert 5 in [hit.id for hit in engine.search(pixels, k=5, engine=name, nprobe=100)]

    def test_more_than_there_are_gives_all_and_no_minus_one(self, engine, outsider, name):
        hits = engine.search(outsider[0], k=1000, engine=name, nprobe=100)
        assert sorted(hit.id for hit in hits) == list(range(340))

    def test_a_filter_keeps_only_the_label(self, engine, outsider, name):
        label = engine.store.items[200].labels[0]
        hits = engine.search(outsider[0], k=1000, engine=name, nprobe=100, filter={"label": label})
        assert {hit.labels for hit in hits} == {(label,)}
        assert len(hits) == engine.labels[label]


def test_exact_is_the_flat_index_over_the_stored_vectors(engine, outsider):
    index = IndexFlat(engine.store.features.shape[1], metric="cosine")
    index.add(np.asarray(engine.store.features, dtype=np.float32))
    vector, own_id = engine.encode(outsider[0])
    assert own_id is None
    found = engine.search(outsider[0], k=10, engine="exact", neighbourhood=0)
    assert list(found.ids) == index.search(vector[None], 10).ids[0].tolist()


def test_a_stored_picture_is_not_encoded_again(engine):
    vector, own_id = engine.encode(engine.store.items[3].path)
    assert own_id == 3
    again, none = engine.encode(decode_image(engine.store.items[3].path))
    assert none is None
    assert vector @ again / np.linalg.norm(vector) / np.linalg.norm(again) > 0.999


def test_words_compile_no_network_and_the_first_picture_does(demo_collection, outsider):
    code = (
        "import sys; from pathlib import Path; from search.engine import SearchEngine\n"
        "engine = SearchEngine.open(sys.argv[1])\n"
        "for query in ('a cup of coffee', Path(sys.argv[2])):\n"
        "    print(*engine.search(query, k=1)[0].labels, 'openvino' in sys.modules)"
    )
    asked = [sys.executable, "-c", code, str(demo_collection), str(outsider[0])]
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run(asked, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0] == "coffee False"
    assert said[1].endswith(" True")


@pytest.mark.parametrize("name", ["ivfpq", "faiss"])
class TestRerank:
    def test_orders_the_ten_times_k_best_candidates_exactly(self, engine, outsider, name):
        scores = {hit.id: hit.score for hit in engine.search(outsider[0], k=340, engine="exact", neighbourhood=0)}
        for k, nprobe in ((1, 1), (3, 5), (7, 20)):
            where = {"engine": name, "nprobe": nprobe, "neighbourhood": 0}
            candidates = engine.search(outsider[0], k=10 * k, rerank=False, **where)
            hits = engine.search(outsider[0], k=k, **where)
            best = sorted((hit.id for hit in candidates), key=lambda id: (-scores[id], id))[:k]
            assert [(hit.id, hit.score) for hit in hits] == [(id, scores[id]) for id in best]
            assert hits.reranked == len(candidates)
            assert hits.rerank_ms > 0 == candidates.rerank_ms == candidates.reranked

    def test_of_everything_is_exact_search(self, engine, outsider, name):
        query = engine.store.items[20].path
        for source in (query, outsider[0]):
            exact = engine.search(source, k=50, engine="exact")
            assert engine.search(source, k=50, engine=name, nprobe=100, rerank=True) == exact

    def test_keeps_to_the_filter(self, engine, outsider, name):
        label = engine.store.items[200].labels[0]
        hits = engine.search(outsider[0], k=5, engine=name, nprobe=100, rerank=True, filter={"label": label})
        assert {hit.labels for hit in hits} == {(label,)}


@pytest.mark.parametrize("name", ["ivfpq", "faiss", "exact"])
@pytest.mark.parametrize("rerank", [False, True])
def test_many_vectors_at_once_find_what_each_finds(engine, name, rerank):
    ids = np.array([3, 50, 300])
    vectors = np.asarray(engine.store.features[ids], dtype=np.float32)
    options = SearchOptions(name, 6, nprobe=4, rerank=rerank)
    found = engine.neighbours(vectors, options)
    for row, vector in zip(found.ids, vectors, strict=True):
        alone = engine.search_vector(vector, options)
        assert [hit.id for hit in alone] == row[row >= 0].tolist()


def test_one_encoding_serves_several_searches(engine, outsider):
    vector, own_id = engine.encode(engine.store.items[7].path)
    assert engine.search_vector(vector, SearchOptions(k=5), own_id=own_id) == engine.search(
        engine.store.items[7].path, 5
    )
    assert engine.index("ivfpq").ntotal == engine.index("exact").ntotal == 340
    with pytest.raises(EngineError, match="unknown engine 'scann'"):
        engine.index("scann")


def test_nprobe_of_a_call_does_not_stay(engine, outsider):
    few = engine.search(outsider[0], k=340, nprobe=1)
    all_ = engine.search(outsider[0], k=340, nprobe=100)
    assert len(few) < len(all_)
    assert engine.search(outsider[0], k=340, nprobe=1) == few
    assert engine.search(outsider[0], k=340, nprobe=5000) == all_


def test_many_threads_get_their_own_answers(engine):
    wrong = []

    def ask(i):
        for name in engine.engines:
            hits = engine.search(engine.store.items[i].path, k=3, engine=name, nprobe=1 + i % 100)
            if i in [hit.id for hit in hits] or hits != engine.search(
                engine.store.items[i].path, k=3, engine=name, nprobe=1 + i % 100
            ):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(0, 340, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"engine": "scann"}, "unknown engine 'scann'"),
        ({"k": 0}, "k must be"),
        ({"k": 2.5}, "k must be"),
        ({"nprobe": 0}, "nprobe must be"),
        ({"filter": {"colour": "red"}}, "cannot filter by colour"),
        ({"filter": {"label": "no such thing"}}, "no such thing"),
    ],
)
def test_bad_arguments_are_named(engine, outsider, arguments, said):
    with pytest.raises(EngineError, match=said):
        engine.search(outsider[0], **arguments)


@pytest.mark.parametrize("query", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7])
def test_bad_queries_are_named(engine, query):
    with pytest.raises(EngineError, match="quer"):
        engine.search(query)


def test_unreadable_queries_say_so(engine, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        engine.search(tmp_path / "missing.jpg")
    with pytest.raises(ImageError):
        engine.search(b"these bytes are no picture")


class TestPartsThatDoNotMatch:
    @pytest.fixture
    def copy(self, demo_collection, tmp_path):
        return shutil.copytree(demo_collection, tmp_path / "copy")

    def test_an_index_from_elsewhere(self, copy):
        index = copy / "ivfpq.index"
        content = bytearray(index.read_bytes())
        content[-1] ^= 1
        index.write_bytes(content)
        with pytest.raises(EngineError, match=r"ivfpq\.index .*manifest\.json.*create_index"):
            SearchEngine.open(copy)

    def test_a_missing_index(self, copy):
        (copy / "faiss.index").unlink()
        with pytest.raises(EngineError, match=r"faiss\.index is missing"):
            SearchEngine.open(copy)

    def test_vectors_without_an_index(self, copy):
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["indexes"]
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(EngineError, match="no index yet"):
            SearchEngine.open(copy)

    def test_an_encoder_of_another_kind(self, copy):
        engine = SearchEngine.open(copy)

        class Other:
            name, dim, spec = "other", 2048, {**engine.store.manifest["encoder"], "name": "other"}

        with pytest.raises(StoreError, match=r"(?s)efficientnet-lite0.*other|other.*efficientnet-lite0"):
            SearchEngine(engine.store, {}, encoder=Other())

    def test_no_collection_at_all(self, tmp_path):
        with pytest.raises(StoreError, match=str(tmp_path.name)):
            SearchEngine.open(tmp_path)
