"""Words of pictures: makers replace their own, people are never overwritten, and every edit is taken back whole."""

import json
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from test_annotations import paint
from test_store import write

from features.collection import edits
from features.collection.annotations import Annotations
from features.collection.annotations_schema import MIGRATIONS
from features.collection.errors import StoreError
from features.collection.said import Caption, FieldValue, Maker, Said, Tag, Words, field_name
from features.store import FeatureStore

MODEL, FILE = Maker("model", "classes"), Maker("file", "captions.csv")


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return write(paint(tmp_path / "images", a="A", b="B", red_boat="C", x="X", y="Y"), tmp_path / "c")


@pytest.fixture
def annotations(store) -> Annotations:
    return Annotations.open(store)


def put(annotations, store, maker, words, version="1", **options):
    records = store.records(list(words))
    annotations.put(maker, version, [(record, words[record.id]) for record in records], **options)


def found(annotations, text, **options):
    return annotations.search(text, **options)[0].tolist()


def test_a_maker_replaces_its_own_words_and_nobody_elses(annotations, store):
    edits.add_tag(annotations, [0], "sea")
    put(annotations, store, FILE, {0: Words({"a boat": None}, {"Sea": None}, {"rating": 4})})
    put(annotations, store, MODEL, {0: Words({}, {"sea": 0.9, "wave": 0.5}), 1: Words({}, {"cat": 0.8})})
    put(annotations, store, MODEL, {0: Words({}, {"beach": 0.7})})
    assert annotations.of([0, 1, 2]) == {
        0: Said(
            (Caption("a boat", None, FILE),),
            (Tag("sea"), Tag("beach", 0.7, MODEL), Tag("Sea", None, FILE)),
            (FieldValue("rating", 4, FILE),),
        ),
        1: Said((), (Tag("cat", 0.8, MODEL),)),
    }
    assert [(each.maker, each.pictures) for each in annotations.makers()] == [
        (FILE, 1),
        (MODEL, 2),
        (Maker("person"), 1),
    ]
    assert annotations.tag_counts() == {"Sea": 1, "beach": 1, "cat": 1}
    assert annotations.tagged("SEA") == {0: 1.0}
    assert annotations.forget(FILE) == 1
    assert annotations.of([0])[0].captions == ()
    assert annotations.of([0])[0].tags == (Tag("sea"), Tag("beach", 0.7, MODEL))


def test_what_a_person_says_is_never_overwritten_and_what_he_crosses_out_is_not_said_again(annotations, store):
    edits.set_field(annotations, [0], "Rating", 5)
    put(annotations, store, MODEL, {0: Words({"a cat": 0.9}, {"cat": 0.9, "pet": 0.4}, {"rating": 1, "mood": "calm"})})
    edits.remove_tag(annotations, [0], "Cat")
    edits.change_caption(annotations, [0], "a cat", "my cat Tom")
    put(annotations, store, MODEL, {0: Words({"a cat": 0.9}, {"cat": 0.9}, {"rating": 2})}, version="2")
    said = annotations.of([0])[0]
    assert said.captions == (Caption("my cat Tom"),)
    assert said.tags == ()
    assert said.fields == (FieldValue("rating", 5),)
    edits.add_tag(annotations, [0], "cat")  # a person may change his mind
    put(annotations, store, MODEL, {0: Words({}, {"cat": 0.9})}, version="3")
    assert annotations.of([0])[0].tags == (Tag("cat"), Tag("cat", 0.9, MODEL))
    with pytest.raises(ValueError, match="what people say is edited, not made"):
        annotations.put(Maker("person"), "1", [])
    with pytest.raises(ValueError, match="not forgotten"):
        annotations.forget(Maker("person"))


def test_every_edit_is_taken_back_in_turn(annotations, store):
    put(annotations, store, MODEL, {0: Words({"a dog": 0.9}, {"dog": 0.9}, {"rating": 1})})
    states, told = [annotations.of([0, 1, 2])], []
    for edit, arguments, what in [
        (edits.add_tag, ([0, 1], "pet"), "tagged pet (2 pictures)"),
        (edits.remove_tag, ([0], "dog"), "tag dog removed"),
        (edits.add_caption, ([2], "a red boat"), "caption added"),
        (edits.change_caption, ([0], "a dog", "Rex"), "caption changed"),
        (edits.remove_caption, ([2], "a red boat"), "caption removed"),
        (edits.set_field, ([0, 2], "rating", 4.5), "rating set to 4.5 (2 pictures)"),
        (edits.set_field, ([0], "rating", None), "rating emptied"),
        (edits.set_favourite, ([1], True), "made a favourite"),
        (edits.set_favourite, ([1], False), "no longer a favourite"),
    ]:
        edit(annotations, *arguments)
        states.append(annotations.of([0, 1, 2]))
        told.append(what)
    edits.set_favourite(annotations, [1], False)  # nothing changed is no edit
    assert [edit.what for edit in edits.edits(annotations)] == told[::-1]
    for state in states[-2::-1]:
        assert edits.undo(annotations) == told.pop()
        assert annotations.of([0, 1, 2]) == state
    assert edits.undo(annotations) is None
    assert found(annotations, "dog") == [0]


