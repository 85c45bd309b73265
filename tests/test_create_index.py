"""The command that turns a dataset into a collection, run as people run it."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images
from test_sync import change_everything, paint

from features.collection.manifest import read_manifest, write_json
from features.collection.names import collection_name
from features.collection.store import FeatureStore
from features.collection.sync import sync
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.evaluate import leave_one_out
from features.extract import extract
from gradio_app.create_index import main, parse_arguments
from ivfpq import IndexFlat, load
from ivfpq.faiss_compat import FaissIndex
from search.backends import trial
from search.backends.trial import nearest_of_all, recall
from search.build import create_index, sync_collection
from search.engine import SearchEngine
from search.errors import EngineError

ROOT = Path(__file__).resolve().parent.parent
LITE0 = ["--encoder", "efficientnet-lite0"]
FAST = ["--encoder", "fake", "--factory", "Flat"]  # where it matters what becomes of vectors, not whose they are


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Each test runs the command from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())


def report(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def index_file(folder, engine):
    return folder / json.loads((folder / "manifest.json").read_text())["indexes"][engine]["file"]


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "nan", "much"])
def test_a_recall_is_a_share(share, capsys):
    assert parse_arguments(["--data", "x", "--target-recall", "0.99"]).target_recall == 0.99
    with pytest.raises(SystemExit):
        parse_arguments(["--data", "x", "--target-recall", share])
    assert "--target-recall" in capsys.readouterr().err


def test_a_collection_has_both_indexes_over_all_images(demo_collection):
    assert {path.name for path in demo_collection.iterdir()} == {
        "manifest.json",
        "catalog.sqlite",
        "concepts.npy",
        "duplicates.npy",
        "features.npy",
        "ivfpq.index",
        "faiss.index",
        "neighbourhood.npy",
        "neighbourhood-components.npy",
        "neighbourhood-neighbours.npy",
        "neighbourhood-similarities.npy",
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
        assert row["file_bytes"] == index_file(demo_collection, row["engine"]).stat().st_size
        assert 0 < row["recall_at_10"] <= 1
        assert row["train_s"] > 0
        assert row["us_per_query"] > 0


def test_the_same_seed_gives_the_same_bytes(workspace, demo_collection, tmp_path, capsys):
    (tmp_path / "datasets").symlink_to(workspace / "datasets")
    copy = shutil.copytree(demo_collection, tmp_path / "collections" / "demo")
    report(capsys, "--data", "demo", "--limit", "340", *LITE0)
    assert index_file(copy, "ivfpq").read_bytes() == index_file(demo_collection, "ivfpq").read_bytes()


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
    report(capsys, "--data", str(picture_folder), "--metric", metric, "--engine", "ivfpq", *FAST)
    engine = SearchEngine.open(tmp_path / "collections" / picture_folder.name)
    assert engine.engines == ("ivfpq", "exact")
    hits = engine.search(picture_folder / "cold" / "3.png", k=11)
    scores = np.array([hit.score for hit in hits])
    assert (np.diff(scores) >= 0).all() if metric == "l2" else (np.diff(scores) <= 0).all()
    assert all((hit.distance is None) == (metric == "ip") for hit in hits)


def test_one_engine_rebuilt_leaves_the_other(picture_folder, tmp_path, capsys):
    folder = tmp_path / "collections" / "both"
    report(capsys, "--data", str(picture_folder), "--name", "both", *FAST)
    before = (folder / "faiss.index").read_bytes()
    report(capsys, "--data", str(picture_folder), "--name", "both", "--engine", "ivfpq", "--seed", "1", *FAST)
    assert (folder / "faiss.index").read_bytes() == before
    assert SearchEngine.open(folder).engines == ("ivfpq", "faiss", "exact")
    report(capsys, "--data", str(picture_folder), "--name", "both", "--engine", "ivfpq", "--metric", "l2", *FAST)
    assert not (folder / "faiss.index").exists(), "an index by another metric must not stay beside this one"
    assert SearchEngine.open(folder).engines == ("ivfpq", "exact")


def test_more_images_later_are_only_encoded_once(picture_folder, tmp_path, capsys):
    report(capsys, "--data", str(picture_folder), "--name", "grows", *FAST)
    stamp = (tmp_path / "collections" / "grows" / "features.npy").stat().st_mtime_ns
    report(capsys, "--data", str(picture_folder), "--name", "grows", *FAST)
    assert (tmp_path / "collections" / "grows" / "features.npy").stat().st_mtime_ns == stamp


@pytest.fixture
def root(tmp_path):
    """Sixty small pictures with three labels."""
    make_images(tmp_path / "images", 60)
    return tmp_path / "images"


@pytest.fixture
def synced(root, tmp_path):
    """Their collection by a stand-in for an encoder, with small indexes that have been trained."""
    store = extract(ImageFolder(root), FakeEncoder(), tmp_path / "synced", progress=False)
    create_index(store, factory="IVF4,PQ4x4")
    return tmp_path / "synced"


def sync_now(root, folder):
    encoder = FakeEncoder()
    found = sync_collection(folder, dataset=ImageFolder(root), encoder=encoder, progress=False)
    return *found, encoder.encoded


def assert_searches_all_and_nothing_else(folder):
    """Each picture finds all the others, by both indexes and exactly; holes are never found."""
    engine = SearchEngine.open(folder)
    usable = set(engine.store.ids.tolist())
    for name in ("ivfpq", "faiss", "exact"):
        for own in (min(usable), max(usable)):
            hits = engine.search(engine.store.items[own].path, k=1000, nprobe=4, engine=name)
            assert {hit.id for hit in hits} == usable - {own}
            assert all(hit.path.is_file() for hit in hits)
    return engine


def test_sync_updates_both_indexes_and_keeps_their_quantizers(root, synced, tmp_path):
    trained = load(synced / "ivfpq.index")
    change_everything(root)
    report, updates, encoded = sync_now(root, synced)
    assert encoded == 2
    assert (len(report.added), len(report.edited), len(report.removed), len(report.renamed)) == (2, 2, 1, 2)
    assert [(u.engine, u.taken_out, u.put_in, u.rebuilt) for u in updates] == [
        ("ivfpq", 3, 2, None),
        ("faiss", 3, 2, None),
    ]
    engine = assert_searches_all_and_nothing_else(synced)
    # The same quantizers filled anew answer the same, and exact search finds what a fresh collection finds.
    trained.reset()
    engine.space().space.add_rows(trained, engine.store.ids)
    queries = np.asarray(engine.store.features[engine.store.ids[:5]], np.float32)
    found, wanted = (index.search(queries, 10, nprobe=4) for index in (load(synced / "ivfpq.1.index"), trained))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    create_index(extract(ImageFolder(root), FakeEncoder(), tmp_path / "fresh", progress=False), factory="IVF4,PQ4x4")
    path = root / "moved/004.png"
    one, other = (
        SearchEngine.open(folder).search(path, k=20, engine="exact") for folder in (synced, tmp_path / "fresh")
    )
    assert [(hit.path, hit.score) for hit in one] == [(hit.path, hit.score) for hit in other]
    assert sync_now(root, synced)[1:] == ([], 0)


def test_vectors_synced_alone_make_the_indexes_old_and_sync_mends_it(root, synced):
    (root / "label 0/000.png").unlink()
    sync(ImageFolder(root), FakeEncoder(), synced, progress=False)
    with pytest.raises(EngineError, match=r"ivfpq\.index is older than the vectors .* --sync"):
        SearchEngine.open(synced)
    report, updates, encoded = sync_now(root, synced)
    assert (report.unchanged, encoded, [u.taken_out for u in updates]) == (59, 0, [1, 1])
    assert_searches_all_and_nothing_else(synced)


def test_index_is_built_anew_where_that_is_better(root, synced, tmp_path, caplog):
    for path in sorted(root.rglob("*.png"))[:35]:
        paint(path, int(path.stem) + 1000)
    with caplog.at_level("INFO"):
        updates = sync_now(root, synced)[1]
    assert {u.rebuilt for u in updates} == {"more than half of the collection has changed"}
    assert "ivfpq is built anew: more than half" in caplog.text
    assert_searches_all_and_nothing_else(synced)
    # One that was too small to train what was asked for has grown.
    small = extract(ImageFolder(root), FakeEncoder(), tmp_path / "small", limit=15, progress=False)
    create_index(small, factory="IVF4,PQ4x4")
    assert SearchEngine.open(tmp_path / "small").nlist is None
    grow = partial(sync_collection, tmp_path / "small", encoder=FakeEncoder(), progress=False)
    grow(limit=16)  # the folder is known from the manifest
    assert SearchEngine.open(tmp_path / "small").nlist is None
    updates = grow(limit=24)[1]
    assert {u.rebuilt for u in updates} == {"there are enough images for IVF4,PQ4x4 now"}
    assert SearchEngine.open(tmp_path / "small").nlist == 4
    # And a damaged index file is no obstacle.
    paint(root / "new.png", 1)
    (synced / "ivfpq.1.index").write_bytes(b"damaged")
    rebuilt = {u.engine: u.rebuilt for u in sync_now(root, synced)[1]}
    assert "is not the index that" in rebuilt["ivfpq"]
    assert rebuilt["faiss"] is None
    assert_searches_all_and_nothing_else(synced)


@pytest.mark.parametrize("lacking", [("sha256",), ("file", "sha256"), ("sha256", "factory", "seed", "generation")])
@pytest.mark.parametrize("there", [False, True])
def test_what_the_manifest_does_not_say_of_an_index_is_told_and_made_again(root, synced, lacking, there):
    """Its schema lets other programs leave it out, or write null."""

    def spoil():
        manifest = read_manifest(synced)
        for key in lacking:
            del manifest["indexes"]["faiss"][key]
            if there:
                manifest["indexes"]["faiss"][key] = None
        write_json(synced / "manifest.json", manifest)
        what = " and the ".join(key for key in ("file", "sha256") if key in lacking)
        with pytest.raises(EngineError, match=f"does not say the {what} of the faiss index.*run create_index.py"):
            SearchEngine.open(synced)

    spoil()
    paint(root / "new.png", 1)
    rebuilt = {update.engine: update.rebuilt for update in sync_now(root, synced)[1]}
    assert rebuilt["ivfpq"] is None
    assert "does not say" in rebuilt["faiss"]
    assert_searches_all_and_nothing_else(synced)
    spoil()
    create_index(FeatureStore.open(synced))
    assert_searches_all_and_nothing_else(synced)


def test_index_that_cannot_forget_is_built_anew(root, synced, monkeypatch):
    def refuse(self, ids):
        raise RuntimeError("remove_ids not implemented for this type of index")

    monkeypatch.setattr(FaissIndex, "remove_ids", refuse)
    (root / "label 0/000.png").unlink()
    ours, theirs = sync_now(root, synced)[1]
    assert ours.rebuilt is None
    assert "remove_ids not implemented" in theirs.rebuilt
    assert_searches_all_and_nothing_else(synced)


def test_open_collection_goes_on_with_what_it_was(root, synced):
    engine = SearchEngine.open(synced)
    query = (root / "label 1/007.png").read_bytes()
    before = {name: engine.search(query, k=99, nprobe=4, engine=name) for name in ("ivfpq", "faiss", "exact")}
    change_everything(root)
    sync_now(root, synced)
    for name, hits in before.items():
        assert engine.search(query, k=99, nprobe=4, engine=name) == hits
    assert len(SearchEngine.open(synced).search(query, k=99, nprobe=4)) == 60 - 2 + 1 - 1


KILLED = """
import os, shutil, sys
from pathlib import Path
from killing import kill_before
from test_extract import FakeEncoder
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.evaluate import leave_one_out
from features.collection.manifest import read_manifest, write_json
from features.collection.names import collection_name
from features.collection.store import FeatureStore
from search.build import create_index, sync_collection

