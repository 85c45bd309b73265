"""Pictures and texts in one space, by a tiny random model: asked, mixed, added later, kept current, gone on with."""

import shutil

import numpy as np
import pytest
import tiny_models
from meanings import ColourEncoder, WordSentences, paint_colours
from PIL import Image

from features.collection import edits
from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoders import create_encoder, share_encoder
from features.encoders.clip import Clip
from features.encoding import extract
from features.images import decode_image
from gradio_app.create_index import parse_arguments
from search import clip_space
from search.build import create_index, create_spaces, keep_spaces, sync_collection
from search.clip_space import ClipSpace
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.parts import learn_tag
from search.query import FeedbackPart, ImagePart, Query, TagPart, TextPart

SPACES = ("visual", "concepts", "clip")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.save_clip(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(model):
    return create_encoder("clip", weights=model)


@pytest.fixture(autouse=True)
def shared(encoder, monkeypatch):
    """One model for all tests, and sentences that are quick."""
    share_encoder(ColourEncoder())
    share_encoder(encoder)
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    monkeypatch.setattr(clip_space, "create_encoder", lambda name, weights: encoder)


@pytest.fixture
def root(tmp_path):
    paint_colours(tmp_path / "images", count=4)
    return tmp_path / "images"


@pytest.fixture
def plain(root, tmp_path):
    """A collection of twelve pictures without the space."""
    store = extract(ImageFolder(root), ColourEncoder(), tmp_path / "collections/c", progress=False)
    create_index(store, factory="Flat")
    create_spaces(store, ("visual", "concepts"))
    return store


@pytest.fixture
def store(plain, model):
    assert create_spaces(plain, SPACES, models={"clip": str(model)}) == ("clip",)
    return FeatureStore.open(plain.folder)


@pytest.fixture
def encoded(encoder, monkeypatch):
    """How many pictures the model has been shown."""
    shown = []
    encode = Clip.encode_prepared

    def count(self, prepared):
        shown.extend(prepared)
        return encode(self, prepared)

    monkeypatch.setattr(Clip, "encode_prepared", count)
    return shown


def vectors_of(store, encoder):
    return encoder.encode([decode_image(store.items[id].path) for id in store.ids.tolist()])


def clip_rows(store):
    entry = store.manifest["spaces"]["clip"]
    return np.load(store.folder / entry["file"])


def sync(store, root):
    return sync_collection(store.folder, dataset=ImageFolder(root), encoder=ColourEncoder(), progress=False)


def test_it_is_added_to_a_collection_that_stands_and_nothing_else_is_made_again(plain, model, encoder):
    before = plain.manifest
    create_spaces(plain, SPACES, models={"clip": str(model)})
    after = FeatureStore.open(plain.folder).manifest
    assert {**after, "spaces": None} == {**before, "spaces": None}
    assert after["spaces"]["concepts"] == before["spaces"]["concepts"]
    entry = after["spaces"]["clip"]
    assert (entry["dim"], entry["dtype"], entry["metric"]) == (24, "float16", "cosine")
    assert entry["accepts"] == ["ImagePart", "TextPart"]
    assert entry["maker"]["weights"]["argument"] == str(model)
    assert entry["maker"]["weights"]["sha256"] == encoder.spec["weights"]["sha256"]
    np.testing.assert_allclose(clip_rows(plain), vectors_of(plain, encoder), atol=2e-3)
    assert not (plain.folder / clip_space.STAGE).exists()


def test_a_text_asks_it_rather_than_concepts_and_in_the_order_of_the_cosines(store, encoder):
    engine = SearchEngine.open(store.folder)
    answer = engine.search("a red boat", 12)
    assert [part.space for part in answer.parts] == ["clip"]
    cosines = vectors_of(store, encoder) @ encoder.encode_text(["a red boat"])[0]
    found = engine.score_text("a red boat")
    np.testing.assert_allclose(found.scores, cosines, atol=5e-3)
    assert answer.ids == tuple(np.argsort(-found.scores, kind="stable").tolist())
    seen = engine.search(Query([TextPart("crimson thing", space="concepts")]), 4)
    assert set(seen.ids) == {0, 1, 2, 3}, "the red ones"


def test_what_is_said_of_pictures_counts_beside_it(store):
    edits.add_caption(store.annotations, [9], "a lighthouse")
    assert SearchEngine.open(store.folder).search("lighthouse").ids[0] == 9


def test_learned_tags_are_of_the_space_of_all_collections(store):
    engine = SearchEngine.open(store.folder)
    judged = FeedbackPart((1,), (7,), space="clip")
    assert 7 not in engine.search(Query([judged]), 12).ids
    with pytest.raises(QueryError, match="tags are learnt in the space visual, and this is clip"):
        learn_tag(engine, "boat", Query([judged]))
    learn_tag(engine, "boat", Query([FeedbackPart((1,), (7,))]))
    with pytest.raises(QueryError, match="the space clip cannot be asked by a TagPart"):
        engine.search(Query([TagPart("boat", learned=True, space="clip")]))


@pytest.mark.parametrize("engine_name", ["ivfpq", "faiss", "exact"])
def test_a_picture_asks_it_alone_and_in_a_mix(store, root, encoder, engine_name):
    engine = SearchEngine.open(store.folder)
    picture = Image.new("RGB", (40, 30), (200, 30, 60))
    picture.save(root.parent / "query.png")
    alone = engine.search(Query([ImagePart(root.parent / "query.png", space="clip")]), 12, engine=engine_name)
    cosines = vectors_of(store, encoder) @ encoder.encode([np.asarray(picture)])[0]
    assert [hit.similarity for hit in alone] == pytest.approx(np.sort(cosines)[::-1].tolist(), abs=5e-3)
    parts = [ImagePart(7), ImagePart(7, space="clip", weight=0.5), TextPart("a red boat", weight=-1)]
    mixed = engine.search(Query(parts), 5, engine=engine_name)
    assert [part.space for part in mixed.parts] == ["visual", "clip", "clip"]
    assert 7 not in mixed.ids
    assert all(len(hit.shares) == 3 for hit in mixed)


def test_a_sync_encodes_only_what_has_changed(store, root, encoder, encoded):
    (root / "a" / "00.png").unlink()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(root / "b" / "01.png")
    Image.new("RGB", (9, 9), (90, 200, 3)).save(root / "c" / "new.png")
    (root / "c" / "02.png").rename(root / "c" / "renamed.png")
    sync(store, root)
    assert len(encoded) == 2
    now = FeatureStore.open(store.folder)
    assert now.ids.size == 12
    np.testing.assert_allclose(clip_rows(now)[now.ids], vectors_of(now, encoder), atol=2e-3)
    assert not clip_rows(now)[0].any()
    assert SearchEngine.open(store.folder).search("a red boat").parts[0].space == "clip"


def test_a_run_that_is_stopped_goes_on(plain, model, encoded, monkeypatch):
    monkeypatch.setattr(clip_space, "_BATCH", 4)
    encode = clip_space.encode_items

    def stopped(items, *given, **named):
        for number, batch in enumerate(encode(items, *given, **named)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(clip_space, "encode_items", stopped)
    with pytest.raises(KeyboardInterrupt):
        create_spaces(plain, SPACES, models={"clip": str(model)})
    assert "clip" not in FeatureStore.open(plain.folder).manifest["spaces"]
    monkeypatch.setattr(clip_space, "encode_items", encode)
    encoded.clear()
    create_spaces(plain, SPACES, models={"clip": str(model)})
    assert len(encoded) == 4
    assert clip_rows(plain).any(axis=1).all()


def test_a_picture_that_cannot_be_read_any_more_is_found_last(plain, root, model, caplog):
    (root / "a" / "02.png").write_bytes(b"no picture")
    create_spaces(plain, SPACES, models={"clip": str(model)})
    assert "a/02.png has no place in the space clip" in caplog.text
    engine = SearchEngine.open(plain.folder)
    kind = engine.space("clip").space.kind
    assert np.flatnonzero(np.isneginf(kind.score_text(TextPart("a red boat"), engine))).tolist() == [2]
    assert engine.search(Query([TextPart("a red boat")]), 12)[-1].id in range(12)


def test_another_model_makes_it_again_and_the_same_one_does_not(store, model, encoder, tmp_path, encoded, monkeypatch):
    assert create_spaces(store, SPACES, models={"clip": str(model)}) == ()
    assert create_spaces(store, SPACES) == ()
    assert encoded == []
    other = create_encoder("clip", weights=tiny_models.save_siglip(tmp_path / "other"))
    monkeypatch.setattr(clip_space, "create_encoder", lambda name, weights: other)
    assert create_spaces(store, SPACES, models={"clip": str(tmp_path / "other")}) == ("clip",)
    assert len(encoded) == 12
    assert FeatureStore.open(store.folder).manifest["spaces"]["clip"]["dim"] == 32
    with pytest.raises(EngineError, match="the space concepts is not made with a model"):
        create_spaces(store, SPACES, models={"concepts": str(model)})


def test_where_the_model_is_away_concepts_answer_and_it_says_so_itself(store):
    entry = store.manifest["spaces"]["clip"]
    weights = {**entry["maker"]["weights"], "argument": "some/clip@" + "a" * 40}
    store.update_manifest(
        spaces={**store.manifest["spaces"], "clip": {**entry, "maker": {**entry["maker"], "weights": weights}}}
    )
    engine = SearchEngine.open(store.folder)
    assert engine.search("crimson thing", 4).parts[0].space == "concepts"
    assert engine.score_text("crimson thing").tree.size == 12
    with pytest.raises(QueryError, match=r"made by some/clip, which is not on this machine: hf download some/clip"):
        engine.search(Query([TextPart("boat", space="clip")]))
    mixed = engine.search(Query([TextPart("crimson thing"), ImagePart(3, space="clip")]), 3)
    assert len(mixed) == 3, "stored vectors need no model"


def test_a_sync_without_the_model_changes_nothing_and_says_how_to_do_without(store, root, tmp_path, monkeypatch):
    entry = store.manifest["spaces"]["clip"]
    weights = {**entry["maker"]["weights"], "argument": str(tmp_path / "gone")}
    store.update_manifest(
        spaces={**store.manifest["spaces"], "clip": {**entry, "maker": {**entry["maker"], "weights": weights}}}
    )
    Image.new("RGB", (9, 9), (90, 200, 3)).save(root / "c" / "new.png")
    before = FeatureStore.open(store.folder).manifest
    with pytest.raises(EngineError, match=r"To do without the space clip: create_index\.py --spaces visual,concepts"):
        sync(store, root)
    assert FeatureStore.open(store.folder).manifest == before
    keep_spaces(store.folder, ("visual", "concepts"))
    sync(store, root)
    now = FeatureStore.open(store.folder)
    assert list(now.manifest["spaces"]) == ["concepts"]
    assert now.ids.size == 13


def test_of_a_text_that_is_too_long_it_says_what_it_does_not_read(store):
    answer = SearchEngine.open(store.folder).search(TextPart("a red boat " * 10), 3)
    (hint,) = answer.parts[0].hints
    assert hint.startswith("the text is longer than the model reads; not looked at: boat a red boat")
    assert hint.endswith("…")
    short = SearchEngine.open(store.folder).search(TextPart("a boat"), 3)
    assert short.parts[0].hints == ()


def test_a_large_collection_scores_candidates_of_its_own_index(plain, model, monkeypatch):
    monkeypatch.setattr(clip_space, "SCORED_AT_MOST", 10)
    monkeypatch.setattr(clip_space, "CANDIDATES", 5)
    assert ClipSpace().factory(11) == "IVF100,PQ64"
    monkeypatch.setattr(ClipSpace, "factory", lambda self, count: "Flat")
    create_spaces(plain, SPACES, models={"clip": str(model)})
    engine = SearchEngine.open(plain.folder)
    assert list(engine.store.manifest["spaces"]["clip"]["indexes"]) == ["ivfpq"]
    found = engine.score_text("a red boat")
    assert found.ids.size == 5
    monkeypatch.setattr(clip_space, "SCORED_AT_MOST", 20)
    everything = SearchEngine.open(plain.folder).score_text("a red boat")
    assert set(found.ids) == set(everything.ids[everything.best(5)].tolist())
    some = np.arange(6)
    np.testing.assert_array_equal(engine.score_text("a red boat", ids=some).ids, some)


def test_it_is_known_which_model_made_it(store, model, tmp_path):
    shutil.copytree(model, tmp_path / "moved")
    assert ClipSpace(str(tmp_path / "moved")).is_made_so(store.manifest["spaces"]["clip"]["maker"]) is False
    assert ClipSpace(str(model)).is_made_so(store.manifest["spaces"]["clip"]["maker"])
    hub = {"weights": {"argument": f"google/x@{'a' * 40}"}}
    assert ClipSpace("google/x").is_made_so(hub)
    assert ClipSpace(f"google/x@{'a' * 40}").is_made_so(hub)
    assert not ClipSpace("google/y").is_made_so(hub)


def test_the_command_line_names_the_model_only_with_its_space(capsys):
    asked = parse_arguments(["--data", "demo", "--spaces", "visual,clip", "--clip", "google/x"])
    assert (asked.spaces, asked.clip) == (("visual", "clip"), "google/x")
    with pytest.raises(SystemExit):
        parse_arguments(["--data", "demo", "--clip", "google/x"])
    assert "add that to --spaces visual,...,clip" in capsys.readouterr().err