def test_undoing_leaves_what_makers_have_said_since(annotations, store):
    put(annotations, store, MODEL, {0: Words({}, {"dog": 0.9})})
    edits.add_tag(annotations, [0], "pet")
    put(annotations, store, MODEL, {0: Words({}, {"wolf": 0.6})})
    edits.undo(annotations)
    assert annotations.of([0])[0].tags == (Tag("wolf", 0.6, MODEL),)


@pytest.mark.parametrize(
    ("edit", "arguments", "said"),
    [
        (edits.add_tag, ([0], " \0 "), "a tag has at least one character"),
        (edits.add_caption, ([0], "\n"), "a caption has at least one character"),
        (edits.set_field, ([0], "...", 1), "the name of a field has at least one character"),
        (edits.add_tag, ([0, 7], "x"), "no image with id 7 in"),
    ],
)
def test_what_cannot_be_said_is_a_sentence_and_nothing_is_changed(annotations, edit, arguments, said):
    with pytest.raises(StoreError, match=said):
        edit(annotations, *arguments)
    assert annotations.of([0]) == {}
    assert edits.edits(annotations) == []


def test_all_words_are_found_in_full_text(annotations, store):
    put(
        annotations, store, FILE, {1: Words({"Ein Müller am Meer": None}, {"outdoor": None}, {"place": "Kiel", "n": 7})}
    )
    edits.add_caption(annotations, [0], 'ספינה אדומה 😀 it\'s "quoted" * OR NOT )')
    edits.add_tag(annotations, [2], "harbour")
    assert found(annotations, "muller") == [1]
    assert found(annotations, "OUTDOOR") == found(annotations, "kiel") == [1]
    assert found(annotations, "ספינה") == [0]
    assert found(annotations, "boat") == [2], "the name of the file"
    assert found(annotations, "meer am", match="phrase") == []
    assert found(annotations, "am meer", match="phrase") == [1]
    assert found(annotations, "am me", match="prefix") == [1]
    assert set(found(annotations, "harbour meer")) == {1, 2}
    assert found(annotations, 'AND ( " * NEAR(') == [], "no word is an operator"
    assert found(annotations, "OR") == [0]
    assert found(annotations, "😀 ' \0") == []
    assert found(annotations, "harbour meer", limit=1) == found(annotations, "harbour meer")[:1]
    ids, scores = annotations.search("harbour meer")
    assert (ids.dtype, scores.dtype) == ("int64", "float32")
    assert (scores > 0).all()
    edits.undo(annotations)
    assert found(annotations, "harbour") == []


def test_the_rarer_word_counts_more(annotations, store):
    words = {id: Words({text: None}) for id, text in enumerate(["a boat at sea", "a ship at sea", "a cat"])}
    put(annotations, store, FILE, words)
    assert found(annotations, "sea ship")[0] == 1


def test_fields_have_kinds_and_one_of_two_kinds_is_a_text(annotations, store):
    moment = datetime(2011, 2, 3, 4, 5, 6, tzinfo=UTC)
    put(annotations, store, FILE, {0: Words(fields={"Year": 2010, "taken on": date(2010, 5, 17), "note": " x\0y "})})
    put(
        annotations,
        store,
        MODEL,
        {1: Words(fields={"year": 2011.5, "taken_on": moment, "note": "", "n": float("nan")})},
    )
    assert annotations.fields() == {"note": "text", "taken_on": "date", "year": "number"}
    assert [(each.name, each.value) for each in annotations.of([0])[0].fields] == [
        ("note", "x y"),
        ("taken_on", datetime(2010, 5, 17, tzinfo=UTC)),
        ("year", 2010),
    ]
    assert annotations.of([1])[1].fields[0].value == moment
    put(annotations, store, FILE, {2: Words(fields={"taken_on": "long ago", "year": "MMX"})})
    assert annotations.fields() == {"note": "text", "taken_on": "text", "year": "text"}
    assert [each.value for each in annotations.of([0])[0].fields] == ["x y", "2010-05-17", "2010"]
    assert annotations.of([1])[1].fields[0].value == "2011-02-03T04:05:06"
    assert (field_name("Größe (cm)"), field_name("2nd"), field_name(" ")) == ("größe_cm", "_2nd", "")


