"""What installs is the index library, which needs numpy alone; what `make` installs finds the rooms from any folder."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ivfpq

ROOT = Path(__file__).resolve().parent.parent
OURS = ("IVFPQ_", "MAKE", "MFLAGS", "PIP_", "PYTHON")  # variables that a stranger's machine has not
ALONE = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}

TRY = """
import json, sys
from pathlib import Path
import numpy as np
import ivfpq

x = np.random.default_rng(0).standard_normal((600, 16), np.float32)
index = ivfpq.IndexIVFPQ(16, nlist=4, M=4)
index.train(x)
index.add(x)
found = index.search(x[:5], 3, nprobe=4)
ivfpq.save(index, "some.index")
again = ivfpq.load("some.index").search(x[:5], 3, nprobe=4)
print(json.dumps({
    "file": ivfpq.__file__,
    "version": ivfpq.__version__,
    "kernel": ivfpq.kernels.active(),
    "ids": found.ids.tolist(),
    "equal": bool((found.ids == again.ids).all() and (found.distances == again.distances).all()),
    "loaded": sorted({"numba", "scipy", "sklearn", "safetensors", "faiss"} & set(sys.modules)),
}))
"""


def said_by(command, folder):
    """What a command that succeeds prints, run in a folder and without the paths that tests have."""
    return subprocess.run(command, cwd=folder, env=ALONE, stdout=subprocess.PIPE, text=True, check=True).stdout


def environment_with(folder, *packages):
    """The Python of a new virtual environment in which these packages of ours are, and nothing else."""
    venv.create(folder)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(said_by([python, "-c", where], folder).strip())
    for package in packages:
        parts = {Path(file).parts[0] for file in metadata.files(package) or () if Path(file).parts[0] != ".."}
        for part in sorted(parts):
            (site / part).symlink_to(metadata.distribution(package).locate_file(part))
    return python


def pip(*arguments):
    said_by([sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)], ROOT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made of a copy: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for room in ("ivfpq", "features", "search", "gradio_app", "benchmarks", "tests"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", copy / "dist", copy)
    (made,) = (copy / "dist").glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_the_index_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ivfpq").rglob("*.py")}
    assert names == sources | {"ivfpq/py.typed"}
    assert f"\nVersion: {ivfpq.__version__}\n" in about
    needed = [line.partition(": ")[2] for line in about.splitlines() if line.startswith("Requires-Dist: ")]
    assert [line for line in needed if "extra ==" not in line] == ["numpy>=2"]
    assert {Requirement(line).name for line in needed} == {"numpy", "numba", "scikit-learn", "faiss-cpu"}


@pytest.mark.slow
def test_numpy_alone_is_enough(wheel, tmp_path):
    python = environment_with(tmp_path / "empty", "numpy")
    pip("--python", python, "install", "--no-index", wheel)  # fails if it needs more than is there
    found = json.loads(said_by([python, "-I", "-c", TRY], tmp_path))
    assert Path(found["file"]).is_relative_to(tmp_path / "empty")
    assert found["version"] == ivfpq.__version__
    assert found["kernel"] == "reference"
    assert [row[0] for row in found["ids"]] == list(range(5))  # each vector finds itself
    assert found["equal"]
    assert found["loaded"] == []
    door = subprocess.run([python, "-m", "ivfpq.benchmark"], cwd=tmp_path, env=ALONE, capture_output=True, text=True)
    assert door.returncode == 2
    assert door.stderr.count("\n") == 1
    assert "in a checkout" in door.stderr


def test_the_lock_keeps_what_the_library_asks_for():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    locked = {Requirement(line).name: Requirement(line) for line in lines if line}
    assert all(str(requirement.specifier).startswith("==") for requirement in locked.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (line for lines in project["optional-dependencies"].values() for line in lines)
    for wanted in map(Requirement, [*project["dependencies"], *extras]):
        (pin,) = locked[wanted.name].specifier
        assert wanted.specifier.contains(pin.version)


@pytest.mark.slow
def test_after_make_the_rooms_are_found_from_any_folder(tmp_path):
    project = tmp_path / "pro ject"
    project.mkdir()
    shutil.copy(ROOT / "Makefile", project)
    (project / "requirements.txt").write_text("")  # nothing to fetch
    (project / "features").mkdir()
    (project / "features" / "__init__.py").write_text("")
    subprocess.run(["make", ".venv/.installed", f"PYTHON={sys.executable}"], cwd=project, env=ALONE, check=True)
    code = "import features; print(features.__file__)"
    python = project / ".venv" / "bin" / "python"
    assert Path(said_by([python, "-c", code], tmp_path).strip()) == project / "features" / "__init__.py"


@pytest.mark.parametrize("name", ["app", "create_index"])
def test_a_command_is_run_by_its_path_from_any_folder(name, tmp_path):
    """In a Python that knows nothing of the checkout; flags of Python are handed on."""
    command = [sys.executable, "-X", "utf8", ROOT / "gradio_app" / f"{name}.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
