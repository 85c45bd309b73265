"""What a job tells of each file: counts that are those of the catalog, whatever was made of what."""

import csv
import shutil
from collections import Counter

import pytest
from meanings import ColourEncoder, WordSentences, paint_colours

from features.collection.store import FeatureStore
from features.encoders import share_encoder
from gradio_app import build, ingest_report
from gradio_app.ingest_report import Note, shown, write_table
from gradio_app.recipe import Recipe


@pytest.fixture
def making(tmp_path, monkeypatch):
    """Makes a collection in this process, by an encoder that is quick; gives its store, the report and the table."""
    encoder = ColourEncoder()
    share_encoder(encoder)
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    monkeypatch.setattr(build, "create_encoder", lambda name: encoder)
    monkeypatch.setattr("search.build.encoder_for", lambda spec: encoder)

    def make(folder, recipe=None, *, is_sent=False, left_out=()):
        order = {
            "folder": str(tmp_path / "making" / "c"),
            "final": str(tmp_path / "c"),
            "pictures": str(folder),
            "sent": is_sent,
            "left_out": left_out,
            "recipe": (recipe or Recipe(factory="Flat")).written(),
            "table": str(tmp_path / "report.csv"),
        }
        report = build.create(order, lambda stage, done, total: None)
        return FeatureStore.open(tmp_path / "making" / "c"), report, rows_of(tmp_path / "report.csv")

    return make


def rows_of(table):
    with table.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["what", "path", "why"]
    return [tuple(row) for row in rows]


def counts(report):
    return {kind["kind"]: kind["count"] for kind in report["kinds"]}


def test_every_file_is_told_once_and_duplicates_besides(making, tmp_path):
    first = paint_colours(tmp_path / "images", count=4)[0]
    (tmp_path / "images" / "copies").mkdir()
    for name in ("1.png", "2.png"):
        shutil.copy(first, tmp_path / "images" / "copies" / name)
    (tmp_path / "images" / "a" / "broken.jpg").write_bytes(b"x")
    (tmp_path / "images" / "a" / "film.mov").write_bytes(b"x")
    store, report, rows = making(tmp_path / "images", left_out=[["old/clip.avi", "other files (.avi)"]])
    assert store.catalog.counts() == (15, 1)
    told = Counter(what for what, *_ in rows)
    assert told == counts(report)
    assert (told["added"], told["unreadable"], told["left out"]) == (store.ids.size, 1, 2) == (14, 1, 2)
    same = [row for row in rows if row[0] == "duplicate" and row[2].startswith("the same file as")]
    assert same == [
        ("duplicate", "copies/1.png", "the same file as a/00.png"),
        ("duplicate", "copies/2.png", "the same file as a/00.png"),
    ]
    assert ("unreadable", "a/broken.jpg", "not an image in any format that can be read") in rows
    assert {row for row in rows if row[0] == "left out"} == {
        ("left out", "old/clip.avi", "other files (.avi)"),
        ("left out", "a/film.mov", "other files (.mov)"),
    }


def test_what_was_sent_goes_into_the_collection_without_the_folder_around_it(making, tmp_path):
    paint_colours(tmp_path / "sent" / "holidays", count=2)
    store, report, _ = making(tmp_path / "sent", Recipe(factory="Flat", engines=("ivfpq",), spaces=()), is_sent=True)
    assert store.labels() == {"a": 2, "b": 2, "c": 2}
    assert store.manifest["root"] == str(tmp_path / "c" / "images")
    assert (store.folder / "images" / "a" / "00.png").is_file()
    assert list(store.manifest["indexes"]) == ["ivfpq"] and store.manifest["spaces"] == {}
    assert counts(report)["added"] == 6


def test_a_space_that_cannot_be_is_told_and_the_others_are_made(making, tmp_path, monkeypatch):
    paint_colours(tmp_path / "images", count=2)
    monkeypatch.setattr("search.spaces.ConceptSpace.why_not", lambda self, store: "its encoder knows no words")
    store, report, _ = making(tmp_path / "images", Recipe(factory="Flat", spaces=("concepts", "neighbourhood")))
    assert list(store.manifest["spaces"]) == ["neighbourhood"]
    assert report["summary"].endswith("; no space concepts: its encoder knows no words")


def test_an_index_that_cannot_be_is_refused_before_pictures_are_encoded(making, tmp_path):
    paint_colours(tmp_path / "images", count=2)
    with pytest.raises(ValueError, match="M"):
        making(tmp_path / "images", Recipe(factory="IVF2,PQ7"))
    assert not (tmp_path / "making").exists()


def test_a_sync_tells_what_changed_and_what_was_there_already(making, tmp_path):
    root = tmp_path / "images"
    paint_colours(root, count=4)
    making(root)
    folder = tmp_path / "making" / "c"
    shutil.copy(root / "a" / "00.png", root / "again.png")
    shutil.copy(root / "b" / "00.png", root / "b" / "01.png")
    (root / "c" / "00.png").rename(root / "moved.png")
    (root / "c" / "01.png").unlink()
    (root / "c" / "02.png").write_bytes(b"x")
    (root / "notes.txt").write_text("hello")
    order = {"folder": str(folder), "table": str(tmp_path / "report.csv")}
    report = build.bring_up_to_date(order, lambda stage, done, total: None)
    rows = rows_of(tmp_path / "report.csv")
    assert Counter(what for what, *_ in rows) == counts(report)
    exact = {row for row in rows if row[0] != "duplicate" or row[2].startswith("the same file as")}
    assert exact == {
        ("added", "again.png", ""),
        ("updated", "b/01.png", ""),
        ("renamed", "moved.png", "was c/00.png"),
        ("removed", "c/01.png", ""),
        ("duplicate", "again.png", "the same file as a/00.png"),
        ("duplicate", "b/01.png", "the same file as b/00.png"),
        ("unreadable", "c/02.png", "not an image in any format that can be read"),
        ("left out", "notes.txt", "other files (.txt)"),
    }
    assert report["summary"].startswith("1 added, 1 updated, 1 renamed, 1 removed; 8 as they were")
    assert FeatureStore.open(folder).catalog.counts() == (12, 1)


def test_the_page_names_some_and_the_table_all(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_report, "SHOWN", 2)
    notes = [Note("left out", f"{i}.heic", "HEIC") for i in range(3)] + [Note("added", "=1,\n2.jpg")]
    assert shown(notes, unnamed=4) == [
        {"kind": "added", "count": 1, "reasons": [], "files": [("=1,\n2.jpg", "")]},
        {"kind": "left out", "count": 7, "reasons": [("HEIC", 3)], "files": [("0.heic", "HEIC"), ("1.heic", "HEIC")]},
    ]
    write_table(notes, tmp_path / "all.csv")
    assert rows_of(tmp_path / "all.csv") == notes
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]
