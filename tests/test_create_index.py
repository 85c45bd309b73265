"""The command that turns a dataset into a collection, run as people run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradio_app.create_index import collection_name, main
from gradio_app.engine import SearchEngine

ROOT = Path(__file__).resolve().parent.parent
LITE0 = ["--encoder", "efficientnet-lite0"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Each test runs the command from a folder of its own."""
    monkeypatch.chdir(tmp_path)


def report(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_collection_has_both_indexes_over_all_images(demo_collection):
    assert {path.name for path in demo_collection.iterdir()} == {
        "manifest.json",
        "catalog.sqlite",
        "features.npy",
        "ivfpq.index",
        "faiss.index",
    }
    manifest = json.loads((demo_collection / "manifest.json").read_text())
    assert manifest["metric"] == "cosine"
    assert manifest["encoder"]["name"] == "efficientnet-lite0"
    assert {entry["factory"] for entry in manifest["indexes"].values()} == {"IVF100,PQ8"}


def test_the_script_prints_a_table_on_stdout_and_progress_on_stderr(workspace, demo_collection):
    command = [sys.executable, str(ROOT / "gradio_app" / "create_index.py"), "--data", "demo", "--limit", "340"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "recall@10" in rows[0]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["ivfpq (ours)", "faiss"]
    assert "held-out" in done.stdout
    assert "recall@10" not in done.stderr


def test_json_reports_what_was_measured(workspace, demo_collection, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    found = report(capsys, "--data", "demo", "--limit", "340", *LITE0)
    assert found["images"] == 340
    assert found["skipped"] == 0
    assert found["queries"] == 34
    for row in found["engines"]:
        assert row["factory"] == "IVF100,PQ8"
        # 8 of the code; an id of 3 bytes and one more for what the list adds to the distance, or an id of 8
        assert row["bytes_per_vector"] == {"ivfpq": 12, "faiss": 16}[row["engine"]]
        assert row["file_bytes"] == (demo_collection / f"{row['engine']}.index").stat().st_size
        assert 0 < row["recall_at_10"] <= 1
        assert row["train_s"] > 0
        assert row["us_per_query"] > 0


def test_the_same_seed_gives_the_same_bytes(workspace, demo_collection, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    before = (demo_collection / "ivfpq.index").read_bytes()
    report(capsys, "--data", "demo", "--limit", "340", *LITE0)
    assert (demo_collection / "ivfpq.index").read_bytes() == before


def test_a_small_folder_gets_a_flat_index_and_is_told(picture_folder, tmp_path, capsys, caplog):
    found = report(capsys, "--data", str(picture_folder), "--name", "small")
    assert "building Flat" in caplog.text
    assert found["images"] == 12
    assert found["skipped"] == 1
    assert {row["factory"] for row in found["engines"]} == {"Flat"}
    engine = SearchEngine.open(tmp_path / "collections" / "small")
    assert engine.nlist is None
    for name in engine.engines:
        hits = engine.search(picture_folder / "warm" / "0.png", k=5, engine=name)
        assert [hit.labels for hit in hits] == [("warm",)] * 5
        assert (picture_folder / "warm" / "0.png").resolve() not in [hit.path for hit in hits]
    broken = [item for item in engine.store.items if item.error]
    assert [item.path.name for item in broken] == ["broken.jpg"]


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_other_metrics_order_their_own_way(picture_folder, tmp_path, capsys, metric):
    report(capsys, "--data", str(picture_folder), "--metric", metric, "--engine", "ivfpq", *LITE0)
    engine = SearchEngine.open(tmp_path / "collections" / picture_folder.name)
    assert engine.engines == ("ivfpq", "exact")
    hits = engine.search(picture_folder / "cold" / "3.png", k=11)
    scores = np.array([hit.score for hit in hits])
    assert (np.diff(scores) >= 0).all() if metric == "l2" else (np.diff(scores) <= 0).all()
    assert all((hit.distance is None) == (metric == "ip") for hit in hits)


def test_one_engine_rebuilt_leaves_the_other(picture_folder, tmp_path, capsys):
    folder = tmp_path / "collections" / "both"
    report(capsys, "--data", str(picture_folder), "--name", "both", *LITE0)
    before = (folder / "faiss.index").read_bytes()
    report(capsys, "--data", str(picture_folder), "--name", "both", "--engine", "ivfpq", "--seed", "1", *LITE0)
    assert (folder / "faiss.index").read_bytes() == before
    assert SearchEngine.open(folder).engines == ("ivfpq", "faiss", "exact")
    report(capsys, "--data", str(picture_folder), "--name", "both", "--engine", "ivfpq", "--metric", "l2", *LITE0)
    assert not (folder / "faiss.index").exists(), "an index by another metric must not stay beside this one"
    assert SearchEngine.open(folder).engines == ("ivfpq", "exact")


def test_more_images_later_are_only_encoded_once(picture_folder, tmp_path, capsys):
    report(capsys, "--data", str(picture_folder), "--name", "grows", *LITE0)
    stamp = (tmp_path / "collections" / "grows" / "features.npy").stat().st_mtime_ns
    report(capsys, "--data", str(picture_folder), "--name", "grows", *LITE0)
    assert (tmp_path / "collections" / "grows" / "features.npy").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "imagenet"], "unknown dataset 'imagenet'"),
        (["--data", "caltech"], "data_download.sh caltech"),
        (["--data", "PICTURES", "--factory", "HNSW32"], "HNSW32"),
        (["--data", "PICTURES", "--encoder", "vgg16"], "vgg16"),
        (["--data", "PICTURES", "--weights", "missing.pth"], "missing.pth"),
        (["--data", "EMPTY"], "no images"),
        (["--data", "PICTURES", "--name", "///"], "--name"),
    ],
)
def test_bad_input_is_one_clear_line(picture_folder, tmp_path, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    places = {"PICTURES": str(picture_folder), "EMPTY": str(tmp_path / "empty")}
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert not list(tmp_path.glob("collections/*/manifest.json"))


def test_a_folder_of_broken_files_is_refused(tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no")
    assert main(["--data", str(tmp_path / "broken"), *LITE0]) == 2
    assert "none of the 1 images" in capsys.readouterr().err


def test_another_encoder_in_the_same_collection_is_refused(demo_collection, workspace, tmp_path, capsys):
    copy = shutil.copytree(demo_collection, tmp_path / "collections" / "demo")
    (tmp_path / "datasets").symlink_to(workspace / "datasets")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["encoder"]["name"] = "another"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert main(["--data", "demo", "--limit", "340", *LITE0]) == 2
    err = capsys.readouterr().err
    assert "another" in err
    assert "efficientnet-lite0" in err


@pytest.mark.parametrize(
    ("name", "safe"), [("My Pictures (2024)", "My-Pictures-2024"), ("../../etc", "etc"), ("Ünïcode 图", "Ünïcode-图")]
)
def test_names_become_safe_folders(name, safe):
    assert collection_name(name) == safe
    assert os.sep not in collection_name(name)


@pytest.mark.realdata
@pytest.mark.slow
def test_the_real_caltech101_all_the_way(testdata, tmp_path, capsys):
    """Download script by file://, the command, and a search; a slice, so that it takes a minute and not five."""
    archive = (testdata / "101_ObjectCategories.tar.gz").as_uri()
    done = subprocess.run(
        [shutil.copy(ROOT / "data_download.sh", tmp_path), "caltech"],  # it works in the folder it lies in
        env={**os.environ, "CALTECH101_URL": archive},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "datasets" / "caltech101").iterdir())
    assert len(folders) == 102
    assert sum(len(list(folder.glob("*.jpg"))) for folder in folders) == 9144

    found = report(capsys, "--data", "caltech", "--limit", "1500", *LITE0)
    assert found["images"] == 1500
    assert found["queries"] == 150
    ours, theirs = (row["recall_at_10"] for row in found["engines"])
    assert ours > theirs - 0.05
    engine = SearchEngine.open(tmp_path / "collections" / "caltech101")
    leopards = [item for item in engine.store.items if item.labels == ("Leopards",)]
    assert len(leopards) > 100
    right = 0
    for own in leopards[::20]:
        hits = engine.search(own.path, k=10, nprobe=100)
        assert own.id not in [hit.id for hit in hits]
        right += sum(hit.labels == own.labels for hit in hits)
    assert right >= 0.8 * 10 * len(leopards[::20])
