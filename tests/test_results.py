"""`make results` on little: every part is measured, and the documents say what was."""

import contextlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_benchmark import quick  # noqa: F401 (a fixture)

from benchmarks import codecs, results, studies
from benchmarks import command as benchmark
from benchmarks.data import synthetic
from features import evaluate
from gradio_app import create_index

ROOT = Path(__file__).resolve().parent.parent
LITTLE = {
    "fast-table": ["--n", "400", "--d", "32", "--repeats", "1"],
    "scaling": ["--n", "400", "--d", "16", "--repeats", "2"],
    "codecs": ["--queries", "40"],
    "abilities": [],
}
PEERS = ["--engines", "ivfpq,faiss,sklearn", "--factory", "IVF100,PQ8", "--threads", "1", "--repeats", "2"]


@pytest.fixture
def root(tmp_path):
    """The documents with their marks, and nothing measured."""
    for name in results.DOCUMENTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs").mkdir()
    return tmp_path


@pytest.fixture
def little(monkeypatch, tmp_path, quick):  # noqa: F811
    """The same programs in this process, on few vectors; returns the commands as they were given."""
    asked = []
    np.save(tmp_path / "x.npy", synthetic(340, 128, 0))
    for name in ("inverted_file_rows", "training_rows", "refinement_rows", "eight_byte_rows"):
        monkeypatch.setattr(studies, name, lambda data, args: [])  # test_benchmark has them
    monkeypatch.setattr(codecs, "BYTES", (4, 8))
    monkeypatch.setattr(codecs, "CODECS", codecs.CODECS[:2] + codecs.CODECS[-2:])

    def run(command, out):
        asked.append(command)
        command = command[command.index("python") :]  # behind what is set for it
        arguments = command[3:] if command[1] == "-m" else command[2:]
        program = {"ivfpq.benchmark": benchmark, "features.evaluate": evaluate}.get(command[2], create_index)
        if program is benchmark:
            arguments = [str(tmp_path / "x.npy") if word.endswith("features.npy") else word for word in arguments]
            study = dict(itertools.pairwise(arguments)).get("--study")
            arguments += LITTLE[study] if study else PEERS
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert program.main(arguments) == 0
        return printed.getvalue()

    monkeypatch.setattr(results, "run", run)
    return asked