root, folder, copies = map(Path, sys.argv[1:])
for step in range(200):
    copy = shutil.copytree(folder, copies / str(step))
    if step == 0:  # what is imported and compiled here, no child has to
        {call}
        shutil.rmtree(copy)
        continue
    child = os.fork()
    if child == 0:
        kill_before(step, copy)
        {call}
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


def killed_copies(call, root, folder, tmp_path):
    """Copies of a collection, in each of which the call was killed one step later; in the last it came to its end."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(call=call))
    done = subprocess.run(
        [sys.executable, script, root, folder, tmp_path / "copies"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    copies = sorted((tmp_path / "copies").glob("[0-9]*"), key=lambda path: int(path.name))  # nor the lock of one killed
    assert len(copies) > 15
    return copies


@pytest.mark.slow
def test_killed_at_any_step_both_indexes_are_the_old_ones_or_the_new_ones(root, synced, tmp_path):
    change_everything(root)
    sync = "sync_collection(copy, dataset=ImageFolder(root), encoder=FakeEncoder(), progress=False)"
    copies = killed_copies(sync, root, synced, tmp_path)
    generations = []
    for copy in copies:
        engine = SearchEngine.open(copy)
        generations.append(engine.store.generation)
        query = (root / "label 1/007.png").read_bytes()
        for name in engine.engines:
            found = {hit.id for hit in engine.search(query, k=99, nprobe=4, engine=name)}
            assert len(found) == (59 if generations[-1] == 0 else 58)
        sync_now(root, copy)
        assert {path.name for path in copy.iterdir()} == {
            "manifest.json",
            "features.1.npy",
            "catalog.1.sqlite",
            "duplicates.1.npy",
            "ivfpq.1.index",
            "faiss.1.index",
        }
        assert_searches_all_and_nothing_else(copy)
    assert generations == sorted(generations)
    assert set(generations) == {0, 1}


@pytest.mark.slow
def test_killed_while_indexes_are_made_again_the_old_ones_answer(root, synced, tmp_path):
    factories = []
    for copy in killed_copies("create_index(FeatureStore.open(copy), factory='IVF2,PQ4x4')", root, synced, tmp_path):
        assert_searches_all_and_nothing_else(copy)
        factories.append({entry["factory"] for entry in FeatureStore.open(copy).manifest["indexes"].values()})
        create_index(FeatureStore.open(copy), factory="IVF2,PQ4x4")
        assert_searches_all_and_nothing_else(copy)
    made_again = factories.index({"IVF2,PQ4x4"})
    assert made_again > 0
    assert factories[:made_again] == [{"IVF4,PQ4x4"}] * made_again
    assert set(map(tuple, factories[made_again:])) == {("IVF2,PQ4x4",)}


def test_sync_on_the_command_line(root, tmp_path, capsys):
    command = ["--data", str(root), "--sync", "--encoder", "fake"]
    found = report(capsys, *command, "--factory", "IVF4,PQ4x4", "--limit", "40")
    assert found["images"] == 40, "a first run makes the collection"
    found = report(capsys, *command)
    assert (len(found["added"]), found["unchanged"]) == (20, 40)
    assert [(row["put_in"], row["rebuilt"]) for row in found["engines"]] == [(20, None)] * 2
    (root / "label 0/000.png").unlink()
    assert main(["--data", str(root), "--sync", "--factory", "IVF4,PQ4x4"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0] == f"{Path('collections', 'images')}: 0 added, 0 edited, 0 renamed, 1 removed, 0 damaged, 59 unchanged"
    )
    assert out[1].startswith("ivfpq: 1 vectors taken out and 0 put in, quantizers kept (")
    assert [line.split(":")[0] for line in out[2:]] in (["faiss"], ["faiss", "duplicates"])
    assert main(["--data", str(root), "--sync", "--factory", "IVF2,PQ4x4"]) == 0, "another index is built if asked for"
    assert "IVF2,PQ4x4" in capsys.readouterr().out
    assert SearchEngine.open(tmp_path / "collections/images").nlist == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "imagenet"], "unknown dataset 'imagenet'"),
        (["--data", "caltech"], "data_download.sh caltech"),
        (["--data", "PICTURES", "--factory", "HNSW32", "--encoder", "fake"], "HNSW32"),
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
    assert main(["--data", str(tmp_path / "broken"), *FAST]) == 2
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


@pytest.fixture(scope="module")
def caltech101(testdata, tmp_path_factory):
    """A folder that the real Caltech101 was downloaded to by file://, and what the command said of every ninth picture.

    The network looks at each picture once for all that is asked of them.
    """
    folder = tmp_path_factory.mktemp("caltech101")
    done = subprocess.run(
        [shutil.copy(ROOT / "data_download.sh", folder), "caltech"],  # it works in the folder it lies in
        env={**os.environ, "CALTECH101_URL": (testdata / "101_ObjectCategories.tar.gz").as_uri()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stamp, *classes = sorted((folder / "datasets" / "caltech101").iterdir())
    assert stamp.name == ".complete"
    assert len(classes) == 102
    pictures = sorted((folder / "datasets" / "caltech101").glob("*/*.jpg"))
    assert len(pictures) == 9144
    for place, path in enumerate(pictures):
        if place % 9:
            path.unlink()
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["--data", "caltech", "--limit", "1000", *LITE0, "--json"]) == 0
    return folder, json.loads(said.getvalue())


@pytest.mark.realdata
@pytest.mark.slow
def test_the_real_caltech101_all_the_way(caltech101):
    """Download script, the command, and a search."""
    folder, found = caltech101
    assert found["images"] == 1000
    assert found["queries"] == 100
    ours, theirs = (row["recall_at_10"] for row in found["engines"])
    assert ours > theirs - 0.05
    engine = SearchEngine.open(folder / "collections" / "caltech101")
    leopards = [item for item in engine.store.items if item.labels == ("Leopards",)]
    assert len(leopards) > 20
    right = 0
    for own in leopards[::3]:
        hits = engine.search(own.path, k=10, nprobe=100)
        assert own.id not in [hit.id for hit in hits]
        right += sum(hit.labels == own.labels for hit in hits)
    assert right >= 0.8 * 10 * len(leopards[::3])


@pytest.mark.realdata
@pytest.mark.slow
def test_lite_finds_caltech101_classes(caltech101):
    """mAP, cosine, leave-one-out: 0.739; over all 9,144 pictures, which are harder to tell apart, it is 0.7015."""
    store = FeatureStore.open(caltech101[0] / "collections" / "caltech101")
    found = leave_one_out(store.features[store.ids], [item.labels for item in store.items])
    assert found.queries == 999  # of one class a single picture is there
    assert found.mean_average_precision >= 0.73


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_recall_counts_ties(metric):
    """Of two copies of a picture either is right; a picture farther away, or none, is not."""
    vectors = np.array([[3, 0], [3, 0], [2, 1], [-1, 2]], np.float32)
    space = SimpleNamespace(rows=lambda ids: vectors[ids])
    flat = IndexFlat(2, metric=metric)
    flat.add(vectors)
    query = np.array([[3, 0.1]], np.float32)
    truth = flat.search(query, 1)
    assert truth.ids.tolist() == [[0]]
    for found, right in ((0, 1), (1, 1), (2, 0), (3, 0), (-1, 0)):
        assert recall(space, query, np.array([[found]]), truth, metric) == right


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_nearest_of_all_are_those_of_one_comparison(monkeypatch, metric):
    monkeypatch.setattr(trial, "_BLOCK", 7)
    generator = np.random.default_rng(3)
    vectors = generator.integers(1, 4, (40, 3)).astype(np.float32)  # many are as near as others
    flat, ids = IndexFlat(3, metric=metric), np.arange(2, 39)
    flat.add_with_ids(vectors[ids], ids)
    add_rows = lambda index, ids: index.add_with_ids(vectors[ids], ids)  # noqa: E731
    space, queries = SimpleNamespace(dim=3, add_rows=add_rows), vectors[:5]
    for k in (1, 10, 37):
        found, wanted = nearest_of_all(space, ids, queries, k, metric), flat.search(queries, k)
        np.testing.assert_array_equal(found.ids, wanted.ids)
        np.testing.assert_array_equal(found.distances, wanted.distances)
