"""All that is said of pictures goes into a table and comes back from it, whole or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from test_annotations import paint
from test_edits import FILE, MODEL, put
from test_store import write

from features.collection import edits
from features.collection.errors import StoreError
from features.collection.exchange import read_said, said_rows, take_in, write_said
from features.collection.said import Words
from search.annotate import main


@pytest.fixture
def store(tmp_path):
    store = write(paint(tmp_path / "images", a="A", b="B", c="C", d="same", e="same"), tmp_path / "c")
    said = store.annotations
    put(said, store, MODEL, {0: Words({"a dog": 0.9}, {"dog": 0.25}, {"rating": 1})})
    put(
        said,
        store,
        FILE,
        {1: Words({}, {"sea": None}, {"taken": datetime(1999, 5, 17, 12, tzinfo=UTC), "by": 'O\'Neil, "x"'})},
    )
    edits.add_caption(said, [0, 2], "A line\nwith <b>, ü and 图")
    edits.set_field(said, [0], "rating", 4.5)
    edits.set_favourite(said, [1], True)
    edits.put_in_album(said, [1, 2], "Best of 2010")
    return store


@pytest.mark.parametrize("ending", ["jsonl", "csv", "CSV"])
def test_what_is_said_comes_back_whole_and_is_taken_back_as_one(store, tmp_path, ending):
    file = tmp_path / f"said.{ending}"
    before, rows = store.annotations.of(range(5)), list(said_rows(store.annotations))
    assert write_said(store.annotations, file) == len(rows) == 11
    again = write(paint(tmp_path / "images", a="A", b="B", c="C", d="same", e="same"), tmp_path / "again")
    assert take_in(again.annotations, again.records(), read_said(file)) == (11, 3, 0)
    assert again.annotations.of(range(5)) == before
    assert list(said_rows(again.annotations)) == rows
    take_in(again.annotations, again.records(), read_said(file))  # once more changes nothing
    assert len(edits.edits(again.annotations)) == 1
    assert edits.undo(again.annotations) == "11 rows of a table taken in (3 pictures)"
    assert again.annotations.of(range(5)) == {}


def test_pictures_are_found_by_path_and_content_or_by_content(store):
    sha256 = {record.path.name: record.sha256 for record in store.records()}
    rows = [
        {"path": "moved.jpg", "sha256": sha256["c.jpg"], "what": "tag", "value": "moved"},
        {"path": "d.jpg", "sha256": sha256["d.jpg"], "what": "tag", "value": "here"},
        {"path": "other.jpg", "sha256": sha256["d.jpg"], "what": "tag", "value": "either"},
        {"path": "a.jpg", "sha256": "0" * 64, "what": "tag", "value": "changed"},
        {"path": "b.jpg", "what": "tag", "value": "named"},
    ]
    assert take_in(store.annotations, store.records(), rows) == (3, 3, 2)
    assert [sorted(store.annotations.tagged(tag)) for tag in ("moved", "here", "named")] == [[2], [3], [1]]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"what": "word"}, "row 2: what is one of caption, tag"),
        ({"source": "robot"}, "source one of label"),
        ({"value": " "}, "row 2: a path, a value"),
        ({"path": ""}, "row 2: a path, a value"),
        ({"certainty": "2"}, "a certainty is from 0 to 1, got 2"),
        ({"certainty": "x"}, "row 2: could not convert"),
        ({"what": "field", "name": "a", "type": "number", "value": "nan"}, "a number is finite"),
        ({"what": "field", "name": "a", "type": "date", "value": "soon"}, "row 2: Invalid isoformat"),
        ({"what": "field", "name": "a", "type": "colour", "value": "red"}, "text, number or date, got 'colour'"),
        ({"what": "field", "name": "!", "type": "text", "value": "red"}, "of a field its name"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_and_nothing_is_taken_in(store, row, why):
    good = {"path": "a.jpg", "what": "tag", "value": "new"}
    before = store.annotations.of(range(5))
    with pytest.raises(StoreError, match=why):
        take_in(store.annotations, store.records(), [good, {**good, **row}])
    assert store.annotations.of(range(5)) == before


def test_machine_words_that_a_person_crossed_out_stay_so(store, tmp_path):
    write_said(store.annotations, tmp_path / "said.csv")
    edits.remove_tag(store.annotations, [0], "dog")
    edits.remove_tag(store.annotations, [1], "sea")
    person = {"path": "b.jpg", "what": "tag", "value": "sea"}
    take_in(store.annotations, store.records(), [*read_said(tmp_path / "said.csv"), person])
    assert store.annotations.tagged("dog") == {}
    assert store.annotations.tagged("sea") == {1: 1.0}


def test_the_command_writes_and_takes_in(store, tmp_path, capsys):
    file = tmp_path / "said.jsonl"
    assert main([str(store.folder), "--export", str(file)]) == 0
    assert f"11 rows written to {file}" in capsys.readouterr().out
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"path": "gone.jpg", "what": "tag", "value": "x"}) + "\n")
    assert main([str(store.folder), "--import", str(file)]) == 0
    told = capsys.readouterr()
    assert "11 rows of 3 pictures taken in" in told.out
    assert "1 rows are of no picture of c" in told.err
    file.write_text("[]\n")
    assert main([str(store.folder), "--import", str(file)]) == 2
    assert main([str(store.folder), "--export", str(tmp_path / "said.txt")]) == 2
    assert "ends in .jsonl or .csv, got said.txt" in capsys.readouterr().err