@pytest.fixture
def collection(tmp_path, picture_folder):
    """Made of a dozen pictures."""
    made = ["--data", str(picture_folder), "--encoder", "efficientnet-lite0", "--name", "pictures"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert create_index.main([*made, "--collections", str(tmp_path / "collections")]) == 0
    return tmp_path / "collections" / "pictures"


@pytest.mark.slow
def test_every_part_is_measured_and_written(root, little, collection):
    for part in results.PARTS:
        results.measure(part, collection, root / "build", root)
    results.render(root)
    page = (root / "docs" / "RESULTS.md").read_text()
    assert "Not measured" not in page
    for part, command in zip(results.PARTS, little, strict=True):
        content = json.loads((root / "benchmarks" / "measured" / f"{part.name}.json").read_text())
        assert content["environment"]["command"].split() == command  # nothing in it needs quotes
        assert f"`{content['environment']['command']}`" in page
        assert f"## {part.title}" in page
        assert not part.figure or (root / "docs" / f"{part.name}.png").read_bytes().startswith(b"\x89PNG")
    assert "| sklearn" in page
    readme = (root / "README.md").read_text()
    assert "| ours IVF100,PQ8 " in readme
    assert "| ivfpq (ours) | Flat" in (root / "features/README.md").read_text()  # too few pictures for lists
    for name in results.DOCUMENTS:
        assert all(len(match[0].splitlines()) > 4 for match in results.MARKED.finditer((root / name).read_text()))

    before = {path: path.read_bytes() for path in root.rglob("*.md")}
    results.render(root)
    assert {path: path.read_bytes() for path in root.rglob("*.md")} == before


def test_only_what_was_measured_is_written(root):
    before = (root / "README.md").read_text()
    results.render(root)
    assert (root / "README.md").read_text() == before
    assert (root / "docs" / "RESULTS.md").read_text().count("Not measured yet") == len(results.PARTS)


def test_the_documents_are_what_was_measured(root):
    """A number that somebody types into a table, or a table that is not rendered again, is noticed."""
    shutil.copytree(ROOT / "benchmarks" / "measured", root / "benchmarks" / "measured")
    results.render(root)
    for name in ("docs/RESULTS.md", *results.DOCUMENTS):
        assert (root / name).read_text() == (ROOT / name).read_text(), f'run `make results ARGS="--render"` for {name}'


def test_a_mark_of_no_table_is_refused():
    with pytest.raises(ValueError, match="none of peers"):
        results.filled("<!-- results: pears -->\n<!-- end -->", {})


def test_every_part_that_a_readme_shows_has_a_mark():
    marks = [match[2] for name in results.DOCUMENTS for match in results.MARKED.finditer((ROOT / name).read_text())]
    assert sorted(marks) == ["codecs", "create", "encoders", "faiss", "peers", "scaling"]


def test_the_best_of_a_column_is_bold_whoever_it_is():
    rows = [["a", "1", "9"], ["b", "2", "-"], ["c", "2", "3"]]
    values = [[None, 1.0, 9.0], [None, 2.0, None], [None, 2.0, 3.0]]
    assert results.with_best(rows, values, [0, 1, -1]) == [
        ["a", "1", "9"],
        ["b", "**2**", "-"],
        ["c", "**2**", "**3**"],
    ]


def row(engine, query, recall, us):
    measured = {"recall": recall, "single_p50_us": us, "batch_us": us, "memory_bytes": 1e6, "train_s": 1, "add_s": 1}
    return {"engine": engine, "factory": "", "variant": "", "query": query, "threads": 1, **measured}


def test_the_short_table_has_of_each_index_the_quickest_setting_that_finds_enough():
    rows = [row("a", "slow", 0.99, 30), row("a", "right", 0.9, 20), row("a", "fast", 0.5, 1)]
    rows += [row("b", "poor", 0.3, 1), row("b", "better", 0.4, 9), {**row("b", "two", 1, 1), "threads": 2}]
    about = {"cpu": "x", "cores": 2, "date": "2020-01-01T00:00", "command": "y"}
    data = {"n": 9, "d": 3, "name": "z", "queries": 2, "k": 10}
    table = results.peers_short({"results": rows, "data": data, "repeats": 3, "environment": about})
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:4]] == ["right", "better"]


def test_a_part_that_fails_keeps_what_it_was(root, monkeypatch, collection, capsys):
    measured = root / "benchmarks" / "measured"
    measured.mkdir(parents=True)
    (measured / "abilities.json").write_text("{}")

    def run(command, out):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(results, "run", run)
    monkeypatch.setattr(results, "ROOT", root)
    monkeypatch.chdir(root)
    assert list(results.measured_parts(["abilities"], collection)) == ["abilities"]
    assert [path.name for path in measured.iterdir()] == ["abilities.json"]
    assert list(results.measured_parts(["peers"], Path("nowhere"))) == ["peers"]
    assert "./data_download.sh caltech" in capsys.readouterr().err


def test_a_command_is_run_as_it_is_shown(tmp_path):
    printed = results.run(["python", "-c", "import os; print(os.getcwd())"], tmp_path)
    assert os.path.samefile(printed.strip(), ROOT)  # noqa: PTH121
    assert re.fullmatch(r".+\n", (tmp_path / "output.txt").read_text())


def test_only_encoders_that_never_saw_the_images_are_lined_up(tmp_path):
    def make(name, count, argument):
        weights = {"argument": argument, "source": "x"}
        manifest = {"dataset": "d", "count": count, "encoder": {"name": "e", "weights": weights}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))

    for name, count, argument in (
        ("a", 9, None),
        ("b", 9, "IMAGENET1K_V2"),
        ("few", 3, None),
        ("tuned", 9, "weights/tuned.safetensors"),
    ):
        make(name, count, argument)
    command = results.encoders_command(tmp_path / "a", tmp_path)
    assert command[3:] == [str(tmp_path / "a"), str(tmp_path / "b"), "--json"]
