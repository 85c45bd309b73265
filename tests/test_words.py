"""Text finds pictures that nobody captioned: scores, engine, building, and the command line."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from meanings import ColourEncoder, WordSentences, paint_colours
from test_extract import FakeEncoder, make_images

from features.collection.store import FeatureStore
from features.concepts import FEEDBACK_WEIGHT, TREE_WEIGHT, Concepts
from features.datasets import ImageFolder
from features.encoders import EncoderError, register_encoder, registry
from features.extract import extract
from gradio_app.create_index import main as create
from search import __main__ as command
from search import spaces, words
from search.build import create_index, create_space, create_spaces, sync_collection
from search.engine import SearchEngine
from search.errors import EngineError, QueryError
from search.query import ImagePart, Query, TextPart


@pytest.fixture(autouse=True)
def quick_words(tmp_path, monkeypatch):
    """The made-up classifier can be made by name, and is asked with the made-up sentence model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    monkeypatch.setattr(registry, "_shared", {})
    sentences = WordSentences()
    monkeypatch.setattr(spaces, "sentence_encoder", lambda: sentences)
    register_encoder("colours", lambda name, **options: ColourEncoder())
    register_encoder("fake", lambda name, **options: FakeEncoder())


@pytest.fixture
def root(tmp_path):
    paint_colours(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def folder(root, tmp_path):
    """A collection as earlier versions made them: without the space."""
    store = extract(ImageFolder(root), ColourEncoder(), tmp_path / "c", progress=False)
    create_index(store, factory="Flat", engines=["ivfpq"])
    return store.folder


def spaces_in(folder):
    return json.loads((folder / "manifest.json").read_text()).get("spaces")


def shown(answer):
    """The folders of the hits."""
    return [hit.path.parent.name for hit in answer]


def by_the_formula(store, text, features=None):
    """Scores of all pictures by a loop over the docstring of features.concepts."""
    encoder, sentences = ColourEncoder(), WordSentences()
    concepts = Concepts(encoder, sentences)
    rows = np.asarray(store.features[store.ids], np.float32)
    classes, mean = concepts.class_vectors, concepts.class_vectors.mean(0)
    asked = sentences.encode([text])[0] - mean
    first = []
    for likely in encoder.classify(rows):
        tempered = np.sqrt(likely) / np.sqrt(likely).sum()
        place = (tempered[:, None] * classes).sum(0) - mean
        first.append(place @ asked / np.linalg.norm(place) / np.linalg.norm(asked))
    first = np.array(first) + TREE_WEIGHT * encoder.classify(rows)[:, concepts.classes_below(text)].sum(1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows @ rows[np.argsort(-first, kind="stable")[:10]].mean(0)
    standard = [(scores - scores.mean()) / scores.std() for scores in (first, alike)]
    return standard[0] + FEEDBACK_WEIGHT * standard[1]


def test_words_find_pictures(folder):
    engine = SearchEngine.open(folder)
    for text, name in (("crimson", "a"), ("a viridian thing", "b"), ("something cerulean", "c")):
        assert shown(engine.search(text, 12)) == [name] * 12
    answer = engine.search("crimson", 3)
    assert [hit.rank for hit in answer] == [1, 2, 3]
    assert answer[0].score > answer[1].score > answer[2].score
    assert engine.search(Query((TextPart(text="crimson"),)), 3) == answer == engine.search(TextPart(text="crimson"), 3)
    assert engine.spaces == ("visual", "concepts")


@pytest.mark.parametrize("text", ["crimson", "dogs", "viridian cerulean"])
def test_scores_are_those_of_the_formula(folder, monkeypatch, text):
    monkeypatch.setattr(ColourEncoder, "classes", ("dalmatian", "viridian thing", "cerulean thing"))
    monkeypatch.setattr(Concepts, "_meanings", lambda self, texts: self._sentences.encode(texts))
    engine = SearchEngine.open(folder)
    found = engine.score_text(text)
    np.testing.assert_allclose(found.scores, by_the_formula(engine.store, text), atol=0.02)  # places kept as float16
    assert (found.tree.max() > 0) == (text == "dogs")
    assert [hit.id for hit in engine.search(text, 5)] == found.ids[found.best(5)].tolist()


def test_a_filter_takes_away_and_changes_no_order(folder):
    engine = SearchEngine.open(folder)
    everything = engine.search("crimson", 36)
    some = engine.search("crimson", 36, filter={"label": ["b", "c"]})
    assert [hit.id for hit in some] == [hit.id for hit in everything if hit.labels[0] != "a"]
    assert [hit.score for hit in some] == [hit.score for hit in everything if hit.labels[0] != "a"]


def test_no_label_and_no_file_name_is_read(tmp_path):
    """The same pictures under other names: what is found is the same, picture by picture."""
    answers = []
    for number, names in enumerate([("a", "b", "c"), ("cerulean", "crimson", "viridian")]):
        root = tmp_path / f"images{number}"
        paint_colours(root, names=names)
        store = extract(ImageFolder(root), ColourEncoder(), tmp_path / f"c{number}", progress=False)
        create_index(store, factory="Flat", engines=["ivfpq"])
        engine = SearchEngine.open(store.folder)
        answers.append([(engine.store.hash_of(hit.id), hit.score) for hit in engine.search("crimson", 36)])
    assert [sha for sha, _ in answers[0]] == [sha for sha, _ in answers[1]]
    np.testing.assert_allclose([score for _, score in answers[0]], [score for _, score in answers[1]], atol=1e-5)


def test_a_large_collection_scores_candidates_as_a_small_one_scores_all(folder, monkeypatch):
    text = "viridian cerulean"
    small = SearchEngine.open(folder).score_text(text)
    monkeypatch.setattr(words, "SCORED_AT_MOST", 10)
    monkeypatch.setattr(words, "CANDIDATES", 20)
    monkeypatch.setattr(words, "SAMPLE", 36)
    engine = SearchEngine.open(folder)
    large = engine.score_text(text)
    assert large.ids.size == 20
    np.testing.assert_allclose(large.scores, small.scores[large.ids], atol=1e-4)
    assert engine.score_text(text, k=30).ids.size == 30
    allowed = np.arange(30, 36)
    among = engine.score_text(text, ids=allowed)
    np.testing.assert_array_equal(among.ids, allowed)
    np.testing.assert_allclose(among.scores, small.scores[allowed], atol=1e-4)


def test_a_string_that_names_no_file_is_a_text(root, folder, monkeypatch):
    engine = SearchEngine.open(folder)
    path = root / "b" / "03.png"
    assert engine.search(str(path), 3) == engine.search(path, 3)
    monkeypatch.chdir(path.parent)
    assert engine.search("03.png", 3) == engine.search(path, 3)
    for text in ("b", "viridian thing", "x\0.png", "viridian " * 1000):
        assert engine.search(text, 3) == engine.search(TextPart(text), 3)
    with pytest.raises(QueryError):
        engine.search("x" * 1_000_000)


@pytest.mark.parametrize("text", ["", " ", "\0", "🙂", "!!!", "\n\t"])
def test_a_text_without_a_word_is_said_to_have_none(folder, text):
    with pytest.raises(QueryError, match=r"there is no word in|nothing to search for"):
        SearchEngine.open(folder).search(text)


def test_a_part_is_scored_row_by_row(folder, root):
    (root / "b" / "00.png").unlink()
    sync_collection(folder, dataset=ImageFolder(root), encoder=ColourEncoder(), progress=False)
    engine = SearchEngine.open(folder)
    engine.score_text("crimson")  # makes the space
    scores = engine.space("concepts").space.kind.score_text(TextPart(text="crimson"), engine)
    found = engine.score_text("crimson")
    assert (scores.dtype, len(scores), found.ids.size) == (np.float32, 36, 35)
    np.testing.assert_array_equal(scores[found.ids], found.scores)
    assert scores[12] == -np.inf


def test_what_may_be_wrong_with_an_answer_is_said(folder):
    engine = SearchEngine.open(folder)
    assert engine.search("crimson").hints == ()
    assert any("knows English alone" in hint for hint in engine.search("שלום עולם").hints)
    assert any("Only the beginning" in hint for hint in engine.search("crimson " * 1000).hints)
    weak = engine.score_text("zzz")
    assert (weak.strength < 0.4) == ("This may be far from what this collection knows." in weak.hints)
    strong = engine.score_text("crimson")
    assert strong.strength > 0.4
    best = np.sort(strong.similarity + strong.tree)[-10:]
    assert strong.strength == pytest.approx(best.mean(), abs=1e-6)


def test_an_encoder_without_classes_has_no_words_and_says_what_would_give_it_some(tmp_path):
    make_images(tmp_path / "images", 12)
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, factory="Flat", engines=["ivfpq"])
    assert create_spaces(store) == ("neighbourhood",) and set(spaces_in(store.folder)) == {"neighbourhood"}
    said = r"encoder fake has no classes.*efficientnet-lite0, resnet50"
    with pytest.raises(EngineError, match=said):
        SearchEngine.open(store.folder).search("red boat")
    with pytest.raises(EngineError, match=said):
        create_spaces(store, ["concepts"])


def test_without_the_sentence_model_pictures_are_searched_all_the_same(folder, root, monkeypatch):
    def missing():
        raise EncoderError("the sentence model is in a package that is not installed: pip install x")

    create_spaces(FeatureStore.open(folder))
    monkeypatch.setattr(spaces, "sentence_encoder", missing)
    engine = SearchEngine.open(folder)
    assert len(engine.search(next(root.rglob("*.png")), 3)) == 3
    with pytest.raises(QueryError, match="pip install x"):
        engine.search("crimson")
    (root / "a" / "00.png").unlink()
    sync_collection(folder, dataset=ImageFolder(root), encoder=ColourEncoder(), progress=False)
    assert set(spaces_in(folder)) == {"neighbourhood"}
    assert len(SearchEngine.open(folder).search(next(root.rglob("*.png")), 3)) == 3


def test_the_space_is_made_once_listed_and_kept_current(folder, root):
    store = FeatureStore.open(folder)
    assert create_spaces(store) == ("neighbourhood", "concepts")
    entry = spaces_in(folder)["concepts"]
    assert {key: entry[key] for key in ("dim", "dtype", "metric", "accepts", "maker", "indexes")} == {
        "dim": 16,
        "dtype": "float16",
        "metric": "cosine",
        "accepts": ["TextPart"],
        "maker": {"sentences": "5" * 64},
        "indexes": {},
    }
    assert create_spaces(FeatureStore.open(folder)) == () and spaces_in(folder)["concepts"] == entry
    FeatureStore.open(folder).verify()
    before = SearchEngine.open(folder)
    assert before.spaces == ("visual", "concepts")
    answer = before.search("crimson", 36)

    gone = answer[0].path
    gone.unlink()
    shutil.copy(root / "c" / "00.png", root / "a" / "new.png")
    with open(root / "a" / "new.png", "ab") as file:  # noqa: PTH123
        file.write(b"\0")
    sync_collection(folder, dataset=ImageFolder(root), encoder=ColourEncoder(), progress=False)
    engine = SearchEngine.open(folder)
    assert gone not in [hit.path for hit in engine.search("crimson", 100)]
    assert root / "a" / "new.png" in [hit.path for hit in engine.search("cerulean", 13)]
    stored, renewed = engine.space("concepts").space, spaces_in(folder)["concepts"]
    assert renewed["generation"] == 1 and not stored.vectors[answer[0].id].any()
    assert not (folder / entry["file"]).exists() and (folder / renewed["file"]).exists()
    assert before.search("crimson", 36) == answer  # who has it open goes on with what it was


def test_a_space_of_another_sentence_model_is_not_compared(folder, monkeypatch):
    create_spaces(FeatureStore.open(folder))
    monkeypatch.setattr(WordSentences, "sha256", "6" * 64)
    with pytest.raises(EngineError, match="made with another sentence model: make it again"):
        SearchEngine.open(folder).search("crimson")


def test_what_cannot_be_asked_by_text_is_said(folder):
    engine = SearchEngine.open(folder)
    with pytest.raises(EngineError, match="the space visual cannot be asked by a TextPart"):
        engine.search(TextPart(text="crimson", space="visual"))
    engine.search("crimson")
    with pytest.raises(EngineError, match="the space concepts cannot be asked by a ImagePart"):
        engine.search(ImagePart(picture=b"", space="concepts"))


def test_create_index_gives_words_unless_told_otherwise(root, tmp_path, capsys):
    made = ["--data", str(root), "--collections", str(tmp_path / "all"), "--encoder", "colours", "--factory", "Flat"]
    folder = tmp_path / "all" / "images"
    assert create(made) == 0
    assert set(spaces_in(folder)) == {"neighbourhood", "concepts"}
    assert create([*made, "--spaces", "visual"]) == 0
    assert spaces_in(folder) == {}
    assert create(made) == 0
    assert spaces_in(folder) == {}, "what was chosen stays"
    assert create([*made, "--sync", "--spaces", "visual,concepts"]) == 0
    assert set(spaces_in(folder)) == {"concepts"}
    assert shown(SearchEngine.open(folder).search("crimson", 12)) == ["a"] * 12
    with pytest.raises(SystemExit):
        create([*made, "--spaces", "taste"])
    assert "there is no space 'taste'; there are visual, neighbourhood, clip, concepts" in capsys.readouterr().err


def test_an_index_is_made_where_not_all_are_scored(folder, monkeypatch):
    monkeypatch.setattr(spaces, "SCORED_AT_MOST", 10)
    monkeypatch.setattr(spaces.ConceptSpace, "factory", lambda self, count: "Flat" if count > 10 else None)
    create_spaces(FeatureStore.open(folder))
    assert set(spaces_in(folder)["concepts"]["indexes"]) == {"ivfpq"}
    assert shown(SearchEngine.open(folder).search("crimson", 12)) == ["a"] * 12
    create_space(FeatureStore.open(folder), "concepts")
    assert spaces_in(folder)["concepts"]["indexes"] == {}


class TestCommand:
    @pytest.fixture
    def ask(self, folder, capsys):
        def ask(*arguments):
            code = command.main([*arguments, "--in", folder.name, "--collections", str(folder.parent)])
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        return ask

    def test_a_line_a_hit(self, ask, root):
        code, out, err = ask("crimson", "-k", "3")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2", "3"]
        assert all(str(root / "a") in line for line in lines)

    def test_a_picture(self, ask, root):
        code, out, _ = ask(str(root / "b" / "00.png"), "-k", "2", "--paths")
        assert code == 0 and all(line.startswith(str(root / "b")) for line in out.splitlines())

    def test_forms(self, ask, root):
        found = json.loads(ask("crimson", "-k", "2", "--json")[1])
        assert (found["query"], [hit["rank"] for hit in found["hits"]], found["hints"]) == ("crimson", [1, 2], [])
        assert found["hits"][0]["labels"] == ["a"]
        assert found["hits"][0]["shares"] == [found["hits"][0]["score"]]
        voice = {"space": "concepts", "way": "concepts", "weight": 1}
        assert found["parts"] == [
            {"part": {"text": "crimson", "weight": 1}, "spaces": ["concepts"], "voices": [voice], "unanswered": ""}
        ]
        table = ask("crimson", "-k", "2", "--csv")[1].splitlines()
        assert table[0] == "query,rank,score,similarity,labels,path" and table[1].startswith("crimson,1,")
        assert ask("crimson", "-k", "2", "--paths")[1].splitlines() == [hit["path"] for hit in found["hits"]]

    def test_a_picture_beside_words(self, ask, root):
        crimson, cerulean = (str(root / name / "00.png") for name in ("a", "b"))
        code, out, err = ask("cerulean", "--image", crimson, "-k", "24", "--json")
        found = json.loads(out)
        assert (code, err) == (0, "")
        assert [each["part"] for each in found["parts"]] == [
            {"text": "cerulean", "weight": 1},
            {"image": {"file": crimson}, "weight": 1},
        ]
        assert all(len(hit["shares"]) == 2 for hit in found["hits"])
        alone = ask("--image", cerulean, "-k", "2", "--paths")
        assert alone == ask(cerulean, "-k", "2", "--paths") and alone[0] == 0
        with pytest.raises(SystemExit, match="2"):
            ask("-k", "2")

    def test_the_best_hit_is_opened(self, ask, monkeypatch):
        opened = []
        monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or len(opened) == 1)
        best = ask("crimson", "-k", "2", "--paths", "--open")
        assert best[2] == "" and opened == [Path(best[1].splitlines()[0]).as_uri()]
        assert ask("crimson", "--open")[2].startswith("there is nothing on this system that would show")
        ask("crimson name:zzz*", "--open")
        assert len(opened) == 2

    def test_queries_from_stdin(self, ask, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("crimson\n\n!!!\ncerulean\n"))
        code, out, err = ask("-", "-k", "1", "--json")
        assert [json.loads(line)["query"] for line in out.splitlines()] == ["crimson", "cerulean"]
        assert (code, err) == (2, "error: there is no word in '!!!' that could be searched for\n")
        monkeypatch.setattr("sys.stdin", io.StringIO("crimson\n"))
        assert ask("-", "-k", "1")[1].splitlines()[0] == "crimson"

    def test_nothing_found_and_nothing_to_search(self, ask, tmp_path, capsys):
        assert ask("crimson name:zzz*") == (1, "", "")
        assert ask("image:/nowhere/x.png")[0] == 2
        assert ask("crimson", "-k", "0") == (2, "", "error: k must be a whole number of at least 1, got 0\n")
        assert command.main(["crimson", "--in", "nothing", "--collections", str(tmp_path)]) == 2
        assert "nothing is not a collection" in capsys.readouterr().err

    def test_only_negatives(self, ask, root):
        for arguments in (["-crimson", "-k", "24"], ["--json", "-crimson"], ["-k2", "-crimson"], ["-like:0", "-k5"]):
            code, out, err = ask(*arguments)
            assert (code, err) == (0, "") and out and str(root / "a") not in out
        assert "error: a weight must be a finite number, got nan" in ask("-crimson^nan")[2]

    def test_a_collection_by_its_folder(self, folder, capsys):
        assert command.main(["crimson", "--in", str(folder), "-k", "1"]) == 0
        assert capsys.readouterr().out.startswith("  1")
