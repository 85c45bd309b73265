"""Texts and tags find pictures by what is said of them, as it is now, beside what the encoder sees."""

import sqlite3

import numpy as np
import pytest
from meanings import ColourEncoder, WordSentences, paint_colours

from features.collection import edits
from features.collection.fulltext import has_words
from features.collection.said import Maker, Words
from features.datasets import ImageFolder
from features.encoders import share_encoder
from features.encoding import extract
from search.annotate import main
from search.build import create_index, create_space, create_spaces, sync_collection
from search.captions import MEANING_WEIGHT, WORDS_WEIGHT, texts_of
from search.engine import SearchEngine
from search.errors import QueryError
from search.query import Query, TagPart, TextPart
from search.reasons import explain_parts


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Twelve pictures, four of each colour, that say nothing yet."""
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    paint_colours(tmp_path / "images", count=4)
    encoder = ColourEncoder()
    share_encoder(encoder)
    store = extract(ImageFolder(tmp_path / "images"), encoder, tmp_path / "collections/c", progress=False)
    create_index(store, factory="Flat")
    create_spaces(store)
    return SearchEngine.open(store.folder)


def say(engine, words):
    annotations, records = engine.store.annotations, engine.store.records(list(words))
    annotations.put(Maker("file", "t"), "1", [(record, words[record.id]) for record in records])


def test_a_collection_of_which_nothing_is_said_has_no_captions(engine):
    assert "captions" not in engine.spaces
    with pytest.raises(QueryError, match="c cannot be asked by a tag: its spaces are visual, concepts"):
        engine.search("tag:sea^1")
    assert not engine.store.has_annotations


def test_words_of_a_caption_find_its_picture_at_once(engine):
    before = engine.search("lighthouse", 12)
    edits.add_caption(engine.store.annotations, [7], "A lighthouse in fog")
    assert "captions" in engine.spaces
    answer = engine.search("lighthouse", 12)
    assert answer.ids[0] == 7
    assert len(answer) == len(before) == 12, "the others are ranked, too"
    edits.undo(engine.store.annotations)
    assert engine.search("lighthouse", 12).ids == before.ids


def test_the_score_is_that_of_a_loop(engine):
    say(
        engine,
        {0: Words({"red boat": None}, {"sea": None}), 5: Words({"boat": None}), 9: Words({}, {"boat trip": None})},
    )
    sentences, scorer = WordSentences(), engine.text_scorer("captions")
    asked = sentences.encode(["boat"])[0]
    means = {0: ["red boat", "sea"], 5: ["boat"], 9: ["boat trip"]}
    cosines = {}
    for id, texts in means.items():
        mean = sentences.encode(texts).mean(axis=0)
        cosines[id] = float(mean @ asked / np.linalg.norm(mean))
    found = scorer.meaning("boat")
    assert {id: found[id] for id in cosines} == pytest.approx(cosines, abs=1e-3)
    assert np.isneginf(np.delete(found, list(cosines))).all()
    mean, deviation = np.mean(list(cosines.values())), np.std(list(cosines.values()))
    ids, ranks = engine.store.annotations.search("boat")
    wanted = np.zeros(12)
    for id, cosine in cosines.items():
        wanted[id] = MEANING_WEIGHT * (cosine - mean) / deviation
    wanted[ids] += WORDS_WEIGHT * ranks / ranks[0]
    voices = scorer.voices("boat", "words")
    assert voices["meaning"] + voices["words"] == pytest.approx(wanted, abs=2e-2)
    alone = engine.search(Query([TextPart("boat", space="captions")]), 3)
    assert alone.ids == tuple(np.argsort(-wanted, kind="stable")[:3].tolist())


def test_labels_are_not_read_beside_captions_either(engine):
    """With captions and tags, too, labels are words of a picture only where a maker has said them."""
    say(engine, {0: Words({"a crimson boat": None}), 5: Words({}, {"viridian": 0.8}), 9: Words({"b c": None})})
    asked = ["crimson", "a b c", "viridian boat", "tag:viridian^2"]
    before = [[(hit.id, hit.score) for hit in engine.search(text, 12)] for text in asked]
    with sqlite3.connect(engine.store.catalog.path) as catalog:
        catalog.execute("UPDATE labels SET label = 'crimson b ' || (image_id * 7 % 12)")
    opened = SearchEngine.open(engine.folder)
    assert "a" not in opened.store.labels()
    assert [[(hit.id, hit.score) for hit in opened.search(text, 12)] for text in asked] == before


def test_a_collection_of_an_earlier_version_is_asked_for_what_the_encoder_sees_as_well(engine):
    engine.store.update_manifest(spaces={})
    edits.add_caption(engine.store.annotations, [7], "lighthouse")
    create_space(engine.store, "captions")
    opened = SearchEngine.open(engine.folder)
    assert "concepts" not in opened.store.manifest["spaces"]
    answer = opened.search("crimson thing", 4)
    assert [part.space for part in answer.parts] == ["concepts"]
    assert set(answer.ids) == {0, 1, 2, 3}, "the red ones"
    assert opened.score_text("crimson thing").tree.size == 12


def test_phrases_and_beginnings_are_looked_for_in_captions(engine):
    say(engine, {3: Words({"a boat red as rust": None}), 8: Words({"a red boat": None})})
    for typed in ('"red boat"', '"red bo"*'):
        assert engine.search(Query([TextPart(typed.strip('"*'), "prefix" if "*" in typed else "phrase")])).ids[0] == 8


def test_a_tag_is_scored_and_leaves_nobody_out(engine):
    say(engine, {4: Words({}, {"Sea": 0.5}), 6: Words({}, {"sea": None})})
    answer = engine.search("tag:sea^2", 12)
    assert answer.ids[:2] == (6, 4)
    assert len(answer) == 12
    assert [part.space for part in answer.parts] == ["captions"]
    assert engine.search("-tag:sea^1", 12).ids[-2:] == (4, 6)
    assert engine.search("tag:sea", 12).ids == (4, 6), "without a weight it is a filter"
    both = engine.search(Query([TextPart("crimson thing"), TagPart("sea", weight=3)]), 12)
    assert both.ids[0] == 6
    assert both[0].shares[1] > 0
    with pytest.raises(QueryError, match="there is no learned tag 'sunset'"):
        engine.search("tag:~sunset")


def test_the_command_makes_the_space_and_what_is_said_later_is_read_beside_it(engine, capsys):
    assert main([str(engine.folder), "--maker", "label", "--quiet"]) == 0
    assert "labels: words of 12 of 12 pictures" in capsys.readouterr().out
    opened = SearchEngine.open(engine.folder)
    entry = opened.store.manifest["spaces"]["captions"]
    assert (entry["dim"], entry["maker"]["changes"]) == (16, opened.store.annotations.changes)
    stored = opened.space("captions").space.vectors
    assert stored[0] == pytest.approx(WordSentences().encode(["a"])[0], abs=1e-3)
    edits.add_caption(opened.store.annotations, [2], "lighthouse")
    assert opened.search("lighthouse").ids[0] == 2
    with_new = opened.text_scorer("captions").meaning("lighthouse")
    assert np.argmax(with_new) == 2


def test_a_sync_keeps_words_right_and_makes_the_space_again(engine, tmp_path):
    say(engine, {0: Words({"lighthouse": None}), 5: Words({"windmill": None})})
    create_space(engine.store, "captions")
    paths = sorted((tmp_path / "images").rglob("*.png"))
    paths[5].write_bytes(paths[11].read_bytes())  # other content: what a machine said of it is gone
    (tmp_path / "images/a/new.png").write_bytes(paths[0].read_bytes()[:-4] + b"\0\0\0\0")
    paths[1].unlink()
    sync_collection(engine.folder, encoder=ColourEncoder(), progress=False)
    opened = SearchEngine.open(engine.folder)
    assert opened.store.generation == 1
    assert opened.search("lighthouse").ids[0] == 0
    vectors = opened.space("captions").space.vectors
    assert vectors.any(axis=1).nonzero()[0].tolist() == [0]
    assert len(vectors) == len(opened.store.features)


def test_texts_of_a_picture_are_its_captions_and_its_tags_as_one(engine):
    say(engine, {1: Words({"b": None, "a": None}, {"water_lilly": 0.4, "sea": 0.9})})
    edits.add_caption(engine.store.annotations, [1], "mine")
    assert texts_of(engine.store.annotations.of([1])[1]) == ("mine", "a", "b", "sea, water lilly")


def test_each_voice_of_a_text_is_told_and_together_they_are_the_share(engine):
    say(engine, {5: Words({"a crimson boat": None, "nothing": None}, {"Crimson_Thing": 0.5}), 9: Words({"boat": None})})
    answer = engine.search(Query([TextPart("crimson boat", weight=2), TextPart("viridian", weight=-1)]), 12)
    of = {}
    for hit in answer:
        crimson, viridian = explain_parts(engine, answer, hit)
        for weight, reason in ((2 / 3, crimson), (-1 / 3, viridian)):
            assert reason.share == pytest.approx(weight * sum(voice.added for voice in reason.voices), abs=1e-4)
        of[hit.id] = crimson
    assert [(voice.space, voice.way) for voice in of[5].voices] == [
        ("concepts", "concepts"),
        ("captions", "meaning"),
        ("captions", "words"),
    ]
    asked = answer.parts[0]
    assert (asked.space, asked.spaces) == ("concepts", ("concepts", "captions"))
    assert [each.weight for each in asked.voices] == [1, MEANING_WEIGHT, WORDS_WEIGHT]
    assert [each[:3] for each in asked.voices] == [each[:3] for each in of[5].voices]
    seen, _, words = of[5].voices
    assert words.added > of[9].voices[2].added > 0 > of[7].voices[2].added
    assert of[0].voices[0].added > seen.added, "the first is red, and the sixth is green"
    nearest = WordSentences().encode(["crimson boat", "a crimson boat", "crimson thing", "nothing"])
    likeness = (nearest[1:] @ nearest[0]).tolist()
    assert [each[:3] for each in of[5].said] == [
        ("a crimson boat", "caption", True),
        ("Crimson_Thing", "tag", False),  # one word, as it is written
        ("nothing", "caption", False),
    ]
    assert [each.likeness for each in of[5].said] == pytest.approx(likeness, abs=1e-5)
    assert of[7].said == () and of[7].text is not None


def test_a_voice_alone_is_the_whole_share(engine):
    (hit, *_), answer = engine.search("crimson", 3), engine.search("crimson^2", 3)
    (reason,) = explain_parts(engine, answer, answer[0])
    assert [voice.space for voice in reason.voices] == ["concepts"] and reason.said == ()
    assert answer.parts[0].spaces == ("concepts",) and answer.parts[0].voices == (("concepts", "concepts", 1),)
    assert reason.share == pytest.approx(reason.voices[0].added, abs=1e-4) and hit.id == answer[0].id
    say(engine, {4: Words({"windmill": None})})
    answer = engine.search(Query([TextPart("windmill", space="captions")]), 3)
    (reason,) = explain_parts(engine, answer, answer[0])
    assert [voice.way for voice in reason.voices] == ["meaning", "words"] and reason.text is None
    assert answer.parts[0].spaces == ("captions",)
    assert reason.said[0][:3] == ("windmill", "caption", True)


@pytest.fixture
def large(engine, monkeypatch):
    """A collection that counts as a large one from four pictures on."""
    monkeypatch.setattr("search.spaces.SCORED_AT_MOST", 4)
    monkeypatch.setattr("search.spaces.TEXT_FACTORY", "Flat")
    words = {id: Words({f"{word} boat": None}) for id, word in enumerate(["red", "old", "small", "far", "fast", "new"])}
    say(engine, words)
    create_space(engine.store, "captions", engines=None)
    return SearchEngine.open(engine.folder)


def test_of_a_large_collection_the_nearest_alone_are_compared(large, monkeypatch):
    entry = large.store.manifest["spaces"]["captions"]
    assert set(entry["indexes"]) == {"ivfpq"}
    assert large.space("captions").space.ids.tolist() == list(range(6)), "of which something is said"
    assert large.space("captions").index("ivfpq").ntotal == 6
    whole = large.text_scorer("captions").meaning("red boat")
    monkeypatch.setattr("search.captions.CANDIDATES", 2)
    some = large.text_scorer("captions").meaning("red boat")
    best = np.argsort(-whole)[:2]
    assert np.flatnonzero(np.isfinite(some)).tolist() == sorted(best.tolist()) and best[0] == 0
    np.testing.assert_allclose(some[best], whole[best], atol=1e-6)
    usual = large.text_scorer("captions").voices("red boat", "phrase")["meaning"]
    said = whole[:6]
    np.testing.assert_allclose(usual[best], MEANING_WEIGHT * (said[best] - said.mean()) / said.std(), rtol=1e-2)
    assert not np.delete(usual, best).any(), "neither nearer nor farther than the usual picture"


def test_new_words_of_a_large_collection_are_compared_too(large, monkeypatch):
    monkeypatch.setattr("search.captions.CANDIDATES", 2)
    edits.add_caption(large.store.annotations, [9], "lighthouse")
    edits.remove_caption(large.store.annotations, [0], "red boat")
    found = large.text_scorer("captions").meaning("lighthouse")
    assert np.argmax(found) == 9 and np.isneginf(found[0])
    assert large.search("lighthouse").ids[0] == 9


def test_the_commands_keep_the_index_of_captions(large, tmp_path, capsys):
    assert main([str(large.folder), "--maker", "label", "--quiet"]) == 0
    opened = SearchEngine.open(large.folder)
    assert opened.space("captions").index("ivfpq").ntotal == 12
    (tmp_path / "images/a/new.png").write_bytes(next((tmp_path / "images/a").glob("0*.png")).read_bytes() + b"\0")
    sync_collection(large.folder, encoder=ColourEncoder(), progress=False)
    opened = SearchEngine.open(large.folder)
    assert opened.store.ids.size == 13
    assert opened.space("captions").index("ivfpq").ids.tolist() == list(range(12)), "of the new one nothing is said"
    opened.store.verify()
    assert main([str(large.folder), "--maker", "label", "--forget"]) == 0
    opened = SearchEngine.open(large.folder)
    assert opened.space("captions").index("ivfpq").ntotal == 6


def test_a_collection_of_which_nothing_is_said_any_more_has_no_index(large):
    large.store.annotations.forget(Maker("file", "t"))
    create_space(large.store, "captions", engines=None)
    opened = SearchEngine.open(large.folder)
    assert opened.store.manifest["spaces"]["captions"]["indexes"] == {}
    assert np.isneginf(opened.text_scorer("captions").meaning("red boat")).all()
    assert set(opened.search("crimson thing", 4).ids) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("said", "text", "match", "has"),
    [
        ("Ein Müller am Fluß", "muller", "words", True),
        ("a red boat", "RED, sea", "words", True),
        ("a reddish boat", "red", "words", False),
        ("a red boat", "red boat", "phrase", True),
        ("a red old boat", "red boat", "phrase", False),
        ("a red boat", "a red bo", "prefix", True),
        ("a red boat", "red bo at", "prefix", False),
        ("a red boat", "bo", "prefix", True),
        ("a red boat", "", "prefix", False),
        ("", "red boat sea", "phrase", False),
        ("red", '\0 \ud800 "', "words", False),
    ],
)
def test_has_words_is_what_full_text_would_find(said, text, match, has):
    assert has_words(said, text, match) is has