def test_a_maker_looks_only_at_what_it_has_not_seen(annotations, store):
    records = store.records()
    put(annotations, store, MODEL, {0: Words(), 2: Words({}, {"boat": 0.9})})
    assert [record.id for record in annotations.todo(MODEL, "1", records)] == [1, 3, 4]
    assert [record.id for record in annotations.todo(MODEL, "2", records)] == [0, 1, 2, 3, 4]
    assert [record.id for record in annotations.todo(FILE, "1", records)] == [0, 1, 2, 3, 4]
    changed = records[0]._replace(sha256="0" * 64)
    assert annotations.todo(MODEL, "1", [changed]) == [changed]
    put(annotations, store, FILE, {0: Words()}, reads_content=False)
    assert annotations.todo(FILE, "1", [changed]) == []


def test_a_sync_drops_machine_words_of_changed_content_alone(annotations, store):
    put(annotations, store, MODEL, {0: Words({"a dog": 0.9}, {"dog": 0.9}), 1: Words({}, {"cat": 0.8})})
    put(annotations, store, FILE, {0: Words({"my dog": None})}, reads_content=False)
    edits.add_tag(annotations, [0, 2], "mine")
    a, b, c, *_ = store.records()
    annotations.follow([a._replace(sha256="0" * 64), b._replace(path=Path("moved.jpg"))])  # the others are gone
    assert annotations.of([0, 1, 2]) == {
        0: Said((Caption("my dog", None, FILE),), (Tag("mine"),)),
        1: Said((), (Tag("cat", 0.8, MODEL),)),
    }
    assert found(annotations, "moved") == [1]
    back = c._replace(id=9, path=Path("again.jpg"))
    annotations.follow([a._replace(sha256="0" * 64), b, back])
    assert annotations.of([9]) == {9: Said((), (Tag("mine"),))}


def test_opening_follows_a_later_generation_once(store):
    annotations = Annotations.open(store)
    put(annotations, store, MODEL, {0: Words({}, {"dog": 0.9})})
    with sqlite3.connect(store.catalog.path) as file:
        file.execute("UPDATE images SET sha256 = ? WHERE id = 0", ("0" * 64,))
    store.update_manifest(generation=1)
    assert Annotations.open(FeatureStore.open(store.folder)).of([0]) == {}


def test_changes_are_counted(annotations, store):
    before = annotations.changes
    put(annotations, store, MODEL, {0: Words({}, {"dog": 0.9}), 1: Words()})
    between = annotations.changes
    edits.add_tag(annotations, [2], "x")
    assert before < between < annotations.changes
    assert annotations.changed_since(before).tolist() == [0, 1, 2]
    assert annotations.changed_since(between).tolist() == [2]
    assert annotations.changed_since(annotations.changes).tolist() == []


def test_annotations_of_the_first_version_are_brought_to_this_one(store):
    path = store.folder / "annotations.sqlite"
    with sqlite3.connect(path) as file:
        file.executescript(MIGRATIONS[0])
        file.executescript(
            """
            INSERT INTO about VALUES ('id', '"0123456789abcdef0123456789abcdef"');
            INSERT INTO pictures VALUES (5, 1, 'b.jpg', NULL);
            INSERT INTO captions VALUES (5, 'person', '', 'a sentence');
            PRAGMA user_version = 1;
            """
        )
    store.update_manifest(annotations="0123456789abcdef0123456789abcdef")
    annotations = Annotations.open(store)
    assert annotations.id == "0123456789abcdef0123456789abcdef"
    assert annotations.of([1]) == {1: Said((Caption("a sentence"),))}
    assert found(annotations, "sentence") == [1]


def test_readers_do_not_wait_for_a_writer(annotations, store):
    edits.add_tag(annotations, [0], "old")
    read = []
    with annotations.changing() as connection:
        connection.execute("DELETE FROM tags")
        reader = threading.Thread(target=lambda: read.append(annotations.of([0])))
        reader.start()
        reader.join(60)
        assert read == [{0: Said((), (Tag("old"),))}]
        assert Annotations.open(store).of([0]) == read[0], "another program, too"


def test_what_was_reported_done_is_there_after_kill_9(store):
    program = """
import os, signal, sys
from pathlib import Path
from features.collection.annotations import Annotations
from features.collection.said import Maker, Words
from features.store import FeatureStore

store = FeatureStore.open(Path(sys.argv[1]))
annotations = Annotations.open(store)
for number in range(20):
    said = [(record, Words({}, {f"tag {number}": 0.5})) for record in store.records()]
    annotations.put(Maker("model", str(number)), "1", said)
    print(number, flush=True)
with annotations.changing() as connection:
    connection.execute("DELETE FROM tags")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.folder)], cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE
    )
    assert done.returncode == -9
    reported = list(map(json.loads, done.stdout.split()))
    annotations = Annotations.open(store)
    assert {tag.tag for tag in annotations.of([1])[1].tags} == {f"tag {number}" for number in reported}
    assert len(reported) == 20
    assert set(found(annotations, "19")) == {0, 1, 2, 3, 4}
