"""What people met when they made collections at the command line; with a stand-in for the encoder, which is quick."""

import errno
import importlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images
from test_sync import paint

from features import extract as extract_command
from features.checksum import sha256_of
from features.collection.names import collection_name
from features.collection.store import FeatureStore, StoreError
from features.encoders import register_encoder, registry
from gradio_app import create_index as command
from gradio_app.create_index import cause_of, main, search_command
from ivfpq import IndexFlat, save
from ivfpq.faiss_compat import FaissIndex
from search.build import create_index, sync_collection
from search.engine import SearchEngine
from search.errors import EngineError

ROOT = Path(__file__).resolve().parent.parent
FAST = ["--encoder", "fake", "--factory", "Flat"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Each test runs the command from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())


@pytest.fixture
def root(tmp_path) -> Path:
    make_images(tmp_path / "images", 12)
    return tmp_path / "images"


def error_of(capsys, *arguments) -> str:
    """The one line that a refused command says."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_a_second_card_of_the_same_name_is_told_whose_collection_it_is(tmp_path, capsys):
    for card, seed in (("one", 1), ("two", 2)):
        paint(tmp_path / card / "100CANON" / "IMG_0001.png", seed)
    one, two = (str(tmp_path / card / "100CANON") for card in ("one", "two"))
    assert main(["--data", one, *FAST]) == 0
    before = (tmp_path / "collections/100CANON/manifest.json").read_bytes()
    capsys.readouterr()
    for extra in ([], ["--sync"]):
        said = error_of(capsys, "--data", two, *extra)
        assert f"is the collection of {one}" in said
        assert "--name" in said
        assert (tmp_path / "collections/100CANON/manifest.json").read_bytes() == before
    assert main(["--data", two, *FAST, "--name", "second"]) == 0
    assert FeatureStore.open("collections/second").manifest["root"] == two


def test_extract_and_create_index_agree_on_the_name_of_a_collection(tmp_path, capsys):
    paint(tmp_path / "My Photos" / "1.png", 1)
    assert extract_command.main(["--data", "My Photos", "--encoder", "fake"]) == 0
    assert main(["--data", "My Photos", *FAST]) == 0
    assert [path.name for path in Path("collections").iterdir()] == [collection_name("My Photos")] == ["My-Photos"]
    assert extract_command.main(["--data", "My Photos", "--encoder", "fake", "--collections", "elsewhere"]) == 0
    assert Path("elsewhere/My-Photos/manifest.json").is_file()


def test_of_equal_pictures_the_one_that_was_asked_is_named_and_alone_hidden(root, tmp_path, capsys):
    shutil.copyfile(root / "label 1/004.png", root / "a.png")
    shutil.copyfile(root / "label 1/004.png", root / "b.png")
    assert main(["--data", str(root), *FAST]) == 0
    engine = SearchEngine.open("collections/images")
    id_of = {item.path.name: item.id for item in engine.store.items}
    copies = {id_of[name] for name in ("a.png", "b.png", "004.png")}
    for path in (root / "a.png", root / "b.png", root / "label 1/004.png"):
        for name in engine.engines:
            answer = engine.search(path, 2, engine=name)
            assert answer.own_id == id_of[path.name]
            assert set(answer.ids) == copies - {id_of[path.name]}
    os.chdir(root)  # however the path is spelled
    assert engine.search("label 0/../b.png", 2).own_id == id_of["b.png"]
    outside = shutil.copyfile(root / "b.png", tmp_path / "outside.png")
    for copy in (outside, outside.read_bytes()):
        assert engine.search(copy, 2).own_id == min(copies)


def test_an_own_folder_named_as_a_dataset_is_synced_as_a_folder(tmp_path):
    paint(tmp_path / "caltech101" / "1.png", 1)
    assert main(["--data", str(tmp_path / "caltech101"), *FAST]) == 0
    paint(tmp_path / "caltech101" / "2.png", 2)
    report, _ = sync_collection(Path("collections/caltech101"), progress=False)
    assert list(map(str, report.added)) == ["2.png"]


def test_sync_prints_one_document(root, capsys):
    assert main(["--data", str(root), *FAST, "--json"]) == 0
    capsys.readouterr()
    (root / "label 0/000.png").unlink()
    assert main(["--data", str(root), "--sync", "--json", "--metric", "l2"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["removed"] == ["label 0/000.png"]
    assert [update["taken_out"] for update in done["engines"]] == [1, 1]
    assert (done["created"]["metric"], done["created"]["images"]) == ("l2", 11)
    assert main(["--data", str(root), "--sync", "--json"]) == 0
    assert "created" not in json.loads(capsys.readouterr().out)


def test_a_stdout_that_cannot_encode_gets_what_it_can(tmp_path, monkeypatch):
    paint(tmp_path / "Bilder 图" / "1.png", 1)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["--data", "Bilder 图", *FAST]) == 0
    stdout.flush()
    assert b"Bilder-\\u56fe" in stdout.buffer.getvalue()


def test_a_home_that_the_shell_did_not_spell_out(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["--data", str(root), "--collections=~/cols", *FAST]) == 0
    assert (tmp_path / "home/cols/images/manifest.json").is_file()
    assert not Path("~").exists()
    capsys.readouterr()
    (root / "label 0/000.png").unlink()
    assert main(["--data", str(root), "--collections=~/cols", "--sync"]) == 0
    assert "1 removed" in capsys.readouterr().out
    make_images(tmp_path / "~old pictures", 3)
    assert main(["--data", "~old pictures", *FAST]) == 0
    capsys.readouterr()
    assert "~nobody-here/x" in error_of(capsys, "--data", "~nobody-here/x")


def test_every_command_finds_a_home_that_the_shell_did_not_spell_out(root, tmp_path, monkeypatch, capsys):
    from features import evaluate
    from gradio_app import app
    from search import __main__ as searching
    from search import annotate

    monkeypatch.setenv("HOME", str(tmp_path))
    assert extract_command.main(["--data", "~/images", "--out=~/cols/images", "--encoder", "fake"]) == 0
    assert main(["--data", str(root), "--collections=~/cols", *FAST]) == 0
    capsys.readouterr()
    for folder in (["--collections=~/cols", "images"], ["~/cols/images"]):
        assert annotate.main([*folder, "--maker", "label", "--quiet"]) == 0
    picture = str(root / "label 0" / "000.png")
    assert searching.main([picture, "--collections=~/cols", "--in", "images"]) == 0
    assert searching.main([picture, "--in=~/cols/images"]) == 0
    assert evaluate.main(["~/cols/images"]) == 0
    assert "images: fake" in capsys.readouterr().out
    monkeypatch.setattr(app, "check_port", lambda *_: None)
    monkeypatch.setattr(app, "share_arenas", lambda: None)
    with pytest.raises(SystemExit):
        app.main(["--collections=~old pictures"])  # which is nobody's home
    assert "no collection in ~old pictures/" in capsys.readouterr().err
    assert not Path("~").exists()


def test_every_command_writes_what_a_terminal_does_not_have(tmp_path, monkeypatch):
    """The work is done by then: an error would tell otherwise."""
    from features import evaluate

    make_images(tmp_path / "图", 12)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert extract_command.main(["--data", "图", "--out", "cols/图", "--encoder", "fake"]) == 0
    assert evaluate.main(["cols/图"]) == 0
    stdout.flush()
    assert stdout.buffer.getvalue().count(b"\\u56fe") == 2


def test_the_advice_works_from_where_one_is(root, monkeypatch, capsys):
    assert main(["--data", str(root), *FAST]) == 0
    advice = capsys.readouterr().out.splitlines()[-1]
    app, collections = ROOT / "gradio_app" / "app.py", Path("collections").resolve()
    assert advice == f"search it: python {app} --collections {collections} --data images"
    monkeypatch.chdir(ROOT)
    assert search_command(Path("collections/images")) == "python gradio_app/app.py --data images"
    elsewhere = Path("/pictures of mine/images")
    assert search_command(elsewhere) == ("python gradio_app/app.py --collections '/pictures of mine' --data images")


def test_a_downloaded_dataset_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    """data_download.sh puts it beside itself, wherever the command is run."""
    monkeypatch.setattr(command, "CHECKOUT", tmp_path / "checkout")
    said = error_of(capsys, "--data", "caltech", *FAST)
    assert f"{tmp_path / 'checkout'}" in said
    paint(tmp_path / "checkout/datasets/caltech101/cup/image_0001.png", 1)
    for number in range(2):
        path = tmp_path / f"checkout/datasets/caltech101/cup/{number}.jpg"
        shutil.copyfile(tmp_path / "checkout/datasets/caltech101/cup/image_0001.png", path)
    assert main(["--data", "caltech", *FAST]) == 0
    assert FeatureStore.open("collections/caltech101").labels() == {"cup": 2}


def test_a_run_without_options_keeps_what_the_manifest_knows(root, capsys):
    first = ["--data", str(root), *FAST, "--metric", "l2", "--seed", "7", "--engine", "ivfpq"]
    assert main(first) == 0
    for arguments in ([], ["--sync"]):
        assert main(["--data", str(root), *arguments]) == 0
        manifest = FeatureStore.open("collections/images").manifest
        assert manifest["metric"] == "l2"
        assert list(manifest["indexes"]) == ["ivfpq"]
        assert (manifest["indexes"]["ivfpq"]["asked"], manifest["indexes"]["ivfpq"]["seed"]) == ("Flat", 7)
        assert manifest["encoder"]["name"] == "fake"
    assert main(["--data", str(root), "--engine", "faiss"]) == 0
    manifest = FeatureStore.open("collections/images").manifest
    assert {name: entry["asked"] for name, entry in manifest["indexes"].items()} == {"ivfpq": "Flat", "faiss": "Flat"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/c/x"), "the disk is full: /c/x"),
        (OSError(errno.EROFS, "Read-only file system", "/c/x"), "the disk is read-only: /c/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/c"), "permission denied: /c"),
        (OSError(errno.EIO, "Input/output error", "/c"), "[Errno 5] Input/output error: '/c'"),
        (MemoryError(), "there is not enough memory"),
        (StoreError("of another\nencoder"), "of another encoder"),
        (sqlite3.OperationalError("something else"), "FOLDER cannot be written: something else"),
    ],
)
def test_the_real_cause_in_one_line(error, said, tmp_path):
    assert cause_of(error, tmp_path) == said.replace("FOLDER", str(tmp_path))


def test_a_file_that_may_not_grow_is_one_line(root):
    code = (
        "import resource, sys; from test_extract import FakeEncoder\n"
        "from features.encoders import register_encoder\n"
        "register_encoder('fake', lambda name, **options: FakeEncoder())\n"
        "from gradio_app.create_index import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        f"sys.exit(main(['--data', {str(root)!r}, '--encoder', 'fake', '--factory', 'Flat']))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    # Python 3.11 would keep of modules that it compiles what it could write.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "larger than is allowed" in line or "File too large" in line


def test_two_builds_at_once_leave_a_collection_that_opens(root, tmp_path):
    assert main(["--data", str(root), *FAST]) == 0
    code = (
        "import sys; from features.collection.store import FeatureStore\n"
        "from search.build import create_index\n"
        "for _ in range(4):\n"
        "    try: create_index(FeatureStore.open('collections/images'), engines=[sys.argv[1]], factory='Flat')\n"
        "    except ValueError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("ivfpq", "faiss")
    ]
    for build in builds:
        out, err = build.communicate()
        assert build.returncode == 0, err
        assert all("is being indexed by another process" in line for line in out.splitlines())
    engine = SearchEngine.open("collections/images")
    assert engine.engines == ("ivfpq", "faiss", "exact")
    listed = {entry["file"] for entry in engine.store.manifest["indexes"].values()}
    assert {path.name for path in engine.folder.glob("*.index")} == listed


def test_damaged_vectors_are_not_made_an_index_of(root):
    assert main(["--data", str(root), *FAST]) == 0
    folder = Path("collections/images")
    content = bytearray((folder / "features.npy").read_bytes())
    content[-7] ^= 1
    (folder / "features.npy").write_bytes(content)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=r"features\.npy is damaged"):
        create_index(FeatureStore.open(folder))
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["ivfpq", "faiss"])
def test_an_index_of_other_ids_is_refused_though_its_sums_are_right(root, name):
    assert main(["--data", str(root), *FAST]) == 0
    folder = Path("collections/images")
    (folder / "manifest.json").write_text(json.dumps(_with_shifted_ids(folder, name)))
    with pytest.raises(EngineError, match=f"{name}.*holds vectors of other pictures than the collection"):
        SearchEngine.open(folder)


def _with_shifted_ids(folder, name):
    """A manifest that lists an index of the same vectors under ids that are one larger."""
    store = FeatureStore.open(folder)
    entry = store.manifest["indexes"][name]
    vectors = np.asarray(store.features, np.float32)
    index = IndexFlat(12, metric="cosine") if name == "ivfpq" else FaissIndex(12, "Flat", metric="cosine")
    index.add_with_ids(vectors, store.ids + 1)
    save(index, folder / entry["file"]) if name == "ivfpq" else index.save(folder / entry["file"])
    entry["sha256"] = sha256_of(folder / entry["file"])
    return store.manifest


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "change",
    [
        {"generation": "one"},
        {"generation": None},
        {"count": -1},
        {"metric": "near"},
        {"indexes": {"ivfpq": {"file": "ivfpq.index"}}},
        {"indexes": {"ivfpq": []}},
        {"indexes": [1]},
        {"indexes": {"ivfpq": {"file": 7, "sha256": "x"}}},
        {"spaces": {"visual": 3}},
        {"spaces": {"tint": {"file": "tint.npy"}}},
        {"encoder": None},
        {"root": 3},
    ],
    ids=str,
)
def test_whatever_is_wrong_with_a_collection_is_an_error_of_its_own(root, change):
    assert main(["--data", str(root), *FAST]) == 0
    path = Path("collections/images/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    try:
        SearchEngine.open("collections/images")
    except (EngineError, StoreError) as error:
        assert str(error)


@pytest.mark.parametrize(
    "content", [nested(100_000), '{"format": 1}', "null", "", "\0", '{"format": ' + "9" * 5000 + "}"]
)
def test_whatever_stands_in_a_manifest_is_an_error_of_its_own(root, content):
    assert main(["--data", str(root), *FAST]) == 0
    Path("collections/images/manifest.json").write_text(content)
    with pytest.raises((EngineError, StoreError)):
        SearchEngine.open("collections/images")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("search.__main__", ["boat", "--in", "trip"]),
        ("search.annotate", ["trip", "--maker", "labels"]),
        ("search.doctor", ["trip"]),
        ("search.explain.__main__", ["trip", "--query", "0", "--export", "page"]),
        ("features.evaluate", ["trip"]),
        *((f"benchmarks.{name}", ["trip"]) for name in ("feedback", "mixed", "pictures", "tags", "words")),
    ],
)
def test_a_command_finds_a_collection_by_its_name_where_it_is_told_to_look(command, named, tmp_path, capsys):
    run = importlib.import_module(command).main
    for arguments, looked_at in ((["--collections", "kept"], "kept"), ([], "collections")):
        try:
            assert run([*named, *arguments]) != 0
            said = capsys.readouterr()
        except (StoreError, EngineError) as error:  # a benchmark lets it through
            said = error
        assert str(Path(looked_at, "trip")) in str(said)
